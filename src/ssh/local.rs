//! The operator's own machine as a host: the same runner, without SSH.
#![allow(clippy::disallowed_methods, reason = "runs ssh and its tools on this machine")]

use super::channel::Channel;
use super::error::RemoteError;
use super::exec::{Exec, Output, Remote};
use super::forward::Forward;
use super::marked::read_bounded;
use async_trait::async_trait;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// This machine; commands run as the user who runs rackhand.
#[derive(Debug, Default)]
pub struct LocalHost;

impl LocalHost {
    fn failed(exec: &Exec, reason: &std::io::Error) -> RemoteError {
        let program = exec.argv.first().cloned().unwrap_or_default();
        RemoteError::Unreachable { host: "this machine".to_owned(), reason: format!("cannot run {program}: {reason}") }
    }
}

#[async_trait]
impl Remote for LocalHost {
    fn name(&self) -> &str {
        "this machine"
    }

    async fn run(&self, exec: Exec) -> Result<Output, RemoteError> {
        let Some((program, arguments)) = exec.argv.split_first() else {
            return Err(Self::failed(&exec, &std::io::Error::other("no command")));
        };
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            // As a shell would answer.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let stderr = format!("{program}: not found").into_bytes();
                return Ok(Output { status: 127, stdout: Vec::new(), stderr });
            }
            Err(error) => return Err(Self::failed(&exec, &error)),
        };
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command that ends without reading its stdin is judged by its status alone.
                let _ = stdin.write_all(&exec.stdin).await;
            }
        };
        let (stdout, stderr) = (read_bounded(child.stdout.take()), read_bounded(child.stderr.take()));
        let work = async {
            let ((), stdout, stderr) = tokio::join!(feed, stdout, stderr);
            Ok((child.wait().await?, stdout?, stderr?))
        };
        match timeout(exec.deadline, work).await {
            Ok(Ok((ended, stdout, stderr))) => {
                let signal = ended.signal().map_or(255, |n| 128 + n);
                Ok(Output { status: ended.code().unwrap_or(signal), stdout, stderr })
            }
            Ok(Err(error)) => Err(Self::failed(&exec, &error)),
            Err(_) => {
                let (host, command) = (self.name().to_owned(), program.clone());
                Err(RemoteError::TimedOut { host, command, after: exec.deadline })
            }
        }
    }

    async fn channel(&self, exec: Exec) -> Result<Channel, RemoteError> {
        Err(Self::failed(&exec, &std::io::Error::other("no standing commands here")))
    }

    async fn forward_socket(&self, remote: &str) -> Result<Forward, RemoteError> {
        Ok(Forward::local(remote))
    }
}
