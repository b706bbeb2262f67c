//! Where programs keep models.
//!
//! In: what is known of a process, of a home, of the system. Out: paths that may be directories with models, each with its reason. Nothing is
//! looked up: most of them do not exist.
//!
//! Sources, as of 2026: Ollama's FAQ (`OLLAMA_MODELS`, the system service's `/usr/share/ollama`) and its snap; the Alpaca flatpak's issues 78 and
//! 253; the environment variables of `huggingface_hub`, of transformers and of `torch.hub`; llama.cpp's pull requests 7353 and 7826 and its server's
//! options; LM Studio's documentation and `lms`; GPT4All's FAQ; Jan's issue 6018; LocalAI's command line reference; the options of vLLM, SGLang,
//! text-generation-inference, Triton, koboldcpp; the trees of ComfyUI, stable-diffusion-webui, text-generation-webui and InvokeAI.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Longest path that is taken from a process, in bytes: the kernel's own bound.
const LONGEST: usize = 4096;

/// A place that may be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Absolute; may have `..` and lead through links.
    pub path: PathBuf,
    /// Why, for people.
    pub why: String,
    /// It may be a file: then the directory that holds it is meant.
    pub may_be_file: bool,
    /// Without these beside it, it is something else of that name.
    pub signs: Vec<PathBuf>,
    /// Nobody names it: it is where such a thing would be.
    pub is_guess: bool,
}

impl Candidate {
    fn new(path: PathBuf, why: String) -> Self {
        Self {
            path,
            why,
            may_be_file: false,
            signs: Vec::new(),
            is_guess: false,
        }
    }

    fn guess(path: PathBuf, why: String) -> Self {
        Self {
            is_guess: true,
            ..Self::new(path, why)
        }
    }
}

/// What is known of a process. All of it is its own say, but for the number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// `comm`.
    pub name: String,
    /// Variables of [`VARIABLES`] and `HOME`, as they were when the program began.
    pub environment: Vec<(OsString, OsString)>,
    /// Its command line.
    pub arguments: Vec<OsString>,
    /// Working directory.
    pub directory: Option<PathBuf>,
}

/// Environment variables that name a directory, and what below it holds models.
pub const VARIABLES: &[(&str, &[&str])] = &[
    ("OLLAMA_MODELS", &[""]),
    ("HF_HUB_CACHE", &[""]),
    ("HUGGINGFACE_HUB_CACHE", &[""]),
    ("HF_HOME", &["hub"]),
    ("TRANSFORMERS_CACHE", &[""]),
    ("SENTENCE_TRANSFORMERS_HOME", &[""]),
    ("TORCH_HOME", &["hub"]),
    ("LLAMA_CACHE", &[""]),
    ("LLAMA_ARG_MODELS_DIR", &[""]),
    ("LOCALAI_MODELS_PATH", &[""]),
    ("MODELSCOPE_CACHE", &[""]),
    ("INVOKEAI_ROOT", &["models"]),
    (
        "XDG_CACHE_HOME",
        &["huggingface/hub", "llama.cpp", "torch/hub", "modelscope/hub"],
    ),
    (
        "XDG_DATA_HOME",
        &["nomic.ai/GPT4All", "Jan/data/llamacpp/models", "Jan/data/models"],
    ),
];

/// Below a home: who keeps models there, and where.
const IN_A_HOME: &[(&str, &str)] = &[
    ("Ollama", ".ollama/models"),
    (
        "Ollama in the Alpaca flatpak",
        ".var/app/com.jeffser.Alpaca/data/.ollama/models",
    ),
    ("Hugging Face cache", ".cache/huggingface/hub"),
    ("llama.cpp cache", ".cache/llama.cpp"),
    ("LM Studio", ".lmstudio/models"),
    ("LM Studio", ".cache/lm-studio/models"),
    ("GPT4All", ".local/share/nomic.ai/GPT4All"),
    (
        "GPT4All in its flatpak",
        ".var/app/io.gpt4all.gpt4all/data/nomic.ai/GPT4All",
    ),
    ("Jan", ".local/share/Jan/data/llamacpp/models"),
    ("Jan", ".local/share/Jan/data/models"),
    ("Jan", "jan/models"),
    ("torch hub", ".cache/torch/hub"),
    ("sentence-transformers", ".cache/torch/sentence_transformers"),
    ("ModelScope cache", ".cache/modelscope/hub"),
    ("InvokeAI", "invokeai/models"),
    ("ComfyUI", "ComfyUI/models"),
    ("ComfyUI", "comfy/ComfyUI/models"),
];

