//! The guests' Ceph key in every libvirt, under one id everywhere, so that a definition fits every host.

use super::pki::sha256;
use super::step::{Ctx, Step};
use crate::cluster::{ClusterError, Target};
use crate::error::Failure;
use crate::inventory::{HostSpec, Inventory, Role};
use crate::playbook::{Action, Change, Findings};
use crate::ssh::{Exec, RemoteExt};
use async_trait::async_trait;
use futures::future::try_join_all;
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// The user of Ceph that guests' disks are opened as.
pub const GUEST_USER: &str = "client.rackhand-guests";
/// How long Ceph may take to tell the key.
const KEY: Duration = Duration::from_secs(10);

/// Tells the hash of the stored value, where the secret is known.
const PROBE: &str = r#"
f=/etc/libvirt/secrets/$1
[ -e "$f.xml" ] && [ -e "$f.base64" ] && printf '%s' "$(cat "$f.base64")" | sha256sum | cut -d' ' -f1
exit 0
"#;

/// Reads the definition up to an empty line and then the value from its stdin; neither is ever an argument.
const DEFINE: &str = r#"
set -eu
umask 077
xml=$(while IFS= read -r line && [ -n "$line" ]; do printf '%s\n' "$line"; done; printf .)
printf '%s' "${xml%.}" | virsh -q -c qemu:///system secret-define /dev/stdin >/dev/null
IFS= read -r value
printf '%s' "$value" | virsh -q -c qemu:///system secret-set-value "$1" --file /dev/stdin >/dev/null
"#;

/// The id of the secret: the same on every host, and again after a rebuild of the same cluster.
pub fn secret_uuid(inventory: &Inventory) -> Uuid {
    Uuid::new_v5(&inventory.cluster.fsid, GUEST_USER.as_bytes())
}

/// The secret on every host that runs guests.
#[derive(Debug)]
pub struct Secret;

#[async_trait]
impl Step for Secret {
    fn name(&self) -> &'static str {
        "secret"
    }

    async fn probe(&self, ctx: &Ctx) -> Result<Findings, Failure> {
        let hosts = ctx.with_role(Role::Guests);
        let change = |host: &HostSpec, action, detail: &str| {
            Change::new(&host.name, self.name(), action, format!("secret {}", secret_uuid(&ctx.inventory)))
                .detail(detail)
        };
        let key = match key(ctx).await {
            Ok(key) => key,
            Err(error) => {
                let (action, detail) = match error {
                    ClusterError::NotSetUp { .. } | ClusterError::NotFound(_) => {
                        (Action::Create, "key of the guests' Ceph user")
                    }
                    _ => (Action::Run, "compare with Ceph's key once it answers"),
                };
                return Ok(hosts.iter().map(|host| change(host, action, detail)).collect::<Vec<_>>().into());
            }
        };
        let wanted = sha256(&key);
        let found = try_join_all(hosts.iter().map(|host| stored(ctx, host))).await?;
        let wrong = hosts.into_iter().zip(found).filter(|(_, found)| found.as_deref() != Some(wanted.as_str()));
        let changes = wrong.map(|(host, found)| match found {
            None => change(host, Action::Create, "key of the guests' Ceph user"),
            Some(_) => change(host, Action::Change, "another key than Ceph has"),
        });
        Ok(changes.collect::<Vec<_>>().into())
    }

    async fn apply(&self, ctx: &Ctx, changes: &[Change]) -> Result<(), Failure> {
        let key = key(ctx).await?;
        let uuid = secret_uuid(&ctx.inventory);
        let xml = format!(
            "<secret ephemeral='no' private='yes'>\n  <uuid>{uuid}</uuid>\n  <usage type='ceph'>\n    \
             <name>{GUEST_USER}</name>\n  </usage>\n</secret>\n\n{key}\n"
        );
        try_join_all(changes.iter().map(|change| async {
            let exec = Exec::argv(["bash", "-c", DEFINE, "secret", &uuid.to_string()]).stdin(xml.as_bytes());
            ctx.remote(&change.host)?.check(exec).await?;
            Ok::<_, Failure>(())
        }))
        .await?;
        Ok(())
    }
}

async fn key(ctx: &Ctx) -> Result<String, ClusterError> {
    let cluster = ctx.cluster().await?;
    let command = json!({"prefix": "auth get-key", "entity": GUEST_USER, "format": "json"});
    let answer = cluster.command(&Target::Mon, command, KEY).await?;
    let key = answer["key"].as_str().or(answer.as_str()).map(|k| k.trim().to_owned());
    key.filter(|k| !k.is_empty()).ok_or_else(|| ClusterError::Malformed(format!("Ceph told no key for {GUEST_USER}")))
}

async fn stored(ctx: &Ctx, host: &HostSpec) -> Result<Option<String>, Failure> {
    let uuid = secret_uuid(&ctx.inventory).to_string();
    let output = ctx.remote(&host.name)?.check(Exec::script(PROBE, [uuid])).await?;
    let sum = output.text().trim().to_owned();
    Ok((!sum.is_empty()).then_some(sum))
}
