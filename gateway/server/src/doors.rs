// SPDX-License-Identifier: Apache-2.0
//! Which doors a configuration asks for. Each address has one purpose: `SO_REUSEPORT`, which lets the shards of one
//! door share a port, would let two doors share it too, and the kernel would deal their connections out at random.

use crate::{
    client_key,
    config::{Config, ConfigError},
    listener::{Door, DoorTls, Purpose},
    start::Transport,
    tls,
};
use portcullis_domain::{Clock, HypervisorName};
use portcullis_upstream::{HypervisorConfig, Kind};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Every door that is to be opened, the portal's first.
pub(crate) fn doors(config: &Config, transport: Transport, clock: &dyn Clock) -> Result<Vec<Door>, ConfigError> {
    let portal = config.portal.listen.iter().map(|at| (Purpose::Portal, *at));
    let apis = config.hypervisors.iter().filter_map(|h| Some((Purpose::Api(h.name().clone()), config.api_listen(h)?)));
    let rpcs = config.hypervisors.iter().filter_map(|h| Some((Purpose::Rpc(h.name().clone()), config.rpc_listen(h)?)));
    let wanted: Vec<(Purpose, SocketAddr)> = portal.chain(apis).chain(rpcs).collect();
    let wrong = |message: String| ConfigError::new(&config.file, message);
    if transport == Transport::PlainLoopback
        && let Some((purpose, at)) = wanted.iter().find(|(_, at)| !at.ip().is_loopback())
    {
        return Err(wrong(format!("{}: --dev listens on loopback only, not on {at}", key_of(purpose))));
    }
    if transport == Transport::PlainLoopback
        && let Some((purpose, _)) = wanted.iter().find(|(p, _)| matches!(p, Purpose::Rpc(_)))
    {
        return Err(wrong(format!("{}: --dev has no TLS, and this is spoken inside TLS only", key_of(purpose))));
    }
    if let Some(((one, at), (other, _))) = clash(&wanted) {
        let (one, other) = (key_of(one), key_of(other));
        return Err(wrong(if one == other {
            format!("{one}: {at} stands there twice")
        } else {
            format!("{one} and {other}: both would listen on {at}; give each a port of its own")
        }));
    }
    if let Some(health) = config.health.listen
        && let Some((purpose, at)) = wanted.iter().find(|(_, at)| overlap(*at, health))
    {
        let key = key_of(purpose);
        return Err(wrong(format!("{key} and health.listen: both would listen on {at}; give each a port of its own")));
    }
    let tls = match transport {
        Transport::Tls => Some(tls::server(config, clock)?),
        Transport::PlainLoopback => None,
    };
    let asking: Vec<&HypervisorName> =
        config.hypervisors.iter().filter(|h| takes_keys(h)).map(HypervisorConfig::name).collect();
    // Whoever is added later may be one of them.
    let may_ask = tls.as_deref().map(client_key::asking).transpose();
    let may_ask = may_ask.map_err(|e| wrong(format!("tls: {e}")))?.map(Arc::new);
    let of = |purpose: &Purpose| {
        let usual = tls.clone()?;
        Some(match purpose {
            Purpose::Portal => DoorTls { usual, asking: may_ask.clone() },
            Purpose::Api(name) if asking.contains(&name) => {
                DoorTls { usual: may_ask.clone().unwrap_or(usual), asking: None }
            }
            Purpose::Api(_) => DoorTls { usual, asking: None },
            Purpose::Rpc(_) => DoorTls { usual: Arc::new(tls::without_tickets(&usual)), asking: None },
        })
    };
    Ok(wanted.into_iter().map(|(purpose, at)| Door { tls: of(&purpose), purpose, at }).collect())
}

/// Whether a hypervisor's clients may show a certificate at its door.
fn takes_keys(hypervisor: &HypervisorConfig) -> bool {
    hypervisor.api().is_some() && matches!(hypervisor.kind(), Kind::Lxd | Kind::Incus)
}

/// The key of the configuration that a door stands under.
pub(crate) fn key_of(purpose: &Purpose) -> String {
    match purpose {
        Purpose::Portal => "portal.listen".into(),
        Purpose::Api(name) => format!("hypervisors.{name}.api.port"),
        Purpose::Rpc(name) => format!("hypervisors.{name}.rpc.port"),
    }
}

type Wanted = (Purpose, SocketAddr);

/// Two doors that would take each other's connections. Two addresses of the portal may overlap (`0.0.0.0` and `[::]`):
/// whichever is dealt a connection leads to the same pages.
fn clash(wanted: &[Wanted]) -> Option<(&Wanted, &Wanted)> {
    let pairs = wanted.iter().enumerate().flat_map(|(n, one)| wanted.iter().skip(n + 1).map(move |other| (one, other)));
    pairs.into_iter().find(|(one, other)| if one.0 == other.0 { one.1 == other.1 } else { overlap(one.1, other.1) })
}

/// Whether a connection could reach both: the same port, and the same address or one that stands for all.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // A port of 0 is chosen by the kernel, for each its own.
    if one.port() != other.port() || one.port() == 0 {
        return false;
    }
    let (one, other) = (one.ip().to_canonical(), other.ip().to_canonical());
    // `[::]` takes IPv4 too, unless the machine is set up otherwise, which is not known here.
    let all = |ip: IpAddr, of: IpAddr| ip.is_unspecified() && (ip.is_ipv6() || of.is_ipv4());
    one == other || all(one, other) || all(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_overlaps_what_it_stands_for() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::]:1", "127.0.0.1:1", true),
            ("[::]:1", "[::1]:1", true),
            ("[::]:1", "0.0.0.0:1", true),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", true),
            ("0.0.0.0:0", "0.0.0.0:0", false),
        ] {
            let (a, b) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!((overlap(a, b), overlap(b, a)), (expected, expected), "{one} {other}");
        }
    }

    #[test]
    fn the_portal_may_listen_on_both_families_and_nobody_else_beside_it() {
        let at = |purpose: &Purpose, text: &str| (purpose.clone(), text.parse().unwrap());
        let (portal, lab) = (Purpose::Portal, Purpose::Api("lab".parse().unwrap()));
        assert!(clash(&[at(&portal, "0.0.0.0:1"), at(&portal, "[::]:1")]).is_none());
        assert!(clash(&[at(&portal, "0.0.0.0:1"), at(&portal, "0.0.0.0:1")]).is_some());
        assert!(clash(&[at(&portal, "0.0.0.0:1"), at(&lab, "0.0.0.0:2")]).is_none());
        assert!(clash(&[at(&portal, "0.0.0.0:1"), at(&lab, "10.0.0.1:1")]).is_some());
    }
}
