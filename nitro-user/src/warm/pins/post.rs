//! The thread of a file system: does what waits, with a process that holds.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    Opener, PinEvent, Refusal, Refused, Shared,
    jobs::{Job, Jobs, Letting, Next},
};
use crate::{
    sys::{
        accounts::{Account, Accounts},
        cgroup,
        charged::Look,
    },
    units::{ByteCount, ByteRange, PinId, Ranges, STEP},
    warm::keeper::{self, Hired, MOST_RANGES},
};

/// What is looked at and locked at a time: some milliseconds even in small folios, so that what is to be let go of waits no longer.
const CHUNK: u64 = 4 * STEP;

/// How often it is asked whether those who are charged for what is held have been given limits. A cgroup that gets one pushes out what it can at once; what is held cannot go.
const AUDIT: Duration = Duration::from_secs(5);

/// Attempts at a chunk whose pages go while they are locked.
const ATTEMPTS: usize = 3;

/// A pin.
struct Pin {
    file: io::Result<File>,
    size: u64,
    /// Whether the process has it mapped.
    mapped: bool,
    locked: Ranges,
    /// Numbers of the cgroups that are charged for it, but for our own; `None` among them: some that is not told.
    charged: HashSet<Option<u64>>,
}

/// The thread's own.
pub(super) struct Post {
    shared: Arc<Shared>,
    jobs: Arc<Jobs>,
    hired: Option<Hired>,
    pins: HashMap<PinId, Pin>,
    accounts: Accounts,
    audited: Instant,
}

/// Why a chunk was left.
enum Stop {
    /// The whole request is of no use any more.
    Off,
    /// The process has ended.
    Lost,
    /// Nothing more of this request can be held.
    Refused(Refusal),
}

impl Stop {
    /// What an answer of the process says.
    fn of(error: &io::Error) -> Self {
        if keeper::has_ended(error) {
            Self::Lost
        } else {
            Self::Refused(system(error))
        }
    }
}

/// What is found out about a request, chunk by chunk.
#[derive(Default)]
struct Sum {
    missing: u64,
    refused: Option<Refused>,
}

impl Sum {
    fn refuse(&mut self, bytes: u64, why: Refusal) {
        let refused = self.refused.get_or_insert(Refused {
            bytes: ByteCount(0),
            why,
        });
        refused.bytes.0 += bytes;
    }
}

impl Post {
    pub(super) fn new(shared: Arc<Shared>, jobs: Arc<Jobs>) -> Self {
        Self {
            shared,
            jobs,
            hired: None,
            pins: HashMap::new(),
            accounts: Accounts::new(cgroup::of_process(std::process::id())),
            audited: Instant::now(),
        }
    }

    /// Does what waits until nothing does and nothing is held.
    pub(super) fn run(mut self) {
        loop {
            match self.jobs.next(self.pins.is_empty()) {
                Next::Release(pins) => pins.into_iter().for_each(|letting| self.release(letting)),
                Next::Do(Job::Open { pin, size, opener }) => self.open(pin, size, opener),
                Next::Do(Job::Hold { pin, range }) => self.hold(pin, range),
                Next::Nothing => self.wait(),
                Next::End => break,
            }
            if self.pins.values().all(|pin| pin.locked.is_empty())
                && let Some(hired) = self.hired.take()
            {
                // It takes nothing where it holds nothing.
                self.pins.values_mut().for_each(|pin| pin.mapped = false);
                hired.end();
            }
        }
        let held: u64 = self.pins.values().map(|pin| pin.locked.bytes()).sum();
        self.shared.give_back(held);
        if let Some(hired) = self.hired.take() {
            hired.end();
        }
    }

    fn tell(&self, event: PinEvent) {
        // Nobody listens only when the agent ends.
        let _ = self.shared.events.blocking_send(event);
    }

    fn open(&mut self, pin: PinId, size: u64, opener: Opener) {
        let pinned = Pin {
            file: opener(),
            size,
            mapped: false,
            locked: Ranges::default(),
            charged: HashSet::new(),
        };
        self.pins.insert(pin, pinned);
    }

