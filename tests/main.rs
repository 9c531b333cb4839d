// SPDX-License-Identifier: Apache-2.0
//! The contents page of the tests that speak to a whole gateway.
#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends at the first surprise")]

mod architecture;
mod doors {
    mod apis;
    mod coverage;
    mod table;
}
mod journeys {
    mod api_door;
    mod api_leash;
    mod canaries;
    mod console;
    mod console_time;
    mod first_day;
    mod hostile_screen;
    mod killed;
    mod leash;
    mod libvirt;
    mod limits;
    mod lost_trail;
    mod lxd_api;
    mod passkeys;
    mod people;
    mod postgres;
    mod provider;
    mod provider_modules;
    mod recordings;
    mod refused_starts;
    mod sign_in;
}
mod support;
