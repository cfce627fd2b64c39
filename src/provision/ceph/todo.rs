//! What a Ceph step has found to do, and how it is done.

use super::cluster;
use crate::error::Failure;
use crate::playbook::{Change, check_job};
use crate::provision::Ctx;
use crate::ssh::{Exec, Remote, RemoteExt, Upload, UploadExt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Deadline of the short scripts; the longest waits for a daemon to start.
pub(super) const SHORT: Duration = Duration::from_secs(90);

/// A change and the operations that make it, in order.
#[derive(Debug)]
pub(super) struct Todo {
    /// As the plan shows it.
    pub change: Change,
    /// What is done, one after the other, each idempotent.
    pub ops: Vec<Op>,
    /// Whether it only cleans up behind other changes of its step, and is done with them unasked.
    pub implied: bool,
}

impl Todo {
    /// A change made by these operations.
    pub fn new(change: Change, ops: Vec<Op>) -> Self {
        Todo { change, ops, implied: false }
    }

    /// Cleans up behind other changes.
    pub fn implied(mut self) -> Self {
        self.implied = true;
        self
    }
}

/// One operation on the change's host, or on the cluster.
#[derive(Debug)]
pub(super) enum Op {
    /// Puts a file there.
    File(Upload),
    /// Runs a short script with arguments.
    Script(&'static str, Vec<String>),
    /// Runs a long script as a transient unit of this name.
    Job(String, String, Duration),
    /// Gives the monitors a command.
    Command(Value),
    /// Writes an entity's keyring; the entity is made with these capabilities where it does not exist.
    Keyring {
        /// The entity.
        entity: String,
        /// Capabilities, service and words in turn; none where it must exist.
        caps: Vec<&'static str>,
        /// Where its keyring goes.
        path: String,
        /// Who owns it.
        owner: &'static str,
    },
    /// Copies keys and first monitor map from the host that made them.
    SeedFrom(String),
    /// Brings the live cluster's monitor key and map for a monitor that joins.
    SeedFromCluster,
}

/// Does the operations: hosts at once, those of one host in order.
///
/// All hosts are let finish; the first failure is returned.
pub(super) async fn execute(ctx: &Ctx, via: &str, todos: Vec<Todo>) -> Result<(), Failure> {
    let mut by_host: BTreeMap<String, Vec<Op>> = BTreeMap::new();
    for todo in todos {
        by_host.entry(todo.change.host).or_default().extend(todo.ops);
    }
    let works = by_host.iter().map(|(host, ops)| host_ops(ctx, via, host, ops));
    futures::future::join_all(works).await.into_iter().collect()
}

async fn host_ops(ctx: &Ctx, via: &str, host: &str, ops: &[Op]) -> Result<(), Failure> {
    let remote = ctx.remote(host)?;
    let mut commands = Vec::new();
    for op in ops {
        if let Op::Command(command) = op {
            commands.push(command.clone());
            continue;
        }
        // One start of the script for all commands in a row.
        if !commands.is_empty() {
            cluster::commands(&ctx.fleet, via, &std::mem::take(&mut commands)).await?;
        }
        host_op(ctx, via, remote.as_ref(), op).await?;
    }
    if commands.is_empty() { Ok(()) } else { cluster::commands(&ctx.fleet, via, &commands).await }
}

async fn host_op(ctx: &Ctx, via: &str, remote: &dyn Remote, op: &Op) -> Result<(), Failure> {
    match op {
        Op::File(upload) => Ok(remote.upload(upload.clone()).await?),
        Op::Script(script, arguments) => {
            remote.check(Exec::script(*script, arguments.clone()).deadline(SHORT)).await?;
            Ok(())
        }
        Op::Job(name, script, deadline) => {
            check_job(remote, name, script, *deadline).await?;
            Ok(())
        }
        Op::Command(command) => cluster::commands(&ctx.fleet, via, std::slice::from_ref(command)).await,
        Op::Keyring { entity, caps, path, owner } => {
            let key = cluster::key(&ctx.fleet, via, entity, caps).await?;
            let dir = path.rsplit_once('/').map_or("/", |(dir, _)| dir);
            remote.check(Exec::argv(["install", "-d", "-o", "ceph", "-g", "ceph", "-m", "0755", dir])).await?;
            Ok(remote.upload(Upload::new(path, key.keyring()).owner(*owner)).await?)
        }
        Op::SeedFrom(source) => {
            let pack = Exec::argv(["tar", "-C", super::mons::SEED, "-cf", "-", "keyring", "monmap"]);
            let packed = ctx.remote(source)?.check(pack).await?;
            let unpack = Exec::argv(["sh", "-c", UNPACK, "sh", super::mons::SEED]).stdin(packed.stdout);
            remote.check(unpack).await?;
            Ok(())
        }
        Op::SeedFromCluster => {
            let key = cluster::key(&ctx.fleet, via, "mon.", &[]).await?;
            let map = cluster::monmap(&ctx.fleet, via).await?;
            let dir = super::mons::JOIN;
            remote.check(Exec::argv(["install", "-d", "-o", "ceph", "-g", "ceph", "-m", "0700", dir])).await?;
            remote.upload(Upload::new(format!("{dir}/keyring"), key.keyring()).owner("ceph:ceph")).await?;
            Ok(remote.upload(Upload::new(format!("{dir}/monmap"), map).owner("ceph:ceph")).await?)
        }
    }
}

/// A cut tar does not unpack to the end, so the directory is there whole or not at all.
const UNPACK: &str = r#"set -eu
umask 077
[ ! -d "$1" ] || exit 0
rm -rf "$1.new"
mkdir "$1.new"
tar -C "$1.new" -xf -
[ -s "$1.new/keyring" ] && [ -s "$1.new/monmap" ]
chown -R ceph:ceph "$1.new"
sync -f "$1.new"
mv -T "$1.new" "$1"
"#;
