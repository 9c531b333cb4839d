// SPDX-License-Identifier: Apache-2.0
//! Where mail reaches people. It signs nobody in, and nobody is found by it: a provider that lets somebody write another
//! one's address gives them no more than that one's mail.

use crate::{Error, Identity, Inner};
use portcullis_domain::{MailAddress, UserId};
use portcullis_store::{Address, AddressSource};
use serde_json::{Map, Value};

/// What a provider says of somebody's address (OpenID Connect Core 1.0 section 5.1).
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// Nothing.
    Nothing,
    /// An address that it has not verified, or none that mail can be sent to.
    NotGood,
    /// This one, which it has verified.
    Good(MailAddress),
}

fn said(claims: &Map<String, Value>) -> Said {
    let Some(email) = claims.get("email") else { return Said::Nothing };
    let verified = claims.get("email_verified") == Some(&Value::Bool(true));
    match email.as_str().filter(|_| verified).and_then(|text| text.trim().parse().ok()) {
        Some(address) => Said::Good(address),
        None => Said::NotGood,
    }
}

impl Inner {
    /// Takes a provider's word for an address, if it is verified; an address that it no longer vouches for goes.
    pub(crate) async fn keep_address(&self, user: UserId, claims: &Map<String, Value>) -> Result<(), Error> {
        let address = match said(claims) {
            Said::Nothing => return Ok(()),
            Said::NotGood => None,
            Said::Good(address) => Some(address),
        };
        let kept = self.store.set_address(user, address.as_ref(), AddressSource::Provider, self.clock.now()).await;
        kept.map(drop).map_err(Error::store)
    }
}

impl Identity {
    /// Writes down where mail reaches somebody, or takes that back with none. What an administrator wrote, nobody else
    /// changes; gives whether anything changed.
    pub async fn set_address(
        &self,
        user: UserId,
        address: Option<&MailAddress>,
        by: AddressSource,
    ) -> Result<bool, Error> {
        self.0.store.set_address(user, address, by, self.0.clock.now()).await.map_err(Error::store)
    }

    /// Where mail reaches somebody, if that is known.
    pub async fn address_of(&self, user: UserId) -> Result<Option<Address>, Error> {
        self.0.store.address_of(user).await.map_err(Error::store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_an_address_that_the_provider_verified_is_believed() {
        let of = |claims: Value| {
            let Value::Object(claims) = claims else { panic!("an object") };
            said(&claims)
        };
        let good = || Said::Good("ada@example.org".parse().unwrap());
        assert_eq!(of(json!({"email": "ada@example.org", "email_verified": true})), good());
        assert_eq!(of(json!({"email": " ada@example.org ", "email_verified": true})), good());
        assert_eq!(of(json!({"email_verified": true})), Said::Nothing);
        for not in [
            json!({"email": "ada@example.org"}),
            json!({"email": "ada@example.org", "email_verified": false}),
            json!({"email": "ada@example.org", "email_verified": "true"}),
            json!({"email": "ada@example.org", "email_verified": 1}),
            json!({"email": ["ada@example.org"], "email_verified": true}),
            json!({"email": "ada@example.org\r\nBcc: eve@example.org", "email_verified": true}),
            json!({"email": "", "email_verified": true}),
            json!({"email": null, "email_verified": true}),
        ] {
            assert_eq!(of(not.clone()), Said::NotGood, "{not}");
        }
    }
}
