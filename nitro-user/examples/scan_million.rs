//! Measures the scan: creates files, scans them in a process of its own, prints seconds and peak memory, removes them.
//!
//! `cargo run --release --example scan_million -- 1000000 [directory to create them in]`

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
    time::Instant,
};

use nitro_user::catalog::{Catalog, exclude::Exclude, open_roots};

/// Files in one directory.
const EACH: usize = 1000;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().unwrap_or_else(|| "1000000".into());
    let place = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let result = match first.to_str().map(str::parse) {
        Some(Ok(count)) => measure(count, &place),
        // A process of its own: the peak is that of the scan alone.
        _ if first == "scan" => scan(place),
        _ => Err(format!("{first:?} is not a number of files").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scan_million: {error}");
            ExitCode::FAILURE
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn measure(count: usize, place: &Path) -> Result<()> {
    let dir = tempfile::tempdir_in(place)?;
    let began = Instant::now();
    for number in 0..count {
        let below = dir.path().join(format!("{:04}", number / EACH));
        if number % EACH == 0 {
            std::fs::create_dir(&below)?;
        }
        File::create(below.join(format!("sample-{number:08}.safetensors")))?;
    }
    println!("created {count} files in {:.1} s", began.elapsed().as_secs_f64());
    for _ in 0..3 {
        let status = Command::new(std::env::current_exe()?)
            .arg("scan")
            .arg(dir.path())
            .status()?;
        if !status.success() {
            return Err("the scan failed".into());
        }
    }
    Ok(())
}

fn scan(root: PathBuf) -> Result<()> {
    let roots = open_roots(&[root], false)?;
    let began = Instant::now();
    let (catalog, report) = Catalog::scan(&roots, Arc::default(), Exclude::default());
    let took = began.elapsed();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or("?")
            .trim()
            .to_owned()
    };
    println!(
        "{} files, {} directories in {:.2} s; peak {}, now {}",
        report.files,
        report.directories,
        took.as_secs_f64(),
        value("VmHWM:"),
        value("VmRSS:"),
    );
    drop(catalog);
    Ok(())
}
