// SPDX-License-Identifier: Apache-2.0
//! Tokens of a provider: read strictly, then believed for what is left.
//!
//! The library holds keys and checks signatures. What a claim may look like is checked here, on the JSON itself: a
//! number that is a text, or one that is left out, must not read as "no limit" (CVE-2026-25537 in another library).

use super::Flaw;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use openidconnect::{
    JsonWebKey, JsonWebKeyAlgorithm, JsonWebKeyId, JsonWebKeyUse, JwsSigningAlgorithm,
    core::{CoreJsonWebKey, CoreJsonWebKeySet, CoreJwsSigningAlgorithm},
};
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

/// How far a provider's clock may be off.
pub(super) const SKEW: Duration = Duration::MINUTE;
/// The largest token that is looked at, in bytes.
const LARGEST: usize = 64 * 1024;
/// The longest `sub` (OpenID Connect Core 1.0 section 2), `sid` and `jti`, in bytes.
const LONGEST_ID: usize = 255;
/// Header members by which a token would choose its own key, or change what is signed.
const FOREIGN: [&str; 6] = ["crit", "jku", "jwk", "x5u", "x5c", "b64"];

/// What kind of token it is: one never counts as the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An ID token, or a userinfo answer that is signed.
    Identity,
    /// A logout token (OpenID Connect Back-Channel Logout 1.0 section 2.4).
    Logout,
}

/// A token as it was sent: nothing of it is believed yet.
pub(super) struct Unproven {
    algorithm: CoreJwsSigningAlgorithm,
    key: Option<JsonWebKeyId>,
    claims: Map<String, Value>,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

/// A token whose signature was right.
pub(super) struct Proven {
    pub(super) claims: Map<String, Value>,
    algorithm: CoreJwsSigningAlgorithm,
    key: CoreJsonWebKey,
}

/// Whose token it must be.
pub(super) struct Parties<'a> {
    pub(super) issuer: &'a str,
    pub(super) client: &'a str,
}

fn object(part: &str) -> Result<Map<String, Value>, Flaw> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Format)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(Flaw::Format),
    }
}

/// The algorithms that are accepted from anybody: signatures with a key pair. `none` and secrets that are shared with
/// the provider are not among them.
pub(super) fn asymmetric(name: &str) -> Option<CoreJwsSigningAlgorithm> {
    use CoreJwsSigningAlgorithm as A;
    Some(match name {
        "RS256" => A::RsaSsaPkcs1V15Sha256,
        "RS384" => A::RsaSsaPkcs1V15Sha384,
        "RS512" => A::RsaSsaPkcs1V15Sha512,
        "PS256" => A::RsaSsaPssSha256,
        "PS384" => A::RsaSsaPssSha384,
        "PS512" => A::RsaSsaPssSha512,
        "ES256" => A::EcdsaP256Sha256,
        "ES384" => A::EcdsaP384Sha384,
        "EdDSA" => A::EdDsa,
        _ => return None,
    })
}

impl Unproven {
    /// Reads a compact JWS (RFC 7515 section 7.1). `accepted` is what this provider signs with.
    pub(super) fn read(text: &str, kind: Kind, accepted: &[CoreJwsSigningAlgorithm]) -> Result<Self, Flaw> {
        if text.len() > LARGEST {
            return Err(Flaw::Format);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Flaw::Format)?;
        let (header, payload) = signed.split_once('.').filter(|(_, p)| !p.contains('.')).ok_or(Flaw::Format)?;
        let header = object(header)?;
        if FOREIGN.iter().any(|name| header.contains_key(*name)) {
            return Err(Flaw::Format);
        }
        let is_logout = match header.get("typ") {
            None => false,
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("JWT") => false,
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("logout+jwt") => true,
            Some(_) => return Err(Flaw::Format),
        };
        if is_logout && kind == Kind::Identity {
            return Err(Flaw::Format);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(asymmetric);
        let algorithm = algorithm.filter(|a| accepted.contains(a)).ok_or(Flaw::Algorithm)?;
        let key = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(JsonWebKeyId::new(kid.clone())),
            Some(_) => return Err(Flaw::Format),
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Flaw::Format)?;
        Ok(Self { algorithm, key, claims: object(payload)?, signed: signed.as_bytes().to_vec(), signature })
    }

    fn fits(&self, key: &CoreJsonWebKey) -> bool {
        let named = self.key.is_none() || self.key.as_ref() == key.key_id();
        let signs = key.key_use().is_none_or(JsonWebKeyUse::allows_signature);
        let typed = self.algorithm.key_type().as_ref() == Some(key.key_type());
        let allowed = match key.signing_alg() {
            JsonWebKeyAlgorithm::Unspecified => true,
            JsonWebKeyAlgorithm::Algorithm(algorithm) => *algorithm == self.algorithm,
            JsonWebKeyAlgorithm::Unsupported => false,
        };
        named && signs && typed && allowed
    }

