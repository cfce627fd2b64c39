//! Importing a template: sent to a host, converted there into a disk image, and only then offered.

use super::image::{BASE, Template, TemplateVersion, discard, locked};
use super::inspect::{DiskFile, inspect};
use super::rack::Rack;
use crate::cluster::{ClusterError, fetch, update};
use crate::error::{Failure, Kind, LocalExt, ResultExt};
use crate::inventory::{Role, Size};
use crate::ssh::{Channel, Exec, Remote};
use crate::ui::Job;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

const SCRIPT: &str = include_str!("import.sh");
/// Disk images that are being written and not offered yet.
const PARTIAL: &str = "import.";
/// Bytes sent at once.
const PIECE: usize = 256 << 10;
/// Longest conversion: 2 TiB at 200 MB/s take three hours.
const CONVERT: Duration = Duration::from_secs(4 * 3600);
/// Longest silence while a file is sent.
const SILENCE: Duration = Duration::from_secs(60);

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
/// When the file is no disk image, does not arrive, or cannot be converted; nothing is offered then.
pub async fn import(rack: &Rack, order: &Import) -> Result<TemplateVersion, Failure> {
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

async fn run(rack: &Rack, order: &Import, job: &Job) -> Result<TemplateVersion, Failure> {
    let (path, _spool) = local_file(&order.source, job).await?;
    let file = std::fs::File::open(&path).or_kind(Kind::Usage).while_doing(|| path.display().to_string())?;
    let source = shown(&order.source);
    let disk = inspect(&source, file)?;
    if let Some(doubt) = disk.doubt.filter(|_| !order.force) {
        return Err(
            Failure::usage(format!("{source} would not boot: {doubt}")).hint("pass --force to import it all the same")
        );
    }
    let partial = format!("{PARTIAL}{}", Uuid::new_v4());
    sweep(rack).await;
    let sha256 = match send(rack, order, &path, &disk, &partial, job).await {
        Ok(sha256) => sha256,
        Err(failure) => {
            // What is left of it is nobody's; if it is still open, the next import clears it away.
            let _ = rack.port().image_remove(&partial).await;
            return Err(failure);
        }
    };
    job.step("offers it");
    locked(rack, &order.name, offer(rack, order, &partial, sha256)).await
}

fn is_url(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// A source as it may be seen by everybody: a URL without its user, password and query, which may let somebody in.
pub fn shown(source: &str) -> String {
    let Some((scheme, rest)) = source.split_once("://").filter(|_| is_url(source)) else { return source.to_owned() };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// The line by which curl is told a URL where nobody else sees it.
fn told_to_curl(url: &str) -> String {
    format!("url = \"{}\"\n", url.replace('\\', r"\\").replace('"', r#"\""#))
}

/// The file on this machine; what comes from elsewhere is kept in a temporary file.
async fn local_file(source: &str, job: &Job) -> Result<(PathBuf, Option<tempfile::NamedTempFile>), Failure> {
    let url = is_url(source);
    if !url && source != "-" {
        return Ok((PathBuf::from(source), None));
    }
    if source.contains(char::is_control) {
        return Err(Failure::usage(format!("`{}` is no URL", shown(source).escape_debug())));
    }
    let spool = tempfile::NamedTempFile::new().while_doing(|| "cannot keep the file here".to_owned())?;
    let mut to = tokio::fs::File::create(spool.path()).await?;
    if url {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["--fail", "--silent", "--show-error", "--location", "--proto", "=http,https"]);
        // A server that says nothing for as long as a host may: the download has no other deadline, for it may be large.
        let silence = SILENCE.as_secs().to_string();
        curl.args(["--connect-timeout", "20", "--speed-limit", "1", "--speed-time", &silence, "--config", "-"]);
        let mut child =
            curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let child = child.as_mut().map_err(|e| Failure::failed(format!("cannot run curl: {e}")))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(told_to_curl(source).as_bytes()).await?;
        }
        if let Some(from) = child.stdout.take() {
            copy(from, &mut to, job, "fetched").await?;
        }
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut said).await?;
        }
        if !child.wait().await?.success() {
            let said = said.trim().replace(source, &shown(source));
            return Err(Failure::failed(format!("cannot fetch {}: {said}", shown(source))));
        }
    } else {
        copy(tokio::io::stdin(), &mut to, job, "read").await?;
    }
    to.sync_all().await?;
    Ok((spool.path().to_owned(), Some(spool)))
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: &mut tokio::fs::File,
    job: &Job,
    what: &str,
) -> Result<(), Failure> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        let n = from.read(&mut piece).await?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&piece[..n]).await?;
        done += n as u64;
        job.progress(0, 0, format!("{} MiB {what}", done >> 20));
    }
}

/// A host that has Ceph's keys and QEMU's tools and answers.
async fn worker(rack: &Rack) -> Result<Arc<dyn Remote>, Failure> {
    let mut last = None;
    let both = rack.inventory.with_role(Role::Mon).filter(|h| h.has(Role::Guests));
    let rest = rack.inventory.with_role(Role::Mon).filter(|h| !h.has(Role::Guests));
    for host in both.chain(rest) {
        let remote = rack.fleet.get(&host.name)?;
        let probe = Exec::argv(["sh", "-c", "command -v qemu-img"]).deadline(Duration::from_secs(10));
        match remote.run(probe).await {
            Ok(output) if output.ok() => return Ok(remote),
            Ok(_) => last = Some(format!("{} has no qemu-img", host.name)),
            Err(error) => last = Some(error.to_string()),
        }
    }
    Err(Failure::failed(format!("no mon host can convert it: {}", last.unwrap_or_default())))
}

