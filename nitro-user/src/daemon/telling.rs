//! Lines that wait for the name of their program.
//!
//! A load's first lines come before /proc was read for it. In: happenings as the engine tells them, and names as they are found out. Out: the same
//! happenings, those of one process in their order, with the name or after [`PATIENCE`] without. Overflow policy: with [`MOST`] waiting, the next is told
//! without its name.

use std::{collections::VecDeque, time::Duration};

use super::Audience;
use crate::{engine::happening::Happening, units::Moment};

/// How long a line waits: too short to be noticed, and long for reading /proc.
const PATIENCE: Duration = Duration::from_millis(100);

/// Lines that may wait.
const MOST: usize = 64;

/// The lines that wait, oldest first.
#[derive(Debug, Default)]
pub struct Telling {
    waiting: VecDeque<(Moment, Happening)>,
}

impl Telling {
    /// Tells it now, or once its program has a name.
    pub fn tell(&mut self, now: Moment, happening: Happening, audience: &mut impl Audience) {
        if let Some(name) = &happening.program {
            self.named(happening.process, name);
        }
        let behind = |(_, other): &(Moment, Happening)| other.process == happening.process;
        let waits = happening.program.is_none() || self.waiting.iter().any(behind);
        if waits && self.waiting.len() < MOST {
            self.waiting.push_back((now, happening));
        } else {
            audience.happening(&happening);
        }
    }

    /// A process has a name.
    pub fn named(&mut self, process: u32, name: &str) {
        for (_, happening) in &mut self.waiting {
            if happening.process == process {
                happening.program.get_or_insert_with(|| name.to_owned());
            }
        }
    }

    /// Tells what has its name or has waited for long.
    pub fn release(&mut self, now: Moment, audience: &mut impl Audience) {
        self.waiting.retain(|(since, happening)| {
            let waits = happening.program.is_none() && now.since(*since) < PATIENCE;
            if !waits {
                audience.happening(happening);
            }
            waits
        });
    }

    /// Tells everything.
    pub fn finish(&mut self, audience: &mut impl Audience) {
        for (_, happening) in self.waiting.drain(..) {
            audience.happening(&happening);
        }
    }

    /// When [`Telling::release`] is due.
    pub fn deadline(&self) -> Option<Moment> {
        self.waiting.front().map(|(since, _)| since.after(PATIENCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{daemon::Started, engine::happening::What, units::ByteCount};

    #[derive(Default)]
    struct Heard(Vec<(u32, What, Option<String>)>);

    impl Audience for Heard {
        fn started(&mut self, _: &Started) {}
        fn happening(&mut self, happening: &Happening) {
            self.0
                .push((happening.process, happening.what, happening.program.clone()));
        }
    }

    fn happening(process: u32, what: What, program: Option<&str>) -> Happening {
        Happening {
            what,
            model: "m".into(),
            program: program.map(Into::into),
            process,
            bytes: ByteCount(0),
            ceiling_percent: 0,
            note: String::new(),
        }
    }

    #[test]
    fn lines_wait_for_the_name_and_stay_in_order() {
        let (mut telling, mut heard) = (Telling::default(), Heard::default());
        let now = Moment(1_000_000_000);
        telling.tell(now, happening(1, What::Load, None), &mut heard);
        telling.tell(now, happening(2, What::Load, Some("dd")), &mut heard);
        telling.tell(now, happening(1, What::Warm, Some("cat")), &mut heard);
        telling.release(now, &mut heard);
        let (cat, dd) = (Some("cat".to_owned()), Some("dd".to_owned()));
        assert_eq!(
            heard.0,
            [(2, What::Load, dd), (1, What::Load, cat.clone()), (1, What::Warm, cat)]
        );
        assert_eq!(telling.deadline(), None);
    }

    #[test]
    fn no_line_waits_for_long_or_beyond_the_bound() {
        let (mut telling, mut heard) = (Telling::default(), Heard::default());
        let now = Moment(1_000_000_000);
        for process in 0..MOST as u32 + 1 {
            telling.tell(now, happening(process, What::Load, None), &mut heard);
        }
        assert_eq!(heard.0, [(MOST as u32, What::Load, None)]);
        assert_eq!(telling.deadline(), Some(now.after(PATIENCE)));
        telling.release(now.after(PATIENCE), &mut heard);
        assert_eq!(heard.0.len(), MOST + 1);
    }

    #[test]
    fn the_end_tells_everything() {
        let (mut telling, mut heard) = (Telling::default(), Heard::default());
        telling.tell(Moment(0), happening(1, What::Load, None), &mut heard);
        telling.finish(&mut heard);
        assert_eq!(heard.0.len(), 1);
    }
}
