//! `nitro-agent prove`: the user's own command, with the agent and without.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::{
    ask::{Socket, print},
    model, running,
};
use crate::{
    bench::{
        prove::{
            self, Claim, Proof,
            command::{Output, OwnCommand},
            files,
        },
        report::interval,
        sweep,
        verdict::{FEWEST, times},
    },
    units::{ByteCount, printable},
};

/// Flags of `prove`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent prove /srv/models/llama.gguf -- llama-cli -m /srv/models/llama.gguf -n 1 -p hello
  sudo nitro-agent prove llama3:8b --runs 9 -- sh -c 'ollama run llama3:8b hello; ollama stop llama3:8b'
  sudo nitro-agent prove ~/.cache/huggingface/hub/models--org--name -- python3 load.py

The command is run as whoever called sudo, once without being counted, once from memory, and then in pairs. Before each run of a pair the pages of these files, and of no others,
leave the page cache; nothing is written. It refuses where another process has them mapped, so that a model must be let go at the end of the command. What the command leaves running
is ended. An agent that runs is paused meanwhile.

The command is looked for in the PATH that sudo sets: for one that is elsewhere give its whole path, or run
  sudo env PATH=\"$PATH\" nitro-agent prove model.bin -- CMD

Exit code: 0 when all runs ended well, 1 otherwise, 130 after Ctrl-C.")]
pub struct Options {
    /// A file, a directory with everything below it, or a model as `nitro-agent loads` names it.
    #[arg(value_name = "FILE|DIR|MODEL")]
    what: PathBuf,
    /// Pairs of a run without the agent and one with it; fewer than 6 give a range and no verdict.
    #[arg(long, value_name = "N", default_value_t = FEWEST)]
    runs: usize,
    /// Where to look for MODEL, and a directory that the agent is to watch; repeatable. Without it models are looked for as --watch auto does, and the agent watches the files' own directories.
    #[arg(long, value_name = "DIR")]
    watch: Vec<PathBuf>,
    /// Let the command's output through; with --json to standard error.
    #[arg(long)]
    show_output: bool,
    /// One JSON object with every figure instead of the table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
    /// The command that loads them, with its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the pairs and prints what came of them.
///
/// # Errors
/// What stands in the way, or went wrong.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let done = measure(options);
    sweep::rest_if_interrupted();
    done
}

fn measure(options: &Options) -> anyhow::Result<()> {
    prove::check(options.runs)?;
    let output = match (options.show_output, options.json) {
        (false, _) => Output::Hidden,
        (true, false) => Output::Shown,
        (true, true) => Output::Aside,
    };
    let command = OwnCommand::new(&options.command, output)?;
    let meant = model::find(&options.what, &options.watch)?;
    let files = files::collect(&meant.paths)?;
    let watched = watched(&meant.paths, &meant.watch, &files)?;
    let claim = Claim {
        names: model::names(&watched, files.iter().map(|file| file.path.as_path()))?,
        watched,
        files,
        command,
        runs: options.runs,
    };
    let _prepared = sweep::prepare(&std::env::temp_dir())?;
    let paused = running::pause(&options.socket.socket)?;
    if let Some(paused) = &paused {
        sweep::say(&format!(
            "the agent that runs here (process {}) is paused meanwhile",
            paused.pid
        ));
    }
    let proof = prove::run(&claim)?;
    drop(paused);
    if options.json {
        print(&serde_json::to_string(&proof).context("the result as JSON")?)?;
        return Ok(());
    }
    show(&proof, &options.what)
}

/// Directories whose files are all that the command loads: those that were named, and those of files that links lead to.
fn watched(paths: &[PathBuf], given: &[PathBuf], files: &[files::OwnFile]) -> anyhow::Result<Vec<PathBuf>> {
    let mut watched = Vec::new();
    for path in given.iter().chain(paths) {
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot look at {}", path.display()))?;
        if path.is_dir() && !watched.contains(&path) {
            watched.push(path);
        }
    }
    for file in files {
        let parent = file.path.parent().unwrap_or(Path::new("/"));
        if !watched.iter().any(|dir| file.path.starts_with(dir)) {
            ensure!(
                parent != Path::new("/"),
                "{} is in /, and all of the machine's files would be watched for it: name a directory that it is seen in with --watch DIR, or move it into one",
                printable(&file.path.to_string_lossy())
            );
            watched.push(parent.to_owned());
        }
    }
    Ok(watched)
}

