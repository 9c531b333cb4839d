// SPDX-License-Identifier: Apache-2.0
//! Connections: where a peer listens, how it is dialled, and the byte stream that comes out.

use crate::{
    badge::Badge,
    error::{Error, Fault},
    framed::Framed,
    tls::Tls,
};
use bytes::{Buf, Bytes};
use http::HeaderValue;
use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::client::TlsStream;

/// How long a connection may take to be made.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// Where a peer listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// TCP: a name or a literal address, and a port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Reads `host:port`, `[v6]:port` or `unix:/path`.
    pub(crate) fn parse(key: &str, text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::config(key, format!("{text:?} {why}; write host:port or unix:/path"));
        if let Some(path) = text.strip_prefix("unix:") {
            return if Path::new(path).is_absolute() {
                Ok(Self::Unix(path.into()))
            } else {
                Err(bad("is no absolute path"))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("has no port"))?;
        let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(|| bad("has no valid port"))?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_name =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        let is_host = if bare.is_some() { host.parse::<Ipv6Addr>().is_ok() } else { is_name };
        if !is_host {
            return Err(bad("has no valid host"));
        }
        Ok(Self::Tcp(host.to_owned(), port))
    }

    /// The host of a TCP address.
    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp(host, _) => Some(host),
            Self::Unix(_) => None,
        }
    }

    /// Connects, at most 10 seconds.
    pub(crate) async fn dial(&self) -> Result<Stream, Fault> {
        match tokio::time::timeout(CONNECT, self.connect()).await {
            Ok(done) => done,
            Err(_) => Err(Fault::TooSlow("to accept a connection")),
        }
    }

    async fn connect(&self) -> Result<Stream, Fault> {
        let (host, port) = match self {
            Self::Unix(path) => {
                let socket = UnixStream::connect(path).await;
                return socket.map(Stream::Unix).map_err(|e| Fault::unreachable(path.display().to_string(), e));
            }
            Self::Tcp(host, port) => (host, *port),
        };
        let shown = || format!("{host} port {port}");
        let mut last = None;
        // Resolved once: the address that was checked is the one that is dialled (SEC-150).
        let found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(|e| Fault::unreachable(shown(), e))?;
        for address in found {
            if !may_dial(host, &address) {
                let why = format!("{host} resolves to {}, which nothing outside has", address.ip());
                last = Some(Fault::hung_up(why));
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|e| Fault::unreachable(shown(), e))?;
                    return Ok(Stream::Tcp(stream));
                }
                Err(e) => last = Some(Fault::unreachable(shown(), e)),
            }
        }
        Err(last.unwrap_or_else(|| Fault::hung_up(format!("{host} has no address"))))
    }
}

/// A name may not lead to this machine or to a link's own addresses (metadata services): only a literal address or
/// `localhost` in the configuration says that this is meant.
fn may_dial(host: &str, address: &SocketAddr) -> bool {
    if host.parse::<IpAddr>().is_ok() || host == "localhost" {
        return true;
    }
    !is_inner(address.ip())
}

/// Whether an address is this machine's, a link's own (metadata services), or nobody's.
fn is_inner(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast(),
        IpAddr::V6(ip) => {
            let metadata = ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
            ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast() || metadata
        }
    }
}

/// Whether a host as it is written leads there. A name that only resolves to such an address is refused when it is
/// dialled, whoever wrote it.
pub(crate) fn is_inner_host(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(is_inner)
}

/// An API's place, as the configuration writes it: `https://host:port`.
pub(crate) struct Https {
    pub(crate) address: Address,
    /// What `Host` says.
    pub(crate) host: HeaderValue,
    /// What its own addresses begin with.
    pub(crate) origin: String,
}

impl Https {
    /// Reads it; `port` is the one where none is said.
    pub(crate) fn parse(key: &str, text: &str, port: Option<u16>) -> Result<Self, Error> {
        let rest = text.strip_prefix("https://").map(|r| r.strip_suffix('/').unwrap_or(r));
        let rest = rest.ok_or_else(|| Error::config(key, format!("{text:?} does not begin with https://")))?;
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let address = match port.filter(|_| !has_port) {
            Some(port) => Address::parse(key, &format!("{rest}:{port}"))?,
            None => Address::parse(key, rest)?,
        };
        if address.host().is_none() {
            return Err(Error::config(key, "is no https address; use socket for a unix socket where there is one"));
        }
        let host = HeaderValue::from_str(rest).map_err(|e| Error::config(key, e.to_string()))?;
        Ok(Self { address, host, origin: format!("https://{rest}") })
    }
}

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP, with Nagle's delay off.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// A WebSocket's bytes.
    Framed(Box<Framed>),
    /// What follows a head that was read already.
    Early(Box<Early>),
}

/// A socket, or TLS on one.
pub(crate) enum Wire {
    /// As it is.
    Plain(Stream),
    /// Inside TLS.
    Tls(Box<TlsStream<Stream>>),
}

/// Most bytes that are copied together to be written as one.
const JOINED: usize = 2048;

/// Writes a few small pieces as one: copying a head and a short body costs less than a call of the kernel that takes
/// several. What is larger goes as it is.
#[inline]
fn write_joined<S: AsyncWrite>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [one] = bufs {
        return stream.poll_write(cx, one);
    }
    let mut joined = [0; JOINED];
    let mut length = 0;
    for buf in bufs {
        let Some(place) = joined.get_mut(length..length + buf.len()) else {
            return stream.poll_write_vectored(cx, bufs);
        };
        place.copy_from_slice(buf);
        length += buf.len();
    }
    stream.poll_write(cx, joined.get(..length).unwrap_or_default())
}

