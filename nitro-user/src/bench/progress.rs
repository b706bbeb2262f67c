//! How far a bench has come, on standard error: a bar on a terminal, nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the bar is drawn again while nothing happens.
const TICK: Duration = Duration::from_millis(500);

/// A bar.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// Seconds that it was to take.
    whole: f64,
}

impl Progress {
    /// One that is full after `seconds`, roughly.
    pub fn new(seconds: f64) -> Self {
        Self::on(ProgressDrawTarget::stderr(), seconds)
    }

    /// One that nobody sees: where somebody else writes to the terminal.
    pub fn hidden() -> Self {
        Self::on(ProgressDrawTarget::hidden(), 1.0)
    }

    fn on(target: ProgressDrawTarget, seconds: f64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(seconds.ceil().max(1.0) as u64), target);
        // A template is only wrong when it is changed: the plain style then.
        bar.set_style(
            ProgressStyle::with_template("{elapsed} of about {len} s {bar:30} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.enable_steady_tick(TICK);
        Self { bar, whole: seconds }
    }

    /// What is being done now.
    pub fn step(&self, message: &str) {
        self.bar.set_message(message.to_owned());
        let most = self.bar.length().unwrap_or(1).saturating_sub(1);
        self.bar.set_position(self.bar.elapsed().as_secs().min(most));
    }

    /// So many seconds of the whole are behind, whatever the clock says.
    pub fn behind(&self, seconds: f64) {
        let now = self.bar.elapsed().as_secs_f64();
        // What is left, at the pace so far.
        let left = (self.whole - seconds).max(0.0) * (now / seconds.max(1.0)).clamp(0.2, 5.0);
        self.bar.set_length((now + left).ceil().max(1.0) as u64);
    }

    /// The whole takes so many times what has passed.
    pub fn expect(&self, times: f64) {
        let whole = self.bar.elapsed().as_secs_f64() * times;
        self.bar.set_length(whole.ceil().max(1.0) as u64);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
