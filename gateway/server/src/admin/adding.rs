// SPDX-License-Identifier: Apache-2.0
//! Adding a hypervisor while the gateway runs, and putting another in the place of one that was added: pages, and the same
//! for scripts.
//!
//! What somebody typed goes from step to step in the form; the credential comes with the last one, and never back.

use super::hypervisors::{certificates, stored};
use crate::{
    adding::{self, ApiWish, Done, Ground, Keeper, NotAdded, Wish, prints, words},
    guest::{Guest, Step},
    pages::{Answer, Form, again, go_with, page},
    reply::{Refusal, sentence},
    roster::Agreed,
    state::House,
    view::{AgreeHypervisor, ApiDraft, Field, KindRow, NewHypervisor, Problems, Tone, Written},
};
use axum::{
    Json,
    extract::{Query, State},
    response::IntoResponse as _,
};
use portcullis_domain::{HypervisorName, Outcome, Secret, counted};
use portcullis_store::AddedHypervisor;
use portcullis_upstream::{Addable, Ask, AskForm, Draft, Wrong};
use serde::Deserialize;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Prefill {
    kind: String,
    /// The one that is to be changed.
    change: String,
}

/// What is typed in both steps.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Typed {
    kind: String,
    name: String,
    address: Option<String>,
    identity: Option<String>,
    compute: Option<String>,
    console: Option<String>,
    username: Option<String>,
    user: Option<String>,
    user_domain: Option<String>,
    project: Option<String>,
    project_domain: Option<String>,
    application_credential: Option<String>,
    screen_hosts: Option<String>,
    replaces: Option<String>,
    api: Option<String>,
    api_host: Option<String>,
    sha256: Option<String>,
    agree: Option<String>,
    secret: Option<String>,
}

impl Typed {
    /// What was said of the keys that kinds ask for.
    fn given(&self) -> BTreeMap<String, String> {
        let all = [
            ("address", &self.address),
            ("identity", &self.identity),
            ("compute", &self.compute),
            ("console", &self.console),
            ("username", &self.username),
            ("user", &self.user),
            ("user_domain", &self.user_domain),
            ("project", &self.project),
            ("project_domain", &self.project_domain),
            ("application_credential", &self.application_credential),
            ("screen_hosts", &self.screen_hosts),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))).collect()
    }

    fn wish(&self, given: BTreeMap<String, String>) -> Wish {
        let api = match (self.api.is_some(), self.api_host.as_deref().map(str::trim).filter(|h| !h.is_empty())) {
            (false, _) => ApiWish::Closed,
            (true, None) => ApiWish::ByName,
            (true, Some(host)) => ApiWish::ByHost(host.to_owned()),
        };
        Wish { name: self.name.clone(), kind: self.kind.clone(), given, api, replaces: self.replaces() }
    }

    /// In whose place it is to come. What is no id is that of nobody.
    fn replaces(&self) -> Option<Uuid> {
        let said = self.replaces.as_deref().map(str::trim).filter(|text| !text.is_empty());
        said.map(|text| text.parse().unwrap_or_default())
    }

    /// What is known of one that was added, as if it had been typed. Nothing of it is a secret.
    fn of(row: &AddedHypervisor) -> Self {
        let mut settings: BTreeMap<String, serde_json::Value> = serde_json::from_str(&row.settings).unwrap_or_default();
        let api = settings.remove("api");
        let host = api.as_ref().and_then(|api| api.get("host").and_then(serde_json::Value::as_str)).map(str::to_owned);
        let mut take = |key: &str| match settings.remove(key)? {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Array(all) => {
                Some(all.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(", "))
            }
            _ => None,
        };
        Self {
            kind: row.kind.clone(),
            name: row.name.to_string(),
            replaces: Some(row.id.to_string()),
            address: take("address"),
            identity: take("identity"),
            compute: take("compute"),
            console: take("console"),
            username: take("username"),
            user: take("user"),
            user_domain: take("user_domain"),
            project: take("project"),
            project_domain: take("project_domain"),
            application_credential: take("application_credential"),
            screen_hosts: take("screen_hosts"),
            api: api.map(|_| "on".to_owned()),
            api_host: host,
            ..Self::default()
        }
    }

    /// Where it begins.
    fn begins(&self) -> String {
        let word =
            |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect::<String>();
        match self.replaces() {
            Some(_) => format!("/new-hypervisor?change={}", word(&self.name)),
            None => format!("/new-hypervisor?kind={}", word(&self.kind)),
        }
    }

    fn value(&self, key: &str) -> String {
        self.given().remove(key).unwrap_or_default().chars().filter(|c| !c.is_control()).take(1024).collect()
    }
}

