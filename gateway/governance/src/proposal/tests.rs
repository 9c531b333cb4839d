// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{
    FourEyes, Guard,
    grant::tests::{Scene, grant, scene},
};
use portcullis_domain::{Clock as _, Conditions};
use time::Duration;

fn prod() -> Selector {
    Selector::Tag("prod".to_owned())
}

/// Grants on `tag prod` take two people; no machine is known.
async fn guarded() -> Scene {
    let s = scene().await;
    let eyes = FourEyes { on: vec![prod()], rights: vec![], files: false, lasts: Duration::HOUR };
    s.guarded(Guard::new(None, Some(eyes)))
}

fn to(holder: impl Into<Holder>, role: &str) -> Change {
    Change::Say(Sentence {
        holder: holder.into(),
        effect: GrantEffect::Allow,
        role: role.parse().unwrap(),
        on: vec![prod()],
        until: None,
        conditions: Conditions::default(),
    })
}

impl Scene {
    async fn seen(&self, change: &Change) -> String {
        self.grants.outlook(&self.engine, By::Shell, change).await.unwrap().seen
    }

    async fn approve(&self, by: UserId, id: ProposalId, seen: &str) -> Result<Proposal, Error> {
        self.grants.carry_out(&self.engine, &self.actor(by).await, id, "", seen).await
    }

    async fn move_in(&self, group: GroupId, user: UserId) -> Result<(), Error> {
        self.grants.change_member(&self.engine, By::Shell, group, user, Membership::Join).await.map(drop)
    }
}

#[tokio::test]
async fn what_is_approved_is_what_was_seen() {
    let s = guarded().await;
    let (ada, bob) = (s.person("ada", &["security-lead"]).await, s.person("bob", &["security-lead"]).await);
    let (kim, zoe) = (s.person("kim", &[]).await, s.person("zoe", &[]).await);
    let night = s.grants.make_group("night", "").await.unwrap();
    s.move_in(night, kim).await.unwrap();
    let change = to(night, "operator");
    let lead = s.actor(ada).await;
    let proposed = s.grants.propose(&s.engine, By::Person(&lead), &change, "", "").await.unwrap();
    let id = proposed.new.id;
    let first = s.seen(&change).await;
    assert_eq!(first, s.seen(&change).await, "looking twice is seeing the same");
    // Somebody comes in: the group holds nothing yet, so that takes nobody else.
    s.move_in(night, zoe).await.unwrap();
    for stale in [&*first, ""] {
        assert!(matches!(s.approve(bob, id, stale).await, Err(Error::Changed)));
    }
    assert_eq!(s.grants.proposal(id).await.unwrap().state, ProposalState::Waiting);
    assert!(s.store.grants_of(zoe).await.unwrap().is_empty());
    // A role that means more is something else, too.
    let second = s.seen(&change).await;
    assert_ne!(first, second);
    let wider = format!("{}\ng2, hypervisor/access-admin, operator\n", portcullis_policy::RULES);
    s.engine.replace(&wider).await.unwrap();
    assert!(matches!(s.approve(bob, id, &second).await, Err(Error::Changed)));
    let third = s.seen(&change).await;
    // Nobody who is in it approves it, however well they looked.
    s.store.join_group(night, bob, None).await.unwrap();
    assert!(matches!(s.approve(bob, id, &s.seen(&change).await).await, Err(Error::Forbidden(_))));
    s.store.leave_group(night, bob).await.unwrap();
    s.approve(bob, id, &third).await.unwrap();
    for user in [kim, zoe] {
        assert_eq!(s.store.grants_of(user).await.unwrap().len(), 1);
    }
    assert!(matches!(s.approve(bob, id, &third).await, Err(Error::UnknownProposal)), "once");
}

