//! What is held where memory is short.

use std::fs::File;

use nitro_user::{sys::measure, warm::pins::PinEvent};

use super::{
    account::Account,
    bed::{MIB, SIZE, alone, inner, inside, resident, within},
};

#[test]
fn what_is_held_stays_while_a_neighbour_streams() {
    alone(|| {
        let account = Account::new(Some(256 * MIB));
        inside("pressure::agent_beside_a_neighbour", Some(&account)).succeeds();
        within("nobody is left", || account.is_empty());
    });
}

/// Not a test: what one of them starts, in a group with a limit that is its own.
#[test]
#[ignore = "what a test starts"]
fn agent_beside_a_neighbour() {
    inner(|mut bed| {
        let (held, plain, streamed) = (bed.file(SIZE), bed.file(SIZE), bed.file(600 * MIB));
        for file in [&held, &plain] {
            measure::drop_pages(file.as_file()).unwrap();
            std::fs::read(file.path()).unwrap();
        }
        let id = bed.open(1, held.path());
        assert_eq!(bed.hold(id, 0, SIZE), (SIZE, 0, None), "its own limit refuses nothing");
        for _ in 0..3 {
            std::io::copy(&mut File::open(streamed.path()).unwrap(), &mut std::io::sink()).unwrap();
        }
        assert!(resident(plain.path()) < SIZE / 2, "{}", resident(plain.path()));
        assert_eq!(resident(held.path()), SIZE);
    });
}

#[test]
fn where_memory_runs_out_pins_go_before_anybodys_work() {
    alone(|| {
        let account = Account::new(Some(256 * MIB));
        inside("pressure::agent_beside_a_hog", Some(&account)).succeeds();
        within("nobody is left", || account.is_empty());
        assert_eq!(account.killed().unwrap_or(1), 1);
    });
}

/// Not a test: what one of them starts, in a group that has no room for what it holds and what it writes to.
#[test]
#[ignore = "what a test starts"]
fn agent_beside_a_hog() {
    inner(|mut bed| {
        let file = bed.file(128 * MIB);
        measure::drop_pages(file.as_file()).unwrap();
        std::io::copy(&mut File::open(file.path()).unwrap(), &mut std::io::sink()).unwrap();
        let id = bed.open(1, file.path());
        assert_eq!(bed.hold(id, 0, 128 * MIB), (128 * MIB, 0, None));
        let mut hog = memmap2::MmapMut::map_anon(200 << 20).unwrap();
        hog.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        match bed.next() {
            PinEvent::Lost { pins, end, .. } => assert_eq!((pins, end.signal), (vec![id], Some(9))),
            event => panic!("{event:?}"),
        }
        assert_eq!(
            hog.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>(),
            (200 << 20) / 4096
        );
    });
}
