// SPDX-License-Identifier: Apache-2.0
//! The building: doors, corridors, reception.
//!
//! In: sockets, a configuration file, a command line. Out: a gateway that runs ([`Running`]), or one clear line that
//! says what is wrong. This room owns HTTP on our side, templates, status codes and configuration; every request walks
//! through `passage`, which calls the other rooms in order.
//!
//! ```text
//! listener ─► layers ─┬─► router ─► passage ─► pages, admin, console   (own doors)
//!                     └─► api ────► passage ─► upstream                (hypervisor APIs)
//! ```
//!
//! What must never happen here: a way to a handler, an upstream or a console around the passage; a status code decided
//! outside `reply`; a secret in a page, a log line or an address; a listener that opens before everything else works.
//!
//! Decisions
//! - 2026-11-21: a shard is one thread with its own listeners (`SO_REUSEPORT`) and its own connections to hypervisors;
//!   no lock is shared on a proxied request. Housekeeping has a thread of its own.
//! - 2026-11-21: tools present a token and never a cookie on hypervisor APIs: a web page cannot ride on a signed-in
//!   browser there.
//! - 2026-11-21: a form that meets a step-up is not lost: it can carry the fresh code itself (`step_up_code`).

mod adding;
mod admin;
mod api;
mod assets;
mod body;
pub mod cli;
mod client_key;
mod config;
mod csv;
mod dialect;
mod doors;
mod events;
mod files;
mod files_tests;
mod guest;
mod health;
mod layers;
mod leash;
mod listener;
mod lives;
mod locks;
mod logs;
mod nodes;
mod openapi;
mod pace;
mod pages;
mod passage;
mod providers;
mod recordings;
mod reply;
mod requests;
mod roster;
mod router;
mod scim;
mod screen;
mod secrets;
mod shut;
mod start;
mod state;
mod tell;
mod tls;
mod view;

pub use cli::init_at as init;
pub use config::{Config, ConfigError};
pub use start::{Running, Transport};
