//! System calls that are refused from the end of the start on: what an agent that reads files never does, whoever has taken it over.
//!
//! They fail with EPERM. It is a list of what is refused, not of what is allowed: what a library will call tomorrow is not known today, and a refusal in the middle of a
//! load would be worse than none. What the agent calls for each step (`preadv2`, `readahead`, `mincore`, `cachestat`) is not on it, so that the kernel allows those
//! by a bit, without running the filter.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Refused whatever the arguments.
const NEVER: &[i64] = &[
    // Other programs: none is started, looked into or signalled. What they have open is borrowed where it can be had of nobody else (`pidfd_getfd`).
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_kcmp,
    // Mounts, roots and namespaces stay as they are.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    // So does the kernel, and what it keeps for the machine.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    // Who it is.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_personality,
    // Files keep their owner, mode, times and attributes, and get no new names. CAP_FOWNER would allow most of it on any file.
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mknodat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    // Past every directory, as CAP_DAC_READ_SEARCH allows.
    libc::SYS_open_by_handle_at,
    // Requests on this ring would pass by any filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
];

/// The same under the older names that x86-64 has beside them.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[i64] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_mknod,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[i64] = &[];

/// `bpf` commands that go on: to look a key of a map up, set it, remove it, and step to the next.
const MAP_COMMANDS: [u64; 4] = [1, 2, 3, 4];

/// Requests on descriptors that change a file's attributes, or type into a terminal (`linux/fs.h`, `asm-generic/ioctls.h`).
const REQUESTS: [u64; 4] = [FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, 0x5412, 0x541c];
const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;

/// Refuses them to this thread and all that it starts from here on. The thread has `no_new_privs` afterwards.
///
/// # Errors
/// Why the kernel takes no filter, in words.
pub fn refuse() -> Result<(), String> {
    let program = program().map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in NEVER.iter().chain(NEVER_HERE) {
        rules.insert(*call, Vec::new());
    }
    let all = |conditions: Vec<SeccompCondition>| SeccompRule::new(conditions);
    let is = |argument, how, value| SeccompCondition::new(argument, Length::Dword, how, value);
    let executable = libc::PROT_EXEC.cast_unsigned().into();

    // The agent speaks to local clients and to the service manager.
    let local = libc::AF_UNIX.cast_unsigned().into();
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        rules.insert(call, vec![all(vec![is(0, Compare::Ne, local)?])?]);
    }
    // Signal 0 asks whether a thread lives.
    rules.insert(libc::SYS_kill, vec![all(vec![is(1, Compare::Ne, 0)?])?]);
    // All code is there by now.
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.insert(
            call,
            vec![all(vec![is(2, Compare::MaskedEq(executable), executable)?])?],
        );
    }
    let others: Result<Vec<_>, _> = MAP_COMMANDS
        .iter()
        .map(|command| is(0, Compare::Ne, *command))
        .collect();
    rules.insert(libc::SYS_bpf, vec![all(others?)?]);
    let requests: Result<Vec<_>, _> = REQUESTS
        .iter()
        .map(|request| all(vec![is(1, Compare::Eq, *request)?]))
        .collect();
    rules.insert(libc::SYS_ioctl, requests?);

    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::{
        fs, io,
        net::{TcpListener, UdpSocket},
        os::unix::{
            fs::{PermissionsExt, symlink},
            net::{UnixListener, UnixStream},
        },
        process::Command,
    };

    use super::*;

    /// On a thread of its own: a filter stays.
    fn refused(what: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            refuse().unwrap();
            what();
        });
        thread.join().unwrap();
    }

    fn no<T>(done: io::Result<T>) -> bool {
        done.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
    }

    #[test]
    fn no_program_is_started() {
        refused(|| assert!(no(Command::new("true").spawn())));
        // Only the thread that asked for it is meant.
        assert!(Command::new("true").status().unwrap().success());
    }

    #[test]
    fn sockets_are_local() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        refused(move || {
            assert!(no(TcpListener::bind("127.0.0.1:0")));
            assert!(no(UdpSocket::bind("[::1]:0")));
            let _listener = UnixListener::bind(&path).unwrap();
            UnixStream::connect(&path).unwrap();
            UnixStream::pair().unwrap();
        });
    }

    #[test]
    fn files_are_read_and_state_is_written_and_nothing_is_changed_about_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        refused(move || {
            fs::write(&path, "b").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"b");
            assert!(no(fs::set_permissions(&path, PermissionsExt::from_mode(0o777))));
            assert!(no(symlink(&path, path.with_extension("link"))));
            assert!(no(fs::hard_link(&path, path.with_extension("name"))));
            assert!(no(std::os::unix::fs::chown(&path, None, None)));
            fs::rename(&path, path.with_extension("new")).unwrap();
            fs::remove_file(path.with_extension("new")).unwrap();
        });
    }

    #[test]
    fn others_get_no_signal_and_can_be_asked_after() {
        use nix::{errno::Errno, sys::signal::Signal, sys::signal::kill, unistd::getpid};
        refused(|| {
            assert_eq!(kill(getpid(), Signal::SIGCONT), Err(Errno::EPERM));
            assert_eq!(kill(getpid(), None), Ok(()));
        });
    }

    #[test]
    fn memory_is_not_made_executable() {
        refused(|| {
            let map = memmap2::MmapOptions::new().len(4096).map_anon().unwrap();
            assert!(no(map.make_exec()));
            std::thread::spawn(|| ()).join().unwrap();
        });
    }

    #[test]
    fn the_threads_that_come_later_are_meant_too() {
        refused(|| {
            let started = std::thread::spawn(|| no(Command::new("true").spawn()));
            assert!(started.join().unwrap());
        });
    }

    #[test]
    fn nothing_is_said_twice() {
        let all: std::collections::BTreeSet<_> = NEVER.iter().chain(NEVER_HERE).collect();
        assert_eq!(all.len(), NEVER.len() + NEVER_HERE.len());
    }
}
