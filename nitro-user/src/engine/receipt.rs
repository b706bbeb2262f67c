//! What a load came to: demanded = resident before + kernel readahead + warmed in time + warmed late + missed; plus wasted.
//!
//! What we brought in is what the workers verified, step by step. What the reader brought in, and what of that it waited for, the kernel counted
//! in its cursors. What is left was there before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    evidence::Evidence,
    happening::Skip,
    input::{Access, AccessKind},
    load::{Load, saved::Saved},
    pattern::Pattern,
    steps::Step,
};
use crate::{
    catalog::model::LayoutKind,
    units::{ByteCount, ByteRange, Moment},
};

/// How a model was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReaderKind {
    /// A mapping touched in order.
    SequentialMap,
    /// A mapping filled inside a system call.
    Populate,
    /// A mapping with `MADV_RANDOM`: each fault brings in one folio.
    RandomHintMap,
    /// Buffered reads.
    Buffered,
    /// Past the page cache.
    ODirect,
    /// It was announced and never came.
    Unknown,
}

impl ReaderKind {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SequentialMap => "sequential map",
            Self::Populate => "populate",
            Self::RandomHintMap => "random-hint map",
            Self::Buffered => "buffered",
            Self::ODirect => "O_DIRECT",
            Self::Unknown => "unknown",
        }
    }
}

/// Events by kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct KindCounts {
    reads: u64,
    touches: u64,
    populates: u64,
}

impl KindCounts {
    /// Counts an event.
    pub fn count(&mut self, access: &Access) {
        match access.kind {
            AccessKind::Read => self.reads += 1,
            AccessKind::MapTouch => self.touches += 1,
            AccessKind::MapPopulate => self.populates += 1,
            AccessKind::Map | AccessKind::Open | AccessKind::Brought => {}
        }
    }

    /// Whether a mapping was touched.
    pub fn any_touch(&self) -> bool {
        self.touches > 0
    }

    /// Whether it reads, and maps nothing.
    pub fn only_reads(&self) -> bool {
        self.reads > 0 && self.touches + self.populates == 0
    }

    /// The kind most events speak for. `added` and `missed` tell the random hint: without readahead, all that was added was missed.
    fn kind(&self, added: u64, missed: u64) -> ReaderKind {
        if self.populates > self.touches.max(self.reads) {
            ReaderKind::Populate
        } else if self.touches > self.reads {
            if added > 0 && missed * 10 >= added * 9 {
                ReaderKind::RandomHintMap
            } else {
                ReaderKind::SequentialMap
            }
        } else if self.reads > 0 {
            ReaderKind::Buffered
        } else {
            ReaderKind::Unknown
        }
    }
}

/// The account of one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Model or file.
    pub model: String,
    /// Layout that grouped its files.
    pub layout: LayoutKind,
    /// Name of the first process's program.
    pub program: Option<String>,
    /// Processes.
    pub pids: Vec<u32>,
    /// Real user of the processes; `None` where they differ, or are not known.
    pub user: Option<u32>,
    /// Device of the first part: major and minor.
    pub device: (u32, u32),
    /// How it was read.
    pub reader: ReaderKind,
    /// Kind of reader, where there is a name for it.
    #[serde(default)]
    pub pattern: Option<Pattern>,
    /// The accesses were concluded from looking at the readers from time to time (fanotify mode): what a reader brought in itself all counts as
    /// `kernel_readahead`, since nobody saw what of it the reader waited for.
    #[serde(default)]
    pub inferred: bool,
    /// Strongest evidence.
    pub evidence: Evidence,
    /// Bytes that the readers accessed: once, however many read them, and once more where they had left the cache in between.
    pub demanded: ByteCount,
    /// Of those: in the page cache before the load.
    pub resident_before: ByteCount,
    /// Of those in turn: brought in by us before the load began, since it was expected or had been there.
    #[serde(default)]
    pub brought_before: ByteCount,
    /// Of those: brought in by the kernel's readahead for the reader.
    pub kernel_readahead: ByteCount,
    /// Of those: warmed by us before the reader asked.
    pub warmed_in_time: ByteCount,
    /// Of those: warmed by us, complete only after the reader asked.
    pub warmed_late: ByteCount,
    /// Of those: brought in while the reader waited for them.
    pub missed: ByteCount,
    /// Warmed by us and not used, whether still in the cache or gone again.
    pub wasted: ByteCount,
    /// First to last access, in seconds.
    pub seconds: f64,
    /// What help has saved, where there is something to compare with.
    #[serde(default)]
    pub saved: Option<Saved>,
    /// Accesses, by the kernel's count.
    pub calls: u64,
    /// Microseconds from the event that made the evidence strong to the first readahead; `None` when nothing was warmed.
    pub evidence_to_first_warm_us: Option<u64>,
    /// Why something was not warmed.
    pub skipped: Vec<Skip>,
    /// When the load began and ended, on the monotonic clock.
    pub began: Moment,
    /// See `began`.
    pub ended: Moment,
}

