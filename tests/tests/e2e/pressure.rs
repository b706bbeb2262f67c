//! Memory that is short: nothing more is brought in for anybody, nobody is kept waiting, and help comes back with the memory.

use nitro_user::sys::memory;
use rig::{agent::Agent, tree::gguf};

use super::bed::{MIB, assert_adds_up, binary, cool, receipt, resident, scenario, until, warmed};

/// What the hog leaves of the memory that was available is so much less than the reserve.
const MARGIN: u64 = 2048 * MIB;
const MODEL: u64 = 384 * MIB;

#[test]
fn while_memory_is_short_nothing_is_warmed_and_then_help_comes_back() {
    scenario(512, |bed| {
        let path = bed.dir("models").join("model.gguf");
        gguf::write(&path, 1, MODEL, None).unwrap();
        let truth = bed.truth(&path);
        cool(&path);
        bed.limit(400);
        let reserve = format!("{}MiB", memory::available().0.saturating_sub(MARGIN) / MIB);
        let agent = Agent::new(&binary(), bed.disk.path()).arg("--memory").arg("64MiB");
        let agent = bed.start(agent.arg("--reserve").arg(&reserve));
        let pressure = || agent.ask("status").unwrap()["pressure"].as_str().map(str::to_owned);

        let mut reader = bed.reader(&path);
        let begun = reader.read(8 * MIB, MIB);
        until("something is ahead", || resident(&path, 8 * MIB, MODEL) >= 32 * MIB);
        assert_eq!(pressure(), None);

        // Pages that are written to, so that they are there.
        let hog = vec![1u8; (2 * MARGIN) as usize];
        until("memory is short", || pressure().is_some());
        let rest = reader.read_to_end(MIB);
        assert_eq!(begun.checksum.wrapping_add(rest.checksum), truth.checksum);
        let short = receipt(&agent, reader.end());
        assert_adds_up(&short);
        // What was ahead, and what was on its way.
        assert!(warmed(&short) <= 96 * MIB, "{short:#}");
        assert!(
            short["skipped"].as_array().unwrap().contains(&"pressure".into()),
            "{short:#}"
        );
        assert_eq!(hog.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 2 * MARGIN);
        drop(hog);
        let (available, wanted) = (memory::available(), &reserve);

        cool(&path);
        let mut reader = bed.reader(&path);
        reader.read_to_end(MIB);
        let enough = receipt(&agent, reader.end());
        assert!(
            warmed(&enough) > MODEL / 2,
            "{available} available, {wanted} to stay: {enough:#}"
        );
        assert!(agent.stop().unwrap().status.success());
    });
}
