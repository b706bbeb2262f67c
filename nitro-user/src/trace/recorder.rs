//! The daemon's end: takes records as they happen and hands frames to whoever writes them.
//!
//! Nothing here waits. While nobody takes the frames that are ready, records are counted and dropped; so are those beyond the rate. What was begun is never dropped, so that the tables of the
//! reader stay those of the writer.

use std::time::Duration;

use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::{
    FRAME,
    encode::Encoder,
    file::header_frame,
    frame::Frame,
    record::{Header, Loss, Record},
};
use crate::units::Moment;

/// A frame is closed after so long, however little it holds: so much is lost at most when everything ends.
const LATEST: Duration = Duration::from_millis(250);

/// What nobody took is offered again after so long.
const AGAIN: Duration = Duration::from_millis(10);

/// The rate is kept over so long.
const PERIOD: Duration = Duration::from_millis(100);

/// Records per second, unless it is said otherwise: half of a processor's time in the daemon.
pub const RATE: u64 = 300_000;

/// A recording that goes on.
#[derive(Debug)]
pub struct Recorder {
    encoder: Encoder,
    frames: Sender<Frame>,
    /// Records per second.
    rate: u64,
    /// When something is to be handed over, however little it is.
    due: Option<Moment>,
    /// A frame that nobody has taken yet.
    ready: Option<Frame>,
    /// Since when, and how many records.
    period: (Moment, u64),
    loss: Loss,
    told: Loss,
    /// What the kernel had dropped before.
    dropped_before: u64,
    ending: bool,
}

impl Recorder {
    /// Begins a recording of at most `rate` records a second. `dropped` is what the kernel has dropped so far.
    pub fn begin(header: &Header, frames: Sender<Frame>, rate: u64, dropped: u64) -> Self {
        Self {
            encoder: Encoder::default(),
            frames,
            rate,
            due: Some(header.began),
            ready: header_frame(header),
            period: (header.began, 0),
            loss: Loss::default(),
            told: Loss::default(),
            dropped_before: dropped,
            ending: false,
        }
    }

    /// Takes a record, or counts it as lost.
    pub fn take(&mut self, record: &Record) {
        let at = record.at();
        if at.since(self.period.0) >= PERIOD {
            self.period = (at, 0);
        }
        self.period.1 += 1;
        if self.period.1 > (self.rate / 10).max(1) {
            self.loss.rate += 1;
            return;
        }
        if self.encoder.len() >= FRAME && !self.close() {
            self.loss.slow += 1;
            return;
        }
        self.due.get_or_insert(at.after(LATEST));
        self.encoder.write(record);
        if self.encoder.len() >= FRAME {
            self.close();
        }
    }

    /// When [`Self::turn`] is due.
    pub const fn deadline(&self) -> Option<Moment> {
        self.due
    }

    /// Hands over what is due. `dropped` is what the kernel has dropped so far. False when all is done, or nobody wants any more.
    pub fn turn(&mut self, now: Moment, dropped: impl FnOnce() -> u64) -> bool {
        if self.due.is_some_and(|due| due <= now) {
            self.note_loss(now, dropped());
            self.due = if self.close() { None } else { Some(now.after(AGAIN)) };
        }
        let done = self.ending && self.due.is_none();
        !done && !self.frames.is_closed()
    }

    /// Nothing more is to be recorded; [`Self::turn`] hands over the rest.
    pub const fn end(&mut self, now: Moment) {
        self.ending = true;
        self.due = Some(now);
    }

    /// Whether somebody takes what is recorded.
    pub fn is_wanted(&self) -> bool {
        !self.ending && !self.frames.is_closed()
    }

    fn note_loss(&mut self, at: Moment, dropped: u64) {
        self.loss.ring = dropped.saturating_sub(self.dropped_before);
        if self.loss != self.told {
            self.told = self.loss;
            let loss = self.loss;
            self.encoder.write(&Record::Lost { at, loss });
        }
    }

    /// Hands over what there is. False when there is no room for all of it.
    fn close(&mut self) -> bool {
        if !self.hand_over() {
            return false;
        }
        if self.encoder.len() > 0 {
            self.ready = Frame::pack(&self.encoder.take());
        }
        self.due = None;
        let all = self.hand_over();
        if !all {
            self.due = Some(self.period.0.after(AGAIN));
        }
        all
    }

