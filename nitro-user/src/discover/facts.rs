//! What /proc and the list of users say. All of it is bounded, and may have changed by the time it is used.
//!
//! In: process numbers. Out: [`Seen`] processes, homes. Reading the environment of another process takes its memory lock for a moment, so that it
//! is read once for each program that a process runs.

use std::{
    ffi::OsString,
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};

use super::{
    places::{Process, VARIABLES},
    walk::User,
};
use crate::sys::proc::read_at_most;

/// Of an environment. A program may put any part of its memory there.
const MOST_ENVIRONMENT: usize = 1 << 20;
/// Of a command line.
const MOST_ARGUMENTS: usize = 64 << 10;
/// Of the list of users.
const MOST_USERS: usize = 1 << 20;
/// Homes looked at.
const MOST_HOMES: usize = 256;
/// Groups of one process.
const MOST_GROUPS: usize = 1024;
/// The users who are people: the others are the system's, and their homes need not hold anything but models.
const PEOPLE: std::ops::Range<u32> = 1000..65_534;
/// A kernel thread: it has no environment.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// One program of one process, as long as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Process id.
    pub pid: u32,
    /// When the process began, in ticks since the start of the machine.
    began: u64,
    /// `comm`: another program has another one, as a rule.
    name: String,
}

/// A process that was looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it says.
    pub process: Process,
    /// Who it is.
    pub user: User,
    /// Whether it sees other mounts than we do.
    pub is_elsewhere: bool,
    /// Its mount namespace and its root in it, as text: the same for processes that see the same.
    pub view: String,
}

/// A home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Whose, by name.
    pub name: String,
    /// Whose.
    pub user: User,
    /// Where.
    pub path: PathBuf,
    /// A person's; what belongs to them is not all models.
    pub is_personal: bool,
}

/// The numbers of all processes.
pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Which program the process runs; `None` for kernel threads and for those that have ended.
pub fn run(pid: u32) -> Option<Run> {
    parse_run(pid, &read_at_most(format!("/proc/{pid}/stat"), 4096)?)
}

fn parse_run(pid: u32, stat: &[u8]) -> Option<Run> {
    // The name is in brackets and may have brackets in it.
    let (from, to) = (
        stat.iter().position(|byte| *byte == b'(')?,
        stat.iter().rposition(|byte| *byte == b')')?,
    );
    let name = String::from_utf8_lossy(stat.get(from + 1..to)?).into_owned();
    let rest = String::from_utf8_lossy(stat.get(to + 1..)?).into_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    (number(9)? & KERNEL_THREAD == 0).then_some(())?;
    Some(Run {
        pid,
        began: number(22)?,
        name,
    })
}

/// Looks at a process; `None` when it has ended.
pub fn look(run: &Run) -> Option<Seen> {
    let file = |name: &str| format!("/proc/{}/{name}", run.pid);
    let status = read_at_most(file("status"), 64 << 10)?;
    let view = view(&format!("/proc/{}", run.pid))?;
    Some(Seen {
        process: Process {
            pid: run.pid,
            name: run.name.clone(),
            environment: variables(&read_at_most(file("environ"), MOST_ENVIRONMENT)?),
            arguments: words(&read_at_most(file("cmdline"), MOST_ARGUMENTS)?),
            directory: fs::read_link(file("cwd")).ok(),
        },
        user: user(&String::from_utf8_lossy(&status))?,
        is_elsewhere: Some(&view) != self::view("/proc/thread-self").as_ref(),
        view,
    })
}

/// Mount namespace and root of the process at `proc`.
fn view(proc: &str) -> Option<String> {
    let link = |name: &str| fs::read_link(Path::new(proc).join(name)).ok();
    let (namespace, root) = (link("ns/mnt")?, link("root")?);
    Some(format!("{} {}", namespace.display(), root.display()))
}

/// The top of what a process sees, held as long as the descriptor is: it keeps the file system busy.
pub fn top_of(pid: u32) -> Option<OwnedFd> {
    top(&format!("/proc/{pid}/root"))
}

/// The top of what we see.
pub fn own_top() -> Option<OwnedFd> {
    top("/")
}

fn top(path: &str) -> Option<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).ok()
}

/// The variables that matter.
fn variables(environment: &[u8]) -> Vec<(OsString, OsString)> {
    let wanted = |name: &[u8]| name == b"HOME" || VARIABLES.iter().any(|(known, _)| known.as_bytes() == name);
    let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let mut found: Vec<(OsString, OsString)> = Vec::new();
    for variable in environment.split(|byte| *byte == 0) {
        let Some(at) = variable.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, value) = (&variable[..at], &variable[at + 1..]);
        // Of several, programs take the first.
        if wanted(name) && found.iter().all(|(other, _)| other.as_encoded_bytes() != name) {
            found.push((text(name), text(value)));
        }
    }
    found
}