    /// Holds what can be held of a range, and tells.
    fn hold(&mut self, pin: PinId, range: ByteRange) {
        self.accounts.renew();
        let mut sum = Sum::default();
        let mut at = range.start;
        while at < range.end {
            let end = (at / CHUNK + 1).saturating_mul(CHUNK).min(range.end);
            match self.chunk(pin, ByteRange { start: at, end }, &mut sum) {
                Ok(()) => {}
                Err(Stop::Off) => return,
                Err(Stop::Lost) => return self.lost(),
                Err(Stop::Refused(why)) => {
                    sum.refuse(0, why);
                    break;
                }
            }
            while self.jobs.is_urgent() && !self.jobs.is_off(pin) {
                if let Next::Release(pins) = self.jobs.next(false) {
                    pins.into_iter().for_each(|letting| self.release(letting));
                }
            }
            at = end;
        }
        let locked = self.pins.get(&pin).map_or(0, |pin| within(&pin.locked, range));
        self.tell(PinEvent::Held {
            pin,
            range,
            locked: ByteCount(locked),
            missing: ByteCount(sum.missing),
            refused: sum.refused,
        });
    }

    fn chunk(&mut self, pin: PinId, chunk: ByteRange, sum: &mut Sum) -> Result<(), Stop> {
        let mut attempts = 0;
        loop {
            if self.jobs.is_off(pin) {
                return Err(Stop::Off);
            }
            attempts += 1;
            let mut of_attempt = Sum::default();
            let stayed = self.attempt(pin, chunk, &mut of_attempt)?;
            if !stayed && attempts < ATTEMPTS {
                continue;
            }
            if !stayed {
                of_attempt.refuse(0, Refusal::Gone);
            }
            sum.missing += of_attempt.missing;
            if let Some(Refused { bytes, why }) = of_attempt.refused {
                sum.refuse(bytes.0, why);
            }
            return Ok(());
        }
    }

    /// Looks at a chunk, and has locked what may be. False when some of it went meanwhile: then nothing of it that was not locked before is.
    fn attempt(&mut self, pin: PinId, chunk: ByteRange, sum: &mut Sum) -> Result<bool, Stop> {
        let Self {
            shared,
            hired,
            pins,
            accounts,
            ..
        } = self;
        let Some(pinned) = pins.get_mut(&pin) else {
            return Err(Stop::Refused(unknown_pin()));
        };
        let file = match &pinned.file {
            Ok(file) => file,
            Err(error) => return Err(Stop::Refused(system(error))),
        };
        let chunk = chunk.common(ByteRange::new(0, pinned.size));
        let todo = pinned.locked.without(chunk);
        if todo.is_empty() {
            return Ok(true);
        }
        let books = shared.keeper.books();
        // Where steps begin folios do, too: older kernels tell of the first page of a folio alone.
        let start = chunk.start / STEP * STEP;
        let look = books.look(file, ByteRange { start, ..chunk }).map_err(refused)?;
        let mut wanted: Vec<ByteRange> = Vec::new();
        let mut charged = HashSet::new();
        for part in todo {
            for step in part.steps() {
                let part = part.common(ByteRange::new(step * STEP, STEP));
                let resident = look.resident(part);
                let bytes: u64 = resident.iter().map(|range| range.len()).sum();
                sum.missing += part.len() - bytes;
                match judge(&look, part, accounts, books.silent()) {
                    Ok(numbers) => {
                        charged.extend(numbers);
                        wanted.extend(resident);
                    }
                    Err(why) => sum.refuse(bytes, why),
                }
            }
        }
        // From one step to the next there is no gap.
        let wanted: Ranges = wanted.into_iter().collect();
        if wanted.is_empty() {
            return Ok(true);
        }
        if !shared.take(wanted.bytes()) {
            let most = shared.keeper.most();
            sum.refuse(wanted.bytes(), Refusal::Full { most });
            return Ok(true);
        }
        let locked = lock(shared, hired, pin, pinned, &wanted);
        let wanted_bytes = wanted.bytes();
        match locked {
            Ok(()) if look.stayed(wanted.iter()) != Some(false) => {
                wanted.iter().for_each(|range| pinned.locked.add(range));
                let own = accounts.own_number();
                pinned
                    .charged
                    .extend(charged.into_iter().filter(|number| *number != own || own.is_none()));
                Ok(true)
            }
            Ok(()) => {
                shared.give_back(wanted_bytes);
                // What went was read again for it, on whose account is not known.
                unlock(hired.as_ref(), pin, &wanted)?;
                Ok(false)
            }
            Err(stop) => {
                shared.give_back(wanted_bytes);
                if !matches!(stop, Stop::Lost) {
                    unlock(hired.as_ref(), pin, &wanted)?;
                }
                Err(stop)
            }
        }
    }

