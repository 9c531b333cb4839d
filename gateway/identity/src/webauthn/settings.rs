// SPDX-License-Identifier: Apache-2.0
//! What an operator may choose about passkeys.

use serde::Deserialize;
use std::path::PathBuf;
use uuid::Uuid;

/// `[identity.passkeys]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PasskeySettings {
    /// Where a passkey must check a PIN, a finger or a face.
    pub user_verification: UserVerification,
    /// The only models that may be added; empty: any.
    pub allowed: Vec<AllowedModel>,
}

/// Where a passkey must check a PIN, a finger or a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserVerification {
    /// Where it signs somebody in by itself.
    #[default]
    SignIn,
    /// Everywhere: as a second step and to confirm, too.
    Always,
}

/// A model of security key that may be added, and who vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedModel {
    /// The model's AAGUID.
    pub aaguid: Uuid,
    /// PEM file with the certificate that its maker signs attestations with, or one above it.
    pub ca_file: PathBuf,
}
