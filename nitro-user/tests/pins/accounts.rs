//! Whose account it is on, and what the agent may lock.

use std::fs;

use nitro_user::{
    sys::{evict::Evicted, measure, page_cache},
    units::{ByteCount, ByteRange, Ranges},
    warm::{
        evict::{Eviction, evict_unused},
        pins::{PinEvent, Refusal},
    },
};

use super::{
    account::Account,
    bed::{self, MIB, SIZE, alone, inner, inside, opener, scenario, status, status_bytes, within},
};

#[test]
fn without_the_right_no_more_is_locked_than_anybody_may() {
    alone(|| {
        inside("accounts::agent_without_the_right", None).succeeds();
    });
}

/// Not a test: what one of them starts.
#[test]
#[ignore = "what a test starts"]
fn agent_without_the_right() {
    use caps::{CapSet, Capability::CAP_IPC_LOCK};
    const ANYBODY: u64 = 4 * MIB;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK, ANYBODY, ANYBODY).unwrap();
    for set in [CapSet::Bounding, CapSet::Effective, CapSet::Permitted] {
        caps::drop(None, set, CAP_IPC_LOCK).unwrap();
    }
    inner(|mut bed| {
        assert!(bed.doubt.as_ref().unwrap().contains("4 MiB"), "{:?}", bed.doubt);
        let file = bed.file(SIZE);
        let id = bed.open(1, file.path());
        assert_eq!(bed.hold(id, 0, MIB), (MIB, 0, None));
        let (locked, _, refused) = bed.hold(id, 0, SIZE);
        assert_eq!(locked, MIB);
        let most = Some(ByteCount(ANYBODY));
        assert_eq!(refused.unwrap().why, Refusal::Allowance { most });
    });
}

#[test]
fn a_service_that_is_not_told_who_is_charged_holds_where_nobody_has_a_limit() {
    alone(|| {
        inside("accounts::agent_of_another_user", None).succeeds();
        let _limited = Account::new(Some(256 * MIB));
        let mut agent = inside("accounts::agent_of_another_user", None);
        let said = agent.said("refused: ");
        assert!(said.contains("CAP_SYS_ADMIN") && said.contains("limit"), "{said}");
        agent.succeeds();
    });
}

