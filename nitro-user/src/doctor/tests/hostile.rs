//! Files that somebody else has written, or a kernel that nobody knows: whatever they hold, a report comes of it.

use super::*;

/// All files of a tree but those that are links.
fn files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), into);
        } else if kind.is_file() {
            into.push(entry.path());
        }
    }
}

fn everything() -> Tree {
    let tree = Tree::whole();
    tree.file("proc/version", "Linux version 5.15.0-microsoft-standard-WSL2\n");
    tree.file(
        "proc/cpuinfo",
        "cpu family\t: 6\nmodel\t\t: 23\naddress sizes\t: 36 bits physical\n",
    );
    tree.file(
        "sys/devices/system/cpu/vulnerabilities/l1tf",
        "Mitigation: PTE Inversion\n",
    );
    tree.file("sys/block/zram0/disksize", "1\n");
    tree.file("sys/block/zram0/mm_stat", "0 0 0 1\n");
    tree.file("sys/module/zswap/parameters/enabled", "Y\n");
    tree.file("sys/class/power_supply/BAT0/type", "Battery\n");
    tree.file("sys/kernel/mm/damon/admin/kdamonds/0/state", "on\n");
    tree.file("sys/fs/cgroup/user.slice/io.max", "8:0 rbps=1\n");
    tree.file("mnt/c/Users/x/.wslconfig", "[wsl2]\nmemory=1GB\n");
    tree.mounts("27 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n60 27 0:64 / /mnt/c rw - 9p C:\\134 rw,aname=drvfs\n");
    tree
}

#[test]
fn whatever_a_file_holds_there_is_a_report() {
    let tree = everything();
    let mut all = Vec::new();
    files(tree.0.path(), &mut all);
    assert!(all.len() > 40);
    let garbage: [&[u8]; 8] = [
        b"",
        b"\n\n\n",
        b"\xff\xfe\x00\x80\n",
        b"18446744073709551615\n",
        b"-1 -1 -1 -1 -1 -1 -1\n",
        b"\x1b[2J\x1b]0;owned\x07[\x1b[2J] = \xe2\x80\xae evil\n",
        b"0::/../../../../etc\n7:memory,blkio:/../..\n1:memory:\n",
        b"1 2 3:4 / / rw - \n1 2 4294967295:4294967295 / /models rw - btrfs /dev/../../etc/passwd rw\n",
    ];
    for file in &all {
        let before = fs::read(file).unwrap();
        for bytes in garbage {
            fs::write(file, bytes).unwrap();
            tree.report();
        }
        fs::write(file, before).unwrap();
    }
}

#[test]
fn a_file_of_any_length_and_kind_is_read_to_its_bound() {
    let tree = everything();
    let long = vec![b'9'; 4 << 20];
    for path in [
        "proc/swaps",
        "proc/self/cgroup",
        "proc/meminfo",
        "proc/version",
        "mnt/c/Users/x/.wslconfig",
    ] {
        tree.file(path, &long);
    }
    tree.report();
    for path in ["proc/swaps", "proc/sys/vm/swappiness", "mnt/c/Users/x/.wslconfig"] {
        tree.remove(path);
        nix::unistd::mkfifo(&tree.path(path), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    // One that is opened would hold us for ever.
    tree.report();
}

#[test]
fn an_empty_machine_has_a_report_too() {
    let tree = Tree(tempfile::tempdir().unwrap());
    let report = tree.report_on(&["/models"], tried([false; 4]));
    assert_eq!(report.verdict.exit_code, 2);
    assert_eq!(state(&report, "release"), State::Degraded);
    assert_eq!(state(&report, "/models"), State::Missing);
}

#[test]
fn directories_that_go_round_in_links_are_missing() {
    let tree = Tree::whole();
    tree.link("round", Path::new("round"));
    tree.link("out", Path::new("/etc"));
    let report = tree.report_on(&["/round", "/out"], tried([true; 4]));
    assert_eq!(state(&report, "/round"), State::Missing);
    assert_eq!(state(&report, "/out"), State::Missing);
}
