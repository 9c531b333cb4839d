// SPDX-License-Identifier: Apache-2.0
//! `[mail]`: the server that takes mail.

use portcullis_domain::MailAddress;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `[mail]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSection {
    /// Its name or address, which its certificate carries.
    pub host: String,
    /// Its port; none: 465, 587 and 25, by how the connection is kept from others.
    pub port: Option<u16>,
    /// How the connection is kept from others.
    #[serde(default)]
    pub tls: MailTlsWord,
    /// The authorities of its certificate; those of the system where this is not there.
    pub ca_file: Option<PathBuf>,
    /// The name that it asks for.
    pub user: Option<String>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// Whom mail comes from.
    pub from: MailAddress,
}

/// How the connection is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTlsWord {
    /// TLS from the first byte.
    #[default]
    Implicit,
    /// A plain connection that becomes TLS before anything is said.
    StartTls,
    /// None, to this machine only.
    None,
}

impl MailSection {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            MailTlsWord::Implicit => 465,
            MailTlsWord::StartTls => 587,
            MailTlsWord::None => 25,
        })
    }

    pub(super) fn rebase(&mut self, base: &Path) {
        for path in [&mut self.ca_file, &mut self.password_file].into_iter().flatten().filter(|p| p.is_relative()) {
            *path = base.join(&*path);
        }
    }

    /// What is wrong with it, behind `mail.`.
    pub(super) fn check(&self) -> Result<(), String> {
        match (&self.user, &self.password_file) {
            (Some(user), Some(_)) if user.is_empty() || user.chars().any(char::is_control) => {
                Err("user: a name on one line".to_owned())
            }
            (Some(_), None) => Err("user: name its password_file too".to_owned()),
            (None, Some(_)) => Err("password_file: name the user too".to_owned()),
            _ => Ok(()),
        }
    }
}
