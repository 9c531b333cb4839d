// SPDX-License-Identifier: Apache-2.0
//! `portcullis policy`: what the roles may do, and why.

use super::{Answer, At, Out, files, machine::asked, say};
use clap::Subcommand;
use portcullis_domain::{
    Action, Actor, Assurance, Clock as _, Effect, Factor, Operation, OwnObject, Resource, SystemClock, Via,
};
use portcullis_policy::Engine;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Print who may do what: every role, kind of thing and action
    Matrix {
        #[command(flatten)]
        out: Out,
    },
    /// Check a policy file, or a folder of them with its tests, without using it
    Check {
        /// The CSV file, or a folder with *.csv and tests/*.toml
        file: PathBuf,
        #[command(flatten)]
        out: Out,
    },
    /// Say who would gain and lose what if the files were taken over
    Diff {
        /// The folder, or one CSV file
        file: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// Take the files over: all of them at once, or nothing
    Apply {
        /// The folder, or one CSV file; may be left out where the configuration names the only one
        file: Option<PathBuf>,
        /// Why; it stands in the trail and in the history
        #[arg(long, default_value = "")]
        why: String,
        #[command(flatten)]
        at: At,
    },
    /// Write what is in effect as files, into a folder that has none of them yet
    Export {
        /// The folder
        folder: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// List the versions that were taken over, the newest first
    History {
        #[command(flatten)]
        at: At,
    },
    /// Take an older version over again
    Rollback {
        /// Its number
        version: u32,
        /// Why; it stands in the trail and in the history
        #[arg(long, default_value = "")]
        why: String,
        #[command(flatten)]
        at: At,
    },
    /// Ask again what people asked in the last days, as if the files had been in effect
    Simulate {
        /// The folder, or one CSV file
        file: PathBuf,
        /// How many days
        #[arg(long, default_value_t = 30)]
        days: u32,
        #[command(flatten)]
        at: At,
    },
    /// Say whether somebody may do something, just after signing in, and which grants and rules decide it
    Explain {
        /// Who
        user: String,
        /// The action, such as console.control
        action: Action,
        /// On what: HYPERVISOR/MACHINE, HYPERVISOR, or a thing of the gateway such as gateway:users
        on: String,
        #[command(flatten)]
        at: At,
    },
    /// List the roles and what they are for
    Roles {
        #[command(flatten)]
        at: At,
    },
}

impl Policy {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let engine = Engine::builtin().await?;
        match self {
            Self::Matrix { out } => {
                if out.json {
                    out.print(&engine.roles(), &[])?;
                } else {
                    say::out(format_args!("{}", engine.matrix()));
                }
                Ok(Answer::Yes)
            }
            Self::Check { file, out } => files::check(&file, &out).await,
            Self::Diff { file, at } => files::diff(&file, &at).await,
            Self::Apply { file, why, at } => files::apply(file.as_deref(), &why, &at).await,
            Self::Export { folder, at } => files::export(&folder, &at).await,
            Self::History { at } => files::history(&at).await,
            Self::Rollback { version, why, at } => files::rollback(version, &why, &at).await,
            Self::Simulate { file, days, at } => files::simulate(&file, days, &at).await,
            Self::Explain { user, action, on, at } => explain(&user, action, &on, &at).await,
            Self::Roles { at } => {
                at.print(&engine.roles(), &["name", "words"])?;
                Ok(Answer::Yes)
            }
        }
    }
}

async fn explain(user: &str, action: Action, on: &str, at: &At) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let user = desk.find(user).await?;
    let engine = desk.engine().await?;
    engine.reset(desk.store.grant_changes(None).await?.changes);
    let resource = resource(on)?;
    let inventory = match &resource {
        Resource::Machine(_) => asked(at).await?.inventory(),
        _ => std::sync::Arc::default(),
    };
    let now = SystemClock.now();
    let mut assurance = Assurance::default();
    assurance.prove(Factor::Password, now);
    assurance.prove(Factor::Totp, now);
    let actor = Actor {
        user: user.id,
        name: user.name.into(),
        via: Via::CommandLine,
        assurance,
        scope: None,
        from: None,
        pass: None,
    };
    let operation = Operation { action, resource, effect: Effect::Safe };
    let told = engine.explain(&actor, &operation, &inventory, now);
    at.out.tell(&serde_json::to_value(&told)?, told.to_string().trim_end());
    Ok(if told.decision == "permit" { Answer::Yes } else { Answer::No })
}

/// A machine as `hypervisor/id`, a hypervisor by its name, or one of the gateway's own things.
fn resource(text: &str) -> anyhow::Result<Resource> {
    if let Some(own) = OwnObject::ALL.iter().find(|o| o.word() == text) {
        return Ok(Resource::Own(*own));
    }
    if text.contains('/') { Ok(Resource::Machine(text.parse()?)) } else { Ok(Resource::Hypervisor(text.parse()?)) }
}
