//! `nitro-agent --watch DIR`: the agent itself, in the foreground.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use tracing_subscriber::EnvFilter;

use super::print::Printer;
use crate::{
    config::{Config, ConfigError, ceiling, resolve_home},
    daemon,
    source::attach::EventChoice,
    units::Size,
};

/// Flags of the agent.
#[derive(Debug, Args)]
pub struct Options {
    /// Directory to watch; repeatable.
    #[arg(long, value_name = "DIR")]
    watch: Vec<PathBuf>,
    /// Ceiling for all that was warmed and nobody used yet: 8GiB, 512M, 25%.
    #[arg(long, value_name = "SIZE|PERCENT", default_value = "50%")]
    memory: Size,
    /// How accesses are seen: auto, page-cache (Linux 6.12), syscalls.
    #[arg(long, value_name = "MODE", default_value = "auto")]
    events: String,
    /// Predict and print, warm nothing.
    #[arg(long)]
    dry_run: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// Wait for directories that do not exist yet.
    #[arg(long)]
    wait: bool,
    /// Directory for what survives a restart.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nitro-agent")]
    state: PathBuf,
    /// Control socket.
    #[arg(long, value_name = "PATH", default_value = "/run/nitro-agent.sock")]
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
    start_log(options.verbose, options.quiet);
    let events: EventChoice = options.events.parse().map_err(anyhow::Error::msg)?;
    if options.watch.is_empty() {
        return Err(ConfigError::NoRoots.into());
    }
    let config = Config {
        roots: options.watch.iter().map(|path| resolve_home(path)).collect(),
        ceiling: ceiling(options.memory)?,
        events,
        dry_run: options.dry_run,
        wait: options.wait,
        json: options.json,
        quiet: options.quiet,
        state: options.state,
        socket: options.socket,
        socket_group: options.socket_group,
        empty_probes: std::env::var_os("NITRO_EMPTY_PROBES").is_some_and(|set| set == "1"),
    };
    let printer = Printer::new(config.json, config.quiet);
    daemon::run(config, printer)
}

/// Warnings by default; the lines for people are not the log.
fn start_log(verbose: u8, quiet: bool) {
    let default = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "warn,nitro_user=info",
        (false, _) => "warn,nitro_user=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // A second call, in a test, finds one set already: that one serves.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
