// SPDX-License-Identifier: Apache-2.0
//! One reading of a query. It is sent as it came, so whatever two readers could read differently is refused: a key
//! that comes twice, a `;`, a wrong `%`. (Go's reader, which LXD uses, silently drops such
//! pairs; Proxmox takes `;` for `&`.)

/// Longest query, in bytes.
const MAX: usize = 8 * 1024;

/// The pairs of a query, decoded, each key once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// The value of a key; empty when it came without one.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Every key with its value.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Reads a query; the error is for the person.
    pub(crate) fn read(raw: Option<&str>) -> Result<Self, &'static str> {
        Self::read_with(raw, &[])
    }

    /// The same, where some keys may come several times: all of them count.
    pub(crate) fn read_with(raw: Option<&str>, repeated: &[String]) -> Result<Self, &'static str> {
        let raw = raw.unwrap_or_default();
        if raw.len() > MAX {
            return Err("The query is longer than 8 KiB.");
        }
        read(raw, Breaks::Refused, repeated).map(Self)
    }

    /// Reads the same from a body, where a value may have several lines.
    pub(crate) fn read_form(raw: &str) -> Result<Vec<(String, String)>, &'static str> {
        read(raw, Breaks::InValues, &[])
    }
}

/// The pairs of a query as it is decided on, for whoever writes it anew: decoded, each key once. The error is for the
/// person.
pub fn read_pairs(raw: Option<&str>) -> Result<Vec<(String, String)>, &'static str> {
    Query::read(raw).map(|query| query.0)
}

/// Where a text may have line ends and tabs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Breaks {
    Refused,
    InValues,
}

fn read(raw: &str, breaks: Breaks, repeated: &[String]) -> Result<Vec<(String, String)>, &'static str> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in raw.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key, Breaks::Refused)?, decode(value, breaks)?);
        if key.is_empty() {
            return Err("The parameters have a value without a key.");
        }
        if pairs.iter().any(|(k, _)| *k == key) && !repeated.contains(&key) {
            return Err("The parameters have a key that comes twice, and only one of the two would count.");
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn decode(text: &str, breaks: Breaks) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b';' | b'#' => return Err("The parameters have a character that servers read differently: encode it."),
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or(0),
                    _ => return Err("The parameters have a % that begins no code."),
                }
            }
            0..=0x20 | 0x7f.. => return Err("The parameters have a character that must be encoded."),
            other => other,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| "The parameters are no valid UTF-8.")?;
    let is_break = |c: char| breaks == Breaks::InValues && matches!(c, '\n' | '\r' | '\t');
    if text.chars().any(|c| c.is_control() && !is_break(c)) {
        Err("The parameters have a control character.")
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_the_hypervisor_reads_it() {
        let q = Query::read(Some("project=a%20b+c&recursion&&%70ath=/x%3by")).unwrap();
        assert_eq!(q.pairs().map(|(k, _)| k).collect::<Vec<_>>(), ["project", "recursion", "path"]);
        assert_eq!(q.value("project"), Some("a b c"));
        assert_eq!(q.value("recursion"), Some(""));
        assert_eq!(q.value("path"), Some("/x;y"));
        assert_eq!(Query::read(None).unwrap(), Query::default());
        assert_eq!(Query::read(Some("")).unwrap(), Query::default());
    }

    #[test]
    fn a_query_that_two_readers_could_read_differently_is_refused() {
        for bad in [
            "project=a&project=b",
            "project=a&%70roject=b",
            "project&project=b",
            "project=a;x",
            "project=a%",
            "project=a%2",
            "project=a%zz",
            "project=%ff",
            "project=%c0%af",
            "project=%00",
            "project=%0a",
            "project=a b",
            "project=ä",
            "=a",
            "a=1#b",
        ] {
            assert!(Query::read(Some(bad)).is_err(), "{bad}");
        }
        assert!(Query::read(Some(&"a".repeat(MAX + 1))).is_err());
    }
}
