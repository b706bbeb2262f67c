//! `nitro-agent unwatch PATH`.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;

use super::{
    ask::{self, Socket, print},
    text,
};
use crate::{
    control::{
        client::{Client, ClientError},
        protocol::{Code, Reply, Request, Unwatched},
    },
    units::printable,
};

/// Flags of `unwatch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent unwatch /mnt/usb && sudo umount /mnt/usb
  sudo nitro-agent unwatch ~/.cache/huggingface/hub/models--org--name")]
pub struct Options {
    /// A watched directory, or a directory or file below one. It need not exist any more.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    #[command(flatten)]
    socket: Socket,
}

/// Has it let go.
///
/// # Errors
/// No agent, no permission, nothing watched there.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let given = std::path::absolute(&options.path).context("cannot tell the absolute path")?;
    // What a process of another namespace sees has no other path: `root` there is no link like others.
    let path = if is_elsewhere(&given) {
        Ok(given.clone())
    } else {
        canonical(&given)
    };
    let path = path.with_context(|| format!("cannot look at {:?}", options.path))?;
    ask::run(async {
        let mut client = Client::connect(&options.socket.socket).await?;
        let unwatched = match ask(&mut client, &path).await {
            // A root that does not exist is known by the path it was given with.
            Err(ClientError::Refused { refusal, .. }) if refusal.code == Code::NotWatched && given != path => {
                let mut client = Client::connect(&options.socket.socket).await?;
                ask(&mut client, &given).await?
            }
            answer => answer?,
        };
        let Some(unwatched) = unwatched else {
            bail!("the agent stopped before it answered");
        };
        print(&said(&path, unwatched))?;
        Ok(())
    })
}

async fn ask(client: &mut Client, path: &Path) -> Result<Option<Unwatched>, ClientError> {
    client.ask(&Request::Unwatch { path: path.to_owned() }).await?;
    match client.next().await? {
        Reply::Unwatched(unwatched) => Ok(Some(unwatched)),
        _ => Ok(None),
    }
}

fn said(path: &Path, unwatched: Unwatched) -> String {
    let Unwatched { roots, files, bytes } = unwatched;
    let path = printable(&path.to_string_lossy());
    let roots = match roots {
        0 | 1 => String::new(),
        _ => format!("{roots} directories, "),
    };
    format!("no longer watched: {path} ({roots}{bytes} in {})", text::files(files))
}

/// Whether `path` is `/proc/PID/root/…`.
fn is_elsewhere(path: &Path) -> bool {
    let names: Vec<_> = path.iter().take(5).collect();
    matches!(names.as_slice(), [_, proc, _, root, _] if *proc == "proc" && *root == "root")
}

/// `path` without links and `..`, as far as it exists; the rest as it is.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    let (mut at, mut rest) = (path, Vec::<OsString>::new());
    loop {
        match at.canonicalize() {
            Ok(mut found) => {
                found.extend(rest.iter().rev());
                return Ok(found);
            }
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(error);
            }
            Err(error) => match (at.parent(), at.file_name()) {
                (Some(above), Some(name)) => {
                    rest.push(name.to_owned());
                    at = above;
                }
                // `..` in what does not exist leads nowhere.
                _ => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::units::ByteCount;

    #[test]
    fn a_path_is_canonical_as_far_as_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("there")).unwrap();
        symlink("there", real.join("link")).unwrap();
        assert_eq!(canonical(&real.join("link")).unwrap(), real.join("there"));
        assert_eq!(canonical(&real.join("link/gone/x")).unwrap(), real.join("there/gone/x"));
        assert_eq!(canonical(&real.join("link/../there")).unwrap(), real.join("there"));
        assert!(canonical(&real.join("gone/..")).is_err());
    }

    #[test]
    fn a_path_through_a_process_stays_as_it_is() {
        assert!(is_elsewhere(Path::new("/proc/812/root/models")));
        for path in ["/proc/812/root", "/proc/812/fd/3/x", "/models/a/root/x", "/"] {
            assert!(!is_elsewhere(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn what_went_is_said_in_a_line() {
        let unwatched = |roots, files| Unwatched {
            roots,
            files,
            bytes: ByteCount(3 << 30),
        };
        let path = Path::new("/models/\u{1b}x");
        assert_eq!(
            said(path, unwatched(1, 1)),
            "no longer watched: /models/?x (3 GiB in 1 file)"
        );
        assert_eq!(
            said(path, unwatched(2, 5)),
            "no longer watched: /models/?x (2 directories, 3 GiB in 5 files)"
        );
    }
}
