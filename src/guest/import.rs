//! Importing a template: sent to a host, converted there into a disk image, and only then offered.

use super::guest_context::GuestContext;
use super::image::{BASE, Importing, Template, TemplateVersion};
use super::inspect::{DiskFile, HEAD, inspect, inspect_packed, packed};
use super::offer::{abandon, begin, offer, renew, sweep};
use super::source::{SILENCE, local_file, open, shown};
use crate::error::{Failure, Kind};
use crate::inventory::{Role, Size};
use crate::quote::plain;
use crate::ssh::{Channel, Exec, LocalHost, Remote};
use crate::ui::Job;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use uuid::Uuid;

const SCRIPT: &str = include_str!("import.sh");
/// Bytes sent at once.
const PIECE: usize = 256 << 10;
/// Longest conversion: 2 TiB at 200 MB/s take three hours.
const CONVERT: Duration = Duration::from_secs(4 * 3600);
/// Time between two signs of life.
const RENEW: Duration = Duration::from_secs(600);
/// A disk has whole pieces of this many bytes; a file may have a few less.
const WHOLE: u64 = 4096;

/// What to import.
#[derive(Clone, Debug)]
pub struct Import {
    /// Name of the template.
    pub name: String,
    /// A file, a URL, or `-` for stdin.
    pub source: String,
    /// SHA-256 the file must have, in hexadecimal.
    pub sha256: Option<String>,
    /// Take a raw disk without a boot sector too.
    pub force: bool,
}

/// Imports a new version of a template and makes it the current one.
///
/// # Errors
/// When the file is not a disk image, does not arrive, or cannot be converted; nothing is offered then.
pub async fn import(rack: &GuestContext, order: &Import) -> Result<TemplateVersion, Failure> {
    let job = rack.ui.job(format!("import {}", order.name));
    match run(rack, order, &job).await {
        Ok(version) => {
            job.done(format!("version {}, {}", version.version, version.size));
            Ok(version)
        }
        Err(failure) => {
            job.fail(failure.to_string());
            Err(failure.context(format!("cannot import image {}", order.name)))
        }
    }
}

async fn run(rack: &GuestContext, order: &Import, job: &Job) -> Result<TemplateVersion, Failure> {
    let file = local_file(&order.source, job).await?;
    let source = shown(&order.source);
    let disk = look(&source, &file.path).await?;
    if let Some(doubt) = disk.doubt.filter(|_| !order.force) {
        return Err(
            Failure::usage(format!("{source} would not boot: {doubt}")).hint("pass --force to import it all the same")
        );
    }
    clear_away(rack).await;
    let remote = worker(rack, &disk).await?;
    let image = Template::image_name(Uuid::new_v4());
    let entry = Importing { image: image.clone(), by: rack.run.by.clone(), seen: Timestamp::now() };
    begin(rack.port(), &order.name, &entry).await?;
    let made = tokio::select! {
        made = make(rack, order, &remote, &file.path, &disk, &image, job) => made,
        failure = stay_alive(rack, &order.name, &image) => Err(failure),
    };
    // An offer whose outcome is not known may have been made: its disk image stays.
    if let Err(failure) = &made
        && failure.kind != Kind::Unknown
        && let Err(left) = abandon(rack.port(), &order.name, &image).await
    {
        tracing::info!(%left, image, "a later import clears it away");
    }
    made
}

/// Sends and converts the file, and offers what came of it.
async fn make(
    rack: &GuestContext,
    order: &Import,
    remote: &Arc<dyn Remote>,
    path: &Path,
    disk: &DiskFile,
    image: &str,
    job: &Job,
) -> Result<TemplateVersion, Failure> {
    let target = format!("{}/{image}", rack.inventory.ceph.pool);
    let sha256 = send(remote.as_ref(), order, path, disk, &target, job).await?;
    job.step("offers it");
    let port = rack.port();
    let size = match port.image(image).await? {
        Some(found) => found.size,
        None => return Err(Failure::failed(format!("disk image {image} is gone: another run cleared it away"))),
    };
    let whole = size.next_multiple_of(WHOLE);
    if whole != size {
        port.image_grow(image, whole).await?;
    }
    port.snapshot_create(image, BASE, true).await?;
    let imported = Timestamp::now();
    let version = |number| TemplateVersion {
        version: number,
        image: image.to_owned(),
        size: Size(whole),
        sha256: sha256.clone(),
        source: shown(&order.source),
        imported,
    };
    offer(port, &order.name, image, version).await
}

