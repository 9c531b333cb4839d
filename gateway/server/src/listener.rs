// SPDX-License-Identifier: Apache-2.0
//! Doors: sockets, TLS and HTTP framing. A shard is one thread with its own listeners on the same ports, so that a
//! connection never changes thread and no lock is shared between cores.
//!
//! Limits that hold before anybody is known: connections open at once, in all and from one network; 10 s for the TLS
//! handshake, 10 s for a request's head (hyper has one timer: so long an idle connection of HTTP/1.1 lives too), 60 s
//! without a request on HTTP/2, 64 headers, 16 KiB of head (checked in `layers`).

use crate::{
    dialect, layers,
    state::{House, Shard},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_domain::HypervisorName;
use portcullis_identity::fingerprint;
use portcullis_store::Digest;
use portcullis_upstream::Joined;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest wait for a request's head, and so for the next one on a connection of HTTP/1.1; and for the answer to a ping.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection of HTTP/2 may ask for nothing.
const IDLE: Duration = Duration::from_mins(1);
/// Most bytes of one request head.
const MAX_HEAD: usize = 16 * 1024;
/// Most headers of one request, checked in `layers`: told a limit, hyper clears 6 KiB for each head. Its own is 100.
pub(crate) const MAX_HEADERS: usize = 64;

/// What a listener is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The pages, and hypervisor APIs by host name.
    Portal,
    /// One hypervisor's API on its own port.
    Api(HypervisorName),
    /// One hypervisor's RPC on its own port.
    Rpc(HypervisorName),
}

/// A listener before it is bound.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) purpose: Purpose,
    pub(crate) at: SocketAddr,
    /// None only for `--dev` on loopback.
    pub(crate) tls: Option<DoorTls>,
}

/// What a door speaks TLS with.
#[derive(Clone)]
pub(crate) struct DoorTls {
    pub(crate) usual: Arc<ServerConfig>,
    /// The same for those who ask for the host name of a hypervisor whose clients may show a certificate.
    pub(crate) asking: Option<Arc<ServerConfig>>,
}

/// One connection: at which door, and who is at its other end.
pub(crate) struct Line {
    pub(crate) door: Arc<Door>,
    pub(crate) ip: IpAddr,
    /// The fingerprint of the certificate whose key the client proved to hold, where it was asked for one.
    pub(crate) key: Option<Digest>,
}

/// Binds a port for one listener alone: fails where anybody listens already. `SO_REUSEPORT` would let a second gateway
/// share it silently.
pub(crate) fn bind_alone(at: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// One shard's listener on a door.
pub(crate) fn bind(at: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Accepts until the house closes.
pub(crate) async fn accept(house: Arc<House>, shard: Arc<Shard>, door: Arc<Door>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = house.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(pair) => pair,
            Err(error) => {
                // Out of descriptors: those held now are worth more than new ones. Pause, then go on.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(counted) = house.connections.count(peer.ip(), &house.config.limits) else { continue };
        let (held, shard, door) = (Arc::clone(&house), Arc::clone(&shard), Arc::clone(&door));
        house.tasks.spawn(async move {
            // What an idle connection holds is what this future has room for: the handshake's is given back before the
            // first request, and what serves it is built where it stays.
            let begun = Box::pin(begin(held, shard, door, stream, peer)).await;
            if let Some(serving) = begun {
                serving.await;
            }
            drop(counted);
        });
    }
}

/// All that becomes of one connection.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn begin(
    house: Arc<House>,
    shard: Arc<Shard>,
    door: Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Serving> {
    stream.set_nodelay(true).ok();
    let keepalive =
        socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive).ok();
    let ip = peer.ip().to_canonical();
    let Some(tls) = door.tls.clone() else {
        return Some(http1(house, shard, Line { door, ip, key: None }, Joined(stream)));
    };
    match tokio::time::timeout(HANDSHAKE, shake(&house, tls, stream)).await {
        Ok(Ok(stream)) if let Purpose::Rpc(name) = &door.purpose => {
            Some(Box::pin(dialect::libvirt::serve(house, name.clone(), stream, ip)))
        }
        Ok(Ok(stream)) => {
            let tls = stream.get_ref().1;
            let key = tls.peer_certificates().and_then(<[_]>::first).map(|leaf| fingerprint(leaf));
            let line = Line { door, ip, key };
            Some(if tls.alpn_protocol() == Some(b"h2") {
                http2(house, shard, line, stream)
            } else {
                http1(house, shard, line, stream)
            })
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, %ip, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%ip, "TLS handshake took too long");
            None
        }
    }
}

