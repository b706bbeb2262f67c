//! A page cache with steps as its grain; the step used longest ago goes first.

use std::collections::{BTreeMap, HashMap};

/// Part and step.
pub type Place = (usize, u64);

/// The cache.
#[derive(Debug)]
pub struct Cache {
    capacity: u64,
    held: u64,
    clock: u64,
    places: HashMap<Place, (u64, u64)>,
    by_use: BTreeMap<u64, Place>,
}

impl Cache {
    /// An empty cache of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            held: 0,
            clock: 0,
            places: HashMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    /// Bytes of a place that are there.
    pub fn resident(&self, place: Place) -> u64 {
        self.places.get(&place).map_or(0, |(bytes, _)| *bytes)
    }

    /// A place is used.
    pub fn touch(&mut self, place: Place) {
        if let Some((_, used)) = self.places.get_mut(&place) {
            self.by_use.remove(used);
            self.clock += 1;
            *used = self.clock;
            self.by_use.insert(self.clock, place);
        }
    }

    /// A place now holds `bytes`. Returns what had to go for it.
    pub fn fill(&mut self, place: Place, bytes: u64) -> Vec<Place> {
        let before = self.resident(place);
        self.clock += 1;
        if let Some((_, used)) = self.places.insert(place, (bytes.max(before), self.clock)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.clock, place);
        self.held += bytes.max(before) - before;
        let mut gone = Vec::new();
        while self.held > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            if let Some((bytes, _)) = self.places.remove(&oldest) {
                self.held -= bytes;
            }
            gone.push(oldest);
        }
        gone
    }
}
