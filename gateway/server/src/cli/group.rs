// SPDX-License-Identifier: Apache-2.0
//! `portcullis group`: groups of people, from a shell on the gateway's own machine.

use super::{Answer, At, Desk};
use clap::Subcommand;
use portcullis_governance::{By, Change, Error, Membership};
use portcullis_store::{Group as Row, GroupSource};
use serde::Serialize;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub(super) enum Group {
    /// List every group
    List {
        #[command(flatten)]
        at: At,
    },
    /// List who is in a group
    Members {
        /// Which group
        group: String,
        #[command(flatten)]
        at: At,
    },
    /// Make a group
    Add {
        /// Its name
        group: String,
        /// What it is for
        #[arg(long, default_value = "")]
        words: String,
        #[command(flatten)]
        at: At,
    },
    /// Remove a group that holds no grant
    Remove {
        /// Which group
        group: String,
        #[command(flatten)]
        at: At,
    },
    /// Put somebody into a group
    Join {
        /// Which group
        group: String,
        /// Whom
        user: String,
        #[command(flatten)]
        at: At,
    },
    /// Take somebody out of a group; what that opened is cut within seconds
    Leave {
        /// Which group
        group: String,
        /// Whom
        user: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Serialize)]
struct Line {
    name: String,
    people: usize,
    source: GroupSource,
    words: String,
    id: String,
}

impl Desk {
    pub(super) async fn find_group(&self, name: &str) -> anyhow::Result<Row> {
        let all = self.store.all_groups().await?;
        let found = all.into_iter().find(|g| g.name == name);
        found.ok_or_else(|| anyhow::anyhow!("{name}: no such group; see: portcullis group list"))
    }
}

impl Group {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::List { at } => {
                let groups = at.open().await?.store.all_groups().await?.into_iter();
                let line = |g: Row| Line {
                    people: g.members.len(),
                    name: g.name,
                    source: g.source,
                    words: g.words,
                    id: g.id.to_string(),
                };
                at.print(&groups.map(line).collect::<Vec<_>>(), &["name", "people", "source", "words", "id"])?;
            }
            Self::Members { group, at } => {
                let desk = at.open().await?;
                let group = desk.find_group(&group).await?;
                let users = desk.store.users().await?.into_iter().filter(|u| group.members.contains(&u.id));
                let rows: Vec<_> = users.map(|u| json!({ "name": u.name, "display_name": u.display_name })).collect();
                at.print(&rows, &["name", "display_name"])?;
            }
            Self::Add { group, words, at } => {
                let desk = at.open().await?;
                let engine = desk.engine().await?;
                let make = async { Ok(desk.grants(&engine)?.make_group(&group, &words).await?) };
                let id = desk.act("group", &group, "a group is made", make).await?;
                at.out.tell(&json!({ "group": group, "id": id.to_string() }), &format!("{group} was made."));
            }
            Self::Remove { group, at } => {
                let desk = at.open().await?;
                let group = desk.find_group(&group).await?;
                let engine = desk.engine().await?;
                let remove = async { Ok(desk.grants(&engine)?.drop_group(group.id).await?) };
                desk.act("group", &group.name, "the group is removed", remove).await?;
                at.out.tell(&json!({ "group": group.name, "removed": true }), "Removed.");
            }
            Self::Join { group, user, at } => return Box::pin(change(&at, &group, &user, Membership::Join)).await,
            Self::Leave { group, user, at } => return Box::pin(change(&at, &group, &user, Membership::Leave)).await,
        }
        Ok(Answer::Yes)
    }
}

async fn change(at: &At, group: &str, user: &str, what: Membership) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let (group, user) = (desk.find_group(group).await?, desk.find(user).await?);
    let engine = desk.engine().await?;
    let (is, was) = match what {
        Membership::Join => ("is put into", "is now in"),
        Membership::Leave => ("is taken out of", "is no longer in"),
    };
    let words = format!("{is} the group {}", group.name);
    let grants = desk.seeing(at, &engine).await?;
    let proposed = Change::Move(group.id, user.id, what);
    let whole = format!("{} {words}", user.name);
    if let Some(waits) = desk.wait(at, &grants, &engine, &proposed, &whole, "").await? {
        return Ok(waits);
    }
    let deed = async {
        match grants.change_member(&engine, By::Shell, group.id, user.id, what).await {
            Ok(_) => Ok(true),
            Err(Error::NoChange) => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    let changed = Box::pin(desk.act("group", &user.name, &words, deed)).await?;
    let told = json!({ "user": user.name, "group": group.name, "changed": changed });
    at.out.tell(&told, &format!("{} {was} {}.", user.name, group.name));
    Ok(if changed { Answer::Yes } else { Answer::No })
}
