// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{MOST_THINGS, Membership};
use portcullis_domain::{
    Assurance, ConsoleKind, Effect, Factor, GrantChange, GroupId, HypervisorName, Inventory, Machine, MachineKind,
    ManualClock, Operation, PowerState, Resource, Via,
};
use portcullis_policy::Decision;
use portcullis_store::NewUser;
use proptest::{prelude::Rng as _, test_runner::TestRunner};
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

pub(crate) struct Scene {
    pub(crate) grants: Grants,
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

pub(crate) async fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}/p.db", dir.path().display())).await.unwrap();
    let clock = Arc::new(ManualClock::new(NOW));
    let grants = Grants::new(store.clone(), clock.clone());
    Scene { grants, engine: Engine::builtin().await.unwrap(), store, clock, _dir: dir }
}

pub(crate) fn grant(role: &str, selector: Selector) -> Grant {
    Grant {
        id: GrantId::new(Uuid::now_v7()),
        role: role.parse().unwrap(),
        selector,
        from: NOW,
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Setup,
        effect: GrantEffect::Allow,
    }
}

fn actor(user: UserId) -> Actor {
    let mut assurance = Assurance::default();
    assurance.prove(Factor::Passkey, NOW);
    Actor { user, name: "x".into(), via: Via::CommandLine, assurance, scope: None, from: None, pass: None }
}

impl Scene {
    /// The same, where some changes take two people.
    pub(crate) fn guarded(self, guard: Guard) -> Self {
        Self { grants: self.grants.guarded(guard), ..self }
    }

    /// Somebody who was invited and has not come yet.
    async fn invited(&self, name: &str) -> UserId {
        let id = UserId::new(Uuid::now_v7());
        let new = NewUser { id, name: name.into(), name_key: name.into(), display_name: name.into() };
        self.store.create_user(&new, NOW).await.unwrap();
        id
    }

    /// Somebody who can sign in, and holds these roles on everything.
    pub(crate) async fn person(&self, name: &str, roles: &[&str]) -> UserId {
        let id = self.invited(name).await;
        self.store.set_password_hash(id, "$argon2id$", NOW).await.unwrap();
        for role in roles {
            self.store.add_grant(id, &grant(role, Selector::Everything), None, NOW).await.unwrap();
        }
        id
    }

    pub(crate) async fn actor(&self, user: UserId) -> Actor {
        self.engine.reset(self.store.grant_changes(None).await.unwrap().changes);
        actor(user)
    }

    async fn give(&self, giver: UserId, new: NewGrant) -> Result<Grant, Error> {
        self.grants.give(&self.engine, By::Person(&self.actor(giver).await), new).await
    }

    async fn revoke(&self, taker: UserId, id: GrantId) -> Result<Holding, Error> {
        self.grants.revoke(&self.engine, By::Person(&self.actor(taker).await), id).await
    }

    async fn only_grant(&self, user: UserId) -> GrantId {
        self.store.grants_of(user).await.unwrap()[0].id
    }

    async fn objection(&self, by: UserId, user: UserId) -> Option<String> {
        self.grants.objects(&self.engine, By::Person(&self.actor(by).await), user).await.unwrap()
    }
}

fn wish(user: UserId, role: &str) -> NewGrant {
    NewGrant {
        user,
        role: role.parse().unwrap(),
        selector: Selector::Everything,
        hours: None,
        conditions: Conditions::default(),
    }
}

#[tokio::test]
async fn nobody_gives_themselves_a_role_and_only_what_exists_is_given() {
    let s = scene().await;
    let (ada, bob) = (s.person("ada", &["security-lead"]).await, s.person("bob", &[]).await);
    assert!(matches!(s.give(ada, wish(ada, "viewer")).await, Err(Error::ToOneself)));
    assert!(matches!(s.give(ada, wish(bob, "emperor")).await, Err(Error::UnknownRole(_))));
    assert!(matches!(s.give(ada, wish(UserId::new(Uuid::now_v7()), "viewer")).await, Err(Error::UnknownPerson)));
    let given = s.give(ada, wish(bob, "administrator")).await.unwrap();
    let [held] = <[Holding; 1]>::try_from(
        s.store.grants().await.unwrap().into_iter().filter(|h| h.holder == bob.into()).collect::<Vec<_>>(),
    )
    .unwrap();
    assert_eq!((held.grant, held.created_by), (given, Some(ada)));
    s.store.set_disabled(bob, Some(NOW)).await.unwrap();
    assert!(matches!(s.give(ada, wish(bob, "viewer")).await, Err(Error::UnknownPerson)));
}

