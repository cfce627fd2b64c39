//! One request to the agent: what it asks, how long it may take, and whether it changes something.

use serde_json::Value;
use std::time::Duration;

/// Deadline of a monitor's answer, in seconds: an election takes up to two `mon_election_timeout` of 5 s.
pub(super) const MON_OP: u64 = 12;
/// Deadline of an OSD's answer, in seconds: a dead OSD is noticed after `osd_heartbeat_grace`, 20 s by default.
pub(super) const OSD_OP: u64 = 30;
/// Deadline of a state request here: a little more than the OSD's.
const STATE: Duration = Duration::from_secs(OSD_OP + 5);
/// Deadline of a disk image request: several OSD requests.
const IMAGE: Duration = Duration::from_secs(120);
/// What a command takes on its way, beside the time it is given.
const TRAVEL: Duration = Duration::from_secs(2);
/// Commands that only ask.
const QUESTIONS: [&str; 17] = [
    "config dump",
    "config get",
    "df",
    "health",
    "mgr dump",
    "mon dump",
    "mon ok-to-stop",
    "mon stat",
    "mon_status",
    "osd df",
    "osd dump",
    "osd ls-tree",
    "osd ok-to-stop",
    "osd tree",
    "pg dump",
    "quorum_status",
    "status",
];

/// Requests that share threads in the agent; those of one kind never wait for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Needs no cluster: admin sockets.
    Local,
    /// Answered by monitors, managers and OSDs themselves.
    Mon,
    /// State objects.
    State,
    /// Looks at disk images.
    Look,
    /// Changes of disk images; a single one may take minutes.
    Image,
}

impl Lane {
    /// All of them.
    pub(super) const ALL: [Lane; 5] = [Lane::Local, Lane::Mon, Lane::State, Lane::Look, Lane::Image];

    /// Its name in the agent.
    pub(super) fn name(self) -> &'static str {
        match self {
            Lane::Local => "local",
            Lane::Mon => "mon",
            Lane::State => "state",
            Lane::Look => "look",
            Lane::Image => "image",
        }
    }

    /// Its threads in the agent.
    pub(super) fn threads(self) -> usize {
        match self {
            Lane::Local => 4,
            Lane::Mon => 8,
            Lane::State | Lane::Look | Lane::Image => 16,
        }
    }

    /// Requests that are sent at once. Short ones wait on the far side for a free thread, so that the way there and
    /// back does not count; of the long ones none waits there, where its deadline would run.
    pub(super) fn admitted(self) -> usize {
        match self {
            Lane::State | Lane::Look => 4 * self.threads(),
            Lane::Local | Lane::Mon | Lane::Image => self.threads(),
        }
    }
}

/// A request to the agent.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// What is asked for.
    pub(super) op: &'static str,
    /// With what.
    pub(super) args: Value,
    /// How long it may take once it is its turn.
    pub(super) deadline: Duration,
    /// What it shares its threads with.
    pub(super) lane: Lane,
    /// Whether it may change something; a question that gets no answer is only asked again.
    pub(super) changes: bool,
}

impl Request {
    /// About a state object, or all of them.
    pub(super) fn state(op: &'static str, args: Value) -> Self {
        let changes = !matches!(op, "get" | "list" | "omap_get");
        Request { op, args, deadline: STATE, lane: Lane::State, changes }
    }

    /// About a disk image, or all of them.
    pub(super) fn image(op: &'static str, args: Value) -> Self {
        let look = matches!(op, "rbd_list" | "rbd_info" | "rbd_children" | "rbd_users");
        let (lane, changes) = if look { (Lane::Look, false) } else { (Lane::Image, op != "rbd_read") };
        Request { op, args, deadline: IMAGE, lane, changes }
    }

    /// To a monitor, a manager or an OSD; `op` does not change anything of itself.
    pub(super) fn mon(op: &'static str, args: Value, deadline: Duration) -> Self {
        let prefix = args["command"]["prefix"].as_str();
        let changes = prefix.is_some_and(|prefix| !QUESTIONS.contains(&prefix));
        let deadline = deadline + TRAVEL;
        Request { op, args, deadline, lane: Lane::Mon, changes }
    }

    /// Over an admin socket.
    pub(super) fn local(op: &'static str, args: Value, deadline: Duration) -> Self {
        Request { lane: Lane::Local, ..Self::mon(op, args, deadline) }
    }

    /// The request in a few words; never its data.
    pub(super) fn words(&self) -> String {
        if let Some(prefix) = self.args["command"]["prefix"].as_str() {
            return prefix.to_owned();
        }
        let object = ["oid", "name", "child", "prefix"].iter().find_map(|k| self.args[*k].as_str()).unwrap_or("");
        format!("{} {object}", self.op).trim_end().replace('_', " ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_described_without_its_data() {
        let update = Request::state("omap_update", json!({"oid": "network.lan", "set": {"a": "secret"}}));
        assert_eq!(update.words(), "omap update network.lan");
        let status = Request::mon("command", json!({"command": {"prefix": "status"}}), Duration::ZERO);
        assert_eq!(status.words(), "status");
    }

    #[test]
    fn only_what_is_known_to_be_a_question_counts_as_one() {
        let command = |prefix: &str| Request::mon("command", json!({"command": {"prefix": prefix}}), Duration::ZERO);
        for (request, changes) in [
            (Request::state("get", json!({})), false),
            (Request::state("list", json!({})), false),
            (Request::state("replace", json!({})), true),
            (Request::image("rbd_users", json!({})), false),
            (Request::image("rbd_read", json!({})), false),
            (Request::image("rbd_remove", json!({})), true),
            (command("status"), false),
            (command("osd blocklist"), true),
            (Request::mon("ready", json!({}), Duration::ZERO), false),
        ] {
            assert_eq!(request.changes, changes, "{request:?}");
        }
    }
}
