//! Asking a BMC from wherever there is a way to it.

use super::bmc::query_bmc;
use super::state::{BmcError, Power};
use crate::host::BmcSeen;
use crate::inventory::{HostSpec, Inventory, secret};
use crate::ssh::{Fleet, LocalHost, Remote};
use std::sync::Arc;

/// Peers a BMC is asked from, should this machine have no way to it.
const PEERS: usize = 3;

/// Asks a host's BMC from here, else from peers; nothing for a host that has none.
pub async fn ask(host: &HostSpec, inventory: &Inventory, fleet: &Fleet) -> Option<BmcSeen> {
    let spec = host.bmc.as_ref()?;
    let password = match secret::resolve(&spec.password, &inventory.base).await {
        Ok(password) => password,
        Err(failure) => {
            let fix = "correct what bmc.password points to";
            return Some(BmcSeen::Failed { why: failure.to_string(), login: true, fix });
        }
    };
    let peers = fleet.all().filter(|peer| peer.name() != host.name).take(PEERS).map(Arc::clone);
    let places = std::iter::once(Arc::new(LocalHost) as Arc<dyn Remote>).chain(peers);
    let mut failures: Vec<BmcError> = Vec::new();
    for place in places {
        match query_bmc(place.as_ref(), spec, &password).await {
            Ok(state) => return Some(BmcSeen::Answered { on: state.power == Power::On, serials: state.serials }),
            Err(error) if error.is_about_the_place() => failures.push(error),
            Err(error) => {
                let (login, fix) = (error.is_about_the_login(), error.remedy());
                return Some(BmcSeen::Failed { why: format!("BMC {error} (asked from {})", place.name()), login, fix });
            }
        }
    }
    let all = |failures: &[BmcError]| failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let tried: Vec<BmcError> = failures.iter().filter(|e| !matches!(e, BmcError::NoTool { .. })).cloned().collect();
    Some(match tried.first() {
        None => BmcSeen::Untried { why: all(&failures) },
        Some(error) => BmcSeen::Failed { why: format!("BMC: {}", all(&tried)), login: false, fix: error.remedy() },
    })
}