#[tokio::test]
async fn a_grant_has_a_time_and_a_window_that_make_sense() {
    let s = scene().await;
    let (ada, bob) = (s.person("ada", &["security-lead"]).await, s.person("bob", &[]).await);
    for hours in [0, -1, i64::MIN, LONGEST_HOURS + 1, i64::MAX] {
        let new = NewGrant { hours: Some(hours), ..wish(bob, "viewer") };
        assert!(matches!(s.give(ada, new).await, Err(Error::BadTime)), "{hours}");
    }
    let conditions = Conditions { step_up_seconds: 86_401, record: true, ..Conditions::default() };
    assert!(matches!(s.give(ada, NewGrant { conditions, ..wish(bob, "viewer") }).await, Err(Error::BadWindow)));
    let given = s.give(ada, NewGrant { hours: Some(8), ..wish(bob, "viewer") }).await.unwrap();
    assert_eq!((given.from, given.until), (NOW, Some(NOW + Duration::hours(8))));
}

// SEC-006
#[tokio::test]
async fn who_may_not_give_roles_gives_and_takes_only_what_they_hold() {
    let s = scene().await;
    let lead = s.person("lead", &["security-lead"]).await;
    let (admin, bob) = (s.person("admin", &["administrator"]).await, s.person("bob", &[]).await);
    assert!(matches!(s.give(admin, wish(bob, "security-lead")).await, Err(Error::Kept(_))));
    assert!(matches!(s.give(admin, wish(bob, "auditor")).await, Err(Error::Kept(_))));
    assert!(matches!(s.give(bob, wish(lead, "viewer")).await, Err(Error::Kept(_))));
    assert!(s.give(admin, wish(bob, "operator")).await.is_ok());
    assert!(s.give(lead, wish(bob, "auditor")).await.is_ok(), "a security lead gives what they do not hold");
    let leads = s.only_grant(lead).await;
    assert!(matches!(s.revoke(admin, leads).await, Err(Error::Kept(_))));
    let admins = s.only_grant(admin).await;
    assert!(s.revoke(lead, admins).await.is_ok());
    // A token for one hypervisor gives nothing.
    let scoped = Actor { scope: Some("one".parse().unwrap()), ..s.actor(lead).await };
    assert!(matches!(s.grants.give(&s.engine, By::Person(&scoped), wish(bob, "viewer")).await, Err(Error::Kept(_))));
}

#[tokio::test]
async fn the_last_who_can_run_the_gateway_keeps_what_that_takes() {
    let s = scene().await;
    let (ada, bob) = (s.person("ada", &["security-lead"]).await, s.person("bob", &["administrator"]).await);
    let lead = s.only_grant(ada).await;
    assert!(matches!(s.revoke(ada, lead).await, Err(Error::Kept(_))));
    assert!(s.grants.keeps(&s.engine, ada).await.unwrap().is_some());
    assert_eq!(s.grants.keeps(&s.engine, bob).await.unwrap(), None);
    // A second one does not count while invited, disabled, locked, for a time only, or on something only.
    let eve = s.invited("eve").await;
    s.give(ada, wish(eve, "security-lead")).await.unwrap();
    assert!(matches!(s.revoke(ada, lead).await, Err(Error::Kept(_))), "invited");
    s.store.set_password_hash(eve, "$argon2id$", NOW).await.unwrap();
    s.store.set_disabled(eve, Some(NOW)).await.unwrap();
    assert!(matches!(s.revoke(ada, lead).await, Err(Error::Kept(_))), "disabled");
    s.give(ada, NewGrant { hours: Some(1), ..wish(bob, "security-lead") }).await.unwrap();
    s.give(ada, NewGrant { selector: Selector::Tag("web".into()), ..wish(bob, "security-lead") }).await.unwrap();
    assert!(matches!(s.revoke(ada, lead).await, Err(Error::Kept(_))), "for a time, on a tag");
    s.store.set_disabled(eve, None).await.unwrap();
    s.store.set_locked(eve, Some(("stolen laptop", None)), NOW).await.unwrap();
    assert!(matches!(s.revoke(ada, lead).await, Err(Error::Kept(_))), "locked");
    s.store.set_locked(eve, None, NOW).await.unwrap();
    assert_eq!(s.revoke(ada, lead).await.unwrap().holder, ada.into());
    assert!(matches!(s.revoke(eve, lead).await, Err(Error::UnknownGrant)));
}

