//! Writing to a pipe or a terminal that may take nothing for a while, without waiting for it.
//!
//! In: lines, from whoever must not block. Out: the same lines, written by a thread. Overflow policy: a line that finds [`WAITING`] others waiting is
//! dropped; once there is room again, one line says how many were. A reader that has gone ends nothing: its lines go nowhere.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    time::Duration,
};

/// Lines that may wait.
const WAITING: usize = 4096;

/// How long the end of the program waits for the last lines to be taken.
const LAST_LINES: Duration = Duration::from_millis(200);

/// A writing thread. Dropping it waits for what was written, for a moment.
#[derive(Debug)]
pub struct Outlet {
    lines: Option<SyncSender<Vec<u8>>>,
    done: Receiver<()>,
    dropped: u64,
    lost: fn(u64) -> String,
}

impl Outlet {
    /// Writes to `to`; `lost` words how many lines were dropped. Without a thread to be had every line is lost.
    pub fn new(to: impl Write + Send + 'static, lost: fn(u64) -> String) -> Self {
        let (lines, inbox) = sync_channel(WAITING);
        let (tell, done) = channel();
        let thread = std::thread::Builder::new().name("nitro-print".into());
        let started = thread.spawn(move || write_all(to, &inbox, &tell));
        Self {
            lines: started.is_ok().then_some(lines),
            done,
            dropped: 0,
            lost,
        }
    }

    /// Writes a line; never waits.
    pub fn line(&mut self, line: &str) {
        let Some(lines) = &self.lines else { return };
        if self.dropped > 0 && lines.try_send(bytes(&(self.lost)(self.dropped))).is_ok() {
            self.dropped = 0;
        }
        if self.dropped > 0 || lines.try_send(bytes(line)).is_err() {
            self.dropped += 1;
        }
    }

    /// Takes no more lines, and waits for those taken, for a moment.
    pub fn end(&mut self) {
        if self.lines.take().is_some() {
            // Nothing is ever sent: either the thread ends, or time runs out.
            let _ = self.done.recv_timeout(LAST_LINES);
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends when the outlet does; `_done` tells by being dropped.
fn write_all(mut to: impl Write, inbox: &Receiver<Vec<u8>>, _done: &Sender<()>) {
    while let Ok(line) = inbox.recv() {
        // Nobody reads: the program's work goes on.
        let _: io::Result<()> = to.write_all(&line).and_then(|()| to.flush());
    }
}

fn bytes(line: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixStream,
        sync::{Arc, Mutex},
        time::Instant,
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_last_line_is_written_before_the_end() {
        let kept = Kept::default();
        let mut outlet = Outlet::new(kept.clone(), |_| String::new());
        outlet.line("one");
        outlet.line("two");
        drop(outlet);
        assert_eq!(*kept.0.lock().unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_nobody_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let began = Instant::now();
        let mut outlet = Outlet::new(ours, |lost| format!("{lost} lost"));
        let long = "x".repeat(1000);
        for _ in 0..WAITING * 2 {
            outlet.line(&long);
        }
        assert!(outlet.dropped > 0);
        drop(outlet);
        assert!(began.elapsed() < Duration::from_secs(5));
        drop(theirs);
    }

    #[test]
    fn a_reader_that_has_gone_ends_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut outlet = Outlet::new(ours, |lost| format!("{lost} lost"));
        for _ in 0..100 {
            outlet.line("nobody hears");
        }
    }
}
