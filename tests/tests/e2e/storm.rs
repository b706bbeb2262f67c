//! Many events at once: nothing is lost unsaid, and the agent stays responsive and small.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use rig::{scratch::ScratchDir, tree::series};

use super::{
    bed::{MIB, base, number, scenario, until},
    raw::{RawAgent, ask, command},
};

/// Asks for the state over the socket itself: how long the agent takes, not how long a program takes to start.
fn answer_time(socket: &std::path::Path) -> Duration {
    let began = Instant::now();
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"{\"version\":1,\"request\":\"status\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"status\""), "{line}");
    began.elapsed()
}

#[test]
fn a_storm_of_far_reads_is_counted_to_the_last_event() {
    scenario(512, |bed| {
        let tree = series::numbered(&bed.dir("data"), "part", 1, 1, 256 * MIB).unwrap();
        let state = ScratchDir::new(&base()).unwrap();
        // In memory: nothing slows the readers down.
        let mut reader = bed.reader(&tree.files[0]);
        reader.read_to_end(MIB);
        let mut agent = RawAgent::start(command(state.path()).arg("--watch").arg(bed.disk.path()));
        let status = || ask(state.path(), "status").unwrap().remove(0);
        let before = status();
        reader.begin("hop 3 3");
        let (storm, mut slowest) = (Instant::now(), Duration::ZERO);
        while storm.elapsed() < Duration::from_millis(2800) {
            slowest = slowest.max(answer_time(&state.path().join("socket")));
            std::thread::sleep(Duration::from_millis(50));
        }
        let reads = reader.finish().unwrap().bytes / 4096;
        reader.end();
        assert!(slowest < Duration::from_secs(1), "an answer took {slowest:?}");
        let mut after = status();
        until("the counters agree", || {
            after = status();
            let counters = &after["counters"];
            let outcomes = ["filtered", "coalesced", "delivered", "dropped"];
            let outcomes: u64 = outcomes.iter().map(|name| number(counters, name)).sum();
            number(counters, "seen") == outcomes && number(&after, "ring_received") == number(counters, "delivered")
        });
        let grown = |name| number(&after["counters"], name) - number(&before["counters"], name);
        assert!(reads > 100_000, "{reads} reads are no storm");
        // Every read is a hit, and every hit is far from the one before: told, or counted as lost.
        assert!(grown("seen") >= reads, "{reads} reads, {after:#}");
        assert!(
            grown("delivered") + grown("dropped") >= reads / 10 * 9,
            "{reads} reads, {after:#}"
        );
        let memory = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        let memory = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 64 << 10, "{kib} KiB at most");
        assert!(
            agent
                .stop(nix::sys::signal::Signal::SIGTERM, Duration::from_secs(1))
                .success()
        );
    });
}
