//! `--watch auto`: directories are found by what processes say, in homes, and in other mount namespaces.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::mount::{MntFlags, umount2};
use rig::{
    agent::{Agent, AgentProcess},
    scratch::ScratchDir,
    sweep,
    tree::gguf,
};
use serde_json::Value;

use super::bed::{Bed, MIB, base, binary, cool, events, number, resident_all, scenario, until, within};

const SIZE: u64 = 64 * MIB;
/// Asking starts programs by the dozen; those that are passed over are found a few seconds later.
const SOON: Duration = Duration::from_secs(15);

/// A process that does nothing, in an environment of its own; ended on drop.
struct Idle(Child);

impl Idle {
    fn with(environment: &[(&str, &Path)]) -> Self {
        // Long enough a command line: shorter ones begin too often to be told of.
        let mut command = Command::new("sleep");
        command.arg("1000.0000000000000");
        Self::of(command, environment)
    }

    fn of(mut command: Command, environment: &[(&str, &Path)]) -> Self {
        command.env_clear().envs(environment.iter().copied());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        sweep::adopt(child.id());
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        sweep::disown(self.0.id());
    }
}

fn auto(bed: &Bed) -> AgentProcess {
    bed.start(Agent::new(&binary(), Path::new("auto")))
}

/// What the agent says of the directory at `path`.
fn directory(agent: &AgentProcess, path: &Path) -> Option<Value> {
    let status = agent.ask("status").unwrap();
    let all = status["directories"].as_array().unwrap();
    let found = all.iter().find(|directory| directory["path"] == path.to_str().unwrap());
    found.cloned()
}

/// Why the agent leaves the directory at `path` out.
fn left_out(agent: &AgentProcess, path: &Path) -> Option<String> {
    let status = agent.ask("status").unwrap();
    let all = status["auto"]["not_watched"].as_array().unwrap();
    let found = all.iter().find(|not| not["path"] == path.to_str().unwrap());
    found.map(|not| not["reason"].as_str().unwrap().to_owned())
}

/// A directory with one model of [`SIZE`].
fn models(bed: &Bed, name: &str) -> (PathBuf, PathBuf) {
    let dir = bed.dir(name);
    let file = gguf::single(&dir, "model", 1, SIZE).unwrap().files.remove(0);
    cool(&file);
    (dir, file)
}

#[test]
fn directories_that_processes_name_are_found_before_and_while_the_agent_runs() {
    scenario(512, |bed| {
        let (ollama, _) = models(bed, "ollama");
        let (hub, weights) = models(bed, "hf/hub");
        let first = Idle::with(&[("OLLAMA_MODELS", &ollama)]);
        bed.limit(200);
        let agent = auto(bed);
        let found = directory(&agent, &ollama).unwrap();
        assert_eq!(found["why"], format!("OLLAMA_MODELS of sleep (pid {})", first.pid()));
        assert_eq!(number(&found, "models"), 1, "{found:#}");
        assert!(number(&found, "bytes") >= SIZE, "{found:#}");
        assert!(directory(&agent, &hub).is_none());

        let second = Idle::with(&[("HF_HOME", hub.parent().unwrap())]);
        within(SOON, "it is taken up", || directory(&agent, &hub).is_some());
        until("it is told", || !events(&agent, "watching").is_empty());
        let told = events(&agent, "watching").remove(0);
        assert_eq!(
            told["why"],
            format!("HF_HOME of sleep (pid {})", second.pid()),
            "{told:#}"
        );
        assert_eq!(number(&told, "models"), 1, "{told:#}");
        // It is as good as any other: who reads there is helped.
        is_helped(bed, &weights, &weights);

        // What was unwatched stays away, whoever names it again.
        agent.tell(&["unwatch", hub.to_str().unwrap()]).unwrap();
        assert!(directory(&agent, &hub).is_none());
        let (marker, _) = models(bed, "marker");
        let _third = Idle::with(&[("HF_HOME", hub.parent().unwrap())]);
        let _fourth = Idle::with(&[("OLLAMA_MODELS", &marker)]);
        within(SOON, "the next is taken up", || directory(&agent, &marker).is_some());
        assert!(directory(&agent, &hub).is_none());
    });
}

