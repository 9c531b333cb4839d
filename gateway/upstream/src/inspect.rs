// SPDX-License-Identifier: Apache-2.0
//! Looking at a hypervisor for people who want to know what is wrong: the certificate that it shows, and what a
//! credential may do that it need not.

use crate::{
    driver::clean_text,
    error::{Error, Fault},
    fleet::Fleet,
    rotate::KnownAs,
    secret::{DEFAULT, Duty},
    tls::{HANDSHAKE, Tls, meeting},
    wire::Address,
};
use aws_lc_rs::digest;
use portcullis_domain::{Action, HypervisorName};
use rustls::pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use time::OffsetDateTime;
use tokio_rustls::TlsConnector;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

/// A certificate that somebody showed, whoever that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// Whose it says it is.
    pub subject: String,
    /// Who signed it, by its own word.
    pub issuer: String,
    /// SHA-256 of it: what a pin is.
    pub sha256: String,
    /// When it begins to count.
    pub from: OffsetDateTime,
    /// When it ends.
    pub until: OffsetDateTime,
}

impl Met {
    fn read(der: &CertificateDer<'_>) -> Result<Self, Fault> {
        let wrong = || Fault::Protocol("a certificate that cannot be read".to_owned());
        let (_, read) = X509Certificate::from_der(der).map_err(|_| wrong())?;
        let at = |time: &ASN1Time| OffsetDateTime::from_unix_timestamp(time.timestamp()).map_err(|_| wrong());
        Ok(Self {
            subject: clean_text(&read.subject().to_string()),
            issuer: clean_text(&read.issuer().to_string()),
            sha256: hex::encode(digest::digest(&digest::SHA256, der)),
            from: at(&read.validity().not_before)?,
            until: at(&read.validity().not_after)?,
        })
    }
}

/// Who answers at an address: the handshake runs to its end and nothing is said, nor any credential shown.
pub(crate) async fn meet(address: &Address, name: ServerName<'static>) -> Result<Met, Fault> {
    let stream = address.dial().await?;
    let connect = TlsConnector::from(Arc::new(meeting()?)).connect(name, stream);
    let stream = match tokio::time::timeout(HANDSHAKE, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(crate::tls::explain(error)),
        Err(_) => return Err(Fault::TooSlow("in the TLS handshake")),
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    Met::read(shown.ok_or_else(|| Fault::Protocol("no certificate".to_owned()))?)
}

impl Fleet {
    /// The certificate that a hypervisor shows now, trusted or not; none where it is reached without TLS.
    pub async fn meet(&self, hypervisor: &HypervisorName) -> Result<Option<Met>, Error> {
        let unknown = || Error::UnknownHypervisor(hypervisor.clone());
        let driver = self.driver_called(hypervisor, DEFAULT).ok_or_else(unknown)?;
        let Some(dialer) = driver.dialer() else { return Ok(None) };
        let Some(tls) = dialer.tls.as_ref() else { return Ok(None) };
        let name = match tls {
            Tls::Fixed(tls) => tls.server_name().clone(),
            Tls::Shown(derived) => derived.now().map_err(|f| f.at(hypervisor))?.1.server_name().clone(),
        };
        meet(&dialer.address, name).await.map(Some).map_err(|f| f.at(hypervisor))
    }
}

impl KnownAs {
    /// What a credential may do that it need not, in the hypervisor's own words. `credential` is its name: what it is for,
    /// with `+` between, or `default`, which is for everything but the administration of the hypervisor itself.
    pub fn beyond(&self, credential: &str) -> Vec<&str> {
        let duties: Vec<Duty> = credential.split('+').filter_map(Duty::parse).collect();
        let is_needed = |action: Action| {
            if credential == DEFAULT {
                return !matches!(action, Action::AccessAdmin | Action::NodeAdmin);
            }
            action == Action::View || duties.iter().any(|d| d.covers(action))
        };
        self.powers.iter().filter(|(action, _)| !is_needed(*action)).map(|(_, word)| word.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_may_do_what_it_is_for_and_see_and_everything_else_is_told() {
        let powers = [
            (Action::View, "Sys.Audit"),
            (Action::ConsoleControl, "VM.Console"),
            (Action::Power, "VM.PowerMgmt"),
            (Action::AccessAdmin, "User.Modify"),
        ];
        let powers = powers.map(|(action, word)| (action, word.to_owned())).to_vec();
        let standing = KnownAs::new("gateway", powers);
        assert_eq!(standing.beyond("default"), ["User.Modify"]);
        assert_eq!(standing.beyond("console"), ["VM.PowerMgmt", "User.Modify"]);
        assert_eq!(standing.beyond("console+power"), ["User.Modify"]);
        assert_eq!(standing.beyond("view"), ["VM.Console", "VM.PowerMgmt", "User.Modify"]);
    }

    #[test]
    fn a_certificate_is_read_or_not_taken() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["hv.example".to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "hv\u{202e}.example");
        let made = parameters.self_signed(&key).unwrap();
        let met = Met::read(made.der()).unwrap();
        assert!(met.subject.contains("hv.example") && met.issuer == met.subject && met.sha256.len() == 64, "{met:?}");
        assert!(met.from < met.until);
        assert!(Met::read(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])).is_err());
    }
}
