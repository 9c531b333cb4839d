// SPDX-License-Identifier: Apache-2.0
//! Changing a hypervisor's secret while nobody else does, on whatever node.

use super::{Desk, caller};
use anyhow::bail;
use portcullis_domain::{Clock as _, HypervisorName, SystemClock};
use portcullis_store::{Claim, Claimed};
use portcullis_upstream::SecretName;
use std::{convert::Infallible, sync::Arc, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// How long a claim lasts when it is not renewed, and how often it is.
const CLAIM: time::Duration = time::Duration::seconds(20);
const RENEW: Duration = Duration::from_secs(5);

/// Changes a secret while nobody else does. Whoever else is at it is named.
pub(super) async fn alone<T>(
    desk: &Desk,
    name: &SecretName,
    work: impl AsyncFnOnce(&Claim) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let now = SystemClock.now();
    let adding = desk.adding(&name.hypervisor);
    let whose = (&name.hypervisor, adding);
    let asked = desk.store.claim_secret(whose, &name.credential, &claimant(), (now, now + CLAIM)).await?;
    let claim = match asked {
        Claimed::Ours(claim) => claim,
        Claimed::By(other) => bail!(
            "nothing was changed: {} changes {name} since {}; wait until that has ended. If it broke off, try again \
             after {}",
            other.by,
            clock(other.since),
            clock(other.until)
        ),
    };
    let done = tokio::select! {
        done = async {
            // From here on nobody puts another in its place; before, somebody may have.
            is_still(desk, &name.hypervisor, adding).await?;
            work(&claim).await
        } => done,
        never = renew(desk, &claim) => match never {},
    };
    if let Err(error) = desk.store.release_claim(claim).await {
        tracing::warn!(%error, "the claim on the secret runs out by itself");
    }
    done
}

/// Refuses where another adding has the name by now: what was read belongs to the one before.
async fn is_still(desk: &Desk, name: &HypervisorName, adding: Option<Uuid>) -> anyhow::Result<()> {
    if desk.store.added_hypervisor_id(name).await? != adding {
        bail!("nothing was changed: {name} was changed, added or removed just now; look at it, and try again");
    }
    Ok(())
}

/// Keeps a claim. One that is lost is found out by the next change.
async fn renew(desk: &Desk, claim: &Claim) -> Infallible {
    loop {
        tokio::time::sleep(RENEW).await;
        if let Err(error) = desk.store.renew_claim(claim, SystemClock.now() + CLAIM).await {
            tracing::warn!(%error, "the claim on the secret could not be renewed");
        }
    }
}

fn clock(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Whose shell it is, for the list.
pub(super) fn by() -> String {
    let of = |(name, value): (Arc<str>, Arc<str>)| format!("{name} {value}");
    format!("command line, {}", caller().into_iter().map(of).collect::<Vec<_>>().join(", ")).chars().take(128).collect()
}

/// The same with where it runs, for whoever waits for it.
fn claimant() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}, host {}, process {}", by(), host.trim(), std::process::id()).chars().take(256).collect()
}
