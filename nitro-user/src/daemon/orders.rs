//! Orders by hand, from the control socket to the engine and back: the catalog is asked what is meant, the engine told, and whoever waits hears how far it is.

use std::{collections::BTreeMap, path::PathBuf};

use tokio::sync::{oneshot, watch};

use super::wiring::Wiring;
use crate::{
    catalog::below::Found,
    control::{
        protocol::{Code, Refusal},
        server::{OrderTaken, Word},
    },
    engine::{
        Input,
        explanation::Explanation,
        input::{Command, Item, OrderId},
        order::Progress,
        retain::path_of,
    },
    sys::clock,
    units::printable,
};

/// Orders at once.
const MOST: usize = 64;

/// Models that one answer tells of.
const MOST_EXPLAINED: usize = 64;

/// What the catalog was asked for.
pub(super) enum Meant {
    /// This is to be done.
    Command(Command),
    /// Somebody wants to know of it.
    Explain(oneshot::Sender<Result<Vec<Explanation>, Refusal>>),
    /// It is to be forgotten: what is at these paths, though it may not be there any more.
    Forget(Vec<PathBuf>, oneshot::Sender<Result<(), Refusal>>),
}

/// One that the catalog was asked about.
struct Asked {
    meant: Meant,
    /// Parts of the catalog that have not answered.
    answers: usize,
    paths: usize,
    found: Found,
}

/// All of them.
#[derive(Default)]
pub struct Orders {
    last: u64,
    asked: BTreeMap<u64, Asked>,
    /// Who waits for each, until it is over.
    waiting: BTreeMap<OrderId, watch::Sender<Word>>,
}

impl Wiring {
    /// Somebody wants something done with what is at these paths.
    pub(super) fn order(
        &mut self,
        command: Command,
        paths: Vec<PathBuf>,
        answer: oneshot::Sender<Result<OrderTaken, Refusal>>,
    ) {
        let refused = self.unwanted(command);
        if let Some(refusal) = refused {
            let _ = answer.send(Err(refusal));
            return;
        }
        match self.seek(paths, Meant::Command(command)) {
            Ok(number) => {
                let (tell, word) = watch::channel(Word::Wait);
                self.orders.waiting.insert(OrderId(number), tell);
                let _ = answer.send(Ok((OrderId(number), word)));
            }
            Err((_, refusal)) => {
                let _ = answer.send(Err(refusal));
            }
        }
    }

    /// Somebody wants to know what is at these paths, or have it forgotten.
    pub(super) fn look_up(&mut self, paths: Vec<PathBuf>, meant: Meant) {
        if let Err((meant, refusal)) = self.seek(paths, meant) {
            meant.refuse(refusal);
        }
    }

    /// Asks the catalog.
    fn seek(&mut self, paths: Vec<PathBuf>, meant: Meant) -> Result<u64, (Meant, Refusal)> {
        if self.orders.asked.len() >= MOST {
            return Err((
                meant,
                Refusal::new(Code::TooMany, "too many such orders at once: try again"),
            ));
        }
        let count = paths.len();
        match self.catalog.ask_below(self.orders.last + 1, paths) {
            Ok(answers) => {
                self.orders.last += 1;
                let asked = Asked {
                    meant,
                    answers,
                    paths: count,
                    found: Found::default(),
                };
                self.orders.asked.insert(self.orders.last, asked);
                Ok(self.orders.last)
            }
            Err(refused) => Err((meant, Refusal::new(Code::Busy, format!("{refused}: try again")))),
        }
    }

    /// Why nothing is done.
    fn unwanted(&self, command: Command) -> Option<Refusal> {
        let policy = self.engine.policy();
        let refusal = |code, message: &str| Some(Refusal::new(code, message));
        match command {
            _ if policy.dry_run && command != Command::Unpin => {
                refusal(Code::Off, "the agent only watches: it was started with --dry-run")
            }
            Command::Pin if policy.retain.pin.0 == 0 => refusal(
                Code::Off,
                "no memory is set aside for what is pinned: start the agent with --pin SIZE",
            ),
            _ if self.orders.waiting.len() >= MOST => refusal(Code::TooMany, "too many such orders at once: try again"),
            _ => None,
        }
    }

