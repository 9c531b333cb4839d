// SPDX-License-Identifier: Apache-2.0
//! How a hypervisor knows the gateway by a header of each request: one that never changes, or a token that the driver
//! gets by signing in and renews before it runs out.

use crate::{error::Fault, secret::Derived};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Notify;

/// A header of each request. Its value is marked as sensitive.
#[derive(Clone)]
pub(crate) enum Badge {
    /// `Authorization`, made of the secret.
    Made(Arc<Derived<HeaderValue>>),
    /// A token that changes.
    Renewed(Arc<Renewed>),
}

/// A token that changes.
pub(crate) struct Renewed {
    /// What it is shown as.
    name: HeaderName,
    /// The header by which this API ties what it does to who asked, and what stands before the id there.
    tie: Option<(HeaderName, &'static str)>,
    value: RwLock<Option<HeaderValue>>,
    account: RwLock<Option<Account>>,
    /// Somebody found that it does not count any more.
    pub(crate) wanted: Notify,
}

/// What the gateway's own account sees there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The id of the project that what it makes belongs to.
    pub project: String,
    /// Its name.
    pub project_name: String,
    /// What the addresses of the API begin with.
    pub base: String,
    /// The region that the API is of.
    pub region: String,
}

impl Badge {
    /// The header; none where the gateway is not signed in at the moment.
    pub(crate) fn show(&self) -> Result<(HeaderName, HeaderValue), Fault> {
        match self {
            Self::Made(value) => Ok((AUTHORIZATION, value.now()?.1.clone())),
            Self::Renewed(token) => token.show(),
        }
    }

    /// What the gateway's own account sees there, where it signed in.
    pub(crate) fn account(&self) -> Option<Account> {
        let Self::Renewed(token) = self else { return None };
        token.account.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The header that says which request of ours this is, by its id in hex digits with dashes.
    pub(crate) fn tie(&self, request: uuid::Uuid) -> Option<(HeaderName, HeaderValue)> {
        let Self::Renewed(token) = self else { return None };
        let (name, before) = token.tie.as_ref()?;
        let value = HeaderValue::from_str(&format!("{before}{request}")).ok()?;
        Some((name.clone(), value))
    }

    /// It was refused: whoever renews it looks at it at once.
    pub(crate) fn refused(&self) {
        if let Self::Renewed(token) = self {
            token.wanted.notify_one();
        }
    }
}

impl Renewed {
    /// None yet.
    pub(crate) fn new(name: HeaderName, tie: Option<(HeaderName, &'static str)>) -> Self {
        Self { name, tie, value: RwLock::new(None), account: RwLock::new(None), wanted: Notify::new() }
    }

    /// The header; none where the gateway is not signed in at the moment.
    pub(crate) fn show(&self) -> Result<(HeaderName, HeaderValue), Fault> {
        let value = self.value.read().unwrap_or_else(PoisonError::into_inner).clone();
        let missing = || Fault::hung_up("the gateway is not signed in there at the moment");
        value.map(|value| (self.name.clone(), value)).ok_or_else(missing)
    }

    /// Takes a new one, and what it sees.
    pub(crate) fn set(&self, value: Option<HeaderValue>, account: Option<Account>) {
        *self.account.write().unwrap_or_else(PoisonError::into_inner) = account;
        let value = value.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        *self.value.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}
