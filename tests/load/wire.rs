// SPDX-License-Identifier: Apache-2.0
//! A viewer's connection: TCP, TLS where the gateway speaks it, WebSocket frames where there are any. Written by hand,
//! so that the client costs little beside what it measures.

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use std::{path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Bytes of one read.
const READ: usize = 256 * 1024;
/// Any key masks; the peer undoes it all the same.
const MASK: [u8; 4] = [0x1d, 0xa5, 0x3c, 0x77];

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// TLS that trusts one CA.
pub(crate) fn trust(ca: &Path) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).with_context(|| ca.display().to_string())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

/// What a WebSocket is opened with.
pub(crate) struct Opening<'a> {
    pub(crate) path: &'a str,
    pub(crate) host: &'a str,
    pub(crate) cookie: Option<&'a str>,
    pub(crate) protocols: &'a str,
}

/// Opens a connection.
pub(crate) async fn connect(target: &str, tls: Option<&TlsConnector>) -> Result<Box<dyn Stream>> {
    let tcp = TcpStream::connect(target).await.with_context(|| target.to_owned())?;
    tcp.set_nodelay(true)?;
    Ok(match tls {
        Some(tls) => Box::new(tls.connect(ServerName::try_from("localhost")?, tcp).await?),
        None => Box::new(tcp),
    })
}

/// A connection that carries a screen.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    frames: Option<Frames>,
    scratch: Vec<u8>,
    /// Payload that was read and not taken.
    held: Vec<u8>,
}

impl Wire {
    /// A bare stream, or a WebSocket on it.
    pub(crate) async fn open(mut stream: Box<dyn Stream>, opening: Option<Opening<'_>>, read: usize) -> Result<Self> {
        let mut held = Vec::new();
        let frames = match opening {
            None => None,
            Some(Opening { path, host, cookie, protocols }) => {
                let cookie = cookie.map(|c| format!("Cookie: {c}\r\n")).unwrap_or_default();
                let head = format!(
                    "GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Key: cG9ydGN1bGxpcy1iZW5jaA==\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocols}\r\n{cookie}\r\n"
                );
                stream.write_all(head.as_bytes()).await?;
                let mut answer = Vec::new();
                let end = loop {
                    if let Some(at) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
                        break at + 4;
                    }
                    if stream.read_buf(&mut answer).await? == 0 {
                        bail!("closed during the WebSocket handshake: {}", String::from_utf8_lossy(&answer));
                    }
                };
                if !answer.starts_with(b"HTTP/1.1 101") {
                    bail!("no WebSocket: {}", String::from_utf8_lossy(&answer));
                }
                let mut frames = Frames::default();
                frames.feed(answer.get(end..).unwrap_or_default(), |data| held.extend_from_slice(data))?;
                Some(frames)
            }
        };
        Ok(Self { stream, frames, scratch: vec![0; read.min(READ)], held })
    }

    /// A message as it goes over this wire.
    pub(crate) fn pack(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        if self.frames.is_some() { frame(0x82, bytes) } else { Ok(bytes.to_vec()) }
    }

    /// Sends what [`Wire::pack`] made.
    pub(crate) async fn send_packed(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let packed = self.pack(bytes)?;
        self.send_packed(&packed).await
    }

    /// Reads once and hands the payload on; gives how many bytes that was. Pings are answered.
    async fn read_into(&mut self, mut data: impl FnMut(&[u8])) -> Result<usize> {
        let count = self.stream.read(&mut self.scratch).await?;
        if count == 0 {
            bail!("the stream ended");
        }
        let bytes = self.scratch.get(..count).unwrap_or_default();
        let Some(frames) = &mut self.frames else {
            data(bytes);
            return Ok(count);
        };
        let mut payload = 0;
        frames.feed(bytes, |part| {
            payload += part.len();
            data(part);
        })?;
        if let Some(ping) = frames.ping.take() {
            let pong = frame(0x8a, &ping)?;
            self.stream.write_all(&pong).await?;
        }
        Ok(payload)
    }

    /// Reads once and drops the payload; gives how many bytes that was.
    pub(crate) async fn drain(&mut self) -> Result<usize> {
        let held = std::mem::take(&mut self.held).len();
        if held > 0 { Ok(held) } else { self.read_into(|_| {}).await }
    }

    /// Exactly so many bytes of payload.
    pub(crate) async fn read(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut held = std::mem::take(&mut self.held);
        while held.len() < count {
            self.read_into(|data| held.extend_from_slice(data)).await?;
        }
        self.held = held.split_off(count);
        Ok(held)
    }
}

/// A client's frame (RFC 6455 section 5.2): final, masked.
fn frame(first: u8, payload: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => bytes.push(0x80 | length),
        _ => {
            bytes.push(0x80 | 0x7e);
            bytes.extend_from_slice(&u16::try_from(payload.len()).context("a long message")?.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    Ok(bytes)
}

/// A server's frames, wherever reads cut them.
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    left: usize,
    control: bool,
    control_bytes: Vec<u8>,
    ping: Option<Vec<u8>>,
}

impl Frames {
    fn feed(&mut self, mut bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<()> {
        while let Some(first) = bytes.first() {
            if self.left == 0 {
                self.head.push(*first);
                bytes = bytes.get(1..).unwrap_or_default();
                self.begin()?;
                continue;
            }
            let (now, rest) = bytes.split_at(self.left.min(bytes.len()));
            bytes = rest;
            self.left -= now.len();
            if !self.control {
                data(now);
                continue;
            }
            self.control_bytes.extend_from_slice(now);
            if self.left == 0 {
                self.ping = Some(std::mem::take(&mut self.control_bytes));
            }
        }
        Ok(())
    }

    /// Reads the head as soon as it is complete.
    fn begin(&mut self) -> Result<()> {
        let (Some(first), Some(second)) = (self.head.first(), self.head.get(1)) else { return Ok(()) };
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length) = self.head.get(2..2 + wide) else { return Ok(()) };
        let length =
            if wide == 0 { usize::from(second & 0x7f) } else { length.iter().fold(0, |n, b| n << 8 | usize::from(*b)) };
        match first & 0x0f {
            0..=2 => self.control = false,
            9 => self.control = true,
            8 => bail!("the server closed the WebSocket"),
            other => bail!("a frame with opcode {other}"),
        }
        if self.control && length == 0 {
            self.ping = Some(Vec::new());
        }
        self.left = length;
        self.head.clear();
        Ok(())
    }
}
