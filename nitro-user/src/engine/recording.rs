//! What a replay must know of an engine that has worked for a while when a recording begins.

use super::{
    Engine, Input,
    library::Library,
    pattern::Passes,
    plan::{device::Device, pressure::Pressure},
};

impl Engine {
    /// A recording begins: what the engine knows and a replay could not is told as inputs, or forgotten and asked for again. Where no load is under way, a new
    /// engine that begins at [`Self::next_load`] does the same as this one from here on, given these and all further inputs; but for what is held of loads that have ended.
    pub fn begin_again(&mut self) -> Vec<Input> {
        self.library = Library::default();
        self.stale.clear();
        self.pressure = Pressure::new(self.policy.reserve);
        let mut inputs = vec![Input::Ceiling(self.budget.ceiling()), Input::Battery(self.spares)];
        inputs.extend(self.paused.map(|until| Input::Pause { until }));
        let is_at_rest = self.loads.is_empty();
        if is_at_rest {
            self.passes = Passes::default();
            self.ignored.clear();
            self.turn = 0;
        }
        for (number, device) in &mut self.devices {
            let knowledge = device.known();
            if is_at_rest {
                *device = Device::default();
                device.recall(knowledge);
            }
            inputs.push(Input::Recalled {
                device: *number,
                knowledge,
            });
        }
        inputs
    }

    /// The number of the next load.
    pub const fn next_load(&self) -> u64 {
        self.next_load
    }

    /// Numbers loads from `next` on, as the engine did whose inputs are replayed.
    #[must_use]
    pub const fn beginning_at(mut self, next: u64) -> Self {
        self.next_load = next;
        self
    }

    /// What it was told once.
    pub const fn policy(&self) -> &super::Policy {
        &self.policy
    }
}
