//! The direction of imports: a stage knows the value types of the stages before it, never their machinery.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::workspace::top;

/// For each module of nitro-user: what it may name with `crate::`. `sys` alone may use `unsafe`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("sys", &["units"]),
    ("catalog", &["catalog", "sys", "units"]),
    ("source", &["source", "sys", "units"]),
    // Where directories may be, and why: what is done about it is the daemon's.
    ("discover", &["discover", "sys", "units"]),
    // Pure: values of the catalog and of the wire, nothing that could do anything.
    ("engine", &["engine", "catalog::model", "units"]),
    (
        "warm",
        &[
            "warm",
            "engine::action",
            "engine::input",
            "catalog::model",
            "sys",
            "units",
        ],
    ),
    // Values that the engine hands out; for its tests also the filter that it works behind.
    (
        "state",
        &[
            "state",
            "engine::learn::row",
            "engine::plan::device",
            "catalog::model",
            "sys::filter",
            "units",
        ],
    ),
    ("sim", &["sim", "engine", "catalog::model", "units"]),
    // Values of what happened; for its tests also what a receipt is made of.
    (
        "observe",
        &[
            "observe",
            "engine::receipt",
            "engine::evidence",
            "catalog::model",
            "units",
        ],
    ),
    (
        "replay",
        &["replay", "engine", "sim", "trace", "catalog::model", "units"],
    ),
    // Values of what happened, written down.
    (
        "trace",
        &[
            "trace",
            "engine::input",
            "engine::action",
            "engine::learn::row",
            "engine::retain::settings",
            "engine::receipt",
            "engine::plan::device",
            "catalog::model",
            "sys::top",
            "units",
        ],
    ),
    // It passes values on and answers clients: no stage of the agent is within its reach.
    (
        "control",
        &[
            "control",
            "observe",
            "trace",
            "engine::receipt",
            "engine::order",
            "engine::explanation",
            "sys",
            "units",
        ],
    ),
    // It looks at the machine and at the stages' ways to the kernel, and does none of their work.
    (
        "doctor",
        &["doctor", "catalog::stores", "discover", "source", "sys", "units"],
    ),
    (
        "config",
        &[
            "catalog::exclude",
            "engine::retain::settings",
            "source::attach",
            "sys",
            "units",
        ],
    ),
    // It knows the agent as a program; nobody uses it but `cli`, and the tests.
    ("bench", &["bench", "sys", "units"]),
    ("daemon", &["*"]),
    ("cli", &["*"]),
];

/// Fails with a line for every import against the direction, and for every `unsafe` outside `sys`.
pub fn run() -> Result<()> {
    let source = top().join("nitro-user/src");
    let rules: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    collect(&source, &mut files)?;
    for path in &files {
        let name = path.strip_prefix(&source)?.to_string_lossy().into_owned();
        if matches!(name.as_str(), "lib.rs" | "main.rs") {
            continue;
        }
        let stage = name
            .split('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs")
            .to_owned();
        let Some(allowed) = rules.get(stage.as_str()) else {
            wrong.push(format!("{name}: the stage {stage} has no rule in xtask/src/layers.rs"));
            continue;
        };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let code: String = text.lines().map(|line| code_of(line) + "\n").collect();
        for (number, line) in code.lines().enumerate() {
            if stage != "sys"
                && (line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"))
            {
                wrong.push(format!("{name}:{}: unsafe outside sys/", number + 1));
            }
        }
        for (at, _) in code.match_indices("crate::") {
            for used in paths(&code[at + "crate::".len()..]) {
                let fits = |rule: &str| rule == "*" || used == rule || used.starts_with(&format!("{rule}::"));
                if !allowed.iter().any(|rule| fits(rule)) {
                    let line = code[..at].matches('\n').count() + 1;
                    wrong.push(format!("{name}:{line}: {stage} must not use crate::{used}"));
                }
            }
        }
    }
    if !wrong.is_empty() {
        bail!(
            "imports against the direction of ARCHITECTURE.md:\n{}",
            wrong.join("\n")
        );
    }
    println!("{} files import in the right direction", files.len());
    Ok(())
}

/// A line without its comment.
fn code_of(line: &str) -> String {
    line.split("//").next().unwrap_or_default().to_owned()
}

/// The paths that a use tree or a path starts with: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let mut found = Vec::new();
    // What is before each brace that is open, and what has been read since the last one or the last comma.
    let (mut prefixes, mut name) = (Vec::<String>::new(), String::new());
    for letter in tree.chars() {
        match letter {
            '{' => {
                let outer = prefixes.last().map_or("", String::as_str);
                prefixes.push(format!("{outer}{name}"));
                name.clear();
            }
            ',' | '}' if !prefixes.is_empty() => {
                let outer = prefixes.last().map_or("", String::as_str);
                if !name.is_empty() {
                    found.push(format!("{outer}{name}"));
                }
                name.clear();
                if letter == '}' {
                    prefixes.pop();
                    if prefixes.is_empty() {
                        break;
                    }
                }
            }
            letter if letter.is_alphanumeric() || letter == '_' || letter == ':' => name.push(letter),
            '*' => {}
            letter if letter.is_whitespace() && !prefixes.is_empty() => {
                // `as` renames what has been named: the new name says nothing.
                if !name.is_empty() && !name.ends_with(':') {
                    name.push(' ');
                }
            }
            _ => break,
        }
    }
    if prefixes.is_empty() && !name.is_empty() {
        found.push(name);
    }
    let clean = |path: String| {
        path.split(' ')
            .next()
            .unwrap_or_default()
            .trim_end_matches(':')
            .to_owned()
    };
    found.into_iter().map(clean).collect()
}

fn collect(folder: &Path, into: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push(path);
        }
    }
    into.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn a_use_tree_is_all_its_paths() {
        assert_eq!(paths("units::ByteCount;"), ["units::ByteCount"]);
        assert_eq!(paths("units::printable(name)"), ["units::printable"]);
        assert_eq!(
            paths("{\n    a::{B, c::D},\n    e::*,\n    f,\n};\nuse other::{x}"),
            ["a::B", "a::c::D", "e", "f"]
        );
        assert_eq!(paths("{a::b as c, d}"), ["a::b", "d"]);
    }
}
