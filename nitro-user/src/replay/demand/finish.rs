//! From what was collected to what a replay needs: numbers for the files, ends for the visits, and what was in the page cache.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::{
    Collecting, Demand, DemandError, LeftOut, MOST_BYTES, MOST_READ, MOST_THREADS, MOST_VISITS, Place, RANDOM, Reader,
    Step, Visited, steps,
};
use crate::{
    catalog::model::{LayoutKind, Model},
    replay::{exact::is_possible_model, extent},
    sim::{Files, ModelSpec, PartSpec, Style},
    units::{ByteCount, ByteRange, FileId},
};

impl Collecting {
    /// What it comes to.
    ///
    /// # Errors
    /// [`DemandError`].
    pub fn end(mut self) -> Result<Demand, DemandError> {
        if self.visits > MOST_VISITS {
            return Err(DemandError::Long);
        }
        self.drop_doubles();
        self.threads.retain(|_, thread| !thread.places.is_empty());
        if self.threads.is_empty() {
            return Err(DemandError::Nothing);
        }
        if self.threads.len() > MOST_THREADS {
            return Err(DemandError::Threads);
        }
        let numbers = self.number()?;
        self.settle(&numbers.files, &numbers.of);
        let places = self.threads.values().flat_map(|thread| &thread.places);
        let read = places.fold(0u64, |sum, place| sum.saturating_add(place.range.len()));
        if read > MOST_READ {
            return Err(DemandError::Long);
        }
        let resident = self.resident(&numbers);
        let removed = self.removed.iter().filter_map(|(at, file, range)| {
            let part = *numbers.of.get(file)?;
            let end = range.end.min(numbers.files.size(part));
            Some((*at, part, ByteRange { end, ..*range })).filter(|(.., range)| !range.is_empty())
        });
        let evictions = removed.collect();
        let mut readers: Vec<Reader> = Vec::new();
        for ((process, _), thread) in &self.threads {
            let visits = thread.places.iter().filter_map(|place| {
                let part = *numbers.of.get(&place.file)?;
                let end = place.range.end.min(numbers.files.size(part));
                let range = ByteRange { end, ..place.range };
                (!range.is_empty()).then_some(Visited {
                    at: place.at,
                    part,
                    range,
                    style: place.style,
                })
            });
            let mut visits: Vec<Visited> = visits.collect();
            visits.sort_by_key(|visited| visited.at);
            if !visits.is_empty() {
                readers.push(Reader {
                    process: *process,
                    program: self.names.program(*process).unwrap_or_default().to_owned(),
                    named: self.named.get(process).copied(),
                    visits,
                });
            }
        }
        readers.sort_by_key(Reader::began);
        if readers.is_empty() {
            return Err(DemandError::Nothing);
        }
        let direct_read = |file: &FileId| {
            let mut places = self.threads.values().flat_map(|thread| &thread.places);
            places.any(|place| place.file == *file && matches!(place.style, Style::Direct { .. }))
        };
        let left_out = LeftOut {
            direct: self.direct.iter().filter(|file| !direct_read(file)).count(),
            lost: self.lost,
        };
        Ok(Demand {
            files: numbers.files,
            readers,
            resident,
            evictions,
            rate: self.speed.best(),
            was_helped: self.was_helped,
            left_out,
        })
    }

    /// Of a thread that reads with calls, pages that it brought in tell nothing more.
    fn drop_doubles(&mut self) {
        for thread in self.threads.values_mut() {
            let reads = |place: &&Place| matches!(place.style, Style::Read { .. });
            let read: HashSet<FileId> = thread.places.iter().filter(reads).map(|place| place.file).collect();
            thread
                .places
                .retain(|place| !place.is_trace || !read.contains(&place.file));
        }
    }

