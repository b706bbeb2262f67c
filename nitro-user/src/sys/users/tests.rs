use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
};

use super::{
    super::{measure, stat::device_alone},
    *,
};
use crate::units::ByteRange;

const LONG: Duration = Duration::from_secs(20);

/// A machine whose /proc is made up.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("self")).unwrap();
        fs::write(proc.path().join("meminfo"), "").unwrap();
        Self(proc)
    }

    fn process(&self, number: u32, maps: &[u8], descriptors: &[(&str, &str)]) {
        let directory = self.0.path().join(number.to_string());
        for below in ["fd", "fdinfo", &format!("task/{number}")] {
            fs::create_dir_all(directory.join(below)).unwrap();
        }
        fs::write(directory.join("maps"), maps).unwrap();
        let status = "Name:\tx\nGroups:\t1 2 \nRssAnon:\t    2048 kB\nRssFile:\t 4096 kB\nRssShmem:\t 1 kB\n\
            VmSwap:\t       3 kB\nHugetlbPages:\t  4 kB\n";
        fs::write(directory.join("status"), status).unwrap();
        let mounts = "43 1 254:1 / / rw - ext4 /dev/a rw\n44 43 0:39 / /merged rw - overlay overlay rw,lowerdir=/l\n\
            45 43 0:40 / /net rw - nfs4 s:/ rw\n";
        fs::write(directory.join("mountinfo"), mounts).unwrap();
        for (index, (link, info)) in descriptors.iter().enumerate() {
            symlink(link, directory.join("fd").join(index.to_string())).unwrap();
            fs::write(directory.join("fdinfo").join(index.to_string()), info).unwrap();
        }
    }

    fn look(&self, question: &Question<'_>) -> Found {
        look(self.0.path(), question, LONG).unwrap()
    }
}

fn file(minor: u32, inode: u64) -> FileId {
    FileId {
        device: kernel_device(254, minor),
        inode,
    }
}

fn asked(files: &[FileId]) -> Question<'_> {
    Question {
        files,
        descriptors: true,
        ..Question::default()
    }
}

#[test]
fn who_maps_a_file_is_found_with_the_ranges_and_by_the_whole_identity() {
    let machine = Machine::new();
    let maps = b"5000-7000 r--s 00001000 fe:01 42 /m (deleted)\n1000-3000 r-xp 00000000 fe:01 42 /m\n\
        9000-a000 r--p 00008000 fe:01 42 /m\na000-b000 rw-p 00000000 00:00 0 [heap]\n";
    machine.process(7, maps, &[]);
    machine.process(
        8,
        b"1000-3000 r--s 00000000 fe:02 42 /m\n1000-3000 r--s 00000000 fe:01 43 fe:01 42\n",
        &[],
    );
    machine.process(9, b"", &[]);
    let files = [file(1, 42), file(1, 99)];
    let found = machine.look(&asked(&files));
    let user = User {
        process: 7,
        mapped: [ByteRange::new(0, 0x3000), ByteRange::new(0x8000, 0x1000)]
            .into_iter()
            .collect(),
        open: false,
    };
    assert_eq!(found.users, HashMap::from([(file(1, 42), vec![user])]));
    let memory = found.processes[&7].memory;
    assert_eq!(memory.private, ByteCount(2 << 20));
    assert_eq!(memory.total(), ByteCount((2 << 20) + (8 << 10)));
    assert_eq!((found.processes.len(), found.unseen), (1, 0));
    let passed_over = Question {
        own: &[7],
        ..asked(&files)
    };
    assert_eq!(machine.look(&passed_over), Found::default());
}

#[test]
fn who_has_a_file_open_is_found_and_what_accelerator_beside() {
    let machine = Machine::new();
    let info = |mount: u64, inode: u64| format!("pos:\t0\nflags:\t0100000\nmnt_id:\t{mount}\nino:\t{inode}\n");
    let (plain, other) = (info(43, 42), info(45, 42));
    machine.process(
        7,
        b"1000-2000 r-xp 0 fe:01 1 /bin/x\n",
        &[
            ("/models/m (deleted)", &plain),
            ("/dev/nvidiactl", ""),
            ("/dev/nvidia0", ""),
        ],
    );
    machine.process(
        8,
        b"1000-2000 r-xp 0 fe:01 1 /bin/x\n",
        &[("/net/m", &other), ("/dev/kfd", "")],
    );
    machine.process(
        9,
        b"1000-2000 r-xp 0 fe:01 1 /bin/x\n",
        &[("/dev/dri/renderD128", ""), ("/m", &plain)],
    );
    machine.process(
        10,
        b"1000-2000 r-xp 0 fe:01 1 /bin/x\n",
        &[("socket:[42]", &plain), ("/broken", "ino:\t42\n")],
    );
    let files = [file(1, 42)];
    let found = machine.look(&asked(&files));
    let mut users: Vec<u32> = found.users[&files[0]].iter().map(|user| user.process).collect();
    users.sort_unstable();
    assert_eq!(users, [7, 9]);
    assert!(
        found.users[&files[0]]
            .iter()
            .all(|user| user.open && user.mapped.is_empty())
    );
    assert_eq!(found.processes[&7].accelerator, Some(Accelerator::Compute));
    assert_eq!(found.processes[&9].accelerator, Some(Accelerator::Render));
    // It has read a model, and has neither open nor mapped any more what it read.
    let gone = Question {
        processes: &[8, 4711],
        ..asked(&[])
    };
    let found = machine.look(&gone);
    assert_eq!(found.processes.len(), 1);
    assert_eq!(found.processes[&8].accelerator, Some(Accelerator::Compute));
    let mappings_alone = Question {
        descriptors: false,
        ..asked(&files)
    };
    assert_eq!(machine.look(&mappings_alone), Found::default());
}

