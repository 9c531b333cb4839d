// SPDX-License-Identifier: Apache-2.0
//! Access requests and this installation: their rules from the configuration, what the clock does to them, and the link
//! from a door that is closed to the form that asks for it.

use crate::{
    config::{Config, ConfigError},
    pages::encode,
    state::{House, chain},
    tell::Happens,
};
use portcullis_domain::{AccessId, Action, Clock, GrantId, MachineRef, OwnObject, Resource, RoleName};
use portcullis_governance::{By, Decider, Grants, Requests};
use portcullis_policy::{Engine, Kind};
use portcullis_store::{StepWhat, Store};
use std::{collections::HashMap, sync::Arc, time::Duration};
use time::OffsetDateTime;

/// How often it is looked what is due, and when something is tried again that could not be done.
const LOOK: Duration = Duration::from_secs(1);
const AGAIN: time::Duration = time::Duration::minutes(10);

/// Gives and takes roles, keeping apart and guarding what the configuration says.
pub(crate) fn grants(
    config: &Config,
    engine: &Engine,
    store: Store,
    clock: Arc<dyn Clock>,
) -> Result<Grants, ConfigError> {
    let duties = config.policy.duties(engine);
    let duties = duties.map_err(|why| ConfigError::new(&config.file, format!("policy.conflict: {why}")))?;
    let guard = config.policy.guard().map_err(|why| ConfigError::new(&config.file, format!("policy.{why}")))?;
    Ok(Grants::new(store, clock).keeping_apart(duties).guarded(guard))
}

/// Access requests under the rules of the configuration.
pub(crate) fn requests(
    config: &Config,
    engine: &Engine,
    store: Store,
    clock: Arc<dyn Clock>,
    grants: &Grants,
) -> Result<Requests, ConfigError> {
    let wrong = |why: String| ConfigError::new(&config.file, format!("requests: {why}"));
    let rules = config.requests.read().map_err(wrong)?;
    for rule in &rules {
        if let Some(role) = rule.roles.iter().find(|role| !engine.has_role(role)) {
            return Err(wrong(format!("rule {:?}: there is no role called {role}", rule.name)));
        }
    }
    let otherwise = config.requests.otherwise().map_err(wrong)?;
    Ok(Requests::new(store, clock, grants.clone(), rules, otherwise))
}

/// Takes the steps that the clock makes due, for ever: what nobody decided expires, what was approved for a time begins at
/// it, what has ended is over. Each is written down before it is done.
pub(crate) async fn keep(house: Arc<House>) {
    let mut later: HashMap<AccessId, OffsetDateTime> = HashMap::new();
    loop {
        let now = house.clock.now();
        later.retain(|_, at| *at > now);
        if let Err(error) = look(&house, &mut later).await {
            tracing::error!(error = %chain(&error), "what is due of access requests could not be done");
        }
        if let Err(error) = let_expire(&house).await {
            tracing::error!(error = %chain(&error), "changes that wait for a second person could not be looked at");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Changes that waited for a second person in vain.
async fn let_expire(house: &House) -> Result<(), portcullis_governance::Error> {
    for proposal in house.grants.overdue().await? {
        let id = proposal.new.id;
        if !house.note_about("proposal", &id.to_string(), "nobody decided on it in time").await {
            return Ok(());
        }
        house.grants.let_expire(id).await?;
    }
    Ok(())
}

async fn look(
    house: &House,
    later: &mut HashMap<AccessId, OffsetDateTime>,
) -> Result<(), portcullis_governance::RequestError> {
    let open = house.requests.open().await?;
    if open.is_empty() {
        return Ok(());
    }
    let held: Vec<GrantId> = house.store.grants().await?.iter().map(|h| h.grant.id).collect();
    let inventory = house.fleet.inventory();
    for request in &open {
        if later.contains_key(&request.id) {
            continue;
        }
        let now = house.clock.now();
        if house.tell.has_ears() && house.requests.ends_soon(request, now).await? {
            house.news(request, Happens::Ending, "the gateway", "").await;
        }
        let Some(what) = house.requests.due(request, &held, now) else { continue };
        let words = match what {
            StepWhat::Expired => "nobody decided on it, or began it, in time",
            StepWhat::Active => "the access begins, as was wished",
            StepWhat::Over => "the access is over",
            _ => "the access was taken before its end",
        };
        if !house.note_about("request", &request.id.to_string(), words).await {
            return Ok(());
        }
        let decider = Decider { engine: &house.engine, inventory: &inventory, by: By::Shell };
        if house.requests.take_due(decider, request, what).await? {
            house.identity.refresh().await.ok();
            // As it stands now: with the end of what has begun.
            let request = house.requests.find(request.id).await?;
            house.news(&request, Happens::Step(what), "the gateway", "").await;
        } else {
            later.insert(request.id, now + AGAIN);
        }
    }
    Ok(())
}

impl House {
    /// The address of a form that asks for what opens a machine's door, filled in.
    pub(crate) fn ask_link(&self, at: &MachineRef, action: Action) -> Option<String> {
        let role = self.opener(action)?;
        Some(format!("/requests/new?on={}&role={role}", encode(&format!("machine:{at}"))))
    }

    /// The smallest role that allows an action on machines.
    fn opener(&self, action: Action) -> Option<RoleName> {
        let opens = |role: &portcullis_policy::RoleInfo| role.rights.contains(&(Kind::Machine, action));
        self.engine.roles().into_iter().filter(opens).min_by_key(|role| role.rights.len()).map(|role| role.name)
    }

    /// Whether somebody may read every request.
    pub(crate) fn reads_requests(&self, actor: &portcullis_domain::Actor) -> bool {
        self.may(actor, Action::Read, Resource::Own(OwnObject::Requests))
    }
}
