//! Secrets, fetched from where the inventory says they are; never shown.
#![allow(clippy::disallowed_methods, reason = "runs the command that tells a secret")]

use super::SecretRef;
use crate::error::{Failure, Kind};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// How long a command may take to print a secret: a password store that has to ask somebody is not for this.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest secret; more is a wrong file.
const LIMIT: usize = 4096;

/// A secret: nothing shows it but [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Secret(secret.into())
    }

    /// The secret itself: for stdin and memory, never for argv, logs or messages.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Fetches a secret; relative paths start at `base`, the directory of the inventory.
///
/// # Errors
/// When it is missing, empty or readable by others (exit 2), or when its command fails (exit 1).
pub async fn resolve(from: &SecretRef, base: &Path) -> Result<Secret, Failure> {
    match from {
        SecretRef::Env(name) => from_env(name, std::env::var_os(name)),
        SecretRef::File(path) => from_file(&super::model::resolve(base, path)),
        SecretRef::Command(words) => from_command(words, base, DEADLINE).await,
        SecretRef::Inline(secret) => Ok(Secret::new(secret.expose())),
    }
}

fn from_env(name: &str, value: Option<std::ffi::OsString>) -> Result<Secret, Failure> {
    let wrong = |what: &str| {
        Failure::usage(format!("environment variable {name} {what}"))
            .hint(format!("set it without leaving it in the shell's history: `read -rs {name} && export {name}`"))
    };
    let value = value.ok_or_else(|| wrong("is not set"))?;
    let text = value.into_string().map_err(|_| wrong("is not text"))?;
    if text.is_empty() { Err(wrong("is empty")) } else { Ok(Secret(text)) }
}

fn from_file(path: &Path) -> Result<Secret, Failure> {
    let shown = path.display();
    let failed = |e: std::io::Error| Failure::new(Kind::Usage, e).context(format!("cannot read secret file {shown}"));
    // Without O_NONBLOCK, opening a pipe by this name would wait for ever.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(Failure::usage(format!("secret file {shown} is not a file")));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(Failure::usage(format!(
            "secret file {shown} can be read by others (mode {:o})",
            meta.mode() & 0o777
        ))
        .hint(format!("chmod 600 {shown}")));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT as u64 + 2).read_to_end(&mut bytes).map_err(failed)?;
    line(bytes).map_err(|what| Failure::usage(format!("secret file {shown} {what}")))
}

/// What was read, without its line end.
fn line(bytes: Vec<u8>) -> Result<Secret, &'static str> {
    let mut text = String::from_utf8(bytes).map_err(|_| "holds no text")?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    match text.as_str() {
        "" => Err("is empty"),
        t if t.len() > LIMIT => Err("is too long for a secret"),
        t if t.contains(['\n', '\0']) => Err("holds more than one line"),
        _ => Ok(Secret(text)),
    }
}

async fn from_command(words: &[String], base: &Path, deadline: Duration) -> Result<Secret, Failure> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::usage("the command for a secret has no words"));
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(base).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that what it started ends with it.
    command.process_group(0).kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|e| Failure::new(Kind::Usage, e).context(format!("cannot run `{program}` for a secret")))?;
    let group = child.id();
    let outcome = tokio::time::timeout(deadline, print(&mut child)).await;
    if outcome.is_err()
        && let Some(group) = group.and_then(|id| i32::try_from(id).ok())
    {
        // It may have ended by itself just now.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
    }
    let seconds = deadline.as_secs_f64();
    let (status, bytes, complaint) = outcome
        .map_err(|_| {
            Failure::failed(format!("`{program}` printed no secret within {seconds} s"))
                .hint("unlock the password store first: nothing can be asked for here")
        })?
        .map_err(|e| Failure::from(e).context(format!("cannot read what `{program}` prints")))?;
    if !status.success() {
        let complaint = String::from_utf8_lossy(&complaint);
        let last = complaint.lines().rfind(|l| !l.trim().is_empty()).map(|l| format!(": {}", l.trim()));
        let last = last.unwrap_or_default();
        return Err(Failure::failed(format!("`{program}`, run for a secret, ended with {status}{last}")));
    }
    line(bytes).map_err(|what| Failure::failed(format!("what `{program}` printed {what}")))
}

