//! Who the service is and which capabilities it has.

use std::str::FromStr;

use anyhow::{Context, Result};
use caps::{CapSet, Capability, CapsHashSet};
use nix::{
    sys::prctl,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::Unit;

/// A number of the range that systemd takes users from that exist while a service runs.
pub const USER: u32 = 61_234;

/// Capabilities that go with other directives, whatever the bounding set says.
const TAKEN: &[(&str, &[Capability])] = &[
    ("PrivateDevices", &[Capability::CAP_MKNOD, Capability::CAP_SYS_RAWIO]),
    ("ProtectClock", &[Capability::CAP_SYS_TIME, Capability::CAP_WAKE_ALARM]),
    ("ProtectKernelLogs", &[Capability::CAP_SYSLOG]),
    ("ProtectKernelModules", &[Capability::CAP_SYS_MODULE]),
];

/// Becomes the service's user, with the ambient capabilities and within the bounding set of the unit.
pub fn reduce(unit: &Unit) -> Result<()> {
    let mut bounding = listed(unit, "CapabilityBoundingSet")?;
    for (directive, capabilities) in TAKEN {
        if unit.yes(directive)? {
            bounding.retain(|one| !capabilities.contains(one));
        }
    }
    let mut ambient = listed(unit, "AmbientCapabilities")?;
    ambient.retain(|one| bounding.contains(one));
    for one in caps::read(None, CapSet::Bounding)?.difference(&bounding) {
        caps::drop(None, CapSet::Bounding, *one).with_context(|| format!("CapabilityBoundingSet= without {one}"))?;
    }
    setgroups(&[]).context("no groups")?;
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    setresgid(group, group, group).context("the service's group")?;
    prctl::set_keepcaps(true).context("keep capabilities")?;
    setresuid(user, user, user).context("the service's user")?;
    caps::set(None, CapSet::Effective, &ambient).context("effective capabilities")?;
    caps::set(None, CapSet::Permitted, &ambient).context("permitted capabilities")?;
    caps::set(None, CapSet::Inheritable, &ambient).context("inheritable capabilities")?;
    caps::set(None, CapSet::Ambient, &ambient).context("AmbientCapabilities=")
}

fn listed(unit: &Unit, directive: &str) -> Result<CapsHashSet> {
    let names = unit.all(directive).flat_map(str::split_whitespace);
    names
        .map(|name| Capability::from_str(name).with_context(|| format!("{directive}={name}")))
        .collect()
}
