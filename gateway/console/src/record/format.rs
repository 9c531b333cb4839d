// SPDX-License-Identifier: Apache-2.0
//! The bytes of a recording file.
//!
//! ```text
//! header   64 bytes, in the clear: magic, version, recording id, start (Unix µs)
//! chunk*   u32 length of the sealed bytes · u64 number · u8 kind · 3 zero bytes · sealed bytes (ciphertext, 16-byte tag)
//! closing  a chunk of its own kind, the last one: totals and how the session ended
//! ```
//! Everything is in network order. A chunk is sealed with AES-256-GCM; the nonce is the chunk's number, which is safe
//! because each recording has a key of its own and a chunk is sealed once. The associated data are the recording's id,
//! the number, the kind and the SHA-256 of everything of the previous chunk (of the header for the first), so that no
//! chunk can be changed, left out, moved or brought in from elsewhere.
//!
//! Inside a data chunk: entries of `u8 kind · u64 µs since the start · u32 length · bytes`.

use crate::rfb::{WireNumber as _, wire_enum};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
};
use portcullis_domain::{RecordingId, Secret};

/// What every recording begins with.
pub(super) const MAGIC: [u8; 8] = *b"PCREC\r\n\x01";
/// Bytes of the file's header.
pub(super) const FILE_HEAD: usize = 64;
/// Bytes in front of a chunk's sealed bytes.
pub(super) const CHUNK_HEAD: usize = 16;
/// Bytes of the tag behind a chunk's ciphertext.
pub(super) const TAG: usize = 16;
/// Plain bytes that a chunk may have.
pub(super) const MAX_CHUNK: usize = 256 * 1024;
/// Bytes in front of an entry's own.
pub(super) const ENTRY_HEAD: usize = 13;
/// Plain bytes of the closing chunk without its text.
pub(super) const CLOSING_HEAD: usize = 32;
/// Bytes of the closing chunk's text.
pub(super) const MAX_CLOSING_TEXT: usize = 512;

wire_enum! {
    /// What a chunk holds.
    pub(super) enum ChunkKind: u8 {
        /// Entries.
        Data = 1,
        /// Totals; nothing follows.
        Closing = 2,
    }
}

wire_enum! {
    /// What an entry of a recording holds.
    pub enum EntryKind: u8 {
        /// The ServerInit message that the browser got: size, pixel format, name.
        Init = 1,
        /// The beginning of one server message, or a read's worth of small ones; the viewer got exactly these bytes.
        Down = 2,
        /// Continues the server message before it.
        DownMore = 3,
        /// One message to the hypervisor, or its beginning, as it was sent.
        Up = 4,
        /// Continues the message to the hypervisor before it.
        UpMore = 5,
        /// A key event or clipboard text whose content is replaced by zeros of the same length.
        UpRedacted = 6,
    }
}

/// SHA-256.
pub(super) type Hash = [u8; 32];

/// The SHA-256 of some bytes.
pub(super) fn hash(bytes: &[u8]) -> Hash {
    let mut out = [0; 32];
    for (slot, byte) in out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *slot = *byte;
    }
    out
}

/// The file's header.
pub(super) fn file_head(id: RecordingId, started_at_micros: i64) -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    let fields = MAGIC.into_iter().chain(id.uuid().into_bytes()).chain(started_at_micros.to_be_bytes());
    for (slot, byte) in head.iter_mut().zip(fields) {
        *slot = byte;
    }
    head
}

/// A key that seals the chunks of one recording, or opens them.
pub(super) struct ChunkKey {
    key: LessSafeKey,
    id: RecordingId,
}

impl ChunkKey {
    /// Takes a key of exactly 32 bytes.
    pub(super) fn new(id: RecordingId, key: &Secret) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).ok()?;
        Some(Self { key: LessSafeKey::new(key), id })
    }

    fn bound(&self, number: u64, kind: ChunkKind, previous: &Hash) -> (Nonce, Aad<[u8; 57]>) {
        let mut nonce = [0; NONCE_LEN];
        for (slot, byte) in nonce.iter_mut().skip(NONCE_LEN - 8).zip(number.to_be_bytes()) {
            *slot = byte;
        }
        let mut aad = [0; 57];
        let fields = self.id.uuid().into_bytes().into_iter().chain(number.to_be_bytes());
        for (slot, byte) in aad.iter_mut().zip(fields.chain([kind.number()]).chain(*previous)) {
            *slot = byte;
        }
        (Nonce::assume_unique_for_key(nonce), Aad::from(aad))
    }

    /// Seals a chunk in place: `chunk` is [`CHUNK_HEAD`] bytes to be filled, then the plain bytes.
    /// Gives the chunk's hash.
    pub(super) fn seal(&self, chunk: &mut Vec<u8>, number: u64, kind: ChunkKind, previous: &Hash) -> Option<Hash> {
        let plain = chunk.get_mut(CHUNK_HEAD..)?;
        let length = u32::try_from(plain.len() + TAG).ok()?;
        let (nonce, aad) = self.bound(number, kind, previous);
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, plain).ok()?;
        chunk.extend_from_slice(tag.as_ref());
        let head = length.to_be_bytes().into_iter().chain(number.to_be_bytes()).chain([kind.number(), 0, 0, 0]);
        for (slot, byte) in chunk.iter_mut().zip(head) {
            *slot = byte;
        }
        Some(hash(chunk))
    }

    /// Opens a chunk's sealed bytes in place; nothing if anything about it is not as it was sealed.
    pub(super) fn open<'a>(
        &self,
        sealed: &'a mut [u8],
        number: u64,
        kind: ChunkKind,
        previous: &Hash,
    ) -> Option<&'a [u8]> {
        let (nonce, aad) = self.bound(number, kind, previous);
        self.key.open_in_place(nonce, aad, sealed).ok().map(|plain| &*plain)
    }
}

/// The plain bytes of the closing chunk: data chunks, entries, entry bytes, µs from start to end, then the ending.
pub(super) fn closing(totals: [u64; 4], ending: &str) -> Vec<u8> {
    let mut plain = Vec::with_capacity(CHUNK_HEAD + CLOSING_HEAD + ending.len() + TAG);
    plain.resize(CHUNK_HEAD, 0);
    for total in totals {
        plain.extend_from_slice(&total.to_be_bytes());
    }
    plain.extend_from_slice(cut_at_char(ending, MAX_CLOSING_TEXT).as_bytes());
    plain
}

/// The longest beginning of a text that has at most `limit` bytes.
pub(crate) fn cut_at_char(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_read_what_they_write() {
        for kind in EntryKind::ALL {
            assert_eq!(EntryKind::from_number(kind.number()), Some(*kind));
        }
        for kind in ChunkKind::ALL {
            assert_eq!(ChunkKind::from_number(kind.number()), Some(*kind));
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut_at_char("añb", 2), "a");
        assert_eq!(cut_at_char("añb", 3), "añ");
        assert_eq!(cut_at_char("añb", 99), "añb");
    }
}
