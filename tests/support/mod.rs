// SPDX-License-Identifier: Apache-2.0
//! What the journeys stand on: a whole gateway on loopback, people with browsers, and real peers.

// The one authenticator in software, which the identity room's own tests use too.
#[path = "../../gateway/identity/src/testing/authenticator.rs"]
pub(crate) mod authenticator;
pub(crate) mod fake;
pub(crate) mod fake_esx;
pub(crate) mod fake_libvirtd;
pub(crate) mod fake_lxd;
pub(crate) mod fake_openstack;
pub(crate) mod fake_pve;
pub(crate) mod fake_vault;
pub(crate) mod fake_vmm;
pub(crate) mod gateway;
pub(crate) mod lab;
pub(crate) mod lxc;
pub(crate) mod page;
pub(crate) mod peers;
pub(crate) mod person;
pub(crate) mod played;
pub(crate) mod provider;
pub(crate) mod screen;
pub(crate) mod trail;
pub(crate) mod virsh;

pub(crate) use fake_esx::FakeEsx;
pub(crate) use fake_lxd::FakeLxd;
pub(crate) use fake_openstack::FakeOpenStack;
pub(crate) use fake_pve::FakePve;
pub(crate) use fake_vault::FakeVault;
pub(crate) use fake_vmm::FakeVmm;
pub(crate) use gateway::TestGateway;
pub(crate) use person::Person;

/// Whether the long experiments are wanted in full length (`tests/run --full`).
pub(crate) fn full_length() -> bool {
    std::env::var("PORTCULLIS_TEST_FULL").is_ok_and(|v| v == "1")
}
