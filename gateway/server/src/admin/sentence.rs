// SPDX-License-Identifier: Apache-2.0
//! The form of a grant, read as a sentence, and what the sentence would do.

use super::{preview::foresee, things};
use crate::{
    guest::Guest,
    pages::{Answer, Form},
    reply::{self, Refusal},
    state::House,
    view::{GrantForm, Preview, Problems, given, verb},
};
use axum::extract::State;
use portcullis_domain::{
    Conditions, Grant, GrantEffect, GroupId, Holder, Inventory, MachineKind, Network, RoleName, UserId,
};
use portcullis_governance::{By, Sentence, Side};
use portcullis_store::Group;
use serde::Deserialize;
use std::sync::Arc;
use time::{Date, Duration, OffsetDateTime, Time, format_description::well_known::Iso8601};

/// Things that one sentence names in words.
const NAMES: usize = 12;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Posted {
    user: String,
    role: String,
    on: String,
    #[serde(default)]
    hours: String,
    #[serde(default)]
    until: String,
    #[serde(default)]
    note: String,
    forbid: Option<String>,
    step_up_seconds: String,
    step_up_each: Option<String>,
    record: Option<String>,
    passkey: Option<String>,
    #[serde(default)]
    week: String,
    #[serde(default)]
    networks: String,
    guests: Option<String>,
    containers: Option<String>,
    templates: Option<String>,
    #[serde(default)]
    clipboard_in: String,
    #[serde(default)]
    clipboard_out: String,
}

impl From<Posted> for GrantForm {
    fn from(posted: Posted) -> Self {
        Self {
            user: posted.user,
            role: posted.role,
            on: posted.on,
            hours: posted.hours,
            until: posted.until,
            note: posted.note,
            forbid: posted.forbid.is_some(),
            step_up_seconds: posted.step_up_seconds,
            step_up_each: posted.step_up_each.is_some(),
            record: posted.record.is_some(),
            passkey: posted.passkey.is_some(),
            week: posted.week,
            networks: posted.networks,
            guests: posted.guests.is_some(),
            containers: posted.containers.is_some(),
            templates: posted.templates.is_some(),
            clipboard_in: posted.clipboard_in,
            clipboard_out: posted.clipboard_out,
        }
    }
}

/// A user id, or `group:` and a group's id.
fn holder(text: &str) -> Option<Holder> {
    match text.split_once(':') {
        Some(("group", id)) => id.parse::<GroupId>().ok().map(Holder::Group),
        Some(_) => None,
        None => text.parse::<UserId>().ok().map(Holder::Person),
    }
}

fn conditions(form: &GrantForm, problems: &mut Problems) -> Option<Conditions> {
    let seconds = form.step_up_seconds.parse::<u32>();
    let seconds = seconds.map_err(|_| problems.add("step_up_seconds", "Choose how often a code is asked for.")).ok();
    let week = Some(form.week.trim()).filter(|t| !t.is_empty()).map(str::parse);
    let week = week.transpose().map_err(|e| problems.add("week", format!("{e}."))).ok();
    let networks = form.networks.split([',', ' ', '\n', '\r']).filter(|t| !t.is_empty()).map(str::parse);
    let networks = networks.collect::<Result<Vec<Network>, _>>();
    let networks = networks.map_err(|e| problems.add("networks", format!("{e}."))).ok();
    let mut limit = |field, text: &str| match text.trim() {
        "" => Some(None),
        text => text.parse::<u32>().map(Some).map_err(|_| problems.add(field, "Write a number of bytes.")).ok(),
    };
    let clipboard_in = limit("clipboard_in", &form.clipboard_in);
    let clipboard_out = limit("clipboard_out", &form.clipboard_out);
    let kinds = [
        (form.guests, MachineKind::Guest),
        (form.containers, MachineKind::Container),
        (form.templates, MachineKind::Template),
    ];
    Some(Conditions {
        step_up_seconds: seconds?,
        step_up_each: form.step_up_each,
        record: form.record,
        hours: week?,
        networks: networks?,
        passkey: form.passkey,
        kinds: kinds.into_iter().filter_map(|(meant, kind)| meant.then_some(kind)).collect(),
        clipboard_in: clipboard_in?,
        clipboard_out: clipboard_out?,
    })
}

