//! `rackhand init`.

use super::init_args::{InitArgs, bmc_flag, host_flag, osd_flag};
use super::{Context, init_probe};
use crate::error::{Failure, Kind, ResultExt};
use crate::inventory::{self, AddressRange, Draft, DraftHost, DraftNetwork, IpoibMode, counterpart};
use ipnet::IpNet;
use serde::Serialize;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

#[derive(Serialize)]
struct Written {
    file: PathBuf,
    fsid: Uuid,
    hosts: Vec<String>,
}

/// Runs `rackhand init`.
///
/// # Errors
/// When the file exists, something is missing or wrong (exit 2), or a host cannot be looked at.
pub async fn run(args: InitArgs, context: &Context) -> Result<(), Failure> {
    let file = args.output_file.clone().unwrap_or_else(|| context.global.inventory.clone());
    let to_stdout = file == Path::new("-") || context.global.dry_run;
    if !to_stdout && !args.force && file.symlink_metadata().is_ok() {
        return Err(exists(&file));
    }
    let draft = if !args.probe.is_empty() {
        init_probe::draft(&args, context).await?
    } else if !args.hosts.is_empty() {
        from_flags(&args)?
    } else if context.ui.can_ask() {
        let (ui, args) = (context.ui.clone(), args.clone());
        let asked = tokio::task::spawn_blocking(move || ask(args, &mut |question| ui.ask(question)));
        from_flags(&asked.await??)?
    } else {
        return Err(Failure::usage("no host is given, and there is nobody to ask")
            .hint("rackhand init --management 10.0.0.0/24 --storage 10.1.0.0/24 --host h1=10.0.0.11 --host h2=10.0.0.12 ...")
            .hint("rackhand init --probe 10.0.0.11 10.0.0.12 ..."));
    };
    let text = draft.to_yaml();
    let silent = draft.silent.len();
    // What is written is correct; wrong flags and answers show here, in the words of the file.
    if let Err(diagnostics) = inventory::parse("the new inventory", &text) {
        return Err(Failure::new(Kind::Usage, diagnostics).hint("nothing was written; correct the flags or answers"));
    }
    if to_stdout {
        context.ui.print(&text)?;
        return complete(silent);
    }
    write(&file, &text, args.force)?;
    let hosts = draft.hosts.iter().map(|h| h.name.clone()).collect();
    let next = next(&file, !args.probe.is_empty(), draft.hosts.iter().any(|h| !h.osds.is_empty()));
    context.ui.result("rackhand.init/1", &Written { file, fsid: draft.fsid, hosts }, |w| {
        format!("wrote {}: {} hosts\n{next}", w.file.display(), w.hosts.len())
    })?;
    complete(silent)
}

/// Whether every host that was named is in it.
fn complete(silent: usize) -> Result<(), Failure> {
    if silent == 0 {
        return Ok(());
    }
    Err(Failure::msg(Kind::Partial, format!("{silent} hosts could not be looked at; they stand in it as comments"))
        .hint("fill them in by hand, or run the command again with --force once they answer"))
}

/// What there is to do next: nothing works before the hosts' keys are known, and `check` needs disks.
fn next(file: &Path, keys_are_known: bool, has_disks: bool) -> String {
    let rackhand = match file.display().to_string().as_str() {
        "inventory.yaml" => "rackhand".to_owned(),
        file => format!("rackhand -i {file}"),
    };
    let mut steps = vec!["look through it".to_owned()];
    if !keys_are_known {
        steps.push(format!("`{rackhand} host add NAME ADDRESS` for each host that is new to your known_hosts"));
    }
    if !has_disks {
        steps.push(format!("`{rackhand} facts --disks` lists what to write under `osds`"));
    }
    steps.push(format!("`{rackhand} check`"));
    format!("next: {}", steps.join("\n      "))
}

fn exists(file: &Path) -> Failure {
    Failure::usage(format!("{} exists", file.display())).hint("--output-file names another, --force replaces it")
}

