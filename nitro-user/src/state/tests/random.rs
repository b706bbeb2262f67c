//! Any sequence of changes, written in any batches, is what a plain map makes of it.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::engine::learn::row::{BEGINNING, Change};

#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    /// All is written.
    Flush,
    /// The agent ends, and another begins.
    Restart,
}

/// What the state must be.
#[derive(Default)]
struct Truth(BTreeMap<Key, Row>);

impl Truth {
    fn take(&mut self, change: Change) {
        match change {
            Change::Put(row) => drop(self.0.insert(Key::of(&row), row)),
            Change::ForgetModel(0 | BEGINNING) | Change::ForgetProgram(0) => {}
            Change::ForgetProgram(program) => self.0.retain(|key, _| key.program() != program),
            Change::ForgetOrder { model, program } => drop(self.0.remove(&Key::Order { model, program })),
            Change::ForgetModel(model) => self.0.retain(|key, _| !key.models().contains(&model)),
            Change::Fade { program, context, next } => drop(self.0.remove(&Key::Successor { program, context, next })),
            Change::ForgetAll => self.0.clear(),
        }
    }

    /// What names something that is not there is gone after a restart.
    fn restart(&mut self) {
        let there: Vec<_> = self.0.keys().cloned().collect();
        self.0.retain(|key, _| {
            key.models()
                .iter()
                .all(|model| *model == 0 || there.contains(&Key::Model(*model)))
                && (key.program() == 0 || there.contains(&Key::Program(key.program())))
        });
    }
}

/// Few numbers, so that rows meet.
fn number() -> impl Strategy<Value = Number> {
    1..6u32
}

fn layouts() -> impl Strategy<Value = LayoutKind> {
    proptest::sample::select(vec![LayoutKind::Ollama, LayoutKind::HuggingFace, LayoutKind::Single])
}

fn rows() -> impl Strategy<Value = Row> {
    let run = (0..9u32, 0..u32::MAX / 2, 1..u32::MAX / 2);
    let at = 0..253_402_300_800u64;
    prop_oneof![
        (number(), "/[a-z\u{e9}]{0,20}").prop_map(|(number, path)| Row::Model {
            number,
            path: path.into()
        }),
        (number(), ".{0,15}").prop_filter_map("a name has no NUL", |(number, name)| {
            (!name.contains('\0') && name.len() <= 64).then_some(Row::Program { number, name })
        }),
        (number(), 0.0..1e9f64, any::<bool>(), at.clone()).prop_map(|(model, heat, asked, at)| Row::Heat {
            model,
            heat,
            asked,
            at
        }),
        (
            0..4u32,
            [0..4u32, 0..3u32, 0..2u32],
            0..5u32,
            0f32..1e9,
            at.clone(),
            -64f32..64.0,
            0f32..64.0
        )
            .prop_map(
                |(program, context, next, weight, at, gap_log, gap_spread)| Row::Successor(Successor {
                    program,
                    context,
                    next,
                    weight,
                    at,
                    gap_log,
                    gap_spread
                })
            ),
        (number(), 0..4u32, 0..=1u64 << 60, vec(run, 0..20), 0f32..1e9).prop_map(
            |(model, program, bytes, runs, weight)| {
                let Row::Order(order) = order(model, program, &runs) else {
                    unreachable!()
                };
                Row::Order(Order { bytes, weight, ..order })
            }
        ),
        (layouts(), 0..4u32, 0f32..1e9, at.clone(), -64f32..64.0, 0f32..64.0).prop_map(
            |(layout, program, weight, at, log, spread)| Row::Lead(Lead {
                layout,
                program,
                weight,
                at,
                log,
                spread
            })
        ),
        (any::<u8>(), 0f32..1e9, 0f32..1.0).prop_map(|(bucket, all, part)| Row::Calibration {
            bucket: bucket % 3,
            right: all * part,
            all
        }),
        ("[ab]", proptest::option::of(1.0..1e12f64), any::<u32>(), at).prop_map(|(identity, rate, times, at)| {
            let mut knowledge = Knowledge {
                rate: rate.map(Rate),
                ..Knowledge::default()
            };
            knowledge.maps_setback.times = times;
            Row::Device {
                identity,
                knowledge,
                at,
            }
        }),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let fade = (0..4u32, [0..4u32, 0..3u32, 0..2u32], 0..5u32);
    prop_oneof![
        40 => rows().prop_map(|row| Step::Change(Change::Put(row))),
        4 => (0..6u32).prop_map(|model| Step::Change(Change::ForgetModel(model))),
        2 => number().prop_map(|program| Step::Change(Change::ForgetProgram(program))),
        1 => (number(), number()).prop_map(|(model, program)| Step::Change(Change::ForgetOrder { model, program })),
        4 => fade.prop_map(|(program, context, next)| Step::Change(Change::Fade { program, context, next })),
        1 => Just(Step::Change(Change::ForgetAll)),
        4 => Just(Step::Flush),
        2 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_was_put_and_not_forgotten(steps in vec(steps(), 0..120)) {
        let dir = directory();
        let mut truth = Truth::default();
        let mut heard = open_quietly(dir.path());
        for step in steps.into_iter().chain([Step::Restart]) {
            match step {
                Step::Change(change) => {
                    heard.store.keep(change.clone());
                    truth.take(change);
                }
                Step::Flush => heard.written(),
                Step::Restart => {
                    drop(heard);
                    heard = open_quietly(dir.path());
                    truth.restart();
                    let wanted: Vec<_> = truth.0.values().cloned().collect();
                    prop_assert_eq!(sorted(&heard.rows), wanted);
                }
            }
        }
    }
}