    /// Gives the files that are read, and those that belong to them, their numbers.
    fn number(&self) -> Result<Numbers, DemandError> {
        let mut numbers = Numbers::default();
        let mut ends = HashMap::<FileId, u64>::new();
        let mut order = Vec::new();
        for place in self.threads.values().flat_map(|thread| &thread.places) {
            match ends.entry(place.file) {
                Entry::Occupied(mut end) => *end.get_mut() = place.range.end.max(*end.get()),
                Entry::Vacant(end) => {
                    end.insert(place.range.end);
                    order.push(place.file);
                }
            }
        }
        for file in order {
            let known = self.names.file(file);
            let model = known.and_then(|known| known.model.as_ref());
            match model.filter(|model| is_possible_model(model)) {
                Some(model) => numbers.add_model(model),
                None => {
                    let end = ends.get(&file).copied().unwrap_or(0);
                    let size = known.map_or(end, |known| known.size.max(1));
                    numbers.add_single(file, self.names.path(file), size);
                }
            }
        }
        let sizes = numbers.files.parts.iter().map(|part| part.size);
        let bytes = sizes.fold(0, u64::saturating_add);
        if bytes > MOST_BYTES {
            return Err(DemandError::Large(ByteCount(bytes)));
        }
        Ok(numbers)
    }

    /// Lets visits end where the counts say, and tells mappings without readahead.
    fn settle(&mut self, files: &Files, of: &HashMap<FileId, usize>) {
        let mut known = HashMap::<(u32, FileId), u64>::new();
        for ((process, _), thread) in &self.threads {
            for place in &thread.places {
                *known.entry((*process, place.file)).or_default() += place.range.len();
            }
        }
        let mut open = HashMap::<(u32, FileId), Vec<(&mut ByteRange, u64)>>::new();
        for ((process, _), thread) in &mut self.threads {
            for place in &mut thread.places {
                let key = (*process, place.file);
                let counted = self.counted.get(&key).copied().unwrap_or_default();
                let is_random = counted.added > 0
                    && u128::from(counted.missed) * u128::from(RANDOM.1)
                        >= u128::from(counted.added) * u128::from(RANDOM.0);
                if place.style == Style::Map && is_random {
                    place.style = Style::MapRandom;
                }
                if place.is_closed || matches!(place.style, Style::Direct { .. }) {
                    continue;
                }
                let size = of.get(&place.file).map_or(0, |part| files.size(*part));
                let farthest = extent::farthest(place.range, size);
                if counted.bytes > 0 {
                    open.entry(key).or_default().push((&mut place.range, farthest));
                } else if place.goes_on && !self.calls {
                    // Nobody counted. Who went on so far went on, as a rule.
                    place.range.end = farthest;
                }
            }
        }
        for (key, open) in open {
            let counted = self.counted.get(&key).copied().unwrap_or_default();
            extent::lengthen(open.into_iter(), known.get(&key).copied().unwrap_or(0), counted.bytes);
        }
    }

    /// The steps that somebody came upon and nobody had brought in.
    fn resident(&self, numbers: &Numbers) -> Vec<(usize, ByteRange)> {
        if !self.sees_added {
            return Vec::new();
        }
        let mut seen = HashSet::new();
        let mut resident = Vec::new();
        for place in self.threads.values().flat_map(|thread| &thread.places) {
            let Some(part) = numbers.of.get(&place.file) else {
                continue;
            };
            if matches!(place.style, Style::Direct { .. }) {
                continue;
            }
            for step in steps(place.range) {
                let was_there = self.steps.get(&(place.file, step)) != Some(&Step::Came);
                if was_there && seen.insert((*part, step)) {
                    let range = ByteRange::of_step(step, numbers.files.size(*part));
                    resident.push((*part, range));
                }
            }
        }
        resident
    }
}

/// The replay's files, and which number each has.
#[derive(Default)]
struct Numbers {
    files: Files,
    of: HashMap<FileId, usize>,
}

impl Numbers {
    fn add(&mut self, file: FileId, size: u64, header: u64) -> usize {
        *self.of.entry(file).or_insert_with(|| {
            self.files.parts.push(PartSpec { size, header });
            self.files.parts.len() - 1
        })
    }

    fn add_model(&mut self, model: &Model) {
        let parts = model
            .parts
            .iter()
            .map(|part| self.add(part.file, part.size, part.header));
        let parts: Vec<usize> = parts.collect();
        if self.files.models.iter().any(|known| known.parts == parts) {
            return;
        }
        self.files.models.push(ModelSpec {
            name: model.name.clone(),
            layout: model.layout,
            parts,
        });
    }

    fn add_single(&mut self, file: FileId, name: String, size: u64) {
        let part = self.add(file, size, 0);
        self.files.models.push(ModelSpec {
            name,
            layout: LayoutKind::Single,
            parts: vec![part],
        });
    }
}