/// Puts the file in place in one step: it is there whole or not at all.
fn write(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let directory = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let put = || -> std::io::Result<Result<(), Failure>> {
        let mut new = tempfile::Builder::new().prefix(".inventory-").tempfile_in(directory)?;
        new.write_all(text.as_bytes())?;
        new.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        new.as_file().sync_all()?;
        if force {
            new.persist(file)?;
        } else if let Err(error) = new.persist_noclobber(file) {
            let taken = error.error.kind() == std::io::ErrorKind::AlreadyExists;
            return if taken { Ok(Err(exists(file))) } else { Err(error.error) };
        }
        Ok(Ok(()))
    };
    put().while_doing(|| format!("cannot write {}", file.display()))?
}

fn from_flags(args: &InitArgs) -> Result<Draft, Failure> {
    let Some(management) = args.management else {
        return Err(Failure::usage("--host needs --management CIDR, the network the addresses are in"));
    };
    let (management, storage) = (management.trunc(), args.storage.unwrap_or(management).trunc());
    let mut hosts = Vec::new();
    for flag in &args.hosts {
        if !management.contains(&flag.address) {
            let message =
                format!("host {}: {} is outside the management network {management}", flag.name, flag.address);
            return Err(Failure::usage(message).hint("correct --host or --management"));
        }
        let derived = || counterpart(flag.address, &management, &storage);
        let Some(storage_address) = flag.storage.or_else(derived) else {
            let message = format!("host {}: no storage address follows from {} in {storage}", flag.name, flag.address);
            return Err(Failure::usage(message).hint(format!("--host {}={},ADDRESS", flag.name, flag.address)));
        };
        hosts.push(DraftHost {
            name: flag.name.clone(),
            address: flag.address,
            storage_address,
            osds: args.osds.iter().filter(|(host, _)| *host == flag.name).map(|(_, device)| device.clone()).collect(),
            bmc: args.bmcs.iter().find(|(host, _)| *host == flag.name).map(|(_, bmc)| *bmc),
            about: None,
            memory: None,
        });
    }
    let named =
        args.osds.iter().map(|(host, _)| ("--osd", host)).chain(args.bmcs.iter().map(|(host, _)| ("--bmc", host)));
    if let Some((flag, host)) = named.into_iter().find(|(_, host)| !hosts.iter().any(|h| h.name == **host)) {
        return Err(Failure::usage(format!("{flag} names host {host}, which no --host does")));
    }
    Ok(Draft {
        name: args.name.clone().unwrap_or_else(|| "rack".to_owned()),
        fsid: Uuid::new_v4(),
        user: args.user.clone(),
        identity: args.identity.clone(),
        known_hosts: args.known_hosts.clone(),
        management: DraftNetwork::ethernet(management),
        storage: storage_network(storage, args.infiniband, args.storage_mtu),
        guest_ranges: args.guest_ranges.clone(),
        gateway: args.gateway,
        no_bridge: None,
        hosts,
        silent: Vec::new(),
    })
}

fn storage_network(cidr: IpNet, infiniband: bool, mtu: Option<u32>) -> DraftNetwork {
    let mode = match mtu {
        Some(mtu) if mtu <= IpoibMode::Datagram.max_mtu() => IpoibMode::Datagram,
        _ => IpoibMode::Connected,
    };
    let ipoib = infiniband.then_some(mode);
    DraftNetwork { mtu: mtu.or(ipoib.map(IpoibMode::max_mtu)), ipoib, ..DraftNetwork::ethernet(cidr) }
}

/// Asks a question, and again with the reason until the answer can be read; an empty answer is the default.
fn answer<T>(
    ask: &mut dyn FnMut(&str) -> Result<String, Failure>,
    question: &str,
    default: Option<T>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    let mut shown = question.to_owned();
    loop {
        let text = ask(&shown)?;
        if text.is_empty()
            && let Some(default) = default
        {
            return Ok(default);
        }
        match read(&text) {
            Ok(value) => return Ok(value),
            Err(reason) => shown = format!("{reason}\n{question}"),
        }
    }
}

