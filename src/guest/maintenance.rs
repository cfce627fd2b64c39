//! Maintenance of a host: it takes no guests, the watch does not fence it, and Ceph leaves its data where it is.

use super::host_state::{HostState, Maintenance, set_maintenance};
use crate::cluster::{ClusterError, ClusterPort, Target, fetch, update};
use crate::error::Failure;
use serde_json::json;
use std::time::Duration;

/// Deadline of the monitors' answer.
const MONS: Duration = Duration::from_secs(15);

/// Puts a host into maintenance, and sets `noout` for its OSDs alone where that is wanted. Of a host that is in maintenance
/// already, the end, the reason and `noout` are changed where new ones are given. Tells whether that changed anything.
///
/// # Errors
/// When the cluster cannot be asked, or Ceph refuses `noout`; the host is in maintenance then all the same.
pub async fn begin(port: &dyn ClusterPort, host: &str, wanted: Maintenance) -> Result<bool, Failure> {
    let noout = wanted.noout;
    let changed = update::<HostState, bool, ClusterError>(port, &HostState::object(host), |found| {
        let mut state = found.unwrap_or_else(|| HostState { name: host.to_owned(), ..HostState::default() });
        let before = state.maintenance.take();
        let next = match before.clone() {
            None => wanted.clone(),
            Some(old) => Maintenance {
                why: wanted.why.clone().or(old.why),
                until: wanted.until.or(old.until),
                noout: old.noout || wanted.noout,
                ..old
            },
        };
        let changed = before.as_ref() != Some(&next);
        state.maintenance = Some(next);
        Ok((Some(state), changed))
    })
    .await?;
    if noout {
        // After it was written down: whoever ends the maintenance knows of it.
        set_noout(port, host, true).await?;
    }
    Ok(changed)
}

/// Takes a host out of maintenance, and `noout` with it where it was set for it. Tells whether that changed anything.
///
/// # Errors
/// When the cluster cannot be asked; the host then stays in maintenance.
pub async fn end(port: &dyn ClusterPort, host: &str) -> Result<bool, Failure> {
    let state = fetch::<HostState>(port, &HostState::object(host)).await?;
    if state.and_then(|(state, _)| state.maintenance).is_some_and(|maintenance| maintenance.noout) {
        set_noout(port, host, false).await?;
    }
    Ok(set_maintenance(port, host, None).await?)
}

async fn set_noout(port: &dyn ClusterPort, host: &str, on: bool) -> Result<(), Failure> {
    let prefix = if on { "osd set-group" } else { "osd unset-group" };
    let command = json!({"prefix": prefix, "flags": "noout", "who": [host]});
    match port.command(&Target::Mon, command, MONS).await {
        Err(refused @ (ClusterError::Refused { .. } | ClusterError::NotFound(_))) if !on => {
            // A host that has left the CRUSH map has no OSDs to keep.
            let map = port.command(&Target::Mon, json!({"prefix": "osd dump", "format": "json"}), MONS).await?;
            let flags = map["crush_node_flags"][host].as_array().cloned().unwrap_or_default();
            if flags.iter().any(|flag| flag == "noout") { Err(refused.into()) } else { Ok(()) }
        }
        other => Ok(other.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FakeCluster;
    use crate::guest::read_host_states;
    use serde_json::Value;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    async fn state(port: &FakeCluster) -> Option<Maintenance> {
        read_host_states(port).await.unwrap()["h1"].maintenance.clone()
    }

    #[tokio::test]
    async fn a_second_order_prolongs_maintenance_and_keeps_who_began_it() {
        let port = FakeCluster::new();
        port.answer("osd set-group", Value::Null);
        port.answer("osd unset-group", Value::Null);
        let first = Maintenance { since: at(1), by: "anna".into(), why: Some("fans".into()), ..Maintenance::default() };
        assert!(begin(&port, "h1", first.clone()).await.unwrap());
        assert!(
            !begin(&port, "h1", Maintenance { since: at(9), by: "ben".into(), ..Maintenance::default() })
                .await
                .unwrap()
        );
        assert_eq!(state(&port).await, Some(first.clone()));
        let longer = Maintenance { since: at(9), by: "ben".into(), until: Some(at(100)), noout: true, ..first.clone() };
        assert!(begin(&port, "h1", longer).await.unwrap());
        assert_eq!(state(&port).await, Some(Maintenance { until: Some(at(100)), noout: true, ..first }));
        assert_eq!(
            (state(&port).await.unwrap().overdue(at(100)), state(&port).await.unwrap().overdue(at(160))),
            (None, Some(60))
        );
        assert!(end(&port, "h1").await.unwrap() && !end(&port, "h1").await.unwrap());
        assert_eq!(state(&port).await, None);
    }

    #[tokio::test]
    async fn maintenance_does_not_end_while_noout_may_still_be_set() {
        let port = FakeCluster::new();
        port.answer("osd set-group", Value::Null);
        begin(&port, "h1", Maintenance { noout: true, ..Maintenance::default() }).await.unwrap();
        port.breaks(Some(ClusterError::Unreachable("no mon answers".into())));
        end(&port, "h1").await.unwrap_err();
        port.breaks(None);
        assert!(state(&port).await.unwrap().noout);
        // Ceph refuses, and the flag stands.
        port.answer("osd dump", serde_json::json!({"crush_node_flags": {"h1": ["noout"]}}));
        end(&port, "h1").await.unwrap_err();
        assert!(state(&port).await.unwrap().noout);
        // The host has left the CRUSH map meanwhile: Ceph refuses, and there is nothing to lift.
        port.answer("osd dump", serde_json::json!({"crush_node_flags": {}}));
        assert!(end(&port, "h1").await.unwrap());
        // One whose `noout` is refused is in maintenance all the same.
        begin(&FakeCluster::new(), "h1", Maintenance { noout: true, ..Maintenance::default() }).await.unwrap_err();
    }
}
