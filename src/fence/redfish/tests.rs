//! Against a service that answers what it is told to, over TLS, asked by the real curl.

use super::*;
use crate::fence::state::LOOK;
use crate::inventory::secret::Secret;
use crate::ssh::{FakeRemote, LocalHost, Output, Remote, RemoteError};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const SYSTEM: &str =
    r#"{"PowerState":"On","SKU":"7XK4M02","SerialNumber":"CN7016349B00QP","Model":"PowerEdge R720xd"}"#;

fn spec(port: u16) -> BmcSpec {
    let text = serde_json::json!({
        "kind": "redfish", "address": "127.0.0.1", "port": port, "user": "root", "password": { "env": "X" },
    });
    serde_json::from_value(text).unwrap()
}

async fn query(place: &dyn Remote, bmc: &BmcSpec, password: &str) -> Result<BmcState, BmcError> {
    let password = Secret::new(password);
    query_bmc(&Access { place, bmc, password: &password, patience: LOOK }).await
}

fn members(paths: &[&str]) -> String {
    let members: Vec<Value> = paths.iter().map(|p| serde_json::json!({ "@odata.id": p })).collect();
    serde_json::json!({ "Members": members }).to_string()
}

/// Status, body, and where a redirection leads.
type Page = (u16, String, Option<String>);

/// A BMC with these pages; all others are not found.
struct Bmc {
    port: u16,
    /// The pin of its key.
    pin: String,
    /// What was asked, with the Authorization header.
    asked: Arc<Mutex<Vec<(String, String)>>>,
    /// What was posted.
    posted: Arc<Mutex<Vec<(String, String)>>>,
}

impl Bmc {
    async fn with(pages: impl IntoIterator<Item = (&'static str, Page)>) -> Self {
        let pages: Arc<BTreeMap<&str, Page>> = Arc::new(pages.into_iter().collect());
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let pin =
            BASE64_STANDARD.encode(Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&made.signing_key)));
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let posted: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let (log, posts) = (Arc::clone(&asked), Arc::clone(&posted));
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, pages, log) = (acceptor.clone(), Arc::clone(&pages), Arc::clone(&log));
                let posts = Arc::clone(&posts);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let respond = hyper::service::service_fn(|request: Request<Incoming>| {
                        let login = request.headers().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or("-");
                        log.lock().unwrap().push((request.uri().to_string(), login.to_owned()));
                        let missing = (404, "{}".to_owned(), None);
                        let (status, body, onward) = pages.get(request.uri().path()).cloned().unwrap_or(missing);
                        let mut response = Response::builder().status(status);
                        if let Some(onward) = onward {
                            response = response.header("location", onward);
                        }
                        let response = response.body(Full::new(Bytes::from(body))).unwrap();
                        let posts = (request.method() == "POST").then(|| Arc::clone(&posts));
                        async move {
                            if let Some(posts) = posts {
                                let path = request.uri().path().to_owned();
                                let body = request.into_body().collect().await.unwrap().to_bytes();
                                posts.lock().unwrap().push((path, String::from_utf8_lossy(&body).into_owned()));
                            }
                            Ok::<_, Infallible>(response)
                        }
                    });
                    let stream = hyper_util::rt::TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, respond).await;
                });
            }
        });
        Bmc { port, pin: format!("sha256//{pin}"), asked, posted }
    }

    async fn look(&self, change: impl FnOnce(&mut BmcSpec)) -> Result<BmcState, BmcError> {
        let mut spec = spec(self.port);
        change(&mut spec);
        query(&LocalHost, &spec, "cal\"vin\\'$x").await
    }

    fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }
}

#[tokio::test]
async fn power_and_service_tag_come_over_tls_with_the_password_as_it_is() {
    let system = "/redfish/v1/Systems/System.Embedded.1";
    let bmc = Bmc::with([(SYSTEMS, (200, members(&[system]), None)), (system, (200, SYSTEM.into(), None))]).await;
    let state = bmc.look(|_| ()).await.unwrap();
    assert_eq!(state.power, Power::On);
    assert_eq!(state.serials, ["7XK4M02", "CN7016349B00QP"]);
    assert_eq!(bmc.paths(), [SYSTEMS, system]);
    let login = format!("Basic {}", BASE64_STANDARD.encode("root:cal\"vin\\'$x"));
    assert!(bmc.asked.lock().unwrap().iter().all(|(_, given)| *given == login));
}

