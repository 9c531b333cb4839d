// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{Conflict, Duties};
use portcullis_domain::{
    Assurance, Conditions, ConsoleKind, Factor, GroupId, Machine, MachineKind, ManualClock, PowerState, SessionId, Via,
};
use portcullis_store::{DirectoryGroup, NewUser};
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);

struct Scene {
    store: Store,
    engine: Engine,
    clock: Arc<ManualClock>,
    requests: Requests,
    inventory: Inventory,
    _dir: tempfile::TempDir,
}

async fn scene(rules: Vec<Rule>) -> Scene {
    scene_apart(rules, vec![]).await
}

async fn scene_apart(rules: Vec<Rule>, apart: Vec<Conflict>) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}/p.db", dir.path().display())).await.unwrap();
    let clock = Arc::new(ManualClock::new(NOW));
    let engine = Engine::builtin().await.unwrap();
    let duties = Duties::new(&engine, apart).unwrap();
    let grants = Grants::new(store.clone(), clock.clone()).keeping_apart(duties);
    let requests = Requests::new(store.clone(), clock.clone(), grants, rules, Rule::default());
    let inventory = Inventory::new([machine("lab/web-1", "web"), machine("lab/db-1", "db")]);
    Scene { store, engine, clock, requests, inventory, _dir: dir }
}

fn machine(at: &str, tag: &str) -> Machine {
    Machine {
        at: at.parse().unwrap(),
        name: at.to_owned(),
        kind: MachineKind::Guest,
        state: PowerState::Running,
        pool: None,
        tags: vec![tag.to_owned()],
        node: None,
        console: ConsoleKind::Vnc,
    }
}

fn wish(role: &str, at: &str) -> Wish {
    Wish {
        role: role.parse().unwrap(),
        selector: Selector::Machine(at.parse().unwrap()),
        reason: "the disk of it is full".into(),
        lasts: Duration::hours(2),
        start: None,
    }
}

fn owned(owner: Owner, approvals: u32) -> Rule {
    Rule {
        name: "web".into(),
        on: vec![Selector::Tag("web".into())],
        owners: vec![owner],
        approvals,
        longest: Duration::HOUR,
        ..Rule::default()
    }
}

impl Scene {
    async fn person(&self, name: &str, roles: &[&str]) -> Actor {
        let user = UserId::new(Uuid::now_v7());
        let new = NewUser { id: user, name: name.into(), name_key: name.to_lowercase(), display_name: name.into() };
        self.store.create_user(&new, NOW).await.unwrap();
        self.store.set_password_hash(user, "$argon2id$", NOW).await.unwrap();
        for role in roles {
            let grant = Grant {
                id: GrantId::new(Uuid::now_v7()),
                role: role.parse().unwrap(),
                selector: Selector::Everything,
                effect: GrantEffect::Allow,
                from: NOW,
                until: None,
                conditions: Conditions::default(),
                source: GrantSource::Setup,
            };
            self.store.add_grant(user, &grant, None, NOW).await.unwrap();
        }
        self.again(user, name).await
    }

    /// Tells the engine what the store has.
    async fn tell(&self) {
        self.engine.reset(self.store.grant_changes(None).await.unwrap().changes);
    }

    async fn again(&self, user: UserId, name: &str) -> Actor {
        self.tell().await;
        let mut assurance = Assurance::default();
        assurance.prove(Factor::Passkey, NOW);
        Actor {
            user,
            name: name.into(),
            via: Via::Session(SessionId::new(Uuid::from_u128(1))),
            assurance,
            scope: None,
            pass: None,
            from: None,
        }
    }

    async fn group(&self, name: &str, members: &[&Actor]) {
        let group = DirectoryGroup {
            id: GroupId::new(Uuid::now_v7()),
            name: name.into(),
            external_id: None,
            created_at: NOW,
            members: members.iter().map(|a| a.user).collect(),
        };
        self.store.put_group(&group).await.unwrap();
        self.tell().await;
    }

    fn as_of<'a>(&'a self, actor: &'a Actor) -> Decider<'a> {
        Decider { engine: &self.engine, inventory: &self.inventory, by: By::Person(actor) }
    }

