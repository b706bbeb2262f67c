//! Devices that a model can be in the memory of.

/// What a process has open that can hold a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accelerator {
    /// A render node, and nothing else. Every program that draws has one, the desktop itself and each browser, and so has one that computes by Vulkan or SYCL: it says something of a
    /// process only that has read a model, and then not much.
    Render,
    /// A device that is opened to compute.
    Compute,
}

/// The accelerator of this name, a link in `/proc/PID/fd`.
///
/// `nvidiactl` alone is who asks what there is (`nvidia-smi -L`); who computes has the device of a card open as well. `kfd` is what every program for ROCm opens, and none that
/// draws. `dxg` is the card of a Windows host, `accel/accelN` what the kernel lists as accelerators. A regular file of such a name is taken for the device, too: whoever makes
/// one gains that a model counts as used, which having it open does as well.
pub fn named(link: &[u8]) -> Option<Accelerator> {
    let name = link.strip_prefix(b"/dev/")?;
    let numbered = |prefix: &[u8]| {
        let number = name.strip_prefix(prefix)?;
        (!number.is_empty() && number.iter().all(u8::is_ascii_digit)).then_some(())
    };
    let computes = matches!(name, b"kfd" | b"dxg");
    if computes || numbered(b"nvidia").is_some() || numbered(b"accel/accel").is_some() {
        return Some(Accelerator::Compute);
    }
    numbered(b"dri/renderD").map(|()| Accelerator::Render)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_computes_is_told_from_what_draws_and_what_only_asks() {
        for name in ["nvidia0", "nvidia15", "kfd", "dxg", "accel/accel0"] {
            assert_eq!(
                named(format!("/dev/{name}").as_bytes()),
                Some(Accelerator::Compute),
                "{name}"
            );
        }
        assert_eq!(named(b"/dev/dri/renderD128"), Some(Accelerator::Render));
        for other in [
            "/dev/nvidiactl",
            "/dev/nvidia-uvm",
            "/dev/nvidia",
            "/dev/nvidia0 (deleted)",
            "/dev/dri/card0",
            "/dev/null",
            "/srv/dev/kfd",
            "anon_inode:[eventfd]",
            "",
        ] {
            assert_eq!(named(other.as_bytes()), None, "{other}");
        }
        assert!(Some(Accelerator::Compute) > Some(Accelerator::Render) && Some(Accelerator::Render) > None);
    }
}