/// Not a test: what one of them starts.
#[test]
#[ignore = "what a test starts"]
fn agent_of_another_user() {
    use caps::{CapSet, Capability};
    const SERVICE: u32 = 65_533;
    let rights = [
        Capability::CAP_DAC_READ_SEARCH,
        Capability::CAP_FOWNER,
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_IPC_LOCK,
    ];
    let rights = rights.into_iter().collect();
    nix::sys::prctl::set_keepcaps(true).unwrap();
    let (user, group) = (nix::unistd::Uid::from_raw(SERVICE), nix::unistd::Gid::from_raw(SERVICE));
    nix::unistd::setresgid(group, group, group).unwrap();
    nix::unistd::setresuid(user, user, user).unwrap();
    for set in [
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
        CapSet::Ambient,
    ] {
        caps::set(None, set, &rights).unwrap();
    }
    inner(|mut bed| {
        assert_eq!(bed.doubt, None);
        let file = bed.file(MIB);
        let id = bed.open(1, file.path());
        match bed.hold(id, 0, MIB) {
            (0, 0, Some(refused)) => {
                assert!(matches!(refused.why, Refusal::Unknown { .. }), "{refused:?}");
                println!("refused: {}", refused.why);
            }
            (MIB, 0, None) => {
                let keeper = bed.pins.processes().living()[0];
                assert_eq!(status(keeper, "Uid").split_whitespace().next(), Some("65533"));
                assert_eq!(status(keeper, "CapEff"), "0000000000004000");
                assert_eq!(status_bytes(keeper, "VmLck"), MIB);
                assert_eq!(
                    fs::read_to_string(format!("/proc/{keeper}/oom_score_adj"))
                        .unwrap()
                        .trim(),
                    "1000"
                );
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn what_is_charged_to_a_limit_of_others_is_refused_until_it_is_on_our_account() {
    scenario(|mut bed| {
        let (free, limited) = (Account::new(None), Account::new(Some(256 * MIB)));
        let below = limited.below("deep");
        for (number, account, held) in [(1, &free, true), (2, &limited, false), (3, &below, false)] {
            let file = bed.file(SIZE);
            measure::drop_pages(file.as_file()).unwrap();
            account.reads(file.path());
            // Some of it is ours: each step is judged by itself.
            let path = file.path().to_owned();
            let id = bed.open(number, &path);
            let (locked, missing, refused) = bed.hold(id, 0, SIZE);
            assert_eq!(missing, 0);
            if held {
                assert_eq!((locked, refused), (SIZE, None));
            } else {
                assert_eq!(locked, 0);
                let refused = refused.unwrap();
                assert_eq!(refused.bytes, ByteCount(SIZE));
                let Refusal::Foreign { group, limit } = &refused.why else {
                    panic!("{refused:?}");
                };
                assert!(account.is_called(group), "{group}");
                assert!(limited.is_called(&limit.name), "{limit:?}");
                assert_eq!(limit.bytes, ByteCount(256 * MIB));
                assert!(refused.why.is_mended_by_warming());

                let eviction = Eviction {
                    file: bed::id(&path),
                    ranges: [ByteRange::new(0, SIZE)].into_iter().collect::<Ranges>(),
                    opener: opener(&path),
                };
                let outcome = evict_unused(vec![eviction], bed.pins.processes().living()).remove(0);
                let gone = Evicted {
                    dropped: SIZE,
                    ..Evicted::default()
                };
                assert_eq!(outcome.done, Ok(gone));
                fs::read(&path).unwrap();
                assert_eq!(bed.hold(id, 0, SIZE), (SIZE, 0, None));
            }
            bed.pins.release(id);
            assert!(matches!(bed.next(), PinEvent::Released { .. }));
        }
    });
}

#[test]
fn a_part_of_a_file_that_is_ours_is_held_beside_what_is_not() {
    scenario(|mut bed| {
        let limited = Account::new(Some(256 * MIB));
        let file = bed.file(SIZE);
        measure::drop_pages(file.as_file()).unwrap();
        // What is read ahead would be ours, too.
        measure::readahead(file.as_file(), 32 * MIB, MIB).unwrap();
        let ours = (32 * MIB..33 * MIB).step_by(4096);
        ours.for_each(|at| page_cache::wait(file.as_file(), at).unwrap());
        limited.reads(file.path());
        let id = bed.open(1, file.path());
        let (locked, missing, refused) = bed.hold(id, 32 * MIB, 34 * MIB);
        assert_eq!((locked, missing), (0, 0), "the other half of the step is theirs");
        assert!(matches!(refused.unwrap().why, Refusal::Foreign { .. }));
        measure::drop_pages(file.as_file()).unwrap();
        let ours = (32 * MIB..34 * MIB).step_by(4096);
        ours.for_each(|at| page_cache::wait(file.as_file(), at).unwrap());
        limited.reads(file.path());
        let (locked, missing, refused) = bed.hold(id, 0, SIZE);
        assert_eq!((locked, missing), (2 * MIB, 0));
        assert_eq!(refused.unwrap().bytes, ByteCount(SIZE - 2 * MIB));
    });
}

#[test]
fn pages_of_a_group_that_is_gone_count_as_those_of_the_one_above() {
    scenario(|mut bed| {
        let file = bed.file(SIZE);
        for (number, above, held) in [(1, None, true), (2, Some(256 * MIB), false)] {
            let above = Account::new(above);
            measure::drop_pages(file.as_file()).unwrap();
            {
                let gone = above.below("gone");
                gone.limit(128 * MIB);
                gone.reads(file.path());
            }
            let id = bed.open(number, file.path());
            let mut outcome = bed.hold(id, 0, SIZE);
            // The kernel takes a moment to be done with a group.
            within("it is gone", || {
                outcome = bed.hold(id, 0, SIZE);
                !matches!(&outcome.2, Some(refused) if matches!(refused.why, Refusal::Unknown { .. }))
            });
            let (locked, missing, refused) = outcome;
            assert_eq!((locked, missing), (if held { SIZE } else { 0 }, 0), "{refused:?}");
            if !held {
                let why = refused.unwrap().why;
                assert!(
                    matches!(&why, Refusal::Foreign { group, .. } if above.is_called(group)),
                    "{why:?}"
                );
            }
            bed.pins.release(id);
            bed.next();
        }
    });
}

#[test]
fn a_limit_that_comes_later_lets_go() {
    scenario(|mut bed| {
        let account = Account::new(None);
        let file = bed.file(SIZE);
        measure::drop_pages(file.as_file()).unwrap();
        account.reads(file.path());
        let id = bed.open(1, file.path());
        assert_eq!(bed.hold(id, 0, SIZE), (SIZE, 0, None));
        account.limit(256 * MIB);
        match bed.next() {
            PinEvent::Withdrawn { pin, bytes, why } => {
                assert_eq!((pin, bytes), (id, ByteCount(SIZE)));
                assert!(
                    matches!(&why, Refusal::Foreign { group, .. } if account.is_called(group)),
                    "{why:?}"
                );
            }
            event => panic!("{event:?}"),
        }
        assert_eq!(bed.pins.held(), ByteCount(0));
    });
}
