//! The control socket without the agent around it: its bounds, and who sees what. Needs no root, but for the test that becomes
//! somebody else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod orders;
mod rig;

use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
    time::Duration,
};

use nitro_user::{
    catalog::model::LayoutKind,
    control::{
        Server,
        client::{Client, ClientError},
        protocol::{Code, End, Reply, Request},
        server::Limits,
        socket::claim,
    },
    engine::{
        evidence::Evidence,
        receipt::{ReaderKind, Receipt},
    },
    observe::{
        history::{BEHIND, Kept},
        status::Status,
    },
    trace::{Frame, FrameReader},
    units::{ByteCount, Moment},
};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use rig::Rig;

/// Long enough for anything that happens at all.
const SOON: Duration = Duration::from_secs(20);

fn kept(pid: u32, user: Option<u32>) -> Kept {
    let receipt = Receipt {
        model: format!("model-{pid}"),
        layout: LayoutKind::Single,
        program: Some("cat".into()),
        pids: vec![pid],
        user,
        device: (8, 0),
        reader: ReaderKind::Buffered,
        pattern: None,
        inferred: false,
        evidence: Evidence::Progress,
        demanded: ByteCount(1 << 20),
        resident_before: ByteCount(0),
        brought_before: ByteCount(0),
        kernel_readahead: ByteCount(0),
        warmed_in_time: ByteCount(1 << 20),
        warmed_late: ByteCount(0),
        missed: ByteCount(0),
        wasted: ByteCount(0),
        seconds: 0.5,
        saved: None,
        calls: 1,
        evidence_to_first_warm_us: None,
        skipped: vec![],
        began: Moment(0),
        ended: Moment(1),
    };
    Kept { time: 1.0, receipt }
}

fn short() -> Limits {
    Limits {
        connections: 4,
        request: Duration::from_millis(200),
        write: SOON,
        answer: SOON,
    }
}