/// Anywhere else.
const IN_THE_SYSTEM: &[(&str, &str)] = &[
    ("Ollama's system service", "/usr/share/ollama/.ollama/models"),
    ("Ollama's system service", "/var/lib/ollama/models"),
    ("Ollama's snap", "/var/snap/ollama/common/models"),
];

/// A program that names models on its command line.
struct Program {
    /// How its file, or the module it runs, begins.
    name: &'static str,
    /// Options with a directory of models, and what below it holds them.
    directories: &'static [(&'static str, &'static str)],
    /// Options, or words, with a model: a file, or a directory of one model.
    models: &'static [&'static str],
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "llama-",
        directories: &[("--models-dir", "")],
        models: &["-m", "--model"],
    },
    Program {
        name: "koboldcpp",
        directories: &[],
        models: &["--model"],
    },
    Program {
        name: "vllm",
        directories: &[("--download-dir", "")],
        models: &["serve", "--model"],
    },
    Program {
        name: "sglang",
        directories: &[("--download-dir", "")],
        models: &["--model-path", "--model"],
    },
    Program {
        name: "text-generation-launcher",
        directories: &[("--huggingface-hub-cache", "")],
        models: &["--model-id"],
    },
    Program {
        name: "tritonserver",
        directories: &[("--model-repository", ""), ("--model-store", "")],
        models: &[],
    },
    Program {
        name: "local-ai",
        directories: &[("--models-path", "")],
        models: &[],
    },
];

/// A program in Python that keeps models beside its script.
struct Script {
    name: &'static str,
    /// Its script.
    script: &'static str,
    /// What else is beside it: the scripts' names say little.
    sign: &'static str,
    /// Where models are beside it.
    models: &'static [&'static str],
    /// Options with a directory, and what below it holds models.
    directories: &'static [(&'static str, &'static str)],
}

const SCRIPTS: &[Script] = &[
    Script {
        name: "ComfyUI",
        script: "main.py",
        sign: "comfy",
        models: &["models"],
        directories: &[("--base-directory", "models")],
    },
    Script {
        name: "stable-diffusion-webui",
        script: "launch.py",
        sign: "modules",
        models: &["models"],
        directories: &[("--data-dir", "models"), ("--ckpt-dir", "")],
    },
    Script {
        name: "stable-diffusion-webui",
        script: "webui.py",
        sign: "modules",
        models: &["models"],
        directories: &[("--data-dir", "models"), ("--ckpt-dir", "")],
    },
    Script {
        name: "text-generation-webui",
        script: "server.py",
        sign: "modules",
        models: &["user_data/models", "models"],
        directories: &[("--model-dir", "")],
    },
];

/// What a process says of where models are.
pub fn of_process(process: &Process) -> Vec<Candidate> {
    let mut found = Vec::new();
    let who = format!("{} (pid {})", process.name, process.pid);
    for (variable, places) in VARIABLES {
        let Some(value) = process.variable(variable).filter(|value| !value.is_empty()) else {
            continue;
        };
        let Some(top) = process.absolute(value) else { continue };
        let place = |below: &&str| Candidate::new(join(&top, below), format!("{variable} of {who}"));
        found.extend(places.iter().map(place));
    }
    for program in PROGRAMS.iter().filter(|program| process.runs(program.name)) {
        found.extend(process.directories(program.directories, &format!("option of {who}")));
        for model in process.values(program.models) {
            // Otherwise it is the name of one in a cache.
            if let Some(path) = process.absolute(model).filter(|_| is_path(model)) {
                found.push(Candidate {
                    may_be_file: true,
                    ..Candidate::new(path, format!("model of {who}"))
                });
            }
        }
    }
    for script in SCRIPTS {
        let Some(folder) = process.script(script.script) else {
            continue;
        };
        let sign = folder.join(script.sign);
        let why = format!("{} (pid {})", script.name, process.pid);
        let beside = script.models.iter().map(|models| join(&folder, models));
        let beside = beside.map(|path| Candidate::new(path, why.clone()));
        let elsewhere = process.directories(script.directories, &format!("option of {why}"));
        found.extend(beside.chain(elsewhere).map(|candidate| Candidate {
            signs: vec![sign.clone()],
            ..candidate
        }));
    }
    found
}

