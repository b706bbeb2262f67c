//! Who asks, and what that one may see.
//!
//! The kernel says who connected (`SO_PEERCRED`: the effective user at the time of the connection). Root and the agent's own user see everything;
//! others see the agent's state, but of loads and receipts only those of their own processes.

use crate::observe::status::Status;

/// A caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    user: u32,
    privileged: bool,
}

impl Caller {
    /// The caller with effective user id `user`, where the agent runs as `own`.
    pub fn new(user: u32, own: u32) -> Self {
        Self {
            user,
            privileged: user == 0 || user == own,
        }
    }

    /// Whether everything is shown.
    pub fn is_privileged(self) -> bool {
        self.privileged
    }

    /// Whether what belongs to `owner` is shown; what nobody is known to own is not, but to the privileged.
    pub fn sees(self, owner: Option<u32>) -> bool {
        self.privileged || owner == Some(self.user)
    }

    /// Takes out of `status` what this caller must not see.
    pub fn narrow(self, status: &mut Status) {
        status.loads.retain(|load| self.sees(load.user));
        // They tell of other users' processes, and of directories that nobody else may see.
        if let Some(auto) = status.auto.as_mut().filter(|_| !self.privileged) {
            auto.not_watched.clear();
        }
        if !self.privileged {
            status.kept.clear();
        }
        status.holdings.retain(|holding| self.sees(holding.user));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::{AutoStatus, LoadStatus, NotWatchedStatus};

    #[test]
    fn root_and_the_own_user_see_all_others_their_own() {
        let (root, own, other) = (Caller::new(0, 5), Caller::new(5, 5), Caller::new(1000, 5));
        for owner in [None, Some(0), Some(5), Some(1000), Some(1001)] {
            assert!(root.sees(owner) && own.sees(owner));
            assert_eq!(other.sees(owner), owner == Some(1000));
        }
    }

    #[test]
    fn a_status_is_narrowed_to_the_own_loads() {
        let load = |user| LoadStatus {
            user,
            ..LoadStatus::default()
        };
        let mut status = Status {
            auto: Some(AutoStatus {
                not_watched: vec![NotWatchedStatus::default()],
                ..AutoStatus::default()
            }),
            loads: vec![load(None), load(Some(0)), load(Some(1000))],
            ..Status::default()
        };
        Caller::new(1000, 0).narrow(&mut status);
        assert_eq!(status.loads, [load(Some(1000))]);
        assert_eq!(status.auto.unwrap().not_watched, []);
    }
}
