//! Tools that list models read manifests and headers, of every model there is. That is no load, and nothing may be brought in for it.

use std::path::PathBuf;

use rig::tree::{gguf, ollama};

use super::bed::{MIB, cool_all, events, resident_all, scenario, settled};

/// Bytes beyond its header that one read of a header may bring in: the kernel's own readahead, for the tool and for the agent that looks at
/// the same header, each at most 128 KiB past what was read, in a folio as large.
const READAHEAD: u64 = 512 << 10;

#[test]
fn listing_ten_models_warms_none() {
    scenario(768, |bed| {
        let root = bed.dir("models");
        let models: Vec<_> = (0..10)
            .map(|index| ollama::model(&root, &format!("model{index}"), "8b", index, 48 * MIB).unwrap())
            .collect();
        let weights: Vec<PathBuf> = models.iter().map(|model| model.files.last().unwrap().clone()).collect();
        models.iter().for_each(|model| cool_all(&model.files));
        bed.limit(200);
        let agent = bed.agent();
        let mut tool = super::reader::StepReader::start(Some(&bed.group));
        let mut headers = Vec::new();
        for model in &models {
            let (last, small) = model.files.split_last().unwrap();
            for file in small {
                tool.open(file);
                tool.read_to_end(4096);
            }
            // As tools do: a first look, then the whole header in pieces, then the end of the file.
            let header = header_of(last);
            tool.open(last);
            tool.read(64 << 10, 64 << 10);
            tool.step("seek 0");
            assert_eq!(tool.read(header, 4096).bytes, header);
            headers.push(header);
        }
        tool.step("close");
        let told = agent.wait_for_line(std::time::Duration::from_millis(500), |line| {
            line.contains("\"happening\"")
        });
        assert_eq!(told, None, "listing was taken for a load");
        for (file, header) in weights.iter().zip(&headers) {
            let here = settled(std::time::Duration::from_millis(20), || resident_all(file));
            assert!(
                here <= header + READAHEAD,
                "{} KiB of {file:?}, header {header}",
                here >> 10
            );
        }
        tool.end();
        assert!(events(&agent, "receipt").is_empty(), "no load, no receipt");
    });
}

#[test]
fn a_header_of_several_mib_is_read_without_a_load() {
    scenario(512, |bed| {
        let path = bed.dir("models").join("tokens.gguf");
        // A vocabulary of 400 000 tokens.
        gguf::write_with_tokens(&path, 1, 64 * MIB, 400_000).unwrap();
        let header = header_of(&path);
        assert!(header > 4 * MIB, "{header}");
        cool_all(std::slice::from_ref(&path));
        bed.limit(200);
        let agent = bed.agent();
        let mut tool = bed.reader(&path);
        assert_eq!(tool.read(header, 4096).bytes, header);
        let told = agent.wait_for_line(std::time::Duration::from_millis(500), |line| {
            line.contains("\"happening\"")
        });
        assert_eq!(told, None, "listing was taken for a load");
        let here = resident_all(&path);
        assert!(
            here <= header + READAHEAD,
            "{} KiB, header {} KiB",
            here >> 10,
            header >> 10
        );
        tool.end();
    });
}

/// Bytes before the first tensor, by the rig's own reading of the format; whole pages, whose last one holds the first tensor's first bytes.
fn header_of(path: &std::path::Path) -> u64 {
    let tensors = gguf::read_tensors(&mut std::fs::File::open(path).unwrap()).unwrap();
    let header = tensors[0].offset;
    cool_all(&[path.to_owned()]);
    header
}
