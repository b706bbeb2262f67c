//! `nitro-agent trace record`: asks an agent for everything that it is told, and writes it down.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::OwnedReadHalf,
    signal::unix::{SignalKind, signal},
    sync::mpsc::Sender,
    time::sleep,
};

use super::{
    calls::{Calls, Files},
    filter::{Filter, Wanted},
    observer::Observer,
    sink::{Piece, Plan, Sink, Written},
};
use crate::{
    cli::ask::Socket,
    control::{
        client::{Client, ClientError},
        protocol::{Reply, Request},
    },
    observe::status::Status,
    source::attach::EventChoice,
    sys::readiness,
    trace::{Frame, HEAD, RATE},
    units::{ByteCount, Size, printable},
};

/// What is on the ring of system calls is taken so often, also where nothing woke us.
const TURN: Duration = Duration::from_millis(100);

/// Flags of `trace record`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent trace record --out load.trace
  sudo nitro-agent trace record --out load.trace --watch ~/.ollama/models --seconds 60
  sudo nitro-agent trace record --out load.trace --program ollama --syscalls
  sudo nitro-agent trace record --out load.trace --pid 4711

With an agent running, what it sees is recorded, --watch leaves out all else, and what it warms is in the trace. Without one, this watches the directories
by itself and warms nothing; --watch is needed then. A recording ends with Ctrl-C, after --seconds, with the last process of --pid, or when the file is full.
A file that ends in the middle, after a crash, is read up to there.")]
pub struct Options {
    /// The file to write; it must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Record files below this directory only; repeatable.
    #[arg(long, value_name = "DIR")]
    watch: Vec<PathBuf>,
    /// Record what programs of this name do; repeatable. The name is that of ps -o comm.
    #[arg(long, value_name = "NAME")]
    program: Vec<String>,
    /// Record what this process does; repeatable.
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// End after so many seconds.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: Option<u64>,
    /// Also record every open, read and mmap by itself. All system calls on the machine get slower while it goes on; how much is printed.
    #[arg(long)]
    syscalls: bool,
    /// End when the file is so long.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    max_size: Size,
    /// Records per second at most; those beyond are counted and left out.
    #[arg(long, value_name = "N", default_value_t = RATE, value_parser = clap::value_parser!(u64).range(10..))]
    max_rate: u64,
    /// Where no agent runs: how accesses are seen, as for the agent.
    #[arg(long, value_name = "MODE", default_value = "auto")]
    events: String,
    #[command(flatten)]
    socket: Socket,
}

/// Records.
///
/// # Errors
/// No rights, no agent and nothing to watch, a file that cannot be written.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let Size::Bytes(most) = options.max_size else {
        bail!("--max-size takes a size such as 512MiB, no percentage");
    };
    if options.out.symlink_metadata().is_ok() {
        let out = printable(&options.out.to_string_lossy());
        bail!("{out} exists: give --out another name, or remove it");
    }
    options.events.parse::<EventChoice>().map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the event loop")?;
    let mut observer = None;
    let client = match runtime.block_on(Client::connect(&options.socket.socket)) {
        Err(ClientError::NoAgent { path, .. }) if options.watch.is_empty() => {
            bail!("no agent answers at {path}: say with --watch DIR what to record, or start one");
        }
        Err(ClientError::NoAgent { .. }) => {
            let own = observer.insert(Observer::start(&options.watch, &options.events)?);
            runtime.block_on(Client::connect(own.socket()))
        }
        other => other,
    };
    let told = runtime.block_on(record(client?, options, most, observer.is_some()));
    runtime.shutdown_background();
    told
}

