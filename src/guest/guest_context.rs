//! What every command on guests works with.

use super::claim::Run;
use super::spec::{Guest, INDEX};
use super::turns::Turns;
use crate::cluster::{Cluster, ClusterPort, fetch, readable};
use crate::error::{Failure, Kind};
use crate::inventory::{Inventory, Role};
use crate::libvirt::Hypervisors;
use crate::ssh::Fleet;
use crate::ui::Ui;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// The cluster, the hypervisors, the hosts and the terminal.
#[derive(Clone, Debug)]
pub struct GuestContext {
    /// State objects and disks.
    pub port: Arc<dyn ClusterPort>,
    /// The hosts that run guests.
    pub hypervisors: Hypervisors,
    /// All hosts.
    pub fleet: Fleet,
    /// The inventory.
    pub inventory: Arc<Inventory>,
    /// The terminal.
    pub ui: Ui,
    /// How this run signs what it claims.
    pub run: Run,
    /// Turns of those of this run who enter reservations.
    pub turns: Arc<Turns>,
}

impl GuestContext {
    /// Connects to the cluster and to all hypervisors, for what asks these next.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn connect_with_hosts(fleet: Fleet, inventory: Inventory, ui: Ui) -> Result<Self, Failure> {
        let hypervisors = Self::hypervisors(&fleet, &inventory);
        // They go on being connected should the cluster answer first; whether they answer is asked again where it matters.
        for hypervisor in hypervisors.all() {
            let hypervisor = Arc::clone(hypervisor);
            tokio::spawn(async move { hypervisor.connect().await });
        }
        Ok(GuestContext { hypervisors, ..Self::connect(fleet, inventory, ui).await? })
    }

    fn hypervisors(fleet: &Fleet, inventory: &Inventory) -> Hypervisors {
        Hypervisors::over(fleet, inventory.with_role(Role::Guests).map(|host| host.name.as_str()))
    }

    /// Connects to the cluster alone; hypervisors are connected when first asked.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn connect(fleet: Fleet, inventory: Inventory, ui: Ui) -> Result<Self, Failure> {
        let cluster = Cluster::connect(&fleet, &inventory).await?;
        Ok(GuestContext { port: Arc::new(cluster), ..Self::over(fleet, inventory, ui) })
    }

    /// Without any connection: the cluster and the hypervisors are connected to when they are first asked.
    pub fn over(fleet: Fleet, inventory: Inventory, ui: Ui) -> Self {
        GuestContext {
            port: Arc::new(Cluster::over(&fleet, &inventory)),
            hypervisors: Self::hypervisors(&fleet, &inventory),
            fleet,
            inventory: Arc::new(inventory),
            ui,
            run: Run::new(),
            turns: Arc::default(),
        }
    }

    /// The cluster.
    pub fn port(&self) -> &dyn ClusterPort {
        self.port.as_ref()
    }

    /// All guests, by name; one whose definition cannot be read is told of and does not hide the others.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn guests(&self) -> Result<Vec<Guest>, Failure> {
        let (mut guests, unread) = readable::<Guest>(self.port(), "guest.").await?;
        for object in unread {
            self.ui.warn(format!("{}; see `rackhand doctor`", object.why));
        }
        guests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(guests)
    }

    /// The guest of this name or id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn guest(&self, name: &str) -> Result<Guest, Failure> {
        let uuid = match Uuid::parse_str(name) {
            Ok(uuid) => Some(uuid),
            Err(_) => self.index().await?.get(name).copied(),
        };
        let found = match uuid {
            Some(uuid) => fetch::<Guest>(self.port(), &Guest::object(uuid)).await?,
            None => None,
        };
        found.map(|(guest, _)| guest).ok_or_else(|| {
            Failure::usage(format!("no guest `{name}`")).hint("see the guests with `rackhand guest list`")
        })
    }

    /// Ids of guests by name, of those being made too.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn index(&self) -> Result<BTreeMap<String, Uuid>, Failure> {
        let keys = self.port().keys(INDEX).await?;
        Ok(keys.into_iter().filter_map(|(name, uuid)| Some((name, uuid.parse().ok()?))).collect())
    }
}

/// The end of a command on several guests: the one failure, or exit 3 with what is left.
///
/// # Errors
/// When any of them failed.
pub fn conclude<T>(what: &str, results: Vec<(String, Result<T, Failure>)>) -> Result<Vec<T>, Failure> {
    let all = results.len();
    let mut done = Vec::new();
    let mut failed: Vec<(String, Failure)> = Vec::new();
    for (name, result) in results {
        match result {
            Ok(value) => done.push(value),
            Err(failure) => failed.push((name, failure)),
        }
    }
    if all == 1
        && let Some((name, failure)) = failed.pop()
    {
        return Err(failure.context(format!("cannot {what} guest {name}")));
    }
    if failed.is_empty() {
        return Ok(done);
    }
    // An unknown outcome outweighs all, then an interruption. Nothing done for one and the same kind of reason is that
    // kind of failure; anything else is partly done.
    let any = |kind: Kind| failed.iter().any(|(_, f)| f.kind == kind);
    let same = failed.iter().all(|(_, f)| f.kind == failed[0].1.kind);
    let kind = match [Kind::Unknown, Kind::Interrupted].into_iter().find(|kind| any(*kind)) {
        Some(kind) => kind,
        None if done.is_empty() && same => failed[0].1.kind,
        None => Kind::Partial,
    };
    let lines: Vec<String> = failed.iter().map(|(name, f)| format!("{name}: {f}")).collect();
    let mut failure =
        Failure::msg(kind, format!("cannot {what} {} of {all} guests:\n  {}", failed.len(), lines.join("\n  ")));
    for hint in failed.into_iter().flat_map(|(_, f)| f.hints) {
        if !failure.hints.contains(&hint) {
            failure = failure.hint(hint);
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_guests_failure_keeps_its_kind_and_several_are_partly_done() {
        let one = conclude::<()>("start", vec![("a".into(), Err(Failure::refused("no proof")))]).unwrap_err();
        assert_eq!((one.kind, one.to_string()), (Kind::Refused, "cannot start guest a: no proof".into()));
        let some = conclude("start", vec![("a".into(), Ok(1)), ("b".into(), Err(Failure::failed("no room")))]);
        let some = some.unwrap_err();
        assert_eq!(some.kind, Kind::Partial);
        assert_eq!(some.to_string(), "cannot start 1 of 2 guests:\n  b: no room");
        assert_eq!(conclude("start", vec![("a".into(), Ok(1))]).unwrap(), [1]);
    }

    #[test]
    fn an_unknown_outcome_is_not_hidden_by_others() {
        let table = [
            (vec![Kind::Failed, Kind::Failed], Kind::Failed),
            (vec![Kind::Failed, Kind::Busy], Kind::Partial),
            (vec![Kind::Failed, Kind::Interrupted], Kind::Interrupted),
            (vec![Kind::Interrupted, Kind::Unknown, Kind::Failed], Kind::Unknown),
        ];
        for (kinds, expected) in table {
            let failed = kinds.iter().map(|kind| ("a".to_owned(), Err(Failure::msg(*kind, "why"))));
            assert_eq!(conclude::<()>("start", failed.collect()).unwrap_err().kind, expected, "{kinds:?}");
        }
        let some = vec![("a".into(), Ok(1)), ("b".into(), Err(Failure::msg(Kind::Unknown, "lost")))];
        assert_eq!(conclude("start", some).unwrap_err().kind, Kind::Unknown);
    }
}