    fn release(&mut self, letting: Letting) {
        let pin = letting.pin;
        let Some(bytes) = self.let_go(pin).or(letting.unopened.then_some(0)) else {
            return;
        };
        self.tell(PinEvent::Released {
            pin,
            bytes: ByteCount(bytes),
        });
    }

    /// Lets go of a pin; bytes that were locked, or `None` where there is no such pin.
    fn let_go(&mut self, pin: PinId) -> Option<u64> {
        let pinned = self.pins.remove(&pin)?;
        let bytes = pinned.locked.bytes();
        if pinned.mapped
            && let Some(hired) = &self.hired
            && let Err(error) = hired.release(pin)
        {
            // It has ended, which lets go of everything: of the others that is told next.
            tracing::debug!(%error, "a process that holds pins did not answer");
        }
        self.shared.give_back(bytes);
        Some(bytes)
    }

    /// The process has ended.
    fn lost(&mut self) {
        let Some(hired) = self.hired.take() else { return };
        let end = hired.end();
        let lost: Vec<(PinId, Pin)> = self.pins.drain().collect();
        let bytes = lost.iter().map(|(_, pin)| pin.locked.bytes()).sum();
        let pins: Vec<PinId> = lost.iter().map(|(pin, _)| *pin).collect();
        self.shared.give_back(bytes);
        self.jobs.drop_holds(&pins);
        self.tell(PinEvent::Lost {
            pins,
            bytes: ByteCount(bytes),
            end,
        });
    }

