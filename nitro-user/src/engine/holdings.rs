//! What is held, and for whom: bytes that were warmed and nobody used yet, by model and by the process they were warmed for.

use std::collections::BTreeMap;

use super::{load::Load, plan::budget::Budget};
use crate::units::{ByteCount, FileId};

/// Bytes held of one model for one process, which may have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Model or file.
    pub model: String,
    /// Program of the first process, once known.
    pub program: Option<String>,
    /// The first process of the load that they were warmed for.
    pub process: u32,
    /// Its real user, once known.
    pub user: Option<u32>,
    /// Warmed and not used.
    pub bytes: ByteCount,
}

/// For whom the files that were warmed last were.
#[derive(Debug, Default)]
pub struct Holdings {
    owners: BTreeMap<FileId, Owner>,
}

#[derive(Debug, PartialEq, Eq)]
struct Owner {
    model: String,
    program: Option<String>,
    process: u32,
    user: Option<u32>,
}

impl Holdings {
    /// A load goes: what is held of its files was for it. Files of which nothing is held are forgotten.
    pub fn leave(&mut self, load: &Load, budget: &Budget) {
        for part in load.model.parts.iter().filter(|part| budget.held_of(part.file) > 0) {
            self.owners.insert(part.file, Owner::of(load));
        }
        self.owners.retain(|file, _| budget.held_of(*file) > 0);
    }

    /// All of them, the largest first; `loads` are those that go on.
    pub fn list<'a>(&self, loads: impl Iterator<Item = &'a Load>, budget: &Budget) -> Vec<Holding> {
        let current: BTreeMap<FileId, Owner> = loads
            .flat_map(|load| load.model.parts.iter().map(|part| (part.file, Owner::of(load))))
            .collect();
        let mut sums: Vec<Holding> = Vec::new();
        for (file, bytes) in budget.by_file() {
            let Some(owner) = current.get(&file).or_else(|| self.owners.get(&file)) else {
                continue;
            };
            let known = sums
                .iter_mut()
                .find(|sum| sum.process == owner.process && sum.model == owner.model);
            match known {
                Some(sum) => sum.bytes.0 += bytes,
                None => sums.push(Holding {
                    model: owner.model.clone(),
                    program: owner.program.clone(),
                    process: owner.process,
                    user: owner.user,
                    bytes: ByteCount(bytes),
                }),
            }
        }
        sums.sort_by_key(|sum| std::cmp::Reverse(sum.bytes));
        sums
    }
}

impl Owner {
    fn of(load: &Load) -> Self {
        Self {
            model: load.model.name.clone(),
            program: load.readers.program().map(str::to_owned),
            process: load.readers.first(),
            user: load.readers.user(),
        }
    }
}
