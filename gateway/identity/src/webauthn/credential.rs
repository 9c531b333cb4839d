// SPDX-License-Identifier: Apache-2.0
//! What verifies a passkey's answers, sealed to its row together with its owner: whoever can write to the database can
//! neither add a passkey to somebody nor move one.

use crate::{Error, Inner};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use portcullis_domain::{Secret, UserId};
use portcullis_store::{FactorId, Passkey, Place};
use serde::{Deserialize, Serialize};
use webauthn_rs::prelude::{
    AttestationFormat, AttestationMetadata, COSEAlgorithm, COSEEC2Key, COSEKey, COSEKeyType, Credential, ECDSACurve,
    ParsedAttestation, ParsedAttestationData,
};
use webauthn_rs_proto::{ExtnState, RegisteredExtensions, UserVerificationPolicy};

#[derive(Serialize, Deserialize)]
struct Sealed {
    user: UserId,
    credential: Credential,
}

fn place(row: &str) -> Place<'_> {
    Place { table: "passkeys", row, column: "credential" }
}

impl Inner {
    pub(crate) fn seal_credential(&self, id: FactorId, user: UserId, credential: Credential) -> Result<Vec<u8>, Error> {
        let text = serde_json::to_string(&Sealed { user, credential }).map_err(|_| Error::Crypto("passkey"))?;
        self.keys.seal(&place(&id.to_string()), &Secret::from(text)).map_err(Error::store)
    }

    /// The credential of a row, with the counter that the row has.
    pub(crate) fn open_credential(&self, passkey: &Passkey) -> Result<Credential, Error> {
        let text = self.keys.open(&place(&passkey.id.to_string()), &passkey.sealed).map_err(Error::store)?;
        let opened: Sealed = serde_json::from_slice(text.expose()).map_err(|_| Error::Crypto("passkey"))?;
        if opened.user != passkey.user || opened.credential.cred_id != passkey.credential_id {
            return Err(Error::Crypto("passkey"));
        }
        Ok(Credential { counter: passkey.sign_count, ..opened.credential })
    }

    /// The same for a second step: that a key checked its person when it was added does not bind it then.
    pub(crate) fn open_for_second_step(&self, passkey: &Passkey) -> Result<Credential, Error> {
        let registration_policy = UserVerificationPolicy::Discouraged_DO_NOT_USE;
        Ok(Credential { registration_policy, ..self.open_credential(passkey)? })
    }
}

/// Whether a passkey signs somebody in without anything else: it checked its person when it was added, and did not say
/// that it cannot be found without being named.
pub(crate) fn works_alone(credential: &Credential) -> bool {
    let hidden = matches!(&credential.extensions.cred_props, ExtnState::Unsigned(props) if props.rk == Some(false));
    credential.user_verified && !hidden
}

/// A credential with a key of which nobody kept the other half.
pub(crate) fn nobodys() -> Result<Credential, Error> {
    let failed = |_| Error::Crypto("a key for nobody");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
    // SEC 1, 2.3.3: 4, then both coordinates.
    let (x, y) = match pair.public_key().as_ref() {
        [4, point @ ..] if point.len() == 64 => point.split_at(32),
        _ => return Err(Error::Crypto("a key for nobody")),
    };
    let key = COSEEC2Key { curve: ECDSACurve::SECP256R1, x: x.to_vec(), y: y.to_vec() };
    Ok(Credential {
        cred_id: Vec::new(),
        cred: COSEKey { type_: COSEAlgorithm::ES256, key: COSEKeyType::EC_EC2(key) },
        counter: 0,
        transports: None,
        user_verified: true,
        backup_eligible: false,
        backup_state: false,
        registration_policy: UserVerificationPolicy::Required,
        extensions: RegisteredExtensions::none(),
        attestation: ParsedAttestation { data: ParsedAttestationData::None, metadata: AttestationMetadata::None },
        attestation_format: AttestationFormat::None,
    })
}
