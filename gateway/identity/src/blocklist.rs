// SPDX-License-Identifier: Apache-2.0
//! Passwords that were stolen elsewhere, found on the disk without reading the list: the published lists have a
//! thousand million entries.
//!
//! Two forms are read, both sorted: SHA-1 digests of 20 bytes one after the other, and the published text of lines
//! `HEX:COUNT`. SHA-1 is what the lists are published in; nothing is protected by it here. No password, and no part of a
//! digest, leaves the machine.

use crate::Error;
use aws_lc_rs::digest;
use portcullis_domain::Secret;
use std::{
    cmp::Ordering,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read as _, Write},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// Bytes of a SHA-1 digest, and letters of it as text.
const DIGEST: usize = 20;
const HEX: usize = 40;
/// The longest line: a digest, a colon, a count.
const LINE: usize = 80;
/// Lists up to this size are read through at the start; of longer ones places are looked at.
const READ_THROUGH: u64 = 64 << 20;
/// How many places.
const PLACES: u64 = 20_000;

type Sha1 = [u8; DIGEST];

/// How the entries stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Digests,
    Lines,
}

/// A list that is open.
#[derive(Debug)]
pub struct Blocklist {
    file: File,
    form: Form,
    /// Its length in bytes when it was opened.
    length: u64,
}

fn sha1(text: &[u8]) -> Sha1 {
    let mut hash = Sha1::default();
    hash.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text).as_ref());
    hash
}

/// The digest that a line begins with.
fn of_line(line: &[u8]) -> Option<Sha1> {
    let (head, rest) = line.split_at_checked(HEX)?;
    let ends = rest.is_empty() || rest.starts_with(b":") && rest.get(1..)?.iter().all(u8::is_ascii_digit);
    let mut hash = Sha1::default();
    (ends && hex::decode_to_slice(head, &mut hash).is_ok()).then_some(hash)
}

/// A line without its end.
fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

impl Blocklist {
    /// Opens a list and looks whether it is one: readable, of one of the two forms, and sorted.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::Settings(format!("passwords.blocklist: {}: {why}", path.display()));
        let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
        let length = file.metadata().map_err(|e| wrong(e.to_string()))?.len();
        let mut head = Vec::new();
        (&file).take(LINE as u64).read_to_end(&mut head).map_err(|e| wrong(e.to_string()))?;
        let first = head.split_inclusive(|b| *b == b'\n').next().unwrap_or_default();
        let form = if of_line(trimmed(first)).is_some() { Form::Lines } else { Form::Digests };
        if length == 0 || form == Form::Digests && length % DIGEST as u64 != 0 {
            let forms = "SHA-1 digests of 20 bytes, or of lines HEX:COUNT";
            return Err(wrong(format!("this is no list of {forms}; make one with: portcullis user blocklist")));
        }
        let list = Self { file, form, length };
        match list.check() {
            Ok(true) => Ok(list),
            Ok(false) => Err(wrong("the list is not sorted; make one with: portcullis user blocklist".to_owned())),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Whether a password is on it. A list that cannot be read any more holds every password: denied when in doubt.
    pub(crate) fn holds(&self, password: &Secret) -> Result<bool, Error> {
        self.find(&sha1(password.expose())).map_err(|error| {
            let why = if error.kind() == io::ErrorKind::InvalidData { "is damaged" } else { "cannot be read" };
            Error::Settings(format!("passwords.blocklist {why}: {error}"))
        })
    }

    fn find(&self, wanted: &Sha1) -> io::Result<bool> {
        // What is looked for begins in low..high, in bytes; entries are cut nowhere.
        let (mut low, mut high) = (0, self.length);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some((start, end, hash)) = self.entry_at(middle, low)? else { return Ok(false) };
            match hash.cmp(wanted) {
                Ordering::Equal => return Ok(true),
                Ordering::Less => low = end,
                Ordering::Greater => high = start,
            }
        }
        Ok(false)
    }

