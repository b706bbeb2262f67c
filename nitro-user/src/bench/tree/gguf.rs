//! GGUF files: header with metadata and tokenizer, tensor table, aligned data; and the table read back.
//!
//! The writer and the parser follow the format's description (version 3) and know nothing of the agent's own parser.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use super::{ModelTree, data::Filler, sub_seed};

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;
const TYPE_U32: u32 = 4;
const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;
/// Tensor type F16: two bytes for every element, no blocks.
const F16: u32 = 1;

/// A tensor's place in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Offset of its first byte from the start of the file.
    pub offset: u64,
    /// Bytes up to the next tensor, padding included.
    pub bytes: u64,
}

/// `NAME.gguf` of about `bytes` in `root`.
///
/// # Errors
/// When it cannot be written.
pub fn single(root: &Path, name: &str, seed: u64, bytes: u64) -> Result<ModelTree> {
    let path = root.join(format!("{name}.gguf"));
    write(&path, seed, bytes, None)?;
    ModelTree::of(root, vec![path])
}

/// `NAME-00001-of-0000N.gguf` and so on, of about `bytes` together.
///
/// # Errors
/// When a file cannot be written.
pub fn splits(root: &Path, name: &str, seed: u64, parts: usize, bytes: u64) -> Result<ModelTree> {
    let files: Vec<PathBuf> = (1..=parts)
        .map(|part| root.join(format!("{name}-{part:05}-of-{parts:05}.gguf")))
        .collect();
    for (index, path) in files.iter().enumerate() {
        write(path, sub_seed(seed, index), bytes / parts as u64, Some((index, parts)))?;
    }
    ModelTree::of(root, files)
}

/// Writes one file of about `bytes`; `split` is its index and the number of parts.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, seed: u64, bytes: u64, split: Option<(usize, usize)>) -> Result<()> {
    write_parts(path, seed, bytes, split, usual_tokens(bytes))
}

/// The tokenizer's size follows the model's, as in real files.
fn usual_tokens(bytes: u64) -> u64 {
    (bytes / (64 << 10)).clamp(32, 32_000)
}

/// The tensor table of the file that [`single`] would write, and the bytes of that file: for whoever wants to know it without one.
pub fn plan(seed: u64, bytes: u64) -> (Vec<Tensor>, u64) {
    let tensors = shapes(bytes);
    let (header, end) = header(&tensors, seed, usual_tokens(bytes), None);
    let mut offset = header.len() as u64;
    let mut table: Vec<Tensor> = Vec::new();
    for (name, dimensions) in tensors {
        let bytes = tensor_bytes(&dimensions).next_multiple_of(ALIGNMENT);
        table.push(Tensor { name, offset, bytes });
        offset += bytes;
    }
    (table, end)
}

/// Writes one file of about `bytes` whose header holds `tokens` tokens of its own: about 15 bytes each.
///
/// # Errors
/// When it cannot be written.
pub fn write_with_tokens(path: &Path, seed: u64, bytes: u64, tokens: u64) -> Result<()> {
    write_parts(path, seed, bytes, None, tokens)
}

fn write_parts(path: &Path, seed: u64, bytes: u64, split: Option<(usize, usize)>, tokens: u64) -> Result<()> {
    let (header, end) = header(&shapes(bytes), seed, tokens, split);
    let mut file = Filler::create(path, seed, end)?;
    file.write(&header)
        .and_then(|()| file.fill_to(end))
        .with_context(|| format!("write {}", path.display()))
}

