// SPDX-License-Identifier: Apache-2.0
//! Viewers of screens: one that takes a long stream, many that type, many that do nothing.

use crate::wire::{self, Opening, Wire};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

#[derive(Args)]
pub(crate) struct Viewer {
    /// host:port
    #[arg(long, global = true, default_value = "")]
    target: String,
    /// The WebSocket's path; left out, the stream is bare TCP
    #[arg(long, global = true)]
    path: Option<String>,
    /// The Host of the WebSocket's handshake
    #[arg(long, global = true, default_value = "localhost")]
    host: String,
    /// The cookies of the handshake
    #[arg(long, global = true)]
    cookie: Option<String>,
    /// A file with console tickets, one a line; each viewer takes one
    #[arg(long, global = true)]
    tickets: Option<PathBuf>,
    /// Speak TLS, and trust this CA
    #[arg(long, global = true)]
    ca: Option<PathBuf>,
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand, Clone, Copy)]
enum Load {
    /// Take so many bytes of pictures
    Bulk {
        #[arg(long)]
        bytes: usize,
    },
    /// Type, wait for the picture, type again
    Type {
        #[arg(long)]
        viewers: usize,
        #[arg(long)]
        seconds: f64,
    },
    /// Open, say so, and stay until this process is ended
    Idle {
        #[arg(long)]
        viewers: usize,
    },
}

/// How each viewer connects.
struct Door {
    target: String,
    path: Option<String>,
    host: String,
    cookie: Option<String>,
    tls: Option<TlsConnector>,
}

impl Door {
    /// A viewer behind the RFB handshake, asking for nothing yet.
    async fn open(&self, ticket: Option<&str>, read: usize) -> Result<Wire> {
        let stream = wire::connect(&self.target, self.tls.as_ref()).await?;
        let protocols = ticket.map_or_else(|| "binary".to_owned(), |t| format!("binary, portcullis.ticket.{t}"));
        let (host, cookie) = (self.host.as_str(), self.cookie.as_deref());
        let opening = self.path.as_deref().map(|path| Opening { path, host, cookie, protocols: &protocols });
        let mut wire = Wire::open(stream, opening, read).await?;
        wire.read(12).await?;
        wire.send(b"RFB 003.008\n").await?;
        wire.read(2).await?;
        wire.send(&[1]).await?;
        wire.read(4).await?;
        wire.send(&[1]).await?;
        let init = wire.read(24).await?;
        let name = init.iter().skip(20).fold(0, |n, b| n << 8 | usize::from(*b));
        wire.read(name).await?;
        wire.send(&[2, 0, 0, 1, 0, 0, 0, 0]).await?;
        Ok(wire)
    }
}

impl Viewer {
    pub(crate) async fn run(self) -> Result<()> {
        let Self { target, path, host, cookie, tickets, ca, load } = self;
        let tickets = match tickets {
            Some(file) => std::fs::read_to_string(&file).with_context(|| file.display().to_string())?,
            None => String::new(),
        };
        let tickets: Vec<String> = tickets.lines().map(str::to_owned).collect();
        let tls = ca.map(|ca| wire::trust(&ca)).transpose()?;
        let door = Arc::new(Door { target, path, host, cookie, tls });
        let ticket = |n: usize| tickets.get(n).cloned();
        match load {
            Load::Bulk { bytes } => bulk(&door, ticket(0), bytes).await,
            Load::Type { viewers, seconds } => {
                let mut all = Vec::new();
                for n in 0..viewers {
                    all.push(door.open(ticket(n).as_deref(), 4096).await?);
                }
                typing(all, Duration::from_secs_f64(seconds)).await
            }
            Load::Idle { viewers } => {
                let mut all: JoinSet<Result<()>> = JoinSet::new();
                for n in 0..viewers {
                    let mut wire = door.open(ticket(n).as_deref(), 1024).await?;
                    all.spawn(async move {
                        loop {
                            wire.drain().await?;
                        }
                    });
                }
                println!("open {viewers}");
                // Until this process is ended, or a console is.
                while let Some(ended) = all.join_next().await {
                    ended??;
                }
                Ok(())
            }
        }
    }
}

async fn bulk(door: &Door, ticket: Option<String>, bytes: usize) -> Result<()> {
    let mut wire = door.open(ticket.as_deref(), usize::MAX).await?;
    wire.send(&[3, 0, 0, 0, 0, 0, 4, 0, 3, 0]).await?;
    let begun = Instant::now();
    let mut taken = 0;
    while taken < bytes {
        taken += wire.drain().await?;
    }
    println!("{}", serde_json::json!({ "bytes": taken, "seconds": begun.elapsed().as_secs_f64() }));
    Ok(())
}

async fn typing(all: Vec<Wire>, time: Duration) -> Result<()> {
    let mut tasks: JoinSet<Result<Vec<Duration>>> = JoinSet::new();
    let begun = Instant::now();
    for mut wire in all {
        tasks.spawn(async move {
            // Four keys down and up: 64 bytes.
            let keys: Vec<u8> = (0..8_u8).flat_map(|n| [4, n & 1, 0, 0, 0, 0, 0, b'a' + n / 2]).collect();
            let packed = wire.pack(&keys)?;
            let mut waits = Vec::new();
            while begun.elapsed() < time {
                let sent = Instant::now();
                wire.send_packed(&packed).await?;
                let mut left = 64_usize;
                while left > 0 {
                    left = left.saturating_sub(wire.drain().await?);
                }
                waits.push(sent.elapsed());
            }
            Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        waits.extend(ended??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |percent: usize| waits.get(waits.len() * percent / 100).map_or(0.0, |w| w.as_secs_f64() * 1e6);
    println!(
        "{}",
        serde_json::json!({ "messages": waits.len(), "seconds": seconds, "p50_us": at(50), "p99_us": at(99) })
    );
    Ok(())
}
