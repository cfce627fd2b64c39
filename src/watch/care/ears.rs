//! What the hosts' libvirt tells of guests by itself: nobody is asked in between.

use crate::libvirt::{Hypervisor, Lifecycle, LifecycleEvent};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use uuid::Uuid;

/// How long a connection that was lost waits before it is opened anew.
const AGAIN: Duration = Duration::from_secs(3);

/// Something that was heard of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Its events are heard from now on: what was before has to be looked at.
    Begins(String),
    /// A guest ended, stalled or runs again.
    Guest(Uuid, Lifecycle),
}

/// Hears the events of a host until nobody wants to know.
pub(super) async fn listen(hypervisor: Arc<dyn Hypervisor>, tell: mpsc::Sender<Heard>) {
    loop {
        if let Ok(mut events) = hypervisor.lifecycle().await {
            if tell.send(Heard::Begins(hypervisor.host().to_owned())).await.is_err() {
                return;
            }
            while let Some(LifecycleEvent::Changed { uuid, change, .. }) = events.next().await {
                let matters = match change {
                    Lifecycle::Crashed | Lifecycle::ShutDown | Lifecycle::Stopped | Lifecycle::IoError => true,
                    Lifecycle::Started | Lifecycle::Resumed => true,
                    Lifecycle::Suspended | Lifecycle::MovedAway | Lifecycle::Other => false,
                };
                if matters && tell.send(Heard::Guest(uuid, change)).await.is_err() {
                    return;
                }
            }
        }
        sleep(AGAIN).await;
    }
}