    async fn ask(&self, actor: &Actor, wish: Wish) -> Result<AccessRequest, RequestError> {
        self.requests.ask(&self.engine, actor, wish, &self.inventory).await
    }

    async fn approve(&self, actor: &Actor, id: AccessId) -> Result<Decided, RequestError> {
        self.requests.approve(self.as_of(actor), id, "fine").await
    }

    async fn state(&self, id: AccessId) -> &'static str {
        self.requests.find(id).await.unwrap().state.word()
    }

    /// Takes every step that the clock makes due.
    async fn tick(&self) {
        let held: Vec<GrantId> = self.store.grants().await.unwrap().iter().map(|h| h.grant.id).collect();
        for request in self.requests.open().await.unwrap() {
            if let Some(what) = self.requests.due(&request, &held, self.clock.now()) {
                let decider = Decider { engine: &self.engine, inventory: &self.inventory, by: By::Shell };
                self.requests.take_due(decider, &request, what).await.unwrap();
            }
        }
    }
}

// SEC-124
#[tokio::test]
async fn who_asks_never_decides_and_the_clock_starts_when_the_access_begins() {
    let s = scene(vec![]).await;
    // Somebody who could give the role to anybody else.
    let lead = s.person("lead", &["security-lead"]).await;
    let other = s.person("other", &["security-lead"]).await;
    let asked = s.ask(&lead, wish("operator", "lab/web-1")).await.unwrap();
    for own in [s.approve(&lead, asked.id).await.err(), s.requests.refuse(s.as_of(&lead), asked.id, "").await.err()] {
        assert!(matches!(own, Some(RequestError::Forbidden(_))), "{own:?}");
    }
    assert!(matches!(s.requests.activate(s.as_of(&lead), asked.id).await, Err(RequestError::Late)));
    assert_eq!(s.approve(&other, asked.id).await.unwrap(), Decided::Approved);
    s.clock.advance(Duration::hours(5));
    assert!(matches!(s.requests.activate(s.as_of(&other), asked.id).await, Err(RequestError::Unknown)));
    s.requests.activate(s.as_of(&lead), asked.id).await.unwrap();
    let given = s.store.grants_of(lead.user).await.unwrap().pop().unwrap();
    let at = s.clock.now();
    assert_eq!((given.from, given.until), (at, Some(at + Duration::hours(2))));
    assert_eq!((given.source, given.role.as_str()), (GrantSource::AccessRequest, "operator"));
    s.clock.advance(Duration::hours(2));
    s.tick().await;
    assert_eq!(s.state(asked.id).await, "over");
}

#[tokio::test]
async fn owners_follow_from_what_is_asked_for_and_their_rule_sets_the_limits() {
    let s = scene(vec![owned(Owner::Group("web-owners".into()), 2)]).await;
    let asker = s.person("asker", &[]).await;
    let (one, two) = (s.person("one", &[]).await, s.person("two", &[]).await);
    let (stranger, lead) = (s.person("stranger", &["administrator"]).await, s.person("lead", &["security-lead"]).await);
    s.group("web-owners", &[&one, &two, &asker]).await;
    let asked = s.ask(&asker, wish("operator", "lab/web-1")).await.unwrap();
    assert!(matches!(s.approve(&stranger, asked.id).await, Err(RequestError::Forbidden(_))));
    assert!(matches!(s.approve(&asker, asked.id).await, Err(RequestError::Forbidden(_))), "an owner who asks");
    assert_eq!(s.approve(&one, asked.id).await.unwrap(), Decided::Counted(1, 2));
    assert!(matches!(s.approve(&one, asked.id).await, Err(RequestError::Forbidden(_))), "once each");
    assert_eq!(s.approve(&two, asked.id).await.unwrap(), Decided::Approved);
    // The rule gives an hour at most.
    assert_eq!(s.requests.find(asked.id).await.unwrap().seconds, 3600);
    assert!(matches!(s.approve(&lead, asked.id).await, Err(RequestError::Late)));
    // Owners of the one do not own the other.
    let other = s.ask(&asker, wish("operator", "lab/db-1")).await.unwrap();
    assert!(matches!(s.approve(&one, other.id).await, Err(RequestError::Forbidden(_))));
    // And a machine whose tag was taken away is no longer theirs.
    let third = s.ask(&asker, wish("viewer", "lab/web-1")).await.unwrap();
    let elsewhere = Inventory::new([machine("lab/web-1", "moved")]);
    let decider = Decider { engine: &s.engine, inventory: &elsewhere, by: By::Person(&one) };
    assert!(matches!(s.requests.approve(decider, third.id, "").await, Err(RequestError::Forbidden(_))));
}

