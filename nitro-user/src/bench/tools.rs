//! Programs of the system's that a bench runs: found where they are, and run by that path.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::sweep;

/// Where root's tools are, which the PATH of sudo may leave out.
const USUAL: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Where a program is that is started by its name.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(USUAL.map(PathBuf::from));
    places.find_map(|dir| Some(dir.join(program)).filter(|path| is_program(path)))
}

/// Whether it is a file that somebody may execute.
pub fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
}

/// A program, by the path at which it was found.
pub fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| program.into()))
}

/// Runs one to its end and gives its output. In a group of processes of its own: Ctrl-C on the terminal would reach it otherwise, and `losetup` that dies half-way leaves a
/// device.
///
/// # Errors
/// It cannot be started, or fails; with what it said.
pub fn run(command: &mut Command) -> Result<String> {
    sweep::rest_if_interrupted();
    run_to_remove(command)
}

/// The same, of one that removes what was made: after a signal, too.
///
/// # Errors
/// As [`run`].
pub fn run_to_remove(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .with_context(|| format!("run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_where_it_is_and_nothing_else_is() {
        let found = find("sh").unwrap();
        assert!(found.is_absolute() && is_program(&found));
        assert_eq!(find("no-such-program-here"), None);
        assert!(!is_program(Path::new("/etc/passwd")) && !is_program(Path::new("/tmp")));
        assert_eq!(run(command("echo").arg("hello")).unwrap(), "hello\n");
        let error = run(command("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
