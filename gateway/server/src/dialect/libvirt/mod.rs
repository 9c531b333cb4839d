// SPDX-License-Identifier: Apache-2.0
//! How clients of libvirt's RPC are answered, on a port of a hypervisor's own: `virsh`, virt-manager and everything else
//! that opens `qemu+tls://…/system` speaks to it as to the daemon.
//!
//! ```text
//! TLS ─ one byte: welcome ─ AUTH_LIST: SASL ─ PLAIN: name and token ─ CONNECT_OPEN ─ calls, events, streams ─ end
//!                             └──────────── 30 s, 64 KiB ───────────┘   └── the daemon, with our credential ──┘
//! ```
//!
//! A token of ours is the password of SASL's mechanism PLAIN, which libvirt's clients use inside TLS. Client certificates
//! are not asked for: whoever has a token may come. Every call walks through the passage by itself; its answer, each
//! event and each piece of a stream is looked at on its way back. What must never happen here: a call passed on without
//! its permit, an event or a row about a machine that the person may not see, a message whose form is not known.

mod answer;
mod call;
mod error;
mod event;
mod session;
mod sign_in;
mod stream;

use crate::state::House;
use portcullis_domain::HypervisorName;
use portcullis_upstream::Frames;
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

/// How long somebody may take to sign in.
const SIGN_IN: Duration = Duration::from_secs(30);
/// The longest message of somebody who is not known, in bytes.
const MAX_STRANGE: usize = 64 * 1024;
/// The longest message of somebody who is, in bytes. Texts are at most 4 MiB long; nothing that is passed on holds more
/// than one of that size.
const MAX_CALL: usize = 8 * 1024 * 1024;

/// The program of nearly every call.
const REMOTE: u32 = 0x2000_8086;

/// Serves one connection, after its TLS handshake.
pub(crate) async fn serve<S>(house: Arc<House>, hypervisor: HypervisorName, stream: S, ip: IpAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (read, mut write) = tokio::io::split(stream);
    let mut frames = Frames::new(read, MAX_STRANGE, MAX_STRANGE);
    let known = async {
        // The daemon's word that it takes the client's certificate; clients wait for it.
        write.write_all(&[1]).await?;
        write.flush().await?;
        sign_in::sign_in(&house, &hypervisor, ip, &mut frames, &mut write).await
    };
    let known = tokio::select! {
        known = tokio::time::timeout(SIGN_IN, known) => known,
        () = house.closing.cancelled() => return,
    };
    match known {
        Ok(Ok(Some(token))) => {
            frames.allow(MAX_CALL, MAX_CALL);
            session::run(house, hypervisor, token, ip, frames, write).await;
        }
        Ok(Ok(None)) => {
            write.shutdown().await.ok();
        }
        Ok(Err(error)) => tracing::debug!(%error, %ip, "nobody signed in"),
        Err(_) => tracing::debug!(%ip, "signing in took too long"),
    }
}
