//! The receipts of the last loads, and whoever wants to hear of the next ones.
//!
//! In: a receipt when a load ends. Out: copies of the last [`KEPT`], and a channel of those to come. Owned by the daemon's task: between the
//! copy and the first receipt on the channel none is lost and none comes twice.
//!
//! Overflow policies: the oldest receipt goes when there are [`KEPT`]; a follower who is more than [`BEHIND`] receipts behind hears how many it
//! lost instead of them. The channel's memory is one ring for all followers, so that their number and their pace cost nothing.

use std::{collections::VecDeque, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::engine::receipt::Receipt;

/// Receipts kept.
pub const KEPT: usize = 256;

/// Receipts that a follower may be behind.
pub const BEHIND: usize = 64;

/// A receipt and when its load ended: one flat object in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// When the load ended, in seconds since 1970.
    pub time: f64,
    /// Its account.
    #[serde(flatten)]
    pub receipt: Receipt,
}

/// A copy of what is kept, oldest first, and the receipts to come.
pub type Subscription = (Vec<Arc<Kept>>, broadcast::Receiver<Arc<Kept>>);

/// The last receipts.
#[derive(Debug)]
pub struct History {
    kept: VecDeque<Arc<Kept>>,
    followers: broadcast::Sender<Arc<Kept>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            kept: VecDeque::with_capacity(KEPT),
            followers: broadcast::Sender::new(BEHIND),
        }
    }
}

impl History {
    /// Keeps a receipt and passes it on to the followers.
    pub fn keep(&mut self, kept: Kept) {
        let kept = Arc::new(kept);
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(kept.clone());
        // Nobody follows: that is no fault.
        let _ = self.followers.send(kept);
    }

    /// What is kept, and what comes from now on.
    pub fn subscribe(&self) -> Subscription {
        (self.kept.iter().cloned().collect(), self.followers.subscribe())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        catalog::model::LayoutKind,
        engine::{evidence::Evidence, receipt::ReaderKind},
        units::{ByteCount, Moment},
    };

    /// A receipt of a load by process `process` of user `user`.
    pub(crate) fn receipt(process: u32, user: Option<u32>) -> Kept {
        let receipt = Receipt {
            model: format!("model-{process}"),
            layout: LayoutKind::Gguf,
            program: Some("llama-server".into()),
            pids: vec![process],
            user,
            device: (8, 16),
            reader: ReaderKind::Buffered,
            pattern: None,
            inferred: false,
            evidence: Evidence::Progress,
            demanded: ByteCount(1 << 30),
            resident_before: ByteCount(0),
            brought_before: ByteCount(0),
            kernel_readahead: ByteCount(1 << 28),
            warmed_in_time: ByteCount(1 << 29),
            warmed_late: ByteCount(1 << 28),
            missed: ByteCount(0),
            wasted: ByteCount(4 << 20),
            seconds: 2.3,
            saved: None,
            calls: 1000,
            evidence_to_first_warm_us: Some(900),
            skipped: vec![],
            began: Moment(1),
            ended: Moment(2),
        };
        Kept { time: 1.5, receipt }
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut history = History::default();
        for process in 0..KEPT as u32 + 3 {
            history.keep(receipt(process, None));
        }
        let (kept, _) = history.subscribe();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].receipt.pids, [3]);
    }

    #[test]
    fn nothing_is_lost_or_doubled_between_the_copy_and_the_channel() {
        let mut history = History::default();
        history.keep(receipt(1, None));
        let (kept, mut next) = history.subscribe();
        history.keep(receipt(2, None));
        assert_eq!(kept.len(), 1);
        assert_eq!(next.try_recv().unwrap().receipt.pids, [2]);
        assert!(next.try_recv().is_err());
    }

    #[test]
    fn a_kept_receipt_is_one_flat_object_and_comes_back_the_same() {
        let kept = receipt(7, Some(1000));
        let text = serde_json::to_string(&kept).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["model"], "model-7");
        assert_eq!(value["evidence_to_first_warm_us"], 900);
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
    }
}
