//! Field offsets and enumerators of the running kernel, from its BTF.
//!
//! Input: the bytes of `/sys/kernel/btf/vmlinux` (format: the kernel's Documentation/bpf/btf.rst, version 1). Output: numbers.
//! Nothing else of BTF is kept; parsing 5 MB takes about 20 ms and happens once.

use std::collections::HashMap;

/// Why BTF gave no answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF, cut short, or of a newer version.
    #[error("the kernel's BTF is not readable: {0}")]
    Malformed(&'static str),
    /// The kernel has no such structure or field.
    #[error("this kernel has no {0}: nitro-agent runs on Linux 6.1 and newer")]
    Missing(String),
}

/// Member of a structure: name offset, type, and offset in bits.
type Member = (u32, u32, u32);

struct Type {
    kind: u32,
    /// Offsets of members carry a bit-field size in their upper byte.
    packed: bool,
    name: u32,
    refers_to: u32,
    members: Vec<Member>,
}

/// The types of one kernel.
pub struct KernelTypes<'a> {
    names: &'a [u8],
    types: Vec<Type>,
    structures: HashMap<&'a [u8], u32>,
    enumerators: HashMap<&'a [u8], u32>,
}

const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;

impl<'a> KernelTypes<'a> {
    /// Parses BTF in native byte order.
    ///
    /// # Errors
    /// [`BtfError::Malformed`] when a header, a type or a name lies outside the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let word = |at: usize| -> Result<u32, BtfError> {
            let end = at.checked_add(4).ok_or(BtfError::Malformed("offset overflow"))?;
            let word = bytes.get(at..end).ok_or(BtfError::Malformed("cut short"))?;
            Ok(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        };
        if word(0)? & 0xffff != 0xeb9f {
            return Err(BtfError::Malformed("wrong magic number"));
        }
        let header = word(4)? as usize;
        let (types_at, types_len) = (header + word(8)? as usize, word(12)? as usize);
        let (names_at, names_len) = (header + word(16)? as usize, word(20)? as usize);
        let names = bytes
            .get(names_at..names_at + names_len)
            .ok_or(BtfError::Malformed("names cut short"))?;

        let void = Type {
            kind: 0,
            packed: false,
            name: 0,
            refers_to: 0,
            members: Vec::new(),
        };
        let mut found = Self {
            names,
            types: vec![void],
            structures: HashMap::new(),
            enumerators: HashMap::new(),
        };
        let (mut at, end) = (types_at, types_at + types_len);
        while at < end {
            let (name, info, refers_to) = (word(at)?, word(at + 4)?, word(at + 8)?);
            at += 12;
            let (kind, count, packed) = ((info >> 24) & 0x1f, (info & 0xffff) as usize, info >> 31 != 0);
            let mut members = Vec::new();
            let extra = match kind {
                STRUCT | UNION => {
                    for index in 0..count {
                        let member = at + index * 12;
                        members.push((word(member)?, word(member + 4)?, word(member + 8)?));
                    }
                    12 * count
                }
                ENUM => {
                    for index in 0..count {
                        let value = word(at + index * 8 + 4)?;
                        found
                            .enumerators
                            .entry(name_at(names, word(at + index * 8)?))
                            .or_insert(value);
                    }
                    8 * count
                }
                1 | 14 | 17 => 4,          // integer, variable, declaration tag
                3 => 12,                   // array
                13 => 8 * count,           // function prototype
                15 | 19 => 12 * count,     // data section, 64-bit enumeration
                2 | 7..=12 | 16 | 18 => 0, // pointer, forward, typedef, qualifiers, function, float, type tag
                _ => return Err(BtfError::Malformed("unknown kind of type")),
            };
            if kind == STRUCT && name != 0 {
                let index = u32::try_from(found.types.len()).map_err(|_| BtfError::Malformed("too many types"))?;
                found.structures.entry(name_at(names, name)).or_insert(index);
            }
            found.types.push(Type {
                kind,
                packed,
                name,
                refers_to,
                members,
            });
            at += extra;
        }
        Ok(found)
    }

    /// Offset in bytes of `field` in `structure`, through anonymous structures and unions.
    ///
    /// # Errors
    /// [`BtfError::Missing`] when this kernel has no such structure or field.
    pub fn offset(&self, structure: &str, field: &str) -> Result<u64, BtfError> {
        let missing = || BtfError::Missing(format!("{structure}.{field}"));
        let index = *self.structures.get(structure.as_bytes()).ok_or_else(missing)?;
        // Anonymous members nest a handful of times; the bound keeps a malformed cycle from looping.
        self.member(index, field.as_bytes(), 16)
            .map(u64::from)
            .ok_or_else(missing)
    }

    /// Value of an enumerator, whichever enumeration it is in.
    ///
    /// # Errors
    /// [`BtfError::Missing`] when there is none of that name.
    pub fn enumerator(&self, name: &str) -> Result<u32, BtfError> {
        self.enumerators
            .get(name.as_bytes())
            .copied()
            .ok_or_else(|| BtfError::Missing(name.to_owned()))
    }

    fn member(&self, index: u32, field: &[u8], depth: u32) -> Option<u32> {
        let structure = self.types.get(index as usize)?;
        for &(name, refers_to, bits) in &structure.members {
            let bytes = if structure.packed { bits & 0x00ff_ffff } else { bits } / 8;
            if name != 0 {
                if name_at(self.names, name) == field {
                    return Some(bytes);
                }
            } else if depth > 0 {
                let inner = self.unqualified(refers_to)?;
                if matches!(self.types.get(inner as usize)?.kind, STRUCT | UNION)
                    && let Some(offset) = self.member(inner, field, depth - 1)
                {
                    return Some(bytes + offset);
                }
            }
        }
        None
    }

    /// Follows typedefs and qualifiers.
    fn unqualified(&self, mut index: u32) -> Option<u32> {
        for _ in 0..32 {
            let found = self.types.get(index as usize)?;
            if !matches!(found.kind, 8..=11 | 18) {
                return Some(index);
            }
            index = found.refers_to;
        }
        None
    }
}

impl std::fmt::Debug for KernelTypes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = self.types.iter().filter(|found| found.name != 0).count();
        write!(f, "KernelTypes {{ {} types, {named} named }}", self.types.len())
    }
}

fn name_at(names: &[u8], offset: u32) -> &[u8] {
    let tail = names.get(offset as usize..).unwrap_or_default();
    tail.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_the_fields_we_patch() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            return eprintln!("skipped: this kernel was built without BTF");
        };
        let types = KernelTypes::parse(&bytes).unwrap();
        assert_eq!(types.offset("list_head", "prev"), Ok(8));
        for (_, structure, field) in nitro_common::settings::globals::OFFSETS {
            assert!(types.offset(structure, field).is_ok(), "{structure}.{field}");
        }
        assert!(types.enumerator("PG_head").is_ok());
        assert!(matches!(
            types.offset("inode", "no_such_field"),
            Err(BtfError::Missing(_))
        ));
    }

    #[test]
    fn bytes_that_are_not_btf_are_an_error() {
        assert!(KernelTypes::parse(b"").is_err());
        assert!(KernelTypes::parse(&[0x9f, 0xeb, 1, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]).is_err());
        let mut cut = std::fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
        cut.truncate(cut.len() / 2);
        assert!(KernelTypes::parse(&cut).is_err());
    }
}
