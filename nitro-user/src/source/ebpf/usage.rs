//! How full the maps are and what the kernel refused to the programs, for `status`.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd},
};

use super::EbpfSource;

/// How full the map of watched files is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files in it.
    pub watched: u64,
    /// Files it has room for.
    pub capacity: u64,
    /// Files that found no room, since the start.
    pub without_room: u64,
}

impl EbpfSource {
    /// How full the map of watched files is.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// By program: hits that the kernel refused to it, since a program was running on that processor already. Programs that are not loaded,
    /// and kernels that do not tell, are left out. The kernel counts from 5.12 and shows it in the descriptor's `fdinfo`.
    pub fn recursion_misses(&self) -> HashMap<String, u64> {
        let misses = |program: &aya::programs::Program| {
            let descriptor = program.fd().ok()?.as_fd().as_raw_fd();
            parse(&std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?)
        };
        self.ebpf
            .programs()
            .filter_map(|(name, program)| Some((name.to_owned(), misses(program)?)))
            .collect()
    }
}

fn parse(fdinfo: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn recursion_misses_are_found_where_the_kernel_tells() {
        let fdinfo = "pos:\t0\nprog_type:\t26\nrun_cnt:\t9\nrecursion_misses:\t12\nverified_insns:\t99\n";
        assert_eq!(parse(fdinfo), Some(12));
        assert_eq!(parse("pos:\t0\nprog_type:\t26\n"), None);
    }
}
