//! Whether the machine has memory to spare for what nobody has asked for yet.
//!
//! In: what is available, how long anybody has waited for memory and for devices since the machine was started (PSI's `some`), and what the kernel has taken back and had to read
//! again. All is asked for while something could be warmed or is locked, and not otherwise. Out: how far to go. What is warmed is clean page cache, which the kernel takes back
//! before anything else; but taking it back costs whoever needs memory now, and reading it costs the device.

use std::time::Duration;

use crate::{
    engine::input::MachineMemory,
    units::{ByteCount, Moment, Rate},
};

/// So often it is asked while something could be warmed. With the answer's way, somebody who begins to stall has the device for himself within half a second.
pub const ASKED: Duration = Duration::from_millis(250);

/// The same while something is locked and memory is plentiful: a hog that takes it all takes longer.
pub const RELAXED: Duration = Duration::from_secs(1);

/// Share of the time between two answers in which somebody waited for memory that counts as strain: a tenth is what the kernel's own documentation takes for a machine that
/// should shed work (Documentation/accounting/psi.rst, 150 ms of a second).
const STALLED: f64 = 0.1;

/// Stalls count only where less than so many times the reserve is left: a container that is held to a limit of its own stalls on a machine with plenty of memory.
const NEAR: u64 = 4;

/// Once the reserve was touched, so much more must be there, or an eighth of it.
const MORE: u64 = 256 << 20;

/// The kernel begins to take pages back before nothing is free.
const LEAST_FREE: u64 = 64 << 20;

/// What stays free below a limit of the agent's own memory cgroup, after the pages of files that nobody uses.
const OWN_RESERVE: u64 = 64 << 20;

/// Strain is believed for so long after its last sign.
const CALM: Duration = Duration::from_secs(2);

/// Pages of somebody's working set that had to go and are read again at this rate: memory is worth more to others than to what nobody has asked for.
const CHURN: Rate = Rate(8e6);

/// The kernel takes so much back beside what is brought in: somebody streams, or grows.
const RECLAIM: Rate = Rate(16e6);

/// Signs of that are believed for so long.
const REST: Duration = Duration::from_secs(1);

/// Share of a time in which nothing of ours was on its way that somebody waited for a device.
const DEVICES_BUSY: f64 = 0.3;

/// How far to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strain {
    /// As far as the windows go.
    #[default]
    None,
    /// Others' pages go and come again: nothing for readers that were not seen yet.
    Churn,
    /// Somebody waits for memory: that, and little ahead of the other readers.
    Stalls,
    /// The reserve is touched: nothing.
    Short,
}

impl Strain {
    /// For people; nothing without strain.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Churn => {
                Some("what others use goes from memory and is read again: nothing is warmed before its reader is seen")
            }
            Self::Stalls => {
                Some("programs wait for memory: little is warmed ahead of readers, nothing before they are seen")
            }
            Self::Short => Some("memory is short: nothing is warmed"),
        }
    }
}

/// What the agent itself has done since the last answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    /// Bytes that it brought in.
    pub gained: u64,
    /// Bytes of watched files that somebody read.
    pub read: u64,
    /// Bytes that are being brought in: the kernel has counted them, and no outcome has.
    pub on_its_way: u64,
    /// Nothing of it was on its way.
    pub idle: bool,
}

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub struct Pressure {
    /// Bytes that are to stay available.
    reserve: u64,
    asked: Option<Moment>,
    told: Option<(Moment, MachineMemory)>,
    short: bool,
    /// Somebody stalled, until then.
    stalls_until: Moment,
    /// Somebody read his working set again, until then.
    churn_until: Moment,
    /// Signs of that, one after the other.
    churns: u32,
    /// The kernel took pages back for others, until then.
    reclaim_until: Moment,
    /// Somebody waited for a device, until then.
    devices_until: Moment,
}

impl Pressure {
    /// Nothing is known.
    pub fn new(reserve: ByteCount) -> Self {
        Self {
            reserve: reserve.0,
            ..Self::default()
        }
    }

    /// Whether it is time to ask; then it counts as asked.
    pub fn ask(&mut self, now: Moment) -> bool {
        let is_due = self.asked.is_none_or(|asked| now.since(asked) >= ASKED);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }

    /// When to ask next.
    pub fn deadline(&self) -> Option<Moment> {
        self.asked.map(|asked| asked.after(ASKED))
    }

    /// When to ask next where nothing is being brought in and what is locked is all that is at stake: while there is plenty, less often. Under a limit of the agent's own there never is:
    /// it is full before long, and others may have gone round in it several times within a second.
    pub fn relaxed_deadline(&self, now: Moment) -> Moment {
        let is_near = self.is_near() || self.room().is_some() || self.strain(now) != Strain::None;
        let pause = if is_near { ASKED } else { RELAXED };
        self.asked.map_or(now, |asked| asked.after(pause))
    }