/// One field of a form.
fn field(ask: &Ask, value: String) -> Field {
    let (key, written) = match ask.form {
        AskForm::Secret => ("secret", Written::Hidden),
        AskForm::Pem => ("secret", Written::Lines),
        _ => (ask.key, Written::Line),
    };
    Field { key, label: ask.label, hint: ask.hint, value, written, needed: !ask.form.is_optional() }
}

fn row(of: &'static Addable) -> KindRow {
    KindRow { word: of.kind.word(), title: of.title }
}

pub(crate) async fn form(State(house): State<Arc<House>>, guest: Guest, Query(prefill): Query<Prefill>) -> Answer {
    let typed = match prefill.change.as_str() {
        "" => Typed { kind: prefill.kind, ..Typed::default() },
        name => {
            let row = kept(&house, name).await?.ok_or(Refusal::NotFound)?;
            known(&house, &row)
        }
    };
    asked(&house, &guest, &typed, Problems::none()).await
}

/// One that was added, as the store has it.
async fn kept(house: &House, name: &str) -> Result<Option<Arc<AddedHypervisor>>, Refusal> {
    let Ok(name) = name.trim().parse::<HypervisorName>() else { return Ok(None) };
    Ok(stored(house, &name).await?.map(|added| added.row))
}

/// What is known of one: nothing but its name where somebody changed the row in the database, or a form would lead whoever
/// trusts it, and types the credential, to an address that nobody agreed to.
fn known(house: &House, row: &AddedHypervisor) -> Typed {
    let all = Typed::of(row);
    match row.open(&house.keys) {
        Ok(_) => all,
        Err(_) => Typed { kind: all.kind, name: all.name, replaces: all.replaces, ..Typed::default() },
    }
}

/// The one whose place is to be taken, if one is named, as it is now.
async fn replaced(house: &House, typed: &Typed) -> Result<Option<Arc<AddedHypervisor>>, Refusal> {
    let Some(id) = typed.replaces() else { return Ok(None) };
    let row = kept(house, &typed.name).await?.filter(|row| row.id == id);
    let why = || Refusal::Conflict("It was changed or removed meanwhile, or was never added: look at it again.".into());
    row.map(Some).ok_or_else(why)
}

/// The first steps: what it is, and where.
async fn asked(house: &House, guest: &Guest, typed: &Typed, mut problems: Problems) -> Answer {
    if guest.script && !problems.is_empty() {
        return Err(Refusal::Bad(problems.first().to_owned()));
    }
    let chosen = match typed.kind.trim() {
        "" => None,
        word => match Addable::of(word) {
            Ok(of) => Some(of),
            Err(why) => {
                problems = Problems::one("", why);
                None
            }
        },
    };
    let shown = NewHypervisor {
        shell: house.shell(guest).await,
        kinds: Addable::all().map(row).collect(),
        chosen: chosen.map(row),
        name: typed.name.chars().filter(|c| !c.is_control()).take(63).collect(),
        fields: chosen.map_or(&[][..], |of| of.places).iter().map(|ask| field(ask, typed.value(ask.key))).collect(),
        api: chosen.filter(|of| of.kind.api().is_some()).map(|_| ApiDraft {
            open: typed.api.is_some(),
            host: typed.api_host.clone().unwrap_or_default().chars().filter(|c| !c.is_control()).take(253).collect(),
        }),
        domain: house.config.portal.api_domain.clone(),
        replaces: typed.replaces().map(|id| id.to_string()),
        back: typed.begins(),
        problems,
    };
    if shown.problems.is_empty() { page(&shown) } else { again(&shown) }
}

/// How much of it has to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Much {
    /// Where it is: as whom the gateway is known there is asked in the next step.
    Place,
    /// All.
    Whole,
}

/// What was typed.
fn draft(house: &House, typed: &Typed, much: Much) -> Result<Draft, Wrong> {
    let mut given = typed.given();
    if much == Much::Place
        && let Ok(of) = Addable::of(typed.kind.trim())
    {
        for ask in of.more {
            let value = given.entry(ask.key.to_owned()).or_default();
            if value.trim().is_empty() {
                "later".clone_into(value);
            }
        }
        if of.more.iter().any(|ask| ask.key == "application_credential") {
            given.remove("application_credential");
        }
    }
    let roll = house.roster.load();
    let ground = Ground { config: &house.config, dial: house.config.adding.dial(), roll: &roll };
    typed.wish(given).read(&ground)
}