    /// The entry that a place in the file belongs to, with where it begins and ends; none beyond the last one. No entry
    /// begins before `from`.
    fn entry_at(&self, place: u64, from: u64) -> io::Result<Option<(u64, u64, Sha1)>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("no digest at byte {place}"));
        if self.form == Form::Digests {
            let start = place - place % DIGEST as u64;
            let mut hash = Sha1::default();
            self.file.read_exact_at(&mut hash, start)?;
            return Ok(Some((start, start + DIGEST as u64, hash)));
        }
        // One line may begin up to its own length before the place, and ends as far behind it.
        let begin = place.saturating_sub(LINE as u64).max(from);
        let mut bytes = [0; 2 * LINE];
        let read = self.read_up_to(&mut bytes, begin)?;
        let bytes = bytes.get(..read).unwrap_or_default();
        let at = usize::try_from(place - begin).map_err(|_| damaged())?;
        let before = bytes.get(..at).unwrap_or_default();
        let start = match before.iter().rposition(|b| *b == b'\n') {
            Some(newline) => newline + 1,
            None if begin == from => 0,
            None => return Err(damaged()),
        };
        let rest = bytes.get(start..).unwrap_or_default();
        let line = rest.split_inclusive(|b| *b == b'\n').next().unwrap_or_default();
        let whole = line.ends_with(b"\n") || begin + (start + line.len()) as u64 == self.length;
        if trimmed(line).is_empty() && whole {
            return Ok(None);
        }
        let hash = of_line(trimmed(line)).filter(|_| whole).ok_or_else(damaged)?;
        let start = begin + start as u64;
        Ok(Some((start, start + line.len() as u64, hash)))
    }

    fn read_up_to(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|r| !r.is_empty()) {
            match self.file.read_at(rest, at + read as u64)? {
                0 => break,
                n => read += n,
            }
        }
        Ok(read)
    }

    /// Whether each entry is greater than the one before: all of them, or those at many places.
    fn check(&self) -> io::Result<bool> {
        let step = if self.length <= READ_THROUGH { 1 } else { self.length / PLACES };
        let (mut place, mut last) = (0, None);
        if step == 1 {
            return self.check_all();
        }
        while place < self.length {
            let Some((_, end, hash)) = self.entry_at(place, 0)? else { break };
            if last.is_some_and(|last| last >= hash) {
                return Ok(false);
            }
            last = Some(hash);
            place = (place + step).max(end);
        }
        Ok(true)
    }

    fn check_all(&self) -> io::Result<bool> {
        let mut reader = BufReader::with_capacity(1 << 20, self.file.try_clone()?);
        io::Seek::rewind(&mut reader)?;
        let mut last: Option<Sha1> = None;
        let mut line = Vec::with_capacity(LINE);
        let mut place = 0_u64;
        loop {
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("no digest at byte {place}"));
            let hash = match self.form {
                Form::Digests if place == self.length => return Ok(true),
                Form::Digests => {
                    let mut hash = Sha1::default();
                    reader.read_exact(&mut hash)?;
                    place += DIGEST as u64;
                    hash
                }
                Form::Lines => {
                    line.clear();
                    let read = (&mut reader).take(LINE as u64).read_until(b'\n', &mut line)?;
                    if trimmed(&line).is_empty() {
                        return Ok(true);
                    }
                    let hash = of_line(trimmed(&line)).ok_or_else(damaged)?;
                    place += read as u64;
                    hash
                }
            };
            if last.is_some_and(|last| last >= hash) {
                return Ok(false);
            }
            last = Some(hash);
        }
    }
}

