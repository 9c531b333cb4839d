// SPDX-License-Identifier: Apache-2.0
//! Client TLS: who is believed to be the hypervisor, and what the gateway shows of itself.
//!
//! One provider, named each time (aws-lc-rs): the process-wide default is never asked for.

use crate::{
    config::{Readers, Trust, Verify, read_file},
    error::{Error, Fault},
    secret::{Derived, Held, Site, Source},
};
use aws_lc_rs::digest;
use portcullis_domain::Secret;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls12_signature,
        verify_tls13_signature,
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use std::{fmt::Display, path::Path, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

/// How long a TLS handshake may take.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(30);

/// The certificate and key that the gateway shows.
pub(crate) struct Identity<'a> {
    /// PEM chain, leaf first.
    pub(crate) chain: &'a [u8],
    /// PEM key.
    pub(crate) key: &'a Secret,
}

/// How TLS with a peer is begun.
pub(crate) enum Tls {
    /// Always the same.
    Fixed(TlsUpgrade),
    /// With a certificate of the gateway, which may be replaced.
    Shown(Derived<TlsUpgrade>),
}

impl Tls {
    pub(crate) fn now(&self) -> Result<TlsUpgrade, Fault> {
        match self {
            Self::Fixed(tls) => Ok(tls.clone()),
            Self::Shown(derived) => derived.now().map(|made| made.1.clone()),
        }
    }

    /// With the gateway's certificate and the key that `key` names. A key that was rotated, or came with a hypervisor that was
    /// added, brings its certificate with it. `missing` says that both are needed.
    pub(crate) fn shown(
        site: &mut Site<'_>,
        cert_file: Option<&Path>,
        key: Option<Source>,
        host: Option<&str>,
        missing: &str,
    ) -> Result<(Self, Certificate), Error> {
        let (chain, key) = match (cert_file, key) {
            (Some(file), Some(key)) => {
                let chain = read_file(&site.common.key_of("cert_file"), file, Readers::Anyone)?;
                pem_certificates(&site.common.key_of("cert_file"), &chain, &file.display())?;
                (chain, key)
            }
            (None, Some(key @ Source::Given(_))) => (Zeroizing::default(), key),
            _ => return Err(Error::config(site.common.key_of("cert_file"), missing)),
        };
        let (at, trust, host) = (site.common.key(), site.common.tls.clone(), host.map(str::to_owned));
        // What is wrong with the trust is told by its own key.
        drop(TlsUpgrade::new(&at, &trust, host.as_deref(), None)?);
        let chain = Arc::new(chain);
        let beside = Arc::clone(&chain);
        let make = Arc::new(move |key: &Secret| {
            let chain =
                if key.expose().windows(BEGIN.len()).any(|w| w == BEGIN) { key.expose() } else { beside.as_slice() };
            TlsUpgrade::new(&at, &trust, host.as_deref(), Some(Identity { chain, key }))
        });
        let check = Arc::clone(&make);
        let words = |e: Error| match e {
            Error::Config { why, .. } => why,
            other => other.to_string(),
        };
        let held = site.hold("key", key, move |key| check(key).map(drop).map_err(words))?;
        let own = Certificate { held: Arc::clone(&held), beside: chain };
        let derived = Derived::new(held, move |key| make(key).map_err(|e| Fault::Untrusted(e.to_string())));
        Ok((Self::Shown(derived), own))
    }
}

/// The certificate that the gateway shows.
pub(crate) struct Certificate {
    held: Arc<Held>,
    /// What goes with a key that was not rotated, as PEM.
    beside: Arc<Zeroizing<Vec<u8>>>,
}

impl Certificate {
    /// The certificate of a key, as DER.
    pub(crate) fn leaf(&self, key: &Secret) -> Result<CertificateDer<'static>, Fault> {
        let found =
            [key.expose(), self.beside.as_slice()].into_iter().find_map(|pem| CertificateDer::from_pem_slice(pem).ok());
        found.ok_or_else(|| Fault::Refused("the gateway's certificate is none".to_owned()))
    }

    /// The SHA-256 of the certificate of a key, in hex digits.
    pub(crate) fn print_of(&self, key: &Secret) -> Result<String, Fault> {
        Ok(hex::encode(digest::digest(&digest::SHA256, &self.leaf(key)?)))
    }

    /// The same of the one in use.
    pub(crate) fn print(&self) -> Result<String, Fault> {
        let key = self.held.value()?;
        self.print_of(&key)
    }
}

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Everything needed to begin TLS on an open connection to one peer.
#[derive(Clone)]
pub struct TlsUpgrade {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsUpgrade {
    /// Reads what `trust` names. `host` is the name that the certificate must carry unless `trust` says another;
    /// `key` is the TOML key of the hypervisor, for messages.
    pub(crate) fn new(
        key: &str,
        trust: &Trust,
        host: Option<&str>,
        identity: Option<Identity<'_>>,
    ) -> Result<Self, Error> {
        let text = trust.server_name.as_deref().or(host);
        let name = match text {
            Some(text) => ServerName::try_from(text.to_owned())
                .map_err(|_| Error::config(format!("{key}.tls.server_name"), format!("{text:?} is no host name")))?,
            // A pin identifies the certificate itself; the name only fills the field of the handshake.
            None if trust.ca_file.is_none() && !trust.pin.is_empty() => local_name()?,
            None => {
                let why = "a unix socket has no host name: say which name its certificate carries";
                return Err(Error::config(format!("{key}.tls.server_name"), why));
            }
        };
        Ok(Self { config: Arc::new(client_config(key, trust, identity)?), name })
    }