/// Says in the trail what came of it, and to the person.
pub(super) fn failed(guest: &Guest, about: &str, why: &str) -> Result<(), Refusal> {
    guest.say(&Step { about, outcome: Outcome::Failed, words: why, user: None })
}

/// A name as the trail has it, whatever it is.
fn about(typed: &Typed) -> String {
    format!("hypervisor {}", typed.name.trim())
}

/// Who answers at an address: shows the certificate, and says nothing.
pub(crate) async fn meet(State(house): State<Arc<House>>, guest: Guest, Form(typed): Form<Typed>) -> Answer {
    house.pace_adding(guest.actor()?)?;
    let about = about(&typed);
    if typed.secret.is_some() {
        return Err(Refusal::Bad("No credential is taken here: it comes when the certificate was agreed to.".into()));
    }
    let draft = match draft(&house, &typed, Much::Place) {
        Ok(draft) => draft,
        Err(Wrong { key, why }) => {
            failed(&guest, &about, &why)?;
            return asked(&house, &guest, &typed, Problems::one(key, why)).await;
        }
    };
    replaced(&house, &typed).await?;
    guest.intend(&house, &about, &format!("is to be met at {}", draft.address())).await?;
    let shown = match adding::meet(&draft).await {
        Ok(shown) => shown,
        Err(why) => return not_met(&house, &guest, &typed, &draft, why).await,
    };
    guest.say(&Step::done(&about, &format!("was met: {}", words(&draft, &shown))))?;
    if guest.script {
        return Ok(Json(json!({ "sha256": prints(&shown), "certificates": certificates_json(&shown) })).into_response());
    }
    agree(&house, &guest, &typed, &draft, &shown, Problems::none()).await
}

async fn not_met(house: &House, guest: &Guest, typed: &Typed, draft: &Draft, why: NotAdded) -> Answer {
    let about = about(typed);
    match why {
        NotAdded::Unusable(brief, _) => {
            failed(guest, &about, &format!("{} at {}: {brief}", draft.of.kind.word(), draft.address()))?;
            if guest.script {
                return Err(Refusal::Upstream(brief));
            }
            asked(house, guest, typed, Problems::one("", brief)).await
        }
        NotAdded::Store(error) => Err(house.unavailable(&error)),
        NotAdded::Wrong(Wrong { why, .. }) | NotAdded::Conflict(why) => Err(Refusal::Conflict(why)),
        NotAdded::Other(_) => Err(Refusal::Conflict("It shows another certificate now.".into())),
    }
}

