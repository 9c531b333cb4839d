// SPDX-License-Identifier: Apache-2.0
//! Who we are to authenticators: the name and the origin, from the configuration and from nowhere else.

use super::{PasskeySettings, UserVerification, credential::nobodys};
use crate::{Error, Settings};
use std::{collections::BTreeMap, path::Path};
use webauthn_rs::prelude::{AttestationCaList, AttestationCaListBuilder, Credential, Url, Webauthn, WebauthnBuilder};

const IS_ADDRESS: &str =
    "passkeys are off here: they need a name, and the portal's address (portal.external_url) is an IP address";
const NO_NAME: &str = "passkeys are off here: they need a name, and the portal (portal.external_url) has none";

/// Passkeys, or why there are none.
pub(crate) struct Passkeys(Result<Relying, &'static str>);

/// The relying party of WebAuthn.
pub(crate) struct Relying {
    pub(crate) webauthn: Webauthn,
    /// The models that may be added; none: any.
    pub(crate) allowed: Option<AttestationCaList>,
    /// Whether a touch is never enough.
    pub(crate) always_verify: bool,
    /// What an answer is held against whose passkey nobody has, so that it takes as long.
    pub(crate) nobodys: Credential,
}

impl Passkeys {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let url = Url::parse(&settings.portal).ok();
        let Some(url) = url.filter(|url| url.scheme() == "https") else { return Ok(Self(Err(NO_NAME))) };
        let Some(name) = url.domain() else { return Ok(Self(Err(IS_ADDRESS))) };
        let built =
            WebauthnBuilder::new(name, &url).map(|b| b.rp_name(&settings.issuer)).and_then(WebauthnBuilder::build);
        let Ok(webauthn) = built else { return Ok(Self(Err(NO_NAME))) };
        let PasskeySettings { user_verification, allowed } = &settings.passkeys;
        let mut models = AttestationCaListBuilder::new();
        for model in allowed {
            let wrong =
                |why: String| Error::Settings(format!("passkeys.allowed.ca_file: {}: {why}", model.ca_file.display()));
            let pem = certificate(&model.ca_file).map_err(wrong)?;
            let model_name = model.aaguid.to_string();
            let inserted = models.insert_device_pem(&pem, model.aaguid, model_name, BTreeMap::new());
            inserted.map_err(|_| wrong("this is no certificate in PEM".to_owned()))?;
        }
        Ok(Self(Ok(Relying {
            webauthn,
            allowed: (!allowed.is_empty()).then(|| models.build()),
            always_verify: *user_verification == UserVerification::Always,
            nobodys: nobodys()?,
        })))
    }

    pub(crate) fn off(&self) -> Option<&'static str> {
        self.0.as_ref().err().copied()
    }

    /// The relying party, or [`Error::Invalid`] with the reason why there is none.
    pub(crate) fn relying(&self) -> Result<&Relying, Error> {
        self.0.as_ref().map_err(|off| Error::Invalid((*off).to_owned()))
    }
}

fn certificate(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|e| e.to_string())
}