#[tokio::test]
async fn a_shell_gives_and_takes_everything_but_the_last_rights() {
    let s = scene().await;
    let (ada, bob) = (s.person("ada", &["security-lead"]).await, s.person("bob", &[]).await);
    let lead = s.only_grant(ada).await;
    assert!(matches!(s.grants.revoke(&s.engine, By::Shell, lead).await, Err(Error::Kept(_))));
    let disable = s.store.set_disabled(ada, Some(NOW));
    assert!(matches!(s.grants.change_account(&s.engine, By::Shell, ada, disable).await, Err(Error::Kept(_))));
    assert_eq!(s.store.user(ada).await.unwrap().unwrap().disabled_at, None);
    assert!(matches!(s.grants.give(&s.engine, By::Shell, wish(bob, "emperor")).await, Err(Error::UnknownRole(_))));
    s.grants.give(&s.engine, By::Shell, wish(bob, "security-lead")).await.unwrap();
    assert!(s.grants.revoke(&s.engine, By::Shell, lead).await.is_ok());
}

#[tokio::test]
async fn a_grant_of_a_disabled_person_can_be_taken_and_one_from_a_file_cannot() {
    let s = scene().await;
    let (ada, bob) = (s.person("ada", &["security-lead"]).await, s.person("bob", &["viewer"]).await);
    s.store.set_disabled(bob, Some(NOW)).await.unwrap();
    let bobs = s.only_grant(bob).await;
    assert!(s.grants.all().await.unwrap().iter().all(|h| h.holder != bob.into()));
    assert!(s.revoke(ada, bobs).await.is_ok());
    let fixed =
        Grant { source: GrantSource::PolicyFile, effect: GrantEffect::Allow, ..grant("viewer", Selector::Everything) };
    s.store.add_grant(bob, &fixed, None, NOW).await.unwrap();
    assert!(matches!(s.revoke(ada, fixed.id).await, Err(Error::Kept(why)) if why.contains("file")));
    // What follows from a group would come back; a shell may still clear up after a provider that is gone.
    let follows = Grant {
        source: GrantSource::IdentityProvider,
        effect: GrantEffect::Allow,
        ..grant("viewer", Selector::Everything)
    };
    s.store.add_grant(bob, &follows, None, NOW).await.unwrap();
    assert!(matches!(s.revoke(ada, follows.id).await, Err(Error::Kept(why)) if why.contains("group")));
    assert!(s.grants.revoke(&s.engine, By::Shell, follows.id).await.is_ok());
}

// SEC-006: who resets a stronger person's way to sign in becomes them.
#[tokio::test]
async fn accounts_with_more_rights_than_ones_own_are_out_of_reach() {
    let s = scene().await;
    let lead = s.person("lead", &["security-lead"]).await;
    let second = s.person("second", &["security-lead", "administrator"]).await;
    let (admin, peer) = (s.person("admin", &["administrator"]).await, s.person("peer", &["operator"]).await);
    assert!(s.objection(admin, admin).await.unwrap().contains("own account"));
    assert!(s.objection(admin, lead).await.unwrap().contains("beyond your own"));
    assert!(s.objection(admin, second).await.is_some());
    assert_eq!(s.objection(admin, peer).await, None);
    assert_eq!(s.objection(lead, admin).await, None);
    assert_eq!(s.objection(lead, second).await, None);
    // What is yet to begin counts; what is over does not.
    let later = Grant { from: NOW + Duration::DAY, ..grant("security-lead", Selector::Everything) };
    s.store.add_grant(peer, &later, None, NOW).await.unwrap();
    assert!(s.objection(admin, peer).await.is_some());
    s.store.revoke_grant(later.id, None, NOW).await.unwrap();
    let over = Grant { until: Some(NOW + Duration::HOUR), ..grant("security-lead", Selector::Everything) };
    s.store.add_grant(peer, &over, None, NOW).await.unwrap();
    assert!(s.objection(admin, peer).await.is_some());
    s.clock.advance(Duration::HOUR);
    assert_eq!(s.objection(admin, peer).await, None);
}

