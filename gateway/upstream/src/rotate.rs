// SPDX-License-Identifier: Apache-2.0
//! What a credential may do at its hypervisor, and replacing its secret there. The order of the steps, and what happens
//! when one fails, is the caller's; each of them is one thing that is done or not.

use crate::{
    driver::{Driver, clean_text},
    error::{Error, Fault},
    fleet::Fleet,
    secret::{DEFAULT, SecretName},
};
use portcullis_domain::{Action, Secret};
use std::{collections::BTreeSet, sync::Arc};
use time::OffsetDateTime;

/// As whom the gateway is known at a hypervisor, and what that may do there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAs {
    /// The name there.
    pub who: String,
    /// What it may do, as far as the hypervisor says: the action, and the hypervisor's own word for it.
    pub powers: Vec<(Action, String)>,
    /// Why what it may do is not known, or not all of it.
    pub untold: Option<String>,
    /// When the secret ends by itself, where it does.
    pub ends_at: Option<OffsetDateTime>,
}

impl KnownAs {
    pub(crate) fn new(who: impl Into<String>, powers: Vec<(Action, String)>) -> Self {
        Self { who: who.into(), powers, untold: None, ends_at: None }
    }

    /// One whose powers nobody tells.
    pub(crate) fn untold(who: impl Into<String>, why: impl Into<String>) -> Self {
        Self { untold: Some(why.into()), ..Self::new(who, Vec::new()) }
    }
}

/// What a hypervisor's words for rights mean: the beginning of a word, and the action; the first that fits counts.
pub(crate) type Meanings = [(&'static str, Action)];

/// What the words mean that have a meaning here, each once.
pub(crate) fn powers(meanings: &Meanings, words: impl IntoIterator<Item = String>) -> Vec<(Action, String)> {
    let words: BTreeSet<String> = words.into_iter().collect();
    let meaning = |word: &str| meanings.iter().find(|(beginning, _)| word.starts_with(beginning)).map(|(_, a)| *a);
    words.into_iter().filter_map(|word| Some((meaning(&word)?, clean_text(&word)))).collect()
}

/// What stands beside a secret that a rotation made, where there is room for words.
pub(crate) const COMMENT: &str = "portcullis";

/// The name of a new secret beside an old one: eight new characters behind what the first name was.
pub(crate) fn next_name(name: &str) -> String {
    let mut bytes = [0; 4];
    // Chance only keeps names apart; one that is there already is refused.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    format!("{}-{}", first_name(name), hex::encode(bytes))
}

/// What the first name was.
pub(crate) fn first_name(name: &str) -> &str {
    let is_ours = |t: &str| t.len() == 8 && t.bytes().all(|b| b.is_ascii_hexdigit());
    name.rsplit_once('-').filter(|(_, end)| is_ours(end)).map_or(name, |(base, _)| base)
}

/// How a secret of a hypervisor is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The hypervisor makes a new one, and both count until the old one is taken away.
    Made,
    /// A new one of this form is given to it.
    Given(Form),
    /// Not by its API; the words say why.
    ByHand(&'static str),
}

/// What a new secret looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A password. Only one counts at a time.
    Password,
    /// A client certificate with its key, as PEM. Both count until the old one is taken away.
    Certificate,
}

impl Form {
    /// Whether the old one counts beside the new one.
    pub const fn has_both(self) -> bool {
        matches!(self, Self::Certificate)
    }
}

impl Fleet {
    fn driver_of(&self, name: &SecretName) -> Result<Arc<dyn Driver>, Error> {
        let unknown = || Error::UnknownHypervisor(name.hypervisor.clone());
        let is_known = self.secrets().states().iter().any(|s| s.name == *name);
        if !is_known {
            return Err(unknown());
        }
        self.driver_called(&name.hypervisor, &name.credential).ok_or_else(unknown)
    }

    /// As whom the gateway is known with a credential: a call that shows that the credential counts.
    pub async fn known_as(&self, name: &SecretName) -> Result<KnownAs, Error> {
        self.driver_of(name)?.known_as().await.map_err(|f| f.at(&name.hypervisor))
    }

    /// Whether there is a secret of that name.
    pub fn names(&self, name: &SecretName) -> Result<(), Error> {
        self.driver_of(name).map(drop)
    }

    /// How a secret is replaced.
    pub async fn rotation(&self, name: &SecretName) -> Result<Rotation, Error> {
        self.driver_of(name)?.rotation().await.map_err(|f| f.at(&name.hypervisor))
    }

    /// What a new secret changes beside what the gateway shows, for somebody to agree to.
    pub fn caution(&self, name: &SecretName) -> Result<Option<&'static str>, Error> {
        Ok(self.driver_of(name)?.caution())
    }

    /// What a secret is called at the hypervisor, for people who look for it there. Never the secret.
    pub fn label(&self, name: &SecretName, secret: &Secret) -> String {
        let label = self.driver_of(name).ok().and_then(|driver| driver.label(secret));
        label.unwrap_or_else(|| format!("a secret of {name}"))
    }

    /// The secret in use, for whoever puts it back.
    pub fn secret(&self, name: &SecretName) -> Result<Secret, Error> {
        let value = self.secrets().value(name).ok_or_else(|| Error::UnknownHypervisor(name.hypervisor.clone()))?;
        value.map(|s| Secret::clone(&s)).map_err(|f| f.at(&name.hypervisor))
    }

    /// What rotations made at the hypervisor and a credential is not, as far as it tells; by their labels.
    pub async fn others(&self, name: &SecretName) -> Result<Vec<String>, Error> {
        self.driver_of(name)?.others().await.map_err(|f| f.at(&name.hypervisor))
    }

    /// Which others hold the very secret that one holds.
    pub fn sharing(&self, name: &SecretName) -> Vec<SecretName> {
        let value = |name: &SecretName| self.secrets().value(name)?.ok();
        let Some(own) = value(name) else { return Vec::new() };
        let names = self.secrets().states().into_iter().map(|state| state.name).filter(|other| other != name);
        names.filter(|other| value(other).is_some_and(|other| other.expose() == own.expose())).collect()
    }

    /// Has the hypervisor make a new secret beside the one in use.
    pub async fn make_secret(&self, name: &SecretName) -> Result<Secret, Error> {
        self.driver_of(name)?.make_secret().await.map_err(|f| f.at(&name.hypervisor))
    }

    /// Gives the hypervisor a new secret.
    pub async fn put_secret(&self, name: &SecretName, new: &Secret) -> Result<(), Error> {
        self.driver_of(name)?.put_secret(new).await.map_err(|f| f.at(&name.hypervisor))
    }

    /// Takes a secret away at the hypervisor, which is not the one in use.
    pub async fn retire_secret(&self, name: &SecretName, old: &Secret) -> Result<(), Error> {
        self.driver_of(name)?.retire_secret(old).await.map_err(|f| f.at(&name.hypervisor))
    }
}

