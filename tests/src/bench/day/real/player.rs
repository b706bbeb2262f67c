//! One load of a day, as a process of its own: it reads the pieces that it is given, and says how long it took and what it found in the page cache.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Write as _,
    os::unix::{fs::FileExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use memmap2::{Advice, Mmap};
use nitro_user::{
    sys::page_cache,
    units::{ByteRange, STEP},
};
use serde::{Deserialize, Serialize};

use super::{
    super::{definition::How, record::Load},
    warmer::Notice,
};
use crate::{
    limit::IoLimit,
    sweep,
    sys::{self, PAGE},
};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "day-player";

/// What is read without a stop for work.
const AT_ONCE: u64 = 8 << 20;

/// What the hidden subcommand takes; what is read comes through standard input.
#[derive(Clone, Debug, Args)]
pub struct PlayerArgs {
    /// The name that it goes by.
    program: String,
    /// Where it tells what it does.
    #[arg(long)]
    tell: Option<PathBuf>,
    /// The model, for whoever reads command lines.
    model: Option<PathBuf>,
}

/// What is read, and how.
#[derive(Serialize, Deserialize)]
struct Order {
    how: How,
    think: u64,
    pause: u64,
    pieces: Vec<(PathBuf, u64, u64)>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Played {
    /// From the first open to the end.
    pub seconds: f64,
    /// Bytes read.
    pub bytes: u64,
    /// Of these, bytes that were in the page cache when it came to their step.
    pub there: u64,
    /// Bytes that it had the device read itself, the kernel's readahead for it included.
    pub itself: u64,
    /// Of first bytes of pages.
    pub checksum: u64,
}

/// A load to be started.
pub struct Player {
    program: PathBuf,
    name: String,
    model: Option<PathBuf>,
    order: Order,
}

impl Player {
    /// Of this load; `paths` are those of the day's files.
    pub fn new(program: &Path, load: &Load, paths: &[PathBuf]) -> Self {
        let pieces: Vec<_> = load
            .pieces
            .iter()
            .filter_map(|piece| Some((paths.get(piece.0)?.clone(), piece.1, piece.2)))
            .collect();
        Self {
            program: program.to_owned(),
            name: load.program.clone(),
            model: pieces.first().map(|piece| piece.0.clone()).filter(|_| load.announced),
            order: Order {
                how: load.how,
                think: load.think,
                pause: load.pause,
                pieces,
            },
        }
    }

    /// Starts it and waits for what came of it.
    pub fn run(&self, group: &IoLimit, tell: Option<&Path>) -> Result<Played> {
        let mut command = Command::new(&self.program);
        command.arg(SUBCOMMAND);
        if let Some(socket) = tell {
            command.arg("--tell").arg(socket);
        }
        command.arg("--").arg(&self.name).args(&self.model);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        sys::end_with_parent(&mut command);
        group.join(&mut command)?;
        let mut child = command.spawn().with_context(|| format!("start {}", self.name))?;
        let process = child.id();
        sweep::adopt(process);
        let order = serde_json::to_vec(&self.order).context("what is to be read")?;
        let written = child.stdin.take().map(|mut input| input.write_all(&order));
        let output = child.wait_with_output();
        sweep::disown(process);
        let output = output.with_context(|| format!("wait for {}", self.name))?;
        ensure!(output.status.success(), "{} failed: {}", self.name, output.status);
        written.transpose().context("tell a reader what to read")?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("what came of {}", self.name))
    }
}

/// A file that is read.
struct Opened {
    file: File,
    size: u64,
    map: Option<Mmap>,
}

/// Runs a load in this process.
///
/// # Errors
/// A file cannot be read.
pub fn play(args: &PlayerArgs) -> Result<Played> {
    fs::write("/proc/self/comm", &args.program).context("take a name")?;
    let order: Order = serde_json::from_reader(std::io::stdin()).context("what is to be read")?;
    let teller = match &args.tell {
        Some(path) => {
            let socket = UnixDatagram::unbound().context("a socket")?;
            socket
                .connect(path)
                .with_context(|| format!("connect to {}", path.display()))?;
            Some(socket)
        }
        None => None,
    };
    let mut opened: HashMap<&Path, Opened> = HashMap::new();
    let mut buffer = vec![0; 1 << 20];
    let mut played = Played::default();
    let began = Instant::now();
    for (path, start, end) in &order.pieces {
        let is_new = !opened.contains_key(path.as_path());
        if is_new {
            opened.insert(path, open(path, order.how)?);
        }
        let Some(file) = opened.get(path.as_path()) else {
            continue;
        };
        let (mut at, end) = (*start, (*end).min(file.size));
        let mut since_pause = 0;
        while at < end {
            let next = ((at / STEP + 1) * STEP).min(end);
            let range = ByteRange { start: at, end: next };
            if let Some(teller) = &teller {
                tell(teller, path, at, is_new && at == *start)?;
            }
            played.there += page_cache::resident(&file.file, range).context("what is in the page cache")?;
            played.checksum = played.checksum.wrapping_add(read(file, range, order.how, &mut buffer)?);
            played.bytes += range.len();
            since_pause += range.len();
            at = next;
            if since_pause >= AT_ONCE || at == end {
                work(&order, std::mem::take(&mut since_pause));
            }
        }
    }
    played.seconds = began.elapsed().as_secs_f64();
    played.itself = read_itself()?;
    Ok(played)
}

/// Bytes that this process had devices read (proc(5), `io`).
fn read_itself() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io").context("read /proc/self/io")?;
    let field = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    field
        .and_then(|bytes| bytes.parse().ok())
        .context("/proc/self/io has no read_bytes")
}

