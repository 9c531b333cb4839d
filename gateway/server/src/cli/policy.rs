// SPDX-License-Identifier: Apache-2.0
//! `portcullis policy`: what the roles may do, and why.

use super::{Answer, At, Out, machine::asked};
use clap::Subcommand;
use portcullis_domain::{
    Action, Actor, Assurance, Clock as _, Effect, Factor, Operation, OwnObject, Resource, SystemClock, Via,
};
use portcullis_policy::Engine;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Print who may do what: every role, kind of thing and action
    Matrix {
        #[command(flatten)]
        out: Out,
    },
    /// Check a policy file without using it
    Check {
        /// The CSV file
        file: PathBuf,
        #[command(flatten)]
        out: Out,
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
                    print!("{}", engine.matrix());
                }
                Ok(Answer::Yes)
            }
            Self::Check { file, out } => {
                let text = std::fs::read_to_string(&file).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
                let wrong = engine.check(&text).await.err().map(|e| e.to_string());
                let words = format!("{}: {}", file.display(), wrong.as_deref().unwrap_or("good"));
                out.tell(&json!({ "file": file, "good": wrong.is_none(), "wrong": wrong }), &words);
                Ok(if wrong.is_none() { Answer::Yes } else { Answer::No })
            }
            Self::Explain { user, action, on, at } => explain(&engine, &user, action, &on, &at).await,
            Self::Roles { at } => {
                at.print(&engine.roles(), &["name", "words"])?;
                Ok(Answer::Yes)
            }
        }
    }
}

async fn explain(engine: &Engine, user: &str, action: Action, on: &str, at: &At) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let user = desk.find(user).await?;
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
    let actor =
        Actor { user: user.id, name: user.name.into(), via: Via::CommandLine, assurance, scope: None, from: None };
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
