//! Pins on the running kernel: what is held stays, what is let go of is free, whose account it is on, and who is killed when memory runs out. Takes root, and says so where it is skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod account;
mod accounts;
mod bed;
mod figures;
mod pressure;

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use nitro_user::{
    bench::disk::TestDisk,
    sys::{measure, page_cache},
    units::{ByteCount, ByteRange, PinId},
    warm::pins::{PinEvent, Refusal},
};

use self::bed::{MIB, SIZE, base, inner, inside, lives, opener, resident, scenario, status, status_bytes, within};

#[test]
fn what_is_held_is_locked_by_a_process_that_may_do_nothing_else_and_goes_first() {
    scenario(|mut bed| {
        let file = bed.file(SIZE);
        assert_eq!(bed.pins.processes().living(), [0; 0], "nothing is held");
        let id = bed.open(1, file.path());
        assert_eq!(bed.hold(id, 0, SIZE), (SIZE, 0, None));
        assert_eq!(bed.pins.held(), ByteCount(SIZE));
        let [keeper] = bed.pins.processes().living()[..] else {
            panic!("one process for one file system");
        };
        assert_eq!(status_bytes(keeper, "VmLck"), SIZE);
        let text = |name: &str| status(keeper, name);
        assert_eq!(
            (text("CapPrm"), text("CapEff")),
            ("0000000000004000".into(), "0000000000004000".into())
        );
        assert_eq!((text("NoNewPrivs"), text("Seccomp")), ("1".into(), "2".into()));
        assert_eq!(text("Threads"), "1");
        let score = fs::read_to_string(format!("/proc/{keeper}/oom_score_adj")).unwrap();
        assert_eq!(score.trim(), "1000");
        // Neither Ctrl-C nor the end of a terminal is sent to it.
        let session = |process: u32| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
            let rest = stat.rsplit_once(')').unwrap().1.to_owned();
            rest.split_whitespace().nth(3).unwrap().to_owned()
        };
        assert_ne!(session(keeper), session(std::process::id()));
        // Held once, however often it is asked for, and by parts.
        assert_eq!(bed.hold(id, MIB, 2 * MIB), (MIB, 0, None));
        assert_eq!(bed.pins.held(), ByteCount(SIZE));
        let began = Instant::now();
        bed.pins.release(id);
        assert_eq!(
            bed.next(),
            PinEvent::Released {
                pin: id,
                bytes: ByteCount(SIZE)
            }
        );
        // Milliseconds; the bound is the one that a hog may wait.
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(bed.pins.held(), ByteCount(0));
        within("the process ends that holds nothing", || !lives(keeper));
    });
}

