//! The catalog in parts: one for what is on this machine, and one for each server that holds roots.
//!
//! A file system whose server does not answer holds up whoever asks it for anything, for minutes or for ever. So each has a catalog, and a thread, of its own: what it
//! holds up is what is known of its own files. A root on such a file system is not looked at by anybody else, not even at the start.
//!
//! In: requests, which go to the part that they concern. Out: the events of all parts in one channel.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::mpsc::Sender;

use super::{
    CatalogError, CatalogEvent, CatalogRequest, WatchRoot,
    exclude::Exclude,
    identity::Devices,
    service::{CatalogService, RequestRefused},
    stores::Store,
};
use crate::{sys::mounts::Mounts, units::FileId};

/// Roots by where they are.
#[derive(Debug, Default)]
pub struct Sorted {
    /// On this machine.
    pub near: Vec<PathBuf>,
    /// On servers, by the device of their file system.
    pub far: BTreeMap<u32, Vec<PathBuf>>,
}

/// Sorts absolute paths by the text of the mount table: nothing is asked of any file system.
pub fn sort(paths: &[PathBuf], mounts: &Mounts) -> Sorted {
    let mut sorted = Sorted::default();
    for path in paths {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        match mounts
            .at(&absolute)
            .filter(|mount| Store::of(&mount.kind, "") != Store::Local)
        {
            Some(mount) => sorted.far.entry(mount.device).or_default().push(absolute),
            None => sorted.near.push(path.clone()),
        }
    }
    sorted
}

#[derive(Debug)]
struct Part {
    service: CatalogService,
    /// Of a server: its device and its roots.
    far: Option<(u32, Vec<PathBuf>)>,
}

/// All parts; the first is this machine's.
#[derive(Debug)]
pub struct Catalogs {
    parts: Vec<Part>,
}

impl Catalogs {
    /// Starts the parts. Each tells with its number of what it found when it has looked through its roots; one whose server does not answer tells it later, or never.
    ///
    /// # Errors
    /// As [`CatalogService::start`].
    pub fn start(
        near: Vec<WatchRoot>,
        far: BTreeMap<u32, Vec<PathBuf>>,
        devices: &Arc<Devices>,
        exclude: &Exclude,
        events: &Sender<CatalogEvent>,
    ) -> Result<Self, CatalogError> {
        let service = CatalogService::start(near, devices.clone(), exclude.clone(), events.clone())?;
        let mut parts = vec![Part { service, far: None }];
        for (number, (device, paths)) in (1..).zip(far) {
            let roots = paths.iter().map(|path| WatchRoot::not_looked_at(path)).collect();
            let service = CatalogService::start_part(number, roots, devices.clone(), exclude.clone(), events.clone())?;
            parts.push(Part {
                service,
                far: Some((device, paths)),
            });
        }
        Ok(Self { parts })
    }

    /// How many parts there are.
    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// Asks the part, or the parts, that a request concerns; never blocks.
    ///
    /// # Errors
    /// One of them is behind, or has ended.
    pub fn ask(&self, request: CatalogRequest) -> Result<(), RequestRefused> {
        match request {
            CatalogRequest::Describe(file) => self.of(file).ask(request),
            CatalogRequest::Watch(_) => self.near().ask(request),
            CatalogRequest::Match { .. } => {
                // A name may be of any; one that is behind must not keep the others from being asked.
                let far = self.parts.iter().skip(1);
                far.for_each(|part| {
                    let _ = part.service.ask(request.clone());
                });
                self.near().ask(request)
            }
            CatalogRequest::Places(files) => {
                let mut groups: BTreeMap<usize, Vec<FileId>> = BTreeMap::new();
                for file in files {
                    groups.entry(self.number_of(file)).or_default().push(file);
                }
                for (number, files) in groups {
                    if let Some(part) = self.parts.get(number) {
                        part.service.ask(CatalogRequest::Places(files))?;
                    }
                }
                Ok(())
            }
            CatalogRequest::Below(number, paths) => self.ask_below(number, paths).map(|_| ()),
            CatalogRequest::Find(ref path) => {
                let holds = |part: &&Part| part.far.as_ref().is_some_and(|(_, roots)| is_below(path, roots));
                match self.parts.iter().find(holds) {
                    Some(part) => part.service.ask(request),
                    None => self.near().ask(request),
                }
            }
            CatalogRequest::Unwatch(ref path) => {
                let concerns = |part: &&Part| part.far.as_ref().is_some_and(|(_, roots)| concerns(path, roots));
                let far: Vec<&Part> = self.parts.iter().filter(concerns).collect();
                // Below a server's root nothing is near.
                let below = |part: &&Part| {
                    let roots = part.far.as_ref().map(|(_, roots)| roots);
                    roots.is_some_and(|roots| roots.iter().any(|root| path.starts_with(root)))
                };
                let only_far = far.iter().any(below);
                for part in far {
                    part.service.ask(request.clone())?;
                }
                if only_far { Ok(()) } else { self.near().ask(request) }
            }
        }
    }

    /// Asks what is at or below paths; how many parts are going to answer.
    ///
    /// # Errors
    /// One of them is behind, or has ended.
    pub fn ask_below(&self, number: u64, paths: Vec<PathBuf>) -> Result<usize, RequestRefused> {
        let mut asked = 0;
        for part in &self.parts {
            let here: Vec<PathBuf> = match &part.far {
                Some((_, roots)) => paths.iter().filter(|path| concerns(path, roots)).cloned().collect(),
                None => {
                    let far: Vec<&PathBuf> = self
                        .parts
                        .iter()
                        .filter_map(|part| part.far.as_ref())
                        .flat_map(|(_, roots)| roots)
                        .collect();
                    let near = |path: &&PathBuf| !far.iter().any(|root| path.starts_with(root));
                    paths.iter().filter(near).cloned().collect()
                }
            };
            if !here.is_empty() {
                part.service.ask(CatalogRequest::Below(number, here))?;
                asked += 1;
            }
        }
        Ok(asked)
    }

    fn near(&self) -> &CatalogService {
        &self.parts[0].service
    }

    fn number_of(&self, file: FileId) -> usize {
        let of_device = |part: &Part| part.far.as_ref().is_some_and(|(device, _)| *device == file.device);
        self.parts.iter().position(of_device).unwrap_or(0)
    }

    fn of(&self, file: FileId) -> &CatalogService {
        &self.parts[self.number_of(file)].service
    }
}

fn is_below(path: &Path, roots: &[PathBuf]) -> bool {
    roots.iter().any(|root| path.starts_with(root))
}

fn concerns(path: &Path, roots: &[PathBuf]) -> bool {
    roots
        .iter()
        .any(|root| root.starts_with(path) || path.starts_with(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_sorted_by_the_mount_table_alone() {
        let mounts = Mounts::parse(
            b"22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:44 / /mnt/nfs rw - nfs4 server:/m rw\n31 22 0:45 / /mnt/s rw - fuse.sshfs h: rw\n",
        );
        let paths = ["/models", "/mnt/nfs/a", "/mnt/nfs/b", "/mnt/s", "/mnt/nfsx"].map(PathBuf::from);
        let sorted = sort(&paths, &mounts);
        assert_eq!(sorted.near, [PathBuf::from("/models"), PathBuf::from("/mnt/nfsx")]);
        assert_eq!(
            sorted.far[&44],
            [PathBuf::from("/mnt/nfs/a"), PathBuf::from("/mnt/nfs/b")]
        );
        assert_eq!(sorted.far[&45], [PathBuf::from("/mnt/s")]);
    }
}
