// SPDX-License-Identifier: Apache-2.0
//! `portcullis init`: a folder with a key file, a certificate of an own CA, and a configuration that runs.

use crate::config::ConfigError;
use clap::Args;
use portcullis_store::Keys;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustix::fs::Mode;
use std::{
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use time::Duration;

/// Makes a folder with everything that a first start needs. Nothing that exists is overwritten.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder; made if it is not there
    #[arg(long)]
    dir: PathBuf,
    /// The host name that people will type
    #[arg(long, default_value = "localhost")]
    name: String,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    #[command(flatten)]
    out: super::Out,
}

impl Init {
    pub(crate) fn run(&self, clock: &dyn portcullis_domain::Clock) -> anyhow::Result<()> {
        let dir = &self.dir;
        make(dir, &self.name, self.listen, clock)?;
        let config = dir.join("portcullis.toml");
        let (key, ca) = (dir.join("portcullis.key"), dir.join("tls/ca.pem"));
        let words = format!(
            "Made {config}\nKeep a copy of {key} in a safe place: without it nothing that is sealed can be opened.\n\
             Browsers trust this gateway once they trust {ca}\nNext: portcullis serve --config {config}",
            config = config.display(),
            key = key.display(),
            ca = ca.display()
        );
        self.out.tell(&serde_json::json!({ "config": config, "key": key, "ca": ca }), &words);
        Ok(())
    }
}

pub(super) fn make(
    dir: &Path,
    name: &str,
    listen: SocketAddr,
    clock: &dyn portcullis_domain::Clock,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir.join("tls")).map_err(|e| ConfigError::new(dir, format!("cannot be made: {e}")))?;
    for folder in [dir.to_owned(), dir.join("tls")] {
        rustix::fs::chmod(&folder, Mode::RWXU).map_err(|e| ConfigError::new(&folder, e.to_string()))?;
    }
    let config = dir.join("portcullis.toml");
    if config.exists() {
        anyhow::bail!("{}: is there already; init overwrites nothing", config.display());
    }
    Keys::create(&dir.join("portcullis.key"))?;
    certificates(&dir.join("tls"), name, clock.now())?;
    let port = listen.port();
    let authority = if port == 443 { name.to_owned() } else { format!("{name}:{port}") };
    let text = format!(
        "# Portcullis. Every key is explained in portcullis.example.toml. Paths count from this folder.\n\n\
             [portal]\nexternal_url = \"https://{authority}\"\nlisten = [\"{listen}\"]\n\n\
             [tls]\ncert_file = \"tls/cert.pem\"\nkey_file = \"tls/key.pem\"\n\n\
             [keys]\nfile = \"portcullis.key\"\n\n\
             [store]\nurl = \"sqlite://portcullis.db\"\n\n\
             [trail]\ndir = \"trail\"\n\n\
             [recordings]\ndir = \"recordings\"\n"
    );
    write(&config, &text, 0o600)?;
    Ok(())
}

/// An own CA (10 years) and a server certificate (825 days, the longest that browsers take) for a name.
/// The CA's key is not kept: a new certificate means a new CA, and nobody can steal a key that is not there.
fn certificates(dir: &Path, name: &str, now: time::OffsetDateTime) -> anyhow::Result<()> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.distinguished_name.push(DnType::CommonName, format!("Portcullis CA for {name}"));
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.not_before = now - Duration::days(1);
    ca.not_after = now + Duration::days(3650);
    let ca_cert = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![name.to_owned(), format!("*.{name}")])?;
    leaf.distinguished_name.push(DnType::CommonName, name);
    // Nothing is enciphered with it, but clients of libvirt's RPC take no certificate that does not permit it.
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.not_before = now - Duration::days(1);
    leaf.not_after = now + Duration::days(825);
    let cert = leaf.signed_by(&key, &issuer)?;
    write(&dir.join("ca.pem"), &ca_cert.pem(), 0o644)?;
    write(&dir.join("cert.pem"), &format!("{}{}", cert.pem(), ca_cert.pem()), 0o644)?;
    write(&dir.join("key.pem"), &key.serialize_pem(), 0o400)
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|e| ConfigError::new(path, format!("cannot be made: {e}")))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(())
}