/// The handshake. Whoever asks for the name of a hypervisor whose clients may show a certificate is asked for one. Asking
/// gives nothing: whose a certificate is, and whether it counts, is looked at for the host that each request names.
async fn shake(house: &House, tls: DoorTls, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let Some(asking) = tls.asking.filter(|_| house.roster.load().takes_keys()) else {
        return TlsAcceptor::from(tls.usual).accept(stream).await;
    };
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let name = hello.client_hello().server_name().and_then(|name| house.api_host(name));
    let asks = name.is_some_and(|name| house.takes_keys(&name));
    hello.into_stream(if asks { asking } else { tls.usual }).await
}

fn http1<S>(house: Arc<House>, shard: Arc<Shard>, line: Line, stream: S) -> Serving
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (closing, ip) = (house.closing.clone(), line.ip);
    let line = Arc::new(line);
    let service = hyper::service::service_fn(move |request| {
        let (house, shard, line) = (Arc::clone(&house), Arc::clone(&shard), Arc::clone(&line));
        // hyper keeps room for this future on every connection, with or without a request: boxed, that is a pointer.
        // Its room is taken first, so that it is built there and not moved there with room for all that it could become.
        Box::into_pin(Box::write(Box::new_uninit(), async move {
            Ok::<_, std::convert::Infallible>(layers::answer(house, shard, &line, request).await)
        }))
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(MAX_HEAD)
        .max_buf_size(64 * 1024)
        .half_close(false);
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    Box::pin(async move {
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %ip, "connection ended");
        }
    })
}

fn http2<S>(house: Arc<House>, shard: Arc<Shard>, line: Line, stream: S) -> Serving
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (closing, ip) = (house.closing.clone(), line.ip);
    let line = Arc::new(line);
    let executor = house.executor();
    let streams = Arc::new(Streams::default());
    let idle = Arc::clone(&streams);
    let service = hyper::service::service_fn(move |request| {
        let (house, shard, line) = (Arc::clone(&house), Arc::clone(&shard), Arc::clone(&line));
        let asked = Streams::open(&streams);
        async move {
            let answer = layers::answer(house, shard, &line, request).await;
            drop(asked);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(16 * 1024)
        .max_pending_accept_reset_streams(Some(20))
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(HEAD);
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
    Box::pin(async move {
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = async { tokio::select! { () = closing.cancelled() => {}, () = idle.rest() => {} } } => {
                // Answers on their way go on to their end.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %ip, "connection ended");
        }
    })
}

/// The requests of one HTTP/2 connection: one that asks for nothing is closed, or whoever only answers pings could
/// hold every connection that there is.
#[derive(Default)]
struct Streams {
    open: AtomicUsize,
    asked: AtomicUsize,
}

/// One request until its answer begins.
struct Asking(Arc<Streams>);

impl Streams {
    fn open(all: &Arc<Self>) -> Asking {
        all.open.fetch_add(1, Ordering::Relaxed);
        all.asked.fetch_add(1, Ordering::Relaxed);
        Asking(Arc::clone(all))
    }

    /// Waits until nothing was asked for a whole [`IDLE`].
    async fn rest(&self) {
        loop {
            let asked = self.asked.load(Ordering::Relaxed);
            tokio::time::sleep(IDLE).await;
            if self.open.load(Ordering::Relaxed) == 0 && self.asked.load(Ordering::Relaxed) == asked {
                return;
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs hyper's HTTP/2 tasks under the house's tracker.
#[derive(Clone)]
pub(crate) struct Tracked(pub(crate) tokio_util::task::TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: std::future::Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_http_2_that_asks_for_nothing_is_closed_and_a_slow_answer_is_not_cut() {
        let (streams, begun) = (Arc::new(Streams::default()), Instant::now());
        streams.rest().await;
        assert_eq!(begun.elapsed(), IDLE, "pings alone keep nothing open");
        let asking = Streams::open(&streams);
        assert!(tokio::time::timeout(10 * IDLE, streams.rest()).await.is_err(), "an answer is on its way");
        drop(asking);
        let begun = Instant::now();
        streams.rest().await;
        assert!(begun.elapsed() <= 2 * IDLE);
    }
}
