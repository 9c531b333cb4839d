// SPDX-License-Identifier: Apache-2.0
//! Screens without a machine behind them (RFB 3.8, RFC 6143, security None): one streams pictures as fast as they are
//! taken, the other answers each 64 bytes of input with 64 bytes of picture.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The screen's size in pixels of four bytes.
const SIZE: (u16, u16) = (1024, 768);
/// Bytes of input that are answered by one picture.
const INPUT: usize = 64;

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// After the first request for a picture: pictures of 64 KiB until the viewer goes
    Stream,
    /// One picture of 64 bytes for each 64 bytes of keys
    Echo,
}

#[derive(Args)]
pub(crate) struct Screen {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// What it does
    #[arg(long)]
    kind: Kind,
}

impl Screen {
    pub(crate) async fn run(self) -> Result<()> {
        let listener = TcpListener::bind(self.listen).await?;
        let mut viewers: JoinSet<Result<()>> = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            viewers.spawn(serve(stream, self.kind));
            while viewers.try_join_next().is_some() {}
        }
    }
}

/// One update of one Raw rectangle.
fn picture(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 1, 0, 0, 0, 0];
    bytes.extend_from_slice(&width.to_be_bytes());
    bytes.extend_from_slice(&height.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.resize(bytes.len() + usize::from(width) * usize::from(height) * 4, 0x5a);
    bytes
}

async fn serve(mut stream: TcpStream, kind: Kind) -> Result<()> {
    stream.write_all(b"RFB 003.008\n").await?;
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    stream.write_all(&[1, 1]).await?;
    stream.read_u8().await?;
    stream.write_all(&[0; 4]).await?;
    stream.read_u8().await?;
    let mut init = Vec::new();
    init.extend_from_slice(&SIZE.0.to_be_bytes());
    init.extend_from_slice(&SIZE.1.to_be_bytes());
    init.extend_from_slice(&[32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]);
    init.extend_from_slice(&[0, 0, 0, 5]);
    init.extend_from_slice(b"bench");
    stream.write_all(&init).await?;
    let mut input = Input::default();
    match kind {
        Kind::Stream => {
            while !input.asked {
                input.read(&mut stream).await?;
            }
            let (mut from, mut to) = stream.split();
            let large = picture(256, 64);
            let pictures = async {
                loop {
                    if let Err(error) = to.write_all(&large).await {
                        return error;
                    }
                }
            };
            // What the viewer says meanwhile is read, or its socket would fill and it would stop.
            let words = async {
                let mut words = [0; 1024];
                while from.read(&mut words).await? > 0 {}
                Ok::<(), std::io::Error>(())
            };
            tokio::select! {
                error = pictures => Err(error.into()),
                ended = words => Ok(ended?),
            }
        }
        Kind::Echo => {
            let small = picture(12, 1);
            let mut answer = Vec::new();
            loop {
                input.read(&mut stream).await?;
                while input.keys >= INPUT {
                    input.keys -= INPUT;
                    answer.extend_from_slice(&small);
                }
                if !answer.is_empty() {
                    stream.write_all(&answer).await?;
                    answer.clear();
                }
            }
        }
    }
}

/// Messages of a viewer, as they come.
#[derive(Default)]
struct Input {
    held: Vec<u8>,
    /// Whether a picture was asked for.
    asked: bool,
    /// Bytes of key and pointer events that were not answered yet.
    keys: usize,
}

impl Input {
    async fn read(&mut self, stream: &mut TcpStream) -> Result<()> {
        if stream.read_buf(&mut self.held).await? == 0 {
            bail!("the viewer left");
        }
        let mut at = 0;
        while let Some(length) = length(self.held.get(at..).unwrap_or_default())? {
            match self.held.get(at) {
                Some(3) => self.asked = true,
                Some(4 | 5) => self.keys += length,
                _ => {}
            }
            at += length;
        }
        self.held.drain(..at);
        Ok(())
    }
}

/// Bytes of the message at the front, if all of it is there.
fn length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    let length = match kind {
        0 => 20,
        2 => match bytes.get(2..4) {
            Some(count) => 4 + 4 * count.iter().fold(0, |n, b| n * 256 + usize::from(*b)),
            None => return Ok(None),
        },
        3 => 10,
        4 => 8,
        5 => 6,
        kind => bail!("a message of type {kind}, which this screen does not know"),
    };
    Ok((bytes.len() >= length).then_some(length))
}
