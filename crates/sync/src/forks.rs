//! Where the branches of a forked log part. Each side shows places along every branch of its own, the other says which
//! is the highest that it holds, and only then sends what comes after. What is shown are ids, so it waits until the peer
//! may read.

use crate::frame::SAMPLES;
use anabranch_core::id::{LogId, Position};
use std::collections::{BTreeMap, BTreeSet};

/// Questions that may be open in one direction. Part of the protocol.
pub(crate) const OPEN: usize = 64;

/// One side's questions, and how many of the peer's are being worked on.
#[derive(Debug, Default)]
pub(crate) struct Forks {
    questions: BTreeMap<LogId, Question>,
    /// Questions sent and not answered, over all logs.
    open: usize,
    /// Logs of which our branches are or were shown since the last plan.
    shown: BTreeSet<LogId>,
    answering: usize,
}

#[derive(Debug, Default)]
struct Question {
    /// Places along branches, to be shown.
    unasked: Vec<Vec<Position>>,
    open: usize,
    /// What the peer said it holds.
    held: Vec<Position>,
}

impl Forks {
    /// Starts over with what a new comparison found. Answers under way still count.
    pub(crate) fn plan(&mut self, branches: Vec<Vec<Position>>) {
        self.shown.clear();
        self.questions.values_mut().for_each(|question| question.unasked.clear());
        self.questions.retain(|_, question| question.open > 0);
        self.add(branches);
    }

    fn add(&mut self, branches: Vec<Vec<Position>>) {
        for mut samples in branches {
            samples.truncate(SAMPLES);
            let Some(log) = samples.first().map(|tip| tip.log) else { continue };
            self.shown.insert(log);
            self.questions.entry(log).or_default().unasked.push(samples);
        }
    }

    /// The next places to show, if few enough wait for an answer.
    pub(crate) fn next(&mut self) -> Option<Vec<Position>> {
        if self.open >= OPEN {
            return None;
        }
        let question = self.questions.values_mut().find(|q| !q.unasked.is_empty())?;
        let samples = question.unasked.pop()?;
        question.open += 1;
        self.open += 1;
        Some(samples)
    }

    /// An answer came. When it was the last one about `log`, says what the peer holds of it.
    pub(crate) fn answered(
        &mut self,
        log: LogId,
        held: Option<Position>,
    ) -> Option<Vec<Option<Position>>> {
        let question = self.questions.get_mut(&log).filter(|question| question.open > 0)?;
        question.open -= 1;
        self.open -= 1;
        question.held.extend(held);
        if question.open > 0 || !question.unasked.is_empty() {
            return None;
        }
        let held = self.questions.remove(&log)?.held;
        Some(if held.is_empty() { vec![None] } else { held.into_iter().map(Some).collect() })
    }

    /// The peer shows a branch of `log`: whether there is room to answer, and whether it should be shown ours.
    pub(crate) fn asked(&mut self, log: &LogId) -> Option<bool> {
        if self.answering >= OPEN {
            return None;
        }
        self.answering += 1;
        Some(!self.shown.contains(log))
    }

    /// The answer is on its way; `ours` are our branches, if they were to be shown and still are not.
    pub(crate) fn answer(&mut self, log: &LogId, ours: Vec<Vec<Position>>) {
        self.answering = self.answering.saturating_sub(1);
        if !self.shown.contains(log) {
            self.add(ours);
        }
    }

    /// Whether nothing is to be asked and no answer is outstanding.
    pub(crate) fn is_settled(&self) -> bool {
        self.questions.is_empty()
    }

    /// Whether the peer waits for an answer. What it asked may show that there is more to send.
    pub(crate) fn is_answering(&self) -> bool {
        self.answering > 0
    }
}
