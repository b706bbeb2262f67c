//! Devices that are watched as a whole: a bit for each in a word that the programs look at first, and an entry in the map of watched files.

use std::collections::BTreeSet;

use aya::maps::{Array, HashMap as BpfHashMap, MapData, MapError};
use nitro_common::{
    FileKey, WatchedFile,
    settings::{ALL_INODES, device_bit, maps},
};

use super::SourceError;

/// The word, and which devices are in it.
pub struct Devices {
    word: Array<MapData, u64>,
    watched: BTreeSet<u32>,
}

impl Devices {
    /// None yet.
    pub const fn new(word: Array<MapData, u64>) -> Self {
        Self {
            word,
            watched: BTreeSet::new(),
        }
    }

    /// Exactly these.
    ///
    /// # Errors
    /// [`SourceError::MapAccess`].
    pub fn set(
        &mut self,
        watched: &mut BpfHashMap<MapData, FileKey, WatchedFile>,
        devices: &BTreeSet<u32>,
    ) -> Result<(), SourceError> {
        let key = |device: &u32| FileKey {
            inode: ALL_INODES,
            device: *device,
            zero: 0,
        };
        for gone in self.watched.difference(devices) {
            // It is there, or nobody misses it.
            let _ = watched.remove(&key(gone));
        }
        for new in devices.difference(&self.watched) {
            let inserted = watched.insert(key(new), WatchedFile::default(), 0);
            inserted.map_err(|source| failed("insert into", maps::WATCHED, source))?;
        }
        // After the entries: a bit without one costs a look-up each time.
        let bits = devices.iter().fold(0, |bits, device| bits | device_bit(*device));
        let written = self.word.set(0, bits, 0);
        written.map_err(|source| failed("write", maps::DEVICES, source))?;
        self.watched.clone_from(devices);
        Ok(())
    }
}

const fn failed(operation: &'static str, map: &'static str, source: MapError) -> SourceError {
    SourceError::MapAccess { operation, map, source }
}
