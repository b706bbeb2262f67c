//! The page-cache event mode on the running kernel: for each hook, that the right event arrives, and that the counts are those of what was done.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kernel;

use kernel::{MIB, TestFile, Watcher, assert_ended, covered, has, lines, range};
use nitro_common::{AccessEvent, Hook, STEP_BYTES, flags};
use nitro_user::source::attach::{EventChoice, EventMode};

/// Not a test: what the tests start as another process.
#[test]
fn reader_process() {
    kernel::reader::run_if_told();
}

fn attach() -> Option<Watcher> {
    Watcher::attach(EventChoice::Only(EventMode::PageCache))
}

fn only(hook: Hook) -> impl Fn(Hook) -> bool {
    move |other| other == hook
}

fn starts(events: &[AccessEvent]) -> Vec<u64> {
    events.iter().map(|event| event.offset).collect()
}

#[test]
fn sequential_reads_become_one_event_per_step_and_all_are_counted() {
    let Some(mut watcher) = attach() else { return };
    let file = TestFile::cold(16 * MIB);
    watcher.watch(&file);
    let reader = watcher.run(&format!("open {}\n128 * read 131072\nread 131072", file.name()));

    let reads = watcher.accesses(reader);
    // The eighth read in order ends at 1 MiB and is told beside the steps.
    let (walks, steps): (Vec<AccessEvent>, Vec<AccessEvent>) =
        reads.iter().partition(|event| has(event, flags::IN_ORDER));
    let expected: Vec<u64> = (0..8).map(|step| step * STEP_BYTES).collect();
    assert_eq!(starts(&steps), expected, "{}", lines(&reads));
    assert_eq!(starts(&walks), [(7 * 128) << 10], "{}", lines(&reads));
    for event in &reads {
        assert_eq!(Hook::from_number(event.hook), Some(Hook::GetPages));
        assert_eq!((event.inode, event.device), (file.id.inode, file.id.device));
        assert_eq!(event.length, 128 << 10);
        assert!(!has(event, flags::JUMP | flags::DIRECT), "{}", lines(&reads));
    }
    let counts = watcher.counts(reader, &file);
    assert_eq!((counts.calls, counts.bytes), (128, 16 * MIB));
    assert_eq!(counts.added_bytes, 16 * MIB);
    assert!(counts.missed_bytes > 0 && counts.missed_bytes <= 16 * MIB, "{counts:?}");

    // Every page came in once: what was told, and what the cursor still holds.
    let adds = watcher.of(reader, only(Hook::Add));
    let mut runs: Vec<_> = adds.iter().map(range).collect();
    runs.push((counts.add_start, counts.add_end));
    assert_eq!(covered(runs), 16 * MIB, "{}", lines(&adds));
    assert!(adds.len() <= 16, "{}", lines(&adds));
    assert_ended(&watcher, reader);
    watcher.counters_at_rest();
}

#[test]
fn a_read_of_many_folios_is_one_call() {
    let Some(mut watcher) = attach() else { return };
    let file = TestFile::cached(4 * MIB);
    watcher.watch(&file);
    let reader = watcher.run(&format!("open {}\npread 0 {}", file.name(), 4 * MIB));
    let counts = watcher.counts(reader, &file);
    assert_eq!((counts.calls, counts.bytes), (1, 4 * MIB));
    assert_eq!((counts.added_bytes, counts.missed_bytes), (0, 0));
    let reads = watcher.accesses(reader);
    assert_eq!(range(&reads[0]), (0, 4 * MIB), "{}", lines(&reads));
    assert!(
        reads.iter().all(|event| !has(event, flags::JUMP | flags::IN_ORDER)),
        "{}",
        lines(&reads)
    );
}

#[test]
fn what_a_read_waits_for_is_counted_and_what_a_reader_skips_is_not() {
    let Some(mut watcher) = attach() else { return };
    // Readers that bring folios in for each other: the kernel says nothing of those before one that it waited for, the call's own arguments do.
    for (steps, bytes) in [
        ("4 * read 4194304", 16 * MIB),
        ("pread 0 16777216", 16 * MIB),
        ("pread 1048576 15728640", 15 * MIB),
        ("4 * readv 1048576 4", 16 * MIB),
        ("preadv 0 4194304 4", 16 * MIB),
        ("seek 1048576\npreadv2 -1 1048576 4", 4 * MIB),
    ] {
        let file = TestFile::cold(16 * MIB);
        watcher.watch(&file);
        for reader in watcher.run_together(4, &format!("open {}\n{steps}", file.name())) {
            assert_eq!(watcher.counts(reader, &file).bytes, bytes, "{steps}");
        }
    }
    let file = TestFile::cold(16 * MIB);
    watcher.watch(&file);
    let strides: String = (0..64).map(|at| format!("pread {} 65536\n", at * 192 * 1024)).collect();
    let reader = watcher.run(&format!("open {}\n{strides}", file.name()));
    assert_eq!(watcher.counts(reader, &file).bytes, 64 * 65536);
}

