//! Never the wrong bytes: every way of reading gives what it gives without the agent, cold and warmed.

use rig::tree::gguf;

use super::{
    bed::{MIB, cool, scenario},
    steps::Done,
};

const SIZE: u64 = 64 * MIB;

/// Every MiB of the file once, in an order that jumps to and fro.
fn shuffled(size: u64) -> Vec<String> {
    let pieces = size.div_ceil(MIB);
    // Odd and no divisor of any number of pieces here: every piece comes once.
    let order = (0..pieces).map(|index| index * 29 % pieces);
    order.map(|piece| format!("pread {} {MIB}", piece * MIB)).collect()
}

#[test]
fn every_reader_gets_the_bytes_that_are_on_the_disk() {
    scenario(256, |bed| {
        let path = bed.dir("models").join("m.gguf");
        gguf::write(&path, 7, SIZE, None).unwrap();
        let size = path.metadata().unwrap().len();
        assert_ne!(size.div_ceil(MIB) % 29, 0);
        let truth = bed.truth(&path);
        bed.limit(200);
        let touch = |how: &str| vec![how.to_owned(), format!("touch 0 {size}")];
        let ways = [
            ("large reads", vec![format!("read {size} {MIB}")]),
            ("small reads", vec![format!("read {size} 12288")]),
            ("a mapping", touch("map")),
            ("a populated mapping", touch("populate")),
            ("reads to and fro", shuffled(size)),
            (
                "reads without the kernel's readahead",
                vec!["random".into(), format!("read {size} {}", 64 << 10)],
            ),
        ];
        let agent = bed.agent();
        for (way, steps) in &ways {
            for state in ["cold", "warm"] {
                if state == "cold" {
                    cool(&path);
                }
                let mut reader = bed.reader(&path);
                let mut read = Done::default();
                for step in steps {
                    let part = reader.step(step);
                    read.bytes += part.bytes;
                    read.checksum = read.checksum.wrapping_add(part.checksum);
                }
                reader.end();
                assert_eq!(read, truth, "{way}, {state}");
            }
        }
        assert!(agent.stop().unwrap().status.success());
    });
}
