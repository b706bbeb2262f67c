//! What it costs, for whoever wants to know.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use nitro_user::{
    sys::{
        charged::Books,
        measure, page_cache,
        users::{self, Question},
    },
    units::ByteRange,
};

use super::bed::{self, Bed, alone, status};

/// Not a test: what it costs, for whoever wants to know.
#[test]
#[ignore = "measures; run it alone, with --nocapture"]
fn figures() {
    alone(costs);
}

fn costs() {
    const GIB: u64 = 1 << 30;
    let mut bed = Bed::allowing(2 * GIB);
    let file = bed.file(GIB);
    let seconds = |began: Instant| began.elapsed().as_secs_f64() * 1e3;
    for (folios, how) in [(1, "read in order"), (2, "in folios of 4 KiB")] {
        measure::drop_pages(file.as_file()).unwrap();
        if folios == 1 {
            std::io::copy(&mut File::open(file.path()).unwrap(), &mut std::io::sink()).unwrap();
        } else {
            (0..GIB / 4096).for_each(|page| page_cache::wait(file.as_file(), page * 4096).unwrap());
        }
        let books = Books::open();
        let began = Instant::now();
        for at in (0..GIB).step_by(8 << 20) {
            let chunk = ByteRange::new(at, 8 << 20);
            let look = books.look(file.as_file(), chunk).unwrap();
            assert_eq!(look.charged(chunk).len(), 1);
        }
        println!("{how}: asking who is charged for 1 GiB: {:.1} ms", seconds(began));
        let id = bed.open(folios, file.path());
        let began = Instant::now();
        let held = bed.hold(id, 0, GIB);
        println!("{how}: holding {held:?}: {:.1} ms, all together", seconds(began));
        let keeper = bed.pins.processes().living()[0];
        for (name, process) in [("parent", bed.parent), ("keeper", keeper)] {
            let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
            let wanted = ["Rss:", "Pss_Anon:", "Private_Dirty:", "Private_Clean:"];
            let lines = rollup
                .lines()
                .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
            println!(
                "{name}: {:?}",
                lines.map(|line| line.replace("  ", "")).collect::<Vec<_>>()
            );
            for field in ["RssAnon", "RssFile", "VmLck", "VmPTE"] {
                println!("{name}: {field} {}", status(process, field));
            }
        }
        let began = Instant::now();
        bed.pins.release(id);
        println!("{how}: {:?}: {:.1} ms", bed.next(), seconds(began));
    }
    let began = Instant::now();
    let small = bed.open(9, file.path());
    bed.hold(small, 0, 4096);
    println!("a keeper made, and 4 KiB held: {:.2} ms", seconds(began));
    let keeper = bed.pins.processes().living().pop().unwrap();
    println!(
        "holding 4 KiB: RssAnon {}, RssFile {}",
        status(keeper, "RssAnon"),
        status(keeper, "RssFile")
    );
    let count: usize = std::env::var("NITRO_PROCESSES").map_or(0, |count| count.parse().unwrap());
    let mut sleepers: Vec<_> = (0..count)
        .map(|_| std::process::Command::new("sleep").arg("600").spawn().unwrap())
        .collect();
    let files = [bed::id(file.path())];
    for descriptors in [false, true, true] {
        let question = Question {
            files: &files,
            descriptors,
            ..Question::default()
        };
        let began = Instant::now();
        let found = users::look(Path::new(users::PROC), &question, Duration::from_secs(20)).unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let processes = processes.filter(|entry| entry.file_name().to_str().unwrap().parse::<u32>().is_ok());
        println!(
            "{} processes, descriptors {descriptors}: {:.1} ms, {} users, {} unseen",
            processes.count(),
            seconds(began),
            found.users.values().map(Vec::len).sum::<usize>(),
            found.unseen
        );
    }
    for sleeper in &mut sleepers {
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
