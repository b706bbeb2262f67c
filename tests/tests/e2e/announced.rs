//! A runner that names its model on its command line: help begins before its first read, and is bounded until it reads.

use std::{
    fs::File,
    os::unix::{
        fs::{FileExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rig::{agent::Agent, limit::IoLimit, sweep, tree::ollama};

use super::bed::{
    Bed, MIB, binary, cool, events, happenings, number, receipt, resident_all, scenario, settled, within,
};

/// A process that was started with some arguments and does nothing; ended on drop.
struct Runner(Child);

impl Runner {
    /// `sh -c 'read line' ARGUMENTS`: it lives as long as its standard input is open.
    fn start(group: &IoLimit, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command
            .arg0("ollama_runner")
            .args(["-c", "read -r line; :"])
            .args(arguments)
            .stdin(Stdio::piped());
        group.join(&mut command).unwrap();
        let child = command.spawn().unwrap();
        sweep::adopt(child.id());
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn end(mut self) -> u32 {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
        self.pid()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
        sweep::disown(self.0.id());
    }
}

fn model(bed: &Bed) -> std::path::PathBuf {
    let tree = ollama::model(&bed.dir("models"), "llama", "8b", 1, 320 * MIB).unwrap();
    let weights = tree.files.last().unwrap().clone();
    cool(&weights);
    weights
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_command_line_opens_a_bounded_window_before_any_read() {
    scenario(512, |bed| {
        let weights = model(bed);
        bed.limit(200);
        let agent = bed.agent();
        // The path of another mount namespace: only the name says which file it is.
        let argument = format!("/somewhere/else/blobs/{}", name(&weights));
        let runner = Runner::start(&bed.group, &["--model", &argument, "--port", "4711"]);
        let pid = runner.pid();
        within(Duration::from_secs(2), "something is warmed", || {
            resident_all(&weights) >= 8 * MIB
        });
        let here = settled(Duration::from_secs(1), || resident_all(&weights));
        assert!((32 * MIB..=256 * MIB).contains(&here), "{} MiB", here / MIB);
        let told = happenings(&agent, pid);
        assert_eq!(told[0], ("LOAD".into(), "named on its command line".into()), "{told:?}");
        let status = agent.ask("status").unwrap();
        let load = &status["loads"][0];
        assert_eq!(
            (load["stage"].as_str(), load["model"].as_str()),
            (Some("announced"), Some("llama:8b")),
            "{status:#}"
        );

        let receipt = receipt(&agent, runner.end());
        assert_eq!(receipt["evidence"], "command-line", "{receipt:#}");
        assert_eq!(receipt["demanded"], 0);
        assert_eq!(receipt["skipped"][0], "never-read", "{receipt:#}");
        let wasted = receipt["wasted"].as_u64().unwrap();
        assert!(wasted.abs_diff(here) <= MIB, "{wasted} wasted, {here} brought in");
    });
}

#[test]
fn an_option_with_its_value_counts_as_well() {
    scenario(512, |bed| {
        let weights = model(bed);
        bed.limit(200);
        let _agent = bed.agent();
        let runner = Runner::start(&bed.group, &[&format!("--model={}", weights.display())]);
        within(Duration::from_secs(2), "something is warmed", || {
            resident_all(&weights) >= 8 * MIB
        });
        runner.end();
    });
}

#[test]
fn the_name_of_a_directory_or_of_a_small_file_opens_nothing() {
    scenario(512, |bed| {
        let weights = model(bed);
        let agent = bed.agent();
        let blobs = weights.parent().unwrap().to_str().unwrap().to_owned();
        let manifest = bed
            .disk
            .path()
            .join("models/manifests/registry.ollama.ai/library/llama/8b");
        let runners: Vec<_> = [
            blobs.as_str(),
            &format!("{blobs}/"),
            manifest.to_str().unwrap(),
            "sha256-0123456789",
        ]
        .iter()
        .map(|argument| Runner::start(&bed.group, &["--model", argument]))
        .collect();
        let told = agent.wait_for_line(Duration::from_secs(1), |line| line.contains("\"happening\""));
        assert_eq!(told, None);
        assert_eq!(resident_all(&weights), 0);
        drop(runners);
        assert!(events(&agent, "receipt").is_empty());
    });
}

/// Somebody else who reads 4 KiB here and there past the page cache, until it is dropped.
struct Neighbour {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    fn start(path: &Path) -> Self {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)
            .unwrap();
        let pages = file.metadata().unwrap().len() / 4096;
        let (stop, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, done) = (stop.clone(), bytes.clone());
        let thread = std::thread::spawn(move || {
            let mut page = memmap2::MmapMut::map_anon(4096).unwrap();
            let mut random = fastrand::Rng::with_seed(1);
            while !stopped.load(Ordering::Relaxed) {
                file.read_exact_at(&mut page, random.u64(..pages) * 4096).unwrap();
                done.fetch_add(4096, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self {
            stop,
            bytes,
            thread: Some(thread),
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn what_nobody_reads_yet_gives_way_to_everybody_within_a_tenth_of_a_second() {
    scenario(640, |bed| {
        let weights = model(bed);
        let other = bed.dir("other").join("data");
        std::fs::write(&other, vec![1; 64 << 20]).unwrap();
        cool(&other);
        bed.limit(20);
        let agent = bed.agent();
        let _runner = Runner::start(&bed.group, &["--model", name(&weights)]);
        within(Duration::from_secs(3), "something is warmed", || {
            resident_all(&weights) >= 8 * MIB
        });
        let neighbour = Neighbour::start(&other);
        std::thread::sleep(Duration::from_millis(100));
        let ours = || bed.device_bytes() - neighbour.bytes();
        let before = ours();
        std::thread::sleep(Duration::from_secs(1));
        let after = ours();
        // Some reads of the neighbour may be counted on one side of a look alone; a request of ours is 128 KiB at least.
        assert!(
            after.abs_diff(before) <= 64 << 10,
            "{} KiB",
            after.abs_diff(before) >> 10
        );
        assert_eq!(agent.ask("status").unwrap()["loads"][0]["stage"], "announced");
        drop(neighbour);
        let here = resident_all(&weights);
        within(Duration::from_secs(2), "it goes on", || {
            resident_all(&weights) >= here + 4 * MIB
        });
    });
}

#[test]
fn on_battery_only_readers_that_are_seen_are_helped() {
    scenario(512, |bed| {
        let weights = model(bed);
        let supplies = tempfile::tempdir().unwrap();
        let battery = supplies.path().join("BAT0");
        std::fs::create_dir(&battery).unwrap();
        std::fs::write(battery.join("type"), "Battery\n").unwrap();
        std::fs::write(battery.join("status"), "Discharging\n").unwrap();
        bed.limit(200);
        let agent = Agent::new(&binary(), bed.disk.path()).env("NITRO_POWER_SUPPLIES", supplies.path());
        let agent = bed.start(agent);
        let runner = Runner::start(&bed.group, &["--model", name(&weights)]);
        within(Duration::from_secs(2), "it is announced", || {
            agent.ask("status").unwrap()["loads"][0]["stage"] == "announced"
        });
        assert_eq!(agent.ask("status").unwrap()["on_battery"], true);
        std::thread::sleep(Duration::from_millis(700));
        // The look at its header that says what it is.
        assert!(resident_all(&weights) <= MIB);
        let mut reader = bed.reader(&weights);
        reader.read(8 * MIB, MIB);
        within(Duration::from_secs(2), "a reader is helped", || {
            resident_all(&weights) >= 32 * MIB
        });
        reader.end();
        runner.end();

        // Plugged in.
        cool(&weights);
        std::fs::write(battery.join("status"), "Charging\n").unwrap();
        let runner = Runner::start(&bed.group, &["--model", name(&weights)]);
        within(Duration::from_secs(2), "something is warmed", || {
            resident_all(&weights) >= 8 * MIB
        });
        let pid = runner.pid();
        let status = agent.ask("status").unwrap();
        assert_eq!(status["on_battery"], false);
        // What is held, and for whom.
        let held = settled(Duration::from_millis(1500), || resident_all(&weights));
        let status = agent.ask("status").unwrap();
        let holding = &status["holdings"][0];
        assert_eq!(
            (holding["model"].as_str(), holding["pid"].as_u64()),
            (Some("llama:8b"), Some(u64::from(pid))),
            "{status:#}"
        );
        // A step of the load before may have come in after the file was made cold: it was there, and is nobody's.
        assert!(number(holding, "bytes").abs_diff(held) <= 4 * MIB, "{held}: {status:#}");
        assert_eq!(holding["charged_to"], status["own_cgroup"], "{status:#}");
        assert!(
            status["own_cgroup"]
                .as_str()
                .is_some_and(|group| group.starts_with('/'))
        );
        runner.end();
    });
}
