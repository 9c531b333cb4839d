// SPDX-License-Identifier: Apache-2.0
//! TLS client certificates. They are asked for at the doors of LXD and Incus only, whose clients show nothing else; a
//! browser at the portal is never asked. Nobody vouches for one: no chain, no name and no time is looked at. What the
//! handshake proves is that whoever shows it holds its key, and that is all that is taken from it.
//!
//! What must never happen here: a certificate that counts without a signature of its key over this very handshake. So
//! nothing is resumed at these doors, and a certificate of TLS 1.2 or 1.3 comes with the first handshake or not at all
//! (rustls has neither renegotiation nor certificates after the handshake).

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::sync::Arc;

/// The largest certificate that is looked at, with everything that comes with it, in bytes: a connection keeps it for as
/// long as it lives. LXD's and Incus's own are below one KiB.
const LARGEST: usize = 8 * 1024;

/// The same server, for clients that may show a certificate.
pub(crate) fn asking(tls: &ServerConfig) -> Result<ServerConfig, Error> {
    let provider = Arc::clone(tls.crypto_provider());
    let verifier = Arc::new(KeyOnly(provider.signature_verification_algorithms));
    let mut asking = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&tls.cert_resolver));
    asking.alpn_protocols.clone_from(&tls.alpn_protocols);
    asking.max_early_data_size = 0;
    asking.session_storage = Arc::new(NoServerSessionStorage {});
    asking.send_tls13_tickets = 0;
    Ok(asking)
}

/// Checks the signature over the handshake, and nothing else.
#[derive(Debug)]
struct KeyOnly(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for KeyOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if leaf.len() + others.iter().map(|c| c.len()).sum::<usize>() > LARGEST {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::{
        ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection, SupportedProtocolVersion,
        client::{ResolvesClientCert, Resumption, WantsClientCert},
        crypto::CryptoProvider,
        pki_types::{PrivateKeyDer, ServerName},
        sign::CertifiedKey,
        version::{TLS12, TLS13},
    };

    /// A certificate and its key.
    fn made(params: impl FnOnce(&mut CertificateParams)) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut of = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params(&mut of);
        let certificate = of.self_signed(&key).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::aws_lc_rs::default_provider())
    }

    struct Lab {
        server: Arc<ServerConfig>,
        roots: RootCertStore,
    }

    impl Lab {
        fn new() -> Self {
            let (certificate, key) = made(|_| {});
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).unwrap();
            let usual = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .unwrap();
            assert!(usual.session_storage.can_cache(), "a server that could resume");
            Self { server: Arc::new(asking(&usual).unwrap()), roots }
        }

        fn client(
            &self,
            version: &'static SupportedProtocolVersion,
        ) -> rustls::ConfigBuilder<ClientConfig, WantsClientCert> {
            let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
            builder.with_root_certificates(self.roots.clone())
        }

        /// A whole handshake; what the server holds of the client's, or why it did not come to one.
        fn shake(&self, client: &Arc<ClientConfig>) -> Result<(Vec<Vec<u8>>, HandshakeKind), Error> {
            let name = ServerName::try_from("localhost").unwrap();
            let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
            let mut server = ServerConnection::new(Arc::clone(&self.server)).unwrap();
            for _ in 0..10 {
                let mut wire = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut wire).unwrap();
                }
                let mut read = wire.as_slice();
                while !read.is_empty() {
                    server.read_tls(&mut read).unwrap();
                    server.process_new_packets()?;
                }
                let mut wire = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut wire).unwrap();
                }
                let mut read = wire.as_slice();
                while !read.is_empty() {
                    client.read_tls(&mut read).unwrap();
                    client.process_new_packets()?;
                }
            }
            assert!(!server.is_handshaking());
            let certificates = server.peer_certificates().unwrap_or_default().iter().map(|c| c.to_vec()).collect();
            Ok((certificates, server.handshake_kind().unwrap()))
        }
    }

    /// Shows a certificate and signs with whatever key it has.
    #[derive(Debug)]
    struct Shows(Arc<CertifiedKey>);

    impl ResolvesClientCert for Shows {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
        fn has_certs(&self) -> bool {
            true
        }
    }

    fn shows(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Arc<Shows> {
        let key = provider().key_provider.load_private_key(key).unwrap();
        Arc::new(Shows(Arc::new(CertifiedKey::new(chain, key))))
    }

    #[test]
    fn whoever_holds_the_key_of_any_certificate_comes_in_and_nobody_else_with_it() {
        let lab = Lab::new();
        for version in [&TLS12, &TLS13] {
            let nobody = Arc::new(lab.client(version).with_no_client_auth());
            assert_eq!(lab.shake(&nobody).unwrap().0, Vec::<Vec<u8>>::new(), "none is demanded");

            // Self-signed, over for years, of a name that is nobody's.
            let (certificate, key) = made(|p| p.not_after = rcgen::date_time_ymd(2001, 1, 1));
            let holder = lab.client(version).with_client_cert_resolver(shows(vec![certificate.clone()], key));
            assert_eq!(lab.shake(&Arc::new(holder)).unwrap().0, [certificate.to_vec()]);

            // The certificate is public. Without its key the handshake fails.
            let (_, other) = made(|_| {});
            let thief = lab.client(version).with_client_cert_resolver(shows(vec![certificate], other));
            let refused = lab.shake(&Arc::new(thief));
            assert!(matches!(refused, Err(Error::InvalidCertificate(CertificateError::BadSignature))), "{refused:?}");
        }
    }

    #[test]
    fn nothing_is_resumed_and_nothing_large_is_kept() {
        let lab = Lab::new();
        for version in [&TLS12, &TLS13] {
            let (certificate, key) = made(|_| {});
            let mut client =
                lab.client(version).with_client_cert_resolver(shows(vec![certificate.clone()], key.clone_key()));
            client.resumption = Resumption::in_memory_sessions(8);
            let client = Arc::new(client);
            for _ in 0..3 {
                let (shown, kind) = lab.shake(&client).unwrap();
                assert_eq!((shown, kind), (vec![certificate.to_vec()], HandshakeKind::Full));
            }
            let many = std::iter::repeat_n(certificate.clone(), 40).collect();
            let client = lab.client(version).with_client_cert_resolver(shows(many, key));
            let refused = lab.shake(&Arc::new(client));
            let wanted = CertificateError::ApplicationVerificationFailure;
            assert!(matches!(&refused, Err(Error::InvalidCertificate(why)) if *why == wanted), "{refused:?}");
        }
    }
}
