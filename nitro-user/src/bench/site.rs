//! One device with models on it: a disk, a store or a directory of the user's, made, filled, emptied of cached pages, and removed.

use std::{
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::unistd::{Whence, lseek};

use super::{
    disk::TestDisk,
    limit::{IoLimit, Limit},
    plan::{Device, Model, SHARDS},
    readers::{Kind, Reader},
    room::{self, Place},
    scratch::ScratchDir,
    store::{Store, StoreArgs},
    sweep, tools,
    tree::{HOLLOW, ModelTree, gguf, hugging_face, ollama},
};
use crate::{sys::measure, units::ByteCount};

/// What a test disk has beside its models: the file system's own, in bytes.
const BESIDE: u64 = 256 << 20;

/// Memory is kept free where there is so many times a model of it: see [`measure::FreeMemory`].
const PLENTY: u64 = 8;

/// What a site is made of.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Where what is made goes.
    pub base: &'a Path,
    /// The program whose hidden subcommands are readers and stores.
    pub program: &'a Path,
    /// What it stands for.
    pub device: Device,
    /// Where the models lie.
    pub place: Place,
    /// Bytes of each model.
    pub bytes: u64,
    /// Models of holes, which take no room.
    pub hollow: bool,
}

/// The files of a model: as a loader sees them, and where they are on the disk below.
#[derive(Debug)]
struct Files {
    model: Model,
    seen: Vec<PathBuf>,
    below: Vec<PathBuf>,
}

/// A device with models on it. Everything is removed on drop.
#[derive(Debug)]
pub struct Site {
    device: Device,
    bytes: u64,
    program: PathBuf,
    files: Vec<Files>,
    watched: PathBuf,
    // Members before their disk, which cannot be unmounted under them; the store before what it serves.
    group: Option<IoLimit>,
    store: Option<Store>,
    disk: Option<TestDisk>,
    dir: Option<ScratchDir>,
    memory: Option<measure::FreeMemory>,
}

impl Site {
    /// Makes it, and writes the models.
    ///
    /// # Errors
    /// A disk, a mount or a group cannot be made; no room.
    pub fn new(order: Order<'_>, models: &[Model]) -> Result<Self> {
        let mut site = Self {
            device: order.device,
            bytes: order.bytes,
            program: order.program.to_owned(),
            files: Vec::new(),
            watched: PathBuf::new(),
            group: None,
            store: None,
            disk: None,
            dir: None,
            memory: None,
        };
        let root = match order.place {
            Place::Disk => {
                let bytes = order.bytes.saturating_mul(models.len() as u64);
                let bytes = bytes.saturating_add(bytes / 8 + BESIDE);
                let disk = site.disk.insert(TestDisk::new(order.base, bytes)?);
                if order.device.limit() != Limit::NONE {
                    site.group = Some(IoLimit::new()?);
                }
                disk.path().to_owned()
            }
            Place::Directory | Place::Store => {
                let dir = site.dir.insert(ScratchDir::new(order.base)?);
                dir.path().join("models")
            }
        };
        for &model in models {
            sweep::rest_if_interrupted();
            let written = write(model, &root, order)?;
            if let Some(disk) = site.disk.as_ref().filter(|_| order.hollow) {
                hollow_out(disk, &written)?;
            }
            let below = written.clone();
            site.files.push(Files {
                model,
                seen: written,
                below,
            });
        }
        site.watched.clone_from(&root);
        if let Some(service) = order.device.service() {
            let mount = root.with_file_name("store");
            for files in &mut site.files {
                for path in &mut files.seen {
                    *path = mount.join(path.strip_prefix(&root).context("a model beside its directory")?);
                }
            }
            site.watched.clone_from(&mount);
            let args = StoreArgs {
                source: root,
                mount,
                latency: service.latency,
                parallel: service.parallel,
                seek: service.seek,
                rate: service.rate,
                bandwidth: service.bandwidth,
                kind: "nitrostore".into(),
                private: false,
                user: None,
            };
            site.store = Some(Store::start(order.program, &args)?);
        }
        site.set_limit(order.device.limit())?;
        models.iter().try_for_each(|&model| site.cool(model))?;
        // With less, holding it would take from the loads what it is to spare them. Where it cannot be had, loads differ more.
        if room::memory_left().0 >= order.bytes.saturating_mul(PLENTY) {
            site.memory = measure::FreeMemory::keep(order.bytes.saturating_mul(2)).ok();
        }
        Ok(site)
    }

    /// What it stands for.
    pub fn device(&self) -> Device {
        self.device
    }

    /// How it is made, for people.
    pub fn note(&self) -> String {
        let model = format!("models of {}", ByteCount(self.bytes));
        let name = self.device.name();
        if let Some(service) = self.device.service() {
            return match self.device {
                Device::Hdd => format!(
                    "{name}: a file system in user space with one head, {} ms for each jump, {} MB/s; {model}",
                    service.seek, service.rate
                ),
                _ => format!(
                    "{name}: a file system in user space, {} ms a request, {} at once, {} MB/s in all; {model}",
                    service.latency, service.parallel, service.bandwidth
                ),
            };
        }
        let Some(disk) = &self.disk else {
            return format!("{name}: the directory as it is; {model}");
        };
        let limit = match self.device.limit() {
            Limit::NONE => "nothing in its way".to_owned(),
            limit => format!(
                "{} MB/s, {} requests/s",
                limit.bytes_per_second / 1_000_000,
                limit.operations_per_second
            ),
        };
        let access = if disk.is_direct() { "direct" } else { "buffered" };
        format!("{name}: a test disk, ext4 on a loop device ({access}), readahead 128 KiB, {limit}; {model}")
    }

