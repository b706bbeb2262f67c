//! Memory cgroups by the numbers that the kernel names them with: whose account it is, and whether it has a limit that is not ours as well.
//!
//! In: the cgroup of this process, and numbers of other cgroups' directories. Out: what may become of pages that are charged to them and locked. Where a limit is reached the
//! kernel looks for somebody to kill at and below the group that has it. So a limit that binds this process too is no stranger's: what is locked can be had back from us. A limit
//! that does not would have somebody else killed for pages that we lock.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::cgroup::{LimitAt, MemoryGroup};

/// Cgroups that are looked through for a number.
const MOST_GROUPS: usize = 1 << 16;

/// The number of the first cgroup of a hierarchy. Where another one is at the mount point, the others are hidden from this process.
const TOP: u64 = 1;

/// Whose a page is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// Nobody's work depends on it: ours, or without a limit of its own.
    Free,
    /// Of a cgroup with a limit that does not bind this process.
    Limited {
        /// The cgroup, as in /proc/PID/cgroup.
        group: String,
        /// The limit.
        limit: LimitAt,
    },
    /// Of a cgroup that is hidden from this process, or whose limits are.
    Hidden,
}

/// The accounts, as they were last looked at.
#[derive(Debug)]
pub struct Accounts {
    /// `None`: there are no memory cgroups.
    own: Option<MemoryGroup>,
    by_number: HashMap<u64, PathBuf>,
    /// Numbers that were not found.
    hidden: HashSet<u64>,
    /// What was found out, since the last [`Accounts::renew`].
    judged: HashMap<u64, Account>,
    worst: Option<Account>,
}

impl Accounts {
    /// Of the hierarchy that `own` is in, the cgroup of whoever locks.
    pub fn new(own: Option<MemoryGroup>) -> Self {
        Self {
            own,
            by_number: HashMap::new(),
            hidden: HashSet::new(),
            judged: HashMap::new(),
            worst: None,
        }
    }

    /// Whether there are memory cgroups at all.
    pub fn are_kept(&self) -> bool {
        self.own.is_some()
    }

    /// Limits are looked at again from here on: they can be set at any time.
    pub fn renew(&mut self) {
        self.judged.clear();
        self.hidden.clear();
        self.worst = None;
    }

    /// The number of our own.
    pub fn own_number(&self) -> Option<u64> {
        let directory = self.own.as_ref()?.directory();
        fs::metadata(directory).ok().map(|status| status.ino())
    }

    /// The account with this number.
    pub fn numbered(&mut self, number: u64) -> Account {
        let Some(own) = self.own.clone() else {
            return Account::Free;
        };
        if let Some(known) = self.judged.get(&number) {
            return known.clone();
        }
        let group = self.directory(&own, number).and_then(|path| own.beside(&path));
        let account = group.map_or(Account::Hidden, |group| judge(&group, &own));
        self.judged.insert(number, account.clone());
        account
    }

    /// Somebody with a limit that does not bind this process, whoever it is; `Hidden` where not everybody can be seen.
    pub fn anybody_limited(&mut self) -> Account {
        if let Some(known) = &self.worst {
            return known.clone();
        }
        let worst = self.own.as_ref().map_or(Account::Free, worst);
        self.worst.insert(worst).clone()
    }

    /// The directory with this number. One that is known can have got another name, or be gone.
    fn directory(&mut self, own: &MemoryGroup, number: u64) -> Option<PathBuf> {
        let is_it = |path: &&PathBuf| fs::metadata(path).is_ok_and(|status| status.ino() == number);
        if let Some(path) = self.by_number.get(&number).filter(is_it) {
            return Some(path.clone());
        }
        if self.hidden.contains(&number) {
            return None;
        }
        self.by_number.clear();
        let known = &mut self.by_number;
        walk(own.mount(), &mut |directory| {
            if let Ok(status) = fs::metadata(directory) {
                known.insert(status.ino(), directory.to_owned());
            }
            true
        });
        let found = self.by_number.get(&number).cloned();
        if found.is_none() {
            self.hidden.insert(number);
        }
        found
    }
}

/// The first account with a limit that is not that of `own` as well.
fn worst(own: &MemoryGroup) -> Account {
    if fs::metadata(own.mount()).map_or(0, |top| top.ino()) != TOP {
        return Account::Hidden;
    }
    let mut found = Account::Free;
    let complete = walk(own.mount(), &mut |directory| {
        found = own
            .beside(directory)
            .map_or(Account::Hidden, |group| judge(&group, own));
        found == Account::Free
    });
    if found == Account::Free && !complete {
        return Account::Hidden;
    }
    found
}