/// Where models are in a home; `whose` is for people: `of user anna`.
pub fn of_home(home: &Path, whose: &str) -> Vec<Candidate> {
    let place = |(who, below): &(&str, &str)| Candidate::guess(home.join(below), format!("{who} {whose}"));
    IN_A_HOME.iter().map(place).collect()
}

/// Where models are that belong to no user.
pub fn of_system() -> Vec<Candidate> {
    let place = |(who, path): &(&str, &str)| Candidate::guess(PathBuf::from(path), (*who).to_owned());
    IN_THE_SYSTEM.iter().map(place).collect()
}

impl Process {
    /// The value of an environment variable.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        let found = self.environment.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_os_str())
    }

    /// The home it was started with, if that is an absolute path.
    pub fn home(&self) -> Option<PathBuf> {
        let home = Path::new(self.variable("HOME")?);
        (home.is_absolute() && home.as_os_str().len() <= LONGEST).then(|| home.to_owned())
    }

    /// `value` as an absolute path: seen from its working directory, with `~` for its home, as the programs do it.
    fn absolute(&self, value: &OsStr) -> Option<PathBuf> {
        if value.len() > LONGEST || value.as_bytes().contains(&0) {
            return None;
        }
        let path = Path::new(value);
        if path.is_absolute() {
            return Some(path.to_owned());
        }
        match path.strip_prefix("~") {
            Ok(below) => Some(self.home()?.join(below)),
            Err(_) => Some(self.directory.as_ref()?.join(path)),
        }
    }

    /// Whether its file, or a module or script that it runs, has a name that begins so.
    fn runs(&self, name: &str) -> bool {
        // `python3 -m vllm.entrypoints.openai.api_server`, `/opt/venv/bin/python /opt/venv/bin/vllm serve`.
        self.arguments.iter().take(3).any(|argument| {
            let file = argument.as_bytes().rsplit(|byte| *byte == b'/').next();
            file.is_some_and(|file| file.starts_with(name.as_bytes()))
        })
    }

    /// The folder of the Python script that it runs, when that is called `name`.
    fn script(&self, name: &str) -> Option<PathBuf> {
        let program = Path::new(self.arguments.first()?).file_name()?;
        if !program.as_bytes().starts_with(b"python") {
            return None;
        }
        let script = self
            .arguments
            .iter()
            .skip(1)
            .find(|word| !word.as_bytes().starts_with(b"-"))?;
        let script = self
            .absolute(script)
            .filter(|path| path.file_name() == Some(OsStr::new(name)))?;
        script.parent().map(Path::to_owned)
    }

    /// What follows `options` on the command line, as `--option value` or `--option=value`.
    fn values<'a>(&'a self, options: &'a [&str]) -> impl Iterator<Item = &'a OsStr> {
        let after = self.arguments.iter().zip(self.arguments.iter().skip(1));
        let apart = after.filter(|(word, _)| options.iter().any(|option| *word == OsStr::new(option)));
        let joined = self.arguments.iter().filter_map(|word| {
            let at = word.as_bytes().iter().position(|byte| *byte == b'=')?;
            let (option, value) = (&word.as_bytes()[..at], &word.as_bytes()[at + 1..]);
            let known = options.iter().any(|known| known.as_bytes() == option);
            known.then(|| OsStr::from_bytes(value))
        });
        apart.map(|(_, value)| value.as_os_str()).chain(joined)
    }

    fn directories<'a>(&'a self, options: &'a [(&str, &str)], why: &str) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (option, below) in options {
            let tops = self
                .values(std::slice::from_ref(option))
                .filter_map(|value| self.absolute(value));
            found.extend(tops.map(|top| Candidate::new(join(&top, below), format!("{option}, {why}"))));
        }
        found
    }
}