impl Receipt {
    /// The receipt of a load at `now`.
    pub fn of(load: &Load, now: Moment) -> Self {
        let (mut resident, mut readahead, mut missed_bytes, mut wasted) = (0, 0, 0, 0);
        let (mut calls, mut added_all, mut missed_all) = (0, 0, 0);
        let (mut parts_in_time, mut parts_late, mut demanded) = (0, 0, 0);
        for (part, steps) in load.model.parts.iter().zip(&load.parts) {
            let Some(steps) = steps else { continue };
            let count = load.counts.iter().find(|count| count.file == Some(part.file));
            let count = count.copied().unwrap_or_default();
            calls += count.calls;
            added_all += count.added;
            missed_all += count.missed;
            let sum = Sums::of(steps.iter());
            wasted += sum.wasted;
            // Within a step the reader may have accessed less than all: the kernel counted the bytes.
            let asked = if count.bytes == 0 {
                sum.touched
            } else {
                sum.touched.min(count.bytes)
            };
            let share = if sum.touched == 0 {
                0.0
            } else {
                asked as f64 / sum.touched as f64
            };
            let scaled = |bytes: u64| (bytes as f64 * share) as u64;
            let (part_in_time, part_late) = (scaled(sum.in_time), scaled(sum.late));
            let rest = asked.saturating_sub(part_in_time + part_late);
            let by_reader = rest.min(count.added);
            let missed = by_reader.min(count.missed);
            demanded += asked;
            parts_in_time += part_in_time;
            parts_late += part_late;
            missed_bytes += missed;
            readahead += by_reader - missed;
            resident += rest - by_reader;
            wasted += (sum.in_time - part_in_time) + (sum.late - part_late);
        }
        let ended = load.last_access.unwrap_or(now);
        let device = load.model.parts.first().map_or(0, |part| part.file.device);
        let reader = if load.skipped.contains(&Skip::DirectIo) {
            ReaderKind::ODirect
        } else {
            load.kinds.kind(added_all, missed_all)
        };
        let to_first_warm = load
            .strong_at
            .zip(load.first_submit)
            .map(|(evidence, submit)| submit.since(evidence));
        Self {
            model: load.model.name.clone(),
            layout: load.model.layout,
            program: load.readers.program().map(str::to_owned),
            pids: load.readers.taking_part(),
            user: load.readers.user(),
            device: (device >> 20, device & 0xf_ffff),
            reader,
            pattern: load.pattern(),
            inferred: false,
            evidence: load.evidence,
            demanded: ByteCount(demanded),
            resident_before: ByteCount(resident),
            brought_before: ByteCount(load.brought_before.min(resident)),
            kernel_readahead: ByteCount(readahead),
            warmed_in_time: ByteCount(parts_in_time),
            warmed_late: ByteCount(parts_late),
            missed: ByteCount(missed_bytes),
            wasted: ByteCount(wasted),
            seconds: ended.since(load.started).as_secs_f64(),
            saved: None,
            calls,
            evidence_to_first_warm_us: to_first_warm.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            skipped: load.skipped.clone(),
            began: load.started,
            ended,
        }
    }

    /// `2.30 s, buffered, 97 % warmed in time, 3 % warmed late, 8 MiB wasted`.
    pub fn summary(&self) -> String {
        let share = |part: ByteCount| 100.0 * part.0 as f64 / self.demanded.0.max(1) as f64;
        let mut words = vec![format!("{:.2} s, {}", self.seconds, self.reader.name())];
        words.extend(self.pattern.map(|pattern| pattern.name().to_owned()));
        let by_itself = if self.inferred {
            words.push("inferred".to_owned());
            "brought in by itself"
        } else {
            "kernel readahead"
        };
        for (part, name) in [
            (self.resident_before, "resident before"),
            (self.kernel_readahead, by_itself),
            (self.warmed_in_time, "warmed in time"),
            (self.warmed_late, "warmed late"),
            (self.missed, "missed"),
        ] {
            if part.0 > 0 {
                words.push(format!("{:.0} % {name}", share(part)));
            }
        }
        if self.brought_before.0 > 0 {
            words.push(format!("{} of it brought in before", self.brought_before));
        }
        if let Some(saved) = self.saved {
            words.push(saved.to_string());
        }
        // No share of what was demanded: perhaps nothing was.
        if self.wasted.0 > 0 {
            words.push(format!("{} wasted", self.wasted));
        }
        if self.warmed_in_time.0 + self.warmed_late.0 == 0
            && let Some(skip) = self.skipped.last()
        {
            words.push(skip.reason().to_owned());
        }
        words.join(", ")
    }

    /// How long it took.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.max(0.0))
    }
}

/// Sums over the steps of a part.
#[derive(Default)]
struct Sums {
    touched: u64,
    in_time: u64,
    late: u64,
    wasted: u64,
}

impl Sums {
    fn of<'a>(steps: impl Iterator<Item = (ByteRange, &'a Step)>) -> Self {
        let mut sum = Self::default();
        for (range, step) in steps {
            let (ours, lost) = (u64::from(step.ours), u64::from(step.lost));
            let spilled = u64::from(step.spilled);
            if step.demands > 0 {
                let asked = range.len() * u64::from(step.demands);
                let in_time = (u64::from(step.in_time) + spilled).min(asked);
                let late = u64::from(step.late).min(asked - in_time);
                sum.touched += asked;
                sum.in_time += in_time;
                sum.late += late;
                sum.wasted += ours + lost;
            } else {
                sum.wasted += ours + spilled + lost;
            }
        }
        sum
    }
}