    fn hand_over(&mut self) -> bool {
        let Some(frame) = self.ready.take() else { return true };
        match self.frames.try_send(frame) {
            Ok(()) | Err(TrySendError::Closed(_)) => true,
            Err(TrySendError::Full(frame)) => {
                self.ready = Some(frame);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::{
        engine::input::Input,
        trace::{decode::Decoder, frame::FrameReader},
    };

    fn tick(at: u64) -> Record {
        let at = Moment(at);
        let input = Input::Tick;
        Record::Input { at, input }
    }

    /// The header, and the records of all frames that there are.
    fn taken(frames: &mut Receiver<Frame>) -> (Vec<u8>, Vec<Record>) {
        let mut bytes = Vec::new();
        while let Ok(frame) = frames.try_recv() {
            bytes.extend_from_slice(frame.bytes());
        }
        let mut reader = FrameReader::new(&*bytes);
        let header = reader.next_frame().unwrap().unwrap().unpack().unwrap();
        let (mut decoder, mut records) = (Decoder::default(), Vec::new());
        while let Some(frame) = reader.next_frame().unwrap() {
            decoder.read(&frame.unpack().unwrap(), &mut records).unwrap();
        }
        (header, records)
    }

    fn lost(records: &[Record]) -> Loss {
        let last = records.iter().rev().find_map(|record| match record {
            Record::Lost { loss, .. } => Some(*loss),
            _ => None,
        });
        last.unwrap_or_default()
    }

    #[test]
    fn what_is_taken_is_handed_over_within_a_quarter_of_a_second() {
        let (frames, mut taker) = channel(4);
        let mut recorder = Recorder::begin(&Header::default(), frames, RATE, 0);
        recorder.take(&tick(5));
        assert!(recorder.turn(Moment(5), || 0));
        recorder.take(&tick(6));
        assert!(recorder.turn(Moment(7), || 0), "not due yet");
        let due = recorder.deadline().unwrap();
        assert!(due.since(Moment(6)) <= LATEST);
        assert!(recorder.turn(due, || 3));
        assert_eq!(recorder.deadline(), None);
        let (header, records) = taken(&mut taker);
        assert!(header.starts_with(b"{"));
        assert_eq!(records[..2], [tick(5), tick(6)]);
        assert_eq!(
            lost(&records),
            Loss {
                ring: 3,
                ..Loss::default()
            }
        );
    }

    #[test]
    fn while_nobody_takes_them_records_are_counted_and_dropped_and_the_rest_is_whole() {
        let (frames, mut taker) = channel(2);
        let mut recorder = Recorder::begin(&Header::default(), frames, u64::MAX, 0);
        let all: u64 = 400_000;
        (0..all).for_each(|at| recorder.take(&tick(at)));
        let (_, first) = taken_and_more(&mut recorder, &mut taker, Moment(all));
        let loss = lost(&first);
        assert!(loss.slow > 0 && loss.rate == 0, "{loss:?}");
        assert_eq!(first.len() as u64 - 1 + loss.slow, all);
        let kept = first.len() - 1;
        assert!(
            first[..kept]
                .iter()
                .enumerate()
                .all(|(at, record)| *record == tick(at as u64))
        );
    }

    /// Ends a recording, and takes all of it.
    fn taken_and_more(recorder: &mut Recorder, taker: &mut Receiver<Frame>, now: Moment) -> (Vec<u8>, Vec<Record>) {
        let mut bytes = Vec::new();
        recorder.end(now);
        let mut at = now;
        loop {
            while let Ok(frame) = taker.try_recv() {
                bytes.extend_from_slice(frame.bytes());
            }
            if !recorder.turn(at, || 0) {
                break;
            }
            at = recorder.deadline().unwrap();
        }
        while let Ok(frame) = taker.try_recv() {
            bytes.extend_from_slice(frame.bytes());
        }
        let (frames, mut again) = channel(4096);
        let mut reader = FrameReader::new(&*bytes);
        while let Some(frame) = reader.next_frame().unwrap() {
            frames.try_send(frame).unwrap();
        }
        taken(&mut again)
    }

    #[test]
    fn beyond_its_rate_records_are_counted_and_dropped() {
        let (frames, mut taker) = channel(64);
        let mut recorder = Recorder::begin(&Header::default(), frames, 1000, 0);
        // A second, ten times as fast.
        (0..10_000).for_each(|number| recorder.take(&tick(number * 100_000)));
        let (_, records) = taken_and_more(&mut recorder, &mut taker, Moment(1_000_000_000));
        let loss = lost(&records);
        assert_eq!(records.len() as u64 - 1, 1000);
        assert_eq!((loss.rate, loss.slow), (9000, 0));
    }

    #[test]
    fn when_nobody_wants_it_any_more_it_ends() {
        let (frames, taker) = channel(64);
        let mut recorder = Recorder::begin(&Header::default(), frames, RATE, 0);
        drop(taker);
        recorder.take(&tick(1));
        assert!(!recorder.is_wanted());
        assert!(!recorder.turn(Moment(2), || 0));
    }
}
