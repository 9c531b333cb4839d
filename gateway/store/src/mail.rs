// SPDX-License-Identifier: Apache-2.0
//! Where mail reaches people. An address is no name: nobody is found, made or joined by it.

use crate::{
    Error, Store, from_micros,
    tx::{execute, from_word, parse, read, word},
};
use portcullis_domain::{MailAddress, UserId, micros};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use time::OffsetDateTime;

/// Who says where mail reaches somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressSource {
    /// An administrator: their word stays until an administrator takes it back.
    Administrator,
    /// The identity provider that the person comes from.
    Provider,
    /// The company's directory.
    Directory,
}

impl AddressSource {
    /// The words for people, behind the address.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Administrator => "written by an administrator",
            Self::Provider => "as their identity provider says",
            Self::Directory => "as the company's directory says",
        }
    }
}

/// Where mail reaches somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: MailAddress,
    /// Who says so.
    pub by: AddressSource,
    /// Since when.
    pub at: OffsetDateTime,
}

const T: &str = "mail_addresses";

impl Store {
    /// Writes an address down, or takes it back with none. What an administrator wrote, nobody else changes; a provider
    /// and a directory take back their own word only. Gives whether anything changed. [`Error::NotFound`] for nobody.
    pub async fn set_address(
        &self,
        user: UserId,
        address: Option<&MailAddress>,
        by: AddressSource,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = if let Some(address) = address {
            execute!(
                tx,
                "insert into mail_addresses (user_id, address, said_by, said_at) values ($1, $2, $3, $4) \
                 on conflict (user_id) do update set address = excluded.address, said_by = excluded.said_by, \
                 said_at = excluded.said_at \
                 where (mail_addresses.said_by <> 'administrator' or excluded.said_by = 'administrator') \
                 and (mail_addresses.address <> excluded.address or mail_addresses.said_by <> excluded.said_by)",
                user.to_string(),
                address.as_str(),
                word(&by),
                micros(now)
            )
            .map_err(|e| e.or_missing("this person"))?
        } else {
            let sql = "delete from mail_addresses where user_id = $1 and ($2 = 'administrator' or said_by = $2)";
            execute!(tx, sql, user.to_string(), word(&by))?
        };
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Where mail reaches somebody, if that is known.
    pub async fn address_of(&self, user: UserId) -> Result<Option<Address>, Error> {
        let rows = read!(
            self,
            (String, String, i64),
            "select address, said_by, said_at from mail_addresses where user_id = $1",
            user.to_string()
        )?;
        let read = |(address, by, at): (String, String, i64)| {
            let address = parse(T, "address", &address)?;
            Ok(Address { address, by: from_word(T, "said_by", by)?, at: from_micros(at) })
        };
        rows.into_iter().next().map(read).transpose()
    }

    /// Every address.
    pub async fn addresses(&self) -> Result<HashMap<UserId, MailAddress>, Error> {
        let rows = read!(self, (String, String), "select user_id, address from mail_addresses")?;
        rows.iter().map(|(user, address)| Ok((parse(T, "user_id", user)?, parse(T, "address", address)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, on_both, person};
    use uuid::Uuid;

    #[tokio::test]
    async fn what_an_administrator_wrote_stays_and_others_take_back_their_own_word_only() {
        use AddressSource::{Administrator, Directory, Provider};
        on_both(async |b| {
            let store = b.open().await;
            let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
            let text = |name: &str| format!("{name}@example.org").parse::<MailAddress>().unwrap();
            let (one, two) = (text("one"), text("two"));
            let at = |by| Some(Address { address: one.clone(), by, at: NOON });
            assert_eq!(store.address_of(ada).await.unwrap(), None);
            assert!(!store.set_address(ada, None, Provider, NOON).await.unwrap());
            assert!(store.set_address(ada, Some(&two), Directory, NOON).await.unwrap());
            assert!(store.set_address(ada, Some(&one), Provider, NOON).await.unwrap());
            assert!(!store.set_address(ada, Some(&one), Provider, NOON).await.unwrap(), "it is so already");
            assert_eq!(store.address_of(ada).await.unwrap(), at(Provider));
            assert!(!store.set_address(ada, None, Directory, NOON).await.unwrap(), "it is the provider's word");
            assert!(store.set_address(ada, Some(&one), Administrator, NOON).await.unwrap());
            for by in [Provider, Directory] {
                assert!(!store.set_address(ada, Some(&two), by, NOON).await.unwrap());
                assert!(!store.set_address(ada, None, by, NOON).await.unwrap());
            }
            assert_eq!(store.address_of(ada).await.unwrap(), at(Administrator));
            // Two people may read the same mail: an address is no name.
            assert!(store.set_address(bob, Some(&one), Provider, NOON).await.unwrap());
            assert_eq!(store.addresses().await.unwrap(), HashMap::from([(ada, one.clone()), (bob, one.clone())]));
            assert!(store.set_address(ada, None, Administrator, NOON).await.unwrap());
            assert_eq!(store.address_of(ada).await.unwrap(), None);
            let nobody = UserId::new(Uuid::from_u128(5));
            let nowhere = store.set_address(nobody, Some(&one), Administrator, NOON).await;
            assert!(matches!(nowhere, Err(Error::NotFound(_))), "{nowhere:?}");
        })
        .await;
    }
}