// SEC-006
#[tokio::test]
async fn nobody_approves_what_they_could_not_give_unless_they_own_it() {
    let policy = format!("{}\ng2, gateway:requests/approve, desk\n", portcullis_policy::RULES);
    let mut s = scene(vec![owned(Owner::Person("Owner".into()), 1)]).await;
    s.engine = Engine::load(&policy).await.unwrap();
    let asker = s.person("asker", &[]).await;
    let (desk, owner) = (s.person("desk", &["desk", "viewer"]).await, s.person("owner", &[]).await);
    let strong = s.ask(&asker, wish("administrator", "lab/web-1")).await.unwrap();
    let refused = s.approve(&desk, strong.id).await;
    assert!(matches!(&refused, Err(RequestError::Forbidden(why)) if why.contains("beyond")), "{refused:?}");
    assert_eq!(s.approve(&owner, strong.id).await.unwrap(), Decided::Approved);
    let weak = s.ask(&asker, wish("viewer", "lab/db-1")).await.unwrap();
    assert_eq!(s.approve(&desk, weak.id).await.unwrap(), Decided::Approved);
}

#[tokio::test]
async fn who_refuses_wins_until_the_access_has_begun() {
    let s = scene(vec![]).await;
    let asker = s.person("asker", &[]).await;
    let (one, two) = (s.person("one", &["security-lead"]).await, s.person("two", &["security-lead"]).await);
    let asked = s.ask(&asker, wish("operator", "lab/web-1")).await.unwrap();
    s.approve(&one, asked.id).await.unwrap();
    s.requests.refuse(s.as_of(&two), asked.id, "not today").await.unwrap();
    assert!(matches!(s.requests.activate(s.as_of(&asker), asked.id).await, Err(RequestError::Late)));
    assert!(s.store.grants_of(asker.user).await.unwrap().is_empty());
    // Asking again at once is not answered.
    assert!(matches!(s.ask(&asker, wish("operator", "lab/web-1")).await, Err(RequestError::Bad("", _))));
    s.clock.advance(COOL);
    let asked = s.ask(&asker, wish("operator", "lab/web-1")).await.unwrap();
    s.approve(&one, asked.id).await.unwrap();
    s.requests.activate(s.as_of(&asker), asked.id).await.unwrap();
    assert!(matches!(s.requests.refuse(s.as_of(&two), asked.id, "").await, Err(RequestError::Late)));
    s.requests.end(s.as_of(&two), asked.id, "that is enough").await.unwrap();
    assert_eq!(s.state(asked.id).await, "ended");
    assert!(s.store.grants_of(asker.user).await.unwrap().is_empty());
}

// SEC-124
#[tokio::test]
async fn nobody_is_asked_without_end() {
    let s = scene(vec![]).await;
    let asker = s.person("asker", &[]).await;
    for n in 0..WAITING {
        s.ask(&asker, wish("viewer", &format!("lab/x-{n}"))).await.unwrap();
    }
    assert!(matches!(s.ask(&asker, wish("viewer", "lab/y")).await, Err(RequestError::Bad("", _))));
    assert!(
        matches!(s.ask(&asker, wish("viewer", "lab/x-1")).await, Err(RequestError::Bad("", _))),
        "it waits already"
    );
    s.clock.advance(WAITS);
    s.tick().await;
    assert!(s.requests.open().await.unwrap().is_empty(), "they expired");
    for bad in [
        Wish { reason: " \n".into(), ..wish("viewer", "lab/z") },
        Wish { lasts: Duration::days(15), ..wish("viewer", "lab/z") },
        Wish { lasts: Duration::ZERO, ..wish("viewer", "lab/z") },
        Wish { start: Some(NOW), ..wish("viewer", "lab/z") },
        Wish { start: Some(NOW + 200 * Duration::DAY), ..wish("viewer", "lab/z") },
        wish("emperor", "lab/z"),
    ] {
        assert!(matches!(s.ask(&asker, bad.clone()).await, Err(RequestError::Bad(..))), "{bad:?}");
    }
}