#[test]
fn a_read_ends_with_the_file() {
    let Some(mut watcher) = attach() else { return };
    let file = TestFile::cached(MIB + 5000);
    watcher.watch(&file);
    let reader = watcher.run(&format!("open {}\npread {MIB} 900000", file.name()));
    let reads = watcher.accesses(reader);
    assert_eq!(reads.len(), 1, "{}", lines(&reads));
    let page = nitro_user::sys::page_size();
    assert_eq!(range(&reads[0]), (MIB, MIB + 5000u64.next_multiple_of(page)));
}

#[test]
fn jumps_are_told_and_so_is_the_eighth_read_after_one() {
    let Some(mut watcher) = attach() else { return };
    let file = TestFile::cached(16 * MIB);
    watcher.watch(&file);
    let mut steps = format!("open {}\npread 0 4096\npread {} 4096\n", file.name(), 8 * MIB);
    for index in 0..12 {
        steps += &format!("pread {} 4096\n", 5 * MIB + index * 4096);
    }
    let reader = watcher.run(&steps);
    let reads = watcher.accesses(reader);
    let told: Vec<_> = reads.iter().map(|event| (event.offset, event.flags)).collect();
    let eighth = 5 * MIB + 8 * 4096;
    assert_eq!(
        told,
        [
            (0, 0),
            (8 * MIB, flags::JUMP),
            (5 * MIB, flags::JUMP),
            (eighth, flags::IN_ORDER)
        ],
        "{}",
        lines(&reads)
    );
    assert_eq!(watcher.counts(reader, &file).calls, 14);
}

#[test]
fn a_touch_of_a_cached_mapping_is_a_fault_around() {
    let Some(mut watcher) = attach() else { return };
    let file = TestFile::cached(4 * MIB);
    watcher.watch(&file);
    let name = file.name();
    let reader = watcher.run(&format!("open {name}\nmmap 0 {}\ntouch {}", 4 * MIB, 3 * MIB));
    let touches = watcher.accesses(reader);
    assert_eq!(touches.len(), 1, "{}", lines(&touches));
    let touch = &touches[0];
    assert_eq!(Hook::from_number(touch.hook), Some(Hook::MapPages));
    assert!(
        range(touch).0 <= 3 * MIB && range(touch).1 > 3 * MIB,
        "{}",
        lines(&touches)
    );
    assert!(
        has(touch, flags::JUMP) && !has(touch, flags::IN_SYSCALL),
        "{}",
        lines(&touches)
    );
    assert_eq!(watcher.counts(reader, &file).calls, 1);
}

#[test]
fn a_mapping_filled_at_once_is_known_as_such() {
    let Some(mut watcher) = attach() else { return };
    let file = TestFile::cached(8 * MIB);
    watcher.watch(&file);
    let reader = watcher.run(&format!("open {}\npopulate 0 {}", file.name(), 8 * MIB));
    let touches = watcher.accesses(reader);
    assert!(
        touches.iter().all(|event| has(event, flags::IN_SYSCALL)),
        "{}",
        lines(&touches)
    );
    assert_eq!(
        touches.iter().filter(|event| !has(event, flags::IN_ORDER)).count(),
        4,
        "{}",
        lines(&touches)
    );
    assert_eq!(watcher.counts(reader, &file).bytes, 8 * MIB);
}

#[test]
fn a_touch_of_a_page_that_is_not_there_is_a_fault_that_waits() {
    let Some(mut watcher) = attach() else { return };
    let file = TestFile::cold(8 * MIB);
    watcher.watch(&file);
    let at = 4 * MIB + (32 << 10);
    let reader = watcher.run(&format!("open {}\nmmap 0 {}\ntouch {at}", file.name(), 8 * MIB));
    let page = nitro_user::sys::page_size();
    let faults = watcher.of(reader, only(Hook::Fault));
    assert_eq!(faults.len(), 1, "{}", lines(&faults));
    assert_eq!(range(&faults[0]), (at, at + page));
    assert_eq!(faults[0].flags, flags::JUMP);
    let counts = watcher.counts(reader, &file);
    // The fault, tried again or not, and perhaps the fault-around that then found the page.
    assert!((1..=2).contains(&counts.calls), "{counts:?}");
    assert!(counts.added_bytes >= page, "{counts:?}");
    assert_eq!(
        counts.missed_bytes, page,
        "it waited for one page; the rest is readahead: {counts:?}"
    );
}

