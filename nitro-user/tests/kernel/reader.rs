//! The reading side of the tests: steps in words, carried out with the very system calls that they name.
//!
//! One step per line: `open PATH`, `open-direct PATH`, `openat2 PATH`, `read LENGTH`, `pread OFFSET LENGTH`, `readv LENGTH COUNT`,
//! `preadv OFFSET LENGTH COUNT`, `preadv2 OFFSET LENGTH COUNT`, `sendfile OFFSET LENGTH` (`-` for the file's own position), `seek OFFSET`,
//! `mmap OFFSET LENGTH`, `populate OFFSET LENGTH`, `anonymous LENGTH`, `touch OFFSET` (in the last mapping), `random` (no readahead),
//! `drop`. Repeated with a prefix: `128 * read 131072`.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
};

/// The environment variable that makes the test binary a reader.
pub const STEPS: &str = "NITRO_TEST_READER";

/// A failed step ends the reader; the message names it.
fn checked(step: &str, result: i64) -> usize {
    usize::try_from(result).unwrap_or_else(|_| panic!("{step}: {}", std::io::Error::last_os_error()))
}

#[derive(Default)]
struct Reader {
    file: Option<OwnedFd>,
    mapping: Option<*mut u8>,
    /// Page-aligned room for what is read.
    room: Vec<u8>,
}

/// Carries the steps out, if this process was told any. Called by the test `reader_process` of each test binary.
pub fn run_if_told() {
    let Ok(steps) = std::env::var(STEPS) else { return };
    // A thread of its own: its end is not the end of the process.
    let thread = std::thread::spawn(move || {
        let mut reader = Reader::default();
        for line in steps.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (times, step) = match line.split_once(" * ") {
                Some((times, step)) => (times.parse().unwrap(), step),
                None => (1, line),
            };
            for _ in 0..times {
                reader.step(step);
            }
        }
    });
    thread.join().unwrap();
}

impl Reader {
    fn fd(&self) -> RawFd {
        self.file.as_ref().unwrap().as_raw_fd()
    }

    /// Page-aligned memory, as `O_DIRECT` wants it.
    fn room(&mut self, bytes: usize) -> *mut u8 {
        const PAGE: usize = 64 << 10;
        if self.room.len() < bytes + PAGE {
            self.room = vec![0; bytes + PAGE];
        }
        let skip = self.room.as_ptr().align_offset(PAGE);
        self.room[skip..].as_mut_ptr()
    }

    /// `count` pieces of `length` bytes, all in the same place.
    fn vectors(&mut self, length: usize, count: usize) -> Vec<libc::iovec> {
        let base = self.room(length).cast();
        let vector = libc::iovec {
            iov_base: base,
            iov_len: length,
        };
        vec![vector; count]
    }

    fn step(&mut self, step: &str) {
        let words: Vec<&str> = step.split(' ').collect();
        let number = |index: usize| words[index].parse::<usize>().unwrap();
        let offset = |index: usize| number(index) as libc::off_t;
        match words[0] {
            "open" => self.file = Some(File::open(words[1]).unwrap().into()),
            "open-direct" => {
                let mut options = OpenOptions::new();
                options.read(true).custom_flags(libc::O_DIRECT);
                self.file = Some(options.open(words[1]).unwrap().into());
            }
            "openat2" => {
                let path = CString::new(words[1]).unwrap();
                // SAFETY: a zeroed open_how is valid: flags O_RDONLY, nothing resolved in a special way.
                let how: libc::open_how = unsafe { std::mem::zeroed() };
                let size = size_of::<libc::open_how>();
                // SAFETY: the path ends in NUL and `how` lives during the call.
                let fd =
                    unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), &raw const how, size) };
                let fd = RawFd::try_from(checked(step, fd)).unwrap();
                // SAFETY: the kernel just gave this descriptor to nobody else.
                self.file = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
            "seek" => {
                // SAFETY: no memory is involved.
                let at = unsafe { libc::lseek(self.fd(), offset(1), libc::SEEK_SET) };
                checked(step, at);
            }
            "read" => {
                let room = self.room(number(1));
                // SAFETY: `room` holds that many bytes.
                let got = unsafe { libc::syscall(libc::SYS_read, self.fd(), room, number(1)) };
                checked(step, got);
            }
            "pread" => {
                let room = self.room(number(2));
                // SAFETY: `room` holds that many bytes.
                let got = unsafe { libc::syscall(libc::SYS_pread64, self.fd(), room, number(2), offset(1)) };
                checked(step, got);
            }
            "readv" => {
                let vectors = self.vectors(number(1), number(2));
                // SAFETY: each vector is of room that was just made.
                let got = unsafe { libc::syscall(libc::SYS_readv, self.fd(), vectors.as_ptr(), vectors.len()) };
                checked(step, got);
            }
            "preadv" | "preadv2" => {
                let vectors = self.vectors(number(2), number(3));
                let call = if words[0] == "preadv" {
                    libc::SYS_preadv
                } else {
                    libc::SYS_preadv2
                };
                // −1: the file's own position.
                let at: i64 = words[1].parse().unwrap();
                let (high, flags) = (0i64, 0i64);
                // SAFETY: as for readv; the upper half of the offset is unused on 64-bit machines.
                let got = unsafe { libc::syscall(call, self.fd(), vectors.as_ptr(), vectors.len(), at, high, flags) };
                checked(step, got);
            }
            "sendfile" => {
                let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
                let mut at = if words[1] == "-" { 0 } else { offset(1) };
                let at: *mut libc::off_t = if words[1] == "-" {
                    std::ptr::null_mut()
                } else {
                    &raw mut at
                };
                // SAFETY: `at` is null or lives during the call.
                let sent = unsafe { libc::syscall(libc::SYS_sendfile, null.as_raw_fd(), self.fd(), at, number(2)) };
                checked(step, sent);
            }
            "mmap" | "populate" => {
                let more = if words[0] == "populate" { libc::MAP_POPULATE } else { 0 };
                // SAFETY: a new mapping, at a place that the kernel chooses.
                let at = unsafe {
                    libc::mmap(
                        std::ptr::null_mut(),
                        number(2),
                        libc::PROT_READ,
                        libc::MAP_SHARED | more,
                        self.fd(),
                        offset(1),
                    )
                };
                assert_ne!(at, libc::MAP_FAILED, "{step}: {}", std::io::Error::last_os_error());
                self.mapping = Some(at.cast());
            }
            "anonymous" => {
                // A descriptor that means nothing here, as some programs pass it.
                let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                // SAFETY: a new mapping, at a place that the kernel chooses.
                let at = unsafe { libc::mmap(std::ptr::null_mut(), number(1), libc::PROT_READ, kind, self.fd(), 0) };
                assert_ne!(at, libc::MAP_FAILED, "{step}: {}", std::io::Error::last_os_error());
            }
            "touch" => {
                let mapping = self.mapping.unwrap();
                // SAFETY: the steps touch what they have mapped.
                unsafe { mapping.add(number(1)).read_volatile() };
            }
            "random" => self.advise(step, libc::POSIX_FADV_RANDOM),
            "drop" => self.advise(step, libc::POSIX_FADV_DONTNEED),
            _ => panic!("no such step: {step}"),
        }
    }

    fn advise(&self, step: &str, advice: i32) {
        // SAFETY: no memory is involved.
        let error = unsafe { libc::posix_fadvise(self.fd(), 0, 0, advice) };
        assert_eq!(error, 0, "{step}");
    }
}