    /// The machine's memory is so, and the agent itself has done this since it was asked last.
    pub fn told(&mut self, now: Moment, memory: MachineMemory, own: Own) {
        let before = self.told.replace((now, memory));
        // What was freed a moment ago is not spent at once.
        self.short = if self.short {
            self.missing() > 0
        } else {
            memory.available.0 < self.reserve || memory.room.is_some_and(|room| room.0 < OWN_RESERVE)
        };
        let Some((at, before)) = before else { return };
        let time = now.since(at);
        let share = |after: Duration, before: Duration| after.saturating_sub(before).as_secs_f64() / time.as_secs_f64();
        let rate = |after: ByteCount, before: ByteCount| {
            // What is brought in may be what had gone, and something else goes for it. And a model that is read again is what all this is for. Rather too much than too little: these
            // are counted elsewhere, and at other moments.
            let ours = own.gained + own.read + own.on_its_way;
            let others = after.0.saturating_sub(before.0).saturating_sub(ours);
            Rate::over(others, time)
        };
        if self.is_near() && share(memory.stalled, before.stalled) > STALLED {
            self.stalls_until = now.after(CALM);
        }
        if rate(memory.restored, before.restored) >= CHURN {
            self.churns = if now < self.churn_until { self.churns + 1 } else { 1 };
            self.churn_until = now.after(REST);
        }
        if rate(memory.reclaimed, before.reclaimed) >= RECLAIM {
            self.reclaim_until = now.after(REST);
        }
        if own.idle && own.gained == 0 && share(memory.devices_stalled, before.devices_stalled) > DEVICES_BUSY {
            self.devices_until = now.after(REST);
        }
    }

    fn is_near(&self) -> bool {
        let (available, reserve) = (self.available(), self.reserve);
        available < reserve.saturating_mul(NEAR) || self.room().is_some_and(|room| room < NEAR * OWN_RESERVE)
    }

    fn available(&self) -> u64 {
        self.told.map_or(0, |(_, memory)| memory.available.0)
    }

    fn room(&self) -> Option<u64> {
        self.told.and_then(|(_, memory)| Some(memory.room?.0))
    }

    /// Bytes that may be taken beside the reserve, as of a moment ago; nothing where that is not known.
    pub fn spare(&self, now: Moment) -> Option<u64> {
        let (at, _) = self.told?;
        let machine = self.available().saturating_sub(self.reserve);
        let own = self.room().map_or(u64::MAX, |room| room.saturating_sub(OWN_RESERVE));
        (now.since(at) < 2 * ASKED).then_some(machine.min(own))
    }

    /// Of what may be taken, bytes that nobody has: what is brought in there drives nothing out.
    pub fn free(&self, now: Moment) -> Option<u64> {
        let (_, memory) = self.told?;
        Some(self.spare(now)?.min(memory.free.0.saturating_sub(LEAST_FREE)))
    }

    /// Bytes that are missing until the reserve is whole again.
    pub fn missing(&self) -> u64 {
        let margin = (self.reserve / 8).min(MORE);
        let machine = self.reserve.saturating_add(margin).saturating_sub(self.available());
        let own = self
            .room()
            .map_or(0, |room| (OWN_RESERVE + OWN_RESERVE / 8).saturating_sub(room));
        machine.max(own)
    }

    /// How far to go.
    pub fn strain(&self, now: Moment) -> Strain {
        if self.short {
            Strain::Short
        } else if now < self.stalls_until {
            Strain::Stalls
        } else if now < self.churn_until {
            Strain::Churn
        } else {
            Strain::None
        }
    }

    /// Whether what is held is missing to others: memory is short, or they wait for it, or read again what they had to give up under a limit that is ours as well, or on a machine
    /// that has little left. Where a container is held to a limit of its own, nothing of ours is what it lacks.
    pub fn presses(&self, now: Moment) -> bool {
        match self.strain(now) {
            Strain::None => false,
            // Once it may be a program that begins and reads its own code again.
            Strain::Churn => self.churns > 1 && (self.room().is_some() || self.is_near()),
            Strain::Stalls | Strain::Short => true,
        }
    }