#[test]
fn pages_that_leave_are_told() {
    let Some(mut watcher) = attach() else { return };
    let file = TestFile::cached(8 * MIB);
    watcher.watch(&file);
    let reader = watcher.run(&format!("open {}\npread 0 4096\ndrop", file.name()));
    let counts = watcher.counts(reader, &file);
    assert_eq!(counts.removed_bytes, 8 * MIB);
    let gone = watcher.of(reader, only(Hook::Delete));
    let mut runs: Vec<_> = gone.iter().map(range).collect();
    runs.push((counts.remove_start, counts.remove_end));
    assert_eq!(covered(runs), 8 * MIB, "{}", lines(&gone));
    assert!(gone.len() <= 5, "{}", lines(&gone));
}

#[test]
fn programs_that_start_are_told_with_their_process() {
    let Some(mut watcher) = attach() else { return };
    let reader = watcher.run("");
    assert_eq!(watcher.of(reader, only(Hook::Exec)).len(), 1);
    // It read nothing that is watched: nobody wants to know of its end.
    assert_eq!(watcher.of(reader, only(Hook::Exit)).len(), 0);
}

#[test]
fn own_accesses_are_dropped_and_own_adds_are_counted() {
    let Some(mut watcher) = attach() else { return };
    let file = TestFile::cold(8 * MIB);
    watcher.watch(&file);
    assert_eq!(std::fs::read(&file.path).unwrap().len() as u64, file.size);
    watcher.take();
    let own = std::process::id();
    assert_eq!(lines(&watcher.accesses(own)), "");
    assert!(!watcher.of(own, only(Hook::Add)).is_empty());
    let counts = watcher.counts(own, &file);
    assert_eq!((counts.calls, counts.added_bytes), (0, 8 * MIB));
}

#[test]
fn files_nobody_asked_about_are_filtered() {
    let Some(mut watcher) = attach() else { return };
    let (watched, other) = (TestFile::cached(MIB), TestFile::cached(MIB));
    watcher.watch(&watched);
    let reader = watcher.run(&format!("open {}\n100 * pread 0 4096", other.name()));
    assert_eq!(lines(&watcher.accesses(reader)), "");
    let sum = watcher.counters_at_rest();
    assert!(sum.filtered >= 100, "{sum:?}");
    assert_eq!((sum.dropped, sum.cursors_full), (0, 0), "{sum:?}");

    // Watched no longer: what was counted is gone with it.
    watcher.source.unwatch([watched.id]).unwrap();
    let reader = watcher.run(&format!("open {}\npread 0 4096", watched.name()));
    assert_eq!(lines(&watcher.accesses(reader)), "");
}

/// Additions alone wake nobody; without a bound they would fill the ring behind the agent's back, and nothing would be heard any more.
#[test]
fn many_additions_wake_user_space_in_the_end() {
    use std::{os::fd::AsFd, time::Duration};

    use nitro_user::{sys::page_cache::readahead, units::ByteRange};
    use nix::poll::{PollFd, PollFlags, poll};

    let Some(mut watcher) = attach() else { return };
    let file = TestFile::cold(MIB);
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .read(true)
        .open(&file.path)
        .unwrap();
    // Every other page of a hole: each is a run of its own, and nobody accesses it.
    let pages = 40_000;
    opened.set_len(pages * 8192).unwrap();
    watcher.watch(&file);
    watcher.take();
    let ring = watcher.source.as_fd().try_clone_to_owned().unwrap();
    // It must sleep before the first addition: to who looks later, the ring shows what it holds.
    let sleeper = std::thread::spawn(move || poll(&mut [PollFd::new(ring.as_fd(), PollFlags::POLLIN)], 20_000u16));
    std::thread::sleep(Duration::from_millis(100));
    for page in 0..pages {
        readahead(&opened, ByteRange::new(page * 8192, 4096)).unwrap();
    }
    assert_eq!(sleeper.join().unwrap(), Ok(1), "nobody was woken");
    watcher.take();
    let adds = watcher.of(std::process::id(), only(Hook::Add));
    assert!(adds.len() > 32_768, "{} additions", adds.len());
    watcher.counters_at_rest();
}
