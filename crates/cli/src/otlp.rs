//! Spans for a collector: OTLP over HTTP, to where the standard variables of OpenTelemetry say. Without TLS, so the collector
//! is on this machine or in a network that is trusted; what is sent has ids and counts, never what lets anybody in.

use crate::failure::Failure;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use std::env;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Registry;

/// How long a collector may take to connect, to take a batch and to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what waits may take to leave in the end.
const LEAVING: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read.
const ANSWER: u64 = 16 * 1024;
/// Where to send, by OpenTelemetry's rules: the first for traces alone.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Sends spans in batches, from a thread of its own, until it is dropped.
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// `None` when no collector is named.
    ///
    /// # Errors
    /// One that nothing can be sent to.
    pub(crate) fn from_environment() -> Result<Option<Self>, Failure> {
        let named = |name: &&str| env::var(name).is_ok_and(|value| !value.is_empty());
        let Some(name) = ENDPOINTS.into_iter().find(named) else { return Ok(None) };
        let endpoint = env::var(name).unwrap_or_default();
        let refused = |why: &str| {
            let failure = Failure::usage(format!("spans cannot be sent to '{endpoint}'"));
            failure.reason(why).hint(format!("{name} takes http://HOST:PORT of a collector"))
        };
        if !endpoint.starts_with("http://") {
            return Err(refused("this program sends them over HTTP without TLS"));
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::default())
            .build()
            .map_err(|e| refused(&e.to_string()))?;
        let mut resource = Resource::builder();
        if env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("anabranch");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self(provider)))
    }

    /// What turns spans of this program into spans to be sent.
    pub(crate) fn layer(&self) -> OpenTelemetryLayer<Registry, Tracer> {
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("anabranch"))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // The client has said why, if nothing could be sent.
        let _ = self.0.shutdown_with_timeout(LEAVING);
    }
}

/// One request a connection: there is one every few seconds. It blocks, on the thread that has nothing else to do.
#[derive(Debug, Default)]
struct Client {
    /// Whether it was said that the collector cannot be reached.
    failing: AtomicBool,
}

impl HttpClient for Client {
    fn send_bytes<'c, 'f>(
        &'c self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'c: 'f,
        Self: 'f,
    {
        let answer = post(&request);
        let failed = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(e) => Some(e.to_string()),
        };
        let failing = self.failing.swap(failed.is_some(), Ordering::Relaxed);
        if let Some(why) = failed.filter(|_| !failing) {
            tracing::warn!("spans could not be sent to {}: {why}", request.uri());
        }
        Box::pin(std::future::ready(answer))
    }
}

fn post(request: &Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let uri = request.uri();
    let host = uri.host().ok_or("the address of the collector has no host")?;
    let port = uri.port_u16().unwrap_or(80);
    // An address of six has brackets here and none there.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let address = (name, port).to_socket_addrs()?.next().ok_or("the collector has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n");
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str()?));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", request.body().len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(request.body())?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer)?;
    // Of the answer only its first line counts: HTTP/1.1 200 OK.
    let line = answer.split(|b| *b == b'\r').next().unwrap_or_default();
    let status = std::str::from_utf8(line)?.split(' ').nth(1).ok_or("no answer of HTTP came")?;
    Ok(Response::builder().status(status).body(Bytes::new())?)
}
