//! Starts, stops and moves of domains, as they happen.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

/// What happened to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// It started, here or by arriving from another host.
    Started,
    /// Its processors stand still.
    Suspended,
    /// Its processors stand still because its storage gave an error.
    IoError,
    /// Its processors run again.
    Resumed,
    /// It ended: the guest shut itself down.
    ShutDown,
    /// It ended: it left for another host.
    MovedAway,
    /// It ended in another way.
    Stopped,
    /// It crashed.
    Crashed,
    /// Something else.
    Other,
}

impl Lifecycle {
    /// From libvirt's event and detail numbers.
    pub(super) fn from_raw(event: u32, detail: u32) -> Self {
        match (event, detail) {
            (virt_sys::VIR_DOMAIN_EVENT_STARTED, _) => Lifecycle::Started,
            (virt_sys::VIR_DOMAIN_EVENT_SUSPENDED, virt_sys::VIR_DOMAIN_EVENT_SUSPENDED_IOERROR) => Lifecycle::IoError,
            (virt_sys::VIR_DOMAIN_EVENT_SUSPENDED, _) => Lifecycle::Suspended,
            (virt_sys::VIR_DOMAIN_EVENT_RESUMED, _) => Lifecycle::Resumed,
            (virt_sys::VIR_DOMAIN_EVENT_STOPPED, virt_sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN) => Lifecycle::ShutDown,
            (virt_sys::VIR_DOMAIN_EVENT_STOPPED, virt_sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED) => Lifecycle::MovedAway,
            // `FAILED` is a QEMU whose monitor went away without a word: it was killed, or died.
            (
                virt_sys::VIR_DOMAIN_EVENT_STOPPED,
                virt_sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED | virt_sys::VIR_DOMAIN_EVENT_STOPPED_FAILED,
            )
            | (virt_sys::VIR_DOMAIN_EVENT_CRASHED, _) => Lifecycle::Crashed,
            (virt_sys::VIR_DOMAIN_EVENT_STOPPED, _) => Lifecycle::Stopped,
            _ => Lifecycle::Other,
        }
    }
}

/// One event of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifecycleEvent {
    /// A domain changed.
    Changed {
        /// Its name.
        name: String,
        /// Its id.
        uuid: Uuid,
        /// What happened.
        change: Lifecycle,
    },
    /// The connection is gone: what happens from here on is not seen.
    Lost,
}

/// The events of a host from the moment it was asked; ends after [`LifecycleEvent::Lost`].
pub struct LifecycleEvents {
    events: UnboundedReceiver<LifecycleEvent>,
    /// The callbacks keep their senders for as long as the connection object lives, so the loss itself is the end.
    lost: bool,
    /// Keeps the connection open.
    _guard: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for LifecycleEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LifecycleEvents")
    }
}

impl LifecycleEvents {
    pub(super) fn new(events: UnboundedReceiver<LifecycleEvent>, guard: impl Any + Send + Sync) -> Self {
        LifecycleEvents { events, lost: false, _guard: Box::new(guard) }
    }

    /// The next event; none when there will be no more.
    pub async fn next(&mut self) -> Option<LifecycleEvent> {
        futures::StreamExt::next(self).await
    }
}

impl futures::Stream for LifecycleEvents {
    type Item = LifecycleEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<LifecycleEvent>> {
        if self.lost {
            return Poll::Ready(None);
        }
        let event = self.events.poll_recv(context);
        self.lost = matches!(event, Poll::Ready(None | Some(LifecycleEvent::Lost)));
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loss_of_the_connection_is_the_last_event() {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let mut events = LifecycleEvents::new(receiver, ());
        sender.send(LifecycleEvent::Lost).unwrap();
        assert_eq!(events.next().await, Some(LifecycleEvent::Lost));
        // The sender is still there, as libvirt's callbacks are.
        assert_eq!(events.next().await, None);
        drop(sender);
    }
}