#[tokio::test]
async fn a_path_that_is_not_one_of_redfish_is_never_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("written").display().to_string();
    let elsewhere = Bmc::with([]).await;
    let hostile = [
        format!("/redfish/v1/x\noutput = \"{out}\""),
        format!("/redfish/v1/x\"\noutput = \"{out}"),
        format!("/redfish/v1/x\routput = {out}"),
        format!("@127.0.0.1:{}/redfish/v1/", elsewhere.port),
        format!(":{}/redfish/v1/", elsewhere.port),
        ".evil.example/redfish/v1/x".to_owned(),
        "https://evil.example/redfish/v1/x".to_owned(),
        "/redfish/../etc/x".to_owned(),
        "/redfish/v1/a b".to_owned(),
        "/redfish/v1/\u{202e}x".to_owned(),
        "/redfish/v1/`id`".to_owned(),
        format!("/redfish/{}", "x".repeat(600)),
        "redfish/v1/x".to_owned(),
        String::new(),
    ];
    for path in hostile {
        let bmc = Bmc::with([(SYSTEMS, (200, members(&[&path]), None))]).await;
        let error = bmc.look(|_| ()).await.unwrap_err();
        assert!(matches!(error, BmcError::Strange { .. }), "{path:?}: {error}");
        assert!(!error.to_string().contains(char::is_control), "{path:?}: {error:?}");
        assert_eq!(bmc.paths(), [SYSTEMS], "{path:?}");
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "a BMC wrote a file");
    assert!(elsewhere.paths().is_empty(), "the password went elsewhere");
}

#[tokio::test]
async fn a_redirection_is_followed_within_the_service_only() {
    let slashed = "/redfish/v1/Systems/";
    let system = "/redfish/v1/Systems/1";
    let bmc = Bmc::with([
        (SYSTEMS, (308, String::new(), Some(slashed.to_owned()))),
        (slashed, (200, members(&[system]), None)),
        (system, (200, SYSTEM.into(), None)),
    ])
    .await;
    assert_eq!(bmc.look(|_| ()).await.unwrap().power, Power::On);
    let elsewhere = Bmc::with([(SYSTEMS, (200, members(&[]), None))]).await;
    for to in [
        format!("https://127.0.0.1:{}{SYSTEMS}", elsewhere.port),
        format!("http://127.0.0.1:{}{SYSTEMS}", elsewhere.port),
        format!("https://localhost:{}{SYSTEMS}", elsewhere.port),
        "file:///etc/passwd".to_owned(),
        "/etc/passwd".to_owned(),
    ] {
        let bmc = Bmc::with([(SYSTEMS, (302, String::new(), Some(to.clone())))]).await;
        let error = bmc.look(|_| ()).await.unwrap_err();
        assert!(error.to_string().contains("redirects to somewhere"), "{to}: {error}");
        assert!(!error.to_string().contains("vin"), "the password is in {error}");
    }
    assert!(elsewhere.paths().is_empty(), "the password went elsewhere");
    let round = Bmc::with([(SYSTEMS, (302, String::new(), Some(SYSTEMS.to_owned())))]).await;
    assert!(round.look(|_| ()).await.unwrap_err().to_string().contains("again and again"));
    assert_eq!(round.paths().len(), REDIRECTIONS + 1);
}