/// Shows now and then that the import is alive; ends when another run has taken it for dead.
async fn stay_alive(rack: &GuestContext, name: &str, image: &str) -> Failure {
    loop {
        tokio::time::sleep(RENEW).await;
        match renew(rack.port(), name, image, Timestamp::now()).await {
            Ok(true) => {}
            Ok(false) => return Failure::failed("another run took this import for dead and cleared it away"),
            // The entry is good for hours.
            Err(error) => tracing::info!(%error, "cannot show that the import is alive"),
        }
    }
}

/// Clears away what killed runs left; an import goes on without it.
async fn clear_away(rack: &GuestContext) {
    match sweep(rack.port(), Timestamp::now()).await {
        Ok(cleared) => {
            for image in cleared {
                rack.ui.note(format!("cleared away disk image {image}, which a killed run left"));
            }
        }
        Err(failure) => tracing::info!(%failure, "cannot clear away what killed runs left"),
    }
}

/// Looks at a file, and into it where it is compressed.
async fn look(source: &str, path: &Path) -> Result<DiskFile, Failure> {
    let mut file = open(path)?;
    if let Some(disk) = inspect(source, &file)? {
        return Ok(disk);
    }
    let mut head = [0; 8];
    std::io::Seek::rewind(&mut file)?;
    let read = file.read(&mut head)?;
    let Some(program) = packed(&head[..read]) else {
        return Err(Failure::failed(format!("{source} changes while it is read")));
    };
    let script = "command -v \"$1\" >/dev/null || exit 127; \"$1\" -dc <\"$2\" | head -c \"$3\"; exit 0";
    let path = path.display().to_string();
    let exec = Exec::argv(["sh", "-c", script, "sh", program, &path, &HEAD.to_string()]).as_login();
    let output = LocalHost.run(exec).await?;
    if output.status == 127 {
        let text = format!("{source} is compressed with {program}, which this machine has not to look into it");
        return Err(Failure::usage(text).hint(format!("install {program}, or unpack it first")));
    }
    inspect_packed(source, program, file.metadata()?.len(), &output.stdout)
}

