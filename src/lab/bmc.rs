//! A host's BMC: a machine of its own on the management network that speaks IPMI and Redfish and outlives the host.
#![allow(clippy::disallowed_methods, reason = "starts what is to outlive the command")]

use super::control::Handle;
use super::names::{BMC_USER, HostPlan, LabName, Wire, machine_uuid};
use super::network::{self, BMC_NIC, Namespace};
use super::redfish::{self, Redfish};
use super::rootfs::{MODEL, VENDOR};
use super::store::{LabDir, write};
use super::tool::spawn_failure;
use super::{fru, store};
use crate::error::{Failure, ResultExt};
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// The port of Redfish.
const HTTPS: u16 = 443;
/// The address of the management controller on its own bus; 20h is the BMC's by the IPMI specification.
const CONTROLLER: &str = "0x20";

/// A BMC that answers; it is dead once this is dropped.
#[derive(Debug)]
pub(super) struct Bmc {
    _ipmi: Child,
    _redfish: Redfish,
    _namespace: Namespace,
}

impl Bmc {
    /// Brings a BMC to life.
    pub(super) async fn start(lab: &LabDir, host: HostPlan, handle: Handle) -> Result<Self, Failure> {
        Self::try_start(lab, host, handle).await.while_doing(|| format!("cannot start the BMC of host {}", host.name()))
    }

    async fn try_start(lab: &LabDir, host: HostPlan, handle: Handle) -> Result<Self, Failure> {
        let password = read_password(lab)?;
        let (namespace, listener) = Namespace::create(|| std::net::TcpListener::bind(("0.0.0.0", HTTPS)))?;
        network::lay_cable(host, Wire::Bmc, &namespace).await?;
        network::configure(&namespace, BMC_NIC, &format!("{}/24", host.bmc())).await?;
        let ipmi = start_ipmi(lab, host, &password, &namespace)?;
        let redfish = redfish::start(host, password, listener, handle)?;
        Ok(Bmc { _ipmi: ipmi, _redfish: redfish, _namespace: namespace })
    }
}

fn read_password(lab: &LabDir) -> Result<String, Failure> {
    let file = lab.bmc_password();
    let text = fs::read_to_string(&file).while_doing(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// Makes the password of a lab's BMCs: 16 letters and digits, since IPMI takes at most 20 bytes.
pub(super) fn make_password(lab: &LabDir) -> Result<(), Failure> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    write(&lab.bmc_password(), format!("{}\n", &random[..16]).as_bytes(), 0o600)
}

fn start_ipmi(lab: &LabDir, host: HostPlan, password: &str, namespace: &Namespace) -> Result<Child, Failure> {
    let dir = lab.host(&host.name()).bmc();
    let state = store::make_dir(&dir.join("state"))?;
    let [config, commands, script, fru_file] = ["lan.conf", "commands", "chassis", "fru.bin"].map(|f| dir.join(f));
    write(&script, chassis_script(&lab.name, host).as_bytes(), 0o755)?;
    write(&config, lan_config(host, password, &script).as_bytes(), 0o600)?;
    let fru = fru::image(VENDOR, MODEL, &host.serial());
    write(&fru_file, &fru, 0o644)?;
    write(&commands, simulator_commands(&fru_file, fru.len()).as_bytes(), 0o644)?;
    let log = File::create(dir.join("ipmi_sim.log"))?;
    let errors = log.try_clone()?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.path().display())).args(["ipmi_sim", "-n", "-c"]).arg(config);
    command.arg("-f").arg(commands).arg("-s").arg(state);
    command.stdin(Stdio::null()).stdout(log).stderr(errors).kill_on_drop(true);
    command.spawn().map_err(|e| spawn_failure("nsenter", e))
}

/// The simulator's configuration; it holds the password.
fn lan_config(host: HostPlan, password: &str, script: &Path) -> String {
    format!(
        "name \"{serial}\"\n\
         set_working_mc {CONTROLLER}\n\
         startlan 1\n\
         addr {address} 623\n\
         priv_limit admin\n\
         allowed_auths_callback none\n\
         allowed_auths_user md5\n\
         allowed_auths_operator md5\n\
         allowed_auths_admin md5\n\
         guid {guid}\n\
         endlan\n\
         chassis_control \"{script}\"\n\
         user 2 true \"{BMC_USER}\" \"{password}\" admin 10 md5\n",
        serial = host.serial(),
        address = host.bmc(),
        guid = machine_uuid(host).simple(),
        script = script.display(),
    )
}

/// What builds the simulated controller.
fn simulator_commands(fru: &Path, size: usize) -> String {
    format!(
        "mc_setbmc {CONTROLLER}\n\
         mc_add {CONTROLLER} 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
         sel_enable {CONTROLLER} 100 0x0a\n\
         mc_add_fru_data {CONTROLLER} 0 {size} file 0 \"{}\"\n\
         mc_enable {CONTROLLER}\n",
        fru.display()
    )
}

/// What the simulator calls to look at and switch the power. It runs among the processes of the supervisor, which is
/// the first of them: the very program that runs is called, also when its file was replaced since.
fn chassis_script(lab: &LabName, host: HostPlan) -> String {
    format!("#!/bin/sh\nexec /proc/1/exe lab chassis {} --name {lab} -- \"$@\"\n", host.name())
}

#[cfg(test)]
mod tests {
    use super::super::names::Plan;
    use super::*;

    #[test]
    fn files_of_the_simulator() {
        let host = Plan::new(3).host(2);
        insta::assert_snapshot!(lan_config(host, "secret", Path::new("/lab/chassis")), @r#"
        name "RH00302"
        set_working_mc 0x20
        startlan 1
        addr 10.77.3.112 623
        priv_limit admin
        allowed_auths_callback none
        allowed_auths_user md5
        allowed_auths_operator md5
        allowed_auths_admin md5
        guid 17668f00a79f55ba940a85105f2322aa
        endlan
        chassis_control "/lab/chassis"
        user 2 true "root" "secret" admin 10 md5
        "#);
        let script = chassis_script(&"rack".parse().unwrap(), host);
        assert_eq!(script, "#!/bin/sh\nexec /proc/1/exe lab chassis h2 --name rack -- \"$@\"\n");
    }
}
