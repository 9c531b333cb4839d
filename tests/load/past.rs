// SPDX-License-Identifier: Apache-2.0
//! The past of a gateway that was busy for months: what its start has to read.

use crate::accounts::{Record, grant, open};
use anyhow::Result;
use clap::Args;
use portcullis_audit::{Trail, TrailKeys, rebuild};
use portcullis_domain::{
    Action, Clock as _, Event, NodeId, Outcome, Phase, RequestId, Selector, Seq, Subject, SystemClock, TokenId, UserId,
    Via, micros,
};
use portcullis_store::{Keys, NewUser};
use std::{path::PathBuf, sync::Arc};
use uuid::Uuid;

/// Events that wait for the disk together.
const BATCH: u64 = 4096;
/// Grants of one person.
const GRANTS_EACH: u32 = 20;

#[derive(Args)]
pub(crate) struct Past {
    /// The folder that `portcullis init` made
    #[arg(long)]
    dir: PathBuf,
    /// Events of the trail: API requests, two events each
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Grants in the store
    #[arg(long, default_value_t = 10_000)]
    grants: u32,
}

impl Past {
    pub(crate) async fn run(self) -> Result<()> {
        let keys = Keys::load(&self.dir.join("portcullis.key"))?;
        let store = open(&self.dir).await?;
        let now = SystemClock.now();
        let mut user = UserId::new(Uuid::now_v7());
        for n in 0..self.grants {
            if n % GRANTS_EACH == 0 {
                user = UserId::new(Uuid::now_v7());
                let name = format!("past{n}");
                let new = NewUser { id: user, name_key: name.clone(), display_name: name.clone(), name };
                store.create_user(&new, now).await?;
            }
            let selector = Selector::parse("machine", &format!("lxd/default:m{n}"))?;
            store.add_grant(user, &grant("operator", selector, Record::Yes, now)?, None, now).await?;
        }
        let trail = self.trail(&keys, user)?;
        let reader = trail.reader();
        trail.close()?;
        let indexed = rebuild(&reader, &store).await?;
        store.close().await;
        println!("{}", serde_json::json!({ "events": indexed, "grants": self.grants }));
        Ok(())
    }

    fn trail(&self, keys: &Keys, user: UserId) -> Result<Trail> {
        let dir = self.dir.join("trail/server");
        std::fs::create_dir_all(&dir)?;
        let node = NodeId::new(Uuid::new_v4());
        std::fs::write(dir.join("node"), format!("{node}\n"))?;
        let keys = TrailKeys { mac: keys.derive("trail mac"), sign: keys.derive("trail checkpoint signature") };
        let (trail, _) = Trail::open(&dir, &keys, node, Arc::new(SystemClock))?;
        let via = Via::Token(TokenId::new(Uuid::now_v7()));
        let begun = SystemClock.now();
        let mut event = Event {
            at_us: micros(begun) - i64::try_from(self.events)? * 1000,
            request: RequestId::new(Uuid::now_v7()),
            phase: Phase::Opened,
            kind: "api".into(),
            subject: Some(Subject { user, name: "tool".into(), via }),
            peer: Some([127, 0, 0, 1].into()),
            action: Some(Action::View),
            resource: "hypervisor:lxd".into(),
            outcome: Outcome::Pending,
            reason: "".into(),
            details: Vec::new(),
        };
        let mut opened = Seq(0);
        for n in 0..self.events {
            event.at_us += 1000;
            if n % 2 == 0 {
                event.request = RequestId::new(Uuid::now_v7());
                (event.phase, event.outcome, event.details) = (Phase::Opened, Outcome::Pending, Vec::new());
            } else {
                (event.phase, event.outcome) = (Phase::Closed(opened), Outcome::Done);
                event.details = vec![("status".into(), "200".into()), ("bytes".into(), "1024".into())];
            }
            opened = trail.append(&event)?;
            if n % BATCH == BATCH - 1 {
                trail.wait(opened)?;
            }
        }
        trail.wait(opened)?;
        Ok(trail)
    }
}
