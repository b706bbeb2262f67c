//! What must hold of every layout whatever it is given: the one place for the tests' and the fuzz targets' assertions.
//!
//! In: arbitrary bytes. Out: nothing, or a failed assertion. Not part of the agent: only tests and fuzzing build it.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{Group, MOST_PARTS, MemoryView, View, diffusers, gguf, group_of, numbered, ollama, safetensors, split};

/// The only watch root of a trial.
const ROOT: &str = "/watched/root";
/// A file outside it, which nothing may ever name.
const SECRET: &str = "/watched/secret.safetensors";

/// Names and texts made of the bytes of an input, cut at its NULs.
fn pieces(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|byte| *byte == 0).take(256)
}

/// `name` if a directory could hold it.
fn possible(name: &[u8]) -> Option<&OsStr> {
    let possible = !name.is_empty() && name.len() <= 255 && name != b"." && name != b".." && !name.contains(&b'/');
    possible.then(|| OsStr::from_bytes(name))
}

/// Asserts what holds of every group.
fn sound(view: &MemoryView, named: &Path, group: Option<&Group>) {
    let Some(group) = group else { return };
    let asked = view.file(named).map(|seen| seen.file);
    assert!(group.members.len() <= MOST_PARTS, "too many parts");
    assert!(
        group.members.iter().any(|member| Some(member.seen.file) == asked),
        "without the file that was asked about"
    );
    let mut known = std::collections::HashSet::new();
    for member in &group.members {
        assert!(
            member.seen.path.starts_with(ROOT),
            "{:?} is outside the root",
            member.seen.path
        );
        assert!(member.header <= member.seen.size, "a header longer than its file");
        assert!(known.insert(member.seen.file), "{:?} twice", member.seen.path);
    }
}

/// All groups of all files of a view are sound.
fn all_sound(view: &MemoryView, files: &[PathBuf]) {
    for file in files {
        sound(view, file, group_of(view, file).as_ref().map(|(_, group)| group));
    }
}

/// A reader that counts.
struct Counting<R>(R, u64);

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1 += count as u64;
        Ok(count)
    }
}

/// A GGUF header: bounded in the file's size, bounded in bytes read though more would come.
pub fn gguf_header(input: &[u8]) {
    for size in [0, 1, input.len() as u64, 1 << 20, u64::MAX] {
        let mut head = Counting(input.chain(io::repeat(0).take(1 << 21)), 0);
        if let Ok(header) = gguf::header_bytes(&mut head, size) {
            assert!(header <= size, "a header of {header} bytes in a file of {size}");
        }
        assert!(head.1 <= gguf::MOST_HEADER, "{} bytes were read", head.1);
    }
}

/// A safetensors header and an index.
pub fn safetensors(input: &[u8]) {
    let mut length = [0; 8];
    let (first, rest) = input.split_at(input.len().min(8));
    length[..first.len()].copy_from_slice(first);
    for size in [0, 7, 8, 9, input.len() as u64, u64::MAX] {
        assert!(safetensors::header_bytes(length, size).is_none_or(|header| header <= size));
    }
    for text in [input, rest] {
        let Ok(shards) = safetensors::shards_in(text) else {
            continue;
        };
        assert!(shards.len() <= MOST_PARTS);
        assert!(
            shards.iter().all(|shard| possible(shard.as_bytes()).is_some()),
            "{shards:?}"
        );
    }
    let mut view = MemoryView::default();
    let directory = Path::new(ROOT).join("m");
    let files: Vec<_> = (1..=3)
        .map(|part| directory.join(format!("model-0000{part}-of-00003.safetensors")))
        .collect();
    for file in &files {
        view.add_file(file, 4 << 20, input);
    }
    view.add_file(SECRET, 1 << 30, [])
        .add_file(directory.join("model.safetensors.index.json"), 0, rest);
    all_sound(&view, &files);
}

/// An Ollama manifest beside blobs.
pub fn ollama_manifest(input: &[u8]) {
    if let Ok(layers) = ollama::layers_in(input) {
        assert!(layers.len() <= MOST_PARTS);
        assert!(
            layers
                .iter()
                .all(|layer| layer.len() == 64 && layer.bytes().all(|byte| byte.is_ascii_hexdigit()))
        );
    }
    let store = Path::new(ROOT).join("ollama");
    let blobs: Vec<_> = ["a", "b", "c"]
        .map(|digit| {
            store
                .join("blobs/sha256-")
                .into_os_string()
                .into_encoded_bytes()
                .into_iter()
                .chain(digit.repeat(64).into_bytes())
                .collect::<Vec<u8>>()
        })
        .map(|path| PathBuf::from(OsStr::from_bytes(&path)))
        .to_vec();
    let mut view = MemoryView::default();
    for blob in &blobs {
        view.add_file(blob, 20 << 20, input);
    }
    view.add_file(SECRET, 1 << 30, []);
    view.add_file(store.join("manifests/registry.ollama.ai/library/m/latest"), 0, input);
    all_sound(&view, &blobs);
}

