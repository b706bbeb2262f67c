//! One agent after the other, and two at once.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use super::*;
use crate::engine::learn::row::Change;

#[test]
fn what_was_kept_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("not/there/yet");
    let mut heard = open_quietly(&state);
    assert!(
        heard.rows.is_empty() && !state.exists(),
        "made when there is something to keep"
    );
    heard.put(some_of_each());
    drop(heard.store);
    assert_eq!(names(&state), ["state.db"], "nothing else is left");
    let mode = state.join("state.db").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let heard = open_quietly(&state);
    assert_eq!(sorted(&heard.rows), sorted(&some_of_each()));
    assert_eq!(heard.store.recall("wwid one").unwrap().rate, Some(Rate(1e9)));
    assert_eq!(heard.store.recall("another"), None);
    let at = |wanted: fn(&Row) -> bool| heard.rows.iter().position(wanted).unwrap();
    let first = at(|row| !matches!(row, Row::Model { .. } | Row::Program { .. }));
    assert_eq!(first, 23, "what is named comes first");
}

#[test]
fn a_restart_without_changes_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = open_quietly(dir.path());
    heard.put(some_of_each());
    drop(heard);
    let path = dir.path().join("state.db");
    let before = (fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap());
    drop(open_quietly(dir.path()));
    assert!(before == (fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap()));
}

#[test]
fn what_is_learned_is_on_disk_within_seconds_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = open_quietly(dir.path());
    heard.put([model(1)]);
    let deadline = std::time::Instant::now() + SOON;
    while !dir
        .path()
        .join("state.db")
        .metadata()
        .is_ok_and(|found| found.len() > 0)
    {
        assert!(std::time::Instant::now() < deadline, "{:?}", heard.said());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_directory_behind_a_link_is_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("private"), dir.path().join("state"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mut heard = open_quietly(&link);
    heard.put([model(1)]);
    drop(heard);
    assert_eq!(open_quietly(&link).rows, [model(1)]);
    assert_eq!(open_quietly(&real).rows, [model(1)]);
}

#[test]
fn a_path_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(std::ffi::OsStr::from_bytes(b"st\xffte"));
    let row = Row::Model {
        number: 1,
        path: PathBuf::from(std::ffi::OsStr::from_bytes(b"/m\xff\n")),
    };
    let mut heard = open_quietly(&state);
    heard.put([row.clone()]);
    drop(heard);
    assert_eq!(open_quietly(&state).rows, [row]);
}

#[test]
fn a_store_that_keeps_nothing_leaves_nothing() {
    let mut store = Store::forgetful();
    store.keep(Change::Put(device("a", 1.0)));
    assert!(store.recall("a").is_none() && !store.flush(SOON));
}

#[test]
fn what_cannot_be_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = open_quietly(dir.path());
    heard.put([heat(1, f64::NAN), model(1), heat(1, 1.0), heat(1, f64::INFINITY)]);
    drop(heard.store);
    assert_eq!(heard.notices.try_iter().count(), 0);
    assert_eq!(open_quietly(dir.path()).rows, [model(1), heat(1, 1.0)]);
}

#[test]
fn rows_that_name_what_is_not_there_go_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = open_quietly(dir.path());
    heard.put([
        model(1),
        program(1),
        successor(1, [1, 0, 0], 2, 1.0),
        order(2, 0, &[]),
        lead(LayoutKind::Gguf, 9),
        heat(3, 1.0),
    ]);
    heard.put([
        successor(2, [1, 0, 0], 1, 1.0),
        successor(1, [1, 1, 4], 0, 1.0),
        order(1, 0, &[]),
    ]);
    drop(heard);
    let good = [model(1), program(1), order(1, 0, &[])];
    assert_eq!(open_quietly(dir.path()).rows, good);
    // The next agent hands the same numbers out again: nothing of before must come alive.
    let mut heard = open_quietly(dir.path());
    heard.put([model(2), model(3), model(4), program(2), program(9)]);
    drop(heard);
    let rows = open_quietly(dir.path()).rows;
    assert_eq!(rows.len(), good.len() + 5, "{rows:?}");
}

