//! Mutual TLS between the hosts' libvirts, and for what QEMU sends from host to host.

use super::pki::{Authority, sha256};
use super::step::{Ctx, Step};
use crate::cluster::{ClusterError, fetch, update};
use crate::error::Failure;
use crate::host::{Family, family};
use crate::inventory::{HostSpec, Role};
use crate::playbook::{Action, Change, File, Findings, write_files};
use crate::ssh::{Exec, RemoteExt};
use async_trait::async_trait;
use futures::future::try_join_all;
use std::collections::BTreeMap;

/// The state object of the authority.
const OBJECT: &str = "ca";
/// Where a certificate authority's certificate, a host's certificate and its key are looked for.
const CA: [&str; 2] = ["/etc/pki/CA/cacert.pem", "/etc/pki/qemu/ca-cert.pem"];
const CERTIFICATE: [&str; 4] = [
    "/etc/pki/libvirt/servercert.pem",
    "/etc/pki/libvirt/clientcert.pem",
    "/etc/pki/qemu/server-cert.pem",
    "/etc/pki/qemu/client-cert.pem",
];
const KEY: [&str; 2] = ["/etc/pki/libvirt/private/serverkey.pem", "/etc/pki/libvirt/private/clientkey.pem"];
/// Keys that QEMU itself reads.
const QEMU_KEY: [&str; 2] = ["/etc/pki/qemu/server-key.pem", "/etc/pki/qemu/client-key.pem"];

/// Certificates on every host that runs guests.
#[derive(Debug)]
pub struct Tls;

#[async_trait]
impl Step for Tls {
    fn name(&self) -> &'static str {
        "tls"
    }

    async fn probe(&self, ctx: &Ctx) -> Result<Findings, Failure> {
        let hosts = ctx.with_role(Role::Guests);
        let authority = match authority(ctx).await {
            Ok(authority) => authority,
            // Earlier steps bring the monitors together, or fail and say why.
            Err(_) => {
                let wait = |host: &&HostSpec| {
                    Change::new(&host.name, self.name(), Action::Run, "certificate").detail("look once Ceph answers")
                };
                return Ok(hosts.iter().map(wait).collect::<Vec<_>>().into());
            }
        };
        let today = jiff::Zoned::now().date();
        let found = try_join_all(hosts.iter().map(|host| sums(ctx, host))).await?;
        let mut changes = Vec::new();
        for (host, found) in hosts.into_iter().zip(found) {
            let change = |action| Change::new(&host.name, self.name(), action, "certificate");
            let issued = authority.as_ref().and_then(|a| a.hosts.get(&host.name).map(|i| (a, i)));
            let Some((authority, issued)) = issued else {
                changes.push(change(Action::Create).detail("issue"));
                continue;
            };
            if !issued.fits(host, today) {
                changes.push(change(Action::Change).detail(format!("renew (held until {})", issued.until)));
                continue;
            }
            let wanted = sums_of(&authority.certificate, &issued.certificate, &issued.key_sha256);
            if let Some((path, _)) = wanted.iter().find(|(path, sum)| found.get(**path) != Some(sum)) {
                changes.push(change(Action::Change).detail(format!("issue anew: {path} is missing, another or open")));
            }
        }
        Ok(changes.into())
    }

    async fn apply(&self, ctx: &Ctx, changes: &[Change]) -> Result<(), Failure> {
        // "Look once Ceph answers" becomes what is then really to do.
        let found;
        let changes = if changes.iter().any(|c| c.action == Action::Run) {
            found = self.probe(ctx).await?.changes;
            &found
        } else {
            changes
        };
        let wanted: Vec<&HostSpec> =
            ctx.with_role(Role::Guests).into_iter().filter(|h| changes.iter().any(|c| c.host == h.name)).collect();
        let cluster = ctx.cluster().await?;
        let today = jiff::Zoned::now().date();
        let name = &ctx.inventory.cluster.name;
        let (authority, keys) = update(&*cluster, OBJECT, |found: Option<Authority>| {
            let mut authority = match found {
                Some(authority) => authority,
                None => Authority::new(name, today)?,
            };
            let mut keys = BTreeMap::new();
            for host in &wanted {
                keys.insert(host.name.clone(), authority.issue(host, today)?);
            }
            Ok::<_, Failure>((Some(authority.clone()), (authority, keys)))
        })
        .await?;
        try_join_all(wanted.iter().map(|host| install(ctx, host, &authority, &keys[&host.name]))).await?;
        Ok(())
    }
}

/// The authority; none where the cluster or its state pool is not made yet.
async fn authority(ctx: &Ctx) -> Result<Option<Authority>, ClusterError> {
    let cluster = match ctx.cluster().await {
        Err(ClusterError::NotSetUp { .. }) => return Ok(None),
        other => other?,
    };
    match fetch::<Authority>(&*cluster, OBJECT).await {
        Ok(found) => Ok(found.map(|(authority, _)| authority)),
        Err(ClusterError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn sums_of<'a>(ca: &str, certificate: &str, key_sha256: &str) -> BTreeMap<&'a str, String> {
    let (ca, certificate) = (sha256(ca), sha256(certificate));
    let all = CA.iter().map(|p| (*p, ca.clone()));
    let all = all.chain(CERTIFICATE.iter().map(|p| (*p, certificate.clone())));
    all.chain(KEY.iter().chain(&QEMU_KEY).map(|p| (*p, key_sha256.to_owned()))).collect()
}

/// Hashes of the files given; a key that others can read is as good as a wrong one.
const SUMS: &str = r#"
sha256sum -- "$@" 2>/dev/null
for file; do case $file in *key.pem) find "$file" -maxdepth 0 -perm /007 -printf 'open  %p\n' 2>/dev/null ;; esac; done
exit 0
"#;

/// Hashes of the files that are there.
async fn sums(ctx: &Ctx, host: &HostSpec) -> Result<BTreeMap<String, String>, Failure> {
    let paths = CA.iter().chain(&CERTIFICATE).chain(&KEY).chain(&QEMU_KEY);
    let output = ctx.remote(&host.name)?.check(Exec::script(SUMS, paths.copied())).await?;
    let text = output.text().into_owned();
    let lines = text.lines().filter_map(|line| line.split_once("  "));
    Ok(lines.map(|(sum, path)| (path.to_owned(), sum.to_owned())).collect())
}

async fn install(ctx: &Ctx, host: &HostSpec, authority: &Authority, key: &str) -> Result<(), Failure> {
    let platform = ctx.platform.get(&host.name).cloned().unwrap_or_default();
    let (user, group) = match family(&platform.os, &platform.version) {
        Ok(Family::Redhat) => ("qemu", "qemu"),
        _ => ("libvirt-qemu", "kvm"),
    };
    let certificate = &authority.hosts[&host.name].certificate;
    let mut files = Vec::new();
    files.extend(CA.map(|p| File::new(p, &authority.certificate)));
    files.extend(CERTIFICATE.map(|p| File::new(p, certificate)));
    files.extend(KEY.map(|p| File::new(p, key).mode("0600").secret()));
    files.extend(QEMU_KEY.map(|p| File::new(p, key).mode("0400").owner(user, group).secret()));
    // Guests go on while libvirt reads its certificates anew.
    let script = format!(
        "set -eu\n{}systemctl try-restart libvirtd.service virtproxyd.service 2>/dev/null || true\n",
        write_files(&files)
    );
    ctx.remote(&host.name)?.check(Exec::argv(["bash", "-s"]).stdin(script)).await?;
    Ok(())
}
