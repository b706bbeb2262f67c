//! A machine at work: started, listened to, and ended if it does not end by itself.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, SyncSender},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    image::Image,
    report::{Report, Scenario},
};

/// What the disk does in a second: slow enough for the agent to be ahead of an emulated reader.
const BYTES_PER_SECOND: u64 = 40 << 20;
/// In so many requests: fewer than a reader needs whom the kernel alone helps, so that help is of use.
const REQUESTS_PER_SECOND: u64 = 200;

/// All that can be emulated but `cmpxchg16b`, after which QEMU 7.2 (Debian 12) has wrong flags: kernels that use it crash (6.12 does so within seconds).
const PROCESSOR: &str = "max,-cx16";

/// MiB of memory: little, so that a load can be larger than half of it.
const MEMORY: &str = "512";

/// Bytes of a line; a longer one is several.
const LINE: u64 = 16 << 10;

/// Lines on their way; the machine waits when they are not taken.
const LINES: usize = 256;

/// A process that is ended with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots it and takes the results of its scenarios. `modes` are those of the agent that its kernel offers, the one that `auto` is to end with first; with `echo` what it
/// prints is printed, after that name.
pub fn run(image: &Image, modes: &[&str], limit: Duration, echo: Option<&str>) -> Result<Vec<Scenario>> {
    let drive = format!(
        "file={},format=raw,if=none,id=disk,throttling.bps-read={BYTES_PER_SECOND},throttling.iops-read={REQUESTS_PER_SECOND}",
        image.disk.0.to_string_lossy().replace(',', ",,")
    );
    // The last words are the first process's own.
    let words = format!(
        "console=ttyS0 panic=-1 quiet loglevel=3 rdinit=/bin/nitro-bench -- guest --modes {}",
        modes.join(",")
    );
    let mut command = tied("qemu-system-x86_64");
    // Processors that are emulated by a thread each run instructions that the other has just replaced: kernels that switch a tracepoint on or off while somebody is at it panic
    // on the breakpoint that was there a moment before.
    command
        .args([
            "-accel",
            "tcg,thread=single",
            "-cpu",
            PROCESSOR,
            "-smp",
            "2",
            "-m",
            MEMORY,
        ])
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
    let (tell, lines) = mpsc::sync_channel(LINES);
    let listener = std::thread::spawn(move || listen(output, &tell));
    let deadline = Instant::now() + limit;
    let mut report = Report::default();
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(name) = echo {
            eprintln!("{name}: {line}");
        }
        report.take(&line);
    }
    let in_time = Instant::now() < deadline;
    drop(lines);
    drop(machine);
    let _ = listener.join();
    Ok(report.finish(in_time))
}

/// A program that is killed when the thread that starts it ends, however that happens: nobody else would end a machine that nobody listens to.
fn tied(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Hands on what is printed, line by line, until its end or until nobody listens.
fn listen(output: impl Read, tell: &SyncSender<String>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        let read = output.by_ref().take(LINE).read_until(b'\n', &mut line);
        if !read.is_ok_and(|count| count > 0)
            || tell.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_an_end_is_not_kept_as_a_whole() {
        let (tell, lines) = mpsc::sync_channel(LINES);
        let endless = std::io::repeat(b'x').take(3 * LINE + 5);
        listen(endless.chain(&b"\nlast \xff\r\n"[..]), &tell);
        drop(tell);
        let lengths: Vec<_> = lines.iter().map(|line| line.chars().count()).collect();
        let line = LINE as usize;
        assert_eq!(lengths, [line, line, line, 5, 6]);
    }

    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = tied("sh");
            let mut child = command
                .args(["-c", "echo up; exec sleep 1000"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            output.read_line(&mut String::new()).unwrap();
            child
        })
        .join()
        .unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn listening_ends_when_nobody_hears() {
        let (tell, lines) = mpsc::sync_channel(1);
        drop(lines);
        listen(std::io::repeat(b'\n'), &tell);
    }
}
