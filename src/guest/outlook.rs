//! What a placement and a start look at first: taken once, and handed on as a value.

use super::claim::Claim;
use super::host_state;
use super::placement::HostRoom;
use super::rack::Rack;
use super::spec::Guest;
use super::survey::Survey;
use crate::cluster::{ClusterError, decode};
use crate::error::Failure;
use crate::inventory::{HostSpec, Inventory, Role};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The rack at one look. The claims were read before the hosts were asked; see [`Survey::standing`].
#[derive(Debug, Default)]
pub struct Outlook {
    /// Claims by state object.
    claims: BTreeMap<String, Claim>,
    /// All guests, by name.
    pub guests: Vec<Guest>,
    /// What runs where.
    pub survey: Survey,
    /// The hosts as the planner sees them.
    pub rooms: Vec<HostRoom>,
}

impl Outlook {
    /// Looks.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn take(rack: &Rack) -> Result<Self, Failure> {
        let (claims, states, guests) = tokio::join!(claims(rack), host_state::read(rack.port()), rack.guests());
        let (claims, states) = (claims.map_err(ClusterError::failure)?, states.map_err(ClusterError::failure)?);
        let guests = guests?;
        let survey = Survey::take(&rack.hypervisors, true).await;
        let rooms = rooms(&rack.inventory, &survey, &states, &guests);
        Ok(Outlook { claims, guests, survey, rooms })
    }

    /// The claim on a guest. One that had none had never been started by then.
    pub fn claim(&self, guest: Uuid) -> Claim {
        self.claims.get(&Claim::object(guest)).cloned().unwrap_or_default()
    }
}

async fn claims(rack: &Rack) -> Result<BTreeMap<String, Claim>, ClusterError> {
    let objects = rack.port().list("claim.").await?;
    objects.into_iter().map(|o| decode(&o.name, &o.data).map(|claim| (o.name, claim))).collect()
}

/// The hosts as the planner sees them: their size less what is kept back, and what they run.
pub fn rooms(
    inventory: &Inventory,
    survey: &Survey,
    states: &BTreeMap<String, host_state::HostState>,
    guests: &[Guest],
) -> Vec<HostRoom> {
    let tags: BTreeMap<Uuid, &Guest> = guests.iter().map(|g| (g.uuid, g)).collect();
    let room = |spec: &HostSpec| {
        let name = spec.name.as_str();
        let maintenance = states.get(name).and_then(|s| s.maintenance.as_ref());
        let closed = match (survey.silent.get(name), maintenance) {
            (Some(why), _) => Some(format!("does not answer: {why}")),
            (None, Some(m)) => {
                Some(format!("in maintenance{}", m.why.as_ref().map(|w| format!(": {w}")).unwrap_or_default()))
            }
            (None, None) => None,
        };
        let node = survey.hosts.get(name).cloned().flatten();
        let here = survey.seen.values().flatten().filter(|(host, d)| host == name && d.state.has_process());
        let here: Vec<_> = here.map(|(_, domain)| domain).collect();
        let threads = node.as_ref().map_or(0, |n| n.cpus);
        // Rounded down: half a processor is none.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small and positive by the inventory"
        )]
        let cpus = (f64::from(threads) * inventory.guests.cpu_overcommit) as u64;
        HostRoom {
            name: name.to_owned(),
            rack: spec.location.rack.clone(),
            closed,
            memory: node.map_or(0, |n| n.memory.saturating_sub(inventory.reserve(spec).bytes())),
            used: here.iter().map(|d| d.memory).sum(),
            cpus,
            cpus_used: here.iter().map(|d| u64::from(d.cpus)).sum(),
            tags: here.iter().map(|d| tags.get(&d.uuid).map(|g| g.tags.clone()).unwrap_or_default()).collect(),
        }
    };
    inventory.with_role(Role::Guests).map(room).collect()
}
