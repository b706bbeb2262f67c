//! One validated configuration, made from defaults and flags; handed down, never a global.

use std::path::{Path, PathBuf};

use crate::{
    catalog::exclude::Exclude,
    engine::retain::settings::Settings,
    source::attach::EventChoice,
    sys::{cgroup, memory},
    units::{ByteCount, Size},
};

/// Where the control socket is unless it is said: in a directory of its own, which a service that may write nowhere else is given.
pub const SOCKET: &str = "/run/nitro-agent/nitro-agent.sock";

/// What the agent needs of its own cgroup for itself: its tables, and at the start the kernel's types.
const OWN: u64 = 32 << 20;

/// What the agent runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Watch roots as given, with `~` resolved.
    pub roots: Vec<PathBuf>,
    /// Find directories with models.
    pub auto: bool,
    /// Ceiling for all that was warmed and nobody used yet, in bytes.
    pub ceiling: ByteCount,
    /// What is to stay available of the machine's memory.
    pub reserve: ByteCount,
    /// Event mode.
    pub events: EventChoice,
    /// Predict and tell, warm nothing.
    pub dry_run: bool,
    /// What below the roots is left out.
    pub exclude: Exclude,
    /// Programs whose reads are neither helped nor counted.
    pub ignored_programs: Vec<String>,
    /// What is warmed is charged to the memory cgroup of whoever it is warmed for, not to the agent's.
    pub charge_consumer: bool,
    /// What is kept after the loads.
    pub retain: Settings,
    /// The share of loads that are left without help, 0–1.
    pub holdout: f64,
    /// Directories below which reading is wanted though it costs money.
    pub fetch: Vec<PathBuf>,
    /// Wait for roots that do not exist yet.
    pub wait: bool,
    /// One JSON object per line instead of lines for people.
    pub json: bool,
    /// Tell nothing but errors.
    pub quiet: bool,
    /// Where what is learned survives a restart.
    pub state: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Group that may use the socket too.
    pub socket_group: Option<String>,
    /// Programs that return at once: for the cost bench.
    pub empty_probes: bool,
    /// Where the kernel lists what supplies power: another place for tests.
    pub power_supplies: PathBuf,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing to watch.
    #[error(
        "nothing to watch: give a directory, for example --watch ~/.ollama/models, or --watch auto, which finds them"
    )]
    NoRoots,
    /// A ceiling of nothing.
    #[error(
        "--memory leaves nothing to warm with: {0} of {1}, within {2} that the own cgroup leaves beside the agent itself: give it more, or raise the limit of its cgroup"
    )]
    NoMemory(ByteCount, ByteCount, ByteCount),
    /// More is to be locked than may be held at all.
    #[error("--pin {0} is more than --memory {1}, of which it is a part: give less of it, or more memory")]
    Pin(ByteCount, ByteCount),
    /// No order.
    #[error("--pin-above {0} must be more than --unpin-below {1}, and neither less than 0")]
    Thresholds(f64, f64),
    /// No share.
    #[error("--holdout {0} is no share: give 0 to 1, for example 0.05, or 5%")]
    Holdout(String),
    /// Everything would be cold at once.
    #[error("--half-life must be a second at least")]
    HalfLife,
}

/// `--memory` in bytes: of the machine's memory, and never above what the own cgroup leaves beside the agent itself.
///
/// # Errors
/// [`ConfigError::NoMemory`] when less than two steps would be left.
pub fn ceiling(size: Size) -> Result<ByteCount, ConfigError> {
    let total = memory::total();
    let asked = size.of(total);
    let left = memory::left_by_cgroup().map_or(total, |left| ByteCount(left.0.saturating_sub(OWN)));
    let ceiling = asked.min(left);
    if ceiling.0 < 2 * crate::units::STEP {
        return Err(ConfigError::NoMemory(asked, total, left));
    }
    Ok(ceiling)
}

/// Resolves a leading `~` to the home of whoever invoked sudo, or of the user.
pub fn resolve_home(path: &Path) -> PathBuf {
    let Ok(below) = path.strip_prefix("~") else {
        return path.to_owned();
    };
    let invoker = std::env::var("SUDO_USER")
        .ok()
        .and_then(|name| nix::unistd::User::from_name(&name).ok().flatten());
    let home = invoker
        .map(|user| user.dir)
        .or_else(|| std::env::var_os("HOME").map(PathBuf::from));
    home.map_or_else(|| path.to_owned(), |home| home.join(below))
}

/// Whose memory cgroup is charged where it is not said: the consumer's inside Kubernetes, where the node's working-set figure is made of those; else the agent's.
pub fn charges_consumer() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        || cgroup::of_process(std::process::id()).is_some_and(|group| group.is_of_kubernetes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_is_a_home_and_nothing_else_is() {
        assert!(!resolve_home(Path::new("~/models")).starts_with("~"));
        assert_eq!(resolve_home(Path::new("/a/~/b")), Path::new("/a/~/b"));
        assert_eq!(resolve_home(Path::new("~else/b")), Path::new("~else/b"));
    }

    #[test]
    fn a_ceiling_of_nothing_is_refused() {
        assert!(matches!(ceiling(Size::Percent(0.0)), Err(ConfigError::NoMemory(..))));
        assert!(ceiling(Size::Percent(50.0)).unwrap().0 > 0);
    }
}