#[test]
fn a_forgotten_model_goes_with_all_that_mentions_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = open_quietly(dir.path());
    heard.put(some_of_each());
    heard.written();
    heard.store.keep(Change::ForgetModel(3));
    heard.store.keep(Change::Fade {
        program: 1,
        context: [5, 5, 0],
        next: 16,
    });
    heard.written();
    // Of none there is nothing to forget, and so nothing to wait for.
    heard.store.keep(Change::ForgetModel(0));
    heard.written();
    drop(heard);
    let mentions = |row: &Row| {
        let key = Key::of(row);
        key.models().contains(&3) || matches!(key, Key::Successor { context: [5, 5, 0], .. })
    };
    let left: Vec<_> = some_of_each().into_iter().filter(|row| !mentions(row)).collect();
    assert!(left.len() < some_of_each().len() - 4);
    let mut heard = open_quietly(dir.path());
    assert_eq!(sorted(&heard.rows), sorted(&left));
    heard.store.keep(Change::ForgetAll);
    assert_eq!(heard.store.recall("wwid one"), None);
    heard.put([model(7)]);
    drop(heard);
    assert_eq!(open_quietly(dir.path()).rows, [model(7)]);
}

#[test]
fn a_file_gives_back_what_was_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = open_quietly(dir.path());
    heard.put((1..=20_000).map(model));
    heard.written();
    let size = || dir.path().join("state.db").metadata().unwrap().len();
    assert!(size() > 500_000, "{}", size());
    heard.store.keep(Change::ForgetAll);
    heard.written();
    assert!(size() < 100_000, "{}", size());
    let all = fs::read(dir.path().join("state.db")).unwrap();
    assert!(
        !all.windows(8).any(|bytes| bytes == b"/models/"),
        "and nothing of it is left there"
    );
}

#[test]
fn the_devices_heard_of_longest_ago_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = open_quietly(dir.path());
    let row = |number: u64| Row::Device {
        identity: format!("{number:04}"),
        knowledge: Knowledge::default(),
        at: number,
    };
    heard.put((0..266).map(row));
    assert!(heard.store.recall("0009").is_none() && heard.store.recall("0010").is_some());
    drop(heard);
    let heard = open_quietly(dir.path());
    assert_eq!(heard.rows.len(), 256);
    assert!(heard.store.recall("0009").is_none() && heard.store.recall("0010").is_some());
}

#[test]
fn the_second_of_two_agents_reads_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = open_quietly(dir.path());
    first.put(some_of_each());
    first.written();
    let mut second = open(dir.path());
    assert_eq!(second.troubles.len(), 1);
    assert!(
        second.troubles[0].contains("another agent") && second.troubles[0].contains("--state"),
        "{:?}",
        second.troubles
    );
    assert_eq!(sorted(&second.rows), sorted(&some_of_each()));
    second.put([model(99)]);
    assert!(!second.store.flush(SOON));
    first.put([model(98)]);
    first.written();
    drop((first, second));
    let rows = open_quietly(dir.path()).rows;
    assert!(rows.contains(&model(98)) && !rows.contains(&model(99)));
}

#[test]
fn of_two_agents_that_began_without_a_directory_one_keeps_something() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("later");
    let (mut first, mut second) = (open_quietly(&state), open_quietly(&state));
    first.put([model(1)]);
    first.written();
    second.put([model(2)]);
    assert!(!second.store.flush(SOON));
    second.put([model(3)]);
    drop((first.store, second.store));
    let said: Vec<_> = second.notices.try_iter().collect();
    assert!(
        matches!(&said[..], [one] if one.contains("put there while the agent ran")),
        "{said:?}"
    );
    assert_eq!(open_quietly(&state).rows, [model(1)]);
}

