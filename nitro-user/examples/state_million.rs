//! Measures a state directory that holds all that it may: fills it, opens it again in a process of its own, changes it, forgets it, and prints seconds and bytes.
//!
//! `cargo run --release --example state_million -- 1000000 [directory to make it in]`

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use nitro_user::{
    engine::learn::row::{Change, Order, Row, Run, Successor},
    state::store::{Opened, Store},
};

/// Longest wait for a transaction.
const PATIENCE: Duration = Duration::from_secs(600);

/// Changes that are written in one transaction while it is filled: what waits is bounded.
const BATCH: usize = 50_000;

const MODELS: u32 = 65_536;
const PROGRAMS: u32 = 4096;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().unwrap_or_else(|| "1000000".into());
    let place = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let result = match first.to_str().map(str::parse) {
        Some(Ok(successors)) => measure(successors, &place),
        // A process of its own: the peak is that of the start alone.
        _ if first == "open" => open(&place).map(|opened| {
            println!("peak memory of that process: {} MiB", peak().unwrap_or_default() / 1024);
            drop(opened);
        }),
        _ => Err(format!("{first:?} is not a number of rows").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("state_million: {error}");
            ExitCode::FAILURE
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn measure(successors: u32, place: &Path) -> Result<()> {
    let dir = tempfile::tempdir_in(place)?;
    let size = || -> Result<u64> { Ok(dir.path().join("state.db").metadata()?.len()) };
    let mut store = open(dir.path())?.store;
    let mut random = fastrand::Rng::with_seed(1);

    let models = (1..=MODELS).map(|number| Row::Model {
        number,
        path: format!("/srv/models/organisation/model-number-{number}/model-00001-of-00030.safetensors").into(),
    });
    let programs = (1..=PROGRAMS).map(|number| Row::Program {
        number,
        name: format!("program-{number}"),
    });
    let fill = |store: &mut Store, what: &str, rows: &mut dyn Iterator<Item = Row>| -> Result<()> {
        let began = Instant::now();
        let before = size().unwrap_or_default();
        let mut count = 0;
        for row in rows {
            store.keep(Change::Put(row));
            count += 1;
            if count % BATCH == 0 && !store.flush(PATIENCE) {
                return Err("cannot write".into());
            }
        }
        if !store.flush(PATIENCE) {
            return Err("cannot write".into());
        }
        println!(
            "{count} {what}: {:.1} MB, written in {:.1} s",
            (size()?.saturating_sub(before)) as f64 / 1e6,
            began.elapsed().as_secs_f64()
        );
        Ok(())
    };
    fill(&mut store, "models and programs", &mut models.chain(programs))?;
    let mut one = |number: u32| successor(&mut random, number);
    fill(&mut store, "successors", &mut (0..successors).map(&mut one))?;
    println!("successors alone: {:.1} MB", size()? as f64 / 1e6);
    reopen(store, dir.path())?;

    let mut store = open(dir.path())?.store;
    fill(
        &mut store,
        "heats",
        &mut (1..=MODELS).map(|model| Row::Heat {
            model,
            heat: 1.5,
            asked: false,
            at: 1_800_000_000,
        }),
    )?;
    // As a reader leaves it that reads two parts from the front, with the tables at their ends first.
    let runs: Vec<_> = (0..8)
        .map(|run| Run {
            part: run % 2,
            first: run * 1000,
            steps: 900,
        })
        .collect();
    fill(
        &mut store,
        "orders",
        &mut (1..=MODELS).map(|model| {
            Row::Order(Order {
                model,
                program: 1,
                bytes: 1 << 36,
                runs: runs.clone(),
                weight: 2.0,
                at: 1_800_000_000,
            })
        }),
    )?;
    reopen(store, dir.path())?;

    let mut store = open(dir.path())?.store;
    let mut random = fastrand::Rng::with_seed(2);
    for changes in [1, 100, 10_000] {
        let began = Instant::now();
        for _ in 0..changes {
            store.keep(Change::Put(successor(&mut random, 0)));
        }
        store.flush(PATIENCE);
        println!(
            "{changes} changes in one transaction: {:.3} s",
            began.elapsed().as_secs_f64()
        );
    }
    let mut timed = |what: &str, change: Change| -> Result<()> {
        let began = Instant::now();
        store.keep(change);
        let handed_over = began.elapsed();
        store.flush(PATIENCE);
        let (took, size) = (began.elapsed().as_secs_f64(), size()? as f64 / 1e6);
        println!("{what}: {took:.3} s, handed over in {handed_over:?}; {size:.1} MB");
        Ok(())
    };
    timed(
        "one program more than there may be",
        Change::Put(Row::Program {
            number: PROGRAMS + 1,
            name: "one more".into(),
        }),
    )?;
    timed("one model forgotten", Change::ForgetModel(7))?;
    timed("everything forgotten", Change::ForgetAll)?;
    Ok(())
}

/// One of those that loads leave: the last three models before it.
fn successor(random: &mut fastrand::Rng, number: u32) -> Row {
    let mut model = || random.u32(1..=MODELS);
    let context = match number % 3 {
        0 => [model(), 0, 0],
        1 => [model(), model(), 0],
        _ => [model(), model(), model()],
    };
    Row::Successor(Successor {
        context,
        next: model(),
        program: random.u32(1..=PROGRAMS),
        weight: random.f32() * 10.0,
        at: 1_700_000_000 + random.u64(0..100_000_000),
        gap_log: random.f32() * 10.0,
        gap_spread: random.f32(),
    })
}

fn open(directory: &Path) -> Result<Opened> {
    let began = Instant::now();
    let opened = Store::open(directory)?;
    println!(
        "opened with {} rows in {:.3} s",
        opened.rows.len(),
        began.elapsed().as_secs_f64()
    );
    match opened.troubles.first() {
        None => Ok(opened),
        Some(trouble) => Err(trouble.to_string().into()),
    }
}

/// Ends the store and opens the directory in another process: as it is, and with nothing of it in memory.
fn reopen(store: Store, directory: &Path) -> Result<()> {
    drop(store);
    for cold in [false, true] {
        if cold {
            let file = std::fs::File::open(directory.join("state.db"))?;
            file.sync_all()?;
            nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
            println!("with nothing of it in the page cache:");
        }
        let status = Command::new(std::env::current_exe()?)
            .arg("open")
            .arg(directory)
            .status()?;
        if !status.success() {
            return Err("cannot be opened again".into());
        }
    }
    Ok(())
}

/// Peak resident memory of this process in KiB.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