/// A host that has Ceph's keys and QEMU's tools and answers.
async fn worker(rack: &GuestContext, disk: &DiskFile) -> Result<Arc<dyn Remote>, Failure> {
    let mut reasons = Vec::new();
    let both = rack.inventory.with_role(Role::Mon).filter(|h| h.has(Role::Guests));
    let rest = rack.inventory.with_role(Role::Mon).filter(|h| !h.has(Role::Guests));
    for host in both.chain(rest) {
        let remote = rack.fleet.get(&host.name)?;
        let tools = ["qemu-img"].into_iter().chain(disk.unpack);
        let script = "for tool; do command -v \"$tool\" >/dev/null || { echo \"$tool\"; exit 1; }; done";
        let words = ["sh", "-c", script, "sh"].into_iter().chain(tools);
        match remote.run(Exec::argv(words).deadline(Duration::from_secs(10))).await {
            Ok(output) if output.ok() => return Ok(remote),
            Ok(output) => reasons.push(format!("{} has no {}", host.name, output.text().trim())),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    let failure = Failure::failed(format!("no mon host can convert it: {}", reasons.join("; ")));
    Err(match disk.unpack {
        Some(program) => failure.hint(format!("install {program} on a mon host, or unpack the file first")),
        None => failure,
    })
}

/// Sends the file to a host and has it converted into `target`; tells its checksum.
async fn send(
    remote: &dyn Remote,
    order: &Import,
    path: &Path,
    disk: &DiskFile,
    target: &str,
    job: &Job,
) -> Result<String, Failure> {
    let (length, limit) = (disk.length.to_string(), CONVERT.as_secs().to_string());
    let words = ["sh", "-c", SCRIPT, "sh", &length, disk.format, target, &limit, disk.unpack.unwrap_or_default()];
    let (mut stdin, stdout, _guard) = remote.channel(Exec::argv(words)).await.map(Channel::into_parts)?;
    let (begin, end) = (disk.offset, disk.offset + disk.length);
    let feed = async {
        let mut file = tokio::fs::File::open(path).await?;
        let (mut hash, mut piece, mut read) = (Sha256::new(), vec![0; PIECE], 0);
        loop {
            let n = file.read(&mut piece).await?;
            if n == 0 {
                break;
            }
            // The sum is that of the file, the host gets the disk in it.
            hash.update(&piece[..n]);
            let within = |at: u64| usize::try_from(at.clamp(read, read + n as u64) - read).unwrap_or(n);
            let part = &piece[within(begin)..within(end)];
            let sending = tokio::time::timeout(SILENCE, stdin.write_all(part));
            sending.await.map_err(|_| Failure::failed(format!("host {} takes no more bytes", remote.name())))??;
            read += n as u64;
            job.progress(read.clamp(begin, end) - begin, disk.length, format!("{} MiB sent", read >> 20));
        }
        stdin.flush().await?;
        let sum = hex(&hash.finalize());
        if order.sha256.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&sum)) {
            return Err(Failure::failed(format!("its SHA-256 is {sum}, not the one given")));
        }
        stdin.write_all(b"GO\n").await?;
        stdin.flush().await?;
        Ok(sum)
    };
    let read = follow(stdout, remote.name(), job);
    tokio::pin!(feed, read);
    // The host may give up before it has everything; what it says then is the reason.
    tokio::select! {
        biased;
        said = &mut read => Err(said.err().unwrap_or_else(|| Failure::failed("the host ended before it had the file"))),
        fed = &mut feed => match fed {
            Ok(sum) => read.await.map(|()| sum),
            Err(failure) if failure.kind == Kind::Failed && failure.source.is::<std::io::Error>() => {
                let said = tokio::time::timeout(Duration::from_secs(5), read).await;
                Err(said.ok().and_then(Result::err).unwrap_or(failure))
            }
            Err(failure) => Err(failure),
        },
    }
}

/// Reads what the host says, to its end.
async fn follow(mut stdout: impl AsyncRead + Unpin, host: &str, job: &Job) -> Result<(), Failure> {
    let began = Instant::now();
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let left = (CONVERT + SILENCE).saturating_sub(began.elapsed());
        let n = match tokio::time::timeout(left, stdout.read(&mut piece)).await {
            Ok(read) => read?,
            Err(_) => return Err(Failure::failed(format!("host {host} did not finish in time"))),
        };
        if n == 0 {
            return Err(Failure::failed(format!("connection to host {host} lost")).hint("run the same command again"));
        }
        text.extend_from_slice(&piece[..n]);
        // qemu-img ends its progress with a carriage return, the script its words with a newline.
        while let Some(end) = text.iter().position(|b| *b == b'\n' || *b == b'\r') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if line == "DONE" {
                return Ok(());
            }
            if let Some(why) = line.strip_prefix("FAIL ") {
                return Err(Failure::failed(format!("host {host}: {}", plain(why, 300))));
            }
            if let Some(percent) = percent(&line) {
                job.progress(percent, 100, "converting");
            }
        }
    }
}

/// The whole percents of a line like `(12.34/100%)`.
fn percent(line: &str) -> Option<u64> {
    line.strip_prefix('(')?.split_once('.')?.0.parse().ok()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