    /// Whether what nobody waits for may be begun: nobody takes memory, and nobody waits for a device.
    pub fn is_calm(&self, now: Moment) -> bool {
        self.strain(now) == Strain::None && now >= self.reclaim_until && now >= self.devices_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn at(milliseconds: u64) -> Moment {
        Moment(milliseconds * 1_000_000)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn available(bytes: u64) -> MachineMemory {
        MachineMemory {
            available: ByteCount(bytes),
            ..MachineMemory::default()
        }
    }

    fn stalled(available: u64, milliseconds: u64) -> MachineMemory {
        MachineMemory {
            available: ByteCount(available),
            stalled: ms(milliseconds),
            ..MachineMemory::default()
        }
    }

    #[test]
    fn the_reserve_is_left_alone_and_what_comes_back_is_not_spent_at_once() {
        let mut pressure = Pressure::new(ByteCount(8 * GIB));
        assert_eq!(pressure.strain(at(0)), Strain::None);
        let mut strain = |moment, bytes| {
            pressure.told(at(moment), available(bytes), Own::default());
            pressure.strain(at(moment))
        };
        assert_eq!(strain(0, 8 * GIB), Strain::None);
        assert_eq!(strain(250, 8 * GIB - 1), Strain::Short);
        assert_eq!(strain(500, 8 * GIB + 1), Strain::Short);
        assert_eq!(strain(750, 8 * GIB + MORE), Strain::None);
    }

    #[test]
    fn the_limit_of_the_own_cgroup_counts_as_well() {
        let mut pressure = Pressure::new(ByteCount(GIB));
        let told = |room: u64| MachineMemory {
            room: Some(ByteCount(room)),
            ..available(64 * GIB)
        };
        pressure.told(at(0), told(GIB), Own::default());
        assert_eq!(pressure.strain(at(0)), Strain::None);
        assert_eq!(pressure.spare(at(0)), Some(GIB - OWN_RESERVE));
        pressure.told(at(250), told(OWN_RESERVE - 1), Own::default());
        assert_eq!(pressure.strain(at(250)), Strain::Short);
        assert!(pressure.missing() > 0 && pressure.spare(at(250)) == Some(0));
    }

    #[test]
    fn stalls_count_for_a_while_where_little_is_left() {
        let mut pressure = Pressure::new(ByteCount(GIB));
        let mut strain = |moment, bytes, waited| {
            pressure.told(at(moment), stalled(bytes, waited), Own::default());
            pressure.strain(at(moment))
        };
        assert_eq!(strain(0, 2 * GIB, 5000), Strain::None, "it is not known since when");
        assert_eq!(strain(250, 2 * GIB, 5020), Strain::None, "8 %");
        assert_eq!(strain(500, 2 * GIB, 5050), Strain::Stalls);
        assert_eq!(strain(2499, 2 * GIB, 5050), Strain::Stalls);
        assert_eq!(strain(2500, 2 * GIB, 5050), Strain::None);
        // A container at its limit, on a machine with plenty.
        assert_eq!(strain(2750, 16 * GIB, 7000), Strain::None);
    }

    #[test]
    fn what_others_lose_and_read_again_counts_beside_what_we_bring_in() {
        let told = |restored: u64| MachineMemory {
            restored: ByteCount(restored),
            ..available(64 * GIB)
        };
        for (gained, strain) in [(0, Strain::Churn), (GIB, Strain::None)] {
            let mut pressure = Pressure::new(ByteCount(GIB));
            pressure.told(at(0), told(5 * GIB), Own::default());
            pressure.told(
                at(250),
                told(5 * GIB + (4 << 20)),
                Own {
                    gained,
                    idle: true,
                    ..Own::default()
                },
            );
            assert_eq!(pressure.strain(at(250)), strain);
            assert_eq!(pressure.is_calm(at(250)), strain == Strain::None);
            assert_eq!(pressure.strain(at(1250)), Strain::None);
        }
    }

    #[test]
    fn what_others_read_again_presses_where_they_share_a_limit_with_us_and_not_when_it_is_a_model() {
        let told = |room, restored: u64| MachineMemory {
            restored: ByteCount(restored),
            room,
            ..available(64 * GIB)
        };
        let room = Some(ByteCount(GIB));
        for (room, read, presses) in [(room, 0, true), (None, 0, false), (room, 4 << 20, false)] {
            let mut pressure = Pressure::new(ByteCount(GIB));
            pressure.told(at(0), told(room, GIB), Own::default());
            let own = Own { read, ..Own::default() };
            pressure.told(at(250), told(room, GIB + (4 << 20)), own);
            assert!(!pressure.presses(at(250)), "once is not enough");
            pressure.told(at(500), told(room, GIB + (8 << 20)), own);
            assert_eq!(pressure.presses(at(500)), presses, "{room:?}, {read}");
            assert!(!pressure.presses(at(1500)));
        }
    }

    #[test]
    fn nothing_is_begun_while_others_stream_or_wait_for_a_device() {
        let streaming = MachineMemory {
            reclaimed: ByteCount(GIB),
            ..available(64 * GIB)
        };
        let waiting = MachineMemory {
            devices_stalled: ms(200),
            ..available(64 * GIB)
        };
        for after in [streaming, waiting] {
            let mut pressure = Pressure::new(ByteCount(GIB));
            pressure.told(at(0), available(64 * GIB), Own::default());
            let idle = Own {
                idle: true,
                ..Own::default()
            };
            pressure.told(at(250), after, idle);
            assert_eq!(pressure.strain(at(250)), Strain::None);
            assert!(!pressure.is_calm(at(250)) && pressure.is_calm(at(1250)));
        }
        // Who waits while we read may wait for us, or be us.
        let mut pressure = Pressure::new(ByteCount(GIB));
        pressure.told(at(0), available(64 * GIB), Own::default());
        pressure.told(at(250), waiting, Own::default());
        assert!(pressure.is_calm(at(250)));
    }

    #[test]
    fn it_is_asked_four_times_a_second() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.deadline(), None);
        assert!(pressure.ask(at(0)) && !pressure.ask(at(249)));
        assert_eq!(pressure.deadline(), Some(at(250)));
        assert!(pressure.ask(at(250)));
    }
}