#[tokio::test]
async fn the_order_goes_to_the_machines_own_switch_after_its_tag_was_read() {
    let (system, reset) = ("/redfish/v1/Systems/1", "/redfish/v1/Systems/1/Actions/Reset");
    let with = |target: &str| {
        let action = serde_json::json!({"#ComputerSystem.Reset": {"target": target}});
        SYSTEM.replacen('{', &format!(r#"{{"Actions":{action},"#), 1)
    };
    let order = async |bmc: &Bmc, serial: &str| {
        let (spec, password) = (spec(bmc.port), Secret::new("x"));
        press(&Access { place: &LocalHost, bmc: &spec, password: &password, patience: LOOK }, serial).await
    };
    for (status, expected) in [(204, Pressed::Accepted), (409, Pressed::Refused("HTTP 409".to_owned()))] {
        let pages = [
            (SYSTEMS, (200, members(&[system]), None)),
            (system, (200, with(reset), None)),
            (reset, (status, String::new(), None)),
        ];
        let bmc = Bmc::with(pages).await;
        assert_eq!(order(&bmc, "7xk4m02").await.unwrap(), expected);
        assert_eq!(*bmc.posted.lock().unwrap(), [(reset.to_owned(), FORCE_OFF.to_owned())]);
        assert!(matches!(order(&bmc, "7XK4M03").await, Err(BmcError::Neighbour { .. })));
        assert_eq!(bmc.posted.lock().unwrap().len(), 1, "another machine would have been switched off");
    }
    for target in ["https://evil.example/redfish/v1/x", "/redfish/../x", "/redfish/v1/x\"\noutput = x"] {
        let pages = [(SYSTEMS, (200, members(&[system]), None)), (system, (200, with(target), None))];
        let bmc = Bmc::with(pages).await;
        assert!(matches!(order(&bmc, "7XK4M02").await, Err(BmcError::Strange { .. })), "{target}");
        assert!(bmc.posted.lock().unwrap().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn a_pinned_key_is_asked_for_before_the_password_is_sent() {
    let system = "/redfish/v1/Systems/1";
    let bmc = Bmc::with([(SYSTEMS, (200, members(&[system]), None)), (system, (200, SYSTEM.into(), None))]).await;
    let pin = |pin: &str| Some(pin.parse().unwrap());
    bmc.look(|spec| spec.fingerprint = pin(&bmc.pin)).await.unwrap();
    let before = bmc.paths().len();
    let other = format!("sha256//{}", BASE64_STANDARD.encode([7; 32]));
    let error = bmc.look(|spec| spec.fingerprint = pin(&other)).await.unwrap_err();
    assert!(matches!(error, BmcError::Certificate { .. }), "{error}");
    assert_eq!(bmc.paths().len(), before, "nothing was sent to it");
}

#[tokio::test]
async fn the_machine_is_told_from_its_operating_system() {
    let (os, machine) = ("/redfish/v1/Systems/HypervisorSystem", "/redfish/v1/Systems/System.Embedded.1");
    let body = r#"{"SystemType":"OS","PowerState":null,"SKU":""}"#;
    let physical = SYSTEM.replacen('{', r#"{"SystemType":"Physical","#, 1);
    let bmc = Bmc::with([
        (SYSTEMS, (200, members(&[os, machine]), None)),
        (os, (200, body.into(), None)),
        (machine, (200, physical, None)),
    ])
    .await;
    assert_eq!(bmc.look(|_| ()).await.unwrap().serials[0], "7XK4M02");
}

#[tokio::test]
async fn each_refusal_is_told_in_the_bmcs_own_words_and_cut() {
    let said = |text: &str| {
        serde_json::json!({"error": {"@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.4.RAC0218", "Message": text}]}})
            .to_string()
    };
    let table = [
        (
            503,
            said("The maximum number of user sessions is reached."),
            "127.0.0.1 takes no request at the moment: The maximum number of user sessions is reached.",
        ),
        (503, String::new(), "127.0.0.1 takes no request at the moment: HTTP 503"),
        (401, String::new(), "127.0.0.1 refuses user root: wrong user name or password"),
        (
            403,
            said("Insufficient\u{1b}[2J privilege."),
            "127.0.0.1 refuses user root: the user lacks the privilege (Insufficient [2J privilege.)",
        ),
        (
            500,
            r#"{"error":{"message":"internal"}}"#.to_owned(),
            "127.0.0.1 answered strangely: HTTP 500 for /redfish/v1/Systems: internal",
        ),
        (
            200,
            "<html>".to_owned(),
            "127.0.0.1 answered strangely: /redfish/v1/Systems is not JSON: expected value at line 1 column 1",
        ),
        (200, members(&[]), "127.0.0.1 answered strangely: it has no system"),
    ];
    for (code, body, expected) in table {
        let bmc = Bmc::with([(SYSTEMS, (code, body, None))]).await;
        assert_eq!(bmc.look(|_| ()).await.unwrap_err().to_string(), expected);
    }
    let long = Bmc::with([(SYSTEMS, (503, said(&"x".repeat(100_000)), None))]).await;
    assert!(long.look(|_| ()).await.unwrap_err().to_string().len() < 300);
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let bmc = Bmc::with([(SYSTEMS, (200, " ".repeat(ANSWER * 2), None))]).await;
    let error = bmc.look(|_| ()).await.unwrap_err();
    assert!(error.to_string().contains("more than 4 MiB"), "{error}");
}

#[tokio::test]
async fn no_answer_and_no_program_are_about_the_place() {
    let at = |status, stdout: &'static str, stderr: &'static str| {
        let place = FakeRemote::new("h2")
            .rule(move |_| Some(Ok::<_, RemoteError>(Output { status, stdout: stdout.into(), stderr: stderr.into() })));
        async move { query(&place, &spec(443), "x").await.unwrap_err() }
    };
    let error = at(0, "\n000 ", "curl: (7) Failed to connect").await;
    assert!(error.is_about_the_place() && error.to_string().contains("Failed to connect"));
    assert!(matches!(at(127, "", "sh: curl: not found").await, BmcError::NoTool { .. }));
    let error = query(&FakeRemote::new("h2"), &spec(443), "a\nb").await.unwrap_err();
    assert!(error.is_about_the_login(), "{error}");
}