async fn record(mut client: Client, options: &Options, most: ByteCount, is_ours: bool) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot take SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot take SIGTERM")?;
    let begun = Instant::now();
    client.ask(&Request::Status).await?;
    let Reply::Status(status) = client.next().await? else {
        bail!("the agent answered something else than was asked");
    };
    let mut calls = match options.syscalls {
        true => Some(calls(options, &status)?),
        false => None,
    };
    let plan = plan(options, most, is_ours)?;
    client.ask(&Request::Record { rate: options.max_rate }).await?;
    let Reply::Recording = client.next().await? else {
        bail!("the agent answered something else than was asked");
    };
    say_begun(options, &status, is_ours, calls.as_ref());
    let (sink, give) = Sink::start(plan)?;
    let (frames, mut writer) = client.into_stream();
    let mut passing = tokio::spawn(pass_on(frames, give.clone()));

    let end = sleep(Duration::from_secs(options.seconds.unwrap_or(u64::MAX / 4)));
    tokio::pin!(end);
    let ring = calls.as_ref().map(|calls| readiness::of(calls.as_fd())).transpose();
    let ring = ring.context("cannot wait for the event ring")?;
    let mut ending = false;
    let agent_ended = loop {
        let ready = async {
            match &ring {
                // Calls that woke nobody are there after a while all the same.
                Some(ring) => tokio::select! {
                    ready = ring.readable() => if let Ok(mut ready) = ready { ready.clear_ready() },
                    () = sleep(TURN) => {}
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What was to come of the agent has come, or the file takes no more.
            done = &mut passing => break !ending && done.is_ok_and(|wanted| wanted),
            // It was full, or could not be written, while nothing happened.
            () = give.closed() => break false,
            _ = interrupt.recv(), if !ending => ending = true,
            _ = terminate.recv(), if !ending => ending = true,
            () = &mut end, if !ending => ending = true,
            () = ready => {}
        }
        if let Some(calls) = &mut calls {
            let taken = calls.take();
            if !taken.is_empty() && give.send(Piece::Calls(taken)).await.is_err() {
                break false;
            }
        }
        if ending {
            // The agent hands over the rest.
            let _ = writer.shutdown().await;
        }
    };
    let dropped = calls.as_ref().map_or(0, Calls::dropped);
    drop(calls);
    drop(give);
    passing.abort();
    let mut written = tokio::task::spawn_blocking(move || sink.end())
        .await
        .context("the trace")??;
    written.loss.ring += dropped;
    say_ended(options, &written, begun.elapsed(), agent_ended);
    Ok(())
}

/// Passes frames on until there are none, which is true, or nobody takes them.
async fn pass_on(mut frames: BufReader<OwnedReadHalf>, give: Sender<Piece>) -> bool {
    let mut head = [0; HEAD];
    while frames.read_exact(&mut head).await.is_ok() {
        let Ok(rest) = Frame::rest_of(&head) else { return true };
        let mut bytes = Vec::from(head);
        let mut rest = (&mut frames).take(rest as u64);
        if rest.read_to_end(&mut bytes).await.is_err() {
            return true;
        }
        if give.send(Piece::Frame(Frame::of(bytes))).await.is_err() {
            return false;
        }
    }
    true
}

fn calls(options: &Options, status: &Status) -> anyhow::Result<Calls> {
    let directories = match options.watch.is_empty() {
        true => status.roots.iter().map(PathBuf::from).collect(),
        false => options.watch.clone(),
    };
    Calls::start(Files::below(&directories)?, status.pid)
}

fn plan(options: &Options, most: ByteCount, is_ours: bool) -> anyhow::Result<Plan> {
    // An agent of ours watches nothing else.
    let wanted = match options.watch.is_empty() || is_ours {
        true => None,
        false => Some(Wanted::new(&options.watch, Files::below(&options.watch)?.all())),
    };
    let directories = wanted.iter().flat_map(|_| &options.watch);
    Ok(Plan {
        out: options.out.clone(),
        directories: directories.map(|path| path.to_string_lossy().into_owned()).collect(),
        filter: Filter::new(&options.program, &options.pid, wanted),
        calls: options.syscalls,
        most: most.0,
    })
}

/// A line for people: standard output may be the trace's own.
fn say(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

fn say_begun(options: &Options, status: &Status, is_ours: bool, calls: Option<&Calls>) {
    let who = match is_ours {
        true => "warming nothing".to_owned(),
        false => format!("what the agent {} sees and does", status.pid),
    };
    let end = match options.seconds {
        Some(seconds) => format!("{seconds} s"),
        None if io::stdin().is_terminal() => "until Ctrl-C".to_owned(),
        None => "until SIGINT".to_owned(),
    };
    say(&format!(
        "recording to {}: {}, {} mode, {who}",
        shown(&options.out),
        end,
        status.mode
    ));
    if let Some(price) = calls.and_then(|calls| calls.price.as_ref()) {
        say(&format!(
            "every system call on this machine takes {price} longer meanwhile"
        ));
    }
}

fn say_ended(options: &Options, written: &Written, time: Duration, agent_ended: bool) {
    let calls = match written.calls {
        0 => String::new(),
        calls => format!(", {calls} system calls among them"),
    };
    say(&format!(
        "{}: {} in {:.1} s, {} records{calls}",
        shown(&options.out),
        ByteCount(written.bytes),
        time.as_secs_f64(),
        written.records
    ));
    if written.loss.sum() > 0 {
        let loss = written.loss;
        say(&format!(
            "missing: {} that the kernel had no room for, {} beyond --max-rate, {} that were not written in time",
            loss.ring, loss.rate, loss.slow
        ));
    }
    if written.is_full {
        say("ended since the file is as long as --max-size allows");
    }
    if written.is_over {
        say("ended with the last process of --pid");
    }
    if agent_ended {
        say("ended with the agent");
    }
}