#[tokio::test]
async fn two_people_cannot_shut_each_other_out_at_the_same_moment() {
    let s = scene().await;
    let (ada, bob) = (s.person("ada", &["security-lead"]).await, s.person("bob", &["security-lead"]).await);
    let (first, second) = (s.actor(ada).await, s.actor(bob).await);
    let disable = |user| {
        let store = s.store.clone();
        async move {
            // Whoever looks meanwhile must wait.
            tokio::task::yield_now().await;
            store.set_disabled(user, Some(NOW)).await
        }
    };
    let other = s.grants.clone();
    let (a, b) = tokio::join!(
        s.grants.change_account(&s.engine, By::Person(&first), bob, disable(bob)),
        other.change_account(&s.engine, By::Person(&second), ada, disable(ada)),
    );
    assert!(a.is_ok() != b.is_ok(), "one of the two, and one only");
    let left = s.store.users().await.unwrap().iter().filter(|u| u.disabled_at.is_none()).count();
    assert_eq!(left, 1);
}

// SEC-006 as a property: whoever may hand out grants without the right to give roles could do, themselves, everything
// that those grants open.
#[tokio::test]
async fn what_is_handed_out_is_never_more_than_what_is_held() {
    let engine = Engine::builtin().await.unwrap();
    let h = |n: &str| n.parse::<HypervisorName>().unwrap();
    let machine = |at: &str, pool: &str, tag: &str| Machine {
        at: at.parse().unwrap(),
        name: at.to_owned(),
        kind: MachineKind::Guest,
        state: PowerState::Running,
        pool: Some(pool.to_owned()),
        tags: vec![tag.to_owned()],
        node: None,
        console: ConsoleKind::Vnc,
    };
    let inventory =
        Inventory::new([machine("one/a", "p", "t"), machine("one/b", "q", "u"), machine("two/a", "p", "t")]);
    let selectors = [
        Selector::Everything,
        Selector::Hypervisor(h("one")),
        Selector::Hypervisor(h("two")),
        Selector::Pool(h("one"), "p".into()),
        Selector::Tag("t".into()),
        Selector::Machine("one/a".parse().unwrap()),
        Selector::Machine("two/a".parse().unwrap()),
    ];
    let roles = ["viewer", "operator", "console-user", "administrator", "auditor", "security-lead"];
    let mut resources: Vec<Resource> = inventory.iter().map(|m| Resource::Machine(m.at.clone())).collect();
    resources.extend([Resource::Hypervisor(h("one")), Resource::Hypervisor(h("two"))]);
    resources.extend(OwnObject::ALL.iter().map(|o| Resource::Own(*o)));
    let may = |who: &Actor, action, resource: &Resource| {
        let operation = Operation { action, resource: resource.clone(), effect: Effect::Unsafe };
        matches!(engine.decide(who, &operation, &inventory, NOW), Decision::Permit(_))
    };
    let mut runner = TestRunner::deterministic();
    let rng = runner.rng();
    let mut pick = |n: usize| usize::try_from(rng.next_u64() % n as u64).unwrap();
    let (mut handed, mut refused) = (0, 0);
    for _ in 0..400 {
        let mut some = |most| -> Vec<Grant> {
            (0..=pick(most))
                .map(|_| grant(roles[pick(roles.len())], selectors[pick(selectors.len())].clone()))
                .collect()
        };
        let (held, given) = (some(3), some(2));
        let [giver, taker] = [1, 2].map(|n| actor(UserId::new(Uuid::from_u128(n))));
        engine.reset(
            held.iter()
                .map(|g| (giver.user, g))
                .chain(given.iter().map(|g| (taker.user, g)))
                .map(|(user, g)| GrantChange::Put(user.into(), g.clone())),
        );
        if may(&giver, Action::Write, &Resource::Own(OwnObject::Policy)) {
            assert!(outranks(&engine, &giver, &given, NOW));
            continue;
        }
        if !outranks(&engine, &giver, &given, NOW) {
            refused += 1;
            continue;
        }
        handed += 1;
        for resource in &resources {
            for action in Action::ALL {
                if may(&taker, *action, resource) {
                    assert!(may(&giver, *action, resource), "{action} on {resource}: {given:?} by {held:?}");
                }
            }
        }
    }
    assert!(handed > 20 && refused > 50, "{handed} handed out, {refused} refused: the test says little");
}