    /// What the agent is to watch.
    pub fn watched(&self) -> &Path {
        &self.watched
    }

    /// The group that whoever reads from it enters.
    pub fn group(&self) -> Option<&IoLimit> {
        self.group.as_ref()
    }

    /// The files of a model, in the order of its loader.
    pub fn files(&self, model: Model) -> &[PathBuf] {
        self.of(model).map_or(&[], |files| &files.seen)
    }

    /// A reader of a model.
    pub fn reader(&self, kind: Kind, model: Model) -> Reader {
        let reader = Reader::new(&self.program, kind, self.files(model));
        if kind == Kind::Direct {
            reader.depth(self.device.depth())
        } else {
            reader
        }
    }

    /// Whether the files can be read past the page cache, which is how the device's own limit is measured.
    pub fn reads_directly(&self, model: Model) -> bool {
        let open = |path: &PathBuf| {
            File::options()
                .read(true)
                .custom_flags(libc::O_DIRECT)
                .open(path)
                .is_ok()
        };
        self.files(model).iter().all(open)
    }

    /// Makes a model cold: its own pages, and no others, leave the page cache, wherever there are copies.
    ///
    /// # Errors
    /// Pages stay.
    pub fn cool(&self, model: Model) -> Result<()> {
        let Some(files) = self.of(model) else { return Ok(()) };
        let image = self.disk.as_ref().filter(|disk| !disk.is_direct()).map(TestDisk::image);
        for path in files.seen.iter().chain(&files.below).chain(&image) {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            measure::drop_pages(&file).with_context(|| format!("cannot make {} cold", path.display()))?;
        }
        Ok(())
    }

    /// Lets `act` read without the device's limit.
    ///
    /// # Errors
    /// Those of `act`; the limit cannot be changed.
    pub fn unlimited<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.set_limit(Limit::NONE)?;
        let done = act();
        self.set_limit(self.device.limit())?;
        done
    }

    fn set_limit(&self, limit: Limit) -> Result<()> {
        match (&self.disk, &self.group) {
            (Some(disk), Some(group)) => disk.limit(group, limit),
            _ => Ok(()),
        }
    }

    fn of(&self, model: Model) -> Option<&Files> {
        self.files.iter().find(|files| files.model == model)
    }
}

/// Writes a model below `root`; its files in the order of its loader.
fn write(model: Model, root: &Path, order: Order<'_>) -> Result<Vec<PathBuf>> {
    let seed = |number: u64| if order.hollow { HOLLOW | number } else { number };
    let bytes = order.bytes;
    let ModelTree { files, .. } = match model {
        Model::Gguf => gguf::single(&root.join("gguf"), "model", seed(1), bytes)?,
        Model::Ollama => ollama::model(&root.join("ollama"), "model", "latest", seed(2), bytes)?,
        Model::Safetensors => {
            hugging_face::snapshot(&root.join("huggingface"), "bench", "model", seed(3), SHARDS, bytes)?
        }
    };
    Ok(match model {
        // What follows each of them is work on its tensors.
        Model::Safetensors => {
            let is_shard = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
            files.into_iter().filter(is_shard).collect()
        }
        Model::Gguf | Model::Ollama => files,
    })
}

/// Has models of holes be read from a test disk, and take no room below it: a file's holes are not read from its disk, so that they are filled with zeroes first, and then
/// cut out of the disk's image.
fn hollow_out(disk: &TestDisk, files: &[PathBuf]) -> Result<()> {
    let zeroes = vec![0; 4 << 20];
    for path in files {
        let fill = || -> std::io::Result<()> {
            let file = File::options().read(true).write(true).open(path)?;
            let end = file.metadata()?.len();
            let mut at = lseek(&file, 0, Whence::SeekHole)?.cast_unsigned();
            while at < end {
                let piece = (end - at).min(zeroes.len() as u64);
                file.write_all_at(&zeroes[..piece as usize], at)?;
                at += piece;
            }
            file.sync_all()
        };
        fill().with_context(|| format!("fill the holes of {}", path.display()))?;
    }
    tools::run(tools::command("fallocate").arg("--dig-holes").arg(disk.image()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_is_measured_as_it_is_and_left_without_a_trace() {
        let base = ScratchDir::new(Path::new("/var/tmp")).unwrap();
        let order = Order {
            base: base.path(),
            program: Path::new("/bin/false"),
            device: Device::AsIs,
            place: Place::Directory,
            bytes: 16 << 20,
            hollow: false,
        };
        let site = Site::new(order, &[Model::Gguf, Model::Ollama, Model::Safetensors]).unwrap();
        assert_eq!(site.files(Model::Safetensors).len(), SHARDS);
        assert!(site.files(Model::Ollama).len() > 2 && site.files(Model::Gguf).len() == 1);
        fs::read(&site.files(Model::Gguf)[0]).unwrap();
        site.cool(Model::Gguf).unwrap();
        assert_eq!(super::super::tree::resident(site.files(Model::Gguf)).unwrap(), 0.0);
        drop(site);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
