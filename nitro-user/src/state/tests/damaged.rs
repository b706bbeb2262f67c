//! Files that are none of ours, or no longer: put aside, with a word, and never written to.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::symlink,
};

use super::*;

/// A database with some of everything, as bytes.
fn good() -> Vec<u8> {
    let dir = directory();
    let mut heard = open_quietly(dir.path());
    heard.put(some_of_each());
    drop(heard);
    fs::read(dir.path().join("state.db")).unwrap()
}

/// Opens a directory with `bytes` as its database: what there is of it, whether it was put aside with one warning; and that it works afterwards in either case.
fn opens(bytes: &[u8]) -> (usize, Option<String>) {
    let dir = directory();
    let path = dir.path().join("state.db");
    fs::write(&path, bytes).unwrap();
    let mut heard = open(dir.path());
    let rows = heard.rows.len();
    assert!(heard.rows.iter().all(super::super::plausible::is_plausible));
    let trouble = heard.troubles.first().cloned();
    assert!(heard.troubles.len() <= 1, "{:?}", heard.troubles);
    if let Some(trouble) = &trouble {
        assert!(
            trouble.contains("state.db.old") && trouble.contains("anew"),
            "{trouble}"
        );
        assert_eq!(rows, 0);
        assert_eq!(fs::read(dir.path().join("state.db.old")).unwrap(), bytes);
    }
    heard.put(some_of_each());
    drop(heard.store);
    // What reading does not come across, writing may: it is put aside then.
    let late: Vec<_> = heard.notices.try_iter().collect();
    assert!(
        late.len() <= 1 && late.iter().all(|notice| notice.contains("state.db.old")),
        "{late:?}"
    );
    let heard = open_quietly(dir.path());
    assert!(heard.rows.len() >= some_of_each().len(), "{}", heard.rows.len());
    (rows, trouble)
}

#[test]
fn what_is_no_database_is_put_aside_with_one_warning() {
    for content in [b"x".as_slice(), b"SQLite format 3\0", &[0; 4096], &vec![0xff; 100_000]] {
        let (_, trouble) = opens(content);
        assert!(trouble.is_some(), "{} bytes", content.len());
    }
    // An agent that was killed before its first transaction leaves an empty one.
    assert_eq!(opens(b""), (0, None));
}

#[test]
fn any_byte_may_be_another() {
    let good = good();
    let (mut whole, mut aside) = (0, 0);
    // Every header and the beginnings of all pages, and each 61st byte of the rest.
    for at in (0..good.len()).filter(|at| at % 61 == 0 || at % 4096 < 12 || *at < 100) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let (rows, trouble) = opens(&bytes);
        whole += usize::from(rows > 0);
        aside += usize::from(trouble.is_some());
    }
    assert!(whole > 100 && aside > 100, "{whole} read, {aside} put aside");
}

#[test]
fn a_file_may_end_anywhere() {
    let good = good();
    for length in (0..good.len()).step_by(509) {
        let (rows, trouble) = opens(&good[..length]);
        assert!(rows == 0 && trouble.is_some() == (length > 0), "{length}");
    }
}

#[test]
fn any_page_may_be_another_page() {
    let good = good();
    let mut random = fastrand::Rng::with_seed(3);
    let pages = good.len() / 4096;
    for _ in 0..100 {
        let mut bytes = good.clone();
        let (from, to) = (random.usize(0..pages), random.usize(0..pages));
        bytes.copy_within(from * 4096..(from + 1) * 4096, to * 4096);
        opens(&bytes);
    }
}

/// A database that is made by running `sql`, after that of the agent's if `ours`.
fn made_with(ours: bool, sql: &str) -> Vec<u8> {
    let dir = directory();
    let path = dir.path().join("made");
    if ours {
        fs::write(&path, good()).unwrap();
    }
    let made = rusqlite::Connection::open(&path).unwrap();
    made.execute_batch(sql).unwrap();
    drop(made);
    fs::read(path).unwrap()
}

#[test]
fn a_later_version_s_is_put_aside_whole() {
    let (_, trouble) = opens(&made_with(true, "PRAGMA user_version = 2"));
    assert!(trouble.unwrap().contains("a later version"));
}

#[test]
fn what_is_in_it_beside_our_tables_makes_it_another_s() {
    for sql in [
        "CREATE TRIGGER t AFTER INSERT ON models BEGIN DELETE FROM programs; END",
        "CREATE VIEW v AS SELECT * FROM models",
        "CREATE INDEX i ON heats(at)",
        "CREATE TABLE t(a)",
        "DROP TABLE leads",
        "DROP TABLE heats; CREATE VIEW heats AS SELECT 1 AS model, 2 AS heat, 3 AS at",
        "DROP TABLE heats; CREATE TABLE heats(model INTEGER PRIMARY KEY, heat REAL AS (abs(model)), at INTEGER NOT NULL)",
        "ALTER TABLE heats ADD COLUMN more INTEGER",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 0",
        "PRAGMA application_id = 0; PRAGMA user_version = 0",
    ] {
        let (_, trouble) = opens(&made_with(true, sql));
        assert!(trouble.is_some(), "{sql}");
    }
    let (_, trouble) = opens(&made_with(false, "CREATE TABLE t(a)"));
    assert!(trouble.unwrap().contains("another program's database"));
    // As deep as a schema can be, and more of it than would be read.
    let deep = format!("CREATE VIEW v AS SELECT {}1{}", "(".repeat(300), ")".repeat(300));
    assert!(opens(&made_with(true, &deep)).1.is_some());
    let many: String = (0..3000).map(|table| format!("CREATE TABLE t{table}(a);")).collect();
    assert!(opens(&made_with(true, &format!("BEGIN;{many}COMMIT"))).1.is_some());
}

