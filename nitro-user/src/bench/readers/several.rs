//! Readers that are in several places at once: one thread that goes round, many threads that share a file, processes that read the same model together.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};

use super::{Cap, Kind, Progress, Reader, stream::first_bytes};

/// Bytes of one read.
pub const PIECE: u64 = 128 << 10;

/// Places between which one thread goes round.
pub const CURSORS: u64 = 16;

/// Threads that take the next piece in turn, each with a descriptor of its own.
pub const THREADS: usize = 32;

/// Processes that read the whole model each.
pub const RANKS: usize = 8;

/// One thread reads a piece at each of [`CURSORS`] places of a file in turn.
pub fn cursors(paths: &[PathBuf], cap: &Cap, progress: &mut Progress) -> Result<()> {
    let mut buffer = vec![0; PIECE as usize];
    for path in paths {
        let (file, length) = open(path)?;
        let pieces = length.div_ceil(PIECE);
        let each = pieces.div_ceil(CURSORS);
        let places =
            (0..each).flat_map(|turn| (0..CURSORS).map(move |cursor| (cursor * each + turn, (cursor + 1) * each)));
        for (piece, _) in places.filter(|&(piece, end)| piece < pieces.min(end)) {
            let count = read_piece(&file, path, piece * PIECE, length, &mut buffer)?;
            progress.bytes += count as u64;
            progress.checksum = progress
                .checksum
                .wrapping_add(first_bytes(&buffer[..count], piece * PIECE));
            if cap.reached() {
                progress.capped = true;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// [`THREADS`] threads take the next piece of a file in turn.
pub fn threads(paths: &[PathBuf], cap: &Cap, progress: &mut Progress) -> Result<()> {
    let (bytes, checksum, capped) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    for path in paths {
        let next = AtomicU64::new(0);
        let worker = || -> Result<()> {
            let (file, length) = open(path)?;
            let mut buffer = vec![0; PIECE as usize];
            loop {
                let at = next.fetch_add(PIECE, Ordering::Relaxed);
                if at >= length {
                    return Ok(());
                }
                let count = read_piece(&file, path, at, length, &mut buffer)?;
                bytes.fetch_add(count as u64, Ordering::Relaxed);
                checksum.fetch_add(first_bytes(&buffer[..count], at), Ordering::Relaxed);
                if cap.reached() {
                    capped.store(true, Ordering::Relaxed);
                    return Ok(());
                }
            }
        };
        thread::scope(|scope| -> Result<()> {
            let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
    }
    progress.bytes = bytes.into_inner();
    progress.checksum = checksum.into_inner();
    progress.capped = capped.into_inner();
    Ok(())
}

/// [`RANKS`] processes map and touch all files each. What one of them read counts once; it is over when the last is done.
pub fn ranks(paths: &[PathBuf], progress: &mut Progress) -> Result<()> {
    // A reader is a process of its own, so that this program is one that has the subcommand.
    let this = std::env::current_exe().context("path of this program")?;
    let rank = Reader::new(&this, Kind::Map, paths);
    let running = (0..RANKS).map(|_| rank.start(None)).collect::<Result<Vec<_>>>()?;
    for rank in running {
        let report = rank.wait()?;
        ensure!(
            progress.bytes == 0 || (progress.bytes, progress.checksum) == (report.bytes, report.checksum),
            "two ranks read different things"
        );
        (progress.bytes, progress.checksum) = (report.bytes, report.checksum);
    }
    Ok(())
}

fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let length = file
        .metadata()
        .with_context(|| format!("size of {}", path.display()))?
        .len();
    Ok((file, length))
}

fn read_piece(file: &File, path: &Path, at: u64, length: u64, buffer: &mut [u8]) -> Result<usize> {
    let count = (length - at).min(PIECE) as usize;
    file.read_exact_at(&mut buffer[..count], at)
        .with_context(|| format!("read {} at {at}", path.display()))?;
    Ok(count)
}
