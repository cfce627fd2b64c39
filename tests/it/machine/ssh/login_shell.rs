//! Login shells that print, are not POSIX, or run nothing.

use super::server::{Server, eventually, runs};
use super::{MINUTE, sh};
use rackhand::inventory::Inventory;
use rackhand::ssh::{Exec, Job, LineChannel, Remote, RemoteError, RemoteExt, Upload, UploadExt};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Prints on both streams before it runs anything, as a `.bashrc` does that greets, and long enough to need several reads.
const NOISY: &str = "echo 'Welcome. Ticket first, then change.'; seq 20000; echo 'held' >&2; exec sh -c \"$1\"";

async fn works(server: &Server) {
    let host = server.host();
    let output =
        host.run(Exec::script("printf '<%s>' \"$@\"; echo oops >&2; exit 7", ["it's", "$HOME !!", ""])).await.unwrap();
    assert_eq!((output.text().as_ref(), output.tail().as_str(), output.status), ("<it's><$HOME !!><>", "oops", 7));
    assert_eq!(host.check(Exec::argv(["printf", "%s", "a\nb\\ \"c\""])).await.unwrap().text(), "a\nb\\ \"c\"");
    assert_eq!(host.run(sh("kill -9 $$")).await.unwrap().status, 137);
    let file = server.path("file").display().to_string();
    host.upload(Upload::new(&file, "content")).await.unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"content");
    let mut lines = LineChannel::open(host.as_ref(), Exec::argv(["cat"])).await.unwrap();
    for word in ["one", "two"] {
        assert_eq!(lines.ask(word, MINUTE).await.unwrap(), word);
    }
    let late = host.run(Exec::argv(["sleep", "86397.75"]).deadline(Duration::from_millis(700))).await.unwrap_err();
    assert!(matches!(late, RemoteError::TimedOut { .. }), "{late}");
    eventually("sleep is gone", || !runs("86397.75"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_login_prints_is_never_taken_for_an_answer() {
    works(&Server::with_shell(NOISY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_shows_each_command_writes_no_mark() {
    works(&Server::with_shell("exec bash -xc \"$1\"")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_that_are_not_posix_run_every_command() {
    for shell in ["fish", "tcsh"] {
        assert!(Path::new("/usr/bin").join(shell).exists(), "{shell} is missing: run scripts/deps.sh");
        works(&Server::with_shell(&format!("exec {shell} -c \"$1\""))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_login_refuses_is_never_a_status_and_says_that_nothing_ran() {
    for (shell, said) in [
        ("echo 'This account is currently not available.'; exit 1", "This account is currently not available."),
        // As fish answers `; exit $?`: with a complaint and status 0.
        ("echo 'fish: $? is not the exit status.' >&2; exit 0", "fish: $? is not the exit status."),
        ("exit 0", "it ended with status 0 and said nothing"),
    ] {
        let server = Server::with_shell(shell);
        let host = server.host();
        let mut errors = vec![host.run(sh("true")).await.unwrap_err()];
        errors.push(host.upload(Upload::new("/nowhere/at/all", "")).await.unwrap_err());
        errors.push(LineChannel::open(host.as_ref(), Exec::argv(["cat"])).await.unwrap_err());
        errors.push(Job::new("never", "true", MINUTE).start(host.as_ref()).await.unwrap_err());
        for error in errors {
            assert!(matches!(&error, RemoteError::LoginShell { reason, .. } if reason == said), "{error}");
            assert!(error.nothing_ran() && !error.unknown());
        }
    }
}

/// A login that is not root, with this in place of `sudo`.
fn through_sudo(sudo: &str) -> (Server, std::sync::Arc<dyn Remote>) {
    let tools = tempfile::tempdir().unwrap();
    let path = tools.path().join("sudo");
    fs::write(&path, format!("#!/bin/sh\n{sudo}\n")).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let server = Server::with_shell(&format!("PATH={}:$PATH exec sh -c \"$1\"", tools.path().display()));
    let mut inventory: Inventory = server.inventory();
    // The name is not known from the inventory: it is asked for, and the stand-in `id` says that it is not root.
    inventory.ssh.user = None;
    let id = tools.path().join("id");
    fs::write(&id, "#!/bin/sh\necho 1000\n").unwrap();
    fs::set_permissions(&id, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let host = rackhand::ssh::Fleet::over_ssh(&inventory, Duration::from_secs(5)).unwrap().get("h1").unwrap();
    // Lives as long as the process: the server's shell looks for it.
    let _ = tools.keep();
    (server, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sudo_says_beside_a_command_that_fails_is_not_its_refusal() {
    const RESOLVE: &str = "sudo: unable to resolve host h1: Name or service not known";
    let (_server, host) = through_sudo(&format!("echo '{RESOLVE}' >&2; shift 2; exec \"$@\""));
    let error = host.check(sh("echo 'E: no space left' >&2; exit 3")).await.unwrap_err();
    assert_eq!(error.to_string(), "host h1: `sh` exited with 3: E: no space left");
    // A command of its own that says what sudo would.
    let error = host.check(sh("echo 'sudo: a password is required' >&2; exit 1")).await.unwrap_err();
    assert!(matches!(error, RemoteError::Status { status: 1, .. }), "{error}");

    let (_server, host) =
        through_sudo(&format!("echo '{RESOLVE}' >&2; echo 'sudo: a password is required' >&2; exit 1"));
    let error = host.run(sh("true")).await.unwrap_err();
    assert!(matches!(&error, RemoteError::Sudo { reason, .. } if reason == "sudo: a password is required"), "{error}");
    let error = host.channel(Exec::argv(["cat"])).await.unwrap_err();
    assert!(matches!(error, RemoteError::Sudo { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_tells_how_its_command_ended() {
    let server = Server::with_shell(NOISY);
    let host = server.host();
    let script = "echo begun; read -r line; echo \"no space for $line\" >&2; exit 5";
    let channel = host.channel(Exec::argv(["sh", "-c", script]).stdin("it\n")).await.unwrap();
    let (stdin, mut stdout, end) = channel.into_parts();
    drop(stdin);
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut said).await.unwrap();
    assert_eq!(said, "begun\n");
    assert_eq!(end.wait(MINUTE).await.unwrap(), Some((5, "no space for it\n".to_owned())));
    let channel = host.channel(Exec::argv(["sh", "-c", "sleep 20.75"])).await.unwrap();
    let (_stdin, _stdout, end) = channel.into_parts();
    assert_eq!(end.wait(Duration::from_millis(50)).await.unwrap(), None);
}
