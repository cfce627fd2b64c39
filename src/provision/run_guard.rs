//! What an application goes on under: the hosts' locks, and the operator's patience.

use super::lock::HostLock;
use crate::error::{Failure, Kind};
use crate::ui::CancelLevel;
use tokio::sync::watch;

/// Asked before each step, and before each change of a playbook.
#[derive(Debug)]
pub struct RunGuard {
    lock: HostLock,
    cancel_level: watch::Receiver<CancelLevel>,
}

impl RunGuard {
    /// These locks, until this asks to finish.
    pub fn new(lock: HostLock, cancel_level: watch::Receiver<CancelLevel>) -> Self {
        RunGuard { lock, cancel_level }
    }

    /// Whether something more may be begun.
    ///
    /// # Errors
    /// When the operator has interrupted the run (exit 130).
    pub fn may_begin(&self) -> Result<(), Failure> {
        match *self.cancel_level.borrow() {
            CancelLevel::None => Ok(()),
            _ => Err(Failure::msg(Kind::Interrupted, "interrupted; what ran has been finished")),
        }
    }

    /// Whether the next step may be begun: nobody minds, and the hosts are still this run's.
    ///
    /// # Errors
    /// When the run was interrupted, or a lock that was lost on the way cannot be taken again.
    pub(super) async fn go_on(&self) -> Result<(), Failure> {
        self.may_begin()?;
        self.lock.keep().await
    }
}
