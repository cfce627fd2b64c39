//! How a guest ended, by the word of the host it ran on; and what follows where its owner shut it down.

use super::claim::{self, Phase, Swap};
use super::guest_context::GuestContext;
use super::spec::{Desired, Guest};
use crate::cluster::{ClusterError, update};
use crate::error::{Failure, Kind};
use crate::ssh::{Exec, Remote};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its QEMU died, or it panicked.
    Crashed,
    /// It shut itself down: its owner wanted that, or somebody pressed its power button.
    ShutDown,
    /// It was ended from outside, and not through its definition.
    Killed,
    /// It ended with its host, or was shut down as its host was.
    WithHost,
    /// The host has no word of it.
    Untold,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ending::Crashed => "its QEMU died, or it panicked",
            Ending::ShutDown => "it shut itself down",
            Ending::Killed => "other hands ended it",
            Ending::WithHost => "it ended with its host",
            Ending::Untold => "nothing says how it ended",
        })
    }
}

/// Prints whether the host is going down and when it was booted; then, for each guest named as an argument, the last lines of
/// its log (of libvirt and QEMU) that tell of a start or an end.
const SCRIPT: &str = r#"
set -u
state=$(systemctl is-system-running 2>/dev/null)
printf 'host %s %s\n' "$(sed -n 's/^btime //p' /proc/stat)" "${state:-unknown}"
for name in "$@"; do
  printf 'guest %s\n' "$name"
  log=/var/log/libvirt/qemu/$name.log
  cat "$log.0" "$log" 2>/dev/null | tail -c 262144 |
    grep -aE ': starting up libvirt|: shutting down, reason=|: terminating on signal' | cut -c 1-200 | tail -n 3
done
"#;
/// How long a host may take to tell.
const LIMIT: Duration = Duration::from_secs(15);

/// How these guests ended on a host, by name; one that the host says nothing of is [`Ending::Untold`].
///
/// # Errors
/// When the host cannot be asked.
pub async fn endings(host: &dyn Remote, names: &[String]) -> Result<BTreeMap<String, Ending>, Failure> {
    let output = host.run(Exec::script(SCRIPT, names.iter().cloned()).deadline(LIMIT)).await?;
    if !output.ok() {
        return Err(Failure::msg(Kind::Failed, output.tail()));
    }
    Ok(read(&String::from_utf8_lossy(&output.stdout), names))
}

/// Reads what the script printed. A host may print anything.
fn read(text: &str, names: &[String]) -> BTreeMap<String, Ending> {
    let mut lines = text.lines().peekable();
    let mut host = lines.next().unwrap_or_default().strip_prefix("host ").unwrap_or_default().split(' ');
    let boot = host.next().and_then(|seconds| seconds.parse::<i64>().ok());
    let stops = host.next() == Some("stopping");
    let mut found: BTreeMap<String, Ending> = names.iter().map(|name| (name.clone(), Ending::Untold)).collect();
    while let Some(line) = lines.next() {
        let mut log = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("guest ")) {
            log.push(line);
        }
        if let Some(ending) = line.strip_prefix("guest ").and_then(|name| found.get_mut(name)) {
            *ending = ending_of(&log, boot, stops);
        }
    }
    found
}

/// How a guest ended whose log has these lines last.
fn ending_of(log: &[&str], boot: Option<i64>, stops: bool) -> Ending {
    let Some(last) = log.last() else { return Ending::Untold };
    let Some((at, reason)) = last.split_once(": shutting down, reason=") else {
        // It was running when its host stopped to write.
        return Ending::WithHost;
    };
    let time = |text: &str| Timestamp::strptime("%Y-%m-%d %H:%M:%S%.f%z", text.trim()).ok().map(Timestamp::as_second);
    // A host may stay off for long after it has shut its guests down: what was before its boot says nothing of their owners.
    // Its clock may have been behind as it booted, so that the start has to be of this boot as well.
    let started = log.iter().rev().find_map(|line| time(line.split_once(": starting up libvirt")?.0));
    let since_boot = time(at).zip(boot).map(|(at, boot)| at > boot && started.is_some_and(|started| started > boot));
    // Of QEMU itself: the host's shutdown, or somebody's `kill`. Of one that has shut itself down libvirt ends what is left.
    let signal = log.iter().rev().nth(1).filter(|line| line.contains(": terminating on signal"));
    let by_signal = signal.is_some_and(|line| !["libvirtd)", "virtqemud)"].iter().any(|daemon| line.ends_with(daemon)));
    match reason.split_whitespace().next().unwrap_or_default() {
        "shutdown" if stops || since_boot == Some(false) => Ending::WithHost,
        "shutdown" if by_signal => Ending::Killed,
        "shutdown" if since_boot == Some(true) => Ending::ShutDown,
        "crashed" | "failed" => Ending::Crashed,
        "destroyed" => Ending::Killed,
        _ => Ending::Untold,
    }
}

