//! `nitro-agent --watch DIR`, `--watch auto`: the agent itself, in the foreground.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::{ArgAction, Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::{
    outlet::Outlet,
    print::{Detail, Printer},
    text,
};
use crate::{
    catalog::exclude::{Exclude, Pattern},
    config::{Config, ConfigError, SOCKET, ceiling, charges_consumer, resolve_home},
    daemon::{self, rights},
    engine::retain::Settings,
    source::attach::EventChoice,
    sys::{memory, power},
    units::{ByteCount, Size},
};

/// Whose memory cgroup pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Charge {
    /// The one of the process that it is warmed for, never beyond what is left there.
    Consumer,
    /// The agent's.
    Agent,
}

/// Flags of the agent.
#[derive(Debug, Args)]
pub struct Options {
    /// Directory to watch; repeatable. `auto` finds those of Ollama, Hugging Face, llama.cpp, LM Studio and others; a directory of that name is ./auto.
    #[arg(long, value_name = "DIR")]
    watch: Vec<PathBuf>,
    /// Ceiling for all that was warmed and nobody used yet: 8GiB, 512M, 25%.
    #[arg(long, value_name = "SIZE|PERCENT", default_value = "50%")]
    memory: Size,
    /// Warm nothing while less than this of the machine's memory is available (MemAvailable): 2GiB, 10%.
    #[arg(long, value_name = "SIZE|PERCENT", default_value = "5%")]
    reserve: Size,
    /// Lock the models that are used most into memory, so much of them at most; inside --memory: 20GiB, 25%.
    #[arg(long, value_name = "SIZE|PERCENT", default_value = "0")]
    pin: Size,
    /// A use of a model counts half after this time: 6h, 2d.
    #[arg(long, value_name = "TIME", default_value = "6h")]
    half_life: humantime::Duration,
    /// Lock a model that was used so often, earlier uses counting less.
    #[arg(long, value_name = "USES", default_value_t = 0.9)]
    pin_above: f64,
    /// Let a locked model go when its uses have faded to less than this.
    #[arg(long, value_name = "USES", default_value_t = 0.25)]
    unpin_below: f64,
    /// Bring the models that were used most in when the agent starts, while nothing else uses the disk; --pin does so too.
    #[arg(long)]
    rewarm: bool,
    /// Under memory pressure, leave pages in the page cache whose readers have copied them into memory of their own.
    #[arg(long)]
    keep_after_copy: bool,
    /// Leave this share of the loads without help, so that receipts can say what help saves: 0.05, 5%.
    #[arg(long, value_name = "SHARE", default_value = "0")]
    holdout: String,
    /// How accesses are seen: auto, page-cache (Linux 6.12), fentry (before), syscalls, fanotify (without eBPF).
    #[arg(long, value_name = "MODE", default_value = "auto")]
    events: EventChoice,
    /// Predict and print, warm nothing.
    #[arg(long)]
    dry_run: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// Leave out what this pattern matches below the directories; repeatable. One without a slash is matched with names (*.tmp), one with a slash with paths
    /// below a directory (old/**).
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<Pattern>,
    /// Neither help nor count what this program reads; repeatable. The name is that of ps -o comm.
    #[arg(long, value_name = "NAME")]
    ignore_program: Vec<String>,
    /// Help below this directory also where reading is paid for by use or fetches from tape (object stores and drives mounted with rclone, gcsfuse, s3fs, JuiceFS
    /// and the like), which is only observed otherwise; repeatable.
    #[arg(long, value_name = "DIR")]
    fetch: Vec<PathBuf>,
    /// Whose memory cgroup pays for what is warmed. By default the agent's; inside Kubernetes the consumer's.
    #[arg(long, value_enum, value_name = "WHO")]
    charge: Option<Charge>,
    /// Wait for directories that do not exist yet.
    #[arg(long)]
    wait: bool,
    /// Directory for what survives a restart.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nitro-agent")]
    state: PathBuf,
    /// Control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// Let this group use the control socket too.
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<String>,
    /// More detail; twice for debugging. RUST_LOG goes first.
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Errors only.
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

/// Runs the agent until a signal.
///
/// # Errors
/// What keeps it from starting, or ends it.
pub fn run(options: Options) -> anyhow::Result<()> {
    if options.watch.is_empty() {
        return Err(ConfigError::NoRoots.into());
    }
    let ceiling = ceiling(options.memory)?;
    let retain = retention(&options, ceiling)?;
    let named = options.watch.iter().filter(|path| !is_auto(path));
    let config = Config {
        roots: named.map(|path| resolve_home(path)).collect(),
        auto: options.watch.iter().any(|path| is_auto(path)),
        ceiling,
        reserve: options.reserve.of(memory::total()),
        events: options.events,
        dry_run: options.dry_run,
        exclude: Exclude::new(&options.exclude)?,
        ignored_programs: options.ignore_program,
        charge_consumer: options
            .charge
            .map_or_else(charges_consumer, |charge| charge == Charge::Consumer),
        retain,
        holdout: share(&options.holdout)?,
        fetch: options
            .fetch
            .iter()
            .map(|path| {
                let path = resolve_home(path);
                path.canonicalize().unwrap_or(path)
            })
            .collect(),
        wait: options.wait,
        json: options.json,
        quiet: options.quiet,
        state: options.state,
        socket: options.socket,
        socket_group: options.socket_group,
        empty_probes: std::env::var_os("NITRO_EMPTY_PROBES").is_some_and(|set| set == "1"),
        power_supplies: std::env::var_os("NITRO_POWER_SUPPLIES").map_or_else(|| power::SUPPLIES.into(), Into::into),
    };
    // Before the first thread: they all begin with what is left here.
    let rights = rights::prepare(&config)?;
    let _log = start_log(options.verbose, options.quiet);
    let detail = match (config.quiet, options.verbose) {
        (true, _) => Detail::Nothing,
        (false, 0) if text::of_a_service(&io::stdout()) => Detail::Service,
        (false, _) => Detail::All,
    };
    let printer = Printer::new(config.json, detail);
    daemon::run(config, rights, printer)
}

/// What is kept after the loads, as the flags have it.
fn retention(options: &Options, ceiling: ByteCount) -> Result<Settings, ConfigError> {
    let (above, below) = (options.pin_above, options.unpin_below);
    if !(above.is_finite() && below.is_finite() && 0.0 <= below && below < above) {
        return Err(ConfigError::Thresholds(above, below));
    }
    let half_life = *options.half_life;
    if half_life < Duration::from_secs(1) {
        return Err(ConfigError::HalfLife);
    }
    let pin = options.pin.of(memory::total());
    if pin > ceiling {
        return Err(ConfigError::Pin(pin, ceiling));
    }
    Ok(Settings {
        half_life,
        pin_above: above,
        unpin_below: below,
        pin,
        rewarm: options.rewarm,
        keep_after_copy: options.keep_after_copy,
    })
}

/// A share of 1, as such or in percent.
fn share(given: &str) -> Result<f64, ConfigError> {
    let (number, whole) = match given.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (given, 1.0),
    };
    let share = number.trim().parse::<f64>().ok().map(|number| number / whole);
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| ConfigError::Holdout(given.to_owned()))
}

/// Whether `--watch` asks for whatever is found.
pub fn is_auto(path: &Path) -> bool {
    path.as_os_str() == "auto"
}

/// The log of this process, written by a thread as the lines for people are. Dropping it waits for the last lines, for a moment.
struct Log(Arc<Mutex<Outlet>>);

impl Drop for Log {
    fn drop(&mut self) {
        let mut outlet = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outlet.end();
    }
}

/// One record on its way to the log: it comes whole.
struct Record(Arc<Mutex<Outlet>>);

impl Write for Record {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let mut outlet = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outlet.line(String::from_utf8_lossy(record).trim_end());
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Warnings by default; the lines for people are not the log.
fn start_log(verbose: u8, quiet: bool) -> Log {
    let default = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "warn,nitro_user=info",
        (false, _) => "warn,nitro_user=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let outlet = Outlet::new(io::stderr(), |lines| {
        format!("{lines} log lines were dropped, since nobody took them")
    });
    let outlet = Arc::new(Mutex::new(outlet));
    let writer = outlet.clone();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // A second call, in a test, finds one set already: that one serves.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .with_writer(move || Record(writer.clone()))
        .try_init();
    Log(outlet)
}
