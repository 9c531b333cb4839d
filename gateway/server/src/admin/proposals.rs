// SPDX-License-Identifier: Apache-2.0
//! Changes of rights that take two people: proposed by one, shown with what they would do, made by whoever approves.

use super::{preview::foresee, sentence::whole};
use crate::{
    guest::{Guest, Step},
    pages::{Answer, Form, go_with, page, passkey_missing},
    reply::{self, Refusal},
    state::House,
    view::{ProposalPage, ProposalRow, Tone},
};
use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse as _,
};
use portcullis_domain::{Action, Actor, Holder, OwnObject, ProposalId, Resource};
use portcullis_governance::{By, Change, Error};
use portcullis_store::{Proposal, ProposalState};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Proposals that a list tells.
const MOST: u32 = 50;
/// Members of a group that a change names.
const NAMES: usize = 50;

/// Keeps a change for a second person if it takes one; none when it can be made at once.
pub(super) async fn propose(
    house: &House,
    guest: &Guest,
    change: &Change,
    words: &str,
    why: &str,
    back: &str,
) -> Result<Option<axum::response::Response>, Refusal> {
    let Some(reason) = house.grants.needs_second(&house.engine, change).await.map_err(reply::governance)? else {
        return Ok(None);
    };
    guest.intend(house, "gateway:policy", &format!("is to be proposed to a second person: {words}")).await?;
    let by = By::Person(guest.actor()?);
    let made = house.grants.propose(&house.engine, by, change, words, why).await.map_err(reply::governance)?;
    let id = made.new.id.to_string();
    guest.say(&Step::done(&id, &format!("waits for a second person: {words}")))?;
    guest.tell("proposal", id.clone());
    let reads = house.may(guest.actor()?, Action::Read, Resource::Own(OwnObject::Policy));
    let to = if reads { format!("/proposals/{id}") } else { back.to_owned() };
    let text = format!("Nothing was changed yet: this waits for a second person. {reason}");
    go_with(guest, &to, Tone::Note, text).await.map(Some)
}

fn row(house: &House, proposal: &Proposal) -> ProposalRow {
    let class = match proposal.state {
        ProposalState::Waiting => "warn",
        ProposalState::Done => "good",
        ProposalState::Refused | ProposalState::Void => "bad",
        ProposalState::Withdrawn | ProposalState::Expired => "off",
    };
    let ended = proposal.decided.as_ref();
    ProposalRow {
        id: proposal.new.id.to_string(),
        words: proposal.new.words.clone(),
        why: proposal.new.why.clone(),
        by: proposal.new.by_name.clone(),
        at: house.when(proposal.proposed),
        state: proposal.state.word(),
        class,
        expires: (proposal.state == ProposalState::Waiting).then(|| house.when(proposal.new.expires)),
        decided: ended.map(|e| (house.when(e.at), e.by_name.clone(), e.said.clone())),
    }
}

/// What waits for a second person, and what came of the last ones; nothing for those who may not read the policy.
pub(crate) async fn rows(house: &House, actor: &Actor) -> Result<Vec<ProposalRow>, Refusal> {
    if !house.may(actor, Action::Read, Resource::Own(OwnObject::Policy)) {
        return Ok(vec![]);
    }
    let all = house.store.proposals(MOST).await.map_err(|e| house.unavailable(&e))?;
    Ok(all.iter().map(|proposal| row(house, proposal)).collect())
}

/// The whole change, as it would be made: with its end and its conditions, whoever put it into which words, and who is in
/// a group now that it is about.
async fn said(house: &House, proposal: &Proposal, change: &Change) -> Result<String, Refusal> {
    let Change::Say(sentence) = change else { return Ok(proposal.new.words.clone()) };
    let names = house.store.holder_names().await.map_err(|e| house.unavailable(&e))?;
    let name = names.get(&sentence.holder).map_or("somebody who was removed", String::as_str);
    let words = whole(house, name, sentence);
    let Holder::Group(group) = sentence.holder else { return Ok(words) };
    let group = house.store.group(group).await.map_err(|e| house.unavailable(&e))?;
    let members = group.map(|g| g.members).unwrap_or_default();
    let mut named: Vec<&str> = members.iter().filter_map(|u| names.get(&(*u).into()).map(String::as_str)).collect();
    named.sort_unstable();
    let more = named.len().saturating_sub(NAMES);
    named.truncate(NAMES);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Ok(match named.as_slice() {
        [] => format!("{words} (nobody is in the group now)"),
        named => format!("{words} (in the group now: {}{more})", named.join(", ")),
    })
}

async fn find(house: &House, id: &str) -> Result<Proposal, Refusal> {
    let id: ProposalId = id.parse().map_err(|_| Refusal::NotFound)?;
    house.store.proposal(id).await.map_err(|e| house.unavailable(&e))?.ok_or(Refusal::NotFound)
}

