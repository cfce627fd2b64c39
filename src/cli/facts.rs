//! `rackhand facts`.

use super::Context;
use super::host_names::select;
use crate::error::{Failure, Kind};
use crate::host::{self, Facts};
use crate::ssh::RemoteError;
use crate::ui::Table;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;

/// Show the hardware and software of hosts: processors, memory, networks, disks, system.
///
/// The table is a summary. `--disks` lists the disks by the names that an inventory takes, and `-o json` has everything.
#[derive(Debug, Args)]
pub struct FactsArgs {
    /// Hosts, by name or glob [default: all].
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// List the disks by stable name, with what is on them.
    #[arg(long)]
    disks: bool,
}

#[derive(Serialize)]
struct Document {
    hosts: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    host: String,
    /// Why nothing is known.
    error: Option<String>,
    facts: Option<Facts>,
}

/// Runs `rackhand facts`.
///
/// # Errors
/// When a host cannot be looked at; the others are shown all the same.
pub async fn run(args: FactsArgs, context: &Context) -> Result<(), Failure> {
    let inventory = context.inventory()?;
    let names = select(&inventory, &args.hosts)?;
    let fleet = context.fleet(&inventory)?;
    let job = context.ui.job(format!("facts of {} hosts", names.len()));
    let look = |host: std::sync::Arc<dyn crate::ssh::Remote>| async move {
        let facts = host::gather(host.as_ref()).await;
        // One question was all: a hundred connections need not stay.
        host.disconnect().await;
        facts
    };
    let mut found = fleet.each(names.iter().map(String::as_str), look).await;
    let failed: Vec<String> = found.values().filter_map(|r| r.as_ref().err()).map(RemoteError::to_string).collect();
    if failed.is_empty() {
        job.done("");
    } else {
        job.fail(format!("{} did not answer", failed.len()));
    }
    let hosts = names.iter().filter_map(|name| found.remove(name).map(|result| entry(name, result))).collect();
    let table = if args.disks { disk_table } else { table };
    context.ui.result("rackhand.facts/1", &Document { hosts }, table)?;
    match failed.len() {
        0 => Ok(()),
        n if n == names.len() => Err(Failure::new(Kind::Failed, anyhow::anyhow!("{}", failed.join("\n")))),
        _ => Err(Failure::new(Kind::Partial, anyhow::anyhow!("{}", failed.join("\n")))),
    }
}

fn entry(name: &str, result: Result<Facts, RemoteError>) -> Entry {
    let (facts, error) = match result {
        Ok(facts) => (Some(facts), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Entry { host: name.to_owned(), error, facts }
}

fn table(document: &Document) -> String {
    let mut table = Table::new(["host", "machine", "serial", "system", "cpu", "memory", "nics", "disks", "software"]);
    for entry in &document.hosts {
        let Some(facts) = &entry.facts else {
            let mut cells: [String; 9] = Default::default();
            (cells[0], cells[1]) = (entry.host.clone(), "(no answer)".to_owned());
            table.row(cells);
            continue;
        };
        table.row([
            entry.host.clone(),
            format!("{} {}", facts.machine.vendor, facts.machine.model).trim().to_owned(),
            facts.machine.serial.clone(),
            format!("{} {}", facts.os.id, facts.os.version),
            format!("{} x {} ({}T)", facts.cpu.sockets, facts.cpu.model, facts.cpu.threads),
            gib(facts.memory.total),
            nics(facts),
            disks(facts),
            software(facts),
        ]);
    }
    table.render()
}

/// Every disk of every host that answered.
fn disk_table(document: &Document) -> String {
    let mut table = Table::new(["host", "disk", "size", "kind", "what is on it", "name for the inventory"]).right(2);
    for (entry, facts) in document.hosts.iter().filter_map(|entry| Some((entry, entry.facts.as_ref()?))) {
        for disk in &facts.disks {
            let kind = if disk.rotational { "hdd" } else { "ssd" };
            let content = match &disk.osd {
                Some(osd) => {
                    let name = osd.id.map_or_else(|| "an unfinished OSD".to_owned(), |id| format!("osd.{id}"));
                    format!("{name} of cluster {}", osd.fsid)
                }
                None if disk.is_empty() => "empty".to_owned(),
                None => disk.content.join(", "),
            };
            table.row([
                entry.host.clone(),
                disk.path.clone(),
                gib(disk.size),
                format!("{} {kind}", disk.model).trim().to_owned(),
                content,
                disk.stable_name().unwrap_or_default().to_owned(),
            ]);
        }
    }
    table.render()
}

fn gib(bytes: u64) -> String {
    format!("{:.0}G", bytes as f64 / f64::from(1 << 30))
}

/// Interfaces with a link: `eno1 10G, ib0 56G`.
fn nics(facts: &Facts) -> String {
    let named = facts.nics.iter().filter(|nic| nic.link).map(|nic| match nic.speed {
        Some(speed) => format!("{} {}", nic.name, crate::inventory::LinkSpeed(speed)),
        None => nic.name.clone(),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// Disks by size and kind: `1 x 447G ssd, 3 x 3.6T hdd`.
fn disks(facts: &Facts) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for disk in &facts.disks {
        let kind = if disk.rotational { "hdd" } else { "ssd" };
        *kinds.entry(format!("{} {kind}", gib(disk.size))).or_default() += 1;
    }
    kinds.iter().map(|(kind, n)| format!("{n} x {kind}")).collect::<Vec<_>>().join(", ")
}

fn software(facts: &Facts) -> String {
    let parts = [("ceph", &facts.software.ceph), ("libvirt", &facts.software.libvirt), ("qemu", &facts.software.qemu)];
    let short = |version: &str| version.split(['-', '+']).next().unwrap_or(version).to_owned();
    let named = parts.iter().filter_map(|(name, version)| Some(format!("{name} {}", short(version.as_ref()?))));
    named.collect::<Vec<_>>().join(", ")
}
