// SPDX-License-Identifier: Apache-2.0
//! Where mail reaches somebody.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The longest address, and the longest part before its `@`, in bytes (RFC 5321 section 4.5.3.1).
const LONGEST: usize = 254;
const LONGEST_LOCAL: usize = 64;

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Write an address like ada@example.org, in plain letters, without spaces, quotes or brackets.")]
pub struct BadMailAddress;

/// An address for mail: `local@domain`, ASCII, as a dot-string on both sides. Quoted local parts, comments, literal
/// networks and several addresses in one text are refused: nothing that is read here can end a header or add to one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MailAddress(String);

impl MailAddress {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MailAddress {
    type Err = BadMailAddress;

    fn from_str(text: &str) -> Result<Self, BadMailAddress> {
        // RFC 5322 section 3.2.3, `atext`.
        let atom = |part: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
            !part.is_empty() && part.bytes().all(fits)
        };
        let label = |part: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            (1..=63).contains(&part.len()) && part.bytes().all(fits) && !part.starts_with('-') && !part.ends_with('-')
        };
        let (local, domain) = text.split_once('@').ok_or(BadMailAddress)?;
        let good = text.len() <= LONGEST
            && local.len() <= LONGEST_LOCAL
            && local.split('.').all(atom)
            && domain.split('.').all(label);
        if good { Ok(Self(text.to_owned())) } else { Err(BadMailAddress) }
    }
}

impl TryFrom<String> for MailAddress {
    type Error = BadMailAddress;

    fn try_from(text: String) -> Result<Self, BadMailAddress> {
        text.parse()
    }
}

impl From<MailAddress> for String {
    fn from(address: MailAddress) -> Self {
        address.0
    }
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_address_is_one() {
        for good in ["ada@example.org", "a.b+c@xn--bcher-kva.example", "o'hara@localhost", "x@a-b.c"] {
            assert_eq!(good.parse::<MailAddress>().unwrap().as_str(), good);
        }
        let long = format!("{}@example.org", "x".repeat(65));
        for bad in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@@example.org",
            "a@b@c",
            "ada @example.org",
            "ada@exa mple.org",
            "ada@example.org\r\nBcc: eve@example.org",
            "ada@example.org\n",
            "\"a b\"@example.org",
            "<ada@example.org>",
            "ada@example.org, eve@example.org",
            "Ada <ada@example.org>",
            "a(b)@example.org",
            "a@[127.0.0.1]",
            ".a@example.org",
            "a..b@example.org",
            "a@-b.c",
            "a@b..c",
            "a@.c",
            "äda@example.org",
            "ada@exämple.org",
            "a@b.c\0",
            &long,
        ] {
            assert!(bad.parse::<MailAddress>().is_err(), "{bad:?}");
        }
    }
}
