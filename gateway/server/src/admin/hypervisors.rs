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
use portcullis_upstream::{HealthState, HypervisorConfig, Trust, Verify};
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

fn find<'c>(config: &'c Config, name: &HypervisorName) -> Option<&'c HypervisorConfig> {
    config.hypervisors.iter().find(|h| h.name() == name)
}

/// Whose word is taken for it.
fn trust(config: &Config, name: &HypervisorName) -> String {
    let words = |address: &Option<String>, trust: &Trust| match address {
        None => "unix socket".to_owned(),
        Some(_) if trust.verify == Verify::None => "nobody: its certificate is not checked".to_owned(),
        Some(_) if !trust.pin.is_empty() => "pinned certificate".to_owned(),
        Some(_) if trust.ca_file.is_some() => "CA file".to_owned(),
        Some(_) => "the system's authorities".to_owned(),
    };
    match find(config, name) {
        Some(HypervisorConfig::Qemu(_)) => "each guest's own settings".to_owned(),
        Some(HypervisorConfig::Libvirt(c)) => words(&c.address, &c.tls),
        Some(HypervisorConfig::Lxd(c) | HypervisorConfig::Incus(c)) => words(&c.address, &c.tls),
        Some(HypervisorConfig::Proxmox(c)) => words(&Some(c.address.clone()), &c.tls),
        Some(HypervisorConfig::CloudHypervisor(_) | HypervisorConfig::Firecracker(_)) => "its unix socket".to_owned(),
        Some(HypervisorConfig::OpenStack(c)) => words(&Some(c.compute.clone()), &c.tls),
        Some(HypervisorConfig::Xapi(c)) => words(&Some(c.address.clone()), &c.tls),
        Some(HypervisorConfig::Vsphere(c)) => words(&Some(c.address.clone()), &c.tls),
        None => String::new(),
    }
}
