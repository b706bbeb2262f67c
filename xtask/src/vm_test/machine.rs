//! A machine at work: started, listened to, and ended if it does not end by itself.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::image::Image;

/// Begins the lines that the scenarios print; the same in `tests/src/guest`.
const MARK: &str = "vm-test:";

/// What the disk does in a second: slow enough for the agent to be ahead of an emulated reader.
const BYTES_PER_SECOND: u64 = 40 << 20;

/// How a scenario ended.
pub struct Scenario {
    /// Its name.
    pub scenario: String,
    /// Whether it held.
    pub ok: bool,
    /// What there is to say.
    pub words: String,
}

/// A process that is ended with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots it and takes the results of its scenarios.
pub fn run(image: &Image, auto: &str, limit: Duration, verbose: bool) -> Result<Vec<Scenario>> {
    let drive = format!(
        "file={},format=raw,if=none,id=disk,throttling.bps-read={BYTES_PER_SECOND}",
        image.disk.to_string_lossy().replace(',', ",,")
    );
    // The last words are the first process's own.
    let words = format!("console=ttyS0 panic=-1 quiet loglevel=3 rdinit=/bin/nitro-bench -- guest --auto {auto}");
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initramfs)
        .args(["-append", &words])
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut machine = Ended(command.spawn().context("cannot start qemu-system-x86_64")?);
    let output = machine.0.stdout.take().context("the machine has an output")?;
    let (tell, lines) = mpsc::channel();
    let listener = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if tell.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let (mut results, mut last, mut ended) = (Vec::new(), Vec::new(), false);
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if verbose {
            eprintln!("{line}");
        }
        match line.split_once(MARK).map(|(_, rest)| rest.trim()) {
            Some("end") => ended = true,
            Some(result) => results.extend(parse(result)),
            None => last.push(line),
        }
    }
    let in_time = Instant::now() < deadline;
    drop(machine);
    let _ = listener.join();
    if !ended && results.iter().all(|result| result.ok) {
        let how = if in_time { "ended early" } else { "did not end in time" };
        bail!(
            "the machine {how}; its last lines:\n{}",
            last[last.len().saturating_sub(30)..].join("\n")
        );
    }
    Ok(results)
}

/// `NAME | ok | words`.
fn parse(line: &str) -> Option<Scenario> {
    let mut fields = line.splitn(3, " | ");
    let scenario = fields.next()?.to_owned();
    let ok = fields.next()? == "ok";
    Some(Scenario {
        scenario,
        ok,
        words: fields.next().unwrap_or_default().to_owned(),
    })
}
