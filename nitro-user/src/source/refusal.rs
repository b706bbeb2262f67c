//! A refusal of the kernel's in one line, with what to do about it.

use std::{error::Error, io};

use aya::programs::{ProgramError, trace_point::TracePointError};

/// Why a program was not loaded or attached.
pub fn of_program(error: &ProgramError) -> String {
    match error {
        ProgramError::Btf(_) => {
            "this kernel has no such tracepoint (those of page-cache reads came with Linux 6.12)".into()
        }
        ProgramError::LoadError { io_error, verifier_log } => {
            tracing::debug!(%verifier_log, "the verifier refused a program");
            format!("refused by the kernel: {}", with_remedy(io_error))
        }
        ProgramError::SyscallError(call) => format!("{}: {}", call.call, with_remedy(&call.io_error)),
        // tracefs itself was found before.
        ProgramError::TracePointError(TracePointError::FileError { io_error, .. })
            if io_error.kind() == io::ErrorKind::NotFound =>
        {
            "this kernel has no such tracepoint (CONFIG_FTRACE_SYSCALLS is needed for those of system calls)".into()
        }
        other => in_one_line(other),
    }
}

/// The same of a program at the entry of a function.
pub fn of_entry(error: &ProgramError) -> String {
    match error {
        ProgramError::Btf(_) => "this kernel has no such function, or its compiler has merged it with others".into(),
        other => of_program(other),
    }
}

fn with_remedy(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            format!("{error}: run as root, or with CAP_BPF and CAP_PERFMON; kernel lockdown refuses it as well")
        }
        _ => error.to_string(),
    }
}

/// An error and its causes, as far as they add anything, without line breaks.
pub fn in_one_line(error: &dyn Error) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        next = cause.source();
        let text = cause.to_string();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // Many errors print their cause themselves.
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once_and_in_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot load:\n{0}")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(in_one_line(&error), "cannot load: Operation not permitted (os error 1)");
    }

    #[test]
    fn a_missing_right_names_the_capabilities() {
        let line = with_remedy(&io::Error::from_raw_os_error(libc::EPERM));
        assert!(line.contains("CAP_BPF"), "{line}");
    }
}