/// Its status, what it printed and what it complained of; more than the limit is read and dropped.
async fn print(child: &mut Child) -> std::io::Result<(std::process::ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (bytes, complaint) = tokio::try_join!(bounded(stdout), bounded(stderr))?;
    Ok((child.wait().await?, bytes, complaint))
}

async fn bounded(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(LIMIT as u64 + 2).read_to_end(&mut bytes).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tokio::time::Instant;

    fn words(words: &[&str]) -> SecretRef {
        SecretRef::Command(words.iter().map(|w| (*w).to_owned()).collect())
    }

    async fn said(from: &SecretRef, base: &Path) -> String {
        let text = match resolve(from, base).await {
            Ok(secret) => format!("ok {}", secret.expose()),
            Err(failure) => format!("{}: {failure}", failure.kind.code()),
        };
        text.replace(&base.display().to_string(), ".")
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(hidden)");
        let inline = SecretRef::Inline(super::super::InlineSecret::new("hunter2"));
        assert!(!format!("{inline:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&inline).unwrap().contains("hunter2"));
    }

    #[test]
    fn the_environment() {
        assert_eq!(from_env("X", Some("a b".into())).unwrap().expose(), "a b");
        assert_eq!(from_env("X", None).unwrap_err().to_string(), "environment variable X is not set");
        assert_eq!(from_env("X", Some("".into())).unwrap_err().to_string(), "environment variable X is empty");
    }

    #[tokio::test]
    async fn files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("good", "hunter2\n", 0o600);
        write("open", "hunter2\n", 0o640);
        write("empty", "\n", 0o400);
        write("two", "hunter2\nhunter3\n", 0o600);
        write("long", &"x".repeat(10_000), 0o600);
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut lines = Vec::new();
        for name in ["good", "open", "empty", "two", "long", "pipe", "absent"] {
            lines.push(said(&SecretRef::File(name.into()), dir.path()).await);
        }
        insta::assert_snapshot!(lines.join("\n"), @"
        ok hunter2
        2: secret file ./open can be read by others (mode 640)
        2: secret file ./empty is empty
        2: secret file ./two holds more than one line
        2: secret file ./long is too long for a secret
        2: secret file ./pipe is not a file
        2: cannot read secret file ./absent: No such file or directory (os error 2)
        ");
    }

    #[tokio::test]
    async fn commands() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines = Vec::new();
        for command in [
            &["printf", "hunter2"][..],
            &["pwd"],
            &["false"],
            &["true"],
            &["sh", "-c", "echo; echo locked >&2; exit 3"],
            &["head", "-c", "10000", "/dev/zero"],
            &["/nonexistent/pass", "show"],
            &[],
        ] {
            lines.push(said(&words(command), dir.path()).await);
        }
        insta::assert_snapshot!(lines.join("\n"), @"
        ok hunter2
        ok .
        1: `false`, run for a secret, ended with exit status: 1
        1: what `true` printed is empty
        1: `sh`, run for a secret, ended with exit status: 3: locked
        1: what `head` printed is too long for a secret
        2: cannot run `/nonexistent/pass` for a secret: No such file or directory (os error 2)
        2: the command for a secret has no words
        ");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_all_it_started() {
        let began = Instant::now();
        let dir = tempfile::tempdir().unwrap();
        let script = "echo $$ > pid; sleep 60 & wait".to_owned();
        let words = ["sh".to_owned(), "-c".to_owned(), script];
        let failure = from_command(&words, dir.path(), Duration::from_millis(300)).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(failure.to_string(), "`sh` printed no secret within 0.3 s");
        let group: i32 = std::fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
        let group = nix::unistd::Pid::from_raw(group);
        let gone = || nix::sys::signal::killpg(group, None).is_err();
        while !gone() && began.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(gone());
    }
}
