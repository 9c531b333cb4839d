// SPDX-License-Identifier: Apache-2.0
//! Sealing: AES-256-GCM bound to table, row, column and key version, under keys from one file.
//!
//! A sealed value is `version (4 bytes, big endian) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`. The place goes into the
//! associated data with the length of each part in front, so that no two places have the same encoding.

use crate::Error;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use portcullis_domain::Secret;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;
const VERSION_LEN: usize = 4;
/// A key line is 48 bytes: a file beyond this is something else.
const LONGEST_FILE: u64 = 64 * 1024;

/// Where a sealed value is stored. It opens only there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's key.
    pub row: &'a str,
    /// The column.
    pub column: &'a str,
}

impl Place<'_> {
    fn encode(&self, version: u32) -> Vec<u8> {
        let mut bytes = Vec::from(*b"portcullis seal 1");
        for part in [self.table, self.row, self.column] {
            // Lengths in 64 bits: no text is longer.
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes.extend(version.to_be_bytes());
        bytes
    }
}

/// The keys of this installation, by version. They seal under the newest and open under any.
pub struct Keys {
    /// Version 1: what is derived is derived from it.
    first: Secret,
    keys: BTreeMap<u32, Secret>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

struct Len;

impl KeyType for Len {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

impl Keys {
    /// Makes a key file with one new key, mode 0400; refuses to overwrite.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let fail = |why: String| Error::KeyFile { path: path.to_owned(), why };
        let keys = Self::random().ok_or_else(|| fail("the system gave no random bytes".to_owned()))?;
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(path).map_err(|e| {
                if e.kind() == std::io::ErrorKind::AlreadyExists {
                    fail(
                        "it exists already, and a key that is overwritten is lost: use it, or name another file".into(),
                    )
                } else {
                    fail(format!("it cannot be made: {e}"))
                }
            })?;
        let mut text = Zeroizing::new(String::new());
        for (version, key) in &keys.keys {
            text.push('v');
            text.push_str(&version.to_string());
            text.push(':');
            STANDARD.encode_string(key.expose(), &mut text);
            text.push('\n');
        }
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let written = written.and_then(|()| path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all()));
        written.map_err(|e| fail(format!("it cannot be written: {e}")))?;
        Ok(keys)
    }

