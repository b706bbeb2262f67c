//! Whether the machine runs on its battery.

use std::{fs, path::Path};

/// Where the kernel lists what supplies power.
pub const SUPPLIES: &str = "/sys/class/power_supply";

/// Whether a battery of the machine itself (not of a mouse) is being discharged and nothing else supplies it. `supplies` is [`SUPPLIES`];
/// Documentation/ABI/testing/sysfs-class-power.
pub fn on_battery(supplies: &Path) -> bool {
    let Ok(entries) = fs::read_dir(supplies) else {
        return false;
    };
    let mut discharging = false;
    for supply in entries.flatten().take(64) {
        let told = |name: &str| fs::read_to_string(supply.path().join(name)).unwrap_or_default();
        if told("scope").trim() == "Device" {
            continue;
        }
        match told("type").trim() {
            "Battery" => discharging |= told("status").trim() == "Discharging",
            _ if told("online").trim() == "1" => return false,
            _ => {}
        }
    }
    discharging
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supply(dir: &Path, name: &str, facts: &[(&str, &str)]) {
        fs::create_dir_all(dir.join(name)).unwrap();
        for (fact, value) in facts {
            fs::write(dir.join(name).join(fact), format!("{value}\n")).unwrap();
        }
    }

    #[test]
    fn a_laptop_is_on_battery_until_it_is_plugged_in() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!on_battery(&dir.path().join("none")));
        assert!(!on_battery(dir.path()), "a server");
        supply(
            dir.path(),
            "mouse",
            &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")],
        );
        assert!(!on_battery(dir.path()));
        supply(dir.path(), "BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        supply(dir.path(), "AC", &[("type", "Mains"), ("online", "0")]);
        assert!(on_battery(dir.path()));
        supply(dir.path(), "AC", &[("type", "Mains"), ("online", "1")]);
        assert!(!on_battery(dir.path()));
        supply(dir.path(), "AC", &[("type", "Mains"), ("online", "0")]);
        supply(dir.path(), "BAT0", &[("status", "Charging")]);
        assert!(!on_battery(dir.path()));
    }
}
