// SPDX-License-Identifier: Apache-2.0
//! An LXD server's API, as far as a gateway and a load generator read it: cheap enough to saturate what is in front.

use anyhow::Result;
use clap::Args;
use futures_util::StreamExt as _;
use std::{fmt::Write as _, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

/// How long the slow path takes to answer.
const SLOW: Duration = Duration::from_millis(2);

#[derive(Args)]
pub(crate) struct Upstream {
    /// The unix socket to listen on
    #[arg(long)]
    socket: PathBuf,
    /// An address of loopback to listen on as well: what is asked there is asked without anything in between
    #[arg(long)]
    listen: Option<String>,
}

impl Upstream {
    pub(crate) async fn run(self) -> Result<()> {
        let listener = UnixListener::bind(&self.socket)?;
        let beside = match &self.listen {
            Some(address) => Some(TcpListener::bind(address).await?),
            None => None,
        };
        let answers = Answers::new()?;
        let mut connections = JoinSet::new();
        loop {
            let direct = async {
                match &beside {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = listener.accept() => { connections.spawn(serve(accepted?.0, answers.clone())); }
                accepted = direct => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    connections.spawn(serve(stream, answers.clone()));
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

/// The answers, made once.
#[derive(Clone)]
struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
    instances: Vec<u8>,
}

impl Answers {
    fn new() -> Result<Self> {
        let sized = |bytes: usize| {
            let head = r#"{"type":"sync","status":"Success","metadata":{"description":""#;
            let tail = "\"}}";
            let fill = "x".repeat(bytes.saturating_sub(head.len() + tail.len()));
            answer(&format!("{head}{fill}{tail}"))
        };
        Ok(Self {
            small: sized(1024)?,
            large: sized(64 * 1024)?,
            instances: answer(r#"{"type":"sync","status":"Success","status_code":200,"metadata":[]}"#)?,
        })
    }
}

fn answer(body: &str) -> Result<Vec<u8>> {
    let mut text = String::new();
    write!(text, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    Ok(text.into_bytes())
}

/// Requests of one connection, one after the other; what they carry is thrown away.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answers: Answers) -> Result<()> {
    let mut held = Vec::with_capacity(8 * 1024);
    loop {
        let end = loop {
            if let Some(at) = held.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut held).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(held.get(..end).unwrap_or_default()).into_owned();
        held.drain(..end);
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.starts_with("/1.0/events") {
            return watch(stream, &head).await;
        }
        let bytes = match path {
            "/1.0/profiles/k64" => &answers.large,
            path if path.starts_with("/1.0/instances") => &answers.instances,
            "/1.0/profiles/slow" => {
                tokio::time::sleep(SLOW).await;
                &answers.small
            }
            _ => &answers.small,
        };
        let sized = |line: &&str| line.to_ascii_lowercase().starts_with("content-length:");
        let length =
            head.lines().find(sized).and_then(|l| l.split_once(':')).map_or(Ok(0), |(_, v)| v.trim().parse())?;
        swallow(&mut stream, &mut held, length).await?;
        stream.write_all(bytes).await?;
        if head.to_ascii_lowercase().contains("connection: close") {
            return Ok(());
        }
    }
}

/// Reads a body of so many bytes, some of which may be there already.
async fn swallow<S: AsyncRead + Unpin>(stream: &mut S, held: &mut Vec<u8>, length: u64) -> Result<()> {
    let early = held.len().min(usize::try_from(length)?);
    held.drain(..early);
    let mut left = length - early as u64;
    if left == 0 {
        return Ok(());
    }
    let mut part = vec![0; 256 * 1024];
    while left > 0 {
        let most = part.len().min(usize::try_from(left)?);
        let read = stream.read(part.get_mut(..most).unwrap_or_default()).await?;
        anyhow::ensure!(read > 0, "the body broke off, {left} bytes before its end");
        left -= read as u64;
    }
    Ok(())
}

/// The events of a server on which nothing happens.
async fn watch<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, head: &str) -> Result<()> {
    let named = |line: &&str| line.to_ascii_lowercase().starts_with("sec-websocket-key:");
    let key = head.lines().find(named).and_then(|l| l.split_once(':')).map_or("", |(_, v)| v.trim());
    let accept = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    // Reading answers pings.
    while let Some(message) = socket.next().await {
        message?;
    }
    Ok(())
}