    /// Waits for something to do, for the end of the process, or for the next audit.
    fn wait(&mut self) {
        let watched = self.pins.values().any(|pin| !pin.charged.is_empty());
        let left = AUDIT.saturating_sub(self.audited.elapsed());
        let most = match watched {
            true => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::NONE),
            false => PollTimeout::NONE,
        };
        let mut fds = vec![PollFd::new(self.jobs.bell(), PollFlags::POLLIN)];
        fds.extend(
            self.hired
                .as_ref()
                .map(|hired| PollFd::new(hired.socket.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut fds, most) {
            Ok(0) => self.audit(),
            Ok(_) => {
                let ended = fds.get(1).is_some_and(|fd| fd.any() == Some(true));
                self.jobs.silence();
                // It says nothing unasked.
                if ended {
                    self.lost();
                }
            }
            Err(Errno::EINTR) => {}
            // No memory for it: what there is to do is asked for once more.
            Err(_) => std::thread::yield_now(),
        }
    }

    /// Lets go of what is on the account of those who have been given a limit.
    fn audit(&mut self) {
        self.audited = Instant::now();
        self.accounts.renew();
        let silent = self.shared.keeper.books().silent().map(str::to_owned);
        let mut anybody = None;
        let mut doomed = Vec::new();
        for (id, pin) in &self.pins {
            for number in &pin.charged {
                let accounts = &mut self.accounts;
                let account = match number {
                    Some(number) => accounts.numbered(*number),
                    None => anybody.get_or_insert_with(|| accounts.anybody_limited()).clone(),
                };
                if let Some(why) = objection(account, number.is_none(), silent.as_deref()) {
                    doomed.push((*id, why));
                    break;
                }
            }
        }
        for (pin, why) in doomed {
            if let Some(bytes) = self.let_go(pin) {
                self.tell(PinEvent::Withdrawn {
                    pin,
                    bytes: ByteCount(bytes),
                    why,
                });
            }
        }
    }
}

/// Has ranges locked, by a process that is made if there is none.
fn lock(shared: &Shared, hired: &mut Option<Hired>, pin: PinId, pinned: &mut Pin, wanted: &Ranges) -> Result<(), Stop> {
    let process = match hired {
        Some(process) => process,
        none => none.insert(shared.keeper.hire().map_err(refused)?),
    };
    if !pinned.mapped
        && let Ok(file) = &pinned.file
    {
        process.map(pin, file, pinned.size).map_err(|error| Stop::of(&error))?;
        pinned.mapped = true;
    }
    let ranges: Vec<ByteRange> = wanted.iter().collect();
    for some in ranges.chunks(MOST_RANGES) {
        process.lock(pin, some).map_err(|error| {
            match (process.allowance.most, error.raw_os_error()) {
                (most @ Some(_), Some(libc::EPERM | libc::ENOMEM)) => Stop::Refused(Refusal::Allowance { most }),
                // Rights of a container that are none to the kernel.
                (None, Some(libc::EPERM)) => Stop::Refused(Refusal::Allowance { most: None }),
                _ => Stop::of(&error),
            }
        })?;
    }
    Ok(())
}

fn unlock(hired: Option<&Hired>, pin: PinId, ranges: &Ranges) -> Result<(), Stop> {
    let Some(process) = hired else { return Ok(()) };
    let ranges: Vec<ByteRange> = ranges.iter().collect();
    for some in ranges.chunks(MOST_RANGES) {
        match process.unlock(pin, some) {
            Err(error) if keeper::has_ended(&error) => return Err(Stop::Lost),
            // It was not mapped.
            _ => {}
        }
    }
    Ok(())
}

/// The numbers of those who are charged for a part, if it may be locked.
fn judge(
    look: &Look<'_>,
    part: ByteRange,
    accounts: &mut Accounts,
    silent: Option<&str>,
) -> Result<Vec<Option<u64>>, Refusal> {
    if !accounts.are_kept() {
        return Ok(Vec::new());
    }
    let mut numbers = Vec::new();
    for (number, _) in look.charged(part) {
        let account = match number {
            Some(number) => accounts.numbered(number),
            None => accounts.anybody_limited(),
        };
        match objection(account, number.is_none(), silent) {
            Some(why) => return Err(why),
            None => numbers.push(number),
        }
    }
    Ok(numbers)
}

/// What speaks against locking what is on this account; `untold`: the account was not told, and this is the worst there is.
fn objection(account: Account, untold: bool, silent: Option<&str>) -> Option<Refusal> {
    let silent = silent.unwrap_or("the kernel does not tell of some pages");
    match account {
        Account::Free => None,
        Account::Limited { group, limit } if untold => Some(Refusal::Unknown {
            why: format!("{silent}, and {group} has a limit of {} at {}", limit.bytes, limit.name),
        }),
        Account::Limited { group, limit } => Some(Refusal::Foreign { group, limit }),
        Account::Hidden if untold => Some(Refusal::Unknown {
            why: format!("{silent}, and not all cgroups can be seen"),
        }),
        Account::Hidden => Some(Refusal::Unknown {
            why: "the cgroup that is charged cannot be seen from here".into(),
        }),
    }
}

fn within(locked: &Ranges, range: ByteRange) -> u64 {
    locked.within(range).iter().map(|part| part.len()).sum()
}

fn unknown_pin() -> Refusal {
    Refusal::System {
        error: "there is no such pin".into(),
    }
}

fn system(error: &io::Error) -> Refusal {
    Refusal::System {
        error: error.to_string(),
    }
}

fn refused(error: io::Error) -> Stop {
    Stop::Refused(system(&error))
}
