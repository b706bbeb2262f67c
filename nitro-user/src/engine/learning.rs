//! What is learned beyond single loads: it goes out as changes of rows, and comes back as rows when the agent starts.

use std::time::Duration;

use super::{
    Engine,
    action::Action,
    learn::row::{Change, Row},
    plan::device::Knowledge,
    retain::heat::{Heat, decayed},
};
use crate::units::Moment;

impl Engine {
    /// The time since 1970 at a moment.
    fn since_1970(&self, at: Moment) -> Duration {
        self.policy.booted.saturating_add(at.since(Moment(0)))
    }

    /// What was kept of the last run.
    pub(super) fn learned(&mut self, now: Moment, rows: &[Row]) {
        rows.iter().for_each(|row| self.names.restore(row));
        let (unix, half_life) = (self.since_1970(now), self.policy.retain.half_life);
        let mut hot: Vec<(_, f64, bool)> = Vec::new();
        for row in rows {
            if let Row::Heat { model, heat, asked, at } = row
                && let Some(path) = self.names.path(*model)
            {
                let age = unix.saturating_sub(Duration::from_secs(*at));
                hot.push((path.to_owned(), decayed(*heat, age, half_life), *asked));
            }
        }
        hot.sort_by(|one, other| other.1.total_cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        let hot = hot.into_iter();
        self.retention.restore(
            hot.map(|(path, heat, asked)| (path, Heat::new(heat, now), asked))
                .collect(),
        );
    }

    /// What was known of a device.
    pub(super) fn recalled(&mut self, number: u32, knowledge: Knowledge, actions: &mut Vec<Action>) {
        let device = self.devices.entry(number).or_default();
        device.recall(knowledge);
        for load in self.loads.values_mut().filter(|load| load.key.device == number) {
            load.recalled(device, actions);
        }
    }

    /// Hands out what is to be kept of what has changed.
    pub(super) fn teach(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let news = self.retention.take_news(now);
        if news.is_empty() {
            return;
        }
        let unix = self.since_1970(now);
        for (path, heat, asked) in news {
            let model = self.names.model(unix, &path);
            let row = Row::Heat {
                model,
                heat,
                asked,
                at: unix.as_secs(),
            };
            self.names.take_forgotten();
            let changes = self.names.take_changes().into_iter().chain([Change::Put(row)]);
            actions.extend(changes.map(Action::Learn));
        }
    }
}
