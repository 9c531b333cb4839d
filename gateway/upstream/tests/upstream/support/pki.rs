// SPDX-License-Identifier: Apache-2.0
//! A CA, a server and a client certificate in files, made for one test.

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub(crate) struct Pki {
    pub(crate) ca: PathBuf,
    pub(crate) server: (PathBuf, PathBuf),
    pub(crate) client: (PathBuf, PathBuf),
    pub(crate) server_der: Vec<u8>,
    pub(crate) server_key: Vec<u8>,
}

impl Pki {
    pub(crate) fn new(folder: &Path, server_names: &[&str]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let ca = folder.join("ca-cert.pem");
        std::fs::write(&ca, issuer.pem()).unwrap();
        let leaf = |name: &str, names: &[&str], purpose| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, format!("test {name}"));
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
            params.extended_key_usages = vec![purpose];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            let paths = (folder.join(format!("{name}-cert.pem")), folder.join(format!("{name}-key.pem")));
            std::fs::write(&paths.0, certificate.pem()).unwrap();
            std::fs::write(&paths.1, key.serialize_pem()).unwrap();
            std::fs::set_permissions(&paths.1, std::fs::Permissions::from_mode(0o600)).unwrap();
            (paths, certificate.der().to_vec(), key.serialize_der())
        };
        let (server, server_der, server_key) = leaf("server", server_names, ExtendedKeyUsagePurpose::ServerAuth);
        let (client, _, _) = leaf("client", &[], ExtendedKeyUsagePurpose::ClientAuth);
        Self { ca, server, client, server_der, server_key }
    }
}

pub(crate) fn pin(der: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, der))
}
