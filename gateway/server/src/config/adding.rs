// SPDX-License-Identifier: Apache-2.0
//! `[adding]`: adding hypervisors while the gateway runs.

use portcullis_upstream::Dial;
use serde::Deserialize;

/// `[adding]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adding {
    /// How often a minute one person may have an address met or a credential tried.
    pub per_minute: u32,
    /// Whether addresses of this machine, and those that only count on a link, may be added.
    pub loopback: bool,
}

impl Default for Adding {
    fn default() -> Self {
        Self { per_minute: 10, loopback: false }
    }
}

impl Adding {
    /// Which addresses may be dialled.
    pub(crate) const fn dial(self) -> Dial {
        if self.loopback { Dial::Anywhere } else { Dial::Outside }
    }
}