pub(crate) async fn show(State(house): State<Arc<House>>, guest: Guest, Path(id): Path<String>) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let proposal = find(&house, &id).await?;
    let waits = proposal.state == ProposalState::Waiting;
    let (mut preview, mut void, mut seen) = (None, None, String::new());
    let mut row = row(&house, &proposal);
    let change = Change::of(&proposal);
    if let Ok(change) = &change {
        row.words = said(&house, &proposal, change).await?;
    }
    if waits {
        let change = change.map_err(reply::governance)?;
        let sentence = row.words.clone();
        match house.grants.outlook(&house.engine, By::Shell, &change).await {
            Ok(outlook) => {
                let (before, after) = outlook.sides(&house.engine);
                preview = Some(foresee(&house, sentence, before, after).await?);
                seen = outlook.seen;
            }
            Err(Error::Store(error)) => return Err(house.unavailable(&error)),
            Err(error) => void = Some(error.to_string()),
        }
    }
    let own = proposal.new.by == Some(actor.user);
    let writes = waits && house.may(&actor, Action::Write, Resource::Own(OwnObject::Policy));
    let objection = if writes {
        house.grants.objects_to(&house.engine, &actor, &proposal).await.map_err(reply::governance)?
    } else {
        None
    };
    let approves = writes && objection.is_none();
    let shown = ProposalPage {
        shell: house.shell(&guest).await,
        row,
        own,
        approves,
        ends: writes,
        passkey_first: approves && passkey_missing(&house, &actor).await?,
        objection,
        void,
        preview,
        seen,
    };
    page(&shown)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Approval {
    #[serde(default)]
    reason: String,
    /// What the page said that it would do.
    #[serde(default)]
    seen: String,
}

/// Approves a change and makes it, if it would still do what the page said.
pub(crate) async fn approve(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(Approval { reason, seen }): Form<Approval>,
) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let proposal = find(&house, &id).await?;
    // The passkey of whoever has one: the door asked for some fresh factor.
    if passkey_missing(&house, &actor).await? {
        return Err(Refusal::StepUp);
    }
    let words = format!("{} (proposed by {})", proposal.new.words, proposal.new.by_name);
    guest.intend(&house, &id, &format!("is to be approved and made: {words}")).await?;
    let to = format!("/proposals/{id}");
    match house.grants.carry_out(&house.engine, &actor, proposal.new.id, &reason, &seen).await {
        Ok(_) => {
            guest.say(&Step::done(&id, &format!("was approved and made: {words}")))?;
            house.take_policy().await.map_err(|e| house.unavailable(&e))?;
            house.identity.refresh().await.map_err(|e| house.unavailable(&e))?;
            go_with(&guest, &to, Tone::Good, "Approved, and made.").await
        }
        Err(error @ (Error::Kept(_) | Error::Changed)) => {
            let why = error.to_string();
            guest.say(&Step::denied(&id, &why))?;
            go_with(&guest, &to, Tone::Warn, why).await
        }
        Err(error) => Err(reply::governance(error)),
    }
}

/// Refuses a change, or takes one's own back.
pub(crate) async fn refuse(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path(id): Path<String>,
    Form(said): Form<Said>,
) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let proposal = find(&house, &id).await?;
    guest.intend(&house, &id, "is to be refused or taken back").await?;
    let ended = house.grants.turn_down(&actor, proposal.new.id, &said.reason).await.map_err(reply::governance)?;
    guest.say(&Step::done(&id, ended.word()))?;
    let text = if ended == ProposalState::Withdrawn { "Taken back." } else { "Refused." };
    go_with(&guest, &format!("/proposals/{id}"), Tone::Good, text).await
}

/// The same list for scripts.
pub(crate) async fn json(State(house): State<Arc<House>>, guest: Guest) -> Answer {
    let actor = guest.actor()?;
    let all = house.store.proposals(MOST).await.map_err(|e| house.unavailable(&e))?;
    let time = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let mut items = Vec::new();
    for proposal in &all {
        let Proposal { new, proposed, state, decided } = proposal;
        let objection = house.grants.objects_to(&house.engine, actor, proposal).await.map_err(reply::governance)?;
        items.push(json!({
            "id": new.id.to_string(), "what": new.words, "why": new.why, "by": new.by_name, "proposed": time(*proposed),
            "expires": time(new.expires), "state": state.word(),
            "decided": decided.as_ref().map(|e| json!({ "at": time(e.at), "by": e.by_name, "said": e.said })),
            "decide": *state == ProposalState::Waiting && objection.is_none(),
        }));
    }
    Ok(Json(json!({ "proposals": items })).into_response())
}
