//! The command line a host's login shell gets: one for every command, whatever the login shell is.
//!
//! The login shell may print, may be fish or csh, or may refuse to run anything. So it is asked for one thing, `exec sh`
//! with a single quoted word in which no shell finds anything to expand. The command itself is started by a shell behind
//! `sudo` and `timeout` that writes a mark first: what comes before the mark is not the command's, and without a mark
//! nothing was run.

use super::exec::Exec;
use super::quote::{join, quote};
use std::fmt::Write as _;
use std::time::Duration;

/// Begins the mark: a control character, which the command line itself does not hold, so that a shell that prints what it
/// is asked to run does not write the mark.
const BEGIN: char = '\u{1e}';
/// Writes the mark on both streams, then becomes the command.
const START: &str = r#"printf "\036%s\n" "$1"; printf "\036%s\n" "$1" >&2; shift; exec "$@""#;

/// What a command's own output begins after; another one for each command.
#[derive(Clone, Debug)]
pub(super) struct Mark(String);

impl Mark {
    /// One that no output has held before.
    pub(super) fn fresh() -> Self {
        Mark(format!("{:016x}", rand::random::<u64>()))
    }

    /// The bytes to look for.
    pub(super) fn bytes(&self) -> Vec<u8> {
        format!("{BEGIN}{}\n", self.0).into_bytes()
    }
}

/// `sudo -n` where asked, the deadline on the host's own clock, the mark, the argv.
///
/// A shell stays behind the command to turn a death by signal into a status: without a status there is then only one
/// explanation, a lost connection.
pub(super) fn command_line(exec: &Exec, sudo: bool, deadline: Option<Duration>, mark: &Mark) -> String {
    let mut line = String::new();
    if exec.root && sudo {
        line.push_str("sudo -n -- ");
    }
    if let Some(deadline) = deadline {
        // Writing to a String cannot fail.
        let _ = write!(line, "timeout -k 5 {:.3} ", deadline.as_secs_f64().max(0.001));
    }
    let _ = write!(line, "sh -c {} sh {} {}; exit $?", quote(START), mark.0, join(&exec.argv));
    format!("exec sh -c 'eval \"$(printf %b \"{}\")\"'", escaped(&line))
}

/// Text for `printf %b` within double quotes within single quotes: whatever means something to a POSIX shell, to fish
/// (which reads `\'` and `\\` in single quotes) or to csh (`!` and line ends) is written as `\0` and three octal digits.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && !b"'\"$`!\\".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            let _ = write!(safe, "\\0{byte:03o}");
        }
    }
    safe
}

/// The argv as one short line for a transcript. Secrets are never in an argv, but scripts may be.
pub(super) fn short(exec: &Exec) -> String {
    let line = join(&exec.argv);
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(160) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Output};

    fn by(shell: &str, exec: &Exec, deadline: Option<Duration>, mark: &Mark) -> Output {
        Command::new(shell).args(["-c", &command_line(exec, false, deadline, mark)]).output().unwrap()
    }

    /// The shells of this machine out of those that are nobody's `sh`, and `sh`.
    fn shells() -> Vec<&'static str> {
        let there = |shell: &&str| Command::new(shell).args(["-c", "true"]).output().is_ok();
        ["sh", "bash", "fish", "tcsh", "csh", "zsh", "ksh"].into_iter().filter(there).collect()
    }

    #[test]
    fn every_login_shell_runs_exactly_the_command_behind_its_mark() {
        let word = "it's $HOME `id` \\ \\\\ \"x\" !ls !! \n * ~ ü % #";
        let exec = Exec::argv(["printf", "<%s>", word, "", "-n"]);
        for shell in shells() {
            let mark = Mark::fresh();
            let output = by(shell, &exec, Some(Duration::from_secs(9)), &mark);
            let expected = [&mark.bytes()[..], format!("<{word}><><-n>").as_bytes()].concat();
            assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&expected), "{shell}");
            assert_eq!((output.status.code(), output.stderr), (Some(0), mark.bytes()), "{shell}");
            let killed = by(shell, &Exec::argv(["sh", "-c", "kill -9 $$"]), None, &mark);
            assert_eq!(killed.status.code(), Some(137), "{shell}");
        }
    }

    #[test]
    fn the_mark_is_not_in_the_line_that_asks_for_it() {
        let mark = Mark::fresh();
        let line = command_line(&Exec::argv(["true"]), true, None, &mark);
        assert!(!line.as_bytes().windows(mark.bytes().len()).any(|w| w == mark.bytes()));
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }

    #[test]
    fn sudo_and_deadline_come_before_the_mark() {
        let exec = Exec::argv(["ceph", "osd tree"]);
        let deadline = Some(Duration::from_millis(1500));
        let line = command_line(&exec, true, deadline, &Mark::fresh());
        assert!(line.starts_with("exec sh -c 'eval \"$(printf %b \"sudo -n -- timeout -k 5 1.500 sh -c "), "{line}");
        let line = command_line(&exec.as_login(), true, None, &Mark::fresh());
        assert!(line.starts_with("exec sh -c 'eval \"$(printf %b \"sh -c "), "{line}");
    }
}
