//! Safetensors files: the length of a JSON header, the header, the data.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::data::Filler;

/// Writes a file of about `bytes` with `tensors` tensors named `PREFIX.I.weight`, and gives their names.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, seed: u64, bytes: u64, prefix: &str, tensors: u64) -> Result<Vec<String>> {
    let each = (bytes / tensors.max(1)).next_multiple_of(1024);
    let names: Vec<String> = (0..tensors.max(1))
        .map(|index| format!("{prefix}.{index}.weight"))
        .collect();
    let mut entries = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    for (index, name) in names.iter().enumerate() {
        let start = index as u64 * each;
        entries.insert(
            name.clone(),
            json!({ "dtype": "BF16", "shape": [each / 1024, 512], "data_offsets": [start, start + each] }),
        );
    }
    let mut header = Value::Object(entries).to_string();
    // The data begins at a multiple of eight.
    header.extend(std::iter::repeat_n(
        ' ',
        header.len().next_multiple_of(8) - header.len(),
    ));
    let end = 8 + header.len() as u64 + each * names.len() as u64;
    let mut file = Filler::create(path, seed, end)?;
    file.write(&(header.len() as u64).to_le_bytes())
        .and_then(|()| file.write(header.as_bytes()))
        .and_then(|()| file.fill_to(end))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scratch::ScratchDir;

    #[test]
    fn the_header_covers_the_data_without_a_hole() {
        let dir = ScratchDir::new(&std::env::temp_dir()).unwrap();
        let path = dir.path().join("m.safetensors");
        let names = write(&path, 1, 1 << 20, "model.layers", 5).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let mut next = 0;
        for name in &names {
            let offsets = &header[name]["data_offsets"];
            assert_eq!(offsets[0].as_u64().unwrap(), next);
            next = offsets[1].as_u64().unwrap();
            let shape = &header[name]["shape"];
            assert_eq!(
                shape[0].as_u64().unwrap() * shape[1].as_u64().unwrap() * 2,
                next - offsets[0].as_u64().unwrap()
            );
        }
        assert_eq!(8 + length + next as usize, bytes.len());
    }
}
