// SPDX-License-Identifier: Apache-2.0
//! The least that a relay can be: two sockets and a buffer for each direction.

use anyhow::Result;
use clap::Args;
use std::net::SocketAddr;
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

#[derive(Args)]
pub(crate) struct Relay {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Where each connection goes
    #[arg(long)]
    target: SocketAddr,
    /// Bytes of each direction's buffer
    #[arg(long, default_value_t = 64 * 1024)]
    buffer: usize,
}

impl Relay {
    pub(crate) async fn run(self) -> Result<()> {
        let listener = TcpListener::bind(self.listen).await?;
        let mut connections: JoinSet<Result<()>> = JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await?;
            let Self { target, buffer, .. } = self;
            connections.spawn(async move {
                let mut far = TcpStream::connect(target).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                copy_bidirectional_with_sizes(&mut near, &mut far, buffer, buffer).await?;
                Ok(())
            });
            while connections.try_join_next().is_some() {}
        }
    }
}