    /// Checks the signature with the one key of the provider that fits. [`Flaw::UnknownKey`] when none does: the
    /// provider may have changed its keys.
    pub(super) fn prove(self, keys: &CoreJsonWebKeySet) -> Result<Proven, (Flaw, Self)> {
        let mut fitting = keys.keys().iter().filter(|key| self.fits(key));
        let key = match (fitting.next(), fitting.next()) {
            (Some(key), None) => key.clone(),
            (Some(_), Some(_)) => return Err((Flaw::AmbiguousKey, self)),
            (None, _) => return Err((Flaw::UnknownKey, self)),
        };
        if key.verify_signature(&self.algorithm, &self.signed, &self.signature).is_err() {
            return Err((Flaw::Signature, self));
        }
        Ok(Proven { claims: self.claims, algorithm: self.algorithm, key })
    }
}

/// A claim that must be a text.
pub(super) fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c str> {
    claims.get(name).and_then(Value::as_str)
}

/// A claim that names somebody or something: 1 to 255 bytes without control characters.
pub(super) fn id<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c str> {
    text(claims, name).filter(|id| (1..=LONGEST_ID).contains(&id.len()) && !id.chars().any(char::is_control))
}

/// A time in whole seconds since 1970 (RFC 7519 section 2, without fractions).
fn instant(claims: &Map<String, Value>, name: &str) -> Option<OffsetDateTime> {
    let seconds = claims.get(name).and_then(Value::as_i64).filter(|s| *s >= 0)?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

impl Proven {
    /// What every token must say: who made it, for whom, and that it counts now.
    pub(super) fn check(&self, parties: &Parties<'_>, now: OffsetDateTime) -> Result<(), Flaw> {
        let claims = &self.claims;
        if text(claims, "iss") != Some(parties.issuer) {
            return Err(Flaw::TokenIssuer);
        }
        let ours = |value: &Value| value.as_str() == Some(parties.client);
        let azp = match claims.get("azp") {
            None => None,
            Some(azp) if ours(azp) => Some(()),
            Some(_) => return Err(Flaw::Audience),
        };
        match claims.get("aud") {
            Some(one @ Value::String(_)) if ours(one) => {}
            Some(Value::Array(all)) if all.iter().all(Value::is_string) && all.iter().any(ours) => {
                // A token that others hold too could have been sent by them, unless it says that it was made for us.
                if all.len() > 1 && azp.is_none() {
                    return Err(Flaw::Audience);
                }
            }
            _ => return Err(Flaw::Audience),
        }
        if instant(claims, "exp").is_none_or(|exp| now >= exp + SKEW) {
            return Err(Flaw::Expired);
        }
        if instant(claims, "iat").is_none_or(|iat| iat > now + SKEW) {
            return Err(Flaw::Issued);
        }
        if claims.contains_key("nbf") && instant(claims, "nbf").is_none_or(|nbf| nbf > now + SKEW) {
            return Err(Flaw::Issued);
        }
        Ok(())
    }

    /// Whether `at_hash` fits the access token, where there is one (OpenID Connect Core 1.0 section 3.1.3.8).
    pub(super) fn check_access(&self, access_token: &str) -> Result<(), Flaw> {
        let Some(hash) = self.claims.get("at_hash") else { return Ok(()) };
        let whole = self.key.hash_bytes(access_token.as_bytes(), &self.algorithm).map_err(|_| Flaw::AccessHash)?;
        let half = whole.get(..whole.len() / 2).map(|half| URL_SAFE_NO_PAD.encode(half));
        if hash.as_str() == half.as_deref() { Ok(()) } else { Err(Flaw::AccessHash) }
    }
}

/// What a token says of how the person signed in at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct How {
    pub(super) acr: Option<String>,
    pub(super) amr: Vec<String>,
    pub(super) at: Option<OffsetDateTime>,
    pub(super) sid: Option<String>,
}

