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
    ("sim", &["sim", "engine", "catalog::model", "units"]),
    ("control", &["control", "engine::receipt", "sys", "units"]),
    ("config", &["sys", "units"]),
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
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if stage != "sys"
                && (code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl"))
            {
                wrong.push(format!("{name}:{}: unsafe outside sys/", number + 1));
            }
            for used in names_after_crate(code) {
                let fits = |rule: &str| rule == "*" || used == rule || used.starts_with(&format!("{rule}::"));
                if !allowed.iter().any(|rule| fits(rule)) {
                    wrong.push(format!("{name}:{}: {stage} must not use crate::{used}", number + 1));
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

/// `crate::a::b` in a line of code, as `a::b`; nested `crate::{a::x, b}` as `a::x` and `b`.
fn names_after_crate(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for tail in code.split("crate::").skip(1) {
        if let Some(list) = tail.strip_prefix('{') {
            // Only the first level decides which stage is meant.
            let mut depth = 0;
            let mut name = String::new();
            for letter in list.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                    _ if depth == 0 => name.push(letter),
                    _ => {}
                }
            }
            names.push(name);
        } else {
            names.push(
                tail.chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
                    .collect(),
            );
        }
    }
    names
        .iter()
        .map(|name| name.trim().trim_end_matches(':').to_owned())
        .filter(|name| !name.is_empty())
        .collect()
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