/// The last step: its certificates, and the credential.
async fn agree(
    house: &House,
    guest: &Guest,
    typed: &Typed,
    draft: &Draft,
    shown: &[Agreed],
    problems: Problems,
) -> Answer {
    let of = draft.of;
    let mut hidden: Vec<(&'static str, String)> = of.places.iter().map(|ask| (ask.key, typed.value(ask.key))).collect();
    let mut before = Typed::default();
    if let Some(row) = replaced(house, typed).await? {
        hidden.push(("replaces", row.id.to_string()));
        before = known(house, &row);
    }
    if typed.api.is_some() {
        hidden.push(("api", "on".to_owned()));
        hidden.push(("api_host", typed.api_host.clone().unwrap_or_default()));
    }
    let shown = AgreeHypervisor {
        shell: house.shell(guest).await,
        title: of.title,
        kind: of.kind.word(),
        name: draft.name.to_string(),
        hidden,
        shown: certificates(house, shown),
        prints: prints(shown),
        replaces: typed.replaces().is_some(),
        back: typed.begins(),
        fields: of
            .more
            .iter()
            .map(|ask| {
                let said = typed.given().contains_key(ask.key);
                field(ask, if said { typed.value(ask.key) } else { before.value(ask.key) })
            })
            .collect(),
        secret: field(&of.secret, String::new()),
        problems,
    };
    if shown.problems.is_empty() { page(&shown) } else { again(&shown) }
}

/// Tries the credential with the certificate that was agreed to, and keeps the hypervisor.
pub(crate) async fn add(State(house): State<Arc<House>>, guest: Guest, Form(mut typed): Form<Typed>) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    house.pace_adding(&actor)?;
    // Out of what is shown again.
    let secret = Secret::from(typed.secret.take().unwrap_or_default());
    let about = about(&typed);
    let draft = match draft(&house, &typed, Much::Whole) {
        Ok(draft) => draft,
        Err(wrong) => {
            failed(&guest, &about, &wrong.why)?;
            return anew(&house, &guest, &typed, wrong).await;
        }
    };
    let said = typed.sha256.clone().unwrap_or_default();
    // A script agrees by what it sends.
    if said.trim().is_empty() || (typed.agree.is_none() && !guest.script) {
        let why =
            "Compare the certificate with what the hypervisor shows on its own screen, and say that it is the same.";
        failed(&guest, &about, "nobody agreed to a certificate")?;
        return anew(&house, &guest, &typed, Wrong { key: "agree", why: why.to_owned() }).await;
    }
    let told = format!("{} at {}, SHA-256 {}", draft.of.kind.word(), draft.address(), plain(&said));
    let before = replaced(&house, &typed).await?;
    let what = before.as_deref().map_or_else(|| "added".to_owned(), adding::in_place_of);
    guest.intend(&house, &about, &format!("is to be tried and {what}: {told}")).await?;
    guest.say(&Step::done(&about, &format!("was tried and {what}: {told}")))?;
    let by = actor.name.to_string();
    let keeper = Keeper { store: &house.store, keys: &house.keys, clock: Arc::clone(&house.clock), by: &by };
    match keeper.add(&draft, &said, secret, typed.replaces()).await {
        Ok(done) => {
            house.roster.hurry();
            added(&guest, &draft, done, before.is_some()).await
        }
        Err(NotAdded::Wrong(wrong)) => {
            failed(&guest, &about, &wrong.why)?;
            anew(&house, &guest, &typed, wrong).await
        }
        Err(NotAdded::Other(now)) => {
            let why =
                format!("It shows another certificate than the one that was agreed to: SHA-256 {}.", prints(&now));
            failed(&guest, &about, &format!("{why} The credential was not shown to it."))?;
            if guest.script {
                return Err(Refusal::Conflict(why));
            }
            agree(&house, &guest, &typed, &draft, &now, Problems::one("", why)).await
        }
        Err(NotAdded::Unusable(brief, _)) => {
            failed(&guest, &about, &format!("{told}: {brief}"))?;
            if guest.script {
                return Err(Refusal::Upstream(brief));
            }
            anew(&house, &guest, &typed, Wrong { key: "secret", why: format!("{brief} Nothing was kept.") }).await
        }
        Err(NotAdded::Conflict(why)) => {
            failed(&guest, &about, &why)?;
            Err(Refusal::Conflict(why))
        }
        Err(NotAdded::Store(error)) => Err(house.unavailable(&error)),
    }
}

/// What somebody said of certificates, as the trail takes it.
fn plain(said: &str) -> String {
    said.chars().filter(|c| c.is_ascii_hexdigit() || matches!(c, ' ' | ',' | ':')).take(256).collect()
}

/// The last step again, with what is wrong; the one before where it does not answer any more.
async fn anew(house: &House, guest: &Guest, typed: &Typed, wrong: Wrong) -> Answer {
    let Wrong { key, why } = wrong;
    if guest.script {
        return Err(Refusal::Bad(sentence(&why)));
    }
    let Ok(draft) = draft(house, typed, Much::Place) else {
        return asked(house, guest, typed, Problems::one(key, why)).await;
    };
    match adding::meet(&draft).await {
        Ok(shown) => agree(house, guest, typed, &draft, &shown, Problems::one(key, why)).await,
        Err(_) => asked(house, guest, typed, Problems::one("", why)).await,
    }
}

async fn added(guest: &Guest, draft: &Draft, done: Done, is_changed: bool) -> Answer {
    let Done { agreed, tried } = done;
    let name = &draft.name;
    let many = counted(tried.machines, "machine", "machines");
    if guest.script {
        let machines: Vec<_> = tried
            .first
            .iter()
            .map(|m| json!({ "id": m.at.machine.to_string(), "name": m.name, "state": m.state.word() }))
            .collect();
        return Ok(Json(json!({
            "name": name.as_str(), "sha256": prints(&agreed), "known_as": tried.who, "beyond": tried.beyond,
            "untold": tried.untold, "count": tried.machines, "machines": machines,
        }))
        .into_response());
    }
    let words = if is_changed {
        format!(
            "{name} is changed, with {many}. What was open of it before is being cut; every gateway uses it as it is now within seconds."
        )
    } else {
        format!("{name} is added, with {many}. Every gateway uses it within seconds.")
    };
    go_with(guest, &format!("/hypervisors/{name}"), Tone::Good, words).await
}

fn certificates_json(shown: &[Agreed]) -> Vec<serde_json::Value> {
    let of = |a: &Agreed| {
        json!({
            "address": a.address, "subject": a.subject, "issuer": a.issuer, "from": a.from, "until": a.until,
            "sha256": a.sha256,
        })
    };
    shown.iter().map(of).collect()
}