/// A new password: 40 letters and digits, more than 230 bits. There is one of each kind, as rules for passwords want it.
pub fn new_password() -> Result<Secret, Error> {
    loop {
        let password = forty()?;
        let has = |is: fn(&u8) -> bool| password.expose().iter().any(is);
        if has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit) {
            return Ok(password);
        }
    }
}

fn forty() -> Result<Secret, Error> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let failed = || Error::Busy("the system gave no random bytes".to_owned());
    let mut password = Vec::with_capacity(40);
    while password.len() < 40 {
        let mut bytes = zeroize::Zeroizing::new([0_u8; 64]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| failed())?;
        // Bytes from 248 on would make the first letters likelier.
        let letters = bytes.iter().filter(|b| **b < 248).filter_map(|b| LETTERS.get(usize::from(*b) % LETTERS.len()));
        password.extend(letters.take(40 - password.len()));
    }
    Ok(Secret::new(password))
}

impl SecretName {
    /// The one that is lent where no other one is for the action.
    pub fn default_of(hypervisor: portcullis_domain::HypervisorName) -> Self {
        Self { hypervisor, credential: DEFAULT.to_owned() }
    }
}

/// That something is not known to the driver of this kind.
pub(crate) fn by_hand() -> Fault {
    Fault::Unsupported("its secret is replaced by hand".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_name_grows_no_longer_each_time() {
        let one = next_name("gateway");
        let two = next_name(&one);
        assert!(one.starts_with("gateway-") && one.len() == 16 && two.len() == 16 && one != two, "{one} {two}");
        assert_eq!(next_name("my-gateway").len(), "my-gateway-12345678".len());
    }

    #[test]
    fn a_new_password_is_long_and_never_the_same() {
        let two = [0; 2].map(|_| new_password().unwrap());
        let [one, other] = two.map(|p| p.expose_text().unwrap().to_owned());
        assert_ne!(one, other);
        assert!(one.len() == 40 && one.bytes().all(|b| b.is_ascii_alphanumeric()), "{one}");
        // By chance alone, one in a thousand has no digit.
        for _ in 0..5_000 {
            let password = new_password().unwrap();
            assert!(password.expose().iter().any(u8::is_ascii_digit));
        }
    }
}
