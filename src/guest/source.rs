//! Where an image comes from: a file, a URL, or stdin.

use crate::error::{Failure, Kind};
use crate::quote::{CurlConfig, plain};
use crate::ssh::{Exec, LocalHost, Remote};
use crate::ui::Job;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes read at once.
const PIECE: usize = 256 << 10;
/// How long a server may say nothing.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// Longest download: it may be large, but it ends.
const DOWNLOAD: Duration = Duration::from_secs(24 * 3600);
/// Time between two looks at how much has come.
const LOOK: Duration = Duration::from_millis(500);
/// curl's status when it cannot write what it has.
const CURL_CANNOT_WRITE: i32 = 23;

fn is_url(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// A source as it may be seen by everyone: a URL without its user, password and query, which may let others in.
pub fn shown(source: &str) -> String {
    let Some((scheme, rest)) = source.split_once("://").filter(|_| is_url(source)) else { return source.to_owned() };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// A file on this machine; a temporary one is gone with the value.
pub(super) struct LocalFile {
    /// Where it is.
    pub path: PathBuf,
    _spool: Option<tempfile::NamedTempFile>,
}

/// The file on this machine; what comes from elsewhere is kept in a temporary file.
///
/// # Errors
/// When it cannot be fetched or kept.
pub(super) async fn local_file(source: &str, job: &Job) -> Result<LocalFile, Failure> {
    let url = is_url(source);
    if !url && source != "-" {
        return Ok(LocalFile { path: PathBuf::from(source), _spool: None });
    }
    let directory = std::env::temp_dir();
    let spool = tempfile::NamedTempFile::new_in(&directory).map_err(|e| no_room(&directory, &e.to_string()))?;
    let path = spool.path().to_owned();
    if url {
        download(source, &path, job).await?
    } else {
        keep(tokio::io::stdin(), &path, job).await?
    }
    Ok(LocalFile { path, _spool: Some(spool) })
}

/// A temporary file that cannot be written.
fn no_room(path: &Path, why: &str) -> Failure {
    Failure::failed(format!("cannot keep the file here, in {}: {why}", path.display()))
        .hint("free space there, or name a directory with room in $TMPDIR")
}

async fn keep(mut from: impl tokio::io::AsyncRead + Unpin, path: &Path, job: &Job) -> Result<(), Failure> {
    let lost = |error: std::io::Error| no_room(path, &error.to_string());
    let mut to = tokio::fs::File::create(path).await.map_err(lost)?;
    let (mut piece, mut done) = (vec![0; PIECE], 0);
    loop {
        let n = from.read(&mut piece).await.map_err(|e| Failure::failed(format!("cannot read stdin: {e}")))?;
        if n == 0 {
            break;
        }
        to.write_all(&piece[..n]).await.map_err(lost)?;
        done += n as u64;
        job.progress(0, 0, format!("{} MiB read", done >> 20));
    }
    // What a write has left in the cache may fail only here.
    to.sync_all().await.map_err(lost)
}

/// Has curl fetch a URL, which it is told on stdin: it may hold a password.
fn curl_config(url: &str, path: &Path) -> Option<CurlConfig> {
    let silence = SILENCE.as_secs().to_string();
    let config = CurlConfig::new().set("url", url).ok()?.set("output", path.to_str()?).ok()?;
    let config = config.flag("fail").flag("silent").flag("show-error").flag("location").flag("globoff");
    // A server that says nothing for as long as a host may.
    let config = config.set("proto", "=http,https").ok()?.set("connect-timeout", "20").ok()?;
    config.set("speed-limit", "1").ok()?.set("speed-time", &silence).ok()
}

async fn download(url: &str, path: &Path, job: &Job) -> Result<(), Failure> {
    let Some(config) = curl_config(url, path) else {
        return Err(Failure::usage(format!("`{}` is not a URL", shown(url).escape_debug()))
            .hint("a URL has no control characters"));
    };
    let exec = Exec::argv(["curl", "--config", "-"]).stdin(config.text()).deadline(DOWNLOAD).as_login();
    let fetch = LocalHost.run(exec);
    tokio::pin!(fetch);
    let output = loop {
        tokio::select! {
            output = &mut fetch => break output?,
            () = tokio::time::sleep(LOOK) => {
                let done = tokio::fs::metadata(path).await.map_or(0, |file| file.len());
                job.progress(0, 0, format!("{} MiB fetched", done >> 20));
            }
        }
    };
    let said = plain(&output.tail().replace(url, &shown(url)), 300);
    match output.status {
        0 => Ok(()),
        127 => {
            Err(Failure::failed(format!("cannot fetch {}: this machine has no curl", shown(url))).hint("install curl"))
        }
        CURL_CANNOT_WRITE => Err(no_room(path, &said)),
        _ => Err(Failure::failed(format!("cannot fetch {}: {said}", shown(url)))),
    }
}

/// Opens a file to be read.
///
/// # Errors
/// When it cannot be, as a usage failure.
pub(super) fn open(path: &Path) -> Result<std::fs::File, Failure> {
    let wrong = |e: std::io::Error| Failure::msg(Kind::Usage, format!("cannot read {}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(wrong)?;
    if file.metadata().map_err(wrong)?.is_dir() {
        return Err(Failure::usage(format!("{} is a directory", path.display())));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_others_in_is_neither_shown_nor_kept() {
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
        assert!(curl_config("http://x/a\noutput = /etc/passwd", Path::new("/tmp/x")).is_none());
        let config = curl_config(r#"http://x/a"b\c"#, Path::new("/tmp/x")).unwrap();
        assert!(config.text().starts_with("url = \"http://x/a\\\"b\\\\c\"\noutput = \"/tmp/x\"\n"));
    }

    #[tokio::test]
    async fn a_full_directory_is_named_with_what_helps() {
        let job = crate::ui::Ui::hidden().job("x");
        // A device that is always full.
        let failure = keep(&[0; 1 << 20][..], Path::new("/dev/full"), &job).await.unwrap_err();
        let text = failure.to_string();
        assert!(text.starts_with("cannot keep the file here, in /dev/full: No space left on device"), "{text}");
        assert!(failure.hints[0].contains("TMPDIR"));
        let failure = download("http://127.0.0.1:9/x", Path::new("/dev/full"), &job).await.unwrap_err();
        assert!(failure.to_string().starts_with("cannot fetch http://127.0.0.1:9/x: "), "{failure}");
        job.done("");
    }

    #[test]
    fn what_cannot_be_read_is_a_usage_error_that_names_it() {
        let text = |path: &str| open(Path::new(path)).unwrap_err().to_string();
        assert!(text("/nonexistent.raw").starts_with("cannot read /nonexistent.raw: No such file"));
        assert_eq!(text("/tmp"), "/tmp is a directory");
    }
}