/// A socket whose small pieces are written together.
#[derive(Debug)]
pub struct Joined<S>(pub S);

impl<S: AsyncRead + Unpin> AsyncRead for Joined<S> {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Joined<S> {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        write_joined(Pin::new(&mut self.get_mut().0), cx, bufs)
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

macro_rules! pass {
    ($name:ident { $($variant:ident),* }) => {
        impl AsyncRead for $name {
            #[inline]
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_read(cx, buf),)* }
            }
        }

        impl AsyncWrite for $name {
            #[inline]
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_write(cx, buf),)* }
            }

            #[inline]
            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(s) => write_joined(Pin::new(s), cx, bufs),)* }
            }

            #[inline]
            fn is_write_vectored(&self) -> bool {
                match self { $(Self::$variant(s) => s.is_write_vectored(),)* }
            }

            #[inline]
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_flush(cx),)* }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_shutdown(cx),)* }
            }
        }
    };
}

pass!(Stream { Tcp, Unix, Framed, Early });
pass!(Wire { Plain, Tls });

/// Dials one peer and shows it the gateway's credential: the client certificate in the handshake, the process's own
/// user on a unix socket, or a header of each request.
pub(crate) struct Dialer {
    /// Where.
    pub(crate) address: Address,
    /// TLS, for TCP.
    pub(crate) tls: Option<Tls>,
    /// What each request shows, where that is how the peer knows the gateway.
    pub(crate) authorization: Option<Badge>,
}

impl Dialer {
    /// Connects and runs the handshake.
    pub(crate) async fn dial(&self) -> Result<Wire, Fault> {
        let stream = self.address.dial().await?;
        match &self.tls {
            Some(tls) => Ok(Wire::Tls(Box::new(tls.now()?.upgrade(stream).await?))),
            None => Ok(Wire::Plain(stream)),
        }
    }
}

/// A connection of which more was read than was needed.
pub struct Early {
    early: Bytes,
    wire: Wire,
}

impl Early {
    pub(crate) const fn new(wire: Wire, early: Bytes) -> Self {
        Self { early, wire }
    }
}

impl std::fmt::Debug for Early {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Early")
    }
}

impl AsyncRead for Early {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.wire).poll_read(cx, buf);
        }
        let take = this.early.len().min(buf.remaining());
        if let Some(head) = this.early.get(..take) {
            buf.put_slice(head);
        }
        this.early.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Early {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}

/// The hypervisor's side of an upgraded connection, after its 101. It counts as one of the hypervisor's connections
/// until dropped.
pub struct Tunnel {
    inner: Early,
    _slot: OwnedSemaphorePermit,
}

impl Tunnel {
    pub(crate) fn new(wire: Wire, early: Bytes, slot: OwnedSemaphorePermit) -> Self {
        Self { inner: Early::new(wire, early), _slot: slot }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what each write was given, and takes at most so many bytes of it.
    struct Noting(Vec<Vec<usize>>, usize);

    impl AsyncWrite for Noting {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bufs.iter().map(|b| b.len()).collect());
            Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum::<usize>().min(self.1)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn small_pieces_are_written_as_one_and_large_ones_as_they_are() {
        let (head, body, large) = ([b'h'; 300], [b'b'; JOINED - 300], [b'l'; JOINED]);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut write = |takes: usize, pieces: &[&[u8]]| {
            let mut stream = Noting(Vec::new(), takes);
            let bufs: Vec<IoSlice<'_>> = pieces.iter().map(|p| IoSlice::new(p)).collect();
            let Poll::Ready(Ok(taken)) = write_joined(Pin::new(&mut stream), &mut cx, &bufs) else { panic!() };
            (taken, stream.0)
        };
        assert_eq!(write(usize::MAX, &[&head, &body]), (JOINED, vec![vec![JOINED]]));
        assert_eq!(write(10, &[&head, &body]), (10, vec![vec![JOINED]]), "what was not taken is offered again");
        assert_eq!(write(usize::MAX, &[&head, &large]), (JOINED + 300, vec![vec![300, JOINED]]));
        assert_eq!(write(usize::MAX, &[&large]), (JOINED, vec![vec![JOINED]]));
    }

    #[test]
    fn addresses_are_read_or_refused_with_the_key() {
        assert_eq!(Address::parse("k", "h.example:5900").unwrap(), Address::Tcp("h.example".into(), 5900));
        assert_eq!(Address::parse("k", "[::1]:5900").unwrap(), Address::Tcp("::1".into(), 5900));
        assert_eq!(Address::parse("k", "unix:/a/b").unwrap(), Address::Unix("/a/b".into()));
        for bad in ["", "h", "h:", "h:0", "h:70000", ":1", "::1:5", "unix:a", "a b:1", "u@h:1", "[x]:1", "h/:1"] {
            let error = Address::parse("hypervisors.lab.vnc", bad).unwrap_err().to_string();
            assert!(error.contains("hypervisors.lab.vnc"), "{error}");
        }
    }

    #[test]
    fn a_name_never_leads_to_this_machine_or_a_metadata_service() {
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 443);
        for ip in
            ["127.0.0.1", "::1", "169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "fd00:ec2::254"]
        {
            assert!(!may_dial("hv.example", &at(ip)), "{ip}");
        }
        for ip in ["10.0.0.1", "192.0.2.1", "2001:db8::1"] {
            assert!(may_dial("hv.example", &at(ip)), "{ip}");
        }
        assert!(may_dial("localhost", &at("127.0.0.1")) && may_dial("127.0.0.1", &at("127.0.0.1")));
    }
}
