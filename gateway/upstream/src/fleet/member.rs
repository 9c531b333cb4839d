// SPDX-License-Identifier: Apache-2.0
//! One hypervisor of the fleet: its drivers, its API, and how it is doing.

use super::{Health, HealthState};
use crate::{
    api::Api,
    config::HypervisorConfig,
    desk::Desk,
    driver::{Built, Driver},
    error::Error,
    kind::{self, Kind},
    secret::{Choice, DEFAULT, Duty, Held, Kept, Site},
};
use portcullis_domain::HypervisorName;
use std::sync::{Arc, Mutex, PoisonError};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};

pub(super) struct Report {
    pub(super) state: HealthState,
    pub(super) machines: usize,
    pub(super) refreshed_at: Option<OffsetDateTime>,
    pub(super) notes: Vec<String>,
}

pub(super) struct Member {
    pub(super) name: HypervisorName,
    kind: Kind,
    /// One a credential.
    pub(super) drivers: Choice<Arc<dyn Driver>>,
    /// One a credential, where its API is HTTP.
    pub(super) api: Option<Arc<Choice<Arc<Api>>>>,
    pub(super) warnings: Vec<String>,
    address: String,
    pub(super) published: Notify,
    pub(super) report: Mutex<Report>,
    gone: watch::Sender<bool>,
}

impl Member {
    /// Reads what its configuration names and is at hand; nothing is dialled. With it come its secrets.
    pub(super) fn build(
        config: HypervisorConfig,
        kept: &Kept,
        now: OffsetDateTime,
    ) -> Result<(Self, Vec<Arc<Held>>), Error> {
        let (name, kind) = (config.name().clone(), config.kind());
        let HypervisorConfig { common, own, others, .. } = config;
        let mut held = Vec::new();
        let mut build = |credential: &str, own| {
            let mut site = Site { common: common.clone(), credential, kept, held: Vec::new() };
            let built = kind::build(&mut site, own)?;
            held.extend(site.held);
            Ok::<_, Error>(built)
        };
        let Built { driver, api, warnings, address } = build(DEFAULT, own)?;
        for warning in &warnings {
            tracing::warn!(hypervisor = %name, "{warning}");
        }
        let mut drivers: Choice<Arc<dyn Driver>> = Choice { default: driver.into(), others: Vec::new() };
        let mut lent = api.map(|api| Choice { default: Arc::new(api), others: Vec::new() });
        for (duties, own) in others {
            let Built { driver, api, .. } = build(&words(&duties), own)?;
            if let (Some(lent), Some(api)) = (&mut lent, api) {
                lent.others.push((duties.clone(), Arc::new(api)));
            }
            drivers.others.push((duties, driver.into()));
        }
        let report = Report {
            state: HealthState::Down { why: "was not asked yet".to_owned(), since: now },
            machines: 0,
            refreshed_at: None,
            notes: warnings.clone(),
        };
        let (published, report, gone) = (Notify::new(), Mutex::new(report), watch::Sender::new(false));
        let api = lent.map(Arc::new);
        Ok((Self { name, kind, drivers, api, warnings, address, published, report, gone }, held))
    }

    pub(super) fn health(&self) -> Health {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        Health {
            name: self.name.clone(),
            kind: self.kind.word(),
            address: self.address.clone(),
            state: report.state.clone(),
            machines: report.machines,
            refreshed_at: report.refreshed_at,
            notes: report.notes.clone(),
        }
    }

    /// Where people's own sessions with it are kept.
    pub(super) fn desks(&self) -> Vec<Arc<Desk>> {
        self.drivers.all().filter_map(|driver| driver.desk().cloned()).collect()
    }

    /// It is let go.
    pub(super) fn go(&self) {
        self.gone.send_replace(true);
    }

    pub(super) fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Waits until it is let go.
    pub(super) async fn gone(&self) {
        // The sender is the member's own, which is held here.
        drop(self.gone.subscribe().wait_for(|gone| *gone).await);
    }
}

/// What a credential is for, as its name.
pub(super) fn words(duties: &[Duty]) -> String {
    duties.iter().map(|d| d.word()).collect::<Vec<_>>().join("+")
}