fn words(line: &[u8]) -> Vec<OsString> {
    let line = line.strip_suffix(b"\0").unwrap_or(line);
    line.split(|byte| *byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

/// Real user and groups, from `/proc/PID/status`. Not the effective ones: whoever starts a set-user-id program chooses its environment.
fn user(status: &str) -> Option<User> {
    let numbers = |label: &str| -> Option<Vec<u32>> {
        let line = status.lines().find_map(|line| line.strip_prefix(label))?;
        let numbers = line.split_whitespace().take(MOST_GROUPS);
        Some(numbers.filter_map(|number| number.parse().ok()).collect())
    };
    let mut groups = numbers("Groups:").unwrap_or_default();
    groups.extend(numbers("Gid:")?.first());
    Some(User {
        user: *numbers("Uid:")?.first()?,
        groups,
    })
}

/// The homes of all users, each once.
pub fn homes() -> Vec<Home> {
    parse_homes(&read_at_most("/etc/passwd", MOST_USERS).unwrap_or_default())
}

fn parse_homes(users: &[u8]) -> Vec<Home> {
    let mut homes: Vec<Home> = Vec::new();
    for line in users.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [name, _, user, group, _, path, ..] = fields.as_slice() else {
            continue;
        };
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u32>().ok();
        let (Some(user), Some(group)) = (number(user), number(group)) else {
            continue;
        };
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        let is_home = path.is_absolute() && path != Path::new("/") && path != Path::new("/nonexistent");
        if is_home && homes.len() < MOST_HOMES && homes.iter().all(|home| home.path != path) {
            homes.push(Home {
                name: String::from_utf8_lossy(name).into_owned(),
                user: User {
                    user,
                    groups: vec![group],
                },
                path,
                is_personal: user == 0 || PEOPLE.contains(&user),
            });
        }
    }
    homes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = b"812 (a) (b) R 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let run = parse_run(812, line).unwrap();
        assert_eq!((run.began, run.name.as_str()), (4711, "a) (b"));
        let thread = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 30 0 0";
        assert_eq!(parse_run(2, thread), None);
        for rubbish in [&b""[..], b"812", b"812 (a", b"812 (a) R", b") ("] {
            assert_eq!(parse_run(812, rubbish), None);
        }
    }

    #[test]
    fn of_an_environment_only_what_matters_is_kept_and_the_first_counts() {
        let environment = b"PATH=/bin\0OLLAMA_MODELS=/a\nb\0OLLAMA_MODELS=/c\0=x\0HOME=/h\0rubbish\0HF_HOME=";
        let text = |word: &str| OsString::from(word);
        let expected = [("OLLAMA_MODELS", "/a\nb"), ("HOME", "/h"), ("HF_HOME", "")];
        assert_eq!(
            variables(environment),
            expected.map(|(name, value)| (text(name), text(value)))
        );
        assert!(variables(&vec![b'x'; MOST_ENVIRONMENT]).is_empty());
    }

    #[test]
    fn users_have_the_real_number_and_all_groups() {
        let status = "Name:\tx\nUid:\t1000\t1001\t1000\t1000\nGid:\t100\t101\t100\t100\nGroups:\t4 27 \n";
        let found = user(status).unwrap();
        assert_eq!((found.user, found.groups), (1000, vec![4, 27, 100]));
        assert_eq!(user("Name: x\n"), None);
    }

    #[test]
    fn homes_come_from_the_list_of_users_each_once() {
        let users = b"root:x:0:0::/root:/bin/sh\nollama:x:998:998::/usr/share/ollama:/bin/false\nanna:x:1000:1000::/home/anna:\n\
            twin:x:1001:1001::/home/anna:\nnobody:x:65534:65534::/nonexistent:\nnet:x:99:99::/:\nrubbish\n:::::\n";
        let homes = parse_homes(users);
        let found: Vec<(&str, bool)> = homes
            .iter()
            .map(|home| (home.name.as_str(), home.is_personal))
            .collect();
        assert_eq!(found, [("root", true), ("ollama", false), ("anna", true)]);
    }

    #[test]
    fn the_own_process_is_seen_as_it_is() {
        let own = run(std::process::id()).unwrap();
        let seen = look(&own).unwrap();
        assert!(!seen.is_elsewhere);
        assert_eq!(seen.user.user, nix::unistd::getuid().as_raw());
        assert!(processes().contains(&own.pid));
    }
}
