//! Names for the shell: hosts and networks as the inventory has them, guests and images as the cluster does.

use super::global::INVENTORY;
use crate::guest::{GuestContext, image};
use crate::inventory::{self, Inventory};
use crate::ssh::Fleet;
use crate::ui::Ui;
use clap::Arg;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

/// Longer than this, the shell seems to hang.
const DEADLINE: Duration = Duration::from_secs(1);

/// Gives an argument the names that its placeholder stands for.
pub(super) fn complete_names(arg: Arg) -> Arg {
    let placeholder = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let completer = match placeholder.as_deref() {
        Some("HOST") => ArgValueCompleter::new(hosts),
        Some("NETWORK") => ArgValueCompleter::new(networks),
        Some("GUEST") => ArgValueCompleter::new(guests),
        Some("IMAGE") => ArgValueCompleter::new(images),
        _ => return arg,
    };
    arg.add(completer)
}

/// Those that begin as what is typed.
fn matching(names: impl IntoIterator<Item = String>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    names.into_iter().filter(|name| name.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

fn hosts(typed: &OsStr) -> Vec<CompletionCandidate> {
    let hosts = inventory().map(|inventory| inventory.hosts).unwrap_or_default();
    matching(hosts.into_iter().map(|host| host.name), typed)
}

fn networks(typed: &OsStr) -> Vec<CompletionCandidate> {
    let networks = inventory().map(|inventory| inventory.networks.guests).unwrap_or_default();
    matching(networks.into_keys(), typed)
}

fn guests(typed: &OsStr) -> Vec<CompletionCandidate> {
    let names = ask(async |rack: &GuestContext| Some(rack.index().await.ok()?.into_keys().collect()));
    matching(names, typed)
}

fn images(typed: &OsStr) -> Vec<CompletionCandidate> {
    let names = ask(async |rack: &GuestContext| {
        let images = image::list(rack.port()).await.ok()?;
        Some(images.0.into_iter().map(|image| image.name).collect())
    });
    matching(names, typed)
}

/// What the cluster answers in time; nothing where it does not, for a shell has no place for a message.
fn ask(question: impl AsyncFnOnce(&GuestContext) -> Option<Vec<String>>) -> Vec<String> {
    let answer = async {
        let inventory = inventory()?;
        let fleet = Fleet::over_ssh(&inventory, DEADLINE).ok()?;
        let rack = GuestContext::connect(fleet, inventory, Ui::hidden()).await.ok()?;
        question(&rack).await
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let names = runtime.block_on(async { tokio::time::timeout(DEADLINE, answer).await });
    runtime.shutdown_background();
    names.ok().flatten().unwrap_or_default()
}

/// The inventory of the line that is being typed.
fn inventory() -> Option<Inventory> {
    let variable = std::env::var_os(INVENTORY).filter(|path| !path.is_empty());
    let path = typed_inventory(std::env::args_os()).or(variable).unwrap_or_else(|| "inventory.yaml".into());
    inventory::load(&PathBuf::from(path)).ok()
}

/// What `-i` or `--inventory` says among the words of a command line.
fn typed_inventory(words: impl IntoIterator<Item = OsString>) -> Option<OsString> {
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == "-i" || text == "--inventory" {
            return words.next().filter(|path| !path.is_empty());
        }
        if let Some(path) = text.strip_prefix("--inventory=") {
            return Some(path.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inventory_is_the_one_that_the_line_names() {
        let of = |line: &str| typed_inventory(line.split(' ').map(OsString::from));
        assert_eq!(of("rackhand -i a.yaml guest list"), Some("a.yaml".into()));
        assert_eq!(of("rackhand guest list --inventory b.yaml x"), Some("b.yaml".into()));
        assert_eq!(of("rackhand guest list --inventory=c.yaml"), Some("c.yaml".into()));
        assert_eq!(of("rackhand guest list -i"), None);
        assert_eq!(of("rackhand guest list web"), None);
    }

    #[test]
    fn every_argument_that_stands_for_a_name_completes_it() {
        fn look(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            for arg in command.get_arguments().filter(|a| a.get::<ArgValueCompleter>().is_some()) {
                found.push(format!("{path} {}", arg.get_id()));
            }
            command.get_subcommands().for_each(|c| look(c, &format!("{path} {}", c.get_name()), found));
        }
        let mut found = Vec::new();
        look(&crate::cli::command(), "", &mut found);
        insta::assert_snapshot!(found.join("\n"));
    }
}
