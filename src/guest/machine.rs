//! The machine all hosts can give: newest common machine type, common virtualisation, common processor.

use super::spec::Machine;
use crate::cluster::{ClusterError, ClusterPort, fetch, update};
use crate::error::Failure;
use crate::libvirt::{Hypervisor, Hypervisors};
use futures::future::try_join_all;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The state object of the machine that new guests get.
const OBJECT: &str = "machine";
/// Machine types of this family have a version and take PCI Express devices.
const FAMILY: &str = "pc-q35-";
/// The processor where it is emulated: the same on every host, and enough for distribution kernels.
const EMULATED: &str = "<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>";

/// The machine new guests get: the one the cluster settled on, else the richest all hosts can give, which is then
/// settled on.
///
/// # Errors
/// When a host cannot be asked (and nothing was settled on), or the hosts have nothing in common.
pub async fn common(port: &dyn ClusterPort, hypervisors: &Hypervisors) -> Result<Machine, Failure> {
    if let Some((machine, _)) = fetch::<Machine>(port, OBJECT).await? {
        return Ok(machine);
    }
    let hosts: Vec<&Arc<dyn Hypervisor>> = hypervisors.all().collect();
    let machine = work_out(&hosts).await?;
    let settled = update(port, OBJECT, |found: Option<Machine>| {
        let machine = found.unwrap_or_else(|| machine.clone());
        Ok::<_, ClusterError>((Some(machine.clone()), machine))
    });
    settled.await.map_err(Failure::from)
}

/// The richest machine all these hosts can give.
///
/// # Errors
/// When a host cannot be asked, or the hosts have nothing in common.
pub async fn work_out(hosts: &[&Arc<dyn Hypervisor>]) -> Result<Machine, Failure> {
    let texts = try_join_all(hosts.iter().map(|h| h.capabilities())).await?;
    let offers: Vec<Offer> = texts.iter().map(|text| offer(text)).collect::<Result<_, _>>()?;
    let Some(machine) = newest_common(&offers) else {
        return Err(Failure::failed(format!("the hosts have no machine type {FAMILY}* in common"))
            .hint("bring all hosts to the same version of QEMU"));
    };
    if !offers.iter().all(|o| o.kvm) {
        return Ok(Machine { machine, virt: "qemu".into(), cpu: EMULATED.into() });
    }
    let asked = hosts.iter().map(|h| h.domain_capabilities(&machine, "kvm"));
    let models: Vec<String> =
        try_join_all(asked).await?.iter().map(|text| host_model(text)).collect::<Result<_, _>>()?;
    let Some(first) = hosts.first() else { return Err(Failure::usage("no host runs guests")) };
    let cpu = first.baseline_cpu("kvm", &models).await?;
    Ok(Machine { machine, virt: "kvm".into(), cpu })
}

/// What a host offers to 64-bit PC guests.
#[derive(Debug, PartialEq, Eq)]
struct Offer {
    machines: BTreeSet<(u32, u32)>,
    kvm: bool,
}

fn offer(capabilities: &str) -> Result<Offer, Failure> {
    let document = roxmltree::Document::parse(capabilities)?;
    let arch = document.descendants().find(|n| n.has_tag_name("arch") && n.attribute("name") == Some("x86_64"));
    let Some(arch) = arch else { return Err(Failure::failed("libvirt offers no x86_64 guests")) };
    let machines = arch.children().filter(|n| n.has_tag_name("machine")).filter_map(|n| version(n.text()?)).collect();
    let kvm = arch.children().any(|n| n.has_tag_name("domain") && n.attribute("type") == Some("kvm"));
    Ok(Offer { machines, kvm })
}

/// The version of a machine type of the family.
fn version(machine: &str) -> Option<(u32, u32)> {
    let (major, minor) = machine.strip_prefix(FAMILY)?.split_once('.')?;
    // Three-part versions are old micro releases; leaving them out loses nothing.
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn newest_common(offers: &[Offer]) -> Option<String> {
    let (first, rest) = offers.split_first()?;
    let common = first.machines.iter().rev().find(|v| rest.iter().all(|o| o.machines.contains(v)))?;
    Some(format!("{FAMILY}{}.{}", common.0, common.1))
}

/// The processor of a host as libvirt's baseline takes it: the host-model part of its domain capabilities.
fn host_model(domain_capabilities: &str) -> Result<String, Failure> {
    let document = roxmltree::Document::parse(domain_capabilities)?;
    let mode = document.descendants().find(|n| n.has_tag_name("mode") && n.attribute("name") == Some("host-model"));
    let Some(mode) = mode else { return Err(Failure::failed("libvirt tells no host-model processor")) };
    let inner: String = mode.children().map(|child| &domain_capabilities[child.range()]).collect();
    Ok(format!("<cpu mode='custom' match='exact'>{}</cpu>", inner.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "<capabilities><host/><guest><os_type>hvm</os_type><arch name='x86_64'>
        <machine maxCpus='255'>pc-i440fx-7.2</machine><machine canonical='pc-q35-7.2'>q35</machine>
        <machine>pc-q35-7.2</machine><machine>pc-q35-6.2</machine><machine>pc-q35-2.10</machine>
        <domain type='qemu'/><domain type='kvm'/></arch></guest></capabilities>";
    const NEW: &str = "<capabilities><guest><arch name='x86_64'><machine>pc-q35-10.0</machine>
        <machine>pc-q35-7.2</machine><domain type='qemu'/></arch></guest></capabilities>";

    #[test]
    fn the_newest_machine_type_that_all_have_is_chosen_by_number_not_by_letter() {
        let offers = [offer(OLD).unwrap(), offer(NEW).unwrap()];
        assert_eq!(newest_common(&offers).as_deref(), Some("pc-q35-7.2"));
        assert_eq!(newest_common(&offers[1..]).as_deref(), Some("pc-q35-10.0"));
        assert!(offers[0].kvm && !offers[1].kvm);
        assert_eq!(newest_common(&[]), None);
    }

    #[test]
    fn a_hosts_processor_is_taken_from_its_host_model() {
        let text = "<domainCapabilities><cpu><mode name='host-passthrough' supported='yes'/>\
            <mode name='host-model' supported='yes'><model fallback='forbid'>SandyBridge</model>\
            <feature policy='require' name='pcid'/></mode></cpu></domainCapabilities>";
        assert_eq!(
            host_model(text).unwrap(),
            "<cpu mode='custom' match='exact'><model fallback='forbid'>SandyBridge</model>\
             <feature policy='require' name='pcid'/></cpu>"
        );
    }
}