#[test]
fn a_schema_that_takes_more_memory_than_it_may_is_put_aside() {
    const ALONE: &str = "NITRO_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // The bound holds for all databases of a process: the other tests' would meet it too.
        let name = "state::tests::damaged::a_schema_that_takes_more_memory_than_it_may_is_put_aside";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let done = alone.args([name, "--exact"]).env(ALONE, "1").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        return;
    }
    let checks = "1 + ".repeat(25);
    let columns: String = (0..25)
        .map(|column| format!(", c{column} INTEGER CHECK({checks}1)"))
        .collect();
    let many = format!(
        "PRAGMA writable_schema = ON; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
         INSERT INTO sqlite_schema SELECT 'table', 't' || i, 't' || i, 2, 'CREATE TABLE t' || i || '(a{columns})' FROM n"
    );
    let (_, trouble) = opens(&made_with(true, &many));
    assert!(trouble.unwrap().contains("too much memory"));
}

#[test]
fn rows_that_cannot_be_are_left_out_and_the_others_are_read() {
    let bad = "
        INSERT INTO models VALUES(-1, 0, x'2f61'), (0, 0, x'2f61'), (4294967296, 0, x'2f61'), (30, 0, x''), (31, 0, x'61'), (32, 0, x'2f0061');
        INSERT INTO programs VALUES(30, 0, printf('%.1000c', 'x')), (31, 0, CAST(x'ff' AS TEXT));
        INSERT INTO heats VALUES(5000, 1.0, 0, 0);
        UPDATE heats SET heat = 9e999 WHERE model = 1;
        UPDATE heats SET heat = -1.0 WHERE model = 2;
        UPDATE heats SET at = -1 WHERE model = 3;
        UPDATE successors SET weight = 1e300 WHERE next = 1;
        INSERT INTO successors VALUES(1, 1, 0, 0, 5000, 1.0, 0, 0.0, 0.0), (77, 1, 0, 0, 1, 1.0, 0, 0.0, 0.0);
        UPDATE orders SET runs = x'ffffffffffffffff7f00' WHERE model = 2;
        UPDATE orders SET runs = x'' WHERE model = 3;
        INSERT INTO leads VALUES('unheard of', 1, 1.0, 0, 0.0, 0.0);
        INSERT INTO calibrations VALUES(256, 0.0, 1.0), (3, 5.0, 1.0);
        INSERT INTO devices VALUES('x', 0, 'not json'), ('y', 0, '{\"rate\":\"fast\"}');";
    let (rows, trouble) = opens(&made_with(true, bad));
    assert_eq!((rows, trouble), (some_of_each().len() - 3 - 1 - 2, None));
}

#[test]
fn what_no_device_does_is_not_believed() {
    let dir = directory();
    let strange = "INSERT INTO devices VALUES('x', 0, '{\"rate\":-1.0,\"maps_alone\":2e8,\"later\":[1]}')";
    fs::write(dir.path().join("state.db"), made_with(true, strange)).unwrap();
    let known = open_quietly(dir.path()).store.recall("x").unwrap();
    assert_eq!((known.rate, known.maps_alone), (None, Some(Rate(2e8))));
}

#[test]
fn a_value_that_is_huge_is_not_read() {
    let (_, trouble) = opens(&made_with(true, "INSERT INTO models VALUES(99, 0, zeroblob(50000000))"));
    assert!(trouble.unwrap().contains("too big"));
}

#[test]
fn a_table_with_more_than_it_may_hold_is_read_as_far() {
    let more = "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) INSERT INTO programs SELECT i, 0, 'x' FROM n";
    let dir = directory();
    fs::write(dir.path().join("state.db"), made_with(true, more)).unwrap();
    let mut heard = open_quietly(dir.path());
    let programs = |rows: &[Row]| rows.iter().filter(|row| matches!(row, Row::Program { .. })).count();
    assert_eq!(programs(&heard.rows), 4096);
    heard.put([program(7000)]);
    drop(heard);
    let rows = open_quietly(dir.path()).rows;
    assert!(rows.contains(&program(7000)) && programs(&rows) <= 4096);
}

/// Puts something under a name.
type Make = fn(&Path);

