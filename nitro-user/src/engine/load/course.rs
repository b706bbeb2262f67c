//! In which order the readers go through their model, and what of that was known before they came.

use std::{ops::Range, sync::Arc};

use crate::{
    catalog::model::Model,
    engine::predict::order::{Collector, Follower, Following, Kind, Known, Seen},
    units::STEP,
};

/// So many steps that nobody had ever read make what was known of the others void.
const NEWS: u32 = 2;

/// One load's way.
#[derive(Debug)]
pub struct Course {
    collector: Collector,
    /// Steps of all parts.
    steps: u64,
    known: Option<Arc<Known>>,
    follower: Follower,
    following: Following,
    /// Steps read, …
    read: u64,
    /// … and among them those that were believed to be left out.
    news: u32,
    /// Not everything that is read is told.
    is_silent: bool,
}

impl Course {
    /// Nothing was read yet, and nothing is known.
    pub fn new(model: &Model) -> Self {
        Self {
            collector: Collector::new(model.parts.iter().map(|part| part.size)),
            steps: model.parts.iter().map(|part| part.size.div_ceil(STEP)).sum(),
            known: None,
            follower: Follower::default(),
            following: Following::Astray,
            read: 0,
            news: 0,
            is_silent: false,
        }
    }

    /// So it was read before, as far as anybody knows.
    pub fn recall(&mut self, known: Option<Known>) {
        let is_same = self.known.as_deref() == known.as_ref();
        if !is_same {
            self.follower = Follower::default();
            self.following = if self.read == 0 {
                Following::Along
            } else {
                Following::Astray
            };
            self.known = known.map(Arc::new);
        }
    }

    /// Steps of a part were asked for, by readers at `places` places for whom `window` steps may be warmed ahead.
    pub fn demanded(&mut self, part: usize, steps: Range<u64>, window: u64, places: usize) {
        for step in steps {
            if !self.collector.demanded(part, step) {
                continue;
            }
            self.read += 1;
            let Some(known) = &self.known else { continue };
            // Both are small enough: the collector took them.
            let (part, step) = (part as u32, step as u32);
            self.news += u32::from(known.is_unread(part, step));
            if known.kind == Kind::Own {
                let window = u32::try_from(window).unwrap_or(u32::MAX).max(1);
                self.following = self.follower.moved(&known.order, part, step, window, places);
            }
        }
    }

    /// The order that is to be followed: another than the file's, which was known before, and is still the readers'.
    pub fn order(&self) -> Option<&Arc<Known>> {
        let known = self.known.as_ref()?;
        (known.kind == Kind::Own && self.following == Following::Along).then_some(known)
    }

    /// Whether it is known that the model is read otherwise than from end to end.
    pub fn is_its_own(&self) -> bool {
        self.trusted().is_some_and(|known| {
            let read = u64::from(known.order.steps());
            known.kind == Kind::Own || known.is_sure() && read < self.steps
        })
    }

    /// Whether a step is never read.
    pub fn leaves_out(&self, part: usize, step: u64) -> bool {
        let (Ok(part), Ok(step)) = (u32::try_from(part), u32::try_from(step)) else {
            return false;
        };
        self.trusted().is_some_and(|known| known.is_unread(part, step))
    }

    /// Whether nothing of a part is ever read.
    pub fn leaves_out_part(&self, part: usize) -> bool {
        let known = self.trusted().zip(u32::try_from(part).ok());
        known.is_some_and(|(known, part)| known.is_unread_part(part))
    }

    fn trusted(&self) -> Option<&Known> {
        self.known.as_deref().filter(|_| self.news < NEWS)
    }

    /// Not everything that is read is told.
    pub const fn note_silence(&mut self) {
        self.is_silent = true;
    }

    /// Whether it is so.
    pub const fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// What was read, and in which order, if all of it was told.
    pub fn finish(&mut self, model: &Model, places: usize) -> Option<Seen> {
        let collector = std::mem::replace(&mut self.collector, Collector::new(model.parts.iter().map(|_| 0)));
        (!self.is_silent && self.read > 0).then(|| collector.finish(places))
    }
}
