// SPDX-License-Identifier: Apache-2.0
//! Where secrets come from.

use portcullis_domain::Secret;
use serde::Deserialize;
use std::{path::PathBuf, sync::Arc};

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file that only its owner may read.
    File(PathBuf),
    /// A variable of the process's environment.
    Environment(String),
    /// A key of a secret in HashiCorp Vault, KV version 2.
    Vault {
        /// Its path below the mount.
        path: String,
        /// Which of its keys.
        key: String,
    },
    /// The store, with which its hypervisor was added; no file names it.
    Given(Given),
}

/// A secret that came with a hypervisor that was added. Nothing prints it.
#[derive(Clone)]
pub(crate) struct Given(pub(crate) Arc<Secret>);

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Given")
    }
}

impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose() == other.0.expose()
    }
}

impl Eq for Given {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    file: Option<PathBuf>,
    env: Option<String>,
    vault: Option<String>,
    key: Option<String>,
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let of = Written::deserialize(deserializer)?;
        let is_path = |p: &str| {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
            !p.is_empty() && p.bytes().all(is_plain) && p.split('/').all(|part| !matches!(part, "" | "." | ".."))
        };
        match (of.file, of.env, of.vault, of.key) {
            (Some(file), None, None, None) => Ok(Self::File(file)),
            (None, Some(name), None, None) if !name.is_empty() && !name.contains(['=', '\0']) => {
                Ok(Self::Environment(name))
            }
            (None, None, Some(path), Some(key)) if is_path(&path) && !key.is_empty() => Ok(Self::Vault { path, key }),
            _ => Err(D::Error::custom(
                "a secret is a file by its own key, or { env = \"NAME\" }, or { vault = \"path/below/the/mount\", key = \"name\" }",
            )),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Vault { path, key } => write!(f, "vault {path} {key}"),
            Self::Given(_) => f.write_str("store"),
        }
    }
}