#[tokio::test]
async fn who_is_on_call_gets_what_the_rule_says_at_its_hours_and_nobody_else() {
    let auto = Auto { group: "on-call".into(), hours: Some("mon-sun 18:00-06:00 UTC".parse().unwrap()) };
    let conditions = Conditions { step_up_seconds: 60, ..Conditions::default() };
    let rule = Rule { auto: Some(auto), conditions: conditions.clone(), ..owned(Owner::Person("x".into()), 1) };
    let s = scene(vec![rule]).await;
    let (ada, bob) = (s.person("ada", &[]).await, s.person("bob", &[]).await);
    s.group("on-call", &[&ada]).await;
    assert_eq!(s.ask(&ada, wish("operator", "lab/web-1")).await.unwrap().state.word(), "asked", "at noon");
    s.clock.advance(Duration::hours(8));
    assert_eq!(s.ask(&bob, wish("operator", "lab/web-1")).await.unwrap().state.word(), "asked", "not on call");
    assert_eq!(s.ask(&ada, wish("operator", "lab/db-1")).await.unwrap().state.word(), "asked", "not the rule's");
    let given = s.ask(&ada, wish("console-user", "lab/web-1")).await.unwrap();
    assert_eq!(given.state.word(), "active");
    let grant = s.store.grants_of(ada.user).await.unwrap().pop().unwrap();
    assert_eq!((grant.conditions, grant.until), (conditions, Some(s.clock.now() + Duration::HOUR)));
    assert!(s.requests.steps(given.id).await.unwrap()[1].by_name.contains("the rule web"));
}

#[tokio::test]
async fn what_begins_later_begins_by_itself_and_a_grant_that_was_taken_ends_its_request() {
    let s = scene(vec![]).await;
    let (asker, lead) = (s.person("asker", &[]).await, s.person("lead", &["security-lead"]).await);
    let start = NOW + Duration::DAY;
    let asked = s.ask(&asker, Wish { start: Some(start), ..wish("viewer", "lab/web-1") }).await.unwrap();
    s.approve(&lead, asked.id).await.unwrap();
    s.tick().await;
    assert_eq!(s.state(asked.id).await, "approved");
    s.clock.advance(Duration::DAY);
    s.store.set_locked(asker.user, Some(("stolen", None)), NOW).await.unwrap();
    s.tick().await;
    assert_eq!(s.state(asked.id).await, "approved", "nothing begins for an account that is locked");
    s.store.set_locked(asker.user, None, NOW).await.unwrap();
    s.tick().await;
    assert_eq!(s.state(asked.id).await, "active");
    let grant = s.store.grants_of(asker.user).await.unwrap()[0].id;
    s.store.revoke_grant(grant, None, NOW).await.unwrap();
    s.tick().await;
    assert_eq!(s.state(asked.id).await, "ended");
}

