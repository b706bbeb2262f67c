//! A trace in a file: the magic bytes, then frames; the first holds the header as JSON.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{
    FRAME, MAGIC, VERSION,
    decode::Decoder,
    encode::Encoder,
    frame::{Frame, FrameError, FrameReader},
    record::{Header, Record},
};
use crate::units::printable;

/// Why a trace cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It has another beginning.
    #[error("{0} is no trace: give a file that `nitro-agent trace record` wrote")]
    NoTrace(String),
    /// Nothing of it is there but its beginning.
    #[error("{0} holds nothing: its recording ended before it had begun")]
    Empty(String),
    /// It is of another version.
    #[error("{path} is of format {format}, this nitro-agent reads {VERSION}: use the one that recorded it ({agent})")]
    Version {
        /// The file.
        path: String,
        /// Its format.
        format: u32,
        /// The agent that wrote it.
        agent: String,
    },
    /// A file of this name is there.
    #[error("{0} exists: give --out another name, or remove it")]
    Exists(String),
    /// Reading or writing failed.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

fn name_of(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// Where a trace ends before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tear {
    /// Bytes of the file that could be read.
    pub at: u64,
    /// What is wrong there.
    pub why: String,
}

/// A trace that is being read: its records, one after the other. What is behind a tear is not read.
pub struct TraceReader<R> {
    path: String,
    header: Header,
    frames: FrameReader<R>,
    decoder: Decoder,
    records: std::vec::IntoIter<Record>,
    tear: Option<Tear>,
    done: bool,
}

/// A trace in a file.
pub type Opened = TraceReader<BufReader<File>>;

impl Opened {
    /// Opens a trace.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(|source| TraceError::Io {
            operation: "open",
            path: name_of(path),
            source,
        })?;
        Self::new(BufReader::with_capacity(FRAME, file), name_of(path))
    }
}

impl<R: Read> TraceReader<R> {
    /// Reads a trace from `input`, which is called `path`.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn new(mut input: R, path: String) -> Result<Self, TraceError> {
        let mut magic = Vec::new();
        let read = input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic);
        if let Err(source) = read {
            let operation = "read";
            return Err(TraceError::Io {
                operation,
                path,
                source,
            });
        }
        if magic != MAGIC {
            return Err(TraceError::NoTrace(path));
        }
        let mut frames = FrameReader::new(input);
        let header = match frames.next_frame() {
            Ok(Some(frame)) => frame.unpack(),
            Ok(None) | Err(FrameError::Cut) => return Err(TraceError::Empty(path)),
            Err(error) => Err(error),
        };
        let header = header
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Header>(&bytes).ok());
        let header = header.ok_or_else(|| TraceError::NoTrace(path.clone()))?;
        if header.format != VERSION {
            return Err(TraceError::Version {
                path,
                format: header.format,
                agent: printable(&header.agent),
            });
        }
        Ok(Self {
            path,
            header,
            frames,
            decoder: Decoder::default(),
            records: Vec::new().into_iter(),
            tear: None,
            done: false,
        })
    }

    /// What holds for the whole trace.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What it is called.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where it ends before its end; known once the last record was read.
    pub const fn tear(&self) -> Option<&Tear> {
        self.tear.as_ref()
    }

    fn torn(&mut self, why: String) {
        self.done = true;
        let at = MAGIC.len() as u64 + self.frames.position();
        self.tear = Some(Tear { at, why });
    }

    fn next_frame(&mut self) -> Option<Vec<Record>> {
        let bytes = match self.frames.next_frame() {
            Ok(Some(frame)) => frame.unpack(),
            Ok(None) => {
                self.done = true;
                return None;
            }
            Err(error) => Err(error),
        };
        let mut records = Vec::new();
        match bytes {
            Ok(bytes) => match self.decoder.read(&bytes, &mut records) {
                Ok(()) => {}
                Err(error) => self.torn(error.to_string()),
            },
            Err(error) => self.torn(error.to_string()),
        }
        Some(records)
    }
}

impl<R: Read> Iterator for TraceReader<R> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            if let Some(record) = self.records.next() {
                return Some(record);
            }
            if self.done {
                return None;
            }
            self.records = self.next_frame()?.into_iter();
        }
    }
}

/// A trace that is being written. What was written stays, whatever happens then.
#[derive(Debug)]
pub struct TraceWriter {
    path: String,
    file: File,
    encoder: Encoder,
    written: u64,
}

impl TraceWriter {
    /// Makes the file, which must not exist, for its owner alone: it holds the paths of everybody's files.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn create(path: &Path, header: &Header) -> Result<Self, TraceError> {
        let made = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path);
        let path = name_of(path);
        let file = match made {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(TraceError::Exists(path)),
            Err(source) => {
                let operation = "make";
                return Err(TraceError::Io {
                    operation,
                    path,
                    source,
                });
            }
        };
        let mut writer = Self {
            path,
            file,
            encoder: Encoder::default(),
            written: 0,
        };
        let Some(head) = header_frame(header) else {
            return Err(writer.failed(io::Error::other("its header is too long")));
        };
        writer.append(&MAGIC)?;
        writer.append(head.bytes())?;
        Ok(writer)
    }

    /// Bytes of the file so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Writes a record, soon.
    ///
    /// # Errors
    /// [`TraceError::Io`].
    pub fn record(&mut self, record: &Record) -> Result<(), TraceError> {
        self.encoder.write(record);
        if self.encoder.len() >= FRAME {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes what is to be written.
    ///
    /// # Errors
    /// [`TraceError::Io`].
    pub fn flush(&mut self) -> Result<(), TraceError> {
        if self.encoder.len() == 0 {
            return Ok(());
        }
        let bytes = self.encoder.take();
        match Frame::pack(&bytes) {
            Some(frame) => self.append(frame.bytes()),
            None => Err(self.failed(io::Error::other("a record is too long"))),
        }
    }

    /// Writes the rest, down to the device.
    ///
    /// # Errors
    /// [`TraceError::Io`].
    pub fn finish(mut self) -> Result<u64, TraceError> {
        self.flush()?;
        match self.file.sync_all() {
            Ok(()) => Ok(self.written),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.written += bytes.len() as u64;
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, source: io::Error) -> TraceError {
        TraceError::Io {
            operation: "write",
            path: self.path.clone(),
            source,
        }
    }
}

/// The header in the first frame; `None` where it is none.
pub fn header_of(frame: &Frame) -> Option<Header> {
    serde_json::from_slice(&frame.unpack().ok()?).ok()
}

/// The first frame; `None` where it would be longer than a frame may be.
pub(super) fn header_frame(header: &Header) -> Option<Frame> {
    Frame::pack(&serde_json::to_vec(header).ok()?)
}
