// SPDX-License-Identifier: Apache-2.0
//! `portcullis policy`: what the roles may do, and why.

use super::{Answer, At};
use clap::Subcommand;
use portcullis_policy::Engine;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Print who may do what: every role, kind of thing and action
    Matrix,
    /// Check a policy file without using it
    Check {
        /// The CSV file
        file: PathBuf,
    },
    /// List the roles and what they are for
    Roles {
        #[command(flatten)]
        at: At,
    },
}

pub(super) async fn matrix() -> anyhow::Result<Answer> {
    print!("{}", Engine::builtin().await?.matrix());
    Ok(Answer::Yes)
}

impl Policy {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::Matrix => matrix().await,
            Self::Check { file } => {
                let text = std::fs::read_to_string(&file).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
                match Engine::builtin().await?.check(&text).await {
                    Ok(()) => {
                        println!("{}: good", file.display());
                        Ok(Answer::Yes)
                    }
                    Err(error) => {
                        println!("{}: {error}", file.display());
                        Ok(Answer::No)
                    }
                }
            }
            Self::Roles { at } => {
                let engine = Engine::builtin().await?;
                at.print(&engine.roles(), &["name", "words"])?;
                Ok(Answer::Yes)
            }
        }
    }
}
