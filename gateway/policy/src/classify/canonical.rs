// SPDX-License-Identifier: Apache-2.0
//! One reading of a path. What is decided on is what is sent; what could be read in two ways is refused.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::{borrow::Cow, fmt::Write as _};

/// Longest path, in bytes (security defaults: 8 KiB for a whole address).
const MAX: usize = 8 * 1024;

/// Everything that a path segment must encode: all but `pchar` of RFC 3986 section 3.3, and of that not `;`, which
/// some servers cut a segment at.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A path that every reader reads alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Canonical {
    text: String,
    /// The same, decoded; none when nothing had to be encoded.
    decoded: Option<String>,
}

/// Why a path is refused: two readers could read it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    /// It does not begin with one `/`: absolute-form, `*`, an authority, or nothing.
    #[error("the path does not begin with /")]
    Relative,
    /// Longer than 8 KiB.
    #[error("the path is longer than 8 KiB")]
    Long,
    /// `//`.
    #[error("the path has an empty part (//)")]
    Empty,
    /// `.` or `..`, encoded or not.
    #[error("the path has a part that is . or ..")]
    Dots,
    /// `%` without two hexadecimal digits.
    #[error("the path has a % that begins no code")]
    Escape,
    /// `%25`: decoding twice would find something else.
    #[error("the path is encoded twice")]
    Twice,
    /// `%2f`, `%5c`, `\`, `;`, `?` or `#`: separators for some readers and not for others.
    #[error("the path has a separator that some servers read differently: {0:?}")]
    Separator(char),
    /// A control character, encoded or not.
    #[error("the path has a control character")]
    Control,
    /// Bytes that are no UTF-8, or an overlong form.
    #[error("the path is no valid UTF-8")]
    Text,
    /// A character that must be encoded in a path.
    #[error("the path has a character that must be encoded: {0:?}")]
    Raw(char),
}

impl Canonical {
    /// The path to send: encoded where it must be, and nowhere else.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its parts, decoded: none for `/`. A path that ends with `/` has an empty last part.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let text = self.decoded.as_deref().unwrap_or(&self.text);
        let inside = text.strip_prefix('/').unwrap_or(text);
        inside.split('/').skip(usize::from(inside.is_empty()))
    }
}

/// Reads a path as it stands in the request line, without its query. Decodes once.
pub fn canonical(raw: &str) -> Result<Canonical, Ambiguous> {
    if raw.len() > MAX {
        return Err(Ambiguous::Long);
    }
    let inside = raw.strip_prefix('/').ok_or(Ambiguous::Relative)?;
    if is_plain(inside) {
        return Ok(Canonical { text: raw.to_owned(), decoded: None });
    }
    let mut text = String::with_capacity(raw.len());
    let mut decoded = String::with_capacity(raw.len());
    let mut rest = inside.split('/').peekable();
    while let Some(segment) = rest.next() {
        let plain = decode(segment)?;
        // The last part may be empty: `/` itself, and a path that ends with one.
        if plain.is_empty() && rest.peek().is_some() {
            return Err(Ambiguous::Empty);
        }
        if matches!(&*plain, "." | "..") {
            return Err(Ambiguous::Dots);
        }
        decoded.push('/');
        decoded.push_str(&plain);
        text.push('/');
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", utf8_percent_encode(&plain, ENCODED));
    }
    if text.len() > MAX {
        return Err(Ambiguous::Long);
    }
    Ok(Canonical { decoded: (decoded != text).then_some(decoded), text })
}

/// Whether a path (without its first `/`) says what it says to everybody: nothing encoded, nothing that would have to be,
/// no part that is empty or begins with a dot. Most are; the others are read part by part.
fn is_plain(inside: &str) -> bool {
    let mut before = b'/';
    for byte in inside.bytes() {
        let plain = match byte {
            b'/' | b'.' => before != b'/',
            b'-' | b'_' | b'~' => true,
            other => other.is_ascii_alphanumeric(),
        };
        if !plain {
            return false;
        }
        before = byte;
    }
    true
}

