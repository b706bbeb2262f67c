//! What `nitro-agent bench` measures: which devices, by which loaders, with which help, and how long that takes. Values only.

use clap::ValueEnum;
use serde::Serialize;

use super::{limit::Limit, readers::Kind};

/// Shards of the safetensors model.
pub const SHARDS: usize = 8;

/// What a load comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The directory of --dir as it is; without --dir a test disk with nothing in its way.
    AsIs,
    /// A test disk of 3 GB/s in 400 000 requests a second: a local NVMe drive.
    Nvme,
    /// A test disk of 125 MB/s in 3000 requests a second: a gp3 volume as it comes.
    Gp3,
    /// A store with one head: 8 ms for each jump, 150 MB/s.
    Hdd,
    /// A store on the network: 2 ms a request, eight at once, 280 MB/s in all.
    Nas,
}

/// How a file system in user space serves reads.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Milliseconds of each.
    pub latency: f64,
    /// So many at once.
    pub parallel: usize,
    /// Milliseconds more after a jump.
    pub seek: f64,
    /// MB/s of one read.
    pub rate: f64,
    /// MB/s of all reads together.
    pub bandwidth: f64,
}

impl Device {
    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AsIs => "as-is",
            Self::Nvme => "nvme",
            Self::Gp3 => "gp3",
            Self::Hdd => "hdd",
            Self::Nas => "nas",
        }
    }

    /// What members of the bench's group may read from it.
    pub const fn limit(self) -> Limit {
        let (bytes_per_second, operations_per_second) = match self {
            Self::Nvme => (3_000_000_000, 400_000),
            Self::Gp3 => (125_000_000, 3000),
            Self::AsIs | Self::Hdd | Self::Nas => (0, 0),
        };
        Limit {
            bytes_per_second,
            operations_per_second,
        }
    }

    /// How requests are served, where that is done by a file system in user space.
    pub const fn service(self) -> Option<Service> {
        match self {
            Self::Hdd => Some(Service {
                latency: 0.0,
                // In the order in which they come: several servers would answer in any order, and each step back would be a jump.
                parallel: 1,
                seek: 8.0,
                rate: 150.0,
                bandwidth: 0.0,
            }),
            Self::Nas => Some(Service {
                latency: 2.0,
                parallel: 8,
                seek: 0.0,
                rate: 0.0,
                bandwidth: 280.0,
            }),
            Self::AsIs | Self::Nvme | Self::Gp3 => None,
        }
    }

    /// Requests at once with which its own limit is measured.
    pub fn depth(self) -> usize {
        self.service().map_or(8, |service| service.parallel)
    }

    /// Bytes of each model unless it was said: fewer where they take long.
    pub const fn default_size(self) -> u64 {
        match self {
            Self::AsIs | Self::Nvme => 2 << 30,
            Self::Gp3 => 512 << 20,
            Self::Hdd | Self::Nas => 256 << 20,
        }
    }

    /// Bytes a second and requests a second, roughly: for the remaining time alone.
    const fn pace(self) -> (f64, f64) {
        match self {
            Self::AsIs => (1e9, 5e3),
            Self::Nvme => (2e9, 2e4),
            Self::Gp3 => (1.25e8, 3e3),
            Self::Hdd => (1.3e8, 2e3),
            Self::Nas => (2.5e8, 5e2),
        }
    }
}

/// Who loads what, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
pub enum Loader {
    /// A GGUF file, mapped and touched in order without any hint.
    #[value(name = "mmap")]
    #[serde(rename = "mmap")]
    Mmap,
    /// A GGUF file, mapped with MAP_POPULATE, as llama.cpp does.
    #[value(name = "llama.cpp")]
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// An Ollama store, read in pieces of 1 MiB: the manifest, the small layers, the weights.
    #[value(name = "ollama")]
    #[serde(rename = "ollama")]
    Ollama,
    /// A Hugging Face snapshot of eight safetensors shards; after each, the processor works as long as the device took for it.
    #[value(name = "safetensors")]
    #[serde(rename = "safetensors")]
    Safetensors,
    /// A GGUF file, mapped with MADV_RANDOM, tensor by tensor in an order of its own; stopped after 20 s.
    #[value(name = "random")]
    #[serde(rename = "random")]
    Random,
}

