//! System calls that the unit refuses, as seccomp filters: one for each directive.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    str::FromStr,
};

use anyhow::{Context, Result, bail, ensure};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use syscalls::Sysno;

use super::Unit;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filters of a unit, by directive.
pub fn filters(unit: &Unit) -> Result<Vec<(&'static str, BpfProgram)>> {
    let mut filters = Vec::new();
    // Every filter ends whoever calls by another architecture's numbers.
    match unit.last("SystemCallArchitectures") {
        None | Some("native") => {}
        Some(other) => bail!("SystemCallArchitectures={other} is not known here"),
    }
    let mut add = |name, rules: Rules, errno: i32| -> Result<()> {
        let refused = SeccompAction::Errno(errno.cast_unsigned());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?);
        filters.push((
            name,
            filter.and_then(TryInto::try_into).with_context(|| format!("{name}="))?,
        ));
        Ok(())
    };
    let refused = refused(unit)?;
    ensure!(
        matches!(unit.last("SystemCallErrorNumber"), Some("EPERM")),
        "SystemCallErrorNumber= other than EPERM is not known here"
    );
    add("SystemCallFilter", refused, libc::EPERM)?;
    match unit.last("RestrictAddressFamilies") {
        None => {}
        Some("AF_UNIX") => {
            let other = when(&[(0, Compare::Ne, libc::AF_UNIX as u64)])?;
            add(
                "RestrictAddressFamilies",
                [(libc::SYS_socket, vec![other])].into(),
                libc::EAFNOSUPPORT,
            )?;
        }
        Some(other) => bail!("RestrictAddressFamilies={other} is not known here"),
    }
    if unit.yes("MemoryDenyWriteExecute")? {
        let (write, execute) = (libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
        let both = || when(&[(2, Compare::MaskedEq(write | execute), write | execute)]);
        let made = || when(&[(2, Compare::MaskedEq(execute), execute)]);
        let rules = [
            (libc::SYS_mmap, vec![both()?]),
            (libc::SYS_mprotect, vec![made()?]),
            (libc::SYS_pkey_mprotect, vec![made()?]),
        ];
        add("MemoryDenyWriteExecute", rules.into(), libc::EPERM)?;
    }
    if unit.yes("RestrictNamespaces")? {
        let kinds = [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWCGROUP,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
        ];
        let cloned: Result<Vec<_>> = kinds
            .iter()
            .map(|kind| when(&[(0, Compare::MaskedEq(*kind as u64), *kind as u64)]))
            .collect();
        let rules = [
            (libc::SYS_unshare, Vec::new()),
            (libc::SYS_setns, Vec::new()),
            (libc::SYS_clone, cloned?),
        ];
        add("RestrictNamespaces", rules.into(), libc::EPERM)?;
        // Its flags are in memory, where no filter looks: libraries fall back to the other call.
        add(
            "RestrictNamespaces",
            [(libc::SYS_clone3, Vec::new())].into(),
            libc::ENOSYS,
        )?;
    }
    if unit.yes("LockPersonality")? {
        let other = when(&[(0, Compare::Ne, 0)])?;
        add(
            "LockPersonality",
            [(libc::SYS_personality, vec![other])].into(),
            libc::EPERM,
        )?;
    }
    if unit.yes("RestrictRealtime")? {
        let classes = [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_DEADLINE];
        let rules: Result<Vec<_>> = classes
            .iter()
            .map(|class| when(&[(1, Compare::Eq, *class as u64)]))
            .collect();
        add(
            "RestrictRealtime",
            [(libc::SYS_sched_setscheduler, rules?)].into(),
            libc::EPERM,
        )?;
    }
    if unit.yes("RestrictSUIDSGID")? {
        let mut rules = Rules::new();
        for (call, argument) in [
            (libc::SYS_fchmod, 1),
            (libc::SYS_fchmodat, 2),
            (libc::SYS_mkdirat, 2),
            (libc::SYS_mknodat, 2),
            (libc::SYS_openat, 3),
        ] {
            let bits = [u64::from(libc::S_ISUID), u64::from(libc::S_ISGID)];
            let set: Result<Vec<_>> = bits
                .iter()
                .map(|bit| when(&[(argument, Compare::MaskedEq(*bit), *bit)]))
                .collect();
            rules.insert(call, set?);
        }
        add("RestrictSUIDSGID", rules, libc::EPERM)?;
    }
    Ok(filters)
}

fn when(conditions: &[(u8, Compare, u64)]) -> Result<SeccompRule> {
    let all: Result<Vec<_>, _> = conditions
        .iter()
        .map(|(argument, how, value)| SeccompCondition::new(*argument, Length::Dword, how.clone(), *value))
        .collect();
    Ok(SeccompRule::new(all?)?)
}

/// `SystemCallFilter=~…`: what is named, in groups or by itself.
fn refused(unit: &Unit) -> Result<Rules> {
    let mut calls = BTreeSet::new();
    for list in unit.all("SystemCallFilter") {
        let list = list.strip_prefix('~');
        let list = list.context("SystemCallFilter= that lists what is allowed is not known here")?;
        for name in list.split_whitespace() {
            if name.starts_with('@') {
                calls.extend(group(name)?);
            } else {
                let call = Sysno::from_str(name).ok();
                calls.insert(i64::from(call.with_context(|| format!("no system call {name}"))?.id()));
            }
        }
    }
    Ok(calls.into_iter().map(|call| (call, Vec::new())).collect())
}

/// What a group holds, by systemd's own account. Calls of other architectures are left out.
fn group(name: &str) -> Result<BTreeSet<i64>> {
    let output = Command::new("systemd-analyze")
        .args(["--no-pager", "syscall-filter", name])
        .output()
        .context("run systemd-analyze: it is in Debian's package systemd")?;
    ensure!(output.status.success(), "systemd-analyze knows no group {name}");
    let text = String::from_utf8(output.stdout)?;
    let mut calls = BTreeSet::new();
    // The first line is the group's own name.
    for line in text.lines().skip(1).map(str::trim) {
        if line.starts_with('@') {
            calls.extend(group(line)?);
        } else if let Ok(call) = Sysno::from_str(line) {
            calls.insert(i64::from(call.id()));
        }
    }
    ensure!(!calls.is_empty(), "the group {name} holds nothing");
    Ok(calls)
}