/// The header of a file with these tensors, and where the file ends.
fn header(tensors: &[(String, Vec<u64>)], seed: u64, tokens: u64, split: Option<(usize, usize)>) -> (Vec<u8>, u64) {
    let mut header = Vec::new();
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    let metadata = metadata(seed, tokens, split);
    header.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    metadata.iter().for_each(|pair| header.extend_from_slice(pair));
    let mut offset = 0u64;
    for (name, dimensions) in tensors {
        push_string(&mut header, name);
        header.extend_from_slice(&(dimensions.len() as u32).to_le_bytes());
        dimensions
            .iter()
            .for_each(|dimension| header.extend_from_slice(&dimension.to_le_bytes()));
        header.extend_from_slice(&F16.to_le_bytes());
        header.extend_from_slice(&offset.to_le_bytes());
        offset += tensor_bytes(dimensions).next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    let end = header.len() as u64 + offset;
    (header, end)
}

fn tensor_bytes(dimensions: &[u64]) -> u64 {
    dimensions.iter().product::<u64>() * 2
}

/// Names and dimensions of a llama-like model that fills about `bytes`.
fn shapes(bytes: u64) -> Vec<(String, Vec<u64>)> {
    // The largest usual width that still gives eight layers, as real models have many.
    let layer_bytes = |width: u64| (4 * width * width + 3 * width * (width * 11 / 4) + 2 * width) * 2;
    let width = [4096, 2048, 1024, 512, 256, 128]
        .into_iter()
        .find(|&width| layer_bytes(width) * 8 < bytes)
        .unwrap_or(64);
    let vocabulary = (bytes / 16 / (width * 2)).clamp(16, 128_256);
    let mut tensors = vec![("token_embd.weight".to_owned(), vec![width, vocabulary])];
    let mut used = tensor_bytes(&tensors[0].1);
    for layer in 0.. {
        // The last eighth or so is left to the output matrix, which takes what remains.
        if used + layer_bytes(width) > bytes - bytes / 16 {
            break;
        }
        let feed = width * 11 / 4;
        for (part, dimensions) in [
            ("attn_norm", vec![width]),
            ("attn_q", vec![width, width]),
            ("attn_k", vec![width, width]),
            ("attn_v", vec![width, width]),
            ("attn_output", vec![width, width]),
            ("ffn_norm", vec![width]),
            ("ffn_gate", vec![width, feed]),
            ("ffn_up", vec![width, feed]),
            ("ffn_down", vec![feed, width]),
        ] {
            used += tensor_bytes(&dimensions);
            tensors.push((format!("blk.{layer}.{part}.weight"), dimensions));
        }
    }
    let rest = bytes.saturating_sub(used) / (width * 2);
    tensors.push(("output.weight".to_owned(), vec![width, rest.max(1)]));
    tensors
}

fn metadata(seed: u64, tokens: u64, split: Option<(usize, usize)>) -> Vec<Vec<u8>> {
    let mut pairs = vec![
        string("general.architecture", "llama"),
        string("general.name", "rig"),
        number("general.alignment", ALIGNMENT as u32),
    ];
    if let Some((index, parts)) = split {
        pairs.push(number("split.no", index as u32));
        pairs.push(number("split.count", parts as u32));
    }
    // Only a whole model or its first part carries the tokenizer.
    if split.is_none_or(|(index, _)| index == 0) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pair = key("tokenizer.ggml.tokens", TYPE_ARRAY);
        pair.extend_from_slice(&TYPE_STRING.to_le_bytes());
        pair.extend_from_slice(&tokens.to_le_bytes());
        (0..tokens).for_each(|_| {
            push_string(
                &mut pair,
                &(0..random.usize(2..12)).map(|_| random.lowercase()).collect::<String>(),
            )
        });
        pairs.push(pair);
    }
    pairs
}

fn key(name: &str, kind: u32) -> Vec<u8> {
    let mut pair = Vec::new();
    push_string(&mut pair, name);
    pair.extend_from_slice(&kind.to_le_bytes());
    pair
}

fn string(name: &str, value: &str) -> Vec<u8> {
    let mut pair = key(name, TYPE_STRING);
    push_string(&mut pair, value);
    pair
}

fn number(name: &str, value: u32) -> Vec<u8> {
    let mut pair = key(name, TYPE_U32);
    pair.extend_from_slice(&value.to_le_bytes());
    pair
}