#[test]
fn a_file_without_a_name_is_free_right_after_it_is_let_go_of() {
    scenario(|mut bed| {
        let disk = TestDisk::new(&base(), 96 * MIB).unwrap();
        let path = disk.path().join("model");
        fs::write(&path, vec![7; SIZE as usize]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let id = bed.open(1, &path);
        assert_eq!(bed.hold(id, 0, SIZE), (SIZE, 0, None));
        fs::remove_file(&path).unwrap();
        let free = || {
            nix::unistd::sync();
            let space = nix::sys::statvfs::statvfs(disk.path()).unwrap();
            space.blocks_free() * space.fragment_size()
        };
        let before = free();
        bed.pins.release(id);
        assert!(matches!(bed.next(), PinEvent::Released { .. }));
        assert!(free() >= before + SIZE, "{} of {before}", free());
        nix::mount::umount(disk.path()).unwrap();
    });
}

#[test]
fn only_what_is_in_memory_is_held_and_nothing_is_read_for_it() {
    scenario(|mut bed| {
        let disk = TestDisk::new(&base(), 96 * MIB).unwrap();
        let path = disk.path().join("model");
        fs::write(&path, vec![7; SIZE as usize]).unwrap();
        let file = File::open(&path).unwrap();
        measure::drop_pages(&file).unwrap();
        page_cache::readahead(&file, ByteRange::new(0, MIB)).unwrap();
        page_cache::readahead(&file, ByteRange::new(17 * MIB, MIB)).unwrap();
        for at in [0, 17].map(|mib| mib * MIB) {
            (0..MIB / 4096).for_each(|page| page_cache::wait(&file, at + page * 4096).unwrap());
        }
        let there = resident(&path);
        assert!((2 * MIB..4 * MIB).contains(&there), "{there}");
        let before = disk.device_bytes_read().unwrap();
        let id = bed.open(1, &path);
        let (locked, missing, refused) = bed.hold(id, 0, SIZE);
        assert_eq!((locked + missing, refused), (SIZE, None));
        assert_eq!(disk.device_bytes_read().unwrap(), before);
        assert_eq!(locked, there);
        assert_eq!(resident(&path), there);
        // So that the disk can be unmounted.
        bed.pins.release(id);
        bed.next();
    });
}

#[test]
fn a_process_that_is_killed_is_told_with_its_pins_and_another_one_holds_the_next() {
    scenario(|mut bed| {
        let (one, other) = (bed.file(SIZE), bed.file(MIB));
        let (one, other) = (bed.open(1, one.path()), bed.open(2, other.path()));
        bed.hold(one, 0, SIZE);
        bed.hold(other, 0, MIB);
        let keepers = bed.pins.processes().living();
        assert_eq!(keepers.len(), 1);
        bed::kill(keepers[0]);
        match bed.next() {
            PinEvent::Lost { mut pins, bytes, end } => {
                pins.sort_unstable();
                assert_eq!(
                    (pins, bytes, end.signal),
                    (vec![one, other], ByteCount(SIZE + MIB), Some(9))
                );
            }
            event => panic!("{event:?}"),
        }
        assert_eq!(bed.pins.held(), ByteCount(0));
        assert!(bed.pins.processes().ended(keepers[0]));
        // Let go of, it is not told of again.
        bed.pins.release(one);
        let again = bed.file(MIB);
        let id = bed.open(3, again.path());
        assert_eq!(bed.hold(id, 0, MIB), (MIB, 0, None));
        assert_ne!(bed.pins.processes().living(), keepers);
    });
}

#[test]
fn everything_ends_with_the_agent_however_it_ends() {
    scenario(|mut bed| {
        let file = bed.file(MIB);
        let id = bed.open(1, file.path());
        bed.hold(id, 0, MIB);
        let (keepers, parent) = (bed.pins.processes().living(), bed.parent);
        drop(bed);
        within("both have ended", || !lives(keepers[0]) && !lives(parent));

        let mut agent = inside("agent_that_is_killed", None);
        let line = agent.said("holding ");
        let processes: Vec<u32> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        assert!(processes.iter().all(|process| lives(*process)));
        agent.process.kill().unwrap();
        agent.process.wait().unwrap();
        within("both have ended", || !processes.iter().any(|process| lives(*process)));
    });
}

/// Not a test: what one of them starts.
#[test]
#[ignore = "what a test starts"]
fn agent_that_is_killed() {
    inner(|mut bed| {
        let file = bed.file(MIB);
        let id = bed.open(1, file.path());
        bed.hold(id, 0, MIB);
        println!("holding {} {}", bed.pins.processes().living()[0], bed.parent);
        // What is in a test's own directory goes with its killer.
        fs::remove_file(file.path()).unwrap();
        loop {
            std::thread::park();
        }
    });
}

#[test]
fn letting_go_is_the_last_word() {
    scenario(|mut bed| {
        let (file, other) = (bed.file(SIZE), bed.file(MIB));
        for round in 1..20 {
            let (one, two) = (bed.open(2 * round, file.path()), bed.open(2 * round + 1, other.path()));
            for at in 0..SIZE / MIB {
                bed.pins.hold(one, ByteRange::new(at * MIB, MIB)).unwrap();
            }
            bed.pins.hold(two, ByteRange::new(0, MIB)).unwrap();
            bed.pins.release(one);
            let mut released = 0;
            loop {
                match bed.next() {
                    PinEvent::Held { pin, .. } if pin == one => assert_eq!(released, 0),
                    PinEvent::Released { pin, .. } if pin == one => released += 1,
                    PinEvent::Held { pin, locked, .. } if pin == two => {
                        assert_eq!(locked, ByteCount(MIB));
                        break;
                    }
                    event => panic!("{event:?}"),
                }
            }
            assert_eq!(released, 1);
            bed.pins.release_all();
            assert!(matches!(bed.next(), PinEvent::Released { pin, .. } if pin == two));
        }
    });
}

#[test]
fn what_cannot_be_held_is_refused_in_words() {
    scenario(|mut bed| {
        let file = bed.file(2 * bed::MOST + MIB);
        let id = bed.open(1, file.path());
        let (locked, missing, refused) = bed.hold(id, 0, 2 * bed::MOST);
        assert!(locked <= bed::MOST && missing == 0);
        let refused = refused.unwrap();
        assert_eq!(refused.bytes.0 + locked, 2 * bed::MOST);
        assert_eq!(
            refused.why,
            Refusal::Full {
                most: ByteCount(bed::MOST)
            }
        );
        bed.pins.release(id);
        bed.next();

        let nowhere = bed.open(2, file.path());
        bed.pins.release(nowhere);
        bed.next();
        let opener = opener(Path::new("/var/tmp/nothing/there"));
        bed.pins.open(nowhere, bed::id(file.path()), MIB, opener).unwrap();
        let (.., refused) = bed.hold(nowhere, 0, MIB);
        assert!(refused.unwrap().why.to_string().contains("No such file"));

        // Cut short since it was described.
        let short = bed.file(MIB);
        let id = bed.open(3, short.path());
        File::options()
            .write(true)
            .open(short.path())
            .unwrap()
            .set_len(4096)
            .unwrap();
        let (locked, missing, refused) = bed.hold(id, 0, MIB);
        assert_eq!((locked, missing, refused), (4096, MIB - 4096, None));
        let unknown = PinId(77);
        assert!(bed.pins.hold(unknown, ByteRange::new(0, 1)).is_err());
    });
}

#[test]
fn each_file_system_has_a_process_of_its_own() {
    scenario(|mut bed| {
        let disk = TestDisk::new(&base(), 96 * MIB).unwrap();
        let path = disk.path().join("model");
        fs::write(&path, vec![7; MIB as usize]).unwrap();
        let here = bed.file(MIB);
        let (one, other) = (bed.open(1, &path), bed.open(2, here.path()));
        assert_eq!(bed.hold(one, 0, MIB).0 + bed.hold(other, 0, MIB).0, 2 * MIB);
        let keepers = bed.pins.processes().living();
        assert_eq!(keepers.len(), 2);
        let holder = keepers.iter().find(|keeper| bed::maps(**keeper, &path)).unwrap();
        bed::kill(*holder);
        assert!(matches!(bed.next(), PinEvent::Lost { pins, .. } if pins == [one]));
        assert_eq!(bed.pins.held(), ByteCount(MIB));
    });
}
