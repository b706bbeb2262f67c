//! The syscalls event mode on the running kernel: for each hook, that the right event arrives; with typed tracepoints beside the classic ones of
//! the system calls, and with classic ones throughout, as on a kernel that refuses the typed kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kernel;

use kernel::{MIB, TestFile, Watcher, assert_ended, covered, has, is_access, lines, range};
use nitro_common::{AccessEvent, Hook, STEP_BYTES, flags};
use nitro_user::source::attach::{EventChoice, EventMode};

const SYSCALLS: EventChoice = EventChoice::Only(EventMode::Syscalls);

/// Not a test: what the tests start as another process.
#[test]
fn reader_process() {
    kernel::reader::run_if_told();
}

/// What a reader of a 16 MiB file does after opening it, and the one access that is told of it.
fn told(watcher: &mut Watcher, file: &TestFile, steps: &str) -> (Hook, (u64, u64), u16) {
    let reader = watcher.run(&format!("open {}\n{steps}", file.name()));
    let events = watcher.accesses(reader);
    assert_eq!(events.len(), 2, "{steps}: {}", lines(&events));
    let hooks: Vec<_> = events
        .iter()
        .map(|event| Hook::from_number(event.hook).unwrap())
        .collect();
    assert_eq!(hooks[0], Hook::Open, "{}", lines(&events));
    for event in &events {
        assert_eq!((event.inode, event.device), (file.id.inode, file.id.device));
        assert_eq!(event.generation, events[0].generation);
    }
    (hooks[1], range(&events[1]), events[1].flags)
}

#[test]
fn every_call_that_reads_is_told_with_its_range() {
    let Some(mut watcher) = Watcher::attach(SYSCALLS) else {
        return;
    };
    let file = TestFile::cached(16 * MIB);
    watcher.watch(&file);
    let expected = [
        ("read 5000", 0, 5000, 0),
        ("seek 4194304\nread 5000", 4 * MIB, 5000, flags::JUMP),
        ("pread 6291456 7000", 6 * MIB, 7000, flags::JUMP),
        ("seek 2097152\nreadv 1000 3", 2 * MIB, 3000, flags::JUMP),
        ("preadv 8388608 1000 8", 8 * MIB, 8000, flags::JUMP),
        // More vectors than are looked at: the rest is taken to be like the first eight.
        ("preadv 8388608 1000 16", 8 * MIB, 16000, flags::JUMP),
        ("preadv2 10485760 1000 2", 10 * MIB, 2000, flags::JUMP),
        ("seek 2097152\npreadv2 -1 1000 2", 2 * MIB, 2000, flags::JUMP),
        ("sendfile 3145728 9000", 3 * MIB, 9000, flags::JUMP),
        ("seek 1048576\nsendfile - 9000", MIB, 9000, flags::JUMP),
        // No further than the file goes.
        ("pread 16777000 5000", 16777000, 216, flags::JUMP),
    ];
    for (steps, start, length, flags) in expected {
        let told = told(&mut watcher, &file, steps);
        assert_eq!(told, (Hook::Read, (start, start + length), flags), "{steps}");
    }
    let sum = watcher.counters_at_rest();
    assert_eq!((sum.dropped, sum.cursors_full), (0, 0), "{sum:?}");
}

#[test]
fn opens_are_told_whichever_call_it_was() {
    let Some(mut watcher) = Watcher::attach(SYSCALLS) else {
        return;
    };
    let (file, other) = (TestFile::cached(MIB), TestFile::cached(MIB));
    watcher.watch(&file);
    let reader = watcher.run(&format!(
        "open {0}\nopenat2 {0}\nopen {1}\nopenat2 {1}",
        file.name(),
        other.name()
    ));
    let events = watcher.accesses(reader);
    assert_eq!(events.len(), 2, "{}", lines(&events));
    for event in &events {
        assert_eq!(Hook::from_number(event.hook), Some(Hook::Open));
        assert_eq!((event.inode, event.length, event.flags), (file.id.inode, 0, 0));
    }
    // An open alone is no access that counts, but worth the news of the process's end.
    assert_eq!(watcher.counts(reader, &file).calls, 0);
    assert_ended(&watcher, reader);
}

#[test]
fn mappings_of_files_are_told_with_their_range() {
    let Some(mut watcher) = Watcher::attach(SYSCALLS) else {
        return;
    };
    let file = TestFile::cached(16 * MIB);
    watcher.watch(&file);
    let name = file.name();
    let reader = watcher.run(&format!(
        "open {name}\nmmap 2097152 4194304\nanonymous 4194304\nmmap 12582912 8388608"
    ));
    let maps = watcher.of(reader, |hook| hook == Hook::Map);
    let ranges: Vec<_> = maps.iter().map(range).collect();
    assert_eq!(ranges, [(2 * MIB, 6 * MIB), (12 * MIB, 16 * MIB)], "{}", lines(&maps));
    assert_eq!(watcher.counts(reader, &file).bytes, 0);
}

