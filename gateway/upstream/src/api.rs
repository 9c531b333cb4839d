// SPDX-License-Identifier: Apache-2.0
//! What must be known of a hypervisor's HTTP API to forward requests to it.

use crate::{driver::MethodApi, error::Fault, fleet::Seen, wire::Dialer};
use http::HeaderValue;
use std::sync::Arc;

/// How a hypervisor's API is reached.
pub(crate) struct Api {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) host: HeaderValue,
    pub(crate) origins: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) dialect: &'static Dialect,
    /// Where it is signed in at, if its API is called by method names.
    pub(crate) pool: Option<Arc<MethodApi>>,
}

/// What must be known of an API's addresses.
pub(crate) struct Dialect {
    /// Tells an address that opens a channel with a secret.
    pub(crate) channel: for<'a> fn(&'a str, Option<&'a str>) -> Option<ChannelRequest<'a>>,
    /// The address that opens a channel of a task with the real secret.
    pub(crate) channel_address: fn(&str, &str) -> String,
    /// Whether an address answers only when something has happened.
    pub(crate) is_long_poll: fn(&str) -> bool,
    /// Whether it takes bodies of unknown length.
    pub(crate) length: Length,
    /// Leaves out of an answer what somebody may not see; none where the API has no lists that are made smaller.
    pub(crate) rows: Option<KeepRows>,
    /// Takes the secrets out of an answer.
    pub(crate) strip: Strip,
    /// The task that an answer names, where it stands in its body.
    pub(crate) task: fn(&[u8]) -> Option<String>,
}

/// Leaves rows out of a list, and takes its secrets out.
pub(crate) type KeepRows = fn(&[u8], &Seen<'_>) -> Result<Vec<u8>, Fault>;

/// Takes secrets out of an answer, in whatever form the API writes it.
pub(crate) type Strip = fn(&[u8]) -> Result<Vec<u8>, Fault>;

/// What an API wants to know of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Nothing: it takes chunks.
    Any,
    /// How long it is.
    Needed,
}

/// A wish to open a channel.
pub(crate) struct ChannelRequest<'a> {
    pub(crate) task: &'a str,
    /// What was presented; none where it is missing or there twice.
    pub(crate) secret: Option<&'a str>,
}