impl How {
    pub(super) fn read(claims: &Map<String, Value>) -> Result<Self, Flaw> {
        let acr = match claims.get("acr") {
            None => None,
            Some(Value::String(acr)) => Some(acr.clone()),
            Some(_) => return Err(Flaw::ClaimType),
        };
        let amr = match claims.get("amr") {
            None => Vec::new(),
            Some(Value::Array(all)) => {
                let all: Option<Vec<String>> = all.iter().map(|v| v.as_str().map(ToOwned::to_owned)).collect();
                all.ok_or(Flaw::ClaimType)?
            }
            Some(_) => return Err(Flaw::ClaimType),
        };
        let at = match claims.get("auth_time") {
            None => None,
            // Some providers write fractions here; what they cut off is a second at most.
            Some(Value::Number(n)) => {
                let seconds = n.as_i64().or_else(|| n.to_string().split('.').next()?.parse().ok());
                let at = seconds.filter(|s| *s >= 0).and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
                Some(at.ok_or(Flaw::ClaimType)?)
            }
            Some(_) => return Err(Flaw::ClaimType),
        };
        let sid = match claims.get("sid") {
            None => None,
            Some(_) => Some(id(claims, "sid").ok_or(Flaw::ClaimType)?.to_owned()),
        };
        Ok(Self { acr, amr, at, sid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ACCEPTED: [CoreJwsSigningAlgorithm; 1] = [CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256];

    fn part(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    fn flaw(text: &str, kind: Kind) -> Option<Flaw> {
        Unproven::read(text, kind, &ACCEPTED).err()
    }

    // SEC-094
    #[test]
    fn only_a_compact_token_with_a_plain_header_is_read_at_all() {
        let claims = part(&json!({"iss": "x"}));
        let with = |header: Value| format!("{}.{claims}.c2ln", part(&header));
        let good = with(json!({"alg": "RS256", "typ": "jwt", "kid": "a", "x5t": "passed over"}));
        assert_eq!(flaw(&good, Kind::Identity), None);
        assert_eq!(flaw(&good, Kind::Logout), None);
        let logout = with(json!({"alg": "RS256", "typ": "logout+jwt"}));
        assert_eq!((flaw(&logout, Kind::Identity), flaw(&logout, Kind::Logout)), (Some(Flaw::Format), None));
        for algorithm in ["none", "None", "NONE", "", "HS256", "HS512", "ES256", "rs256", "RS256 ", "Ed25519", "dir"] {
            let token = with(json!({ "alg": algorithm }));
            assert_eq!(flaw(&token, Kind::Identity), Some(Flaw::Algorithm), "{algorithm}");
        }
        for header in [json!({}), json!({"alg": null}), json!({"alg": ["RS256"]})] {
            assert_eq!(flaw(&with(header), Kind::Identity), Some(Flaw::Algorithm));
        }
        for name in FOREIGN {
            let token = with(json!({"alg": "RS256", name: null}));
            assert_eq!(flaw(&token, Kind::Identity), Some(Flaw::Format), "{name}");
        }
        for bad in [
            with(json!({"alg": "RS256", "kid": 1})),
            with(json!({"alg": "RS256", "typ": "at+jwt"})),
            with(json!({"alg": "RS256", "typ": 1})),
            with(json!(["alg", "RS256"])),
            format!("{good}.{claims}"),
            format!("{good}="),
            good.replacen('.', "", 1),
            good.replace("c2ln", "c2l\u{e9}"),
            format!("{}.{}.c2ln", part(&json!({"alg": "RS256"})), part(&json!([1]))),
            format!("{}.{}.c2ln", part(&json!({"alg": "RS256"})), URL_SAFE_NO_PAD.encode("x".repeat(LARGEST))),
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(flaw(&bad, Kind::Identity), Some(Flaw::Format), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_stumble(text in "\\PC{0,200}", a in "[A-Za-z0-9_-]{0,80}", b in "[A-Za-z0-9_-]{0,80}") {
            let parts = [a.as_str(), b.as_str(), a.as_str()].join(".");
            prop_assert!(flaw(&text, Kind::Identity).is_some());
            prop_assert!(flaw(&parts, Kind::Logout).is_some());
        }
    }

    // SEC-102
    #[test]
    fn how_somebody_signed_in_is_read_or_refused_by_type() {
        let read = |claims: Value| match claims {
            Value::Object(map) => How::read(&map),
            _ => panic!("an object"),
        };
        let whole =
            read(json!({"acr": "gold", "amr": ["pwd", "otp"], "auth_time": 1_700_000_000, "sid": "s"})).unwrap();
        assert_eq!((whole.acr.as_deref(), whole.amr.len(), whole.sid.as_deref()), (Some("gold"), 2, Some("s")));
        let at = OffsetDateTime::from_unix_timestamp(1_700_000_000).ok();
        assert_eq!((whole.at, read(json!({"auth_time": 1_700_000_000.75})).unwrap().at), (at, at));
        assert_eq!(read(json!({})).unwrap(), How { acr: None, amr: vec![], at: None, sid: None });
        for wrong in [
            json!({"acr": 2}),
            json!({"acr": null}),
            json!({"amr": "mfa"}),
            json!({"amr": [1]}),
            json!({"auth_time": "1700000000"}),
            json!({"auth_time": null}),
            json!({"auth_time": -1}),
            json!({"auth_time": 1e300}),
            json!({"sid": ""}),
            json!({"sid": 1}),
            json!({"sid": "x".repeat(256)}),
        ] {
            assert_eq!(read(wrong.clone()), Err(Flaw::ClaimType), "{wrong}");
        }
    }
}
