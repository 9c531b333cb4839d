// SPDX-License-Identifier: Apache-2.0
//! Requests that `wrk` cannot make: one long upload, and many connections on which nothing happens any more.

use crate::wire::{self, Stream};
use anyhow::{Result, bail, ensure};
use clap::Args;
use std::{path::PathBuf, time::Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes of one write of an upload.
const PART: usize = 256 * 1024;

/// Where requests go.
#[derive(Args)]
struct Door {
    /// host:port
    #[arg(long)]
    target: String,
    /// Speak TLS, and trust this CA
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The token of each request
    #[arg(long)]
    token: Option<String>,
    /// The path of each request
    #[arg(long)]
    path: String,
}

impl Door {
    async fn connect(&self) -> Result<Box<dyn Stream>> {
        let tls = self.ca.as_deref().map(wire::trust).transpose()?;
        wire::connect(&self.target, tls.as_ref()).await
    }

    fn head(&self, method: &str, more: &str) -> String {
        let token = self.token.as_ref().map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
        format!("{method} {} HTTP/1.1\r\nHost: localhost\r\n{token}{more}\r\n", self.path)
    }
}

/// Reads one answer to its end.
async fn answer(stream: &mut dyn Stream) -> Result<()> {
    let mut held = Vec::new();
    loop {
        if let Some(at) = held.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(held.get(..at).unwrap_or_default()).to_ascii_lowercase();
            ensure!(head.starts_with("http/1.1 200"), "{head}");
            let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
            let length: usize = length.map_or(Ok(0), |l| l.trim().parse())?;
            if held.len() >= at + 4 + length {
                return Ok(());
            }
        }
        if stream.read_buf(&mut held).await? == 0 {
            bail!("closed before the answer was whole: {}", String::from_utf8_lossy(&held));
        }
    }
}

#[derive(Args)]
pub(crate) struct Upload {
    #[command(flatten)]
    door: Door,
    /// How many bytes
    #[arg(long)]
    bytes: u64,
}

impl Upload {
    pub(crate) async fn run(self) -> Result<()> {
        let mut stream = self.door.connect().await?;
        let more = format!("Content-Type: application/octet-stream\r\nContent-Length: {}\r\n", self.bytes);
        let begun = Instant::now();
        stream.write_all(self.door.head("POST", &more).as_bytes()).await?;
        let part = vec![b'x'; PART];
        let mut left = self.bytes;
        while left > 0 {
            let now = PART.min(usize::try_from(left)?);
            stream.write_all(part.get(..now).unwrap_or_default()).await?;
            left -= now as u64;
        }
        stream.flush().await?;
        answer(&mut *stream).await?;
        println!("{}", serde_json::json!({ "bytes": self.bytes, "seconds": begun.elapsed().as_secs_f64() }));
        Ok(())
    }
}

#[derive(Args)]
pub(crate) struct Connections {
    #[command(flatten)]
    door: Door,
    /// How many
    #[arg(long)]
    count: usize,
}

impl Connections {
    /// Opens them, asks once on each, says so, and keeps them until this process is ended.
    pub(crate) async fn run(self) -> Result<()> {
        let mut open = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let mut stream = self.door.connect().await?;
            stream.write_all(self.door.head("GET", "").as_bytes()).await?;
            answer(&mut *stream).await?;
            open.push(stream);
        }
        println!("open {}", open.len());
        std::future::pending::<()>().await;
        Ok(())
    }
}