/// A hub cache whose reference, link names and link targets are the pieces of the input.
pub fn hub(input: &[u8]) {
    let repository = Path::new(ROOT).join("hub/models--org--name");
    let mut view = MemoryView::default();
    view.add_file(SECRET, 1 << 30, []);
    let mut pieces = pieces(input);
    view.add_file(repository.join("refs/main"), 0, pieces.next().unwrap_or_default());
    let mut files = vec![repository.join("blobs/0")];
    view.add_file(repository.join("blobs/0"), 4 << 20, []);
    while let (Some(revision), Some(name), Some(target)) = (pieces.next(), pieces.next(), pieces.next()) {
        let blob = repository.join("blobs").join(files.len().to_string());
        view.add_file(&blob, 4 << 20, target);
        files.push(blob);
        if let (Some(revision), Some(name)) = (possible(revision), possible(name)) {
            let target = if target.is_empty() || target.len() > 4000 {
                b"../../blobs/0"
            } else {
                target
            };
            view.add_link(
                repository.join("snapshots").join(revision).join(name),
                OsStr::from_bytes(target),
            );
        }
    }
    all_sound(&view, &files);
}

/// A pipeline: its index, and after a NUL the names below its components.
pub fn diffusers(input: &[u8]) {
    let mut pieces = pieces(input);
    let index = pieces.next().unwrap_or_default();
    let components = diffusers::components_in(index).unwrap_or_default();
    assert!(
        components.iter().all(|name| possible(name.as_bytes()).is_some()),
        "{components:?}"
    );
    let pipeline = Path::new(ROOT).join("pipeline");
    let mut view = MemoryView::default();
    view.add_file(SECRET, 1 << 30, [])
        .add_file(pipeline.join("model_index.json"), 0, index);
    let mut files = Vec::new();
    for (component, name) in components.iter().cycle().zip(pieces.filter_map(possible)) {
        let path = pipeline.join(component).join(name);
        view.add_file(&path, 2 << 20, input);
        files.push(path);
    }
    files.truncate(16);
    all_sound(&view, &files);
}

/// A directory whose names are the pieces of the input.
pub fn names(input: &[u8]) {
    let mut view = MemoryView::default();
    let mut files = Vec::new();
    for name in pieces(input).filter_map(possible) {
        if let Some(split) = split::parse(name.as_bytes()) {
            assert!(split.number <= split.total && split.total as usize <= MOST_PARTS);
        }
        if let Some(parsed) = numbered::parse(name.as_bytes()) {
            assert!(parsed.prefix.len() + parsed.width + parsed.suffix.len() == name.len());
        }
        let _ = numbered::natural_key(name);
        let path = Path::new(ROOT).join(name);
        view.add_file(&path, 2 << 20, input);
        files.push(path);
    }
    view.add_file(SECRET, 1 << 30, []);
    files.truncate(16);
    all_sound(&view, &files);
}

/// A GGUF header with everything in it, to be mutated.
pub fn valid_gguf() -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut bytes = [
        b"GGUF".as_slice(),
        &3u32.to_le_bytes(),
        &2u64.to_le_bytes(),
        &4u64.to_le_bytes(),
    ]
    .concat();
    bytes.extend(
        [
            string("general.architecture"),
            8u32.to_le_bytes().to_vec(),
            string("llama"),
        ]
        .concat(),
    );
    bytes.extend(
        [
            string("general.alignment"),
            4u32.to_le_bytes().to_vec(),
            64u32.to_le_bytes().to_vec(),
        ]
        .concat(),
    );
    let array = [9u32.to_le_bytes(), 8u32.to_le_bytes()].concat();
    bytes.extend(
        [
            string("tokens"),
            array,
            2u64.to_le_bytes().to_vec(),
            string("a"),
            string("bc"),
        ]
        .concat(),
    );
    let floats = [9u32.to_le_bytes(), 6u32.to_le_bytes()].concat();
    bytes.extend([string("scores"), floats, 3u64.to_le_bytes().to_vec(), vec![0; 12]].concat());
    for name in ["output.weight", "blk.0.attn_q.weight"] {
        bytes.extend(
            [
                string(name),
                2u32.to_le_bytes().to_vec(),
                vec![1; 16],
                vec![0; 4],
                vec![0; 8],
            ]
            .concat(),
        );
    }
    bytes
}
