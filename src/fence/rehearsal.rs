//! Rehearsing a fence: every path that it would take is tried, read-only, and what came of it is kept in the cluster.

use super::power::{look_from_all, places};
use super::state::{BmcError, Power};
use crate::cluster::{ClusterError, ClusterPort, Document, Target, Unread, readable, update};
use crate::host::{Section, look};
use crate::inventory::secret;
use crate::inventory::{HostSpec, Inventory};
use crate::ssh::Fleet;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// What the names of the documents begin with.
const PREFIX: &str = "rehearsal.";
/// How long a host may take to tell its service tag.
const HOST: Duration = Duration::from_secs(5);
/// How long the monitors may take.
const MONS: Duration = Duration::from_secs(5);
/// Age of the last success from which on a path counts as untested.
const STALE: SignedDuration = SignedDuration::from_hours(1);

/// One path of a fence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct PathTested {
    /// When it was last found fit.
    pub succeeded: Option<Timestamp>,
    /// Why it was not at the last rehearsal; nothing where it was.
    pub problem: Option<String>,
}

impl PathTested {
    /// The same after another try.
    fn after(self, tried: Result<(), String>, now: Timestamp) -> Self {
        match tried {
            Ok(()) => PathTested { succeeded: Some(now), problem: None },
            Err(problem) => PathTested { problem: Some(problem), ..self },
        }
    }

    /// How long ago it was last found fit; nothing where it never was.
    pub fn age(&self, now: Timestamp) -> Option<SignedDuration> {
        self.succeeded.map(|at| now.duration_since(at))
    }

    /// Whether the last success is over an hour ago, or there was none.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.age(now).is_none_or(|age| age > STALE)
    }
}

/// What the rehearsals of a host's fence have shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rehearsal {
    /// The host.
    pub host: String,
    /// When it was last rehearsed.
    pub tried: Timestamp,
    /// The service tag that the host itself told last: by it its BMC is known when it is dead.
    pub serial: Option<String>,
    /// Shutting it out at the storage.
    pub storage: PathTested,
    /// Switching it off; nothing where the inventory has no BMC for it.
    pub power: Option<PathTested>,
}

impl Document for Rehearsal {
    const SCHEMA: &'static str = "rackhand.rehearsal/1";
}

impl Rehearsal {
    /// The state object of a host.
    pub fn object(host: &str) -> String {
        format!("{PREFIX}{host}")
    }

    /// Whether every path was found fit at the last rehearsal.
    pub fn is_fit(&self) -> bool {
        self.storage.problem.is_none() && self.power.as_ref().is_none_or(|power| power.problem.is_none())
    }
}

/// What one rehearsal has seen.
#[derive(Clone, Debug, Default)]
struct Tried {
    serial: Option<String>,
    storage: Option<Result<(), String>>,
    power: Option<Result<(), String>>,
}

/// What rehearsals have shown of all hosts.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn rehearsals(port: &dyn ClusterPort) -> Result<(Vec<Rehearsal>, Vec<Unread>), ClusterError> {
    readable(port, PREFIX).await
}

/// Rehearses the fences of these hosts at once, and keeps what came of it. Nothing is switched and nobody is shut out.
///
/// # Errors
/// When the cluster cannot keep it.
pub async fn rehearse(
    port: &dyn ClusterPort,
    inventory: &Inventory,
    fleet: &Fleet,
    hosts: &[&HostSpec],
    now: Timestamp,
) -> Result<Vec<Rehearsal>, ClusterError> {
    let storage = can_list_the_blocklist(port).await;
    let known = rehearsals(port).await?.0;
    let tried = join_all(hosts.iter().map(|host| {
        let earlier = known.iter().find(|rehearsal| rehearsal.host == host.name);
        try_host(inventory, fleet, host, earlier.and_then(|earlier| earlier.serial.clone()))
    }))
    .await;
    let kept = hosts.iter().zip(tried).map(|(host, tried)| {
        let tried = Tried { storage: Some(storage.clone()), ..tried };
        async move { keep(port, &host.name, &tried, now).await }
    });
    join_all(kept).await.into_iter().collect()
}

/// Whether this key may work with the blocklist, and the monitors answer.
async fn can_list_the_blocklist(port: &dyn ClusterPort) -> Result<(), String> {
    let list = json!({"prefix": "osd blocklist ls", "format": "json"});
    match port.command(&Target::Mon, list, MONS).await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the blocklist cannot be read: {error}")),
    }
}

/// Asks a host for its service tag, and its BMC from all places.
async fn try_host(inventory: &Inventory, fleet: &Fleet, host: &HostSpec, known: Option<String>) -> Tried {
    let facts = async {
        let remote = fleet.get(&host.name).ok()?;
        let looked = tokio::time::timeout(HOST, look(remote.as_ref(), &[Section::Files], HOST)).await;
        let serial = looked.ok()?.ok()?.machine.serial;
        (!serial.is_empty()).then_some(serial)
    };
    let told = facts.await;
    let answers = told.is_some();
    let serial = told.or(known);
    let power = match &host.bmc {
        None => None,
        Some(bmc) => Some(match (&serial, secret::resolve(&bmc.password, &inventory.base).await) {
            (_, Err(failure)) => Err(failure.to_string()),
            (None, _) => Err("the host has not told its service tag: its BMC cannot be known by it".to_owned()),
            (Some(serial), Ok(password)) => {
                judge(&look_from_all(bmc, &password, serial, &places(host, fleet)).await, answers)
            }
        }),
    };
    Tried { serial, storage: None, power }
}

