//! Progress on stderr: a bar for people, lines for logs.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One run's.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of a run that takes `estimate` seconds.
    pub fn new(estimate: f64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(estimate.ceil() as u64), ProgressDrawTarget::stderr());
        // A template is only wrong when it is changed: the plain style then.
        bar.set_style(
            ProgressStyle::with_template("{elapsed} {wide_bar} {msg} of about {len} s")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// What is being done now.
    pub fn step(&self, message: String) {
        self.bar.set_message(message);
        self.bar.set_position(self.bar.elapsed().as_secs());
    }

    /// The bar goes.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
