//! What was learned of the devices: `devices.json`, by what identifies a device beyond a restart.
//!
//! The file is written anew as a whole and put in place by a rename, so that a kill leaves the old one or the new one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, sync_channel},
    thread::JoinHandle,
};

use serde::{Deserialize, Serialize};

use crate::engine::plan::device::Knowledge;

/// The file's name.
const NAME: &str = "devices.json";

/// Layout of the file.
const VERSION: u32 = 1;

/// Longest file that is read.
const MOST_BYTES: u64 = 1 << 20;

/// Devices remembered; past it, those heard of longest ago are forgotten.
const MOST_DEVICES: usize = 256;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    devices: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    knowledge: Knowledge,
    /// Seconds since 1970.
    heard: u64,
}

/// Why there is nothing from before, though there is a file.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("cannot read {path:?}: {source}; what was learned of devices is learned anew")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is not what was written.
    #[error(
        "{path:?} is not what this version writes ({reason}): it is kept as {kept:?}, and what was learned of devices is learned anew"
    )]
    Unknown {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Where it is now.
        kept: PathBuf,
    },
}

/// The devices that were heard of.
#[derive(Debug)]
pub struct DeviceStore {
    devices: BTreeMap<String, Entry>,
    writer: Option<Writer>,
    /// The last change found the writer busy.
    unwritten: bool,
}

#[derive(Debug)]
struct Writer {
    snapshots: SyncSender<BTreeMap<String, Entry>>,
    thread: JoinHandle<()>,
}

impl DeviceStore {
    /// A store that keeps nothing.
    pub fn forgetful() -> Self {
        Self {
            devices: BTreeMap::new(),
            writer: None,
            unwritten: false,
        }
    }

    /// What `directory` holds; it is made when something is to be kept. With an error the store begins empty.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn open(directory: &Path) -> io::Result<(Self, Option<StateError>)> {
        let path = directory.join(NAME);
        let (devices, error) = match read(&path) {
            Ok(devices) => (devices, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        let (snapshots, inbox) = sync_channel::<BTreeMap<String, Entry>>(1);
        let thread = std::thread::Builder::new().name("nitro-state".into()).spawn(move || {
            let mut said = false;
            while let Ok(devices) = inbox.recv() {
                match write(&path, devices) {
                    Ok(()) => said = false,
                    Err(error) if !said => {
                        said = true;
                        tracing::warn!("cannot write {path:?}: {error}; what is learned of devices is lost with the agent's end unless that is mended");
                    }
                    Err(_) => {}
                }
            }
        })?;
        let store = Self {
            devices,
            writer: Some(Writer { snapshots, thread }),
            unwritten: false,
        };
        Ok((store, error))
    }

    /// What is known of a device.
    pub fn recall(&self, identity: &str) -> Option<Knowledge> {
        self.devices.get(identity).map(|entry| entry.knowledge)
    }

    /// Keeps what was learned of a device, heard of `now` (seconds since 1970). Never blocks: while a write is under way, this is kept with the next.
    pub fn keep(&mut self, identity: &str, knowledge: Knowledge, now: u64) {
        let Some(writer) = &self.writer else { return };
        let entry = Entry { knowledge, heard: now };
        self.devices.insert(identity.to_owned(), entry);
        while self.devices.len() > MOST_DEVICES {
            let oldest = self.devices.iter().min_by_key(|(_, entry)| entry.heard);
            let Some(oldest) = oldest.map(|(identity, _)| identity.clone()) else {
                break;
            };
            self.devices.remove(&oldest);
        }
        self.unwritten = writer.snapshots.try_send(self.devices.clone()).is_err();
    }
}

impl Drop for DeviceStore {
    /// Waits until all is written: as long as the disk takes.
    fn drop(&mut self) {
        let Some(Writer { snapshots, thread }) = self.writer.take() else {
            return;
        };
        if self.unwritten {
            // It has ended, and said why.
            let _ = snapshots.send(std::mem::take(&mut self.devices));
        }
        drop(snapshots);
        // A panic in it was already reported by the panic hook.
        let _ = thread.join();
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, Entry>, StateError> {
    let failed = |source| StateError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let unknown = |reason: String| {
        let kept = path.with_extension("json.old");
        // If even that cannot be done, the next write goes over it.
        let _ = fs::rename(path, &kept);
        StateError::Unknown {
            path: path.to_owned(),
            reason,
            kept,
        }
    };
    if bytes.len() as u64 > MOST_BYTES {
        return Err(unknown(format!("more than {MOST_BYTES} bytes")));
    }
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| unknown(error.to_string()))?;
    if kept.version != VERSION {
        return Err(unknown(format!("version {} instead of {VERSION}", kept.version)));
    }
    Ok(kept.devices.into_iter().take(MOST_DEVICES).collect())
}

fn write(path: &Path, devices: BTreeMap<String, Entry>) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(directory)?;
    let kept = Kept {
        version: VERSION,
        devices,
    };
    // Always the same name, so that a kill leaves one at most; and no link somebody put there is followed.
    let fresh = path.with_extension("json.new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.custom_flags(libc::O_NOFOLLOW).open(&fresh)?;
    file.write_all(&serde_json::to_vec_pretty(&kept)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Rate;

    fn knowledge(rate: f64) -> Knowledge {
        Knowledge {
            rate: Some(Rate(rate)),
            reads_alone: None,
            maps_alone: Some(Rate(rate / 8.0)),
            ..Knowledge::default()
        }
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("not/there/yet");
        let (mut store, error) = DeviceStore::open(&state).unwrap();
        assert!(error.is_none());
        store.keep("disk one", knowledge(1e9), 100);
        drop(store);
        let (store, error) = DeviceStore::open(&state).unwrap();
        assert!(error.is_none());
        assert_eq!(store.recall("disk one"), Some(knowledge(1e9)));
        assert_eq!(store.recall("another"), None);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_file_that_is_something_else_is_put_aside_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let long = vec![b' '; MOST_BYTES as usize + 2];
        let contents: [&[u8]; 5] = [
            b"",
            b"{\"version\":1,\"devices\":{\"a\"",
            b"[]",
            b"{\"version\":7,\"devices\":{}}",
            &long,
        ];
        for content in contents {
            fs::write(&path, content).unwrap();
            let (store, error) = DeviceStore::open(dir.path()).unwrap();
            let error = error.unwrap().to_string();
            assert!(error.contains("devices.json") && error.contains("anew"), "{error}");
            assert!(store.devices.is_empty());
            assert_eq!(fs::read(dir.path().join("devices.json.old")).unwrap(), content);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let (mut store, _) = DeviceStore::open(&file.join("below")).unwrap();
        store.keep("a", knowledge(1.0), 1);
        assert_eq!(store.recall("a"), Some(knowledge(1.0)));
    }

    #[test]
    fn the_devices_heard_of_longest_ago_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = DeviceStore::open(dir.path()).unwrap();
        for number in 0..MOST_DEVICES as u64 + 10 {
            store.keep(&format!("{number:04}"), knowledge(1e6), number);
        }
        assert_eq!(store.devices.len(), MOST_DEVICES);
        assert!(store.recall("0009").is_none() && store.recall("0010").is_some());
    }
}
