// SPDX-License-Identifier: Apache-2.0
//! The contents page of the tests that speak to a whole gateway.
#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends at the first surprise")]

mod architecture;
mod doors {
    mod apis;
    mod coverage;
    mod frames;
    mod table;
    mod wire;
}
mod journeys {
    mod accounts;
    mod adding;
    mod api_door;
    mod api_leash;
    mod break_glass;
    mod canaries;
    mod console;
    mod console_time;
    mod cutting;
    mod doctor;
    mod duties;
    mod each_intent;
    mod files_only;
    mod first_day;
    mod grants;
    mod greyed;
    mod history;
    mod hostile_screen;
    mod incus;
    mod killed;
    mod kubevirt;
    mod leash;
    mod libvirt;
    mod libvirt_rpc;
    mod libvirt_rpc_door;
    mod limits;
    mod locks;
    mod lost_trail;
    mod lxc;
    mod lxc_door;
    mod lxd_api;
    mod mail;
    mod openstack;
    mod ovirt;
    mod passkeys;
    mod people;
    mod postgres;
    mod provider;
    mod provider_modules;
    mod proxmox;
    mod recordings;
    mod refused_starts;
    mod requests;
    mod rotation_kinds;
    mod rotations;
    mod scim;
    mod scripts;
    mod second_person;
    mod secrets;
    mod sign_in;
    mod vmm;
    mod vsphere;
    mod vsphere_rest;
    mod xapi;
}
mod support;
