//! What an application goes on under: the hosts' locks, and the operator's patience.

use super::lock::HostLock;
use crate::error::{Failure, Kind};
use crate::ui::Urgency;
use tokio::sync::watch;

/// Asked before each step, and before each change of a playbook.
#[derive(Debug)]
pub struct Grip {
    lock: HostLock,
    urgency: watch::Receiver<Urgency>,
}

impl Grip {
    /// These locks, until this asks to finish.
    pub fn new(lock: HostLock, urgency: watch::Receiver<Urgency>) -> Self {
        Grip { lock, urgency }
    }

    /// Whether something more may be begun.
    ///
    /// # Errors
    /// When the operator has interrupted the run (exit 130).
    pub fn may_begin(&self) -> Result<(), Failure> {
        match *self.urgency.borrow() {
            Urgency::None => Ok(()),
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
