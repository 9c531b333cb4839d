// SPDX-License-Identifier: Apache-2.0
//! What a credential may do at its hypervisor, and replacing its secret there. The order of the steps, and what happens
//! when one fails, is the caller's; each of them is one thing that is done or not.

use crate::{
    driver::Driver,
    error::{Error, Fault},
    fleet::Fleet,
    secret::{DEFAULT, SecretName},
};
use portcullis_domain::{Action, Secret};

/// As whom the gateway is known at a hypervisor, and what that may do there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAs {
    /// The name there.
    pub who: String,
    /// What it may do, as far as the hypervisor says: the action, and the hypervisor's own word for it.
    pub powers: Vec<(Action, String)>,
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
    fn driver_of(&self, name: &SecretName) -> Result<&dyn Driver, Error> {
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

    /// How a secret is replaced.
    pub fn rotation(&self, name: &SecretName) -> Result<Rotation, Error> {
        Ok(self.driver_of(name)?.rotation())
    }

    /// The secret in use, for whoever puts it back.
    pub fn secret(&self, name: &SecretName) -> Result<Secret, Error> {
        let value = self.secrets().value(name).ok_or_else(|| Error::UnknownHypervisor(name.hypervisor.clone()))?;
        value.map(|s| Secret::clone(&s)).map_err(|f| f.at(&name.hypervisor))
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

/// A new password: 40 letters and digits, more than 230 bits.
pub fn new_password() -> Result<Secret, Error> {
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
    fn a_new_password_is_long_and_never_the_same() {
        let two = [0; 2].map(|_| new_password().unwrap());
        let [one, other] = two.map(|p| p.expose_text().unwrap().to_owned());
        assert_ne!(one, other);
        assert!(one.len() == 40 && one.bytes().all(|b| b.is_ascii_alphanumeric()), "{one}");
    }
}
