//! Ceph's own view of its health.

use super::{ClusterError, ClusterPort, Target};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// Deadline of a status question; it is answered from the monitor's memory.
const STATUS: Duration = Duration::from_secs(8);

/// What `ceph status` says, as far as people act on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct CephStatus {
    /// `HEALTH_OK`, `HEALTH_WARN` or `HEALTH_ERR`.
    pub health: String,
    /// What is wrong.
    pub checks: Vec<HealthCheck>,
    /// Monitors in the quorum.
    pub quorum: Vec<String>,
    /// Monitors in all.
    pub mons: u64,
    /// OSDs in all.
    pub osds: u64,
    /// OSDs that run.
    pub osds_up: u64,
    /// OSDs that hold data.
    pub osds_in: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Bytes used.
    pub bytes_used: u64,
    /// Placement groups in all.
    pub pgs: u64,
    /// Placement groups that are active and clean.
    pub pgs_clean: u64,
}

/// A health check of Ceph that failed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct HealthCheck {
    /// Ceph's name for it, for example `OSD_DOWN`.
    pub code: String,
    /// `HEALTH_WARN` or `HEALTH_ERR`.
    pub severity: String,
    /// One line.
    pub summary: String,
}

/// Asks Ceph how it is.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn status(port: &dyn ClusterPort) -> Result<CephStatus, ClusterError> {
    let answer = port.command(&Target::Mon, json!({"prefix": "status"}), STATUS).await?;
    Ok(read(&answer))
}

/// Reads the answer; what a release leaves out stays zero.
fn read(answer: &Value) -> CephStatus {
    let number = |pointer: &str| answer.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = answer["health"]["checks"].as_object().map(|checks| {
        let one = |(code, check): (&String, &Value)| HealthCheck {
            code: code.clone(),
            severity: text(&check["severity"]),
            summary: text(&check["summary"]["message"]),
        };
        checks.iter().map(one).collect()
    });
    let states = answer["pgmap"]["pgs_by_state"].as_array().cloned().unwrap_or_default();
    let clean = states.iter().filter(|s| s["state_name"].as_str().is_some_and(|n| n.starts_with("active+clean")));
    CephStatus {
        health: text(&answer["health"]["status"]),
        checks: checks.unwrap_or_default(),
        quorum: answer["quorum_names"].as_array().map(|q| q.iter().map(text).collect()).unwrap_or_default(),
        mons: number("/monmap/num_mons"),
        osds: number("/osdmap/num_osds"),
        osds_up: number("/osdmap/num_up_osds"),
        osds_in: number("/osdmap/num_in_osds"),
        bytes_total: number("/pgmap/bytes_total"),
        bytes_used: number("/pgmap/bytes_used"),
        pgs: number("/pgmap/num_pgs"),
        pgs_clean: clean.filter_map(|s| s["count"].as_u64()).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_16_2_is_read() {
        let answer = json!({
            "fsid": "11111111-2222-4333-8444-555555555555",
            "health": {"status": "HEALTH_WARN", "checks": {
                "OSD_DOWN": {"severity": "HEALTH_WARN", "summary": {"message": "1 osds down", "count": 1}, "muted": false}}},
            "quorum_names": ["h1", "h2"],
            "monmap": {"num_mons": 3},
            "osdmap": {"num_osds": 3, "num_up_osds": 2, "num_in_osds": 3},
            "pgmap": {"num_pgs": 9, "bytes_used": 10, "bytes_total": 100, "pgs_by_state": [
                {"state_name": "active+clean", "count": 5}, {"state_name": "active+clean+scrubbing", "count": 1},
                {"state_name": "active+undersized", "count": 3}]},
        });
        let status = read(&answer);
        assert_eq!(status.checks[0].summary, "1 osds down");
        assert_eq!((status.mons, status.quorum.len(), status.osds_up, status.pgs_clean), (3, 2, 2, 6));
    }
}