#[tokio::test]
async fn one_sentence_gives_all_or_nothing_and_never_to_its_speaker() {
    let s = scene().await;
    let (ada, bob) = (s.person("ada", &["security-lead"]).await, s.person("bob", &[]).await);
    let things =
        |n: usize| (0..n).map(|i| Selector::parse("machine", &format!("lab/{i}")).unwrap()).collect::<Vec<_>>();
    let sentence = |holder: Holder, on: Vec<Selector>| Sentence {
        holder,
        effect: GrantEffect::Allow,
        role: "console-user".parse().unwrap(),
        on,
        until: Some(NOW + Duration::weeks(2)),
        conditions: Conditions::default(),
    };
    let lead = s.actor(ada).await;
    let say = async |what: &Sentence| s.grants.say(&s.engine, By::Person(&lead), what).await;
    let given = say(&sentence(bob.into(), things(12))).await.unwrap();
    assert_eq!((given.len(), s.store.grants_of(bob).await.unwrap()), (12, given));
    let twice = [things(1), things(1)].concat();
    assert_eq!(say(&sentence(bob.into(), twice)).await.unwrap().len(), 1, "a thing that is named twice counts once");
    assert!(matches!(say(&sentence(bob.into(), vec![])).await, Err(Error::BadThings)));
    assert!(matches!(say(&sentence(bob.into(), things(MOST_THINGS + 1))).await, Err(Error::BadThings)));
    for until in [NOW, NOW + Duration::minutes(58), NOW + Duration::days(3660)] {
        let wrong = Sentence { until: Some(until), ..sentence(bob.into(), things(1)) };
        assert!(matches!(say(&wrong).await, Err(Error::BadTime)), "{until}");
    }
    assert!(matches!(say(&sentence(ada.into(), things(1))).await, Err(Error::ToOneself)));
    let group = s.grants.make_group("ops", "").await.unwrap();
    let nowhere = GroupId::new(Uuid::now_v7());
    assert!(matches!(say(&sentence(nowhere.into(), things(1))).await, Err(Error::UnknownGroup)));
    assert!(say(&sentence(group.into(), things(1))).await.is_ok());
    s.store.join_group(group, ada, None).await.unwrap();
    assert!(matches!(say(&sentence(group.into(), things(1))).await, Err(Error::Kept(_))), "she is in it");
}

// SEC-006
#[tokio::test]
async fn nobody_climbs_by_a_group() {
    let s = scene().await;
    let (lead, admin) = (s.person("lead", &["security-lead"]).await, s.person("admin", &["administrator"]).await);
    let (bob, zoe) = (s.person("bob", &[]).await, s.person("zoe", &["security-lead", "administrator"]).await);
    let group = s.grants.make_group("leads", "who give roles").await.unwrap();
    let change = async |by: UserId, user: UserId, what: Membership| {
        s.grants.change_member(&s.engine, By::Person(&s.actor(by).await), group, user, what).await
    };
    assert!(change(admin, bob, Membership::Join).await.is_ok(), "an empty group gives nothing");
    s.store.add_grant(group, &grant("security-lead", Selector::Everything), None, NOW).await.unwrap();
    assert!(matches!(change(lead, lead, Membership::Join).await, Err(Error::Kept(_))), "nobody joins by themselves");
    assert!(matches!(change(bob, bob, Membership::Leave).await, Err(Error::Kept(_))), "nor leaves");
    assert!(matches!(change(admin, admin, Membership::Join).await, Err(Error::Kept(_))));
    assert!(matches!(change(admin, zoe, Membership::Join).await, Err(Error::Kept(_))), "beyond an administrator");
    assert!(matches!(change(admin, bob, Membership::Leave).await, Err(Error::Kept(_))));
    assert!(change(lead, zoe, Membership::Join).await.is_ok());
    assert!(matches!(change(lead, zoe, Membership::Join).await, Err(Error::NoChange)));
    assert!(change(zoe, bob, Membership::Leave).await.is_ok());
    let unknown = UserId::new(Uuid::now_v7());
    assert!(matches!(change(lead, unknown, Membership::Join).await, Err(Error::UnknownPerson)));
    assert!(matches!(s.grants.drop_group(group).await, Err(Error::Kept(_))), "it holds a grant");
    for bad in ["", " ", "a\nb", "a,b", "a\"b", "a/b", &"x".repeat(65)] {
        assert!(matches!(s.grants.make_group(bad, "").await, Err(Error::BadName)), "{bad:?}");
    }
    assert!(matches!(s.grants.make_group("leads", "").await, Err(Error::NameTaken)));
}