/// What the answers from all places come to: one place is enough to switch a host off.
fn judge(seen: &[(String, Result<Power, BmcError>)], host_answers: bool) -> Result<(), String> {
    let answered: Vec<&Power> = seen.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
    if host_answers && answered.contains(&&Power::Off) {
        return Err("the BMC says that the host is off, but it answers: what it says proves nothing".to_owned());
    }
    if !answered.is_empty() {
        return Ok(());
    }
    let mut why: Vec<String> = seen.iter().filter_map(|(_, answer)| answer.as_ref().err()).map(said).collect();
    why.sort_unstable();
    why.dedup();
    Err(why.join("; "))
}

fn said(error: &BmcError) -> String {
    format!("BMC: {error}; {}", error.remedy())
}

/// Keeps what a rehearsal has shown; an earlier success stays known.
async fn keep(port: &dyn ClusterPort, host: &str, tried: &Tried, now: Timestamp) -> Result<Rehearsal, ClusterError> {
    update(port, &Rehearsal::object(host), |found: Option<Rehearsal>| {
        let found = found.unwrap_or_default();
        let power = tried.power.clone().map(|power| found.power.unwrap_or_default().after(power, now));
        let storage = match &tried.storage {
            Some(storage) => found.storage.after(storage.clone(), now),
            None => found.storage,
        };
        let serial = tried.serial.clone().or(found.serial);
        let kept = Rehearsal { host: host.to_owned(), tried: now, serial, storage, power };
        Ok((Some(kept.clone()), kept))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FakeCluster;
    use crate::ssh::{FakeRemote, Remote};
    use std::sync::Arc;

    const INVENTORY: &str = "cluster: {name: rack, fsid: 11111111-2222-4333-8444-555555555555}\nnetworks:\n  \
        management: {cidr: 10.0.0.0/24}\n  storage: {cidr: 10.0.1.0/24}\nhosts:\n  \
        - {name: h1, address: 10.0.0.11, storage_address: 10.0.1.11, roles: [mon, mgr]}\n  \
        - {name: h2, address: 10.0.0.12, storage_address: 10.0.1.12, roles: [guests], \
             bmc: {kind: redfish, address: 127.0.0.1, port: 1, user: root, password: {inline: secret}}}\n";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    async fn rehearsed(port: &FakeCluster, fleet: &Fleet, now: Timestamp) -> Rehearsal {
        let inventory = crate::inventory::parse("inventory.yaml", INVENTORY).unwrap();
        let hosts: Vec<&HostSpec> = inventory.hosts.iter().filter(|host| host.name == "h2").collect();
        rehearse(port, &inventory, fleet, &hosts, now).await.unwrap().remove(0)
    }

    /// A rack whose h1 can ask the BMC of h2.
    fn fleet(serial: &'static str, power: &'static str, host_answers: bool) -> Fleet {
        let peer = FakeRemote::new("h1").rule(move |exec| {
            let said = match String::from_utf8_lossy(&exec.stdin).contains("Systems/1") {
                true => json!({"PowerState": power, "SKU": serial}),
                false => json!({"Members": [{"@odata.id": "/redfish/v1/Systems/1"}]}),
            };
            let stdout = format!("{said}\n200 ").into_bytes();
            Some(Ok(crate::ssh::Output { status: 0, stdout, stderr: Vec::new() }))
        });
        let text = "@@ begin 3\n@@ files\n/sys/class/dmi/id/product_serial:7XK4M02\n@@ end\n";
        let host = if host_answers { FakeRemote::new("h2").on("sh -s", text) } else { FakeRemote::new("h2") };
        Fleet::of([Arc::new(peer) as Arc<dyn Remote>, Arc::new(host)])
    }

    #[tokio::test]
    async fn what_was_fit_stays_known_with_its_age() {
        let port = FakeCluster::new();
        port.answer("osd blocklist ls", json!([]));
        let first = rehearsed(&port, &fleet("7XK4M02", "On", true), at(1_000)).await;
        assert!(first.is_fit(), "{first:?}");
        assert_eq!(first.serial.as_deref(), Some("7XK4M02"));
        // The host is dead: its BMC is known by the tag that it told before.
        let second = rehearsed(&port, &fleet("7xk4m02", "Off", false), at(2_000)).await;
        assert!(second.is_fit(), "{second:?}");
        // Its BMC is another's now.
        let third = rehearsed(&port, &fleet("7XK4M03", "On", true), at(3_000)).await;
        let power = third.power.clone().unwrap();
        assert!(
            power.problem.as_ref().unwrap().contains("127.0.0.1 is not the BMC of the machine 7XK4M02"),
            "{third:?}"
        );
        assert_eq!(power.age(at(3_000)), Some(SignedDuration::from_secs(1_000)));
        assert!(!third.is_fit() && !power.is_stale(at(5_600)) && power.is_stale(at(5_601)));
        assert_eq!(third.storage.succeeded, Some(at(3_000)));
        assert_eq!(rehearsals(&port).await.unwrap().0, [third]);
    }

    #[tokio::test]
    async fn a_key_that_may_not_read_the_blocklist_is_told_of() {
        let port = FakeCluster::new();
        let seen = rehearsed(&port, &fleet("7XK4M02", "On", true), at(1_000)).await;
        assert!(seen.storage.problem.unwrap().starts_with("the blocklist cannot be read"), "no answer was scripted");
    }

    #[tokio::test]
    async fn a_bmc_that_says_off_of_a_host_that_answers_is_not_fit() {
        let port = FakeCluster::new();
        port.answer("osd blocklist ls", json!([]));
        let seen = rehearsed(&port, &fleet("7XK4M02", "Off", true), at(1_000)).await;
        assert!(seen.power.unwrap().problem.unwrap().contains("but it answers"));
        let never = rehearsed(&FakeCluster::new(), &fleet("7XK4M02", "On", false), at(1_000)).await;
        assert!(never.power.unwrap().problem.unwrap().contains("has not told its service tag"));
    }
}
