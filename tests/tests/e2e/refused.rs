//! A store that is its user's alone: root is refused, and warms through the descriptors of those who read.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use nix::mount::{MntFlags, umount2};
use rig::{
    agent::{Agent, AgentProcess},
    scratch::ScratchDir,
    store::StoreArgs,
    tracefs::Tracefs,
    tree::gguf,
};

use super::{
    bed::{Bed, MIB, SOON, assert_adds_up, base, binary, cool, held, number, receipt, scenario, until, warmed},
    reader::StepReader,
    steps::Done,
    stores::Remote,
};

/// Any user but root.
const USER: u32 = 1000;

/// What the agent says where it is refused.
const REFUSED: &str = "root is refused at";

/// A store that nobody but [`USER`] may look at.
fn private(bed: &Bed) -> Remote {
    private_and_slow(bed, 10.0)
}

/// The same, and each read takes so many milliseconds.
fn private_and_slow(bed: &Bed, latency: f64) -> Remote {
    let remote = Remote::new(bed, |args: &mut StoreArgs| {
        args.latency = latency;
        args.private = true;
        args.user = Some(USER);
    });
    let refused = std::fs::read_dir(remote.store.path()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    remote
}

/// A copy of this program where every user may run it.
struct Program {
    path: PathBuf,
    _scratch: ScratchDir,
}

impl Program {
    fn new() -> Self {
        let scratch = ScratchDir::new(&base()).unwrap();
        let path = scratch.path().join("reader");
        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        Self {
            path,
            _scratch: scratch,
        }
    }

    fn reader(&self, path: &Path) -> StepReader {
        let mut reader = StepReader::of_user(USER, &self.path);
        reader.open(path);
        reader
    }
}

/// The only file of the bed, and what is in it.
fn model(bed: &Bed, mib: u64) -> Done {
    let tree = gguf::single(&bed.dir("models"), "model", 1, mib * MIB).unwrap();
    StepReader::of(&tree.files[0], None).read_to_end(MIB)
}

/// Nothing of the store is held open, so that its user can unmount it.
fn assert_can_be_unmounted(agent: &AgentProcess, store: &Path) {
    let pid = agent.pid().unwrap();
    until("nothing of the store is held open", || held(pid, store) == 0);
    umount2(store, MntFlags::empty()).unwrap();
}

#[test]
fn a_mapping_of_a_store_that_refuses_root_is_warmed_through_its_reader() {
    scenario(256, |bed| {
        let truth = model(bed, 96);
        let size = truth.bytes;
        let program = Program::new();
        let time = |helped: bool| {
            let remote = private(bed);
            let (store, models) = (remote.store.path(), remote.store.path().join("models"));
            let agent = helped.then(|| Agent::new(&binary(), &models).start(None).unwrap());
            if let Some(agent) = &agent {
                let line = agent.wait_for_line(SOON, |line| line.contains(REFUSED)).unwrap();
                assert!(line.contains(&*models.to_string_lossy()), "{line}");
                let status = agent.ask("status").unwrap();
                assert_eq!(status["directories"][0]["refused"], true, "{status:#}");
            }
            let mut reader = program.reader(&models.join("model.gguf"));
            reader.step("map");
            let began = Instant::now();
            let touched = reader.step(&format!("touch 0 {size}"));
            let took = began.elapsed().as_secs_f64();
            assert_eq!(touched, truth);
            let pid = reader.end();
            if let Some(agent) = agent {
                let receipt = receipt(&agent, pid);
                assert_adds_up(&receipt);
                assert!(warmed(&receipt) > size / 2, "{receipt:#}");
                assert_eq!(number(&receipt, "demanded"), truth.bytes, "{receipt:#}");
                assert_eq!(receipt["program"], "reader", "{receipt:#}");
                assert_can_be_unmounted(&agent, store);
                assert!(agent.stop().unwrap().status.success());
            }
            took
        };
        let (alone, helped) = (time(false), time(true));
        assert!(alone > 1.5 * helped, "{alone:.1} s alone, {helped:.1} s with help");
    });
}

#[test]
fn reads_are_warmed_in_other_modes_and_by_a_service_and_their_position_stays() {
    let _tracefs = Tracefs::mounted().unwrap();
    scenario(256, |bed| {
        let truth = model(bed, 64);
        let program = Program::new();
        for (mode, is_service) in [("page-cache", true), ("syscalls", false)] {
            let remote = private(bed);
            let mut agent = Agent::new(&binary(), remote.store.path()).arg("--events").arg(mode);
            if is_service {
                // Without root, and another than the reader.
                agent = agent.as_service(USER + 1);
            }
            let agent = agent.start(None).unwrap();
            let mut reader = program.reader(&remote.store.path().join("models/model.gguf"));
            assert_eq!(reader.read_to_end(MIB), truth, "{mode}");
            let receipt = receipt(&agent, reader.end());
            assert_adds_up(&receipt);
            assert!(warmed(&receipt) > truth.bytes / 2, "{mode}: {receipt:#}");
            assert_eq!(number(&receipt, "demanded"), truth.bytes, "{mode}: {receipt:#}");
            assert_can_be_unmounted(&agent, remote.store.path());
        }
    });
}

#[test]
fn a_reader_that_closes_its_file_or_is_killed_does_no_harm() {
    scenario(256, |bed| {
        let truth = model(bed, 64);
        let program = Program::new();
        let remote = private(bed);
        let weights = remote.store.path().join("models/model.gguf");
        let agent = Agent::new(&binary(), remote.store.path()).start(None).unwrap();
        let mut closes = program.reader(&weights);
        closes.read(8 * MIB, MIB);
        closes.step("close");
        let mut killed = program.reader(&weights);
        killed.read(4 * MIB, MIB);
        killed.begin(&format!("read {} {MIB}", 1u64 << 40));
        drop(killed);
        let mut reads = program.reader(&weights);
        assert_eq!(reads.read_to_end(MIB), truth);
        reads.end();
        closes.end();
        assert_can_be_unmounted(&agent, remote.store.path());
        assert!(agent.stop().unwrap().status.success());
    });
}

#[test]
fn a_loader_that_reads_the_header_and_closes_the_file_it_has_mapped_is_helped() {
    scenario(256, |bed| {
        let truth = model(bed, 32);
        let program = Program::new();
        let remote = private_and_slow(bed, 50.0);
        let agent = Agent::new(&binary(), remote.store.path()).start(None).unwrap();
        let mut reader = program.reader(&remote.store.path().join("models/model.gguf"));
        reader.step("pread 0 4096");
        reader.step("map");
        reader.step("unopen");
        assert_eq!(reader.step(&format!("touch 0 {}", truth.bytes)), truth);
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        assert!(warmed(&receipt) > truth.bytes / 2, "{receipt:#}");
        assert_can_be_unmounted(&agent, remote.store.path());
    });
}

#[test]
fn a_loader_that_closes_the_file_before_it_touches_it_is_left_alone_with_a_word() {
    scenario(256, |bed| {
        let truth = model(bed, 16);
        let program = Program::new();
        let remote = private(bed);
        let agent = Agent::new(&binary(), remote.store.path()).start(None).unwrap();
        let mut reader = program.reader(&remote.store.path().join("models/model.gguf"));
        reader.step("map");
        reader.step("unopen");
        assert_eq!(reader.step(&format!("touch 0 {}", truth.bytes)), truth);
        let pid = reader.end();
        let said = format!("process {pid} reads a file where root is refused");
        assert!(agent.wait_for_line(SOON, |line| line.contains(&said)).is_some());
    });
}

#[test]
fn a_store_that_is_mounted_later_below_a_watched_directory_is_watched_until_it_goes() {
    scenario(256, |bed| {
        let truth = model(bed, 64);
        let program = Program::new();
        let agent = Agent::new(&binary(), &base()).arg("--exclude").arg("reader");
        let agent = agent.start(None).unwrap();
        for _ in 0..2 {
            let remote = private(bed);
            let mount = remote.store.path().to_string_lossy().into_owned();
            let said = |line: &str| line.contains(REFUSED) && line.contains(&mount);
            assert!(agent.wait_for_line(SOON, said).is_some());
            let mut reader = program.reader(&remote.store.path().join("models/model.gguf"));
            assert_eq!(reader.read_to_end(MIB), truth);
            let receipt = receipt(&agent, reader.end());
            assert!(warmed(&receipt) > truth.bytes / 2, "{receipt:#}");
            assert_can_be_unmounted(&agent, remote.store.path());
        }
    });
}

#[test]
fn a_store_that_refuses_root_and_stalls_holds_up_no_other_load_nor_the_end() {
    scenario(512, |bed| {
        model(bed, 64);
        let near = gguf::single(&bed.dir("near"), "near", 2, 128 * MIB).unwrap();
        let near = &near.files[0];
        let program = Program::new();
        let remote = private(bed);
        let weights = remote.store.path().join("models/model.gguf");
        cool(near);
        bed.limit(200);
        let agent = Agent::new(&binary(), &bed.dir("near"));
        let agent = bed.start(agent.arg("--watch").arg(remote.store.path()));
        let mut far = program.reader(&weights);
        far.read(8 * MIB, MIB);
        let pid = agent.pid().unwrap();
        until("the far one is helped", || held(pid, remote.store.path()) > 0);
        remote.store.stall();
        far.begin(&format!("read {} {MIB}", 1u64 << 40));
        let mut reader = bed.reader(near);
        reader.read_to_end(MIB);
        let receipt = receipt(&agent, reader.end());
        assert_adds_up(&receipt);
        assert!(warmed(&receipt) > 64 * MIB, "{receipt:#}");
        assert!(agent.stop().unwrap().status.success());
        remote.store.go_on();
        far.finish().unwrap();
    });
}
