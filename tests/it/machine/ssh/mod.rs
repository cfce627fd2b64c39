//! The transport against a real sshd on loopback.

mod forwarding;
mod jump;
mod login_shell;
mod server;

use futures::future::join_all;
use rackhand::ssh::{Exec, Fleet, HostKey, LineChannel, RemoteError, RemoteExt, Upload, UploadExt};
use server::{Server, eventually, inventory, keygen, listens, runs};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn sh(script: &str) -> Exec {
    Exec::script(script, Vec::<String>::new()).deadline(MINUTE)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_gets_arguments_and_its_streams_and_status_come_back() {
    let server = Server::start();
    let host = server.host();
    let script = "printf '<%s>' \"$@\"; echo oops >&2; exit 7";
    let output = host.run(Exec::script(script, ["it's", "two words", "$HOME", ""])).await.unwrap();
    assert_eq!(output.text(), "<it's><two words><$HOME><>");
    assert_eq!(output.tail(), "oops");
    assert_eq!(output.status, 7);
    assert!(host.exec_latency().is_some());
    for (script, status) in [("exit 127", 127), ("exit 255", 255), ("exit 124", 124), ("kill -9 $$", 137)] {
        assert_eq!(host.run(sh(script)).await.unwrap().status, status, "{script}");
    }
    let error = host.check(sh("echo no space >&2; exit 3")).await.unwrap_err();
    assert_eq!(error.to_string(), "host h1: `sh` exited with 3: no space");
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_arrives_whole_and_a_command_may_ignore_it() {
    let server = Server::start();
    let host = server.host();
    let data: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
    let output = host.run(Exec::argv(["cat"]).stdin(data.clone()).deadline(MINUTE)).await.unwrap();
    assert!(output.stdout == data);
    assert!(host.run(Exec::argv(["true"]).stdin(data)).await.unwrap().ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_cut_and_the_command_still_ends() {
    let server = Server::start();
    let output = server.host().run(sh("head -c 100000000 /dev/zero; exit 5")).await.unwrap();
    assert_eq!(output.status, 5);
    assert_eq!(output.stdout.len(), 16 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_commands_at_once_are_all_run() {
    let server = Server::start();
    let host = server.host();
    // Standing channels take sessions of sshd's ten as well.
    let cat = || LineChannel::open(host.as_ref(), Exec::argv(["cat"]));
    let mut channels = Vec::new();
    for _ in 0..5 {
        channels.push(cat().await.unwrap());
    }
    let outputs = join_all((0..40).map(|n| host.run(sh(&format!("echo {n}"))))).await;
    for (n, output) in outputs.into_iter().enumerate() {
        assert_eq!(output.unwrap().text().trim(), n.to_string());
    }
    for channel in &mut channels {
        assert_eq!(channel.ask("still there", MINUTE).await.unwrap(), "still there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_past_its_deadline_is_gone_on_the_host_too() {
    let server = Server::start();
    let host = server.host();
    let error = host.run(Exec::argv(["sleep", "86399.25"]).deadline(Duration::from_millis(300))).await.unwrap_err();
    assert!(matches!(&error, RemoteError::TimedOut { command, .. } if command == "sleep"), "{error}");
    assert!(error.unknown());
    eventually("sleep is gone", || !runs("86399.25"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_under_a_command_leaves_it_unknown() {
    let server = Server::start();
    let host = server.host();
    let running = tokio::spawn({
        let host = host.clone();
        async move { host.run(sh("echo start; sleep 20.125")).await }
    });
    eventually("the command runs", || runs("sleep 20.125"));
    server.drop_connections();
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, RemoteError::Lost { .. }), "{error}");
    assert!(error.unknown() && !error.nothing_ran());
    assert!(host.run(sh("true")).await.unwrap().ok(), "the next command connects anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_restarted_between_two_commands_is_connected_anew() {
    let mut server = Server::start();
    let host = server.host();
    assert!(host.run(sh("true")).await.unwrap().ok());
    server.stop();
    let error = host.run(sh("true")).await.unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. } | RemoteError::Lost { .. }), "{error}");
    server.run();
    assert!(host.run(sh("true")).await.unwrap().ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_host_key_is_refused_with_place_and_cure() {
    let mut server = Server::start();
    assert!(server.host().run(sh("true")).await.unwrap().ok());
    server.stop();
    keygen(&server.path("host"));
    server.run();
    let error = server.host().run(sh("true")).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RemoteError::HostKey { .. }), "{text}");
    assert!(error.nothing_ran());
    let place = format!("{}:1", server.path("known_hosts").display());
    assert!(text.contains("has changed") && text.contains(&place) && text.contains("rackhand host add h1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_key_is_refused() {
    let server = Server::start();
    fs::write(server.path("known_hosts"), "").unwrap();
    let error = server.host().run(sh("true")).await.unwrap_err();
    assert!(matches!(&error, RemoteError::HostKey { reason, .. } if reason.starts_with("no key of ")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_no_unreachable_host() {
    let server = Server::start();
    keygen(&server.path("id"));
    let error = server.host().run(sh("true")).await.unwrap_err();
    assert!(matches!(&error, RemoteError::Login { reason, .. } if reason.contains("Permission denied")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_says_so() {
    let mut server = Server::start();
    server.stop();
    eventually("the port is closed", || !listens(server.port));
    let error = server.host().run(sh("true")).await.unwrap_err();
    let refused = matches!(&error, RemoteError::Unreachable { reason, .. } if reason.contains("Connection refused"));
    assert!(refused, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_accepts_and_stays_silent_costs_its_own_deadline_alone() {
    let server = Server::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut inventory = server.inventory();
    let mut hung = inventory.hosts[0].clone();
    hung.name = "hung".to_owned();
    hung.port = Some(port);
    inventory.hosts.push(hung);
    let fleet = Fleet::over_ssh(&inventory, Duration::from_secs(2)).unwrap();
    let (order, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let results = fleet
        .each(["hung", "h1"], |host| {
            let order = order.clone();
            async move {
                let result = host.run(sh("true")).await;
                order.send(host.name().to_owned()).unwrap();
                result
            }
        })
        .await;
    assert_eq!(ended.recv().await.as_deref(), Some("h1"));
    assert!(results["h1"].as_ref().unwrap().ok());
    assert!(matches!(&results["hung"], Err(RemoteError::Unreachable { .. })), "{:?}", results["hung"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connect_and_a_dropped_fleet_leave_no_master_behind() {
    let server = Server::start();
    let mark = server.path("known_hosts").display().to_string();
    let fleet = server.fleet();
    assert!(fleet.get("h1").unwrap().run(sh("true")).await.unwrap().ok());
    assert!(runs(&mark), "the master names the file in its command line");
    drop(fleet);
    eventually("the master is gone", || !runs(&mark));

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let inventory = inventory(port, &server.path("id"), &server.path("known_hosts"));
    let host = Fleet::over_ssh(&inventory, MINUTE).unwrap().get("h1").unwrap();
    let connecting = tokio::spawn(async move { host.run(sh("true")).await });
    eventually("ssh connects", || runs(&mark));
    connecting.abort();
    eventually("the connecting ssh is gone", || !runs(&mark));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_whole_private_and_atomic() {
    let server = Server::start();
    let host = server.host();
    let target = server.path("a file");
    let name = target.display().to_string();
    host.upload(Upload::new(&name, "one")).await.unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"one");
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    host.upload(Upload::new(&name, "two").mode(0o644)).await.unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"two");
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o644);
    // A connection that breaks half-way looks like an end of file.
    let mut half = Upload::new(&name, "three and more").exec();
    half.stdin.truncate(5);
    assert!(host.check(half).await.unwrap_err().to_string().contains("only 5 of 14 bytes"));
    assert_eq!(fs::read(&target).unwrap(), b"two");
    let left = fs::read_dir(server.dir.path()).unwrap().flatten();
    assert!(left.map(|e| e.file_name()).all(|n| !n.to_string_lossy().contains(".rackhand.")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_answers_line_by_line_and_ends_when_dropped() {
    let server = Server::start();
    let host = server.host();
    let script = "while read -r line; do echo \"<$line> 77123\"; done";
    let mut lines = LineChannel::open(host.as_ref(), Exec::argv(["sh", "-c", script])).await.unwrap();
    for n in 0..50 {
        assert_eq!(lines.ask(&n.to_string(), MINUTE).await.unwrap(), format!("<{n}> 77123"));
    }
    drop(lines);
    eventually("the script is gone", || !runs("> 77123"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_of_the_host_is_reachable_here() {
    let server = Server::start();
    let path = server.path("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
    });
    let host = server.host();
    let local = host.forward_socket(&path.display().to_string()).await.unwrap();
    let mut said = String::new();
    tokio::net::UnixStream::connect(local.path()).await.unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_is_recorded_once_and_a_changed_one_is_refused() {
    let mut server = Server::start();
    fs::remove_file(server.path("known_hosts")).unwrap();
    let inventory = server.inventory();
    let ask = async || HostKey::ask(&inventory, &inventory.hosts[0], Duration::from_secs(5)).await;
    let key = ask().await.unwrap();
    assert_eq!(key.new_lines.len(), 1);
    assert!(key.fingerprints[0].contains("SHA256:"), "{:?}", key.fingerprints);
    assert!(server.host().run(sh("true")).await.is_err(), "asking alone records nothing");
    key.record().unwrap();
    assert!(server.host().run(sh("true")).await.unwrap().ok());
    assert!(ask().await.unwrap().new_lines.is_empty(), "it is known by now");
    server.stop();
    keygen(&server.path("host"));
    server.run();
    let error = ask().await.unwrap_err();
    let place = server.path("known_hosts").display().to_string();
    assert!(matches!(&error, RemoteError::HostKey { reason, .. } if reason.contains(&place)), "{error}");
    server.stop();
    assert!(matches!(ask().await.unwrap_err(), RemoteError::Unreachable { .. }));
}