#[test]
fn direct_reads_are_told_once_and_are_no_demand() {
    let Some(mut watcher) = Watcher::attach(SYSCALLS) else {
        return;
    };
    let file = TestFile::cold(8 * MIB);
    watcher.watch(&file);
    let reader = watcher.run(&format!("open-direct {}\n8 * read 1048576", file.name()));
    let events = watcher.accesses(reader);
    let hooks: Vec<_> = events
        .iter()
        .map(|event| Hook::from_number(event.hook).unwrap())
        .collect();
    assert_eq!(hooks, [Hook::Open, Hook::Read], "{}", lines(&events));
    assert!(
        events.iter().all(|event| event.flags == flags::DIRECT),
        "{}",
        lines(&events)
    );
    assert_eq!(range(&events[1]), (0, MIB));
    let counts = watcher.counts(reader, &file);
    assert_eq!(
        (counts.calls, counts.bytes, counts.added_bytes),
        (0, 0, 0),
        "{counts:?}"
    );
    assert_ended(&watcher, reader);
}

/// What holds whichever kind of tracepoint tells of pages and processes.
fn a_load_from_beginning_to_end(events: EventChoice) {
    let Some(mut watcher) = Watcher::attach(events) else {
        return;
    };
    let file = TestFile::cold(16 * MIB);
    watcher.watch(&file);
    let reader = watcher.run(&format!("open {}\n128 * read 131072\nread 131072\ndrop", file.name()));
    assert_eq!(watcher.of(reader, |hook| hook == Hook::Exec).len(), 1);
    assert_ended(&watcher, reader);

    let reads = watcher.of(reader, |hook| hook == Hook::Read);
    let (walks, steps): (Vec<AccessEvent>, Vec<AccessEvent>) =
        reads.iter().partition(|event| has(event, flags::IN_ORDER));
    let starts: Vec<_> = steps.iter().map(|event| event.offset).collect();
    let expected: Vec<u64> = (0..8).map(|step| step * STEP_BYTES).collect();
    assert_eq!((starts, walks.len()), (expected, 1), "{}", lines(&reads));

    let counts = watcher.counts(reader, &file);
    assert_eq!((counts.calls, counts.bytes), (128, 16 * MIB));
    assert_eq!((counts.added_bytes, counts.removed_bytes), (16 * MIB, 16 * MIB));
    assert!(counts.missed_bytes > 0 && counts.missed_bytes <= 16 * MIB, "{counts:?}");
    for (hook, held) in [
        (Hook::Add, (counts.add_start, counts.add_end)),
        (Hook::Delete, (counts.remove_start, counts.remove_end)),
    ] {
        let changes = watcher.of(reader, |other| other == hook);
        let mut runs: Vec<_> = changes.iter().map(range).collect();
        runs.push(held);
        assert_eq!(covered(runs), 16 * MIB, "{hook:?} {}", lines(&changes));
    }

    // One read of a cold file waits for just what it asked for.
    let reader = watcher.run(&format!("open {}\npread 4194304 131072", file.name()));
    assert_eq!(watcher.counts(reader, &file).missed_bytes, 128 << 10);

    // The agent's own.
    file.drop_pages();
    std::fs::read(&file.path).unwrap();
    watcher.take();
    let own = std::process::id();
    assert_eq!(lines(&watcher.of(own, is_access)), "");
    let counts = watcher.counts(own, &file);
    assert_eq!((counts.calls, counts.added_bytes), (0, 16 * MIB), "{counts:?}");

    let sum = watcher.counters_at_rest();
    assert_eq!((sum.dropped, sum.cursors_full), (0, 0), "{sum:?}");
    watcher.source.unwatch([file.id]).unwrap();
    let reader = watcher.run(&format!("open {}\npread 0 4096", file.name()));
    assert_eq!(lines(&watcher.accesses(reader)), "");
}

#[test]
fn a_load_is_told_from_beginning_to_end() {
    a_load_from_beginning_to_end(SYSCALLS);
}

#[test]
fn a_load_is_told_without_typed_tracepoints() {
    a_load_from_beginning_to_end(EventChoice::Classic);
}

#[test]
fn the_line_at_start_names_the_price_and_what_was_refused() {
    let Some(watcher) = Watcher::attach(EventChoice::Classic) else {
        return;
    };
    let attachment = &watcher.attachment;
    assert_eq!(attachment.mode, EventMode::Syscalls);
    assert!(attachment.why.contains("page-cache: "), "{}", attachment.why);
    assert!(attachment.why.contains("system call"), "{}", attachment.why);
    assert!(!attachment.why.contains('\n'), "{}", attachment.why);
    let price = attachment.price.unwrap();
    assert!(price.system_call_ns.abs() < 5000.0, "{price:?}");
    println!("{price}");
    for report in &attachment.programs {
        assert_eq!(report.refused, None, "{}", report.program);
        assert!(report.hook.contains('/'), "{} is classic", report.hook);
    }
}

#[test]
fn a_missing_tracefs_is_said_with_the_remedy_and_the_page_cache_mode_does_without() {
    let _turn = kernel::turn();
    if !kernel::is_root() {
        return;
    }
    kernel::without_tracefs(|| {
        let error = kernel::open(SYSCALLS).err().unwrap().to_string();
        assert!(
            error.contains("mount -t tracefs tracefs /sys/kernel/tracing") && !error.contains('\n'),
            "{error}"
        );
        // As far as this kernel has it.
        if let Err(error) = kernel::open(EventChoice::Only(EventMode::PageCache)) {
            assert!(error.to_string().contains("6.12"), "{error}");
        }
    });
}

#[test]
fn missing_rights_are_said_in_one_line() {
    let _turn = kernel::turn();
    if !kernel::is_root() {
        return;
    }
    let error = kernel::unprivileged(|| kernel::open(EventChoice::Auto).err().unwrap().to_string());
    assert!(error.contains("CAP_BPF") && !error.contains('\n'), "{error}");
    println!("{error}");
}