#[test]
fn homes_are_looked_through() {
    scenario(256, |bed| {
        let home = bed.dir("home/anna");
        let (hub, _) = models(bed, "home/anna/.cache/huggingface/hub");
        let (real, _) = models(bed, "big/ollama");
        fs::create_dir_all(home.join(".ollama")).unwrap();
        symlink(&real, home.join(".ollama/models")).unwrap();
        // Whose home is a link to everything.
        let bad = bed.dir("home/bad/.ollama");
        symlink("/", bad.join("models")).unwrap();
        let users = bed.disk.path().join("passwd");
        let line = |name: &str, home: &Path| format!("{name}:x:0:0::{}:/bin/sh\n", home.display());
        fs::write(&users, line("anna", &home) + &line("bad", bad.parent().unwrap())).unwrap();
        // The agent in a mount namespace of its own, where the list of users is this one.
        let wrapper = in_own_namespace(
            bed.disk.path(),
            &format!("mount --bind {} /etc/passwd", users.display()),
        );
        let agent = bed.start(Agent::new(&wrapper, Path::new("auto")));
        assert_eq!(
            directory(&agent, &hub).unwrap()["why"],
            "Hugging Face cache of user anna"
        );
        assert_eq!(directory(&agent, &real).unwrap()["why"], "Ollama of user anna");
        assert!(left_out(&agent, Path::new("/")).unwrap().contains("--watch"));
        assert!(agent.stop().unwrap().status.success());
    });
}

/// A reader of the first 16 MiB at `path` is helped: twice as much comes into the page cache of the file `weights`.
fn is_helped(bed: &Bed, path: &Path, weights: &Path) {
    let mut reader = bed.reader(path);
    for _ in 0..16 {
        reader.read(MIB, MIB);
        std::thread::sleep(Duration::from_millis(10));
    }
    until("it is warmed", || resident_all(weights) >= 32 * MIB);
    reader.end();
}

/// A program in `folder` that is the agent in a mount namespace of its own, in which `setup` was run.
fn in_own_namespace(folder: &Path, setup: &str) -> PathBuf {
    let wrapper = folder.join("agent");
    let agent = binary().canonicalize().unwrap();
    let inner = format!("{setup} && exec \"$0\" \"$@\"");
    let script = format!(
        "#!/bin/sh\nexec unshare -m --propagation private sh -c '{inner}' {} \"$@\"\n",
        agent.display()
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).unwrap();
    wrapper
}

/// A process in a mount namespace of its own, in which `setup` was run.
fn in_a_namespace(setup: &str, environment: &[(&str, &Path)]) -> Idle {
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("{setup} && exec sleep 1000.0000000000000"));
    Idle::of(command, environment)
}

#[test]
fn a_directory_of_another_mount_namespace_is_watched_by_its_path_here() {
    scenario(256, |bed| {
        let (volume, weights) = models(bed, "volumes/ollama/_data");
        let inside = bed.dir("inside");
        let setup = format!("mount --bind {} {}", volume.display(), inside.display());
        let container = in_a_namespace(&setup, &[("OLLAMA_MODELS", &inside)]);
        until("it is mounted there", || {
            fs::read_to_string(format!("/proc/{}/comm", container.pid())).is_ok_and(|name| name == "sleep\n")
        });
        bed.limit(200);
        let agent = auto(bed);
        let found = directory(&agent, &volume).unwrap();
        assert_eq!(
            found["why"],
            format!("OLLAMA_MODELS of sleep (pid {})", container.pid())
        );
        assert!(directory(&agent, &inside).is_none());
        is_helped(bed, &weights, &weights);
    });
}