/// Makes a list of digests from lines of text: each line a password, or the digest of one as the published lists have
/// them. Gives how many different ones there are. All of them are held in memory, 20 bytes each.
pub fn sort_blocklist(from: impl BufRead, mut to: impl Write) -> io::Result<usize> {
    let mut all: Vec<Sha1> = Vec::new();
    for line in from.split(b'\n') {
        let line = line?;
        let line = trimmed(&line);
        if !line.is_empty() {
            all.push(of_line(line).unwrap_or_else(|| sha1(line)));
        }
    }
    all.sort_unstable();
    all.dedup();
    let mut out = BufWriter::new(&mut to);
    for hash in &all {
        out.write_all(hash)?;
    }
    out.flush()?;
    drop(out);
    Ok(all.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    /// A list of `stolen 0`, `stolen 1` … in both forms; the counts have different lengths.
    fn both(count: usize, end: &str) -> [Vec<u8>; 2] {
        let words: String = (0..count).fold(String::new(), |mut all, n| {
            writeln!(all, "stolen {n}").unwrap();
            all
        });
        let mut digests = Vec::new();
        assert_eq!(sort_blocklist(words.as_bytes(), &mut digests).unwrap(), count);
        let lines: Vec<String> = digests
            .chunks(DIGEST)
            .enumerate()
            .map(|(n, d)| format!("{}:{}", hex::encode_upper(d), "9".repeat(1 + n % 9)))
            .collect();
        [digests, lines.join(end).into_bytes()]
    }

    // SEC-134
    #[test]
    fn every_password_of_a_list_is_found_in_both_forms_and_no_other() {
        for count in [1, 2, 3, 100, 1_000] {
            for end in ["\n", "\r\n"] {
                let [digests, lines] = both(count, end);
                let ended = [&lines[..], end.as_bytes()].concat();
                for bytes in [digests, lines, ended] {
                    let file = written(&bytes);
                    let list = Blocklist::open(file.path()).unwrap();
                    for n in 0..count {
                        assert!(list.holds(&secret(&format!("stolen {n}"))).unwrap(), "{n} of {count}");
                        assert!(!list.holds(&secret(&format!("own {n}"))).unwrap(), "{n} of {count}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_list_of_digests_is_taken_as_it_is_and_words_are_hashed() {
        // The digest of "password", as published.
        let published =
            "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:9659365\r\nletmein\n\n5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8\n";
        let mut digests = Vec::new();
        assert_eq!(sort_blocklist(published.as_bytes(), &mut digests).unwrap(), 2);
        let file = written(&digests);
        let list = Blocklist::open(file.path()).unwrap();
        assert!(list.holds(&secret("password")).unwrap() && list.holds(&secret("letmein")).unwrap());
    }

    #[test]
    fn what_is_no_list_or_not_sorted_is_one_clear_line() {
        let [mut digests, lines] = both(50, "\n");
        let swapped: Vec<&str> = std::str::from_utf8(&lines).unwrap().lines().rev().collect();
        digests.rotate_left(DIGEST);
        let twice = [&lines[..], b"\n", &lines[lines.len() - 40..]].concat();
        for (bytes, says) in [
            (digests.clone(), "not sorted"),
            (swapped.join("\n").into_bytes(), "not sorted"),
            (digests[..DIGEST * 2 - 1].to_vec(), "no list"),
            (b"password\nletmein\n".to_vec(), "no list"),
            (Vec::new(), "no list"),
            (twice, "no digest at byte"),
        ] {
            let file = written(&bytes);
            let error = Blocklist::open(file.path()).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("passwords.blocklist") && !error.contains('\n'), "{error}");
        }
        let error = Blocklist::open(Path::new("/nowhere/list")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/list"), "{error}");
    }

    #[test]
    fn of_a_list_that_is_too_long_to_be_read_through_places_are_looked_at() {
        for form in both(3_000, "\n") {
            let file = written(&form);
            let list = Blocklist::open(file.path()).unwrap();
            let mut last = None;
            for place in (0..list.length).step_by(997) {
                let (start, end, hash) = list.entry_at(place, 0).unwrap().unwrap();
                assert!((start..end).contains(&place));
                assert!(last.is_none_or(|last| last < hash));
                last = Some(hash);
            }
        }
    }
}
