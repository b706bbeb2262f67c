use std::{path::Path, sync::mpsc::sync_channel, thread, time::Duration};

use tokio::sync::mpsc;

use super::*;
use crate::{
    catalog::model::{LayoutKind, Place},
    sys::stat::status_of,
    units::FileId,
};

/// A stream with one part, a file of `size` bytes in the page cache that the catalog believes to have `believed`.
struct Bench {
    path: tempfile::TempPath,
    model: Arc<Model>,
    commands: std::sync::mpsc::SyncSender<Command>,
    outcomes: mpsc::Receiver<Outcome>,
    thread: thread::JoinHandle<()>,
}

impl Bench {
    fn start(size: u64, believed: u64) -> Self {
        let mut file = tempfile::NamedTempFile::new_in(".").unwrap();
        let zeroes = vec![0; usize::try_from(size).unwrap()];
        io::Write::write_all(&mut file, &zeroes).unwrap();
        age(file.as_file());
        let status = status_of(file.as_file()).unwrap();
        let path = file.into_temp_path();
        let real = path.canonicalize().unwrap();
        let part = Part {
            file: FileId {
                device: status.st_dev,
                inode: status.inode,
            },
            size: believed,
            header: 0,
            place: Place {
                root: real.parent().unwrap().into(),
                below: Path::new(real.file_name().unwrap()).into(),
            },
            generation: 0,
            layer: None,
        };
        let model = Arc::new(Model {
            name: "m".into(),
            layout: LayoutKind::Single,
            observe_only: false,
            lent: false,
            changes_unseen: false,
            parts: vec![part],
        });
        let (commands, inbox) = sync_channel(8);
        let (tell, outcomes) = mpsc::channel(8);
        let stream = Stream {
            load: LoadId(1),
            commands: inbox,
            epoch: Arc::default(),
            outcomes: tell,
            quiet: Arc::default(),
            accountant: None,
            lenders: Lenders::default(),
        };
        let thread = thread::spawn(move || stream.run());
        Self {
            path,
            model,
            commands,
            outcomes,
            thread,
        }
    }

    fn warm(&mut self, step: u64) -> Outcome {
        let range = ByteRange::of_step(step, self.model.parts[0].size);
        let model = self.model.clone();
        let command = Command {
            model,
            part: 0,
            range,
            survey: false,
            speculative: false,
            reader: 0,
            charged: false,
            epoch: 0,
        };
        self.commands.send(command).unwrap();
        self.outcomes.blocking_recv().unwrap()
    }

    fn end(self) {
        drop(self.commands);
        self.thread.join().unwrap();
    }
}

/// Writes a file's pages out, and makes it look as if it had been at rest for long.
fn age(file: &std::fs::File) {
    file.sync_all().unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .unwrap();
}

#[test]
fn a_file_that_is_written_is_left_to_who_writes_it() {
    clock::begin();
    let mut bench = Bench::start(3 * STEP, 3 * STEP);
    thread::sleep(Duration::from_millis(20));
    let file = std::fs::File::options().write(true).open(&bench.path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], STEP).unwrap();
    assert_eq!(bench.warm(0).end, StepEnd::Written);
    age(&file);
    assert_eq!(bench.warm(0).end, StepEnd::Done);
    bench.end();
}

#[test]
fn a_file_of_another_size_than_the_catalog_said_is_stale() {
    for believed in [2 * STEP, 4 * STEP] {
        let mut bench = Bench::start(3 * STEP, believed);
        assert_eq!(bench.warm(0).end, StepEnd::Stale);
        bench.end();
    }
}

#[test]
fn a_file_that_is_truncated_under_a_stream_is_stale() {
    let mut bench = Bench::start(3 * STEP, 3 * STEP);
    assert_eq!(bench.warm(0).end, StepEnd::Done);
    nix::unistd::truncate(&*bench.path, i64::try_from(STEP + 1).unwrap()).unwrap();
    // Beyond the end, half beyond it, and before it.
    for step in [2, 1, 0] {
        assert_eq!(bench.warm(step).end, StepEnd::Stale);
    }
    bench.end();
}
