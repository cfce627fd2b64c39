//! Addresses that other machines have: never given to a guest.

use super::address::{self, Pool, Wish};
use super::create::Plan;
use super::desired::change;
use super::guest_context::GuestContext;
use super::probe::{self, Occupant};
use super::spec::{Guest, Nic};
use crate::cluster::ClusterError;
use crate::error::Failure;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Addresses of other machines a guest may run into before something is wrong with the network.
const CONFLICTS: usize = 8;

/// Asks the network whether other machines have the addresses; a guest whose address is taken gets another one.
pub(super) async fn settle_addresses(
    rack: &GuestContext,
    plan: &Plan,
    guests: &[Guest],
) -> Vec<Result<Guest, Failure>> {
    let mut settled: Vec<Result<Guest, Failure>> = guests.iter().cloned().map(Ok).collect();
    let mut open: Vec<usize> = (0..guests.len()).collect();
    for _ in 0..CONFLICTS {
        let asked: Vec<IpAddr> = open
            .iter()
            .filter_map(|n| settled[*n].as_ref().ok().and_then(|g| g.nics.first()).map(|nic| nic.address))
            .collect();
        let conflicts = match who_answers(rack, plan, &asked).await {
            Ok(conflicts) => conflicts,
            Err(failure) => {
                rack.ui.warn(format!(
                    "could not probe for address conflicts on network {}: {failure}",
                    plan.order.network
                ));
                return settled;
            }
        };
        if conflicts.is_empty() {
            return settled;
        }
        let mut again = Vec::new();
        for n in open {
            let Ok(guest) = &settled[n] else { continue };
            let Some(occupant) = guest.nics.first().and_then(|nic| conflicts.get(&nic.address)) else { continue };
            // A guest of ours that an earlier run made and started already.
            if guest.nics.iter().any(|nic| *occupant == Occupant::Mac(nic.mac.clone())) {
                continue;
            }
            let moved = move_away(rack, plan, guest, occupant).await;
            if moved.is_ok() {
                again.push(n);
            }
            settled[n] = moved;
        }
        open = again;
        if open.is_empty() {
            return settled;
        }
    }
    for n in open {
        settled[n] = Err(Failure::failed(format!("{CONFLICTS} free addresses in a row are taken by other machines"))
            .hint("look at the network's `ranges`: something else hands out addresses in them"));
    }
    settled
}

async fn who_answers(
    rack: &GuestContext,
    plan: &Plan,
    addresses: &[IpAddr],
) -> Result<BTreeMap<IpAddr, Occupant>, Failure> {
    let network = Pool::of(&rack.inventory, &plan.order.network)?.network;
    let Some(host) = plan.guests.first() else { return Ok(BTreeMap::new()) };
    let remote = rack.fleet.get(&host.host)?;
    probe::conflicts(remote.as_ref(), &network.bridge, addresses).await
}

/// Gives a guest another address, or fails it when it was to have exactly this one.
async fn move_away(rack: &GuestContext, plan: &Plan, guest: &Guest, occupant: &Occupant) -> Result<Guest, Failure> {
    let name = &plan.order.network;
    let Some(nic) = guest.nics.first() else { return Ok(guest.clone()) };
    let port = rack.port();
    if let Wish::Exactly(address) = plan.order.address {
        return Err(Failure::failed(format!("address {address} of network {name} is taken by {occupant}"))
            .hint("ask for another address, or find out which machine that is"));
    }
    rack.ui.warn(format!("{} is taken by {occupant}; guest {} gets another address", nic.address, guest.name));
    let at = match occupant {
        Occupant::Mac(mac) => mac.clone(),
        host => host.to_string(),
    };
    match address::mark_conflict(port, name, guest.uuid, 0, nic.address, &at).await {
        // Noted by a run that was killed right after.
        Ok(()) | Err(ClusterError::Conflict(_)) => {}
        Err(error) => return Err(error.into()),
    }
    address::give_back(port, name, guest.uuid).await?;
    let lease = address::take(port, &Pool::of(&rack.inventory, name)?, guest.uuid, 0, Wish::Auto).await?;
    let nics = vec![Nic { network: name.clone(), mac: lease.mac, address: lease.address }];
    change(rack, guest, move |guest| guest.nics.clone_from(&nics)).await
}
