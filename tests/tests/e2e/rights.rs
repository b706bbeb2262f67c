//! Few rights after the start: what every thread of the agent has left, as root and as a service of another user, and that it is enough.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    time::Duration,
};

use rig::{agent::Agent, tracefs::Tracefs, tree::gguf};

use super::{
    bed::{Bed, MIB, assert_adds_up, binary, cool, happenings, receipt, resident_all, scenario, until, warmed, within},
    reader::StepReader,
};

/// `CAP_DAC_READ_SEARCH`, `CAP_FOWNER`, `CAP_SYS_PTRACE`.
const KEPT: u64 = 1 << 2 | 1 << 3 | 1 << 19;

/// Whose the models are, and who the agent is when it is not root.
const OWNER: u32 = 65_534;
const SERVICE: u32 = 65_533;

/// The lines of `/proc/PID/task/*/status`, by field, with the thread's name.
fn threads(pid: u32) -> Vec<(String, BTreeMap<String, String>)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    // One may end between the listing and the reading.
    let each = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    each.map(|status| {
        let fields: BTreeMap<_, _> = status
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(field, value)| (field.to_owned(), value.trim().to_owned()))
            .collect();
        (fields["Name"].clone(), fields)
    })
    .collect()
}

/// Nothing but what the work takes, in any thread.
pub fn assert_few(pid: u32) {
    let threads = threads(pid);
    assert!(threads.len() >= 4, "{threads:?}");
    for (name, fields) in &threads {
        let set = |field: &str| u64::from_str_radix(&fields[field], 16).unwrap();
        for field in ["CapEff", "CapPrm"] {
            assert_eq!(set(field), KEPT, "{name}: {field} of {fields:?}");
        }
        // As another user there is no right to make it smaller: then it is what the service manager left.
        assert_eq!(set("CapBnd") & KEPT, KEPT, "{name}: {fields:?}");
        assert_eq!(set("CapInh") | set("CapAmb"), 0, "{name}: {fields:?}");
        assert_eq!(fields["NoNewPrivs"], "1", "{name}");
        assert_eq!(fields["Seccomp"], "2", "{name}");
    }
}

/// A model that its owner alone may read, in a directory of the same kind.
pub fn private(bed: &Bed) -> std::path::PathBuf {
    let dir = bed.dir("models");
    let tree = gguf::single(&dir, "model", 1, 128 * MIB).unwrap();
    let close = |path: &Path, mode| {
        chown(path, Some(OWNER), Some(OWNER)).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    close(&tree.files[0], 0o600);
    close(&dir, 0o700);
    tree.files[0].clone()
}

#[test]
fn every_thread_has_few_rights_left_and_they_are_enough() {
    scenario(384, |bed| {
        let weights = private(bed);
        bed.limit(100);
        // The syscalls mode needs it, and says so where it is missing.
        let _tracefs = Tracefs::mounted().unwrap();
        for (mode, user) in [
            ("page-cache", None),
            ("page-cache", Some(SERVICE)),
            ("fanotify", None),
            ("syscalls", None),
            ("syscalls", Some(SERVICE)),
        ] {
            cool(&weights);
            let mut agent = Agent::new(&binary(), bed.disk.path()).arg("--events").arg(mode);
            if let Some(user) = user {
                agent = agent.as_service(user);
            }
            let agent = bed.start(agent);
            let pid = agent.pid().unwrap();
            assert_few(pid);
            let owner = fs::metadata(format!("/proc/{pid}/task")).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), user.unwrap_or(0));
            let rights = &agent.ask("status").unwrap()["rights"];
            let kept = ["CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_SYS_PTRACE"];
            assert_eq!(rights["capabilities"], serde_json::json!(kept), "{rights:#}");
            assert_eq!(rights["no_new_privileges"], true);
            assert_eq!(rights["system_calls_filtered"], true);

            let mut reader = bed.reader(&weights);
            reader.read(16 * MIB, MIB);
            until("it is warmed", || resident_all(&weights) >= 32 * MIB);
            reader.read_to_end(MIB);
            // Threads that came with the work have no more.
            assert_few(pid);
            let receipt = receipt(&agent, reader.end());
            assert_adds_up(&receipt);
            assert!(warmed(&receipt) >= 16 * MIB, "{mode} {user:?}: {receipt:#}");
            assert!(agent.stop().unwrap().status.success());
        }
    });
}

#[test]
fn how_another_users_process_reads_is_still_seen() {
    scenario(384, |bed| {
        let weights = private(bed);
        bed.limit(40);
        for user in [None, Some(SERVICE)] {
            cool(&weights);
            let mut agent = Agent::new(&binary(), bed.disk.path());
            if let Some(user) = user {
                agent = agent.as_service(user);
            }
            let agent = bed.start(agent);
            let mut runner = StepReader::announced(&weights, Some(&bed.group));
            runner.open_direct(&weights);
            runner.read(4 * MIB, MIB);
            let told = || happenings(&agent, runner.pid());
            within(Duration::from_secs(2), "it is left alone", || {
                told()
                    .iter()
                    .any(|(what, note)| what == "SKIP" && note.contains("O_DIRECT"))
            });
        }
    });
}

#[test]
fn a_socket_in_a_directory_of_somebody_else_goes_at_the_end() {
    scenario(384, |bed| {
        private(bed);
        let folder = bed.dir("elsewhere");
        chown(&folder, Some(OWNER), Some(OWNER)).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
        let socket = folder.join("s");
        let mut command = std::process::Command::new(binary());
        command.arg("--watch").arg(bed.disk.path()).arg("--socket").arg(&socket);
        let mut agent = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        rig::sweep::adopt(agent.id());
        until("it can be asked", || {
            let ask = std::process::Command::new(binary())
                .args(["status", "--json", "--socket"])
                .arg(&socket)
                .output()
                .unwrap();
            String::from_utf8_lossy(&ask.stdout).contains("CAP_DAC_OVERRIDE")
        });
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(agent.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        assert!(agent.wait().unwrap().success());
        rig::sweep::disown(agent.id());
        assert!(!socket.exists());
    });
}