    /// The catalog, or a part of it, says what is there.
    pub(super) fn found_below(&mut self, number: u64, found: Found) {
        let Some(asked) = self.orders.asked.get_mut(&number) else {
            return;
        };
        asked.answers = asked.answers.saturating_sub(1);
        asked.found.models.extend(found.models);
        asked.found.strangers.extend(found.strangers);
        asked.found.too_many |= found.too_many;
        if asked.answers > 0 {
            return;
        }
        let Some(asked) = self.orders.asked.remove(&number) else {
            return;
        };
        let order = OrderId(number);
        let refusal = asked.refusal();
        let (meant, models) = (asked.meant, asked.found.models);
        match (meant, refusal) {
            // What is not there any more can be forgotten all the same.
            (Meant::Forget(paths, done), _) => {
                let places = models.iter().filter_map(|(model, _)| path_of(model));
                for path in paths.into_iter().chain(places) {
                    self.feed(Input::Forget { path: Some(path) });
                }
                let _ = done.send(Ok(()));
            }
            (Meant::Command(_), Some(refusal)) => {
                if let Some(waiting) = self.orders.waiting.remove(&order) {
                    waiting.send_replace(Word::Refused(refusal));
                }
            }
            (meant, Some(refusal)) => meant.refuse(refusal),
            (Meant::Command(command), None) => {
                let items = models.into_iter();
                let items = items.map(|(model, parts)| Item { model, parts }).collect();
                self.feed(Input::Ordered { order, command, items });
            }
            (Meant::Explain(answer), None) if models.len() > MOST_EXPLAINED => {
                let message = format!("there are {} models: name {MOST_EXPLAINED} at most", models.len());
                let _ = answer.send(Err(Refusal::new(Code::TooMany, message)));
            }
            (Meant::Explain(answer), None) => {
                let now = clock::now();
                let explained = models.iter().map(|(model, _)| self.engine.explain(now, model));
                let _ = answer.send(Ok(explained.collect()));
            }
        }
    }

    /// An order is so far.
    pub(super) fn progressed(&mut self, order: OrderId, progress: Progress) {
        if let Some(waiting) = self.orders.waiting.get(&order) {
            waiting.send_replace(Word::Progress(progress));
        }
        if progress.over {
            self.orders.waiting.remove(&order);
        }
    }

    /// Whoever gave an order has gone.
    pub(super) fn withdraw(&mut self, order: OrderId) {
        self.orders.asked.remove(&order.0);
        if self.orders.waiting.remove(&order).is_some() {
            self.feed(Input::Withdrawn { order });
        }
    }
}

impl Meant {
    /// Whoever waits is told why nothing comes. Who gave an order hears of it with the order's number.
    fn refuse(self, refusal: Refusal) {
        match self {
            Self::Command(_) => {}
            Self::Explain(answer) => drop(answer.send(Err(refusal))),
            Self::Forget(_, done) => drop(done.send(Err(refusal))),
        }
    }
}

impl Asked {
    fn refusal(&self) -> Option<Refusal> {
        if let Some(stranger) = self.found.strangers.first() {
            let stranger = printable(&stranger.to_string_lossy());
            let others = match self.found.strangers.len() {
                1 => String::new(),
                more => format!(" and {} others", more - 1),
            };
            return Some(Refusal::new(
                Code::NotWatched,
                format!(
                    "nothing at {stranger}{others} is watched: `nitro-agent status` lists the directories that are"
                ),
            ));
        }
        if self.found.too_many {
            return Some(Refusal::new(
                Code::TooMany,
                format!("too many files at {} paths: name directories below", self.paths),
            ));
        }
        None
    }
}
