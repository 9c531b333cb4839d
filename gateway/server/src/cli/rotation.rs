// SPDX-License-Identifier: Apache-2.0
//! One rotation of one secret, by whoever holds the claim on it.
//!
//! ```text
//! claim → end what an earlier one left → check the old one → make a new one → keep it sealed beside the old one → try it
//!       → put it in its place, and keep the old one as the former → wait until every gateway that runs uses it
//!       → take the old one away at the hypervisor → forget it → release
//! ```
//!
//! What is changed stands in the trail as two brackets, before and after the wait: a log has one writer, and the other verbs
//! need it meanwhile.
//!
//! Whatever fails before the new one is in its place leaves the old one in use, and takes the new one away again: when the
//! store has proven that it is not the one in use. Whatever breaks off in the middle is found by the next one, in the store.

use super::{
    Desk, chain,
    claim::{alone, by},
    say,
    taken::{Used, used},
};
use crate::secrets::{self, kept};
use anyhow::{Context as _, bail};
use portcullis_domain::{Clock as _, Secret, SystemClock};
use portcullis_store::{Claim, HypervisorSecret, Keys};
use portcullis_upstream::{Fleet, Form, Rotation, SecretName, new_password};
use std::{
    io::IsTerminal as _,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How long the old one is left alone after every gateway uses the new one: what was begun with it ends, and whoever
/// signs in with the new one has
/// done so.
const GRACE: Duration = Duration::from_secs(2);
/// How long the store is asked what holds, after a change whose outcome is not known.
const ASKED: Duration = Duration::from_secs(12);

/// What is to be done.
pub(super) enum Wish {
    /// A new one that the hypervisor makes or takes.
    New(Sure),
    /// This one, which was made by hand.
    Given(Secret),
    /// No new one: what an earlier rotation left is ended.
    Finish,
}

/// Whether somebody is asked before more is changed than what the gateway shows.
#[derive(Clone, Copy)]
pub(super) enum Sure {
    Ask,
    Yes,
}

/// One rotation.
pub(super) struct Turn<'a> {
    pub(super) desk: &'a Desk,
    pub(super) name: &'a SecretName,
}

impl Turn<'_> {
    /// The hypervisor alone, with its secret or with another one in its place.
    async fn fleet(&self, other: Option<&Secret>) -> anyhow::Result<Fleet> {
        let Desk { config, keys, store, .. } = self.desk;
        let mut alone = config.clone();
        alone.hypervisors.retain(|h| *h.name() == self.name.hypervisor);
        if alone.hypervisors.is_empty() {
            bail!("there is no hypervisor called {}", self.name.hypervisor);
        }
        let Some(other) = other else {
            let opened = secrets::open(&alone, keys, store, Arc::new(SystemClock)).await?;
            return Ok(opened.fleet);
        };
        let mut kept = kept(keys, store, &alone.hypervisors).await?;
        kept.insert(self.name.clone(), other.clone());
        Ok(Fleet::with(alone.hypervisors, &kept, Arc::new(SystemClock))?)
    }

    /// Which adding it is whose secret is changed.
    fn adding(&self) -> Option<Uuid> {
        self.desk.adding(&self.name.hypervisor)
    }

    async fn row(&self) -> anyhow::Result<Option<HypervisorSecret>> {
        let SecretName { hypervisor, credential } = self.name;
        Ok(self.desk.store.hypervisor_secret(hypervisor, credential).await?)
    }

    pub(super) async fn run(&self, wish: Wish) -> anyhow::Result<Vec<String>> {
        let known = self.fleet(None).await?;
        known.names(self.name).with_context(|| format!("see: portcullis secrets list; {} is none", self.name))?;
        if let (Wish::New(Sure::Ask), Some(words)) = (&wish, known.caution(self.name)?) {
            ask(words)?;
        }
        if let Wish::New(_) = wish {
            let Desk { config, keys, store, .. } = self.desk;
            let all = secrets::open(config, keys, store, Arc::new(SystemClock)).await?.fleet;
            let others: Vec<String> = all.sharing(self.name).iter().map(ToString::to_string).collect();
            if !others.is_empty() {
                bail!(
                    "nothing was changed: the same secret is that of {}, where the new one would not be known. Give each a \
                     secret of its own, with --from",
                    others.join(", ")
                );
            }
        }
        alone(self.desk, self.name, async |claim| Box::pin(Held { turn: self, claim }.run(wish)).await).await
    }
}

/// A rotation that holds the claim.
struct Held<'a> {
    turn: &'a Turn<'a>,
    claim: &'a Claim,
}

/// A new secret that is in its place, beside the one before.
struct Placed {
    /// The hypervisor with the new one.
    fleet: Fleet,
    was: Secret,
    way: Rotation,
}

