//! Whether a load is better left alone because its reader, or its device, is as fast as memory.

use super::{Load, Stage};
use crate::engine::plan::{
    admission::{self, Pace},
    device::Device,
};

impl Load {
    /// What its device does is known, or known better.
    ///
    /// A device as fast as memory needs no preparation; and buffered reads, which ask for much at once, need no help with it. A mapping's reader, who asks
    /// for little, is helped all the same.
    pub fn served_by(&mut self, device: &Device) {
        match self.stage {
            Stage::Announced if admission::keeps_up(device.rate()) => {
                self.groups.iter_mut().for_each(|group| group.window.close());
            }
            Stage::Confirmed => self.keeps_up |= self.is_served(device),
            Stage::Announced | Stage::Suspected | Stage::Skipped(_) | Stage::Ended => {}
        }
    }

    /// Whether its buffered reads get along without help on a device that has proved as fast as memory.
    pub(super) fn is_served(&self, device: &Device) -> bool {
        !self.fell_behind && self.kinds.only_reads() && self.admission.is_served_by(device.rate())
    }

    /// Whether a reader that was left alone needs help after all. Where help and reader take turns in the lead, both lose: a reader that is served is judged
    /// over more than a hiccup, and once.
    pub(super) fn judge(&mut self, device: &Device) {
        if !self.keeps_up {
            return;
        }
        if admission::keeps_up(device.rate()) && self.kinds.only_reads() {
            self.fell_behind = !self.is_served(device);
            self.keeps_up = !self.fell_behind;
        } else {
            self.keeps_up = self.pace != Pace::Slow;
        }
    }
}
