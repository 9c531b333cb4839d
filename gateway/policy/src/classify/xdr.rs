// SPDX-License-Identifier: Apache-2.0
//! XDR (RFC 4506), in and out, strictly: a length is held against what is there before anything is taken, padding is
//! zero, a flag is 0 or 1.

/// What was read is no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);

/// Reads from bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// From the first byte on.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    pub const fn left(&self) -> usize {
        self.0.len()
    }

    /// Some bytes as they are.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Broken("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// One word.
    pub fn word(&mut self) -> Result<u32, Broken> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    /// Two words.
    pub fn long(&mut self) -> Result<u64, Broken> {
        Ok(u64::from(self.word()?) << 32 | u64::from(self.word()?))
    }

    /// A length or count of at most so many.
    pub fn count(&mut self, most: usize) -> Result<usize, Broken> {
        let count = usize::try_from(self.word()?).unwrap_or(usize::MAX);
        if count > most { Err(Broken("it holds more than it may")) } else { Ok(count) }
    }

    /// Bytes with their length, padded with zeros.
    pub fn opaque(&mut self, most: usize) -> Result<&'a [u8], Broken> {
        let length = self.count(most)?;
        let bytes = self.take(length)?;
        if self.take(length.next_multiple_of(4) - length)?.iter().any(|b| *b != 0) {
            return Err(Broken("its padding is not zero"));
        }
        Ok(bytes)
    }

    /// Whether an optional value is there.
    pub fn is_there(&mut self) -> Result<bool, Broken> {
        match self.word()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Broken("a value is neither there nor missing")),
        }
    }
}

/// Writes bytes.
#[derive(Debug, Default, Clone)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// One word.
    #[must_use]
    pub fn word(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A number with a sign.
    #[must_use]
    pub fn number(self, value: i32) -> Self {
        self.word(u32::from_be_bytes(value.to_be_bytes()))
    }

    /// Bytes as they are; a multiple of four.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes with their length, padded.
    #[must_use]
    pub fn opaque(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut all = self.word(length).raw(bytes);
        all.0.resize(all.0.len().next_multiple_of(4), 0);
        all
    }

    /// A text that may be missing.
    #[must_use]
    pub fn optional(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.word(1).opaque(text.as_bytes()),
            None => self.word(0),
        }
    }

    /// What was written.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_reads_back() {
        let bytes = Writer::default()
            .word(7)
            .number(-1)
            .opaque(b"abcde")
            .optional(None)
            .optional(Some("x"))
            .raw(&[9; 8])
            .done();
        assert_eq!(bytes.len() % 4, 0);
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.word(), reader.word()), (Ok(7), Ok(u32::MAX)));
        assert_eq!(reader.opaque(5), Ok(&b"abcde"[..]));
        assert_eq!((reader.is_there(), reader.is_there()), (Ok(false), Ok(true)));
        assert_eq!(reader.opaque(1), Ok(&b"x"[..]));
        assert_eq!((reader.long(), reader.left()), (Ok(0x0909_0909_0909_0909), 0));
        assert!(reader.word().is_err());
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        assert!(Reader::new(&[0, 0, 0, 1, b'a', 0, 0, 1]).opaque(9).is_err(), "padding");
        assert!(Reader::new(&[0, 0, 0, 9, b'a', 0, 0, 0]).opaque(9).is_err(), "shorter than it says");
        assert!(Reader::new(&[0, 0, 0, 2, b'a', b'b', 0, 0]).opaque(1).is_err(), "longer than it may be");
        assert!(Reader::new(&[0, 0, 0, 2]).is_there().is_err());
        assert!(Reader::new(&[0xff; 4]).opaque(usize::MAX).is_err());
    }
}
