//! A session of processes: somebody's program with all that it starts and leaves behind, told by the number of its first process.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{sys::proc::read_at_most, units::printable};

/// How long somebody's program has to end after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long those that were killed may take to be gone: one that waits for a device takes longer, and nobody can help it.
const DYING: Duration = Duration::from_secs(1);
/// How long those that were started by a program may take to notice that it has ended.
const LINGERING: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A process of a session that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    group: i32,
    /// `name[pid]`, for people.
    pub told: String,
}

/// Those of the session that `leader` began which have not ended. Its number is nobody else's while one is left, or while the leader was not waited for.
pub fn members(leader: u32) -> Vec<Member> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    processes.filter_map(|process| member(process, leader)).collect()
}

fn member(process: u32, leader: u32) -> Option<Member> {
    let stat = read_at_most(format!("/proc/{process}/stat"), 4096)?;
    let stat = String::from_utf8_lossy(&stat);
    // The name may hold spaces and brackets: fields are counted from the last bracket.
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let mut fields = stat[close + 1..].split_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let session: u32 = fields.next()?.parse().ok()?;
    let name = printable(stat.get(open + 1..close)?);
    (session == leader && !matches!(state, "Z" | "X" | "x")).then(|| Member {
        group,
        told: format!("{name}[{process}]"),
    })
}

/// Those that are still there a moment after the leader has ended: some end by themselves once it has.
pub fn left(leader: u32) -> Vec<Member> {
    let deadline = Instant::now() + LINGERING;
    loop {
        let left = members(leader);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Ends a session: SIGTERM once, and SIGKILL for what is there after a moment.
pub fn end(leader: u32) {
    tell(&members(leader), Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    loop {
        let left = members(leader);
        let now = Instant::now();
        if left.is_empty() || now > deadline + DYING {
            return;
        }
        if now > deadline {
            tell(&left, Signal::SIGKILL);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn tell(members: &[Member], signal: Signal) {
    let groups: BTreeSet<i32> = members
        .iter()
        .map(|member| member.group)
        .filter(|&group| group > 1)
        .collect();
    for group in groups {
        let _ = killpg(Pid::from_raw(group), signal);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Child, Command, Stdio},
    };

    use super::*;
    use crate::sys::measure;

    /// A shell in a session of its own that has said something.
    fn shell(script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
        // Other shells have job control on a terminal alone.
        let mut command = Command::new("bash");
        command.args(["-c", script]).stdout(Stdio::piped());
        measure::own_session(&mut command);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        (child, said)
    }

    #[test]
    fn what_a_program_leaves_behind_is_found_and_ended_in_any_group() {
        // The second one in a group of its own, as of a shell with job control.
        let script = "sleep 1000 >&2 & set -m; sleep 1000 >&2 & echo ready";
        let (mut child, _said) = shell(script);
        let leader = child.id();
        nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(Pid::from_raw(leader.cast_signed())),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        )
        .unwrap();
        let left = members(leader);
        end(leader);
        assert_eq!(left.len(), 2, "{left:?}");
        assert_ne!(left[0].group, left[1].group);
        assert_eq!(members(leader), []);
        child.wait().unwrap();
    }

    #[test]
    fn sigterm_comes_once_and_then_sigkill() {
        let (mut child, mut said) = shell("trap 'echo told' TERM; echo ready; while :; do sleep 0.01; done");
        end(child.id());
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut said, &mut rest).unwrap();
        assert_eq!(rest, "told\n");
    }
}