#[tokio::test]
async fn coming_into_a_group_that_holds_what_is_named_waits_where_it_is_made() {
    let s = guarded().await;
    let (ada, zoe) = (s.person("ada", &["security-lead"]).await, s.person("zoe", &[]).await);
    let night = s.grants.make_group("night", "").await.unwrap();
    let lead = s.actor(ada).await;
    let by = By::Person(&lead);
    // Whoever looked before the group held anything does not get by with that: the change itself asks.
    assert_eq!(s.grants.needs_second(&s.engine, &Change::Move(night, zoe, Membership::Join)).await.unwrap(), None);
    let turn = s.store.turn().await.unwrap();
    s.store.add_grant(night, &grant("operator", prod()), None, s.clock.now()).await.unwrap();
    let stale = s.grants.changed(&s.engine, by, night, zoe, Membership::Join, Hands::Two);
    let stale = s.store.in_turn(turn, stale).await;
    assert!(stale.as_ref().is_err_and(Error::is_overtaken), "the grant came in between");
    for by in [by, By::Shell] {
        let alone = s.grants.change_member(&s.engine, by, night, zoe, Membership::Join).await;
        assert!(matches!(alone, Err(Error::Waits(_))), "{alone:?}");
        let alone = s.grants.changed(&s.engine, by, night, zoe, Membership::Join, Hands::One).await;
        assert!(matches!(alone, Err(Error::Waits(_))), "{alone:?}");
    }
    assert!(s.store.grants_of(zoe).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_role_that_comes_to_mean_more_waits_also_where_nobody_is_in_the_group_that_holds_it() {
    let s = guarded().await;
    let night = s.grants.make_group("night", "").await.unwrap();
    s.person("ada", &["security-lead", "administrator"]).await;
    s.store.add_grant(night, &grant("night", prod()), None, s.clock.now()).await.unwrap();
    // A role of its own, which no other one includes.
    let text = |more: &str| format!("{}\ng2, machine/view, night\n{more}", portcullis_policy::RULES);
    s.engine.replace(&text("")).await.unwrap();
    let files = |more: &str| {
        let text = text(more);
        Change::Files(Files([("rules.csv".to_owned(), text)].into()), String::new())
    };
    let same = s.grants.needs_second(&s.engine, &files("")).await.unwrap();
    assert_eq!(same, None);
    let wider = s.grants.needs_second(&s.engine, &files("g2, machine/power, night\n")).await.unwrap();
    assert!(wider.is_some_and(|why| why.contains("night on tag prod")));
    let Change::Files(taken, _) = files("g2, machine/power, night\n") else { panic!("files") };
    assert!(matches!(s.grants.apply(&s.engine, By::Shell, &taken, "").await, Err(Error::Waits(_))));
}

#[tokio::test]
async fn each_kind_of_change_has_a_digest_of_its_own() {
    let s = guarded().await;
    let (ada, kim) = (s.person("ada", &["security-lead"]).await, s.person("kim", &[]).await);
    s.person("zoe", &["security-lead"]).await;
    let night = s.grants.make_group("night", "").await.unwrap();
    let held = grant("viewer", prod());
    s.store.add_grant(kim, &held, None, s.clock.now()).await.unwrap();
    s.actor(ada).await;
    let changes = [
        to(kim, "operator"),
        to(kim, "viewer"),
        to(night, "operator"),
        Change::Revoke(held.id),
        Change::Move(night, kim, Membership::Join),
    ];
    let mut all = BTreeSet::new();
    for change in &changes {
        all.insert(s.seen(change).await);
    }
    assert_eq!(all.len(), changes.len());
    // What others hold is none of it.
    let before = s.seen(&changes[0]).await;
    s.store.add_grant(ada, &grant("auditor", Selector::Everything), None, s.clock.now()).await.unwrap();
    assert_eq!(s.seen(&changes[0]).await, before);
}

#[tokio::test]
async fn taking_back_what_forbids_an_empty_group_by_files_waits() {
    let s = guarded().await;
    s.person("ada", &["security-lead", "administrator"]).await;
    let files = |rows: &str| Files([("rules.csv".to_owned(), format!("{}\n{rows}", portcullis_policy::RULES))].into());
    let apply = async |rows: &str| s.grants.apply(&s.engine, By::Shell, &files(rows), "").await;
    let (forbids, rest) = ("p, group:night, operator, tag:prod, , deny\n", "p, group:day, viewer, tag:x, , deny\n");
    // What takes away waits for nobody, and what stays as it is neither.
    apply(&format!("{forbids}{rest}")).await.unwrap();
    apply(&format!("{rest}{forbids}")).await.unwrap();
    // Nobody is in the group; a directory may put somebody there a moment later.
    let gone = apply(rest).await;
    assert!(matches!(&gone, Err(Error::Waits(why)) if why.contains("operator on tag prod")), "{gone:?}");
    for weaker in [
        "p, group:night, viewer, tag:prod, , deny\n",
        "p, group:night, operator, tag:prod, hours=mon-fri 08:00-18:00 Europe/Berlin, deny\n",
    ] {
        let less = apply(&format!("{weaker}{rest}")).await;
        assert!(matches!(less, Err(Error::Waits(_))), "{weaker}: {less:?}");
    }
    let held = s.store.grants().await.unwrap();
    assert_eq!(held.iter().filter(|h| h.grant.effect == GrantEffect::Deny).count(), 2, "nothing was taken back");
}

#[tokio::test]
async fn a_role_that_goes_with_its_last_row_counts_as_what_it_meant() {
    let s = scene().await;
    let right = "machine/console.control".parse().unwrap();
    let eyes = FourEyes { on: vec![], rights: vec![right], files: false, lasts: Duration::HOUR };
    let s = s.guarded(Guard::new(None, Some(eyes)));
    s.person("ada", &["security-lead", "administrator"]).await;
    let files = |more: &str| Files([("rules.csv".to_owned(), format!("{}\n{more}", portcullis_policy::RULES))].into());
    let with = "g2, machine/console.control, screens\np, group:night, screens, everything, , deny\n";
    let version = s.grants.apply(&s.engine, By::Shell, &files(with), "").await.unwrap();
    crate::take_rights(&s.engine, Some(&version)).await.unwrap();
    let gone = s.grants.apply(&s.engine, By::Shell, &files(""), "").await;
    assert!(matches!(&gone, Err(Error::Waits(why)) if why.contains("screens holds")), "{gone:?}");
}
