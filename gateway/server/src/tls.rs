// SPDX-License-Identifier: Apache-2.0
//! The certificate of every listener, and its key.
//!
//! A key that others can read is refused: whoever can read it can be the gateway. A certificate that has ended, or that
//! does not name this gateway, is one warning and not a refusal: a start is then often a restart, and what browsers
//! would still warn of must not take away the consoles of those who have no other way to their machines.

use crate::config::{Config, ConfigError};
use portcullis_domain::Clock;
use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use std::{io::Read as _, os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::Duration};

/// How long before its end a certificate is warned of.
const SOON: Duration = Duration::from_hours(14 * 24);
/// Largest key file that is read.
const LONGEST_KEY: u64 = 64 * 1024;

/// The server's TLS: 1.3 preferred, 1.2 with AEAD suites only (rustls has no others), no early data.
pub(crate) fn server(config: &Config, clock: &dyn Clock) -> Result<Arc<ServerConfig>, ConfigError> {
    let (tls, doubts) = read(config, clock)?;
    if !doubts.is_empty() {
        tracing::warn!("tls.cert_file: {}: {}", config.tls.cert_file.display(), doubts.join("; "));
    }
    Ok(Arc::new(tls))
}

/// What would be warned of at a start; an error where it would be refused.
pub(crate) fn look(config: &Config, clock: &dyn Clock) -> Result<Vec<String>, ConfigError> {
    read(config, clock).map(|(_, doubts)| doubts)
}

fn read(config: &Config, clock: &dyn Clock) -> Result<(ServerConfig, Vec<String>), ConfigError> {
    let wrong = |key: &str, path: &Path, why: String| {
        ConfigError::new(&config.file, format!("tls.{key}: {}: {why}", path.display()))
    };
    let (cert, key) = (&config.tls.cert_file, &config.tls.key_file);
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| wrong("cert_file", cert, format!("is no readable PEM certificate: {e}")))?;
    if chain.is_empty() {
        return Err(wrong("cert_file", cert, "holds no certificate".into()));
    }
    let secret = private_key(key).map_err(|why| wrong("key_file", key, why))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let doubts = doubts(config, &chain, &provider, clock);
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong("cert_file", cert, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|e| wrong("key_file", key, format!("does not fit the certificate: {e}")))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tls.max_early_data_size = 0;
    Ok((tls, doubts))
}

/// The same for clients that speak no HTTP and expect the first byte after the handshake to be ours: no protocol is
/// chosen, and no ticket for another session comes between.
pub(crate) fn without_tickets(tls: &ServerConfig) -> ServerConfig {
    let mut tls = tls.clone();
    tls.alpn_protocols.clear();
    tls.send_tls13_tickets = 0;
    tls
}

/// Reads a key that nobody else can read.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let cannot = |e: std::io::Error| format!("cannot be read: {e}");
    let file = std::fs::File::open(path).map_err(cannot)?;
    // The open file, not the path: what is checked is what is read.
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err("is not a file".into());
    }
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("others can use it (mode {mode:04o}): `chmod 0400` it"));
    }
    let mut pem = zeroize::Zeroizing::new(Vec::new());
    file.take(LONGEST_KEY).read_to_end(&mut pem).map_err(cannot)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| format!("is no readable PEM key: {e}"))
}

/// What a browser would find wrong with a certificate whose issuer it trusts.
fn doubts(
    config: &Config,
    chain: &[CertificateDer<'_>],
    provider: &Arc<CryptoProvider>,
    clock: &dyn Clock,
) -> Vec<String> {
    let Some((leaf, issuers)) = chain.split_first() else { return vec![] };
    let mut doubts = Vec::new();
    let now = Duration::from_secs(u64::try_from(clock.now().unix_timestamp()).unwrap_or(0));
    let at = |when| out_of_time(leaf, issuers, provider, UnixTime::since_unix_epoch(when));
    match (at(now), at(now + SOON)) {
        (Some(why), _) => doubts.push(why.to_owned()),
        (None, Some(_)) => doubts.push("it ends within 14 days".to_owned()),
        (None, None) => {}
    }
    let missing: Vec<String> = names(config).into_iter().filter(|name| !covers(leaf, name)).collect();
    if !missing.is_empty() {
        doubts.push(format!("it is not for {}", missing.join(", ")));
    }
    doubts
}

/// Whether a certificate counts no longer, or not yet.
fn out_of_time(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    provider: &Arc<CryptoProvider>,
    at: UnixTime,
) -> Option<&'static str> {
    // The time is checked before the issuer is: any root will do, and the last of the chain is one.
    let mut roots = RootCertStore::empty();
    roots.add(issuers.last().unwrap_or(leaf).clone().into_owned()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().ok()?;
    let anybody = ServerName::try_from("localhost").ok()?;
    match verifier.verify_server_cert(leaf, issuers, &anybody, &[], at) {
        Err(rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            Some("it has expired, so browsers refuse it")
        }
        Err(rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => Some("it is not valid yet, so browsers refuse it"),
        _ => None,
    }
}

/// The names that people and tools type.
fn names(config: &Config) -> Vec<String> {
    let apis = config.hypervisors.iter().filter_map(|h| {
        let api = h.api()?;
        let domain = &config.portal.api_domain;
        let by_domain = || (api.port.is_none() && !domain.is_empty()).then(|| format!("{}.{domain}", h.name()));
        api.host.clone().or_else(by_domain)
    });
    config.portal.host().into_iter().chain(apis).collect()
}

fn covers(leaf: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    ParsedCertificate::try_from(leaf).is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
}
