//! Every hit of a hook has an outcome, every event that was sent is received, and the agent does not see itself.

use rig::{agent::AgentProcess, tree::series};
use serde_json::Value;

use super::bed::{MIB, cool_all, number, receipt, scenario, until};

/// The state of an agent at a moment at which all its counters agree. Others use the machine meanwhile, and the processors' counters are not read
/// at one instant: a hit that got lost would keep them from ever agreeing.
pub fn at_rest(agent: &AgentProcess) -> Value {
    let mut status = Value::Null;
    until("the counters agree", || {
        status = agent.ask("status").unwrap();
        let counters = &status["counters"];
        let outcomes = ["filtered", "coalesced", "delivered", "dropped"];
        let outcomes: u64 = outcomes.iter().map(|name| number(counters, name)).sum();
        number(counters, "seen") == outcomes && number(&status, "ring_received") == number(counters, "delivered")
    });
    status
}

#[test]
fn every_hit_has_an_outcome_and_every_event_arrives() {
    scenario(384, |bed| {
        let tree = series::numbered(&bed.dir("parts"), "part", 1, 4, 128 * MIB).unwrap();
        cool_all(&tree.files);
        bed.limit(400);
        let agent = bed.agent();
        let before = at_rest(&agent);
        let mut reader = bed.reader(&tree.files[0]);
        for file in &tree.files {
            reader.open(file);
            assert_eq!(reader.read_to_end(128 << 10).bytes, 32 * MIB);
        }
        let receipt = receipt(&agent, reader.end());
        let after = at_rest(&agent);
        let grown = |name| number(&after["counters"], name) - number(&before["counters"], name);
        // 1024 reads of 128 KiB, a step of 2 MiB each told of once; the agent's own waits and readaheads are none of them.
        assert_eq!(number(&receipt, "calls"), 1024, "{receipt:#}");
        assert!(grown("coalesced") >= 1024 - 4 * 17, "{after:#}");
        assert!(grown("delivered") >= 4 * 16, "{after:#}");
        assert_eq!((grown("dropped"), grown("cursors_full")), (0, 0));
        assert_eq!(number(&after, "recursion_misses"), 0, "{after:#}");
        assert_eq!(after["full_maps"].as_array().map(Vec::len), Some(0), "{after:#}");
        assert_eq!(number(&after, "watched"), 4);
    });
}

#[test]
fn the_agents_own_reads_are_not_taken_for_a_load() {
    scenario(256, |bed| {
        let tree = series::numbered(&bed.dir("parts"), "part", 1, 2, 64 * MIB).unwrap();
        cool_all(&tree.files);
        let agent = bed.agent();
        let mut reader = bed.reader(&tree.files[0]);
        reader.read_to_end(MIB);
        // The second part was warmed by then, or is being warmed; nobody but the agent has touched it.
        let pid = reader.end();
        receipt(&agent, pid);
        let own = u64::from(agent.pid().unwrap());
        let status = at_rest(&agent);
        let loads = status["loads"].as_array().unwrap();
        assert!(loads.iter().all(|load| number(load, "pid") != own), "{status:#}");
        let told = super::bed::happenings(&agent, agent.pid().unwrap());
        assert!(told.is_empty(), "{told:?}");
    });
}