fn push_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// The tensor table of a file, in the file's order.
///
/// # Errors
/// When it is not a GGUF file, or its header is longer than 64 MiB.
pub fn read_tensors(file: &mut File) -> Result<Vec<Tensor>> {
    let length = file.metadata().context("size of the file")?.len();
    let mut reader = Fields {
        input: std::io::BufReader::new(file.take(64 << 20)),
        read: 0,
    };
    ensure!(&reader.bytes::<4>()? == MAGIC, "not a GGUF file");
    let version = reader.u32()?;
    ensure!(version == VERSION, "GGUF version {version}");
    let (tensors, pairs) = (reader.u64()?, reader.u64()?);
    let mut alignment = 32u64;
    for _ in 0..pairs {
        let name = reader.string()?;
        let kind = reader.u32()?;
        if name == "general.alignment" && kind == TYPE_U32 {
            alignment = u64::from(reader.u32()?);
        } else {
            reader.skip_value(kind)?;
        }
    }
    let mut table = Vec::new();
    for _ in 0..tensors {
        let name = reader.string()?;
        let dimensions = reader.u32()?;
        reader.skip(u64::from(dimensions) * 8 + 4)?;
        table.push(Tensor {
            name,
            offset: reader.u64()?,
            bytes: 0,
        });
    }
    let start = reader.read.next_multiple_of(alignment.max(1));
    for index in 0..table.len() {
        table[index].offset += start;
        let end = table.get(index + 1).map_or(length, |next| next.offset + start);
        table[index].bytes = end
            .checked_sub(table[index].offset)
            .context("tensors are not in the order of their offsets")?;
    }
    Ok(table)
}

/// Little-endian fields, counted.
struct Fields<R> {
    input: R,
    read: u64,
}

impl<R: Read> Fields<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).context("the header ends early")?;
        self.read += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        let skipped =
            std::io::copy(&mut self.input.by_ref().take(count), &mut std::io::sink()).context("skip a value")?;
        ensure!(skipped == count, "the header ends early");
        self.read += count;
        Ok(())
    }

    fn string(&mut self) -> Result<String> {
        let length = self.u64()?;
        ensure!(length < 1 << 20, "a string of {length} bytes");
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).context("the header ends early")?;
        self.read += length;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn skip_value(&mut self, kind: u32) -> Result<()> {
        match kind {
            0 | 1 | 7 => self.skip(1),
            2 | 3 => self.skip(2),
            4..=6 => self.skip(4),
            10..=12 => self.skip(8),
            TYPE_STRING => {
                let length = self.u64()?;
                self.skip(length)
            }
            TYPE_ARRAY => {
                let (element, count) = (self.u32()?, self.u64()?);
                (0..count).try_for_each(|_| self.skip_value(element))
            }
            other => bail!("value of the unknown type {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scratch::ScratchDir;

    #[test]
    fn the_table_that_was_written_is_read_back() {
        let dir = ScratchDir::new(&std::env::temp_dir()).unwrap();
        let path = dir.path().join("m.gguf");
        write(&path, 7, 16 << 20, None).unwrap();
        let mut file = File::open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        let tensors = read_tensors(&mut file).unwrap();
        assert_eq!(
            tensors
                .iter()
                .map(|tensor| tensor.name.as_str())
                .take(2)
                .collect::<Vec<_>>(),
            ["token_embd.weight", "blk.0.attn_norm.weight"]
        );
        assert_eq!(tensors.len(), shapes(16 << 20).len());
        assert_eq!(plan(7, 16 << 20), (tensors.clone(), length));
        // Every tensor ends where the next begins, and the last with the file.
        for pair in tensors.windows(2) {
            assert_eq!(pair[0].offset + pair[0].bytes, pair[1].offset);
        }
        let last = tensors.last().unwrap();
        assert_eq!((last.offset + last.bytes, last.offset % ALIGNMENT), (length, 0));
        for (tensor, (_, dimensions)) in tensors.iter().zip(shapes(16 << 20)) {
            assert_eq!(tensor.bytes, tensor_bytes(&dimensions).next_multiple_of(ALIGNMENT));
        }
    }
}
