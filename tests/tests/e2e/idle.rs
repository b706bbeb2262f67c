//! An agent with nothing to do costs nothing. The bench measures the bounds; here they have some slack, for a machine that is shared.

use std::time::{Duration, Instant};

use rig::tree::series;

use super::bed::{number, scenario};

#[test]
fn ten_thousand_files_are_known_soon_in_little_memory_and_watched_asleep() {
    scenario(768, |bed| {
        series::unrelated(bed.disk.path(), 1, 10_000, 4096).unwrap();
        let agent = bed.agent();
        assert!(
            agent.time_to_ready() <= Duration::from_secs(2),
            "{:?}",
            agent.time_to_ready()
        );
        assert_eq!(number(&agent.ask("status").unwrap(), "files"), 10_000);
        let resident = agent.resident_bytes().unwrap();
        assert!(resident <= 40 << 20, "{} MiB", resident >> 20);

        let events = || number(&agent.ask("status").unwrap(), "ring_received");
        let (before, start) = (events(), Instant::now());
        let switches = agent.voluntary_switches().unwrap();
        std::thread::sleep(Duration::from_secs(8));
        let switches = agent.voluntary_switches().unwrap() - switches;
        let seconds = start.elapsed().as_secs_f64();
        // Programs that others start wake it, each a few times; asking it did so as well.
        let excused = 4 * (events() - before) + 8;
        let own = switches.saturating_sub(excused) as f64 / seconds;
        assert!(
            own <= 1.0,
            "{switches} wake-ups in {seconds:.1} s, {excused} of them for cause"
        );
    });
}