/// Reads the form; what is wrong stands beside its field.
pub(super) fn read(form: &GrantForm, inventory: &Inventory, now: OffsetDateTime) -> Result<Sentence, Problems> {
    let mut problems = Problems::none();
    let holder = holder(&form.user);
    if holder.is_none() {
        problems.add("user", "Choose a person or a group.");
    }
    let role = form.role.parse::<RoleName>().map_err(|_| problems.add("role", "Choose a role.")).ok();
    let on = things::read(&form.on, inventory).map_err(|why| problems.add("on", why)).ok();
    let until = match (form.until.trim(), form.hours.trim()) {
        ("", "") => Some(None),
        ("", hours) => {
            let hours = hours.parse::<i64>().ok().filter(|h| (1..=100_000).contains(h));
            let hours = hours.ok_or(()).map_err(|()| problems.add("hours", "Choose for how long."));
            hours.ok().map(|hours| Some(now + Duration::hours(hours)))
        }
        (day, _) => {
            let day = Date::parse(day, &Iso8601::DATE);
            let day = day.map_err(|_| problems.add("until", "Write the day as 2026-12-31."));
            day.ok().map(|day| Some(OffsetDateTime::new_utc(day, Time::MIDNIGHT)))
        }
    };
    if form.note.chars().count() > 200 || form.note.chars().any(char::is_control) {
        problems.add("note", "At most 200 characters on one line.");
    }
    let conditions = conditions(form, &mut problems);
    let effect = if form.forbid { GrantEffect::Deny } else { GrantEffect::Allow };
    match (holder, role, on, until, conditions) {
        (Some(holder), Some(role), Some(on), Some(until), Some(conditions)) if problems.is_empty() => {
            Ok(Sentence { holder, effect, role, on, until, conditions })
        }
        _ => Err(problems),
    }
}

/// A sentence in words, without its holder: `console-user on 12 things until 2026-12-05 12:00:00 UTC`.
pub(super) fn words(house: &House, sentence: &Sentence) -> String {
    let on = match sentence.on.as_slice() {
        [one] => one.to_string(),
        several if several.len() <= NAMES => several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        several => format!("{} things", several.len()),
    };
    let until =
        sentence.until.map_or_else(|| "until revoked".to_owned(), |u| format!("until {} UTC", house.when(u).text()));
    format!("{} on {on}, {until}", given(&sentence.role))
}

/// A sentence in words, from its holder to its conditions.
pub(super) fn whole(house: &House, name: &str, sentence: &Sentence) -> String {
    let may = verb(&sentence.role, sentence.effect);
    format!("{name} {may} {}, with {}", words(house, sentence), with(&sentence.conditions).join(", "))
}

/// The conditions of a grant in words.
pub(super) fn with(conditions: &Conditions) -> Vec<String> {
    let fresh = if conditions.step_up_each { "fresh code each time" } else { "fresh code" };
    let mut with = vec![match conditions.step_up_seconds {
        // No window is shorter than the time that it takes to get from the code to what it was asked for.
        0 => format!("{fresh} of the last 15 seconds"),
        60 => format!("{fresh} every minute"),
        s if s % 60 == 0 => format!("{fresh} every {} minutes", s / 60),
        s => format!("{fresh} every {s} seconds"),
    }];
    if conditions.record {
        with.push("consoles recorded".to_owned());
    }
    if conditions.passkey {
        with.push("passkey".to_owned());
    }
    with.extend(conditions.hours.as_ref().map(|h| format!("only {h}")));
    let list = |all: Vec<String>| all.join(", ");
    if !conditions.networks.is_empty() {
        with.push(format!("only from {}", list(conditions.networks.iter().map(ToString::to_string).collect())));
    }
    if !conditions.kinds.is_empty() {
        let kinds = conditions.kinds.iter().map(|k| k.plural().to_owned());
        with.push(format!("only {}", list(kinds.collect())));
    }
    with.extend(conditions.clipboard_in.map(|n| format!("at most {n} bytes pasted in")));
    with.extend(conditions.clipboard_out.map(|n| format!("at most {n} bytes copied out")));
    with
}

/// What a sentence would do if it were said now.
pub(super) async fn preview(house: &House, sentence: &Sentence, grants: &[Grant]) -> Result<Preview, Refusal> {
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let before = house.store.grants_by_person().await.map_err(failed)?;
    let holders: Vec<UserId> = match sentence.holder {
        Holder::Person(user) => vec![user],
        Holder::Group(id) => {
            let group = house.store.group(id).await.map_err(failed)?;
            group.map_or_else(Vec::new, |Group { members, .. }| members.into_iter().collect())
        }
    };
    let mut after = before.clone();
    for user in &holders {
        after.entry(*user).or_default().extend(grants.iter().cloned());
    }
    let names = house.store.holder_names().await.map_err(failed)?;
    let whom = names.get(&sentence.holder).map_or("somebody", String::as_str);
    let said = whole(house, whom, sentence);
    let side = |held| Side { engine: &house.engine, held };
    foresee(house, said, side(&before), side(&after)).await
}