fn show(proof: &Proof, what: &Path) -> anyhow::Result<()> {
    let mut lines = vec![
        proof.machine.clone(),
        format!(
            "{}: {} in {}; {}",
            printable(&what.to_string_lossy()),
            ByteCount(proof.bytes),
            match proof.files {
                1 => "one file".to_owned(),
                files => format!("{files} files"),
            },
            printable(&proof.command)
        ),
        format!(
            "runs {}; the agent watches {}",
            printable(&proof.program),
            printable(&proof.watched.join(", "))
        ),
        table(proof),
        limit(proof),
        format!(
            "from memory: {:.2} s; the agent brought in {}",
            proof.cached,
            ByteCount(proof.warmed)
        ),
    ];
    let faster = proof.verdict.faster;
    let (pairs, range) = (proof.with.len(), interval(faster));
    let range = match pairs {
        1 => "one pair".to_owned(),
        ..FEWEST => format!("range {range} of {pairs} pairs"),
        _ => format!("95 % interval {range}, {pairs} pairs"),
    };
    lines.push(format!("{} times as fast ({range})", times(faster.middle)));
    lines.extend(proof.notes.iter().map(|note| format!("note: {note}")));
    lines.push(String::new());
    lines.push(proof.verdict.sentence.clone());
    for line in lines {
        if !print(&line)? {
            break;
        }
    }
    Ok(())
}

fn table(proof: &Proof) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_header(["run", "without", "with the agent", "times as fast"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (run, (without, with)) in (1..).zip(proof.without.iter().zip(&proof.with)) {
        table.add_row([
            format!("{run}"),
            format!("{without:.2} s"),
            format!("{with:.2} s"),
            times(without / with),
        ]);
    }
    let middle = |summary: crate::bench::stats::Summary| format!("{:.2} ± {:.2} s", summary.median, summary.spread);
    table.add_row([
        "median".to_owned(),
        middle(proof.without_summary),
        middle(proof.with_summary),
        times(proof.verdict.faster.middle),
    ]);
    table.to_string()
}

fn limit(proof: &Proof) -> String {
    match (proof.device_rate, proof.limit) {
        (Some(rate), Some(limit)) => format!(
            "device limit: {rate} by O_DIRECT with eight requests at once, {limit:.2} s for the {} that the command reads",
            ByteCount(proof.read)
        ),
        (Some(rate), None) => format!("device limit: {rate} by O_DIRECT with eight requests at once"),
        (None, _) => "device limit: not known".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some file that is in / of this machine, if one is.
    fn in_root() -> Option<files::OwnFile> {
        let entries = std::fs::read_dir("/").ok()?.flatten();
        let plain = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        plain
            .filter_map(|entry| files::collect(&[entry.path()]).ok()?.pop())
            .next()
    }

    #[test]
    fn what_links_lead_to_is_watched_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("snapshot")).unwrap();
        std::fs::create_dir_all(root.join("blobs")).unwrap();
        std::fs::write(root.join("blobs/a"), "1").unwrap();
        std::fs::write(root.join("snapshot/b"), "22").unwrap();
        std::os::unix::fs::symlink("../blobs/a", root.join("snapshot/a")).unwrap();
        let files = files::collect(&[root.join("snapshot")]).unwrap();
        let dirs = watched(&[root.join("snapshot")], &[], &files).unwrap();
        assert_eq!(dirs, [root.join("snapshot"), root.join("blobs")]);
        let file = files::collect(&[root.join("blobs/a")]).unwrap();
        assert_eq!(
            watched(&[root.join("blobs/a")], &[], &file).unwrap(),
            [root.join("blobs")]
        );
        if let Some(file) = in_root() {
            let error = watched(std::slice::from_ref(&file.path), &[], std::slice::from_ref(&file))
                .unwrap_err()
                .to_string();
            assert!(error.contains("--watch"), "{error}");
        }
    }
}