#[test]
fn a_directory_that_only_another_namespace_sees_is_reached_through_a_process_there() {
    scenario(384, |bed| {
        let (dir, weights) = models(bed, "models");
        let (marker, _) = models(bed, "marker");
        // The agent in a mount namespace of its own, without the disk.
        let scratch = ScratchDir::new(&base()).unwrap();
        let setup = format!("{{ umount {} 2>/dev/null || :; }}", bed.disk.path().display());
        let wrapper = in_own_namespace(scratch.path(), &setup);
        let first = Idle::with(&[("OLLAMA_MODELS", &dir)]);
        bed.limit(200);
        let agent = bed.start(Agent::new(&wrapper, Path::new("auto")));
        let through = |idle: &Idle, dir: &Path| PathBuf::from(format!("/proc/{}/root{}", idle.pid(), dir.display()));
        let found = directory(&agent, &through(&first, &dir)).unwrap();
        assert_eq!(found["why"], format!("OLLAMA_MODELS of sleep (pid {})", first.pid()));
        assert_eq!(number(&found, "models"), 1, "{found:#}");
        is_helped(bed, &weights, &weights);

        // Another process of that namespace takes over.
        let second = Idle::with(&[("OLLAMA_MODELS", &dir)]);
        let (gone, next) = (through(&first, &dir), through(&second, &dir));
        drop(first);
        within(SOON, "the other one is used", || directory(&agent, &next).is_some());
        assert!(directory(&agent, &gone).is_none());
        // With the last one it goes.
        drop(second);
        within(Duration::from_secs(1), "it is gone", || {
            directory(&agent, &next).is_none()
        });
        assert_eq!(number(&agent.ask("status").unwrap(), "watched"), 0);
        // It comes back with the next one, and goes for good when it is unwatched.
        let third = Idle::with(&[("OLLAMA_MODELS", &dir)]);
        let path = through(&third, &dir);
        within(SOON, "it is back", || directory(&agent, &path).is_some());
        agent.tell(&["unwatch", path.to_str().unwrap()]).unwrap();
        let fourth = Idle::with(&[("OLLAMA_MODELS", &dir)]);
        let last = Idle::with(&[("OLLAMA_MODELS", &marker)]);
        within(SOON, "the marker is found", || {
            directory(&agent, &through(&last, &marker)).is_some()
        });
        assert!(directory(&agent, &path).is_none() && directory(&agent, &through(&fourth, &dir)).is_none());
        // What is watched there is held by nothing of ours.
        umount2(bed.disk.path(), MntFlags::empty()).unwrap();
        within(Duration::from_secs(1), "it is gone with its file system", || {
            directory(&agent, &through(&last, &marker)).is_none()
        });
        assert!(agent.stop().unwrap().status.success());
    });
}

#[test]
fn what_a_container_keeps_in_its_own_overlay_is_followed_in_the_layers() {
    scenario(256, |bed| {
        let (image, weights) = models(bed, "image/models");
        let [upper, work, inside] = ["upper", "work", "inside"].map(|name| bed.dir(name));
        let setup = format!(
            "mount -t overlay overlay -o lowerdir={},upperdir={},workdir={} {}",
            bed.dir("image").display(),
            upper.display(),
            work.display(),
            inside.display()
        );
        let container = in_a_namespace(&setup, &[("OLLAMA_MODELS", &inside.join("models"))]);
        until("it is mounted there", || {
            fs::read_to_string(format!("/proc/{}/comm", container.pid())).is_ok_and(|name| name == "sleep\n")
        });
        bed.limit(200);
        let agent = auto(bed);
        let there = PathBuf::from(format!("/proc/{}/root{}/models", container.pid(), inside.display()));
        let found = directory(&agent, &there).unwrap();
        assert_eq!(number(&found, "models"), 1, "{found:#}");
        is_helped(bed, &there.join(weights.strip_prefix(&image).unwrap()), &weights);
        drop(container);
        within(Duration::from_secs(1), "it is gone", || {
            directory(&agent, &there).is_none()
        });
    });
}

