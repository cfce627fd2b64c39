//! The Redfish side of a BMC: HTTPS with a certificate of its own making, basic authentication, one system.

use super::control::{Handle, Request as Ask};
use super::names::{BMC_USER, HostPlan};
use super::redfish_tree::{Answer, Machine, Method, answer};
use crate::error::{Failure, ResultExt};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// No request of a Redfish client is longer.
const BODY: usize = 64 << 10;
/// How long one connection may last, so that forgotten ones do not pile up.
const CONNECTION: Duration = Duration::from_secs(120);

/// A Redfish service that answers; it is gone once this is dropped.
#[derive(Debug)]
pub(super) struct Redfish(JoinHandle<()>);

impl Drop for Redfish {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Service {
    machine: Machine,
    /// The value the Authorization header must have.
    authorization: String,
    handle: Handle,
}

/// Serves on a socket that listens in the BMC's namespace.
pub(super) fn start(
    host: HostPlan,
    password: String,
    listener: std::net::TcpListener,
    handle: Handle,
) -> Result<Redfish, Failure> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let acceptor = acceptor(host)?;
    let login = BASE64_STANDARD.encode(format!("{}:{password}", BMC_USER));
    let service = Service { machine: Machine::of(host), authorization: format!("Basic {login}"), handle };
    Ok(Redfish(tokio::spawn(serve(listener, acceptor, Arc::new(service)))))
}

/// TLS with a certificate signed by itself, as a BMC has it from the factory.
fn acceptor(host: HostPlan) -> Result<TlsAcceptor, Failure> {
    let names = vec![host.bmc().to_string(), format!("idrac-{}", host.serial().to_lowercase())];
    let made = rcgen::generate_simple_self_signed(names).while_doing(|| "cannot make its certificate".to_owned())?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, service: Arc<Service>) {
    // Dropped with this task: a dead BMC answers nobody.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let (acceptor, service) = (acceptor.clone(), Arc::clone(&service));
        connections.spawn(tokio::time::timeout(CONNECTION, async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let respond = service_fn(|request| respond(Arc::clone(&service), request));
            // A client that breaks off is its own problem.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), respond).await;
        }));
    }
}

async fn respond(service: Arc<Service>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = match request.method().as_str() {
        "GET" | "HEAD" => Method::Get,
        "POST" => Method::Post,
        _ => Method::Other,
    };
    let path = request.uri().path().to_owned();
    let given = request.headers().get(AUTHORIZATION).map(|v| v.as_bytes());
    let login = given == Some(service.authorization.as_bytes());
    let body = match Limited::new(request.into_body(), BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(render(Answer::error(413, "the request is too long"))),
    };
    let Ok(reply) = service.handle.ask(Ask::Status).await else {
        return Ok(render(Answer::error(503, "the BMC is not ready")));
    };
    let answer = answer(&service.machine, reply.state.power, login, method, &path, &body);
    if let Some(ask) = answer.ask {
        // As on hardware: the request is accepted, the power follows.
        let handle = service.handle.clone();
        tokio::spawn(async move { handle.ask(ask).await.map(drop) });
    }
    Ok(render(answer))
}

fn render(answer: Answer) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = answer.body.map(|b| b.to_string()).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("OData-Version", hyper::header::HeaderValue::from_static("4.0"));
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, hyper::header::HeaderValue::from_static("Basic realm=\"RedfishService\""));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}