    /// Reads a key file, and refuses one that is missing, open to others, of another owner, short or weak.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let fail = |why: String| Error::KeyFile { path: path.to_owned(), why };
        let mut file = std::fs::File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => fail("it does not exist: make it with `portcullis init`".to_owned()),
            _ => fail(format!("it cannot be opened: {e}")),
        })?;
        // The open file, not the path: what is checked is what is read.
        let meta = file.metadata().map_err(|e| fail(format!("it cannot be examined: {e}")))?;
        if !meta.is_file() {
            return Err(fail("it is not a regular file".to_owned()));
        }
        if meta.mode() & 0o077 != 0 {
            let mode = meta.mode() & 0o777;
            return Err(fail(format!("others can use it (mode {mode:04o}): `chmod 0400` it")));
        }
        let me = rustix::process::geteuid().as_raw();
        if meta.uid() != me && meta.uid() != 0 {
            return Err(fail(format!("it belongs to user {}, not to user {me} who runs the gateway", meta.uid())));
        }
        if meta.len() > LONGEST_FILE {
            return Err(fail("it is too long to be a key file".to_owned()));
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(|e| fail(format!("it cannot be read: {e}")))?;
        Self::parse(&text).map_err(fail)
    }

    /// Keys of this process only, for tests: nothing sealed under them can be opened later.
    ///
    /// # Panics
    /// When the system gives no random bytes.
    #[expect(clippy::expect_used, reason = "a machine without randomness runs no tests")]
    pub fn for_tests() -> Self {
        Self::random().expect("random bytes")
    }

    /// A new key of 256 bits for one thing only, such as a recording; keep it sealed.
    pub fn fresh() -> Result<Secret, Error> {
        let mut key = Zeroizing::new(vec![0; KEY_LEN]);
        SystemRandom::new().fill(&mut key).map_err(|_| Error::Randomness)?;
        Ok(Secret::new(key.to_vec()))
    }

    fn random() -> Option<Self> {
        let first = Self::fresh().ok()?;
        Some(Self { keys: BTreeMap::from([(1, first.clone())]), first })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = BTreeMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let at = number + 1;
            let wrong = || format!("line {at} is not `v<number>:<base64 of 32 bytes>`");
            let (version, key) = line.trim().split_once(':').ok_or_else(wrong)?;
            let digits = version.strip_prefix('v').filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
            let version: u32 = digits.and_then(|d| d.parse().ok()).filter(|v| *v > 0).ok_or_else(wrong)?;
            let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| wrong())?);
            if key.len() != KEY_LEN {
                return Err(format!("the key on line {at} is {} bytes, it must be {KEY_LEN}", key.len()));
            }
            if key.windows(2).all(|pair| pair.first() == pair.last()) {
                return Err(format!("the bytes of the key on line {at} are all equal: that is no random key"));
            }
            if keys.insert(version, Secret::new(key.to_vec())).is_some() {
                return Err(format!("key v{version} stands there twice"));
            }
        }
        if keys.is_empty() {
            return Err("it is empty: make another with `portcullis init`".to_owned());
        }
        let first = keys.get(&1).cloned();
        let first = first.ok_or("key v1 is missing: what is derived from it cannot be made anew")?;
        Ok(Self { first, keys })
    }

    /// The version that new values are sealed under.
    pub fn newest(&self) -> u32 {
        self.keys.keys().next_back().copied().unwrap_or(0)
    }

    /// Seals a secret to the place where it will be stored.
    pub fn seal(&self, place: &Place<'_>, secret: &Secret) -> Result<Vec<u8>, Error> {
        let (version, key) = self.keys.iter().next_back().ok_or(Error::Sealed)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.expose()).map_err(|_| Error::Sealed)?;
        let mut body = secret.expose().to_vec();
        let nonce =
            key.seal_in_place_append_tag(Aad::from(place.encode(*version)), &mut body).map_err(|_| Error::Sealed)?;
        let mut sealed = Vec::with_capacity(VERSION_LEN + NONCE_LEN + body.len());
        sealed.extend(version.to_be_bytes());
        sealed.extend(nonce.as_ref());
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens what was sealed to this place. [`Error::Sealed`] for anything else, without saying why.
    pub fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Secret, Error> {
        let (version, rest) = sealed.split_first_chunk::<VERSION_LEN>().ok_or(Error::Sealed)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Error::Sealed)?;
        let version = u32::from_be_bytes(*version);
        let key = self.keys.get(&version).ok_or(Error::Sealed)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.expose()).map_err(|_| Error::Sealed)?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain = key
            .open_in_place(Nonce::from(nonce), Aad::from(place.encode(version)), &mut body)
            .map_err(|_| Error::Sealed)?;
        Ok(Secret::new(plain.to_vec()))
    }

    /// 32 bytes for one use that must stay the same over rotations: HKDF-SHA256 (RFC 5869) of key v1 under a label.
    ///
    /// # Panics
    /// Never: HKDF-SHA256 gives up to 8,160 bytes, and it is asked for 32 into 32.
    #[expect(clippy::expect_used, reason = "HKDF fails only for more than 255 blocks or a buffer of another length")]
    pub fn derive(&self, label: &str) -> Secret {
        let prk: Prk = Salt::new(HKDF_SHA256, b"portcullis derive 1").extract(self.first.expose());
        let mut bytes = Zeroizing::new(vec![0; KEY_LEN]);
        prk.expand(&[label.as_bytes()], Len).and_then(|okm| okm.fill(&mut bytes)).expect("32 bytes of HKDF-SHA256");
        Secret::new(bytes.to_vec())
    }
}

#[cfg(test)]
mod tests;
