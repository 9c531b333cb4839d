// SPDX-License-Identifier: Apache-2.0
//! Checkpoints: signed notes in the manner of C2SP tlog-checkpoint, which anybody can check with the public key.
//!
//! Six lines: origin, size, root in base64, `at` and the time in microseconds, nothing, and
//! `— origin base64(key id ‖ signature)`. The signature covers the first four lines with their line ends.

use crate::{
    keys::{LogId, Ring},
    tree::{Hash, sha256},
};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};

/// A size of the log and the root of its tree at that size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many events there are.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// What a signed note says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: `portcullis-trail/<node>/<log>`.
    pub origin: String,
    /// Its size and root.
    pub head: Head,
    /// When it was signed, in microseconds since 1970-01-01 UTC, by the node's clock.
    pub at_us: i64,
}

/// Why a text is not a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCheckpoint {
    /// It has not the form of one.
    #[error("this is not a checkpoint of a trail")]
    Form,
    /// It is signed with another key, or altered.
    #[error("the checkpoint's signature does not hold")]
    Signature,
}

fn key_id(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend_from_slice(b"\n\x01");
    bytes.extend_from_slice(public);
    let [a, b, c, d, ..] = sha256(&bytes);
    [a, b, c, d]
}

/// Lines that one note takes in a file of notes: its six and an empty one.
pub(crate) const NOTE_LINES: usize = 7;

impl Checkpoint {
    pub(crate) fn sign(log: &LogId, head: Head, at_us: i64, ring: &Ring) -> String {
        let origin = log.origin();
        let body = format!("{origin}\n{}\n{}\nat {at_us}\n", head.size, STANDARD.encode(head.root));
        let mut signature = key_id(&origin, &ring.public).to_vec();
        signature.extend_from_slice(&ring.sign(body.as_bytes()));
        format!("{body}\n\u{2014} {origin} {}\n", STANDARD.encode(signature))
    }

    /// Reads a note and checks its signature with the Ed25519 public key of the log.
    pub fn read(text: &str, verifying_key: &[u8; 32]) -> Result<Self, BadCheckpoint> {
        let (form, bad) = (BadCheckpoint::Form, BadCheckpoint::Signature);
        let (body, signed) = text.split_once("\n\n").ok_or(form)?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), Some(at), None) =
            (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(form);
        };
        let size: u64 = size.parse().map_err(|_| form)?;
        let root: Hash = STANDARD.decode(root).ok().and_then(|r| r.try_into().ok()).ok_or(form)?;
        let at_us: i64 = at.strip_prefix("at ").and_then(|a| a.parse().ok()).ok_or(form)?;
        let (name, signature) = signed
            .strip_prefix("\u{2014} ")
            .and_then(|s| s.strip_suffix('\n'))
            .and_then(|s| s.split_once(' '))
            .ok_or(form)?;
        let signature = STANDARD.decode(signature).map_err(|_| form)?;
        let (id, signature) = signature.split_first_chunk::<4>().ok_or(form)?;
        let body = format!("{body}\n");
        let held = UnparsedPublicKey::new(&ED25519, verifying_key).verify(body.as_bytes(), signature);
        let known = Self { origin: origin.to_owned(), head: Head { size, root }, at_us };
        // written again it must be the same text: one checkpoint has one spelling
        let same = body == format!("{origin}\n{size}\n{}\nat {at_us}\n", STANDARD.encode(root));
        if name != origin || *id != key_id(origin, verifying_key) || held.is_err() || !same {
            return Err(bad);
        }
        Ok(known)
    }
}

/// One note of a file of notes.
pub(crate) struct Listed<'a> {
    /// Where it begins, in bytes.
    pub(crate) offset: u64,
    /// Its text, or what stands in its place.
    pub(crate) text: &'a str,
    /// Whether its closing empty line is there.
    pub(crate) whole: bool,
}

/// Takes a file of notes apart.
pub(crate) fn list(text: &str) -> Vec<Listed<'_>> {
    let (mut notes, mut start, mut at, mut lines) = (Vec::new(), 0, 0, 0);
    for line in text.split_inclusive('\n') {
        at += line.len();
        lines += 1;
        if lines == NOTE_LINES && line == "\n" {
            let text = text.get(start..at - 1).unwrap_or_default();
            notes.push(Listed { offset: start as u64, text, whole: true });
            (start, lines) = (at, 0);
        } else if lines >= NOTE_LINES {
            break;
        }
    }
    if start < text.len() {
        notes.push(Listed { offset: start as u64, text: text.get(start..).unwrap_or_default(), whole: false });
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::TrailKeys;
    use portcullis_domain::Secret;

    fn ring(seed: u8) -> Ring {
        Ring::new(&TrailKeys { mac: Secret::new(vec![seed; 32]), sign: Secret::new(vec![seed; 32]) }).unwrap()
    }

    fn note(ring: &Ring) -> String {
        let log = LogId::from_bytes([1; 16], [2; 16]);
        Checkpoint::sign(&log, Head { size: 70, root: [3; 32] }, 1_700_000_000_000_000, ring)
    }

    #[test]
    fn a_note_is_read_with_the_public_key_alone_and_no_altered_one_is() {
        let ring_a = ring(1);
        let text = note(&ring_a);
        let read = Checkpoint::read(&text, &ring_a.public).unwrap();
        assert_eq!((read.head.size, read.head.root, read.at_us), (70, [3; 32], 1_700_000_000_000_000));
        assert_eq!(Checkpoint::read(&text, &ring(2).public), Err(BadCheckpoint::Signature));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(other) = String::from_utf8(bytes) {
                assert!(Checkpoint::read(&other, &ring_a.public).is_err(), "byte {at} of {other:?}");
            }
        }
    }

    #[test]
    fn a_file_of_notes_is_taken_apart_and_its_torn_end_is_seen() {
        let text = note(&ring(1));
        let file = format!("{text}\n{text}\n{}", &text[..50]);
        let notes = list(&file);
        assert_eq!(notes.len(), 3);
        assert!(notes[0].whole && notes[1].whole && !notes[2].whole);
        assert_eq!((notes[1].text, notes[1].offset), (text.as_str(), text.len() as u64 + 1));
    }
}
