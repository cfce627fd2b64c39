//! The process that looks after one host: it owns the disks, mounts and BMC, boots the host and sees it end.
//!
//! It is the first process of its own process and mount namespaces: when it dies, however it dies, the kernel kills
//! the host and takes every mount and loop device with it.
#![allow(clippy::disallowed_methods, reason = "starts what is to outlive the command")]

use super::cgroup::{Cgroup, JOIN};
use super::chassis::Chassis;
use super::control::{Handle, Message, Reply};
use super::disk;
use super::hardware::Hardware;
use super::names::{HostPlan, LabName, find_host};
use super::store::{HostKind, LabDir};
use super::tool::spawn_failure;
use crate::error::{Failure, ResultExt};
use std::fs::File;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Starts a host's supervisor as a process of its own that outlives this one.
pub(super) fn start(lab: &LabDir, host: HostPlan) -> Result<Child, Failure> {
    let dir = lab.host(&host.name());
    let cgroup = Cgroup::of_lab(&lab.name)?.host(&host.name());
    cgroup.create()?;
    let log = File::options().create(true).append(true).open(dir.log())?;
    let errors = log.try_clone()?;
    let mut command = Command::new("sh");
    command.args(["-c", JOIN]).arg(cgroup.procs());
    command.args(["setsid", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["--propagation", "private", "--"]).arg(std::env::current_exe()?);
    command.args(["lab", "supervise", &host.name(), "--name", lab.name.as_str()]);
    command.stdin(Stdio::null()).stdout(log).stderr(errors).current_dir("/");
    command.spawn().map_err(|e| spawn_failure("sh", e))
}

/// Looks after a host until the process is killed; run by `lab up` in namespaces of its own.
///
/// # Errors
/// When the host's disks cannot be attached or its socket cannot be made.
pub async fn run(name: &LabName, host: &str) -> Result<(), Failure> {
    let lab = LabDir::of(name);
    let record = lab.record()?;
    let host = find_host(record.plan(), record.hosts, host)?;
    let dir = lab.host(&host.name());
    let mut disks = Vec::new();
    if record.kind == HostKind::Container {
        for disk in 0..record.disks {
            disks.push(disk::attach(&dir.disk(disk)).await?);
        }
    }
    let loops = disks.iter().map(|d| d.node.clone()).collect();
    let cgroup = Cgroup::of_lab(name)?.host(&host.name()).machine();
    let (kind, image) = (record.kind, record.image.clone());
    let hardware = Hardware { host, dir, image, kind, disks: record.disks, loops, cgroup };
    let (handle, requests) = Handle::new();
    let listener = listen(&hardware.dir.socket())?;
    let chassis = Chassis::new(lab, hardware, handle.clone()).await?;
    tokio::join!(serve(listener, handle), work(chassis, requests));
    // Held until here so that the loop devices stay.
    drop(disks);
    Ok(())
}

/// Carries out one request after another, and sees the host end by itself.
async fn work(mut chassis: Chassis, mut requests: mpsc::Receiver<Message>) {
    loop {
        tokio::select! {
            message = requests.recv() => {
                let Some((request, answer)) = message else { return };
                let error = chassis.carry_out(request).await.err().map(|f| f.to_string());
                if let Some(error) = &error {
                    eprintln!("{request:?}: {error}");
                }
                // The asker may have gone.
                let _ = answer.send(Reply { state: chassis.state(), error });
            }
            event = chassis.event() => {
                if let Err(failure) = chassis.follow(event).await {
                    eprintln!("{event:?}: {failure}");
                }
            }
        }
    }
}

fn listen(socket: &std::path::Path) -> Result<UnixListener, Failure> {
    // A left-over of an earlier life.
    let _ = std::fs::remove_file(socket);
    UnixListener::bind(socket).while_doing(|| format!("cannot listen on {}", socket.display()))
}

async fn serve(listener: UnixListener, handle: Handle) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let handle = handle.clone();
            tokio::spawn(async move {
                // The asker sees a closed connection.
                let _ = answer(stream, handle).await;
            });
        }
    }
}

async fn answer(stream: UnixStream, handle: Handle) -> Result<(), Failure> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await?;
    let reply = handle.ask(serde_json::from_str(&line)?).await?;
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    Ok(write.write_all(&line).await?)
}