/// Says what a sentence would do, and changes nothing.
pub(crate) async fn show(State(house): State<Arc<House>>, guest: Guest, Form(posted): Form<Posted>) -> Answer {
    let form = GrantForm::from(posted);
    let inventory = house.fleet.inventory();
    let sentence = match read(&form, &inventory, house.clock.now()) {
        Ok(sentence) => sentence,
        Err(problems) => return super::grants::listed(&house, &guest, form, None, problems).await,
    };
    match house.grants.check(&house.engine, By::Person(guest.actor()?), &sentence).await {
        Ok(grants) => {
            let preview = preview(&house, &sentence, &grants).await?;
            super::grants::listed(&house, &guest, form, Some(preview), Problems::none()).await
        }
        Err(error) => {
            let problems = problem(error).map_err(reply::governance)?;
            super::grants::listed(&house, &guest, form, None, problems).await
        }
    }
}

/// The field that an objection is about.
pub(super) fn problem(error: portcullis_governance::Error) -> Result<Problems, portcullis_governance::Error> {
    use portcullis_governance::Error;
    let field = match &error {
        Error::ToOneself | Error::UnknownPerson | Error::UnknownGroup => "user",
        Error::UnknownRole(_) => "role",
        Error::BadThings => "on",
        Error::BadTime => "hours",
        Error::BadWindow => "step_up_seconds",
        Error::BadZone => "week",
        Error::Kept(_) => "",
        _ => return Err(error),
    };
    Ok(Problems::one(field, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    fn form() -> GrantForm {
        GrantForm {
            user: "01935d0a00007000800000000000000a".into(),
            role: "console-user".into(),
            on: "tag:web\nlab/1".into(),
            ..GrantForm::default()
        }
    }

    #[test]
    fn a_sentence_that_makes_no_sense_says_where() {
        let wrong = GrantForm {
            user: "nobody".into(),
            role: "Über".into(),
            on: "web-1".into(),
            until: "tomorrow".into(),
            note: "x".repeat(201),
            step_up_seconds: "-1".into(),
            week: "always".into(),
            networks: "10.1.2.3/8".into(),
            clipboard_in: "many".into(),
            clipboard_out: "-1".into(),
            ..GrantForm::default()
        };
        let problems = read(&wrong, &Inventory::default(), NOW).expect_err("wrong");
        let fields = [
            "user",
            "role",
            "on",
            "until",
            "note",
            "step_up_seconds",
            "week",
            "networks",
            "clipboard_in",
            "clipboard_out",
        ];
        for field in fields {
            assert!(!problems.of(field).is_empty(), "{field}");
        }
        assert!(problems.of("hours").is_empty());
        for hours in ["0", "-3", "99999999999999999999", "soon", "1000000"] {
            let form = GrantForm { hours: hours.into(), ..form() };
            assert!(!read(&form, &Inventory::default(), NOW).expect_err(hours).of("hours").is_empty());
        }
        for user in ["group:", "group:x", "person:01935d0a00007000800000000000000a", ""] {
            assert!(read(&GrantForm { user: user.into(), ..form() }, &Inventory::default(), NOW).is_err(), "{user}");
        }
    }

    #[test]
    fn every_condition_of_the_form_stands_in_the_sentence_and_in_its_words() {
        let form = GrantForm {
            user: "group:01935d0a00007000800000000000000a".into(),
            forbid: true,
            until: "2026-12-05".into(),
            step_up_seconds: "90".into(),
            step_up_each: true,
            passkey: true,
            week: "mon-fri 08:00-18:00 Europe/Berlin".into(),
            networks: "10.0.0.0/8, 2001:db8::/32".into(),
            guests: true,
            templates: true,
            clipboard_in: "100".into(),
            clipboard_out: "0".into(),
            ..form()
        };
        let sentence = read(&form, &Inventory::default(), NOW).expect("good");
        assert_eq!((sentence.effect, sentence.on.len()), (GrantEffect::Deny, 2));
        assert_eq!(sentence.until, Some(datetime!(2026-12-05 00:00 UTC)));
        assert!(matches!(sentence.holder, Holder::Group(_)));
        assert_eq!(
            with(&sentence.conditions).join("; "),
            "fresh code each time every 90 seconds; consoles recorded; passkey; only mon-fri 08:00-18:00 Europe/Berlin; \
             only from 10.0.0.0/8, 2001:db8::/32; only virtual machines, templates; at most 100 bytes pasted in; \
             at most 0 bytes copied out"
        );
        assert!(form.is_special() && !super::tests::form().is_special());
    }
}
