// SPDX-License-Identifier: Apache-2.0
//! What a driver tells of its hypervisor: cleaned, capped, and published for everybody at once.

use super::{Fleet, HealthState, MAX_MACHINES, MAX_NOTES, member::Member};
use crate::{driver, error::Fault};
use portcullis_domain::{HypervisorName, Machine, PowerState};
use std::sync::{Arc, PoisonError};

/// Where a driver puts what it learns about its own hypervisor.
pub(crate) struct Board {
    pub(super) fleet: Fleet,
    pub(super) member: Arc<Member>,
}

impl Board {
    /// The hypervisor's name.
    pub(crate) fn hypervisor(&self) -> &HypervisorName {
        &self.member.name
    }

    /// Replaces the hypervisor's machines, after cleaning and capping what it said. `notes` tell people what was left
    /// out.
    pub(crate) fn publish(&self, machines: Vec<Machine>, mut notes: Vec<String>) {
        let found = machines.len();
        let mut clean: Vec<Machine> =
            machines.into_iter().take(MAX_MACHINES).map(|m| driver::clean(m, &mut notes)).collect();
        clean.sort_by(|a, b| a.at.cmp(&b.at));
        clean.dedup_by(|a, b| a.at == b.at);
        if found > MAX_MACHINES {
            notes.insert(0, format!("{found} machines are too many: only {MAX_MACHINES} are shown"));
        }
        let count = clean.len();
        self.swap(clean);
        let mut report = self.member.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.machines = count;
        report.refreshed_at = Some(self.fleet.0.clock.now());
        report.notes = self.member.warnings.iter().cloned().chain(notes).take(MAX_NOTES).collect();
        if report.state != HealthState::Ok {
            tracing::info!(hypervisor = %self.member.name, machines = count, "hypervisor answers");
            report.state = HealthState::Ok;
        }
        drop(report);
        self.member.published.notify_one();
    }

    /// Whether a list was published since the start.
    pub(crate) fn has_published(&self) -> bool {
        self.member.report.lock().unwrap_or_else(PoisonError::into_inner).refreshed_at.is_some()
    }

    /// The hypervisor does not answer: its machines stay known, so that people find them, with an unknown state.
    pub(crate) fn lose(&self, fault: &Fault) {
        let since = self.fleet.0.clock.now();
        let inventory = self.fleet.inventory();
        let own = inventory.iter().filter(|m| m.at.hypervisor == self.member.name);
        self.swap(own.map(|m| Machine { state: PowerState::Unknown, ..m.clone() }).collect());
        let mut report = self.member.report.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match &report.state {
            HealthState::Down { since, .. } => *since,
            HealthState::Ok => since,
        };
        report.state = HealthState::Down { why: fault.to_string(), since };
    }

    fn swap(&self, machines: Vec<Machine>) {
        let inner = &self.fleet.0;
        let _one_at_a_time = inner.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: whoever lets it go takes its machines away under the same one, afterwards.
        if self.member.is_gone() {
            return;
        }
        let now = inner.inventory.load();
        // Nothing changed, which is the usual case each 30 seconds: readers keep their snapshot.
        if now.iter().filter(|m| m.at.hypervisor == self.member.name).eq(machines.iter()) {
            return;
        }
        inner.inventory.store(Arc::new(now.with(&self.member.name, machines)));
    }
}
