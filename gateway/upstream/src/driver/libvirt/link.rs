// SPDX-License-Identifier: Apache-2.0
//! One connection to a daemon for one client of ours: opened with the gateway's credential, then message by message.

use super::{
    frame::{Frame, Frames, PING},
    rpc::Rpc,
};
use crate::{
    driver::MAX_ANSWER,
    error::{Error, Fault},
    wire::Wire,
};
use portcullis_domain::HypervisorName;
use portcullis_policy::Permit;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};

/// Bytes of messages from the daemon that may be held at a time.
const BUDGET: usize = 64 * 1024 * 1024;
/// How long the daemon may take to read one message.
const SLOW: Duration = Duration::from_secs(30);

/// What the daemon sends.
pub struct LinkReader(Frames<ReadHalf<Wire>>);

/// What it is sent.
pub struct LinkWriter {
    wire: WriteHalf<Wire>,
    hypervisor: HypervisorName,
    serial: u32,
}

/// Takes over a connection that is open and authenticated.
pub(super) fn link(rpc: Rpc, hypervisor: HypervisorName) -> (LinkReader, LinkWriter) {
    let (wire, input, serial) = rpc.into_parts();
    let (read, write) = tokio::io::split(wire);
    (LinkReader(Frames::begun(read, input, MAX_ANSWER, BUDGET)), LinkWriter { wire: write, hypervisor, serial })
}

impl LinkReader {
    /// The next message. May be dropped at any time.
    pub async fn next(&mut self) -> Result<Frame, Fault> {
        match self.0.next().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(Fault::hung_up("closed the connection")),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Err(Fault::Protocol(e.to_string())),
            Err(e) => Err(Fault::unreachable("the connection broke", e)),
        }
    }
}

impl LinkWriter {
    /// A number that no other call has.
    pub fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// Sends a call that is permitted. The permit must be for this hypervisor and must not have run out.
    pub async fn call(&mut self, permit: &Permit, now: OffsetDateTime, frame: &Frame) -> Result<(), Error> {
        if permit.operation().resource.hypervisor() != Some(&self.hypervisor) {
            return Err(Error::WrongPermit(permit.operation().to_string()));
        }
        if now >= permit.expires_at() {
            return Err(Error::PermitExpired);
        }
        self.put(frame).await.map_err(|f| f.at(&self.hypervisor))
    }

    /// Sends more of a stream that a permitted call opened.
    pub async fn stream(&mut self, frame: &Frame) -> Result<(), Fault> {
        self.put(frame).await
    }

    /// Answers a sign of life, or asks for one.
    pub async fn keep_alive(&mut self, answer: Option<Frame>) -> Result<(), Fault> {
        self.put(&answer.unwrap_or_else(|| Frame::keepalive(PING))).await
    }

    /// One message at a time: the daemon does not look into a TLS record that it has already read before its socket
    /// has more.
    async fn put(&mut self, frame: &Frame) -> Result<(), Fault> {
        let bytes = frame.bytes().ok_or_else(|| Fault::Protocol("a call too large to send".to_owned()))?;
        let write = async {
            self.wire.write_all(&bytes).await?;
            self.wire.flush().await
        };
        match tokio::time::timeout(SLOW, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(Fault::unreachable("the connection broke", e)),
            Err(_) => Err(Fault::TooSlow("to read a call")),
        }
    }
}