#[test]
fn somebody_else_who_reads_or_writes_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut heard = open_quietly(dir.path());
    heard.put([model(1)]);
    heard.written();
    let other = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    heard.put([model(2)]);
    assert!(!heard.store.flush(SOON));
    let said = heard.said();
    assert!(matches!(&said[..], [one] if one.contains("locked")), "{said:?}");
    // Nor does a start wait for ever.
    drop(heard);
    let locked = other.execute_batch("COMMIT; BEGIN EXCLUSIVE");
    locked.unwrap();
    let heard = open(dir.path());
    assert!(
        heard.rows.is_empty() && heard.troubles[0].contains("locked"),
        "{:?}",
        heard.troubles
    );
    drop((heard, other));
    assert_eq!(open_quietly(dir.path()).rows, [model(1)]);
}

#[test]
fn the_devices_of_an_earlier_version_are_taken_over_once() {
    let dir = tempfile::tempdir().unwrap();
    let (old, kept) = (dir.path().join("devices.json"), dir.path().join("devices.json.old"));
    let text = br#"{"version":1,"devices":{
        "wwid one":{"rate":5e8,"reads_alone":null,"maps_alone":1e8,"reads_setback":{"times":2,"rest":1},"heard":1700000000},
        "from the future":{"rate":1e400,"heard":99999999999999},
        "two":{"rate":-1.0,"heard":17}}}"#;
    let good = String::from_utf8(text.to_vec()).unwrap().replace("1e400", "1e9");
    fs::write(&old, &good).unwrap();
    let heard = open_quietly(dir.path());
    assert_eq!(heard.rows.len(), 2);
    let known = heard.store.recall("wwid one").unwrap();
    assert_eq!((known.rate, known.reads_setback.rest), (Some(Rate(5e8)), 1));
    assert_eq!(
        heard.store.recall("two").unwrap().rate,
        None,
        "no device reads backwards"
    );
    drop(heard);
    assert_eq!(names(dir.path()), ["devices.json.old", "state.db"]);
    assert_eq!(fs::read_to_string(&kept).unwrap(), good);
    let mut heard = open_quietly(dir.path());
    assert_eq!(heard.rows.len(), 2);
    // Nor does it overwrite what was learned since, if it comes again.
    heard.put([device("two", 3.0)]);
    drop(heard);
    fs::rename(&kept, &old).unwrap();
    let heard = open_quietly(dir.path());
    assert_eq!(heard.rows.len(), 2);
    assert_eq!(heard.store.recall("two").unwrap().rate, Some(Rate(3.0)));
}

#[test]
fn a_device_list_that_is_something_else_is_put_aside_and_said() {
    let long = vec![b' '; (1 << 20) + 2];
    let contents: [&[u8]; 6] = [
        b"",
        b"{\"version\":1,\"devices\":{\"a\"",
        b"[]",
        b"{\"version\":7,\"devices\":{}}",
        b"{\"version\":1,\"devices\":{\"a\":{\"rate\":1e400,\"heard\":1}}}",
        &long,
    ];
    for content in contents {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("devices.json"), content).unwrap();
        let heard = open(dir.path());
        assert_eq!(heard.troubles.len(), 1);
        assert!(
            heard.troubles[0].contains("devices.json.old") && heard.troubles[0].contains("anew"),
            "{:?}",
            heard.troubles
        );
        assert!(heard.rows.is_empty());
        assert_eq!(fs::read(dir.path().join("devices.json.old")).unwrap(), content);
    }
}

#[test]
fn all_of_it_works_where_system_calls_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let confined = std::thread::spawn({
        let state = state.clone();
        move || {
            // The writer's thread is started from here, and is meant too.
            crate::sys::filter::refuse().unwrap();
            let mut heard = open_quietly(&state);
            heard.put(some_of_each());
            heard.written();
            fs::remove_dir_all(&state).unwrap();
            heard.put([model(50)]);
            heard.written();
            heard.put((100..20_000).map(model));
            heard.written();
            heard.store.keep(Change::ForgetAll);
            heard.put(some_of_each());
            drop(heard);
            fs::write(state.join("state.db"), "something else").unwrap();
            let mut heard = open(&state);
            assert_eq!(heard.troubles.len(), 1);
            heard.put(some_of_each());
        }
    });
    confined.join().unwrap();
    assert_eq!(sorted(&open_quietly(&state).rows), sorted(&some_of_each()));
}