impl Loader {
    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mmap => "mmap",
            Self::LlamaCpp => "llama.cpp",
            Self::Ollama => "ollama",
            Self::Safetensors => "safetensors",
            Self::Random => "random",
        }
    }

    /// The reader that does it.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Mmap => Kind::Map,
            Self::LlamaCpp => Kind::Populate,
            Self::Ollama => Kind::Read,
            Self::Safetensors => Kind::Shards,
            Self::Random => Kind::MapRandom,
        }
    }

    /// Which of the models it loads.
    pub const fn model(self) -> Model {
        match self {
            Self::Mmap | Self::LlamaCpp | Self::Random => Model::Gguf,
            Self::Ollama => Model::Ollama,
            Self::Safetensors => Model::Safetensors,
        }
    }

    /// Bytes of one request of its own, as measured.
    const fn request(self) -> f64 {
        match self {
            Self::Mmap => 131_072.0,
            Self::LlamaCpp => 262_144.0,
            Self::Ollama | Self::Safetensors => 1_048_576.0,
            Self::Random => 4096.0,
        }
    }
}

/// A model on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// One file.
    Gguf,
    /// Manifest and blobs.
    Ollama,
    /// A snapshot in a Hugging Face cache.
    Safetensors,
}

/// What a load has for help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Help {
    /// Nothing: always measured, since the ratios are to it.
    None,
    /// `vmtouch -t` before the load.
    Vmtouch,
    /// `cat` before the load.
    Cat,
    /// The agent: always measured.
    #[value(skip)]
    Agent,
}

impl Help {
    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Agent => "agent",
            Self::Vmtouch => "vmtouch",
            Self::Cat => "cat",
        }
    }

    /// The program that brings in what follows on its command line; none where nothing is run before the load.
    pub const fn before(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::Vmtouch => Some(("vmtouch", &["-q", "-t", "-f"])),
            Self::Cat => Some(("cat", &[])),
            Self::None | Self::Agent => None,
        }
    }
}

/// Everything that is to be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// On these, one after the other.
    pub devices: Vec<Device>,
    /// By these.
    pub loaders: Vec<Loader>,
    /// With each of these, in every round.
    pub helps: Vec<Help>,
    /// Bytes of each model; by device where it was not said.
    pub size: Option<u64>,
    /// So many loads with each.
    pub runs: usize,
}

/// Loads behind each of the figures `limit` and `cached`.
pub const REFERENCES: usize = 3;

impl Plan {
    /// Bytes of each model on a device.
    pub fn bytes(&self, device: Device) -> u64 {
        self.size.unwrap_or_else(|| device.default_size())
    }

    /// The models that its loaders load, each once.
    pub fn models(&self) -> Vec<Model> {
        let mut models: Vec<Model> = Vec::new();
        for loader in &self.loaders {
            if !models.contains(&loader.model()) {
                models.push(loader.model());
            }
        }
        models
    }

    /// Seconds that one loader on one device takes, roughly: for the progress alone.
    pub fn estimate(&self, device: Device, loader: Loader) -> f64 {
        let (rate, requests) = device.pace();
        let bytes = self.bytes(device) as f64;
        let delivered = bytes / rate;
        let work = if loader == Loader::Safetensors { delivered } else { 0.0 };
        let alone = (delivered.max(bytes / loader.request() / requests) + work).min(20.0);
        let one = |help: Help| match help {
            Help::None => alone,
            // Starting it, and stopping it.
            Help::Agent => delivered * 1.1 + work / 4.0 + 1.0,
            Help::Vmtouch | Help::Cat => alone.min(delivered * 2.0) + work,
        };
        let round: f64 = self.helps.iter().map(|&help| one(help) + 0.2).sum();
        REFERENCES as f64 * (delivered + work) + self.runs as f64 * round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(loaders: &[Loader]) -> Plan {
        Plan {
            devices: vec![Device::Gp3],
            loaders: loaders.to_vec(),
            helps: vec![Help::None, Help::Agent],
            size: None,
            runs: 5,
        }
    }

    #[test]
    fn a_model_is_made_once_however_many_load_it() {
        let plan = plan(&[Loader::Mmap, Loader::Ollama, Loader::LlamaCpp]);
        assert_eq!(plan.models(), [Model::Gguf, Model::Ollama]);
    }

    #[test]
    fn what_is_asked_for_by_default_is_over_in_minutes() {
        for device in Device::value_variants() {
            let plan = plan(&[Loader::LlamaCpp, Loader::Ollama, Loader::Safetensors]);
            let seconds: f64 = plan.loaders.iter().map(|&loader| plan.estimate(*device, loader)).sum();
            assert!((10.0..420.0).contains(&seconds), "{}: {seconds} s", device.name());
        }
    }

    #[test]
    fn names_are_those_of_the_command_line_and_of_json() {
        for device in Device::value_variants() {
            assert_eq!(device.to_possible_value().unwrap().get_name(), device.name());
            assert_eq!(serde_json::to_value(device).unwrap(), device.name());
        }
        for loader in Loader::value_variants() {
            assert_eq!(loader.to_possible_value().unwrap().get_name(), loader.name());
            assert_eq!(serde_json::to_value(loader).unwrap(), loader.name());
        }
    }
}