#[tokio::test]
async fn roles_that_are_kept_apart_are_not_got_by_asking_either() {
    let apart = Conflict { roles: vec!["auditor".parse().unwrap(), "operator".parse().unwrap()], words: String::new() };
    let s = scene_apart(vec![], vec![apart]).await;
    let (asker, lead) = (s.person("asker", &["auditor"]).await, s.person("lead", &["security-lead"]).await);
    let asked = s.ask(&asker, wish("operator", "lab/web-1")).await.unwrap();
    assert!(matches!(s.approve(&lead, asked.id).await, Err(RequestError::Kept(_))));
    // Approved before they became an auditor, it does not begin.
    let other = s.person("other", &[]).await;
    let asked = s.ask(&other, wish("operator", "lab/web-1")).await.unwrap();
    s.approve(&lead, asked.id).await.unwrap();
    let auditor = crate::NewGrant {
        user: other.user,
        role: "auditor".parse().unwrap(),
        selector: Selector::Everything,
        hours: None,
        conditions: Conditions::default(),
    };
    s.requests.grants.give(&s.engine, By::Person(&lead), auditor).await.unwrap();
    assert!(matches!(s.requests.activate(s.as_of(&other), asked.id).await, Err(RequestError::Kept(_))));
    // And the other way round, where the one is held, the other is not given.
    let operator = crate::NewGrant {
        user: asker.user,
        role: "administrator".parse().unwrap(),
        selector: Selector::Everything,
        hours: None,
        conditions: Conditions::default(),
    };
    let refused = s.requests.grants.give(&s.engine, By::Person(&lead), operator).await;
    assert!(matches!(&refused, Err(crate::Error::Kept(why)) if why.contains("auditor")), "{refused:?}");
}

#[tokio::test]
async fn whoever_asks_and_withdraws_in_turn_waits() {
    let s = scene(vec![]).await;
    let (zoe, kim) = (s.person("zoe", &[]).await, s.person("kim", &[]).await);
    let told = |asked: &Result<AccessRequest, RequestError>, words: &str| matches!(asked, Err(RequestError::Bad("", why)) if why.contains(words));
    // Whatever they ask for, and however many are open at the time: each writes letters.
    for n in 0..5 {
        let asked = s.ask(&zoe, wish("viewer", &format!("lab/m-{n}"))).await.unwrap();
        assert!(matches!(s.requests.withdraw(&kim, asked.id).await, Err(RequestError::Unknown)), "another's");
        s.requests.withdraw(&zoe, asked.id).await.unwrap();
        assert_eq!(s.state(asked.id).await, "withdrawn");
        s.clock.advance(Duration::minutes(1));
    }
    let sixth = s.ask(&zoe, wish("viewer", "lab/web-1")).await;
    assert!(told(&sixth, "withdrawn five requests"), "{sixth:?}");
    assert!(s.ask(&kim, wish("viewer", "lab/web-1")).await.is_ok(), "it counts for each person alone");
    // The first of them was withdrawn ten minutes ago by then.
    s.clock.advance(Duration::minutes(4));
    assert!(told(&s.ask(&zoe, wish("viewer", "lab/web-1")).await, "withdrawn five requests"));
    s.clock.advance(Duration::minutes(1));
    let again = s.ask(&zoe, wish("viewer", "lab/web-1")).await.unwrap();
    s.requests.withdraw(&zoe, again.id).await.unwrap();
    assert!(told(&s.ask(&zoe, wish("viewer", "lab/web-1")).await, "withdrawn five requests"), "five again");
}

#[tokio::test]
async fn whoever_gives_back_in_turn_what_a_rule_approves_waits() {
    let auto = Auto { group: "on-call".into(), hours: None };
    let s = scene(vec![Rule { auto: Some(auto), ..owned(Owner::Person("x".into()), 1) }]).await;
    let (ada, bob) = (s.person("ada", &[]).await, s.person("bob", &[]).await);
    s.group("on-call", &[&ada, &bob]).await;
    let take = async |actor: &Actor| s.ask(actor, wish("operator", "lab/web-1")).await;
    for n in 0..5 {
        let given = take(&ada).await.unwrap();
        assert_eq!(given.state.word(), "active", "{n}");
        s.requests.end(s.as_of(&ada), given.id, "").await.unwrap();
        s.clock.advance(Duration::minutes(1));
    }
    let sixth = take(&ada).await;
    assert!(matches!(&sixth, Err(RequestError::Bad("", why)) if why.contains("given their access back")), "{sixth:?}");
    // Neither is anything else, and somebody else waits for nothing.
    assert!(s.ask(&ada, wish("viewer", "lab/db-1")).await.is_err());
    assert_eq!(take(&bob).await.unwrap().state.word(), "active");
    // The first was given back ten minutes ago by then.
    s.clock.advance(Duration::minutes(5));
    assert_eq!(take(&ada).await.unwrap().state.word(), "active");
}
