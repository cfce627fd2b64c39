//! Unix sockets of hosts, and an sshd that forbids to forward them.

use super::server::{Server, eventually};
use rackhand::ssh::{sshd_limits, why_refused};
use std::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_that_is_dropped_cuts_its_connections_and_is_no_longer_listened_for() {
    let server = Server::start();
    let path = server.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let host = server.host();
    let forward = host.forward_socket(&path.display().to_string()).await.unwrap();
    let mut near = UnixStream::connect(forward.path()).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    far.write_all(b"x").await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), b'x');
    let dir = forward.path().parent().unwrap().to_owned();
    let sockets =
        || fs::read_dir(&dir).unwrap().flatten().filter(|e| !e.file_name().to_string_lossy().starts_with('m'));
    let before = sockets().count();
    drop(forward);
    assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0, "the host sees the end as well");
    eventually("both ends are gone", || sockets().count() == before - 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sshd_that_forbids_forwarding_is_found_out_and_named() {
    for (line, named) in [
        ("AllowStreamLocalForwarding no", "`AllowStreamLocalForwarding no`"),
        ("DisableForwarding yes", "`DisableForwarding yes`"),
    ] {
        let server = Server::with(&format!("{line}\nMaxSessions 4\n"));
        let path = server.path("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let host = server.host();
        let forward = host.forward_socket(&path.display().to_string()).await.unwrap();
        let mut stream = UnixStream::connect(forward.path()).await.unwrap();
        assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)), "{named}");
        assert!(forward.was_refused(), "{named}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_not_there_is_told_apart_from_one_that_is_forbidden() {
    let server = Server::start();
    let host = server.host();
    let forward = host.forward_socket("/nowhere/socket").await.unwrap();
    let mut stream = UnixStream::connect(forward.path()).await.unwrap();
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert!(forward.was_refused());
    assert_eq!(why_refused(host.as_ref(), "/nowhere/socket").await, "nothing listens on /nowhere/socket");
    assert_eq!(sshd_limits(host.as_ref()).await.unwrap().forwarding, "");
}
