//! The command line a host's login shell gets.

use super::exec::Exec;
use std::path::Path;
use std::time::Duration;

/// Quotes one word for a POSIX shell.
pub(super) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The way through jump hosts, as a value of ssh's `ProxyCommand`; `jump` is what `ssh -J` takes.
///
/// `-J` itself would leave what they say without a reader: beside ControlPersist, ssh gives its proxy /dev/null.
pub(super) fn way_through(jump: &str, config: &Path, log: &Path) -> String {
    let file = |path: &Path| quote(&path.display().to_string());
    let (before, last) = jump.rsplit_once(',').map_or((None, jump), |(before, last)| (Some(before), last));
    let before = before.map_or_else(String::new, |hops| format!(" -J {}", quote(hops)));
    let last = if last.starts_with("ssh://") { last.to_owned() } else { format!("ssh://{last}") };
    let start = format!("ssh -F {} -E {}{before}", file(config), file(log)).replace('%', "%%");
    format!("{start} -W '[%h]:%p' -- {}", quote(&last).replace('%', "%%"))
}

/// `sudo -n` where asked, the deadline on the host's own clock, the quoted argv.
///
/// The shell stays behind the command to turn a death by signal into a status: without a status there is then only one
/// explanation, a lost connection.
pub(super) fn command_line(exec: &Exec, sudo: bool, deadline: Option<Duration>) -> String {
    let mut words = Vec::new();
    if exec.root && sudo {
        words.extend(["sudo", "-n", "--"].map(str::to_owned));
    }
    if let Some(deadline) = deadline {
        words.push(format!("timeout -k 5 {:.3}", deadline.as_secs_f64().max(0.001)));
    }
    words.extend(exec.argv.iter().map(|word| quote(word)));
    format!("{}; exit $?", words.join(" "))
}

/// The argv as one short line for a transcript. Secrets are never in an argv, but scripts may be.
pub(super) fn short(exec: &Exec) -> String {
    let line = exec.argv.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ");
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(160) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

/// Why sudo refused, when that is what happened.
pub(super) fn sudo_refusal(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let first = text.lines().find(|l| !l.trim().is_empty())?.trim();
    let refused = first.starts_with("sudo: ")
        || first.contains("is not in the sudoers")
        || first.contains("not allowed to execute")
        || first.ends_with("sudo: command not found")
        || first.ends_with("sudo: not found");
    refused.then(|| first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for word in ["plain", "", "two words", "it's", "$HOME `id` \\ \"x\"", "a\nb", "*", "~"] {
            let line = format!("printf %s {}", quote(word));
            let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn sudo_and_deadline_come_before_the_command() {
        let exec = Exec::argv(["ceph", "osd tree"]);
        let line = command_line(&exec, true, Some(Duration::from_millis(1500)));
        assert_eq!(line, "sudo -n -- timeout -k 5 1.500 ceph 'osd tree'; exit $?");
        assert_eq!(command_line(&exec.as_login(), true, None), "ceph 'osd tree'; exit $?");
    }

    #[test]
    fn jump_hosts_write_to_the_same_log() {
        let way = |jump| way_through(jump, Path::new("/tmp/a b/config"), Path::new("/tmp/m%1.log"));
        assert_eq!(way("op@gate:2222"), "ssh -F '/tmp/a b/config' -E /tmp/m%%1.log -W '[%h]:%p' -- ssh://op@gate:2222");
        assert!(way("one,op@two,ssh://three:22").ends_with(" -J one,op@two -W '[%h]:%p' -- ssh://three:22"));
    }

    #[test]
    fn a_refusal_of_sudo_is_recognised() {
        for text in [
            "sudo: a password is required\n",
            "bash: line 1: sudo: command not found\n",
            "bob is not in the sudoers file.\n",
        ] {
            assert!(sudo_refusal(text.as_bytes()).is_some(), "{text}");
        }
        assert_eq!(sudo_refusal(b"apt: sudo: hm\n"), None);
        assert_eq!(sudo_refusal(b""), None);
    }
}
