//! A path in JSON: a string where it is UTF-8, otherwise an array of its bytes. Only absolute paths without `.`, `..` and zero bytes are taken.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A path by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WirePath(#[serde(with = "self")] pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Wire {
    Text(String),
    Bytes(Vec<u8>),
}

/// Writes `path`.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    let wire = match path.to_str() {
        Some(text) => Wire::Text(text.to_owned()),
        None => Wire::Bytes(path.as_os_str().as_bytes().to_vec()),
    };
    wire.serialize(serializer)
}

/// Reads a path.
///
/// # Errors
/// What is no string and no array of bytes, and a path that is not plain and absolute.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let bytes = match Wire::deserialize(deserializer)? {
        Wire::Text(text) => text.into_bytes(),
        Wire::Bytes(bytes) => bytes,
    };
    if bytes.contains(&0) {
        return Err(D::Error::custom("a path has no zero byte"));
    }
    let path = PathBuf::from(OsString::from_vec(bytes));
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) {
        return Err(D::Error::custom("a path must be absolute and without `..`"));
    }
    Ok(path)
}