/// Whether a model is named by a path rather than by a name such as `org/name`.
fn is_path(model: &OsStr) -> bool {
    let bytes = model.as_bytes();
    bytes.starts_with(b"/") || bytes.starts_with(b"./") || bytes.starts_with(b"../") || bytes.starts_with(b"~/") || {
        let file = Path::new(model).extension();
        file.is_some_and(|end| end == "gguf" || end == "bin" || end == "safetensors")
    }
}

fn join(top: &Path, below: &str) -> PathBuf {
    if below.is_empty() {
        top.to_owned()
    } else {
        top.join(below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(environment: &[(&str, &str)], arguments: &[&str]) -> Process {
        Process {
            pid: 812,
            name: "p".into(),
            environment: environment
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            arguments: arguments.iter().map(Into::into).collect(),
            directory: Some("/work".into()),
        }
    }

    fn paths(process: &Process) -> Vec<String> {
        let found = of_process(process).into_iter();
        found
            .map(|candidate| candidate.path.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn variables_name_directories_or_what_is_below_them() {
        let said = |variable, value| paths(&process(&[("HOME", "/home/anna"), (variable, value)], &["x"]));
        assert_eq!(said("OLLAMA_MODELS", "/data/ollama"), ["/data/ollama"]);
        assert_eq!(said("HF_HOME", "/data/hf"), ["/data/hf/hub"]);
        assert_eq!(said("HF_HOME", "~/hf"), ["/home/anna/hf/hub"]);
        assert_eq!(said("HF_HUB_CACHE", "cache"), ["/work/cache"]);
        assert_eq!(
            said("XDG_CACHE_HOME", "/c")[..2],
            ["/c/huggingface/hub", "/c/llama.cpp"]
        );
        assert_eq!(said("OLLAMA_MODELS", ""), Vec::<String>::new());
        assert_eq!(said("OLLAMA_HOST", "/data"), Vec::<String>::new());
        let why = &of_process(&process(&[("OLLAMA_MODELS", "/m")], &["ollama"]))[0].why;
        assert_eq!(why, "OLLAMA_MODELS of p (pid 812)");
    }

    #[test]
    fn models_on_a_command_line_are_paths_and_not_names() {
        let files = |arguments: &[&str]| paths(&process(&[], arguments));
        assert_eq!(files(&["/usr/bin/llama-server", "-m", "/m/a.gguf"]), ["/m/a.gguf"]);
        assert_eq!(files(&["llama-server", "--model=b.gguf"]), ["/work/b.gguf"]);
        assert_eq!(
            files(&["llama-server", "--models-dir", "/m", "-m", "x.gguf"]),
            ["/m", "/work/x.gguf"]
        );
        assert_eq!(
            files(&["/v/bin/python", "/v/bin/vllm", "serve", "/m/llama"]),
            ["/m/llama"]
        );
        assert_eq!(files(&["vllm", "serve", "org/llama", "--download-dir", "/d"]), ["/d"]);
        assert_eq!(
            files(&["python3", "-m", "sglang.launch_server", "--model-path", "/m/x"]),
            ["/m/x"]
        );
        assert_eq!(
            files(&["transmission-daemon", "--download-dir", "/torrents"]),
            Vec::<String>::new()
        );
        assert_eq!(files(&["llama-server", "-m"]), Vec::<String>::new());
    }

    #[test]
    fn a_script_counts_with_what_is_beside_it() {
        let comfy = process(&[], &["/v/bin/python3", "-s", "main.py", "--base-directory", "/big"]);
        let found = of_process(&comfy);
        assert_eq!(paths(&comfy), ["/work/models", "/big/models"]);
        assert!(
            found
                .iter()
                .all(|candidate| candidate.signs == [PathBuf::from("/work/comfy")])
        );
        assert_eq!(paths(&process(&[], &["vim", "main.py"])), Vec::<String>::new());
        let text = process(&[], &["python", "/t/server.py"]);
        assert_eq!(paths(&text), ["/t/user_data/models", "/t/models"]);
    }

    #[test]
    fn nothing_longer_than_a_path_can_be_is_taken() {
        let long = format!("/{}", "x".repeat(5000));
        assert_eq!(
            paths(&process(&[("OLLAMA_MODELS", &long)], &["x"])),
            Vec::<String>::new()
        );
        assert_eq!(process(&[("HOME", "relative")], &[]).home(), None);
    }
}
