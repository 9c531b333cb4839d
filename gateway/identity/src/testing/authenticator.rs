// SPDX-License-Identifier: Apache-2.0
//! An authenticator in software: it makes one P-256 key and signs with it, whatever it is told to sign. Tests of other
//! rooms include this file too, so it knows nothing of ours.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

/// Flags of authenticator data (WebAuthn Level 3, 6.1).
const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const BACKUP_ELIGIBLE: u8 = 0x08;
const ATTESTED: u8 = 0x40;

/// Who vouches for a new key: the maker's certificate and its key, as PKCS #8.
pub(crate) struct Maker {
    pub(crate) certificate: Vec<u8>,
    pub(crate) pkcs8: Vec<u8>,
}

/// One key of one person at one place.
pub(crate) struct Authenticator {
    pub(crate) pair: EcdsaKeyPair,
    pub(crate) origin: String,
    pub(crate) credential_id: Vec<u8>,
    pub(crate) aaguid: [u8; 16],
    pub(crate) maker: Option<Maker>,
    /// Whether it checks its person.
    pub(crate) verifies: bool,
    /// Whether it is copied between devices.
    pub(crate) synced: bool,
    /// How often it has signed; none: it does not count.
    pub(crate) counter: Option<u32>,
    pub(crate) handle: Vec<u8>,
}

/// An answer before it is signed: what a test changes here is signed as it is, what it changes in the JSON is not.
pub(crate) struct Draft {
    pub(crate) kind: &'static str,
    pub(crate) challenge: String,
    pub(crate) origin: String,
    pub(crate) cross_origin: bool,
    pub(crate) rp_id: String,
    pub(crate) flags: u8,
    pub(crate) counter: u32,
    pub(crate) handle: Option<Vec<u8>>,
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

/// CBOR's head of a byte string (RFC 8949 section 3.1, major type 2).
fn bytes(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short");
    let mut out = vec![0x59];
    out.extend(length.to_be_bytes());
    out.extend(content);
    out
}

fn text(content: &str) -> Vec<u8> {
    let mut out = vec![0x60 | u8::try_from(content.len()).expect("at most 23")];
    out.extend(content.as_bytes());
    out
}

impl Draft {
    fn of(kind: &'static str, options: &Value, authenticator: &Authenticator) -> Self {
        let rp = options.get("rpId").or_else(|| options.pointer("/rp/id")).and_then(Value::as_str).expect("a name");
        let mut flags = PRESENT;
        if authenticator.verifies {
            flags |= VERIFIED;
        }
        if authenticator.synced {
            flags |= BACKUP_ELIGIBLE;
        }
        Self {
            kind,
            challenge: options["challenge"].as_str().expect("a challenge").to_owned(),
            origin: authenticator.origin.clone(),
            cross_origin: false,
            rp_id: rp.to_owned(),
            flags,
            counter: authenticator.counter.unwrap_or(0),
            handle: Some(authenticator.handle.clone()),
        }
    }

    fn client_data(&self) -> Vec<u8> {
        let data = json!({
            "type": self.kind, "challenge": self.challenge, "origin": self.origin, "crossOrigin": self.cross_origin,
        });
        data.to_string().into_bytes()
    }

    fn data(&self) -> Vec<u8> {
        let mut data = sha256(self.rp_id.as_bytes());
        data.push(self.flags);
        data.extend(self.counter.to_be_bytes());
        data
    }
}

impl Authenticator {
    /// A passkey for a place: it checks its person and counts.
    pub(crate) fn new(origin: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
        Self {
            origin: origin.to_owned(),
            credential_id: sha256(pair.public_key().as_ref()),
            pair,
            aaguid: [0; 16],
            maker: None,
            verifies: true,
            synced: false,
            counter: Some(0),
            handle: Vec::new(),
        }
    }

    fn public_key(&self) -> Vec<u8> {
        let point = self.pair.public_key().as_ref();
        // COSE: kty EC2, alg ES256, crv P-256, x, y (RFC 9053 sections 2.1 and 7.1.1).
        let mut key = vec![0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21];
        key.extend(bytes(&point[1..33]));
        key.push(0x22);
        key.extend(bytes(&point[33..]));
        key
    }

    /// Answers `navigator.credentials.create`.
    pub(crate) fn create(&mut self, options: &str) -> Value {
        self.create_with(options, |_| {})
    }

    /// The same, with something changed before it is signed.
    pub(crate) fn create_with(&mut self, options: &str, change: impl FnOnce(&mut Draft)) -> Value {
        let options: Value = serde_json::from_str(options).expect("options");
        let options = &options["publicKey"];
        self.handle = BASE64.decode(options["user"]["id"].as_str().expect("a user")).expect("base64");
        let mut draft = Draft::of("webauthn.create", options, self);
        draft.flags |= ATTESTED;
        change(&mut draft);
        let client_data = draft.client_data();
        let mut data = draft.data();
        data.extend(self.aaguid);
        data.extend(u16::try_from(self.credential_id.len()).expect("short").to_be_bytes());
        data.extend(&self.credential_id);
        data.extend(self.public_key());
        let mut object = vec![0xa3];
        object.extend(text("fmt"));
        if let Some(maker) = &self.maker {
            let signed = [&*data, &sha256(&client_data)].concat();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &maker.pkcs8).expect("a key");
            let signature = pair.sign(&SystemRandom::new(), &signed).expect("signed");
            object.extend(text("packed"));
            object.extend(text("attStmt"));
            // alg ES256, sig, x5c
            object.push(0xa3);
            object.extend(text("alg"));
            object.push(0x26);
            object.extend(text("sig"));
            object.extend(bytes(signature.as_ref()));
            object.extend(text("x5c"));
            object.push(0x81);
            object.extend(bytes(&maker.certificate));
        } else {
            object.extend(text("none"));
            object.extend(text("attStmt"));
            object.push(0xa0);
        }
        object.extend(text("authData"));
        object.extend(bytes(&data));
        let id = BASE64.encode(&self.credential_id);
        json!({
            "id": id, "rawId": id, "type": "public-key", "clientExtensionResults": {"credProps": {"rk": true}},
            "response": {
                "clientDataJSON": BASE64.encode(client_data), "attestationObject": BASE64.encode(object),
                "transports": ["internal"],
            },
        })
    }

    /// Answers `navigator.credentials.get`.
    pub(crate) fn get(&mut self, options: &str) -> Value {
        self.get_with(options, |_| {})
    }

    /// The same, with something changed before it is signed.
    pub(crate) fn get_with(&mut self, options: &str, change: impl FnOnce(&mut Draft)) -> Value {
        let options: Value = serde_json::from_str(options).expect("options");
        self.counter = self.counter.map(|c| c + 1);
        let mut draft = Draft::of("webauthn.get", &options["publicKey"], self);
        change(&mut draft);
        let (client_data, data) = (draft.client_data(), draft.data());
        let signed = [&*data, &sha256(&client_data)].concat();
        let signature = self.pair.sign(&SystemRandom::new(), &signed).expect("signed");
        let id = BASE64.encode(&self.credential_id);
        json!({
            "id": id, "rawId": id, "type": "public-key", "clientExtensionResults": {},
            "response": {
                "clientDataJSON": BASE64.encode(client_data), "authenticatorData": BASE64.encode(data),
                "signature": BASE64.encode(signature), "userHandle": draft.handle.map(|h| BASE64.encode(h)),
            },
        })
    }
}