#[test]
fn a_file_of_an_overlay_counts_as_the_one_behind_it() {
    let machine = Machine::new();
    // With the layer in the upper bits, on another file system that is none, and on one that is not mounted there.
    let number = 42 | 1u64 << 62;
    let maps = format!("1000-3000 r--s 00000000 00:27 {number} /merged/m\n");
    machine.process(7, maps.as_bytes(), &[]);
    machine.process(8, b"1000-3000 r--s 00000000 00:28 42 /net/m\n", &[]);
    machine.process(9, b"1000-3000 r--s 00000000 00:99 42 /elsewhere/m\n", &[]);
    let files = [file(1, 42)];
    let found = machine.look(&asked(&files));
    assert_eq!(found.users[&files[0]].len(), 1);
    assert_eq!(found.users[&files[0]][0].process, 7);
}

#[test]
fn a_process_whose_first_thread_has_ended_is_seen_by_another() {
    let machine = Machine::new();
    machine.process(7, b"", &[]);
    let thread = machine.0.path().join("7/task/70");
    fs::create_dir_all(thread.join("fd")).unwrap();
    fs::write(thread.join("maps"), b"1000-3000 r--s 00000000 fe:01 42 /m\n").unwrap();
    let files = [file(1, 42)];
    assert_eq!(machine.look(&asked(&files)).users[&files[0]][0].process, 7);
}

#[test]
fn what_was_not_looked_at_is_counted() {
    let machine = Machine::new();
    machine.process(7, b"1000-3000 r--s 00000000 fe:01 42 /m\n", &[]);
    let endless = b"1000-3000 r--s 00000000 fe:01 42 /m\n".repeat(MOST_MAPS as usize / 36 + 1);
    machine.process(8, &endless, &[]);
    let files = [file(1, 42)];
    let found = machine.look(&asked(&files));
    assert_eq!((found.users[&files[0]].len(), found.unseen), (2, 1));
    let none = look(machine.0.path(), &asked(&files), Duration::ZERO).unwrap();
    assert_eq!((none.users.len(), none.unseen), (0, 2));
}

#[test]
fn of_many_mappings_of_a_file_few_ranges_are_kept() {
    let machine = Machine::new();
    let mut maps = String::new();
    for page in 0..10 * MOST_RANGES {
        maps += &format!("1000-2000 r--s {:08x} fe:01 42 /m\n", page * 0x2000);
    }
    machine.process(7, maps.as_bytes(), &[]);
    let files = [file(1, 42)];
    let found = machine.look(&asked(&files));
    let mapped = &found.users[&files[0]][0].mapped;
    assert!(mapped.pieces() <= MOST_RANGES);
    let all = ByteRange::new(0, (10 * MOST_RANGES as u64 - 1) * 0x2000 + 0x1000);
    assert_eq!(
        (mapped.iter().next().unwrap().start, mapped.iter().last().unwrap().end),
        (all.start, all.end)
    );
}

#[test]
fn this_machine_is_looked_at() {
    let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    fs::write(file.path(), vec![7; 3 << 12]).unwrap();
    let id = FileId {
        device: device_alone(file.as_file()).unwrap(),
        inode: file.as_file().metadata().unwrap().ino(),
    };
    let mut reader = std::process::Command::new("sleep")
        .arg("60")
        .stdin(File::open(file.path()).unwrap())
        .spawn()
        .unwrap();
    let map = measure::map_file(file.as_file(), true).unwrap();
    let files = [id];
    let found = look(Path::new(PROC), &asked(&files), LONG).unwrap();
    let user = |process| found.users[&id].iter().find(|user| user.process == process).cloned();
    let own = user(std::process::id()).unwrap().mapped;
    assert_eq!(own, [ByteRange::new(0, 3 << 12)].into_iter().collect());
    let open = user(reader.id()).unwrap();
    assert!(open.open && open.mapped.is_empty());
    assert!(found.processes[&std::process::id()].memory.private.0 > 100_000);
    reader.kill().unwrap();
    reader.wait().unwrap();
    drop(map);
}
