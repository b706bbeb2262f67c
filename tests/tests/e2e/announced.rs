//! A runner that names its model on its command line: help begins before its first read, and is bounded until it reads.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rig::{limit::IoLimit, sweep, tree::ollama};

use super::bed::{Bed, MIB, cool, events, happenings, receipt, resident_all, scenario, settled, within};

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