#[test]
fn what_is_no_file_of_ours_is_not_opened() {
    let kinds: [(&str, Make); 4] = [
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a symbolic link", |path| symlink("/etc/passwd", path).unwrap()),
        ("a symbolic link", |path| symlink("nowhere", path).unwrap()),
        ("no regular file", |path| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        }),
    ];
    for (what, make) in kinds {
        let dir = directory();
        let path = dir.path().join("state.db");
        make(&path);
        let mut heard = open(dir.path());
        assert!(
            matches!(&heard.troubles[..], [one] if one.contains(what)),
            "{:?}",
            heard.troubles
        );
        heard.put([model(1)]);
        drop(heard);
        assert!(path.symlink_metadata().unwrap().is_file());
        assert_eq!(open_quietly(dir.path()).rows, [model(1)]);
        // The same as what lies beside a database.
        let beside = dir.path().join("state.db-journal");
        make(&beside);
        let heard = open(dir.path());
        assert!(
            matches!(&heard.troubles[..], [one] if one.contains("beside")),
            "{:?}",
            heard.troubles
        );
        assert!(!beside.exists());
        drop(heard);
        // And as devices.json.
        let dir = directory();
        make(&dir.path().join("devices.json"));
        let heard = open(dir.path());
        assert!(
            matches!(&heard.troubles[..], [one] if one.contains(what)),
            "{:?}",
            heard.troubles
        );
    }
}

#[test]
fn what_belongs_to_another_user_is_not_opened() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "a skip in CI is a failure");
        eprintln!("skipped: giving a file away needs root");
        return;
    }
    for name in ["state.db", "state.db-journal"] {
        let dir = directory();
        fs::write(dir.path().join("state.db"), good()).unwrap();
        let path = dir.path().join(name);
        let file = File::options().append(true).create(true).open(&path).unwrap();
        std::os::unix::fs::fchown(&file, Some(65534), None).unwrap();
        let heard = open(dir.path());
        assert!(
            heard.rows.is_empty() && heard.troubles.len() == 1,
            "{name}: {:?}",
            heard.troubles
        );
    }
}

#[test]
fn a_file_far_too_large_is_not_read() {
    let dir = directory();
    let mut file = File::create(dir.path().join("state.db")).unwrap();
    file.write_all(&good()).unwrap();
    // It takes no room.
    file.set_len(1 << 40).unwrap();
    let heard = open(dir.path());
    assert!(heard.troubles[0].contains("too large"), "{:?}", heard.troubles);
}

#[test]
fn a_journal_without_its_database_is_not_played_back() {
    let dir = directory();
    fs::write(dir.path().join("state.db-journal"), good()).unwrap();
    fs::write(dir.path().join("state.db-wal"), good()).unwrap();
    let mut heard = open_quietly(dir.path());
    heard.put([model(1)]);
    drop(heard);
    assert_eq!(names(dir.path()), ["state.db"]);
    assert_eq!(open_quietly(dir.path()).rows, [model(1)]);
}

#[test]
fn one_is_kept_aside_and_no_more() {
    let dir = directory();
    for content in ["first", "second"] {
        fs::write(dir.path().join("state.db"), content).unwrap();
        // SQLite does not get to see it.
        symlink(content, dir.path().join("state.db-journal")).unwrap();
        drop(open(dir.path()));
        assert_eq!(names(dir.path()), ["state.db.old", "state.db.old-journal"]);
        assert_eq!(fs::read_to_string(dir.path().join("state.db.old")).unwrap(), content);
        assert_eq!(
            fs::read_link(dir.path().join("state.db.old-journal")).unwrap(),
            Path::new(content)
        );
    }
    fs::write(dir.path().join("state.db"), "third").unwrap();
    drop(open(dir.path()));
    assert_eq!(names(dir.path()), ["state.db.old"], "the journal belonged to another");
    // A directory of somebody's is not removed for it.
    fs::remove_file(dir.path().join("state.db.old")).unwrap();
    fs::create_dir_all(dir.path().join("state.db.old/somebody's")).unwrap();
    fs::write(dir.path().join("state.db"), "fourth").unwrap();
    let mut heard = open(dir.path());
    assert!(
        heard.troubles[0].contains("cannot be put aside"),
        "{:?}",
        heard.troubles
    );
    heard.put([model(1)]);
    drop(heard);
    assert_eq!(fs::read_to_string(dir.path().join("state.db")).unwrap(), "fourth");
}

#[test]
fn a_database_that_is_damaged_under_a_running_agent_is_put_aside() {
    let dir = directory();
    let mut heard = open_quietly(dir.path());
    heard.put(some_of_each());
    heard.written();
    let path = dir.path().join("state.db");
    let mut file = File::options().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(24)).unwrap();
    // The change counter is another too, so that nothing of it is taken from memory.
    file.write_all(&vec![0xa5; length as usize - 24]).unwrap();
    drop(file);
    heard.put(some_of_each());
    heard.written();
    let said = heard.said();
    assert!(
        matches!(&said[..], [one] if one.contains("state.db.old") && one.contains("anew")),
        "{said:?}"
    );
    drop(heard);
    assert_eq!(sorted(&open_quietly(dir.path()).rows), sorted(&some_of_each()));
}