impl Held<'_> {
    async fn run(&self, wish: Wish) -> anyhow::Result<Vec<String>> {
        let Self { turn, .. } = self;
        let mut told = Vec::new();
        // Anew: another one may have ended just now.
        let mut old = turn.fleet(None).await?;
        if let Some(begun) = self.kept(HypervisorSecret::open_next).await? {
            let words = "a rotation that broke off is ended";
            if let Some(placed) = self.act(words, self.end_begun(&old, &begun, &mut told)).await? {
                told.push("An earlier rotation had broken off; its secret is in use now.".to_owned());
                self.settle(&placed, &mut told).await;
                if !matches!(wish, Wish::Given(_)) {
                    return Ok(told);
                }
                old = placed.fleet;
            }
        }
        let mut former = self.kept(HypervisorSecret::open_former).await?;
        if let Some(left) = &former {
            match self.retire(&old, left).await {
                Ok(()) => {
                    told.push("The one that an earlier rotation left counts no more.".to_owned());
                    former = None;
                }
                Err(why) if matches!(wish, Wish::Given(_)) => told.push(why),
                Err(why) => bail!("nothing was changed: {why}"),
            }
        }
        match wish {
            Wish::Finish => {
                if told.is_empty() {
                    told.push("Nothing was left to end.".to_owned());
                }
            }
            Wish::Given(given) => {
                self.act("its secret is replaced by one that was brought", self.bring(&given, former.as_ref())).await?;
                let note = "The old one counts at the hypervisor still: take it away there.";
                told.extend([used(turn.desk, turn.name).await.words(), note.to_owned()]);
            }
            Wish::New(_) => {
                let way = old.rotation(turn.name).await?;
                if let Rotation::ByHand(why) = way {
                    bail!("{why}: make a new one there and give it with --from");
                }
                let placed = self.act("its secret is rotated", self.replace(&old, way)).await?;
                self.settle(&placed, &mut told).await;
            }
        }
        self.name_others(&mut told).await;
        Ok(told)
    }

    /// Does something that stands in the trail.
    async fn act<T>(&self, words: &str, deed: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let Turn { desk, name } = self.turn;
        Box::pin(desk.act("secret", &name.to_string(), words, deed)).await
    }

    /// Names what rotations made there and the store does not know: one that broke off before it could keep it. Nobody
    /// knows such a secret, but it counts; and it may be another installation's, so it is not taken away.
    async fn name_others(&self, told: &mut Vec<String>) {
        let others = async {
            let now = self.turn.fleet(None).await?;
            let former = self.kept(HypervisorSecret::open_former).await?.map(|s| now.label(self.turn.name, &s));
            let mut others = now.others(self.turn.name).await?;
            others.retain(|other| Some(other) != former.as_ref());
            Ok::<_, anyhow::Error>(others)
        };
        match others.await {
            Ok(others) if others.is_empty() => {}
            Ok(others) => told.push(format!(
                "Look at the hypervisor: a rotation made {}, which this store does not know. Take that away there, unless \
                 another installation uses it.",
                others.join(", ")
            )),
            Err(error) => tracing::info!(%error, "whether rotations left something there is not known"),
        }
    }

    /// One of the secrets that the store keeps of a rotation.
    async fn kept(
        &self,
        of: impl Fn(&HypervisorSecret, &Keys, Option<Uuid>) -> Result<Option<Secret>, portcullis_store::Error>,
    ) -> anyhow::Result<Option<Secret>> {
        let open = |row: HypervisorSecret| of(&row, &self.turn.desk.keys, self.turn.adding());
        Ok(self.turn.row().await?.map(open).transpose()?.flatten())
    }

    /// Ends a rotation that broke off before its secret was in place: that one may be the one that counts, and is put in
    /// place then.
    async fn end_begun(&self, old: &Fleet, begun: &Secret, told: &mut Vec<String>) -> anyhow::Result<Option<Placed>> {
        let Self { turn, claim } = self;
        match old.known_as(turn.name).await {
            Ok(_) => {
                // It may count at the hypervisor all the same.
                if let Err(why) = self.take_away(old, begun).await {
                    bail!("an earlier rotation broke off: {why}");
                }
                turn.desk.store.drop_next_secret(claim).await?;
                told.push("An earlier rotation had broken off; its secret is forgotten.".to_owned());
                Ok(None)
            }
            Err(why) if !why.is_refusal() => Err(why).context("an earlier rotation broke off; nothing was changed"),
            Err(_) => {
                let fleet = turn.fleet(Some(begun)).await?;
                fleet
                    .known_as(turn.name)
                    .await
                    .context("neither the secret nor the one of a rotation that broke off")?;
                let way = fleet.rotation(turn.name).await?;
                let was = old.secret(turn.name)?;
                self.take(begun, has_both(way).then_some(&was)).await?;
                Ok(Some(Placed { fleet, was, way }))
            }
        }
    }

    /// Puts one in place that was made by hand.
    async fn bring(&self, given: &Secret, former: Option<&Secret>) -> anyhow::Result<()> {
        let new = self.turn.fleet(Some(given)).await?;
        new.known_as(self.turn.name).await.context("the new secret was tried, and the old one stays in use")?;
        self.take(given, former).await
    }

    async fn replace(&self, old: &Fleet, way: Rotation) -> anyhow::Result<Placed> {
        let Self { turn: Turn { desk, name }, claim } = self;
        old.known_as(name).await.context("the secret in use was tried first; nothing was changed")?;
        let was = old.secret(name)?;
        let new = match way {
            Rotation::Made => old.make_secret(name).await?,
            Rotation::Given(form) => invent(form, &name.to_string())?,
            Rotation::ByHand(why) => bail!("{why}"),
        };
        // Before the hypervisor takes it, so that no crash loses it.
        if let Err(error) = desk.store.keep_next_secret(&desk.keys, claim, &new).await {
            let undone = self.undo(way, old, &new, &was).await;
            return Err(anyhow::Error::from(error).context(undone));
        }
        let put = async {
            if matches!(way, Rotation::Given(_)) {
                old.put_secret(name, &new).await?;
            }
            let fleet = self.turn.fleet(Some(&new)).await?;
            fleet.known_as(name).await.context("the new secret was tried")?;
            self.take(&new, has_both(way).then_some(&was)).await?;
            Ok::<_, anyhow::Error>(fleet)
        };
        match put.await {
            Ok(fleet) => Ok(Placed { fleet, was, way }),
            Err(why) => {
                let undone = self.undo(way, old, &new, &was).await;
                Err(why.context(undone))
            }
        }
    }

    /// Puts it in the place of the old one. An error of which the store says afterwards that it was none is none.
    async fn take(&self, new: &Secret, former: Option<&Secret>) -> anyhow::Result<()> {
        let Desk { store, keys, .. } = self.turn.desk;
        let made = (by(), SystemClock.now());
        let Err(error) = store.keep_secret(keys, self.claim, new, former, (&made.0, made.1)).await else {
            return Ok(());
        };
        match self.holds().await.map(|row| row.open(keys, self.turn.adding())) {
            Some(Ok(Some(kept))) if kept.expose() == new.expose() => Ok(()),
            _ => Err(error.into()),
        }
    }

    /// What the store holds, for certain: nothing that this rotation sent before comes after it. None where that cannot be
    /// known.
    async fn holds(&self) -> Option<HypervisorSecret> {
        let began = Instant::now();
        loop {
            match self.turn.desk.store.fence_claim(self.claim).await {
                Ok(row) => return row,
                Err(error) => tracing::warn!(%error, "what the store holds is not known"),
            }
            if began.elapsed() >= ASKED {
                return None;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Takes the new one away again, if the store proves that it is not in use: the words for whoever waits.
    async fn undo(&self, way: Rotation, old: &Fleet, new: &Secret, was: &Secret) -> String {
        let Turn { desk, name } = self.turn;
        let label = old.label(name, new);
        let in_use = self.holds().await.map(|row| row.open(&desk.keys, self.turn.adding()));
        let is_in_use = match in_use {
            Some(Ok(kept)) => kept.is_some_and(|kept| kept.expose() == new.expose()),
            // The store does not answer, or somebody else holds the secret by now and may have put it in use.
            Some(Err(_)) | None => {
                return format!(
                    "whether the new one is in use is not known, so nothing was taken away: when the store answers, look \
                     at `portcullis secrets list` and run `portcullis secrets rotate {name} --finish`; what was made at \
                     the hypervisor is {label}",
                    name = name.hypervisor
                );
            }
        };
        if is_in_use {
            return "the new one is in use".to_owned();
        }
        let undone = match way {
            // With a new password only that one counts: it puts the old one back.
            Rotation::Given(form) if !form.has_both() && old.known_as(name).await.is_err() => {
                match self.turn.fleet(Some(new)).await {
                    Ok(fleet) => fleet.put_secret(name, was).await.is_ok(),
                    Err(_) => false,
                }
            }
            Rotation::Given(form) if !form.has_both() => true,
            Rotation::Made | Rotation::Given(_) => self.take_away(old, new).await.is_ok(),
            Rotation::ByHand(_) => true,
        };
        if old.known_as(name).await.is_err() {
            // Kept sealed beside it: the next rotation finds it.
            return "whether the old one counts still is not known; the new one is kept: run it again".to_owned();
        }
        if !undone {
            return format!(
                "the old one stays in use; {label} may be left at the hypervisor: run it again with --finish"
            );
        }
        match desk.store.drop_next_secret(self.claim).await {
            Ok(()) => "the old one stays in use".to_owned(),
            Err(_) => "the old one stays in use; run it again with --finish, to forget the new one".to_owned(),
        }
    }

    /// Waits for the gateways, and takes the old one away where it counts beside the new one.
    async fn settle(&self, placed: &Placed, told: &mut Vec<String>) {
        let Placed { fleet, was, way } = placed;
        let in_use = used(self.turn.desk, self.turn.name).await;
        told.push(in_use.words());
        if !has_both(*way) {
            told.push("The old one counts no more.".to_owned());
            return;
        }
        if !matches!(in_use, Used::ByAll) {
            told.push(format!(
                "The old one ({}) counts at the hypervisor still: when every gateway uses the new one, run it again with \
                 --finish.",
                fleet.label(self.turn.name, was)
            ));
            return;
        }
        match self.retire_now(fleet, was).await {
            Ok(()) => told.push("The old one counts no more.".to_owned()),
            Err(why) => told.push(why),
        }
    }

    /// Takes the one before away when every gateway uses the new one, or says why not.
    async fn retire(&self, fleet: &Fleet, was: &Secret) -> Result<(), String> {
        match used(self.turn.desk, self.turn.name).await {
            Used::ByAll => self.retire_now(fleet, was).await,
            other => Err(format!(
                "an earlier rotation is not ended. {} {} counts at the hypervisor still",
                other.words(),
                fleet.label(self.turn.name, was)
            )),
        }
    }

    async fn retire_now(&self, fleet: &Fleet, was: &Secret) -> Result<(), String> {
        tokio::time::sleep(GRACE).await;
        let deed = async {
            self.take_away(fleet, was).await.map_err(anyhow::Error::msg)?;
            let dropped = self.turn.desk.store.drop_former_secret(self.claim).await;
            dropped.context("the old one counts no more, and the store could not forget it")
        };
        let done = self.act("the secret before is taken away at the hypervisor", deed).await;
        done.map_err(|why| format!("The old one is not done with: {}. Run it again with --finish.", chain(&why)))
    }

    /// Takes one away at the hypervisor that is not in use. One that counts no more already is away.
    async fn take_away(&self, fleet: &Fleet, gone: &Secret) -> Result<(), String> {
        let name = self.turn.name;
        let Err(why) = fleet.retire_secret(name, gone).await else { return Ok(()) };
        let label = fleet.label(name, gone);
        let counts = async {
            let refused = match self.turn.fleet(Some(gone)).await {
                Ok(tried) => tried.known_as(name).await.is_err_and(|e| e.is_refusal()),
                Err(_) => false,
            };
            // It says no to everybody.
            !refused || fleet.known_as(name).await.is_err()
        };
        if counts.await {
            return Err(format!("{label} counts at the hypervisor still, take it away there: {why}"));
        }
        Ok(())
    }
}

/// Asks whoever is there whether more is to be changed than what the gateway shows.
fn ask(words: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("nothing was changed: {words}. If that is meant, say --yes");
    }
    say::ask(format_args!("This does more than change what the gateway shows: {words}. Is that meant? [yes/no] "))?;
    let mut said = String::new();
    std::io::stdin().read_line(&mut said)?;
    if said.trim().eq_ignore_ascii_case("yes") { Ok(()) } else { bail!("nothing was changed") }
}

/// Whether an old secret counts beside a new one.
const fn has_both(way: Rotation) -> bool {
    match way {
        Rotation::Made => true,
        Rotation::Given(form) => form.has_both(),
        Rotation::ByHand(_) => false,
    }
}

/// A new secret that is given to a hypervisor.
fn invent(form: Form, name: &str) -> anyhow::Result<Secret> {
    match form {
        Form::Password => Ok(new_password()?),
        Form::Certificate => {
            let key = rcgen::KeyPair::generate()?;
            let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
            parameters.distinguished_name.push(rcgen::DnType::CommonName, format!("portcullis {name}"));
            parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            let now = SystemClock.now();
            // A clock over there may be behind; LXD looks at no end, and the next rotation comes before it.
            parameters.not_before = now - time::Duration::DAY;
            parameters.not_after = now + time::Duration::days(3650);
            let certificate = parameters.self_signed(&key)?;
            Ok(Secret::from(format!("{}{}", certificate.pem(), key.serialize_pem())))
        }
    }
}
