//! Slots for those who catch up: so many at once, by priority, then in turn. A slot is given back after a while even if its
//! holder is not done: it goes on, and nobody waits for it, so that small databases do not wait behind a huge one.

use crate::intent::Priority;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Hands out slots.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    turn: u64,
    waiting: BTreeMap<(Priority, u64), oneshot::Sender<Slot>>,
}

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: count, turn: 0, waiting: BTreeMap::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot.
    pub(crate) async fn take(&self, priority: Priority) -> Slot {
        let receiver = {
            let mut state = self.state();
            if let Some(slot) = self.free(&mut state) {
                return slot;
            }
            let (sender, receiver) = oneshot::channel();
            state.turn += 1;
            let turn = state.turn;
            state.waiting.insert((priority, turn), sender);
            receiver
        };
        // The other end is in the state, which lives as long as this handle.
        receiver.await.unwrap_or(Slot(None))
    }

    /// A slot, if one is free and nobody waits for it.
    pub(crate) fn try_take(&self) -> Option<Slot> {
        self.free(&mut self.state())
    }

    fn free(&self, state: &mut State) -> Option<Slot> {
        (state.free > 0 && state.waiting.is_empty()).then(|| {
            state.free -= 1;
            Slot(Some(self.clone()))
        })
    }

    fn give_back(&self) {
        loop {
            let mut state = self.state();
            let Some((_, next)) = state.waiting.pop_first() else {
                state.free += 1;
                return;
            };
            drop(state);
            // One that gave up waiting hands it on.
            match next.send(Slot(Some(self.clone()))) {
                Ok(()) => return,
                Err(mut unused) => unused.0 = None,
            }
        }
    }
}

/// The right to catch up.
#[derive(Debug)]
pub(crate) struct Slot(Option<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(slots) = self.0.take() {
            slots.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slots_go_by_priority_and_then_in_turn() {
        let slots = Slots::new(1);
        let first = slots.take(Priority::Low).await;
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut waiting = Vec::new();
        for (name, priority) in [
            ("low", Priority::Low),
            ("a", Priority::Normal),
            ("b", Priority::Normal),
            ("high", Priority::High),
        ] {
            let (slots, told) = (slots.clone(), told.clone());
            waiting.push(tokio::spawn(async move {
                let slot = slots.take(priority).await;
                let _ = told.send(name);
                drop(slot);
            }));
            tokio::task::yield_now().await;
        }
        // One that does not wait any more keeps nobody else waiting.
        waiting[1].abort();
        tokio::task::yield_now().await;
        drop(first);
        for expected in ["high", "b", "low"] {
            assert_eq!(order.recv().await, Some(expected));
        }
        assert!(slots.try_take().is_some(), "the last one came back");
    }
}