fn judge(group: &MemoryGroup, own: &MemoryGroup) -> Account {
    match group.limit_apart_from(own) {
        Ok(None) => Account::Free,
        Ok(Some(limit)) => Account::Limited {
            group: group.name().to_owned(),
            limit,
        },
        // It has gone, and its pages are its parent's by now: they are asked about again.
        Err(_) => Account::Hidden,
    }
}

/// Calls `visit` with `top` and every directory below it, until that says no. False where some were left out.
fn walk(top: &Path, visit: &mut impl FnMut(&Path) -> bool) -> bool {
    let mut left = vec![top.to_owned()];
    let mut count = 0;
    while let Some(directory) = left.pop() {
        count += 1;
        if count > MOST_GROUPS {
            return false;
        }
        if !visit(&directory) {
            return true;
        }
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return false,
        };
        let below = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(below.map(|entry| entry.path()));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::{of_process, of_table};
    use super::*;
    use crate::units::ByteCount;

    /// A machine with version 2 of the control groups, whose cgroups have these limits; we are in `/ours/agent`.
    fn machine(limits: &[(&str, &str)]) -> (tempfile::TempDir, Accounts) {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join("sys/fs/cgroup");
        fs::create_dir_all(&mount).unwrap();
        fs::write(mount.join("cgroup.controllers"), "memory").unwrap();
        for (group, limit) in limits {
            fs::create_dir_all(mount.join(group)).unwrap();
            fs::write(mount.join(group).join("memory.max"), limit).unwrap();
        }
        let own = of_table("0::/ours/agent\n", root.path());
        (root, Accounts::new(own))
    }

    fn number(root: &tempfile::TempDir, group: &str) -> u64 {
        fs::metadata(root.path().join("sys/fs/cgroup").join(group))
            .unwrap()
            .ino()
    }

    #[test]
    fn a_number_leads_to_the_limit_that_is_not_ours() {
        let limits = [
            ("ours", "5000"),
            ("ours/agent", "3000"),
            ("ours/cousin", "max"),
            ("other", "max"),
            ("other/app", "700"),
            ("other/app/deep", "max"),
        ];
        let (root, mut accounts) = machine(&limits);
        for free in ["", "ours", "ours/agent", "ours/cousin", "other"] {
            let number = number(&root, free);
            assert_eq!(accounts.numbered(number), Account::Free, "{free}");
        }
        let limited = Account::Limited {
            group: "/other/app/deep".into(),
            limit: LimitAt {
                name: "/other/app".into(),
                bytes: ByteCount(700),
            },
        };
        assert_eq!(accounts.numbered(number(&root, "other/app/deep")), limited);
        assert_eq!(accounts.numbered(u64::MAX), Account::Hidden);
    }

    #[test]
    fn limits_and_names_are_looked_at_anew_when_that_is_asked_for() {
        let (root, mut accounts) = machine(&[("ours/agent", "max"), ("app", "max")]);
        let app = number(&root, "app");
        assert_eq!(accounts.numbered(app), Account::Free);
        let mount = root.path().join("sys/fs/cgroup");
        fs::rename(mount.join("app"), mount.join("renamed")).unwrap();
        fs::write(mount.join("renamed/memory.max"), "70").unwrap();
        assert_eq!(accounts.numbered(app), Account::Free, "until then");
        accounts.renew();
        assert!(matches!(accounts.numbered(app), Account::Limited { group, .. } if group == "/renamed"));
        // Made after the numbers were looked at.
        fs::create_dir(mount.join("later")).unwrap();
        assert_eq!(accounts.numbered(number(&root, "later")), Account::Free);
    }

    #[test]
    fn a_name_that_is_no_text_hides_its_group() {
        use std::os::unix::ffi::OsStrExt;
        let (root, mut accounts) = machine(&[("ours/agent", "max")]);
        let odd = root
            .path()
            .join("sys/fs/cgroup")
            .join(std::ffi::OsStr::from_bytes(b"a\xff"));
        fs::create_dir(&odd).unwrap();
        fs::write(odd.join("memory.max"), "70").unwrap();
        assert_eq!(accounts.numbered(odd.metadata().unwrap().ino()), Account::Hidden);
    }

    #[test]
    fn who_sees_a_part_of_the_groups_does_not_say_that_nobody_is_limited() {
        let (_root, mut accounts) = machine(&[("ours/agent", "max")]);
        assert_eq!(
            accounts.anybody_limited(),
            Account::Hidden,
            "its top is not the first group"
        );
        assert_eq!(Accounts::new(None).anybody_limited(), Account::Free);
        // The machine's own, whatever is there.
        let mut accounts = Accounts::new(of_process(std::process::id()));
        if let Account::Limited { group, .. } = accounts.anybody_limited() {
            assert!(group.starts_with('/'), "{group}");
        }
    }

    #[test]
    fn without_memory_cgroups_nobody_is_charged() {
        assert_eq!(Accounts::new(None).numbered(77), Account::Free);
    }
}
