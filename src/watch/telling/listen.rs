//! A web server that only shows: a page for people, JSON, figures for Prometheus, and whether the watcher lives.

use super::metrics::metrics;
use super::snapshot::Snapshot;
use crate::error::Failure;
use crate::inventory::secret::Secret;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// The page; it asks for `status.json` every second and has nothing from elsewhere.
const PAGE: &str = include_str!("page.html");
/// The page may run its own script and ask this server, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Connections at a time.
const CONNECTIONS: usize = 64;
/// How long one connection may last.
const CONNECTION: Duration = Duration::from_secs(60);
/// A watcher that has not looked for this long does not live.
const STALE: SignedDuration = SignedDuration::from_secs(5);

/// Who may look.
#[derive(Clone, Debug)]
pub enum Protection {
    /// Whoever is on this machine.
    Loopback,
    /// Whoever has the token.
    Token(Secret),
}

/// A server that listens; it ends when this is dropped.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves on an address: without a token on a loopback address alone.
///
/// # Errors
/// When others could reach it and there is no token (exit 5), or the address cannot be listened on.
pub async fn bind(
    address: SocketAddr,
    token: Option<Secret>,
    snapshots: watch::Receiver<Snapshot>,
) -> Result<Listener, Failure> {
    let protection = match token {
        Some(token) => Protection::Token(token),
        None if address.ip().is_loopback() => Protection::Loopback,
        None => {
            let failure =
                Failure::refused(format!("{address} can be reached from other machines, and there is no token"));
            return Err(failure.hint("give `watch.token` in the inventory, or listen on 127.0.0.1"));
        }
    };
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| Failure::from(error).context(format!("cannot listen on {address}")))?;
    let address = listener.local_addr()?;
    Ok(Listener { address, task: tokio::spawn(serve(listener, Arc::new(protection), snapshots)) })
}

async fn serve(listener: TcpListener, protection: Arc<Protection>, snapshots: watch::Receiver<Snapshot>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // No file descriptor is left, for example.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (protection, snapshots) = (Arc::clone(&protection), snapshots.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let respond = service_fn(|request: Request<Incoming>| {
                let answer = answer(&request, &protection, &snapshots.borrow(), Timestamp::now());
                async { Ok::<_, Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), respond);
            let _ = tokio::time::timeout(CONNECTION, served).await;
        });
    }
}

fn answer<B>(
    request: &Request<B>,
    protection: &Protection,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "this server only shows\n");
    }
    if request.uri().path() == "/healthz" {
        let lives = now.duration_since(snapshot.at) < STALE;
        let (status, text) =
            if lives { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "stale\n") };
        return reply(status, "text/plain", text);
    }
    if !may_look(request, protection) {
        return reply(
            StatusCode::UNAUTHORIZED,
            "text/plain",
            "a token is needed: ?token=... or Authorization: Bearer ...\n",
        );
    }
    match request.uri().path() {
        "/" => reply(StatusCode::OK, "text/html; charset=utf-8", PAGE),
        "/status.json" => match serde_json::to_string(snapshot) {
            Ok(text) => reply(StatusCode::OK, "application/json", text),
            Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "no JSON\n"),
        },
        "/metrics" => reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics(snapshot)),
        _ => reply(StatusCode::NOT_FOUND, "text/plain", "there is /, /status.json, /metrics and /healthz\n"),
    }
}

fn may_look<B>(request: &Request<B>, protection: &Protection) -> bool {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    match protection {
        // A page from elsewhere whose name was made to mean this machine has that name here.
        Protection::Loopback => header(HOST).is_none_or(|host| {
            let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
            let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }),
        Protection::Token(token) => {
            let query =
                request.uri().query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("token="));
            let bearer = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
            // Digests take the same time to compare, whatever is in them.
            [query, bearer].into_iter().flatten().any(|given| Sha256::digest(given) == Sha256::digest(token.expose()))
        }
    }
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    headers.insert("Referrer-Policy", HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn asked(path: &str, host: &str, bearer: Option<&str>, protection: &Protection) -> StatusCode {
        let mut request = Request::builder().uri(path).header(HOST, host);
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
        }
        answer(&request.body(()).unwrap(), protection, &Snapshot::default(), Timestamp::UNIX_EPOCH).status()
    }

    #[test]
    fn without_a_token_only_this_machine_is_served_by_its_own_name() {
        for (host, status) in [
            ("127.0.0.1:9400", 200),
            ("localhost:9400", 200),
            ("localhost", 200),
            ("[::1]:9400", 200),
            ("[::1]", 200),
            ("evil.example:9400", 401),
            ("10.0.0.1", 401),
            ("localhost.evil.example", 401),
        ] {
            assert_eq!(asked("/status.json", host, None, &Protection::Loopback), status, "{host}");
        }
    }

    #[test]
    fn with_a_token_nothing_is_shown_without_it() {
        let token = Protection::Token(Secret::new("s3cret"));
        for path in ["/", "/status.json", "/metrics", "/nothing"] {
            for (path, bearer) in [(path.to_owned(), None), (format!("{path}?token=s3cre"), Some("x"))] {
                assert_eq!(asked(&path, "10.0.0.1", bearer, &token), 401, "{path}");
            }
        }
        assert_eq!(asked("/?token=s3cret", "10.0.0.1", None, &token), 200);
        assert_eq!(asked("/metrics", "10.0.0.1", Some("s3cret"), &token), 200);
        assert_eq!(asked("/healthz", "10.0.0.1", None, &token), 200, "it shows nothing");
    }

    #[test]
    fn a_watcher_that_does_not_look_any_more_does_not_live() {
        let request = Request::builder().uri("/healthz").body(()).unwrap();
        for (second, status) in [(0, 200), (4, 200), (5, 503)] {
            let now = Timestamp::from_second(second).unwrap();
            assert_eq!(answer(&request, &Protection::Loopback, &Snapshot::default(), now).status(), status);
        }
        let post = Request::builder().method("POST").uri("/").body(()).unwrap();
        assert_eq!(answer(&post, &Protection::Loopback, &Snapshot::default(), Timestamp::UNIX_EPOCH).status(), 405);
    }

    #[test]
    fn the_page_has_nothing_from_elsewhere_and_takes_no_text_for_markup() {
        for word in ["http://", "https://", "src=", "innerHTML", "document.write", "eval("] {
            assert!(!PAGE.contains(word), "{word}");
        }
        assert!(PAGE.len() < 16 << 10);
    }

    #[tokio::test]
    async fn it_is_served_over_a_socket_and_refused_where_others_could_reach_it() {
        let (shown, snapshots) = watch::channel(Snapshot { rack: "rack-7".into(), ..Snapshot::default() });
        let failure = bind("0.0.0.0:0".parse().unwrap(), None, snapshots.clone()).await.unwrap_err();
        assert_eq!(failure.kind, crate::error::Kind::Refused);
        let listener = bind("127.0.0.1:0".parse().unwrap(), None, snapshots).await.unwrap();
        let get = async |path: &str| {
            let mut stream = tokio::net::TcpStream::connect(listener.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        assert!(get("/").await.contains("<title>rackhand watch</title>"));
        shown.send_modify(|shown| shown.leads = true);
        let json = get("/status.json").await;
        assert!(json.contains("\"rack\":\"rack-7\"") && json.contains("\"leads\":true"), "{json}");
        assert!(get("/metrics").await.contains("\nrackhand_watch_leader 1\n"));
    }
}
