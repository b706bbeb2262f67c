//! Every input again, with its time: the same decisions.

use crate::{
    catalog::model::{Description, Model},
    engine::{Action, Engine, Input, Policy, receipt::Receipt},
    trace::{Header, Record},
    units::ByteCount,
};

/// An engine that is told what another one was told.
#[derive(Debug)]
pub struct Replay {
    engine: Engine,
    told: u64,
    impossible: u64,
    steps: u64,
    bytes: u64,
    recorded: Vec<Receipt>,
    replayed: Vec<Receipt>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Inputs.
    pub inputs: u64,
    /// Inputs that were left out: no agent is told of such models.
    pub impossible: u64,
    /// Steps that the engine wanted warmed.
    pub steps: u64,
    /// Bytes of these.
    pub bytes: ByteCount,
    /// Receipts that were recorded.
    pub recorded: Vec<Receipt>,
    /// Receipts that the replay wrote.
    pub replayed: Vec<Receipt>,
}

impl Outcome {
    /// Whether the replay decided as the recorded engine did, as far as receipts tell.
    pub fn is_same(&self) -> bool {
        self.recorded == self.replayed
    }
}

/// Bytes of a model that an engine is told of: it keeps an account of every step, and a trace may have been written by anybody.
const MOST_BYTES: u64 = 1 << 44;

/// Parts of a model that an engine is told of.
const MOST_PARTS: usize = 1 << 16;

/// Whether a trace can hold this input.
fn is_possible(input: &Input) -> bool {
    let is_possible = |description: &Description| {
        is_possible_model(&description.model) && description.position < description.model.parts.len()
    };
    match input {
        Input::Described {
            description: Some(description),
            ..
        }
        | Input::Found {
            description: Some(description),
            ..
        }
        | Input::Named { description, .. } => is_possible(description),
        Input::Ordered { items, .. } => items.iter().all(|item| is_possible_model(&item.model)),
        _ => true,
    }
}

/// Whether an engine can be told of this model.
pub fn is_possible_model(model: &Model) -> bool {
    let bytes = model.parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.size));
    (1..=MOST_PARTS).contains(&model.parts.len()) && bytes <= MOST_BYTES
}

/// The policy that a trace was recorded with.
pub fn policy_of(header: &Header) -> Policy {
    Policy {
        ceiling: header.ceiling,
        reserve: header.reserve,
        dry_run: header.dry_run,
        ignored: header.ignored.clone(),
        inferred: header.inferred,
        charge_consumer: header.charge_consumer,
        retain: header.retain,
        booted: header.booted,
        holdout: header.holdout,
    }
}

impl Replay {
    /// An engine as the recorded one was when the recording began.
    pub fn new(header: &Header) -> Self {
        Self {
            engine: Engine::new(policy_of(header)).beginning_at(header.next_load),
            told: 0,
            impossible: 0,
            steps: 0,
            bytes: 0,
            recorded: Vec::new(),
            replayed: Vec::new(),
        }
    }

    /// Tells it what a record tells.
    pub fn tell(&mut self, record: Record) {
        let at = record.at();
        let input = match record {
            Record::Input { input, .. } if is_possible(&input) => input,
            Record::Input { .. } => {
                self.impossible += 1;
                return;
            }
            Record::Receipt { receipt, .. } => return self.recorded.push(*receipt),
            _ => return,
        };
        self.told += 1;
        // What it asks for was asked for then, and answered: the answers are among the inputs.
        for action in self.engine.handle(at, input) {
            match action {
                Action::Warm { range, .. } => {
                    self.steps += 1;
                    self.bytes += range.len();
                }
                Action::Finish(receipt) => self.replayed.push(*receipt),
                _ => {}
            }
        }
    }

    /// What came of it.
    pub fn end(self) -> Outcome {
        Outcome {
            inputs: self.told,
            impossible: self.impossible,
            steps: self.steps,
            bytes: ByteCount(self.bytes),
            recorded: self.recorded,
            replayed: self.replayed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::trace::tests::record;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_a_trace_says_the_engine_takes_it_and_does_the_same_again(records in vec(record(), 0..80)) {
            let run = || {
                let mut replay = Replay::new(&Header::default());
                records.iter().for_each(|record| replay.tell(record.clone()));
                replay.end()
            };
            let (one, other) = (run(), run());
            prop_assert_eq!((one.inputs, one.steps, one.replayed), (other.inputs, other.steps, other.replayed));
        }
    }
}