fn decode(segment: &str) -> Result<Cow<'_, str>, Ambiguous> {
    for c in segment.chars() {
        match c {
            '\\' | ';' | '?' | '#' => return Err(Ambiguous::Separator(c)),
            _ if c.is_control() => return Err(Ambiguous::Control),
            ' ' | '"' | '<' | '>' | '[' | ']' | '^' | '`' | '{' | '|' | '}' => return Err(Ambiguous::Raw(c)),
            _ if !c.is_ascii() => return Err(Ambiguous::Raw(c)),
            _ => {}
        }
    }
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        let byte = if byte == b'%' {
            let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
            let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
                return Err(Ambiguous::Escape);
            };
            u8::try_from(high * 16 + low).map_err(|_| Ambiguous::Escape)?
        } else {
            byte
        };
        bytes.push(byte);
    }
    // Overlong forms and surrogates are no UTF-8 for this reader either.
    let plain = String::from_utf8(bytes).map_err(|_| Ambiguous::Text)?;
    for c in plain.chars() {
        match c {
            '%' => return Err(Ambiguous::Twice),
            '/' | '\\' | ';' | '?' | '#' => return Err(Ambiguous::Separator(c)),
            _ if c.is_control() => return Err(Ambiguous::Control),
            _ => {}
        }
    }
    Ok(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Rng as _, *};

    // SEC-043, SEC-044
    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        use Ambiguous as A;
        for (bad, why) in [
            ("", A::Relative),
            ("*", A::Relative),
            ("admin", A::Relative),
            ("http://h/1.0", A::Relative),
            ("h:443", A::Relative),
            ("//h/1.0", A::Empty),
            ("/a//b", A::Empty),
            ("/a//", A::Empty),
            ("/public/../admin", A::Dots),
            ("/./a", A::Dots),
            ("/a/..", A::Dots),
            ("/%2e%2e/admin", A::Dots),
            ("/%2E/admin", A::Dots),
            ("/.%2e/admin", A::Dots),
            ("/%252e%252e/admin", A::Twice),
            ("/a%252fb", A::Twice),
            ("/a%25", A::Twice),
            ("/a%2fb", A::Separator('/')),
            ("/a%2Fb", A::Separator('/')),
            ("/a%5cb", A::Separator('\\')),
            ("/a\\b", A::Separator('\\')),
            ("/a;x=1/b", A::Separator(';')),
            ("/a%3bx", A::Separator(';')),
            ("/a%3fx", A::Separator('?')),
            ("/a?x", A::Separator('?')),
            ("/a#x", A::Separator('#')),
            ("/a%23x", A::Separator('#')),
            ("/a%00b", A::Control),
            ("/a%0d%0ab", A::Control),
            ("/a\tb", A::Control),
            ("/a%7fb", A::Control),
            ("/a%c2%85b", A::Control),
            ("/a%c0%afb", A::Text),
            ("/a%e0%80%afb", A::Text),
            ("/%c0%ae%c0%ae/admin", A::Text),
            ("/a%ed%a0%80b", A::Text),
            ("/a%ffb", A::Text),
            ("/a%", A::Escape),
            ("/a%2", A::Escape),
            ("/a%zz", A::Escape),
            ("/a%+1", A::Escape),
            ("/a%u002f", A::Escape),
            ("/a b", A::Raw(' ')),
            ("/{name}", A::Raw('{')),
            ("/ä", A::Raw('ä')),
            ("/a\u{ff0f}b", A::Raw('\u{ff0f}')),
        ] {
            assert_eq!(canonical(bad), Err(why), "{bad:?}");
        }
        assert_eq!(canonical(&format!("/{}", "a".repeat(MAX))), Err(A::Long));
        assert_eq!(canonical(&format!("/{}", "%41".repeat(MAX / 3 + 1))), Err(A::Long));
    }

    #[test]
    fn one_text_for_each_path() {
        for (raw, text, segments) in [
            ("/", "/", vec![]),
            ("/a/", "/a/", vec!["a", ""]),
            ("/%61%2d%7E", "/a-~", vec!["a-~"]),
            ("/a%20b", "/a%20b", vec!["a b"]),
            ("/%c3%a4", "/%C3%A4", vec!["ä"]),
            ("/a@b:c+d=e&f!$'()*,", "/a@b:c+d=e&f!$'()*,", vec!["a@b:c+d=e&f!$'()*,"]),
            ("/...", "/...", vec!["..."]),
            ("/A/a", "/A/a", vec!["A", "a"]),
        ] {
            let c = canonical(raw).unwrap();
            assert_eq!(c.as_str(), text);
            assert_eq!(c.segments().collect::<Vec<_>>(), segments, "{raw}");
        }
    }

    /// How a reader of another make would read what is sent: decode everything, then split at every separator and
    /// resolve dots. It must find the same parts.
    fn other_reader(sent: &str) -> Vec<String> {
        let plain = percent_encoding::percent_decode_str(sent).decode_utf8().unwrap();
        let twice = percent_encoding::percent_decode_str(&plain).decode_utf8().unwrap();
        let mut parts: Vec<String> = Vec::new();
        for part in twice.split(['/', '\\', ';', '?', '#']).skip(1) {
            match part {
                "." => {}
                ".." => drop(parts.pop()),
                _ => parts.push(part.to_owned()),
            }
        }
        if parts == [""] { Vec::new() } else { parts }
    }

    // SEC-042: decide(p) == decide(the path seen upstream).
    #[test]
    fn what_is_sent_reads_the_same_for_everybody() {
        const PIECES: [&str; 40] = [
            "a", "b", "Z", "0", ".", "..", "...", "-", "_", "~", "!", "$", "&", "'", "(", ")", "*", "+", ",", "=", ":",
            "@", "/", "/", "/", "//", "%2e", "%2E%2e", "%41", "%2f", "%5c", "%3b", "%25", "%252e", "%c3%a4", "%c0%ae",
            "%00", ";", "\\", "%",
        ];
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let rng = runner.rng();
        let mut read = 0;
        for _ in 0..300_000 {
            let mut dice = rng.next_u64();
            let mut raw = String::from("/");
            for _ in 0..dice % 9 {
                dice /= 41;
                raw.push_str(PIECES[usize::try_from(dice % 40).unwrap()]);
            }
            let Ok(once) = canonical(&raw) else { continue };
            read += 1;
            assert_eq!(canonical(once.as_str()).as_ref(), Ok(&once), "{raw}");
            let ours: Vec<String> = once.segments().map(str::to_owned).collect();
            assert_eq!(other_reader(once.as_str()), ours, "{raw}");
            assert_eq!(other_reader(&raw), ours, "{raw}");
            assert!(once.as_str().bytes().all(|b| b.is_ascii_graphic() && !b"\\;?#\"<>^`{|}[]".contains(&b)), "{raw}");
        }
        assert!(read > 30_000, "only {read} were read: the test says little");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(raw in ".{0,64}") {
            if let Ok(c) = canonical(&raw) {
                prop_assert_eq!(canonical(c.as_str()), Ok(c));
            }
        }

        #[test]
        fn parts_survive_encoding(parts in proptest::collection::vec("[a-zA-Z0-9 äß\"<>\\[\\]^`{|}@:._-]{1,12}", 1..5)) {
            prop_assume!(parts.iter().all(|p| p != "." && p != ".."));
            let coded = |p: &String| utf8_percent_encode(p, percent_encoding::NON_ALPHANUMERIC).to_string();
            let raw = format!("/{}", parts.iter().map(coded).collect::<Vec<_>>().join("/"));
            let c = canonical(&raw).unwrap();
            prop_assert_eq!(c.segments().map(str::to_owned).collect::<Vec<_>>(), parts);
        }
    }
}
