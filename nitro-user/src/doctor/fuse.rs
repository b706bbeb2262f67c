//! FUSE and its passthrough, by which a file system in user space lets the kernel read another file.
//!
//! In: what opening the device gave, and the kernel. Out: findings. Nothing is mounted, neither here nor by the agent in this version.

use std::io;

use super::{
    finding::{Finding, Subject},
    kernel,
};

const LOST: &str = "nothing in this version, which mounts nothing";

/// What is to be said of it; `device` tells whether the kernel knows the request for passthrough.
pub fn findings(device: &io::Result<bool>, kernel: &kernel::Facts) -> Vec<Finding> {
    const FUSE: Subject = Subject::Fuse;
    let known = match device {
        Ok(known) => *known,
        Err(error) => {
            let (words, remedy) = match error.kind() {
                io::ErrorKind::NotFound => (
                    "no /dev/fuse".to_owned(),
                    "modprobe fuse; in a container, give it the device /dev/fuse",
                ),
                io::ErrorKind::PermissionDenied => (
                    format!("/dev/fuse cannot be opened: {error}"),
                    "run the doctor with sudo; in a container, give it the device /dev/fuse",
                ),
                _ => (
                    format!("/dev/fuse cannot be opened: {error}"),
                    "modprobe fuse, or use a kernel built with CONFIG_FUSE_FS",
                ),
            };
            return vec![
                FUSE.missing("device", words, LOST, remedy).aside(),
                FUSE.missing("passthrough", "not to be tried without the device", LOST, remedy)
                    .aside(),
            ];
        }
    };
    let built = kernel.config.as_ref().map(|config| config.has("FUSE_PASSTHROUGH"));
    let passthrough = match (known, built) {
        (true, Some(true)) => FUSE.ok("passthrough", "the kernel knows the request, and was built with it"),
        (true, None) => FUSE.ok(
            "passthrough",
            "the kernel knows the request; whether it was built with CONFIG_FUSE_PASSTHROUGH cannot be read",
        ),
        (true, Some(false)) => FUSE
            .missing(
                "passthrough",
                "not built in",
                LOST,
                "use a kernel built with CONFIG_FUSE_PASSTHROUGH",
            )
            .aside(),
        (false, _) => FUSE
            .missing(
                "passthrough",
                "the kernel does not know the request, which came with Linux 6.9",
                LOST,
                "use Linux 6.9 or later",
            )
            .aside(),
    };
    vec![FUSE.ok("device", "/dev/fuse opens"), passthrough]
}
