//! Ctrl-C and SIGTERM: how much of a hurry the operator is in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What an interruption asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelLevel {
    /// Nothing: carry on.
    #[default]
    None,
    /// Begin nothing more, finish what runs.
    Finish,
    /// Abort what runs, cleanly.
    Abort,
}

/// How work that must not be dropped half-way takes interruptions.
#[derive(Clone, Copy, Debug)]
pub struct ShutdownPolicy {
    /// What the first interruption leads to, in words.
    pub once: &'static str,
    /// What the second leads to, in words.
    pub twice: &'static str,
    /// Whether the work follows the second one itself; else its future is dropped.
    pub aborts_itself: bool,
}

/// The interruptions of this run, and what they mean just now.
#[derive(Debug, Default)]
pub(super) struct Interruptions {
    cancel_level: watch::Sender<CancelLevel>,
    /// Of work under way, by number; the latest counts.
    patience: Mutex<Vec<(u64, ShutdownPolicy)>>,
    next: AtomicU64,
    /// Whether a question is open: whatever it is about has not begun.
    pub(super) asking: AtomicBool,
}

/// While it lives, the first interruption lets what runs come to its end.
#[derive(Debug)]
#[must_use = "dropped at once, it grants nothing"]
pub struct CompletionGuard(Arc<Interruptions>, u64);

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        self.0.policies().retain(|(number, _)| *number != self.1);
    }
}

impl Interruptions {
    pub(super) fn follow(&self) -> watch::Receiver<CancelLevel> {
        self.cancel_level.subscribe()
    }

    pub(super) fn completion_guard(self: &Arc<Self>, patience: ShutdownPolicy) -> CompletionGuard {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.policies().push((number, patience));
        CompletionGuard(Arc::clone(self), number)
    }

    fn policies(&self) -> MutexGuard<'_, Vec<(u64, ShutdownPolicy)>> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of one more interruption: what to tell the operator, and whether the command is to be dropped.
    pub(super) fn one_more(&self) -> (Option<&'static str>, bool) {
        let patience = self.policies().last().map(|(_, policy)| *policy);
        let before = *self.cancel_level.borrow();
        let (now, words, drop) = match (patience, before) {
            (None, _) => (CancelLevel::Abort, None, true),
            (Some(p), CancelLevel::None) => (CancelLevel::Finish, Some(p.once), false),
            (Some(p), CancelLevel::Finish) => (CancelLevel::Abort, Some(p.twice), !p.aborts_itself),
            // What is being aborted has deadlines of its own.
            (Some(_), CancelLevel::Abort) => (CancelLevel::Abort, None, false),
        };
        self.cancel_level.send_replace(now);
        (words, drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: ShutdownPolicy = ShutdownPolicy { once: "finishing", twice: "aborting", aborts_itself: true };

    #[test]
    fn a_command_that_only_looks_ends_at_once() {
        let all = Arc::new(Interruptions::default());
        assert_eq!(all.one_more(), (None, true));
    }

    #[test]
    fn work_within_work_leaves_the_outer_one_its_say() {
        let all = Arc::new(Interruptions::default());
        let _outer = all.completion_guard(ShutdownPolicy { once: "outer", ..WORK });
        drop(all.completion_guard(WORK));
        assert_eq!(all.one_more(), (Some("outer"), false));
    }

    #[test]
    fn work_is_finished_first_and_aborted_then() {
        for aborts_itself in [true, false] {
            let all = Arc::new(Interruptions::default());
            let cancel_level = all.follow();
            let guard = all.completion_guard(ShutdownPolicy { aborts_itself, ..WORK });
            assert_eq!((all.one_more(), *cancel_level.borrow()), ((Some("finishing"), false), CancelLevel::Finish));
            assert_eq!(
                (all.one_more(), *cancel_level.borrow()),
                ((Some("aborting"), !aborts_itself), CancelLevel::Abort)
            );
            assert_eq!(all.one_more(), (None, false));
            drop(guard);
            assert_eq!(all.one_more(), (None, true), "the work is over");
        }
    }
}