/// Writes down that a guest shall stay down, which shut itself down on the host that its claim names: what `guest stop` would
/// have written, and in the same order. The claim was read before the host was seen to be without it; tells whether it still
/// was that one.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn stays_down(rack: &GuestContext, guest: &Guest, seen: &claim::Claim) -> Result<bool, Failure> {
    if seen.phase != Phase::Running || claim::read(rack.port(), guest.uuid).await? != *seen {
        return Ok(false);
    }
    let changed = swap_desired(rack, guest, Desired::Running, Desired::Stopped).await?;
    match claim::swap(rack.port(), guest.uuid, seen, &seen.freed()).await? {
        Swap::Ours => Ok(true),
        // Somebody starts or moves it at this very moment, and wants it to run; whoever stopped it wants it to be down.
        Swap::Theirs(theirs) => {
            if changed && theirs.phase != Phase::Free {
                swap_desired(rack, guest, Desired::Stopped, Desired::Running).await?;
            }
            Ok(false)
        }
    }
}

/// Replaces one wish by another; tells whether it was the one that is replaced.
async fn swap_desired(rack: &GuestContext, guest: &Guest, from: Desired, to: Desired) -> Result<bool, Failure> {
    let object = Guest::object(guest.uuid);
    let swapped = update(rack.port(), &object, |found: Option<Guest>| {
        let changes = found.as_ref().is_some_and(|found| found.desired == from);
        let next = found.map(|found| Guest { desired: if changes { to } else { found.desired }, ..found });
        Ok::<_, ClusterError>((next, changes))
    });
    Ok(swapped.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "2026-11-28 08:00:00.100+0000: starting up libvirt version: 9.0.0, package: 9.0.0-4";

    fn end(reason: &str) -> String {
        format!("2026-11-28 08:20:00.100+0000: shutting down, reason={reason}")
    }

    #[test]
    fn the_last_lines_of_a_log_tell_how_a_guest_ended() {
        let signal = "2026-11-28T08:19:59.9Z qemu-system-x86_64: terminating on signal 15 from pid 1 (/sbin/init)";
        let libvirt =
            "2026-11-28T08:19:59.9Z qemu-system-x86_64: terminating on signal 15 from pid 112 (/usr/sbin/libvirtd)";
        let ended = end("shutdown");
        // 08:20:00 UTC.
        let at = "2026-11-28T08:20:00Z".parse::<Timestamp>().unwrap().as_second();
        let (long_ago, just_after) = (Some(at - 86_400), Some(at + 120));
        let table: [(&[&str], Option<i64>, bool, Ending); 16] = [
            (&[], long_ago, false, Ending::Untold),
            (&[START], long_ago, false, Ending::WithHost),
            (&[&ended, START], just_after, false, Ending::WithHost),
            (&[START, &ended], long_ago, false, Ending::ShutDown),
            (&[START, &ended], None, false, Ending::Untold),
            (&[START, ": shutting down, reason=shutdown"], long_ago, false, Ending::Untold),
            (&[START, &ended], long_ago, true, Ending::WithHost),
            (&[START, &ended], just_after, false, Ending::WithHost),
            // Its clock was behind as it booted.
            (&[START, &ended], Some(at - 300), false, Ending::WithHost),
            // A power-off that was planned, of an hour and of a weekend.
            (&[START, &ended], Some(at + 3600), false, Ending::WithHost),
            (&[START, &ended], Some(at + 200_000), false, Ending::WithHost),
            (&[START, signal, &ended], long_ago, false, Ending::Killed),
            (&[START, libvirt, &ended], long_ago, false, Ending::ShutDown),
            (&[START, &end("crashed")], just_after, false, Ending::Crashed),
            (&[START, &end("destroyed")], long_ago, false, Ending::Killed),
            (&[START, &end("migrated")], long_ago, false, Ending::Untold),
        ];
        for (log, boot, stops, expected) in table {
            assert_eq!(ending_of(log, boot, stops), expected, "{log:?} {boot:?} {stops}");
        }
    }

    #[test]
    fn what_a_host_prints_is_read_by_guest_and_nonsense_is_survived() {
        let text =
            format!("host 1000 running\nguest a\n{START}\nguest b\nguest c\n{START}\n{}\nguest z\n", end("crashed"));
        let names = ["a", "b", "c"].map(str::to_owned);
        let found = read(&text, &names);
        assert_eq!(found.into_values().collect::<Vec<_>>(), [Ending::WithHost, Ending::Untold, Ending::Crashed]);
        for text in ["", "guest a", "host\nguest a\nguest a\n: shutting down, reason=\n", "\u{0}\n\n"] {
            assert_eq!(read(text, &names).len(), 3);
        }
    }
}