    /// The same peer as a ticket describes it: only a certificate with one of these thumbprints, SHA-256 or SHA-1, in
    /// hex digits, is believed. None where one of them is no thumbprint, or there is none.
    pub(crate) fn pinned_to(thumbprints: &[&str]) -> Option<Self> {
        let pins: Option<Vec<Vec<u8>>> = thumbprints.iter().map(|t| hex::decode(t.replace(':', "")).ok()).collect();
        let pins = pins.filter(|all| !all.is_empty() && all.iter().all(|pin| matches!(pin.len(), 20 | 32)))?;
        let provider = Arc::new(provider::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(Pinned { pins, chain: None, algorithms });
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        Some(Self { config: Arc::new(config), name: local_name().ok()? })
    }

    /// The rustls configuration.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name that the certificate must carry.
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// Runs the handshake, at most 30 seconds.
    pub async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<TlsStream<S>, Fault> {
        let connect = TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), stream);
        match tokio::time::timeout(HANDSHAKE, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(e)) => Err(explain(e)),
            Err(_) => Err(Fault::TooSlow("in the TLS handshake")),
        }
    }
}

/// Tells a certificate that was not accepted from a connection that broke.
pub(crate) fn explain(error: std::io::Error) -> Fault {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(tls) => Fault::Untrusted(tls.to_string()),
        None => Fault::unreachable("the connection broke in the TLS handshake", error),
    }
}

fn local_name() -> Result<ServerName<'static>, Error> {
    ServerName::try_from("localhost").map_err(|e| Error::config("tls.server_name", e.to_string()))
}

/// TLS that runs to its end with whoever answers, to see whose certificate it is. Nothing may be said on it.
pub(crate) fn meeting() -> Result<ClientConfig, Fault> {
    let provider = Arc::new(provider::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| Fault::Untrusted(e.to_string()))?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(Unverified { algorithms })).with_no_client_auth())
}

/// The certificates of a PEM file; at least one.
fn read_certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    pem_certificates(key, &read_file(key, path, Readers::Anyone)?, &path.display())
}

fn pem_certificates(key: &str, pem: &[u8], shown: &dyn Display) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| Error::config(key, format!("{shown} is no PEM of certificates: {e}")))?;
    if certificates.is_empty() {
        return Err(Error::config(key, format!("{shown} holds no certificate")));
    }
    Ok(certificates)
}

pub(crate) fn client_config(key: &str, trust: &Trust, identity: Option<Identity<'_>>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(provider::default_provider());
    let verifier = verifier(key, trust, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::config(format!("{key}.tls"), e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = pem_certificates(&format!("{key}.cert_file"), identity.chain, &"the certificate")?;
    let wrong = |why: String| Error::config(format!("{key}.key_file"), why);
    let private = PrivateKeyDer::from_pem_slice(identity.key.expose())
        .map_err(|e| wrong(format!("is no PEM with a private key: {e}")))?;
    builder.with_client_auth_cert(chain, private).map_err(|e| wrong(format!("does not fit its certificate: {e}")))
}

fn verifier(key: &str, trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let algorithms = provider.signature_verification_algorithms;
    if trust.verify == Verify::None {
        if trust.ca_file.is_some() || !trust.pin.is_empty() {
            let why = "\"none\" contradicts ca_file and pin: keep one of the two";
            return Err(Error::config(format!("{key}.tls.verify"), why));
        }
        return Ok(Arc::new(Unverified { algorithms }));
    }
    let chain: Option<Arc<dyn ServerCertVerifier>> = match &trust.ca_file {
        Some(path) => {
            let key = format!("{key}.tls.ca_file");
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates(&key, path)? {
                let bad = |e| Error::config(&key, format!("{}: a certificate cannot be used: {e}", path.display()));
                roots.add(certificate).map_err(bad)?;
            }
            let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
            Some(built.map_err(|e| Error::config(&key, e.to_string()))?)
        }
        None if trust.pin.is_empty() => {
            let platform = rustls_platform_verifier::Verifier::new(Arc::clone(provider))
                .map_err(|e| Error::config(format!("{key}.tls"), format!("the system's roots cannot be read: {e}")))?;
            Some(Arc::new(platform))
        }
        None => None,
    };
    if trust.pin.is_empty()
        && let Some(chain) = chain
    {
        return Ok(chain);
    }
    let pins = trust.pin.iter().map(|text| parse_pin(key, text).map(Vec::from)).collect::<Result<_, _>>()?;
    Ok(Arc::new(Pinned { pins, chain, algorithms }))
}

fn parse_pin(key: &str, text: &str) -> Result<[u8; 32], Error> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let mut pin = [0; 32];
    hex::decode_to_slice(digits, &mut pin)
        .map_err(|_| Error::config(format!("{key}.tls.pin"), format!("{text:?} is not 64 hex digits of a SHA-256")))?;
    Ok(pin)
}

/// Accepts the listed leaf certificates only, and asks the chain's verifier too where there is one.
#[derive(Debug)]
struct Pinned {
    /// SHA-256, or SHA-1 where a ticket says no other: nobody makes a second certificate for a given one of these.
    pins: Vec<Vec<u8>>,
    chain: Option<Arc<dyn ServerCertVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let of = |algorithm| digest::digest(algorithm, leaf);
        let found = [of(&digest::SHA256), of(&digest::SHA1_FOR_LEGACY_USE_ONLY)];
        if !self.pins.iter().any(|pin| found.iter().any(|f| f.as_ref() == pin)) {
            return Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        match &self.chain {
            Some(chain) => chain.verify_server_cert(leaf, intermediates, name, ocsp, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Believes anybody; only for `tls.verify = "none"`, and to look at a certificate.
#[derive(Debug)]
struct Unverified {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