#[tokio::test]
async fn the_last_administrator_is_not_taken_out_of_a_group_nor_forbidden_to_be_one() {
    let s = scene().await;
    let zoe = s.person("zoe", &[]).await;
    let group = s.grants.make_group("all", "").await.unwrap();
    for role in ["security-lead", "administrator"] {
        s.store.add_grant(group, &grant(role, Selector::Everything), None, NOW).await.unwrap();
    }
    let join = s.grants.change_member(&s.engine, By::Shell, group, zoe, Membership::Join).await;
    assert!(join.is_ok());
    let leave = s.grants.change_member(&s.engine, By::Shell, group, zoe, Membership::Leave).await;
    assert!(matches!(leave, Err(Error::Kept(_))), "she is the last one");
    let forbid = |holder: Holder, until| Sentence {
        holder,
        effect: GrantEffect::Deny,
        role: "security-lead".parse().unwrap(),
        on: vec![Selector::Everything],
        until,
        conditions: Conditions::default(),
    };
    for holder in [zoe.into(), group.into()] {
        for until in [None, Some(NOW + Duration::DAY)] {
            let said = s.grants.say(&s.engine, By::Shell, &forbid(holder, until)).await;
            assert!(matches!(said, Err(Error::Kept(_))), "{holder:?} {until:?}");
        }
    }
    // With a second one it can be done; and only somebody else takes it back.
    let ada = s.person("ada", &["security-lead", "administrator"]).await;
    let denied = s.grants.say(&s.engine, By::Shell, &forbid(zoe.into(), None)).await.unwrap();
    assert!(matches!(s.revoke(zoe, denied[0].id).await, Err(Error::Kept(_))), "it forbids something to her");
    let last = s.only_grant(ada).await;
    assert!(matches!(s.grants.revoke(&s.engine, By::Shell, last).await, Err(Error::Kept(_))), "zoe is forbidden it");
    assert!(s.revoke(ada, denied[0].id).await.is_ok());
}

// SEC-125: the same over two processes on one database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_cannot_take_the_last_rights_at_the_same_moment() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/p.db", dir.path().display());
    let (one, two) = (Store::open(&url).await.unwrap(), Store::open(&url).await.unwrap());
    let clock = Arc::new(ManualClock::new(NOW));
    let engine = Engine::builtin().await.unwrap();
    let node = |store: &Store| Grants::new(store.clone(), clock.clone());
    let (first, second) = (node(&one), node(&two));
    let s = Scene { grants: first.clone(), engine, store: one.clone(), clock: clock.clone(), _dir: dir };
    let (ada, bob) = (s.person("ada", &["security-lead"]).await, s.person("bob", &["security-lead"]).await);
    for _ in 0..20 {
        let (leads, leads_too) = (s.only_grant(ada).await, s.only_grant(bob).await);
        let (x, y) =
            tokio::join!(first.revoke(&s.engine, By::Shell, leads), second.revoke(&s.engine, By::Shell, leads_too),);
        let kept = if x.is_ok() { &y } else { &x };
        assert!(x.is_ok() != y.is_ok() && matches!(kept, Err(Error::Kept(_))), "{x:?} {y:?}");
        let gone = if x.is_ok() { ada } else { bob };
        one.add_grant(gone, &grant("security-lead", Selector::Everything), None, NOW).await.unwrap();
        let disable = |store: &Store, user| {
            let store = store.clone();
            async move { store.set_disabled(user, Some(NOW)).await }
        };
        let (x, y) = tokio::join!(
            first.change_account(&s.engine, By::Shell, ada, disable(&one, ada)),
            second.change_account(&s.engine, By::Shell, bob, disable(&two, bob)),
        );
        let done = [x, y].into_iter().filter(|done| matches!(done, Ok(Ok(())))).count();
        assert_eq!(done, 1);
        for user in [ada, bob] {
            one.set_disabled(user, None).await.unwrap();
        }
    }
}

#[tokio::test]
async fn hours_in_a_zone_that_nobody_knows_are_refused() {
    let s = scene().await;
    let (ada, bob) = (s.person("ada", &["security-lead"]).await, s.person("bob", &[]).await);
    for (zone, known) in [("UTC", true), ("Moon/Crater", false)] {
        let hours = Some(format!("mon-fri 08:00-18:00 {zone}").parse().unwrap());
        let new = NewGrant { conditions: Conditions { hours, ..Conditions::default() }, ..wish(bob, "viewer") };
        let given = s.give(ada, new).await;
        assert_eq!(given.is_ok(), known, "{zone}: {given:?}");
        assert!(known || matches!(given, Err(Error::BadZone)));
    }
}