#[test]
fn what_hostile_processes_say_is_not_watched_and_does_no_harm() {
    scenario(256, |bed| {
        let base = bed.disk.path();
        fs::set_permissions(base, Permissions::from_mode(0o755)).unwrap();
        symlink("/", base.join("top")).unwrap();
        symlink("/proc/self/root", base.join("magic")).unwrap();
        nix::unistd::mkfifo(&base.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let private = bed.dir("private/models");
        fs::set_permissions(base.join("private"), Permissions::from_mode(0o700)).unwrap();
        let (real, _) = models(bed, "real");
        let path = |text: &str| PathBuf::from(text);
        let long = path(&"x".repeat(100_000));
        let pipe = base.join("pipe");
        let processes = [
            vec![
                ("OLLAMA_MODELS", base.join("top")),
                ("HF_HUB_CACHE", base.join("magic")),
            ],
            vec![("OLLAMA_MODELS", pipe), ("HF_HUB_CACHE", path("../../../../../../.."))],
            vec![("OLLAMA_MODELS", path("/etc\n")), ("HF_HUB_CACHE", path("/usr/lib"))],
            vec![
                ("OLLAMA_MODELS", long.clone()),
                ("A", long.clone()),
                ("HF_HUB_CACHE", long),
            ],
            vec![
                ("HF_HUB_CACHE", real.join("../top/proc/1/root")),
                ("LLAMA_CACHE", path("/home")),
            ],
        ];
        let processes = processes.iter().map(|environment| {
            let environment: Vec<(&str, &Path)> =
                environment.iter().map(|(name, path)| (*name, path.as_path())).collect();
            Idle::with(&environment)
        });
        let processes: Vec<Idle> = processes.collect();
        let mut stranger = Command::new("sleep");
        stranger.arg("1000.0000000000000").uid(65_534).gid(65_534);
        let stranger = Idle::of(stranger, &[("OLLAMA_MODELS", &private), ("HF_HUB_CACHE", &real)]);
        let began = Instant::now();
        let agent = auto(bed);
        assert!(began.elapsed() < Duration::from_secs(5));
        let status = agent.ask("status").unwrap();
        let roots: Vec<&str> = status["roots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|root| root.as_str().unwrap())
            .collect();
        let ours: Vec<&&str> = roots.iter().filter(|root| Path::new(root).starts_with(base)).collect();
        assert_eq!(ours, [&real.to_str().unwrap()], "{status:#}");
        let why = directory(&agent, &real).unwrap()["why"].clone();
        assert_eq!(why, format!("HF_HUB_CACHE of sleep (pid {})", stranger.pid()));
        for refused in ["/", "/etc", "/usr/lib", "/home", "/proc"] {
            assert!(!roots.contains(&refused), "{refused}: {status:#}");
        }
        assert!(left_out(&agent, Path::new("/")).is_some(), "{status:#}");
        assert!(
            left_out(&agent, &private).unwrap().contains("cannot be read"),
            "{status:#}"
        );

        // A directory that was found is exchanged for a link to another one.
        fs::rename(&real, base.join("away")).unwrap();
        symlink("/usr/share", &real).unwrap();
        within(SOON, "it is let go", || directory(&agent, &real).is_none());
        assert!(directory(&agent, Path::new("/usr/share")).is_none());
        drop(processes);
        assert!(agent.stop().unwrap().status.success());
    });
}

#[test]
fn finding_costs_nothing_while_no_program_starts() {
    scenario(256, |bed| {
        let (dir, _) = models(bed, "models");
        let _named = Idle::with(&[("OLLAMA_MODELS", &dir)]);
        let agent = auto(bed);
        let received = || number(&agent.ask("status").unwrap(), "ring_received");
        let (before, start) = (received(), Instant::now());
        let switches = agent.voluntary_switches().unwrap();
        std::thread::sleep(Duration::from_secs(8));
        let switches = agent.voluntary_switches().unwrap() - switches;
        let seconds = start.elapsed().as_secs_f64();
        // Programs that others start wake it, each a few times; asking it did so as well.
        let excused = 6 * (received() - before) + 8;
        let own = switches.saturating_sub(excused) as f64 / seconds;
        assert!(
            own <= 1.0,
            "{switches} wake-ups in {seconds:.1} s, {excused} of them for cause"
        );
    });
}
