//! Hosts behind a jump host: two servers, one reached through the other.

use super::server::{Server, children, eventually};
use super::sh;
use rackhand::ssh::{Fleet, Remote, RemoteError};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// A host h1 behind a jump host; the operator's key is allowed at both, and both keys are recorded.
struct Behind {
    jump: Server,
    host: Server,
}

impl Behind {
    fn start() -> Self {
        let (jump, host) = (Server::start(), Server::start());
        fs::copy(host.path("id.pub"), jump.path("authorized")).unwrap();
        let behind = Behind { jump, host };
        behind.record(&["jump", "host"]);
        behind
    }

    /// Makes these the servers whose keys are known.
    fn record(&self, known: &[&str]) {
        let mut text = String::new();
        for (name, server) in [("jump", &self.jump), ("host", &self.host)] {
            if known.contains(&name) {
                let key = fs::read_to_string(server.path("host.pub")).unwrap();
                text.push_str(&format!("[127.0.0.1]:{} {key}", server.port));
            }
        }
        fs::write(self.host.path("known_hosts"), text).unwrap();
    }

    fn h1(&self) -> Arc<dyn Remote> {
        let mut inventory = self.host.inventory();
        let user = inventory.ssh.user.clone().unwrap();
        inventory.ssh.jump = Some(format!("{user}@127.0.0.1:{}", self.jump.port));
        Fleet::over_ssh(&inventory, Duration::from_secs(5)).unwrap().get("h1").unwrap()
    }

    fn carries(&self) -> bool {
        !children(self.jump.listener_pid()).is_empty()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_behind_a_jump_host_is_reached_through_it() {
    let behind = Behind::start();
    let host = behind.h1();
    assert!(!behind.carries());
    assert_eq!(host.run(sh("echo here")).await.unwrap().text(), "here\n");
    assert!(behind.carries(), "the connection goes through the jump host");
    behind.jump.drop_connections();
    eventually("the way is cut", || !behind.carries());
    let again = host.run(sh("echo again")).await;
    // Found dead before the command was sent, or lost under it: never silent.
    let again = match again {
        Err(RemoteError::Lost { .. }) => host.run(sh("echo again")).await,
        other => other,
    };
    assert_eq!(again.unwrap().text(), "again\n");
    host.disconnect().await;
    eventually("nothing is left on the jump host", || !behind.carries());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_of_the_way_has_its_own_host_key() {
    let behind = Behind::start();
    for (known, missing) in [(["host"], &behind.jump), (["jump"], &behind.host)] {
        behind.record(&known);
        let error = behind.h1().run(sh("true")).await.unwrap_err();
        let who = format!("[127.0.0.1]:{}", missing.port);
        assert!(matches!(&error, RemoteError::HostKey { reason, .. } if reason.contains(&who)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_that_is_down_or_refuses_is_named() {
    let mut behind = Behind::start();
    fs::write(behind.jump.path("authorized"), "").unwrap();
    let error = behind.h1().run(sh("true")).await.unwrap_err();
    assert!(matches!(&error, RemoteError::Login { .. }), "{error}");
    behind.jump.stop();
    let error = behind.h1().run(sh("true")).await.unwrap_err();
    let place = format!("127.0.0.1 port {}", behind.jump.port);
    assert!(matches!(&error, RemoteError::Unreachable { reason, .. } if reason.contains(&place)), "{error}");
}
