//! Metrics over HTTP, for a Prometheus that asks: `GET /metrics`. One thread; a collection at a time, and not
//! more often than [`FRESH`], however many ask.
//!
//! Nothing is read from a request but its path. Listens where it is told, on the loopback interface as a rule:
//! names of backups and hosts are nothing for strangers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Error, IoContext, Result};
use crate::interrupt::Interrupt;

/// What was collected is served again for so long.
const FRESH: Duration = Duration::from_secs(10);

/// Who has not sent a whole request by then is let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 16;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Makes the text.
pub type Collect = dyn Fn() -> Result<String> + Send + Sync;

/// Serves until it is asked to end. `bound` is told the address, which matters with port 0.
pub fn serve(
    address: SocketAddr,
    collect: Arc<Collect>,
    interrupt: &Interrupt,
    bound: impl FnOnce(SocketAddr),
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "start serving metrics")?;
    // A collection may hang on the repository: its thread is left to itself, and the process ends all the same.
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.doing(|| format!("listen on {address}"))?;
        bound(listener.local_addr().doing(|| format!("listen on {address}"))?);
        let cache = Arc::new(Cache { collect, last: Mutex::new(None) });
        tokio::select! {
            ended = accept(&listener, &cache) => ended,
            () = asked_to_end(interrupt) => Ok(()),
        }
    })
}

async fn asked_to_end(interrupt: &Interrupt) {
    while !interrupt.is_set() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn accept(listener: &TcpListener, cache: &Arc<Cache>) -> Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await;
        let slot = slot.map_err(|cause| Error::bug(format!("no more connections: {cause}")))?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let cache = cache.clone();
                tokio::spawn(async move {
                    answer(stream, cache).await;
                    drop(slot);
                });
            }
            // Of that connection, or of too many open files: the next may fare better.
            Err(cause) => {
                tracing::warn!("could not accept a connection: {cause}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request, then the connection is closed: scrapes are far apart.
async fn answer(stream: TcpStream, cache: Arc<Cache>) {
    let service = service_fn(move |request| respond(request, cache.clone()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(cause) = served.await {
        tracing::debug!("a request for metrics ended early: {cause}");
    }
}

async fn respond(
    request: Request<Incoming>,
    cache: Arc<Cache>,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n"));
    }
    if request.method() != Method::GET {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return Ok(refused);
    }
    Ok(match collect(cache).await {
        Ok(text) => {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
            response
        }
        Err(error) => {
            tracing::error!("{error}");
            // Not the message: it names paths.
            plain(StatusCode::SERVICE_UNAVAILABLE, "could not collect; the log says why\n")
        }
    })
}

/// Collects in a thread of its own, and not in one of the runtime's: there the store would hand its work to the
/// very runtime that waits for us.
async fn collect(cache: Arc<Cache>) -> Result<String> {
    let (tell, told) = oneshot::channel();
    let run = move || {
        // Who asked may have gone away.
        drop(tell.send(cache.text()));
    };
    std::thread::Builder::new().name("collect".into()).spawn(run).doing(|| "start a collection")?;
    told.await.unwrap_or_else(|_| Err(Error::bug("a collection ended early")))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

struct Cache {
    collect: Arc<Collect>,
    last: Mutex<Option<(Instant, String)>>,
}

impl Cache {
    fn text(&self) -> Result<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, text)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let text = (self.collect)()?;
        *last = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = std::net::TcpStream::connect(address).expect("connected");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    #[test]
    fn metrics_are_served_until_asked_to_end_and_collected_once_for_many() {
        let collections = Arc::new(AtomicU32::new(0));
        let counted = collections.clone();
        let collect: Arc<Collect> = Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok("# EOF\n".to_string())
        });
        let interrupt = Interrupt::default();
        let (tell, told) = channel();
        let (address, ends) = ("127.0.0.1:0".parse().expect("address"), interrupt.clone());
        let server = std::thread::spawn(move || {
            serve(address, collect, &ends, |address| tell.send(address).expect("told"))
        });
        let address = told.recv().expect("bound");
        for _ in 0..3 {
            let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("# EOF\n"), "{answer}");
            assert!(answer.contains("application/openmetrics-text"), "{answer}");
        }
        assert_eq!(collections.load(Ordering::Relaxed), 1);
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
            ("nonsense\r\n\r\n", "400"),
        ] {
            let answer = ask(address, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        }
        interrupt.set();
        assert_eq!(server.join().expect("ended"), Ok(()));
    }

    #[test]
    fn a_collection_that_fails_is_told_without_its_message() {
        let cache = Arc::new(Cache {
            collect: Arc::new(|| Err(Error::transient("could not open /secret/path"))),
            last: Mutex::new(None),
        });
        assert!(cache.text().is_err());
        assert!(cache.text().is_err(), "an error is not kept");
    }
}
