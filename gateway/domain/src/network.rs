// SPDX-License-Identifier: Apache-2.0
//! A network by its prefix: `10.1.0.0/16`, `2001:db8::/32`, or one address.

use crate::id::ParseIdError;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// A network. Addresses of IPv4 that are written as IPv6 count as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    /// 0 to 32, or to 128 for IPv6.
    length: u8,
}

/// An address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

impl Network {
    /// Whether an address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((own, width), (other, other_width)) = (bits(self.address), bits(address.to_canonical()));
        let free = u32::from(width.saturating_sub(self.length));
        let head = |value: u128| value.checked_shr(free).unwrap_or(0);
        width == other_width && head(own) == head(other)
    }

    /// Whether every address of another one belongs to it.
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.contains(other.address)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, width) = bits(self.address);
        if self.length == width { self.address.fmt(f) } else { write!(f, "{}/{}", self.address, self.length) }
    }
}

impl FromStr for Network {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError::new(text, "network such as 10.1.0.0/16 or 2001:db8::/32");
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let address = address.to_canonical();
        let (value, width) = bits(address);
        let length = match length {
            None => width,
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
        };
        // 10.1.2.3/16 may mean the address or the network: whoever wrote it has to say which.
        let free = u32::from(width.checked_sub(length).ok_or_else(wrong)?);
        let whole = value.checked_shr(free).and_then(|v| v.checked_shl(free)).unwrap_or(0);
        if whole == value { Ok(Self { address, length }) } else { Err(wrong()) }
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_belongs_to_its_networks_and_to_no_other() {
        for (net, address, inside) in [
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("10.1.0.0/16", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::1/128", "::1", true),
        ] {
            assert_eq!(network(net).contains(address.parse().unwrap()), inside, "{net} {address}");
        }
        assert!(network("10.0.0.0/8").covers(&network("10.1.0.0/16")));
        assert!(!network("10.1.0.0/16").covers(&network("10.0.0.0/8")));
        assert!(network("10.0.0.0/8").covers(&network("10.0.0.0/8")));
    }

    #[test]
    fn a_network_survives_its_text_and_what_could_mean_two_is_refused() {
        for text in ["10.1.0.0/16", "192.0.2.7", "2001:db8::/32", "::/0", "0.0.0.0/0"] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("192.0.2.7/32").to_string(), "192.0.2.7");
        for bad in [
            "",
            "10.1.2.3/16",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "host",
            "10.0.0.0/-1",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