fn code(answer: &str) -> Code {
    match serde_json::from_str(answer.lines().last().unwrap()).unwrap() {
        Reply::Error(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

async fn status(client: &mut Client) -> Status {
    client.ask(&Request::Status).await.unwrap();
    match client.next().await.unwrap() {
        Reply::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

async fn next_pid(client: &mut Client) -> u32 {
    match client.next().await.unwrap() {
        Reply::Receipt(kept) => kept.receipt.pids[0],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let rig = Rig::new(Limits::default());
    rig.keep(kept(1, None));
    let mut client = rig.client().await;
    assert_eq!(status(&mut client).await.roots, ["/models"]);
    client.ask(&Request::Loads { follow: false }).await.unwrap();
    assert_eq!(next_pid(&mut client).await, 1);
    assert_eq!(client.next().await.unwrap(), Reply::End(End::Complete));
    assert_eq!(status(&mut client).await.roots, ["/models"]);
}

#[tokio::test]
async fn a_follower_hears_what_was_what_comes_and_the_end() {
    let mut rig = Rig::new(Limits::default());
    rig.keep(kept(1, None));
    let mut client = rig.client().await;
    client.ask(&Request::Loads { follow: true }).await.unwrap();
    assert_eq!(next_pid(&mut client).await, 1);
    rig.keep(kept(2, None));
    assert_eq!(next_pid(&mut client).await, 2);
    rig.server.take().unwrap().stop(SOON).await;
    assert_eq!(client.next().await.unwrap(), Reply::End(End::Stopping));
    assert!(!rig.path().exists());
}

#[tokio::test]
async fn a_slow_follower_is_told_what_it_lost_and_holds_nobody_up() {
    let rig = Rig::new(Limits::default());
    let mut slow = rig.client().await;
    slow.ask(&Request::Loads { follow: true }).await.unwrap();
    let mut quick = rig.client().await;
    quick.ask(&Request::Loads { follow: true }).await.unwrap();
    // Far more than the socket's buffers and the ring hold together.
    let many = 64 * BEHIND as u32;
    let long = "x".repeat(4096);
    for pid in 0..many {
        let mut kept = kept(pid, None);
        kept.receipt.model = long.clone();
        rig.keep(kept);
        assert_eq!(next_pid(&mut quick).await, pid);
    }
    let mut heard = 0;
    let refusal = loop {
        match timeout(SOON, slow.next()).await.unwrap() {
            Ok(Reply::Receipt(_)) => heard += 1,
            Err(ClientError::Refused { refusal, .. }) => break refusal,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refusal.code, Code::TooSlow);
    assert!(heard < many);
    assert!(matches!(slow.next().await, Err(ClientError::Ended { .. })));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let limits = Limits {
        write: Duration::from_millis(100),
        connections: 1,
        ..Limits::default()
    };
    let rig = Rig::new(limits);
    let long = "x".repeat(8192);
    for pid in 0..256 {
        let mut kept = kept(pid, None);
        kept.receipt.model = long.clone();
        rig.keep(kept);
    }
    let mut stuck = rig.client().await;
    stuck.ask(&Request::Loads { follow: false }).await.unwrap();
    // Its place comes free without its doing anything.
    let served = async {
        loop {
            let mut other = rig.client().await;
            other.ask(&Request::Status).await.unwrap();
            if other.next().await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, served).await.unwrap();
}

#[tokio::test]
async fn faults_are_answered_and_end_the_connection() {
    let rig = Rig::new(Limits::default());
    for (line, expected) in [
        ("hello\n", Code::Malformed),
        ("{\"version\":9,\"request\":\"status\"}\n", Code::Version),
        ("{\"version\":1,\"request\":\"dance\"}\n", Code::Unknown),
    ] {
        assert_eq!(code(&rig.raw(line.as_bytes()).await), expected, "{line}");
    }
    let endless = vec![b'{'; 1 << 20];
    assert_eq!(code(&rig.raw(&endless).await), Code::TooLong);
    status(&mut rig.client().await).await;
}

#[tokio::test]
async fn a_client_that_asks_nothing_is_told_and_closed() {
    let rig = Rig::new(short());
    assert_eq!(code(&rig.raw(b"").await), Code::Timeout);
    assert_eq!(code(&rig.raw(b"{\"version\":1,").await), Code::Timeout);
}

#[tokio::test]
async fn more_clients_than_places_are_told_so_and_places_come_free() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let rig = Rig::new(limits);
    let mut first = rig.client().await;
    let mut second = rig.client().await;
    for client in [&mut first, &mut second] {
        client.ask(&Request::Loads { follow: true }).await.unwrap();
    }
    rig.keep(kept(1, None));
    assert_eq!(next_pid(&mut first).await + next_pid(&mut second).await, 2);
    let mut third = rig.client().await;
    third.ask(&Request::Status).await.unwrap();
    match third.next().await {
        Err(ClientError::Refused { refusal, .. }) => assert_eq!(refusal.code, Code::TooMany),
        other => panic!("{other:?}"),
    }
    // A follower that goes frees its place although no receipt comes.
    drop(first);
    let served = async {
        loop {
            let mut client = rig.client().await;
            client.ask(&Request::Status).await.unwrap();
            if client.next().await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, served).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let limits = Limits {
        answer: Duration::from_millis(50),
        ..Limits::default()
    };
    let (_server, _queries) = Server::start(claim(&path, None).unwrap(), limits).unwrap();
    let mut client = Client::connect(&path).await.unwrap();
    client.ask(&Request::Status).await.unwrap();
    match client.next().await {
        Err(ClientError::Refused { refusal, .. }) => assert_eq!(refusal.code, Code::Busy),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_recording_comes_in_frames_and_its_rest_after_the_client_has_closed() {
    let rig = Rig::new(Limits::default());
    let mut client = rig.client().await;
    client.ask(&Request::Record { rate: 9 }).await.unwrap();
    assert_eq!(client.next().await.unwrap(), Reply::Recording);
    let (mut frames, mut writer) = client.into_stream();
    let mut bytes = vec![0; Frame::pack(&9u64.to_le_bytes()).unwrap().bytes().len()];
    frames.read_exact(&mut bytes).await.unwrap();
    writer.shutdown().await.unwrap();
    frames.read_to_end(&mut bytes).await.unwrap();
    let mut frames = FrameReader::new(&*bytes);
    let mut next = || frames.next_frame().unwrap().map(|frame| frame.unpack().unwrap());
    assert_eq!(next().unwrap(), 9u64.to_le_bytes());
    assert_eq!(next().unwrap(), [7], "the number of the recording that was to end");
    assert_eq!(next(), None);
}

#[test]
fn no_bytes_end_the_server() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap();
    let rig = runtime.block_on(async { Rig::new(short()) });
    proptest!(ProptestConfig::with_cases(48), |(mut bytes in proptest::collection::vec(any::<u8>(), 0..300))| {
        bytes.push(b'\n');
        runtime.block_on(async {
            let answer = rig.raw(&bytes).await;
            assert_ne!(code(&answer), Code::Busy);
        });
    });
    runtime.block_on(async { status(&mut rig.client().await).await });
}

#[tokio::test]
async fn a_second_agent_is_told_who_has_the_socket() {
    let rig = Rig::new(Limits::default());
    let path = rig.path();
    let error = tokio::task::spawn_blocking(move || claim(&path, None).unwrap_err());
    let error = error.await.unwrap().to_string();
    let who = format!("another agent (pid {}, watching /models) has", std::process::id());
    assert!(error.contains(&who), "{error}");
    status(&mut rig.client().await).await;
}

#[tokio::test]
async fn no_agent_is_an_error_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let error = Client::connect(&folder.path().join("s")).await.unwrap_err();
    assert!(matches!(error, ClientError::NoAgent { .. }));
    assert!(error.to_string().contains("start one with"), "{error}");
}

/// Others see their own loads and receipts: asked as `nobody`, which takes root.
#[tokio::test]
async fn others_see_only_their_own() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "in CI this test must run as root");
        eprintln!("skipped: takes root, to become somebody else");
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let group = nix::unistd::Group::from_gid(nobody.gid).unwrap().unwrap();
    let uid = nobody.uid.as_raw();
    let rig = Rig::with(Limits::default(), Some(&group.name));
    rig.keep(kept(1, Some(0)));
    rig.keep(kept(2, Some(uid)));
    rig.keep(kept(3, None));
    // Where anybody may go, whatever the directory of the build.
    std::fs::set_permissions(rig.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let agent = rig.folder.path().join("nitro-agent");
    std::fs::copy(env!("CARGO_BIN_EXE_nitro-agent"), &agent).unwrap();

    let ask = |user: u32, subcommand: &'static str| {
        let mut command = Command::new(&agent);
        command.args([subcommand, "--json", "--socket"]).arg(rig.path());
        command.uid(user).gid(nobody.gid.as_raw()).current_dir("/");
        async move {
            let output = tokio::task::spawn_blocking(move || command.output())
                .await
                .unwrap()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.collect::<Vec<serde_json::Value>>()
        }
    };
    let pids = |lines: &[serde_json::Value]| {
        lines
            .iter()
            .map(|line| line["pids"][0].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(pids(&ask(0, "loads").await), [1, 2, 3]);
    assert_eq!(pids(&ask(uid, "loads").await), [2]);
    assert_eq!(ask(0, "status").await[0]["loads"].as_array().unwrap().len(), 3);
    let own = ask(uid, "status").await;
    assert_eq!(own[0]["loads"].as_array().unwrap().len(), 1);
    assert_eq!(own[0]["loads"][0]["user"], 65_534);

    let out = "/proc/no-such-place";
    for words in [
        ["pause", "1s"].as_slice(),
        &["resume"],
        &["unwatch", "/models"],
        &["trace", "record", "--out", out],
    ] {
        let mut command = Command::new(&agent);
        command.args(words).arg("--socket").arg(rig.path());
        command.uid(uid).gid(nobody.gid.as_raw()).current_dir("/");
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && said.contains("only root"),
            "{words:?}: {said}"
        );
    }
}
