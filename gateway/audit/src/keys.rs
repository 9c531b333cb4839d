// SPDX-License-Identifier: Apache-2.0
//! The two keys of a log: one that seals commits, known to the node alone, and one whose public half lets anybody
//! check the checkpoints.

use crate::{error::Error, tree::Hash};
use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use portcullis_domain::{NodeId, Secret};
use uuid::Uuid;

/// The keys of a log. They differ from each other and from every key that seals data.
#[derive(Clone)]
pub struct TrailKeys {
    /// At least 32 bytes for HMAC-SHA-256: seals headers, commits and checkpoints.
    pub mac: Secret,
    /// Exactly 32 bytes: the Ed25519 seed (RFC 8032, section 5.1.5) that signs checkpoints.
    pub sign: Secret,
}

impl TrailKeys {
    /// The Ed25519 public key that belongs to `sign`: hand it to whoever verifies without the node's secrets.
    pub fn verifying_key(&self) -> Result<[u8; 32], Error> {
        Ring::new(self).map(|r| r.public)
    }
}

/// Which log a sealed piece belongs to: the node, and a number drawn when the log was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogId {
    pub(crate) node: NodeId,
    pub(crate) log: [u8; 16],
}

impl LogId {
    pub(crate) fn from_bytes(node: [u8; 16], log: [u8; 16]) -> Self {
        Self { node: NodeId::new(Uuid::from_bytes(node)), log }
    }

    /// The first line of its checkpoints.
    pub(crate) fn origin(&self) -> String {
        format!("portcullis-trail/{}/{}", self.node, hex::encode(self.log))
    }
}

/// Where a sealed piece stands. It is part of what is sealed, so that no piece can be moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) log: LogId,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// What kind of piece is sealed: none can pass for another.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Piece {
    Header,
    Commit,
    Checkpoint,
}

impl Piece {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Header => b"portcullis trail 1 header\0",
            Self::Commit => b"portcullis trail 1 commit\0",
            Self::Checkpoint => b"portcullis trail 1 checkpoint\0",
        }
    }
}

/// The keys made ready.
pub(crate) struct Ring {
    mac: hmac::Key,
    pair: Ed25519KeyPair,
    pub(crate) public: [u8; 32],
}

impl Ring {
    pub(crate) fn new(keys: &TrailKeys) -> Result<Self, Error> {
        if keys.mac.expose().len() < 32 {
            return Err(Error::Keys("sealing key is shorter than 32 bytes"));
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(keys.sign.expose())
            .map_err(|_| Error::Keys("signing key is not 32 bytes long"))?;
        let mut public = [0; 32];
        if pair.public_key().as_ref().len() != public.len() {
            return Err(Error::Keys("signing key has no public key of 32 bytes"));
        }
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(Self { mac: hmac::Key::new(hmac::HMAC_SHA256, keys.mac.expose()), pair, public })
    }

    fn context(&self, piece: Piece, spot: &Spot, body: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(piece.label());
        context.update(spot.log.node.uuid().as_bytes());
        context.update(&spot.log.log);
        context.update(&spot.segment.to_le_bytes());
        context.update(&spot.offset.to_le_bytes());
        context.update(body);
        context
    }

    pub(crate) fn seal(&self, piece: Piece, spot: &Spot, body: &[u8]) -> Hash {
        let mut mac = [0; 32];
        mac.copy_from_slice(self.context(piece, spot, body).sign().as_ref());
        mac
    }

    pub(crate) fn is_sealed(&self, piece: Piece, spot: &Spot, body: &[u8], mac: &[u8]) -> bool {
        let made = self.seal(piece, spot, body);
        aws_lc_rs::constant_time::verify_slices_are_equal(&made, mac).is_ok()
    }

    pub(crate) fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.pair.sign(text).as_ref().to_vec()
    }
}
