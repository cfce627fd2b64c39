//! What a Ceph step has found to do, and how it is done.

use super::names::{JOIN, SEED};
use crate::error::Failure;
use crate::playbook::{Change, check_job};
use crate::provision::Ctx;
use crate::provision::together::one_of;
use crate::ssh::{Exec, Remote, RemoteError, RemoteExt, Upload, UploadExt};
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

/// Does the todos: hosts at once, those of one host in order. One that fails keeps no other from being done (a bad disk
/// does not cost its host the good ones), unless the host itself is gone.
///
/// # Errors
/// All that failed, the first before the others.
pub(super) async fn execute(ctx: &Ctx, via: &str, todos: Vec<Todo>) -> Result<(), Failure> {
    let mut by_host: BTreeMap<&str, Vec<&Todo>> = BTreeMap::new();
    for todo in &todos {
        by_host.entry(&todo.change.host).or_default().push(todo);
    }
    let works = by_host.into_iter().map(|(host, todos)| of_host(ctx, via, host, todos));
    let failures = futures::future::join_all(works).await.into_iter().flatten().collect();
    one_of(failures).map_or(Ok(()), Err)
}

async fn of_host(ctx: &Ctx, via: &str, host: &str, todos: Vec<&Todo>) -> Vec<Failure> {
    let remote = match ctx.remote(host) {
        Ok(remote) => remote,
        Err(failure) => return vec![failure],
    };
    let mut commands = Vec::new();
    let mut failures = Vec::new();
    for todo in todos {
        for op in &todo.ops {
            if let Op::Command(command) = op {
                commands.push(command.clone());
                continue;
            }
            // One start of the script for all commands in a row, whichever todos they are of.
            if let Err(failure) = run_commands(ctx, via, &mut commands).await {
                failures.push(failure);
                return failures;
            }
            if let Err(failure) = host_op(ctx, via, remote.as_ref(), op).await {
                let error = failure.source.downcast_ref::<RemoteError>();
                let gone = error.is_some_and(|error| error.nothing_ran() || error.unknown());
                failures.push(failure.context(todo.change.object.clone()));
                if gone {
                    return failures;
                }
                break;
            }
        }
    }
    failures.extend(run_commands(ctx, via, &mut commands).await.err());
    failures
}

async fn run_commands(ctx: &Ctx, via: &str, commands: &mut Vec<Value>) -> Result<(), Failure> {
    let commands = std::mem::take(commands);
    if commands.is_empty() { Ok(()) } else { ctx.build.run(via, &commands).await }
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
        Op::Command(command) => ctx.build.run(via, std::slice::from_ref(command)).await,
        Op::Keyring { entity, caps, path, owner } => {
            let key = ctx.build.key(via, entity, caps).await?;
            let dir = path.rsplit_once('/').map_or("/", |(dir, _)| dir);
            remote.check(Exec::argv(["install", "-d", "-o", "ceph", "-g", "ceph", "-m", "0755", dir])).await?;
            Ok(remote.upload(Upload::new(path, key.keyring()).owner(*owner)).await?)
        }
        Op::SeedFrom(source) => {
            let pack = Exec::argv(["tar", "-C", SEED, "-cf", "-", "keyring", "monmap"]);
            let packed = ctx.remote(source)?.check(pack).await?;
            let unpack = Exec::argv(["sh", "-c", UNPACK, "sh", SEED]).stdin(packed.stdout);
            remote.check(unpack).await?;
            Ok(())
        }
        Op::SeedFromCluster => {
            let key = ctx.build.key(via, "mon.", &[]).await?;
            let map = ctx.build.monmap(via).await?;
            let dir = JOIN;
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
