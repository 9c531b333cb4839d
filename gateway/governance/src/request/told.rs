// SPDX-License-Identifier: Apache-2.0
//! Who is told of a request, and of its end before it comes.

use super::{Decider, RequestError, Requests};
use crate::grant::By;
use portcullis_domain::{Actor, Assurance, Factor, Inventory, UserId, Via};
use portcullis_policy::Engine;
use portcullis_store::{AccessRequest, AccessState, User, UserKind};
use time::{Duration, OffsetDateTime};

/// How long before its end somebody is told that their access ends; of what is shorter than twice that, they know.
const SOON: Duration = Duration::minutes(15);

impl Requests {
    /// Those of some people who could decide on a request now, at their best: with a passkey, wherever they are.
    pub async fn deciders(
        &self,
        engine: &Engine,
        inventory: &Inventory,
        request: &AccessRequest,
        among: impl Fn(&UserId) -> bool,
    ) -> Result<Vec<User>, RequestError> {
        let now = self.clock.now();
        let groups = self.store.all_groups().await?;
        let could = |user: &User| {
            let mut assurance = Assurance::default();
            assurance.prove(Factor::Passkey, now);
            let (name, via) = (user.name.as_str().into(), Via::CommandLine);
            let actor = Actor { user: user.id, name, via, assurance, scope: None, from: None, pass: None };
            let theirs = groups.iter().filter(|g| g.members.contains(&user.id)).map(|g| g.name.clone());
            let theirs: Vec<String> = theirs.collect();
            let decider = Decider { engine, inventory, by: By::Person(&actor) };
            self.objects(decider, &actor, &theirs, request).is_none()
        };
        let mut users = self.store.users().await?;
        users.retain(|u| u.is_open() && u.kind == UserKind::Person && among(&u.id) && could(u));
        Ok(users)
    }

    /// Whether the access ends so soon that whoever asked is to be told, and was not yet. Gives true once.
    pub async fn ends_soon(&self, request: &AccessRequest, now: OffsetDateTime) -> Result<bool, RequestError> {
        let AccessState::Active(_, ends) = request.state else { return Ok(false) };
        let soon = ends > now && ends - now <= SOON && ends - request.changed >= SOON * 2;
        Ok(soon && self.store.warn_access(request.id, now).await?)
    }
}
