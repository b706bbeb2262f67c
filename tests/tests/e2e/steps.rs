//! The reading side: steps in words from standard input, each answered by a line on standard output.
//!
//! A process of its own, since the agent does not look at its own accesses, and one that stops where it is told, so that a test can look at
//! the page cache while a load is half done. Paths come in hexadecimal and over the pipe: as arguments they would announce the load.
//!
//! One step per line: `open PATH`, `direct PATH` (`O_DIRECT`), `read BYTES BLOCK` (onwards from where it is), `digest BYTES BLOCK` (the same with a millisecond of work for each MiB), `seek OFFSET`, `pread OFFSET BYTES`,
//! `map`, `populate`, `touch START END` (in the mapping), `random` (no readahead of the kernel), `ahead START END` (readahead(2) by the reader itself), `hop SECONDS THREADS` (4 KiB reads far apart, as fast as
//! possible), `unopen` (closes the file and keeps the mapping), `close`. The answer is `@ BYTES CHECKSUM`, or `! ERROR`.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{BufRead, Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStringExt,
        fs::{FileExt, OpenOptionsExt},
    },
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use memmap2::Mmap;
use rig::sys::map_file;

/// The environment variable that makes the test binary a reader.
pub const TOLD: &str = "NITRO_E2E_READER";

/// Begins every answer: the test harness writes to the same pipe.
pub const ANSWER: &str = "@ ";
/// Begins every answer that tells of a failure.
pub const FAILED: &str = "! ";

/// Carries out the steps, if this process was told to.
pub fn run_if_told() {
    if std::env::var_os(TOLD).is_none() {
        return;
    }
    let mut reader = StepReader::default();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let answer = match reader.step(&line) {
            Ok(done) => format!("{ANSWER}{} {}", done.bytes, done.checksum),
            Err(error) => format!("{FAILED}{line}: {error:#}"),
        };
        let mut out = std::io::stdout().lock();
        // Nobody there to read it: the test has ended.
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// What a step read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Bytes.
    pub bytes: u64,
    /// Of all of them and their places, whatever the order and the way of reading.
    pub checksum: u64,
}

impl Done {
    /// Adds what was read at `position`, a multiple of eight.
    pub fn add(&mut self, bytes: &[u8], position: u64) {
        let words = bytes.chunks(8).enumerate().map(|(index, chunk)| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let place = position / 8 + index as u64;
            (u64::from_le_bytes(word) ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                .wrapping_mul(0x2545_f491_4f6c_dd1d | 1)
        });
        self.checksum = words.fold(self.checksum, |sum, word| sum.wrapping_add(word ^ word >> 29));
        self.bytes += bytes.len() as u64;
    }
}

/// What `digest` does with each MiB.
const DIGESTION: Duration = Duration::from_millis(1);

#[derive(Default)]
struct StepReader {
    file: Option<File>,
    map: Option<Mmap>,
}

impl StepReader {
    fn step(&mut self, line: &str) -> Result<Done> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| -> Result<u64> {
            words
                .get(index)
                .context("a number is missing")?
                .parse()
                .context(line.to_owned())
        };
        let mut done = Done::default();
        match words[0] {
            "open" => self.file = Some(File::open(path(words[1])?)?),
            "direct" => {
                self.file = Some(
                    OpenOptions::new()
                        .read(true)
                        .custom_flags(libc::O_DIRECT)
                        .open(path(words[1])?)?,
                )
            }
            "seek" => {
                self.file()?.seek(SeekFrom::Start(number(1)?))?;
            }
            "read" => {
                let (bytes, block) = (number(1)?, number(2)?);
                self.read(bytes, block as usize, None, &mut done)?;
            }
            "digest" => {
                let (bytes, block) = (number(1)?, number(2)?);
                self.read(bytes, block as usize, Some(DIGESTION), &mut done)?;
            }
            "pread" => {
                let mut buffer = vec![0; number(2)? as usize];
                let count = self.file()?.read_at(&mut buffer, number(1)?)?;
                done.add(&buffer[..count], number(1)?);
            }
            "map" => self.map = Some(map_file(self.file()?, false)?),
            "populate" => self.map = Some(map_file(self.file()?, true)?),
            "touch" => {
                let map = self.map.as_ref().context("nothing is mapped")?;
                let end = number(2)?.min(map.len() as u64) as usize;
                let mut at = number(1)? as usize;
                while at < end {
                    let next = (at + 4096).min(end);
                    done.add(&map[at..next], at as u64);
                    at = next;
                }
            }
            "ahead" => {
                for start in (number(1)?..number(2)?).step_by(1 << 20) {
                    rig::sys::readahead(self.file()?, start, 1 << 20)?;
                }
            }
            "random" => {
                nix::fcntl::posix_fadvise(&*self.file()?, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_RANDOM)?
            }
            "hop" => done = hop(self.file()?, Duration::from_secs(number(1)?), number(2)?)?,
            "close" => *self = Self::default(),
            "unopen" => self.file = None,
            other => bail!("no such step: {other}"),
        }
        Ok(done)
    }

    fn file(&mut self) -> Result<&mut File> {
        self.file.as_mut().context("no file is open")
    }

    fn read(&mut self, bytes: u64, block: usize, pause: Option<Duration>, done: &mut Done) -> Result<()> {
        // Room to begin at a page: O_DIRECT wants it.
        let mut room = vec![0; block + 4096];
        let skip = room.as_ptr().align_offset(4096);
        let file = self.file()?;
        let mut position = file.stream_position()?;
        let end = position + bytes;
        while position < end {
            let most = block.min((end - position) as usize);
            let buffer = &mut room[skip..skip + most];
            let count = file.read(buffer)?;
            if count == 0 {
                break;
            }
            done.add(&buffer[..count], position);
            if let Some(pause) = pause
                && (position + count as u64) >> 20 > position >> 20
            {
                std::thread::sleep(pause);
            }
            position += count as u64;
        }
        Ok(())
    }
}

/// Threads that read a page here and a page far away, as fast as they can.
fn hop(file: &File, time: Duration, threads: u64) -> Result<Done> {
    let length = file.metadata()?.len();
    let end = Instant::now() + time;
    let reads = |thread: u64| -> Result<u64> {
        let (mut buffer, mut count) = ([0; 4096], 0u64);
        while Instant::now() < end {
            // Odd steps apart, so that every read is another step of 2 MiB than the one before.
            let offset = ((count * 37 + thread * 11) * (2 << 20) + (count % 512) * 4096) % (length - 4096);
            file.read_exact_at(&mut buffer, offset)?;
            count += 1;
        }
        Ok(count)
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || reads(thread))).collect();
        let mut done = Done::default();
        for one in all {
            let count = one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            done.bytes += count * 4096;
        }
        Ok(done)
    })
}

fn path(hex: &str) -> Result<PathBuf> {
    let digits = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    Ok(PathBuf::from(OsString::from_vec(digits.collect::<Result<Vec<u8>>>()?)))
}