/// Sends the file to a host and has it converted into `partial`; tells its checksum.
async fn send(
    rack: &Rack,
    order: &Import,
    path: &Path,
    disk: &DiskFile,
    partial: &str,
    job: &Job,
) -> Result<String, Failure> {
    let remote = worker(rack).await?;
    let target = format!("{}/{partial}", rack.inventory.ceph.pool);
    let (length, limit) = (disk.length.to_string(), CONVERT.as_secs().to_string());
    let exec = Exec::argv(["sh", "-c", SCRIPT, "sh", &length, disk.format, &target, &limit]);
    let (mut stdin, stdout, _guard) = remote.channel(exec).await.map(Channel::into_parts)?;
    let feed = async {
        let mut file = tokio::fs::File::open(path).await?;
        let (mut hash, mut piece, mut sent) = (Sha256::new(), vec![0; PIECE], 0);
        loop {
            let n = file.read(&mut piece).await?;
            if n == 0 {
                break;
            }
            hash.update(&piece[..n]);
            let sending = tokio::time::timeout(SILENCE, stdin.write_all(&piece[..n]));
            sending.await.map_err(|_| Failure::failed(format!("host {} takes no more bytes", remote.name())))??;
            sent += n as u64;
            job.progress(sent, disk.length, format!("{} MiB sent", sent >> 20));
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
                return Err(Failure::failed(format!("host {host}: {why}")));
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

/// Clears away what killed imports left: disk images that were never offered and that nobody has open.
async fn sweep(rack: &Rack) {
    let Ok(images) = rack.port().images().await else { return };
    for image in images.iter().filter(|name| name.starts_with(PARTIAL)) {
        let idle = rack.port().image_users(image).await.is_ok_and(|users| users.watchers.is_empty());
        if idle && rack.port().image_remove(image).await.is_ok() {
            rack.ui.note(format!("cleared away {image}, left by an import that was killed"));
        }
    }
}

/// Gives the disk image its name, its snapshot, and last its entry: from then on it is there.
async fn offer(rack: &Rack, order: &Import, partial: &str, sha256: String) -> Result<TemplateVersion, Failure> {
    let port = rack.port();
    let object = Template::object(&order.name);
    let found = fetch::<Template>(port, &object).await?.map(|(template, _)| template);
    let versions = found.map(|t| t.versions).unwrap_or_default();
    let number = versions.iter().map(|v| v.version).max().unwrap_or(0) + 1;
    let image = Template::image_name(&order.name, number);
    // Left by an import that was killed right here; no guest can stand on what was never offered.
    discard(port, &image).await?;
    port.image_rename(partial, &image).await?;
    port.snapshot_create(&image, BASE, true).await?;
    let size = port.image(&image).await?.map_or(0, |i| i.size);
    let version = TemplateVersion {
        version: number,
        image,
        size: Size(size),
        sha256,
        source: shown(&order.source),
        imported: jiff::Timestamp::now(),
    };
    let add = update(port, &object, |found: Option<Template>| {
        let mut template =
            found.unwrap_or_else(|| Template { name: order.name.clone(), current: 0, versions: Vec::new() });
        template.versions.push(version.clone());
        template.current = number;
        Ok::<_, ClusterError>((Some(template), ()))
    });
    add.await?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_somebody_in_is_neither_shown_nor_kept() {
        let table = [
            ("https://me:s3cret@images.example/a/b.qcow2", "https://images.example/a/b.qcow2"),
            ("https://me:p@ss@images.example:8443/b.raw?X-Signature=s3cret#x", "https://images.example:8443/b.raw"),
            ("http://images.example?token=s3cret", "http://images.example"),
            ("https://images.example/who@where.raw", "https://images.example/who@where.raw"),
            ("/tmp/what?@x.raw", "/tmp/what?@x.raw"),
            ("-", "-"),
        ];
        for (source, seen) in table {
            assert_eq!(shown(source), seen);
        }
        assert_eq!(told_to_curl(r#"http://x/a"b\c"#), "url = \"http://x/a\\\"b\\\\c\"\n");
    }

    #[test]
    fn progress_of_qemu_img_is_read() {
        assert_eq!(percent("(12.34/100%)"), Some(12));
        assert_eq!(percent("RECEIVED"), None);
    }

    #[tokio::test]
    async fn what_the_host_says_is_followed_to_its_end() {
        let job = crate::ui::Ui::hidden().job("x");
        follow(&b"RECEIVED\n    (0.00/100%)\r    (100.00/100%)\r\nDONE\n"[..], "h1", &job).await.unwrap();
        let failure = follow(&b"FAIL qemu-img ended with 1: no space\n"[..], "h1", &job).await.unwrap_err();
        assert_eq!(failure.to_string(), "host h1: qemu-img ended with 1: no space");
        let lost = follow(&b"RECEIVED\n"[..], "h1", &job).await.unwrap_err();
        assert_eq!(lost.to_string(), "connection to host h1 lost");
        job.done("");
    }
}