/// Fills what no flag has said from answers.
fn ask(mut args: InitArgs, ask: &mut dyn FnMut(&str) -> Result<String, Failure>) -> Result<InitArgs, Failure> {
    let network = |text: &str| text.parse::<IpNet>().map_err(|_| format!("`{text}` is no network like 10.0.0.0/24"));
    let yes = |text: &str| Ok(matches!(text, "y" | "Y" | "yes"));
    if args.name.is_none() {
        args.name = Some(answer(ask, "name of the cluster [rack]:", Some("rack".to_owned()), |t| Ok(t.to_owned()))?);
    }
    let management = match args.management {
        Some(network) => network,
        None => answer(ask, "management network, for example 10.0.0.0/24:", None, network)?,
    };
    args.management = Some(management);
    if args.storage.is_none() {
        let storage = answer(ask, "storage network [the same]:", Some(management), network)?;
        args.infiniband = storage != management && answer(ask, "is that InfiniBand? [y/N]", Some(false), yes)?;
        args.storage = Some(storage);
    }
    loop {
        let number = args.hosts.len() + 1;
        let host = |text: &str| if text.is_empty() { Ok(None) } else { host_flag(text).map(Some) };
        let question = format!("host {number}, as NAME=ADDRESS[,STORAGE]; an empty line ends the list:");
        match answer(ask, &question, None, host)? {
            Some(host) => {
                let disk = |text: &str| {
                    if text.is_empty() { Ok(None) } else { osd_flag(&format!("{}={text}", host.name)).map(Some) }
                };
                while let Some(osd) = answer(
                    ask,
                    &format!("  a disk of {} for Ceph, by /dev/disk/by-id/...; empty for no more:", host.name),
                    None,
                    disk,
                )? {
                    args.osds.push(osd);
                }
                let bmc = |text: &str| {
                    if text.is_empty() { Ok(None) } else { bmc_flag(&format!("{}={text}", host.name)).map(Some) }
                };
                let question = format!("  the BMC of {}, as ADDRESS or ipmi:ADDRESS; empty for none:", host.name);
                args.bmcs.extend(answer(ask, &question, None, bmc)?);
                args.hosts.push(host);
            }
            None if args.hosts.is_empty() => {}
            None => break,
        }
    }
    if args.guest_ranges.is_empty() {
        let range = |text: &str| text.parse::<AddressRange>().map(|r| vec![r]);
        let question = "addresses that guests may get, as FIRST-LAST [none yet]:";
        args.guest_ranges = answer(ask, question, Some(Vec::new()), range)?;
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::BmcKind;

    fn answered(answers: &[&str]) -> Result<(Draft, Vec<String>), Failure> {
        let mut answers = answers.iter();
        let mut asked = Vec::new();
        let args = ask(InitArgs::default(), &mut |question| {
            asked.push(question.to_owned());
            answers.next().map(|a| (*a).to_owned()).ok_or_else(|| Failure::usage("no more answers"))
        })?;
        Ok((from_flags(&args)?, asked))
    }

    #[test]
    fn answers_make_an_inventory() {
        let script = [
            "north",
            "10.0.0.0",
            "10.0.0.0/24",
            "10.1.0.0/24",
            "y",
            "",
            "h1=10.0.0.11",
            "/dev/disk/by-id/a",
            "",
            "10.2.0.11",
            "h2=10.0.0.12,10.1.0.99",
            "",
            "ipmi:nowhere",
            "ipmi:10.2.0.12",
            "h3:10.0.0.13",
            "h3=10.0.0.13",
            "",
            "",
            "",
            "10.0.0.100-10.0.0.150",
        ];
        let (draft, asked) = answered(&script).unwrap();
        assert!(inventory::parse("f", &draft.to_yaml()).is_ok());
        assert_eq!(draft.hosts[0].storage_address.to_string(), "10.1.0.11");
        assert_eq!(draft.hosts[1].storage_address.to_string(), "10.1.0.99");
        assert_eq!(draft.storage.mtu, Some(65520));
        let kinds: Vec<_> = draft.hosts.iter().map(|host| host.bmc.map(|bmc| bmc.kind)).collect();
        assert_eq!(kinds, [Some(BmcKind::Redfish), Some(BmcKind::Ipmi), None]);
        insta::assert_snapshot!(asked.join("\n"), @"
        name of the cluster [rack]:
        management network, for example 10.0.0.0/24:
        `10.0.0.0` is no network like 10.0.0.0/24
        management network, for example 10.0.0.0/24:
        storage network [the same]:
        is that InfiniBand? [y/N]
        host 1, as NAME=ADDRESS[,STORAGE]; an empty line ends the list:
        host 1, as NAME=ADDRESS[,STORAGE]; an empty line ends the list:
          a disk of h1 for Ceph, by /dev/disk/by-id/...; empty for no more:
          a disk of h1 for Ceph, by /dev/disk/by-id/...; empty for no more:
          the BMC of h1, as ADDRESS or ipmi:ADDRESS; empty for none:
        host 2, as NAME=ADDRESS[,STORAGE]; an empty line ends the list:
          a disk of h2 for Ceph, by /dev/disk/by-id/...; empty for no more:
          the BMC of h2, as ADDRESS or ipmi:ADDRESS; empty for none:
        `nowhere` is no IP address
          the BMC of h2, as ADDRESS or ipmi:ADDRESS; empty for none:
        host 3, as NAME=ADDRESS[,STORAGE]; an empty line ends the list:
        write NAME=ADDRESS or NAME=ADDRESS,STORAGE
        host 3, as NAME=ADDRESS[,STORAGE]; an empty line ends the list:
          a disk of h3 for Ceph, by /dev/disk/by-id/...; empty for no more:
          the BMC of h3, as ADDRESS or ipmi:ADDRESS; empty for none:
        host 4, as NAME=ADDRESS[,STORAGE]; an empty line ends the list:
        addresses that guests may get, as FIRST-LAST [none yet]:
        ");
    }

    #[test]
    fn answers_that_end_early_are_an_error() {
        assert!(answered(&["north"]).is_err());
    }

    #[test]
    fn what_flags_lack_is_said() {
        let mut args = InitArgs { hosts: vec![host_flag("h1=10.0.0.1").unwrap()], ..InitArgs::default() };
        assert!(from_flags(&args).unwrap_err().to_string().contains("--management"));
        args.management = Some("10.0.0.0/24".parse().unwrap());
        args.hosts = vec![host_flag("h1=10.5.0.77").unwrap()];
        assert!(from_flags(&args).unwrap_err().to_string().contains("outside the management network"));
        args.storage = Some("10.1.0.0/30".parse().unwrap());
        args.hosts = vec![host_flag("h1=10.0.0.77").unwrap()];
        assert_eq!(from_flags(&args).unwrap_err().hints, ["--host h1=10.0.0.77,ADDRESS"]);
        args.storage = None;
        args.osds = vec![osd_flag("h9=/dev/disk/by-id/x").unwrap()];
        assert!(from_flags(&args).unwrap_err().to_string().contains("--osd names host h9"));
        args.osds.clear();
        args.bmcs = vec![bmc_flag("h8=ipmi:10.3.0.8").unwrap()];
        assert!(from_flags(&args).unwrap_err().to_string().contains("--bmc names host h8"));
        assert!(bmc_flag("10.3.0.8").is_err() && bmc_flag("h8=idrac:10.3.0.8").is_err());
        assert!(host_flag("h1").is_err() && host_flag("h1=x").is_err() && host_flag("h1=10.0.0.1,x").is_err());
    }

    #[test]
    fn the_next_steps_are_those_that_work() {
        insta::assert_snapshot!(next(Path::new("inventory.yaml"), false, false), @"
        next: look through it
              `rackhand host add NAME ADDRESS` for each host that is new to your known_hosts
              `rackhand facts --disks` lists what to write under `osds`
              `rackhand check`
        ");
        assert_eq!(
            next(Path::new("a/b.yaml"), true, true),
            "next: look through it\n      `rackhand -i a/b.yaml check`"
        );
    }

    #[test]
    fn an_existing_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("inventory.yaml");
        write(&file, "one", false).unwrap();
        assert_eq!(write(&file, "two", false).unwrap_err().kind, Kind::Usage);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
        write(&file, "three", true).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "three");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