fn open(path: &Path, how: How) -> Result<Opened> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let size = file
        .metadata()
        .with_context(|| format!("size of {}", path.display()))?
        .len();
    let maps = matches!(how, How::Map | How::MapRandom | How::Populate);
    let map = maps.then(|| sys::map_file(&file, how == How::Populate));
    let map = map.transpose().with_context(|| format!("map {}", path.display()))?;
    if let Some(map) = map.as_ref().filter(|_| how == How::MapRandom) {
        map.advise(Advice::Random).context("MADV_RANDOM")?;
    }
    Ok(Opened { file, size, map })
}

fn tell(socket: &UnixDatagram, path: &Path, at: u64, is_opened: bool) -> Result<()> {
    let notice = Notice {
        process: std::process::id(),
        path: path.to_owned(),
        at,
        is_opened,
    };
    let text = serde_json::to_vec(&notice).context("a notice")?;
    socket.send(&text).map(drop).context("tell what is read")
}

/// Reads a range; the sum of the first bytes of its pages.
fn read(file: &Opened, range: ByteRange, how: How, buffer: &mut [u8]) -> Result<u64> {
    let mut sum = 0u64;
    if let Some(map) = &file.map {
        for page in (range.start..range.end).step_by(PAGE as usize) {
            sum = sum.wrapping_add(u64::from(map[page as usize]));
        }
        return Ok(sum);
    }
    let call = if how == How::ReadSmall { 128 << 10 } else { buffer.len() };
    let mut at = range.start;
    while at < range.end {
        let length = usize::try_from(range.end - at).unwrap_or(call).min(call);
        let part = &mut buffer[..length];
        file.file.read_exact_at(part, at).context("read")?;
        sum = part
            .iter()
            .step_by(PAGE as usize)
            .fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
        at += length as u64;
    }
    Ok(sum)
}

/// Works on so many bytes, and waits.
fn work(order: &Order, bytes: u64) {
    let share = bytes as f64 / (1 << 20) as f64;
    let until = Instant::now() + Duration::from_micros(order.think).mul_f64(share);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    let pause = Duration::from_micros(order.pause).mul_f64(share);
    if !pause.is_zero() {
        thread::sleep(pause);
    }
}
