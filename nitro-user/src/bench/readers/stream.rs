//! Readers that copy into a buffer of their own.

use std::{fs::File, io::Read, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

use super::{Cap, Progress};
use crate::sys::measure::PAGE;

const REQUEST: usize = 1 << 20;

/// Reads each file to its end, then works for `cpu` before the next.
pub fn read(paths: &[PathBuf], cpu: Duration, cap: &Cap, progress: &mut Progress) -> Result<()> {
    let mut buffer = vec![0; REQUEST];
    for path in paths {
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut position = 0u64;
        loop {
            let count = file
                .read(&mut buffer)
                .with_context(|| format!("read {}", path.display()))?;
            if count == 0 {
                break;
            }
            progress.bytes += count as u64;
            progress.checksum = progress.checksum.wrapping_add(first_bytes(&buffer[..count], position));
            position += count as u64;
            if cap.reached() {
                progress.capped = true;
                return Ok(());
            }
        }
        work(cpu)?;
    }
    Ok(())
}

/// Sum of the bytes that begin a page of the file.
pub fn first_bytes(bytes: &[u8], position: u64) -> u64 {
    let first = (position.next_multiple_of(PAGE) - position) as usize;
    bytes
        .iter()
        .skip(first)
        .step_by(PAGE as usize)
        .map(|&byte| u64::from(byte))
        .sum()
}

/// Uses this much *processor* time: when the agent takes the processor, the work takes longer, and that is to be seen.
fn work(time: Duration) -> Result<()> {
    if time.is_zero() {
        return Ok(());
    }
    let used = || {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
            .map(Duration::from)
            .context("processor time of the thread")
    };
    let end = used()? + time;
    while used()? < end {
        std::hint::spin_loop();
    }
    Ok(())
}
