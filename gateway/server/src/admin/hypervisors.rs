// SPDX-License-Identifier: Apache-2.0
//! The configured hypervisors and how they answer.

use crate::config::Config;
use crate::{
    guest::Guest,
    pages::{Answer, page},
    state::House,
    view::{HypervisorRow, HypervisorState, Hypervisors},
};
use axum::extract::State;
use portcullis_domain::{Action, HypervisorName, OwnObject, Resource};
use portcullis_upstream::{HealthState, Reach, Verify};
use std::sync::Arc;

pub(crate) async fn list(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    let rows = house
        .fleet
        .health()
        .into_iter()
        .map(|health| HypervisorRow {
            api: house.api_address(&health.name),
            address: health.address,
            trust: trust(&house.config, &health.name),
            name: health.name.to_string(),
            kind: health.kind.to_owned(),
            machines: health.machines,
            state: match health.state {
                HealthState::Ok if health.notes.is_empty() => HypervisorState::Up,
                HealthState::Ok => HypervisorState::Warn(health.notes.join("; ")),
                HealthState::Down { why, since } => HypervisorState::Down(why, house.when(since)),
            },
        })
        .collect();
    let may_lock = house.may(guest.actor()?, Action::Lock, Resource::Own(OwnObject::Sessions));
    page(&Hypervisors { shell: house.shell(&guest).await, rows, may_lock })
}

/// Whose word is taken for it.
fn trust(config: &Config, name: &HypervisorName) -> String {
    let Some(hypervisor) = config.hypervisors.iter().find(|h| h.name() == name) else { return String::new() };
    let trust = hypervisor.trust();
    let words = match hypervisor.reach() {
        Reach::Guests => "each guest's own settings",
        Reach::Socket => "its unix socket",
        Reach::Network if trust.verify == Verify::None => "nobody: its certificate is not checked",
        Reach::Network if !trust.pin.is_empty() => "pinned certificate",
        Reach::Network if trust.ca_file.is_some() => "CA file",
        Reach::Network => "the system's authorities",
    };
    words.to_owned()
}
