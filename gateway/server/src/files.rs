// SPDX-License-Identifier: Apache-2.0
//! The version of the policy files that this node has in effect. A shell takes versions over; every node sees within a
//! second that there is a newer one. One that cannot be read changes nothing here, and is told once.

use crate::state::{House, chain};
use portcullis_governance::take_rights;
use portcullis_policy::Engine;
use portcullis_store::Store;
use std::sync::atomic::{AtomicU32, Ordering};

/// What this node has in effect.
#[derive(Debug, Default)]
pub(crate) struct InEffect {
    number: AtomicU32,
    refused: AtomicU32,
}

impl InEffect {
    /// The version in effect as the gateway starts. Without one that can be read it does not start: what comes with the
    /// gateway might give more.
    pub(crate) async fn first(engine: &Engine, store: &Store) -> Result<Self, String> {
        let version = store.policy_version().await.map_err(|e| chain(&e))?;
        take_rights(engine, version.as_ref())
            .await
            .map_err(|e| format!("{}: take an older version over again with: portcullis policy rollback", chain(&e)))?;
        let number = AtomicU32::new(version.map_or(0, |v| v.number));
        Ok(Self { number, refused: AtomicU32::new(0) })
    }
}

impl House {
    /// Takes a newer version over, if there is one.
    pub(crate) async fn take_policy(&self) -> Result<(), portcullis_store::Error> {
        let newest = self.store.policy_number().await?;
        if newest == self.policy.number.load(Ordering::Acquire) || newest == self.policy.refused.load(Ordering::Acquire)
        {
            return Ok(());
        }
        let version = self.store.policy_version().await?;
        match take_rights(&self.engine, version.as_ref()).await {
            Ok(()) => self.policy.number.store(newest, Ordering::Release),
            Err(error) => {
                self.policy.refused.store(newest, Ordering::Release);
                tracing::error!(error = %chain(&error), version = newest, "the policy keeps its last good version");
                self.note("alarm", &format!("version {newest} of the policy cannot be taken"), &chain(&error));
            }
        }
        Ok(())
    }
}
