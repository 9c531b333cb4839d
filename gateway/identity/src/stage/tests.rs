// SPDX-License-Identifier: Apache-2.0
//! The state machine against a simple model: random sequences of calls by somebody who knows everything and may
//! leave out any step.

use crate::{
    Error, Identity, Redeem, Settings, Stage,
    testing::{Bench, PASSWORD, Person, authenticator::Authenticator, peer, secret, text},
};
use portcullis_domain::{Clock, ManualClock, Secret, UserId};
use proptest::prelude::*;
use time::Duration;
use tower_sessions::Session;

/// What somebody does next.
#[derive(Debug, Clone, Copy)]
enum Call {
    SignIn { right: bool },
    Second { right: bool },
    Recover { right: bool },
    Begin,
    Confirm { right: bool },
    StepUp { right: bool },
    Codes,
    AddPasskey,
    Passkey { verified: bool, at: Door },
    SignOut,
    OldCookie,
    Wait { minutes: i64 },
}

/// For which door a passkey's answer is asked, and at which it is then given: at its own, or at another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Alone,
    Second,
    Again,
    AloneForAgain,
    AgainForAlone,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        3 => any::<bool>().prop_map(|right| Call::SignIn { right }),
        3 => any::<bool>().prop_map(|right| Call::Second { right }),
        2 => any::<bool>().prop_map(|right| Call::Recover { right }),
        2 => Just(Call::Begin),
        3 => any::<bool>().prop_map(|right| Call::Confirm { right }),
        2 => any::<bool>().prop_map(|right| Call::StepUp { right }),
        1 => Just(Call::Codes),
        2 => Just(Call::AddPasskey),
        4 => (any::<bool>(), door()).prop_map(|(verified, at)| Call::Passkey { verified, at }),
        1 => Just(Call::SignOut),
        1 => Just(Call::OldCookie),
        1 => (1_i64..25).prop_map(|minutes| Call::Wait { minutes }),
    ]
}

fn door() -> impl Strategy<Value = Door> {
    prop_oneof![
        2 => Just(Door::Alone),
        2 => Just(Door::Second),
        2 => Just(Door::Again),
        1 => Just(Door::AloneForAgain),
        1 => Just(Door::AgainForAlone),
    ]
}

/// The model: what was proven, as a list of four flags and a clock would say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    Stranger,
    NeedsSecond,
    MustEnrol,
    RecoveryOnly,
    SignedIn,
}

fn seen(stage: &Stage) -> Model {
    match stage {
        Stage::Stranger => Model::Stranger,
        Stage::NeedsSecond { .. } => Model::NeedsSecond,
        Stage::MustEnrol { .. } => Model::MustEnrol,
        Stage::RecoveryOnly { .. } => Model::RecoveryOnly,
        Stage::SignedIn { .. } => Model::SignedIn,
    }
}

/// Both factors, as the model counts them.
#[derive(Debug, Default, Clone, Copy)]
struct Proven {
    password: bool,
    second: bool,
}

struct Walk {
    b: Bench,
    user: UserId,
    session: Session,
    old: Option<tower_sessions::session::Id>,
    app: Option<Secret>,
    pending: Option<Secret>,
    passkey: Option<Authenticator>,
    codes: Vec<String>,
    model: Model,
    proven: Proven,
}

impl Walk {
    fn id(&self) -> &Identity {
        &self.b.id
    }

    fn code(&self, app: Option<&Secret>, right: bool) -> String {
        match app {
            Some(app) if right => self.b.code(app),
            _ => "000000".to_owned(),
        }
    }

    /// Makes the call and says where the model stands after it, given whether the call was accepted.
    async fn make(&mut self, call: Call) {
        let before = self.model;
        self.b.next_step();
        match call {
            Call::SignIn { right } => {
                let password = secret(if right { PASSWORD } else { "wrong" });
                let done = self.id().sign_in(&self.session, "walker", password, peer()).await;
                assert!(right || done.is_err(), "a wrong password was accepted");
                if done.is_ok() {
                    self.proven = Proven { password: true, second: false };
                    let enrolled = self.app.is_some() || self.passkey.is_some();
                    self.model = if enrolled { Model::NeedsSecond } else { Model::MustEnrol };
                }
            }
            Call::Second { right } => {
                let code = self.code(self.app.as_ref(), right);
                let done = self.id().second_factor(&self.session, &code, peer()).await;
                assert!(done.is_err() || right && before == Model::NeedsSecond, "{before:?} {done:?}");
                if done.is_ok() {
                    self.proven.second = true;
                    self.model = Model::SignedIn;
                }
            }
            Call::Recover { right } => {
                let code = if right { self.codes.pop() } else { None };
                let text = code.clone().unwrap_or_else(|| "AAAA-AAAA-AAAA-AAAA".to_owned());
                let done = self.id().recover(&self.session, &text, peer()).await;
                assert!(done.is_err() || code.is_some() && before == Model::NeedsSecond, "{before:?} {done:?}");
                if done.is_ok() {
                    self.model = Model::RecoveryOnly;
                }
            }
            Call::Begin => {
                let done = self.id().begin_enrolment(&self.session).await;
                let may = matches!(before, Model::MustEnrol | Model::RecoveryOnly | Model::SignedIn);
                assert!(done.is_err() || may, "{before:?}");
                if let Ok(shown) = done {
                    let app = totp_rs::Secret::try_from_base32(shown.secret_text.replace(' ', "")).unwrap();
                    self.pending = Some(Secret::new(app.as_bytes().to_vec()));
                }
            }
            Call::Confirm { right } => {
                let code = self.code(self.pending.as_ref(), right);
                let done = self.id().confirm_enrolment(&self.session, &code, peer()).await;
                let may = matches!(before, Model::MustEnrol | Model::RecoveryOnly | Model::SignedIn);
                assert!(done.is_err() || right && may && self.pending.is_some(), "{before:?}");
                if let Ok(codes) = done {
                    if before != Model::SignedIn {
                        self.codes = codes.iter().map(|c| c.to_string()).collect();
                    }
                    if before == Model::RecoveryOnly {
                        self.passkey = None;
                    }
                    self.proven.second = true;
                    self.model = Model::SignedIn;
                    self.app = self.pending.take();
                }
            }
            Call::StepUp { right } => {
                let code = self.code(self.app.as_ref(), right);
                let done = self.id().step_up(&self.session, &code, peer()).await;
                assert!(done.is_err() || right && before == Model::SignedIn, "{before:?} {done:?}");
            }
            Call::Codes => {
                if let Ok(codes) = self.id().regenerate_recovery_codes(&self.session).await {
                    assert_eq!(before, Model::SignedIn);
                    self.codes = codes.iter().map(|c| c.to_string()).collect();
                }
            }
            Call::AddPasskey => {
                let may = matches!(before, Model::MustEnrol | Model::RecoveryOnly | Model::SignedIn);
                let Ok(options) = self.id().begin_passkey(&self.session).await else { return };
                assert!(may, "{before:?}");
                let mut key = Authenticator::new(PORTAL);
                let answer = key.create(&options).to_string();
                let codes = self.id().confirm_passkey(&self.session, &answer, "key", peer()).await.unwrap();
                if before != Model::SignedIn {
                    self.codes = codes.iter().map(|c| c.to_string()).collect();
                }
                if before == Model::RecoveryOnly {
                    self.app = None;
                }
                self.passkey = Some(key);
                self.proven.second = true;
                self.model = Model::SignedIn;
            }
            Call::Passkey { verified, at } => self.use_passkey(before, verified, at).await,
            Call::SignOut => {
                self.id().sign_out(&self.session).await.unwrap();
                self.model = Model::Stranger;
                self.proven = Proven::default();
            }
            Call::OldCookie => {
                // a cookie from before a step, replayed
                if let Some(old) = self.old.filter(|old| Some(*old) != self.session.id()) {
                    let rows = std::sync::Arc::new(self.id().0.rows.clone());
                    let replayed = Session::new(Some(old), rows, None);
                    assert_eq!(self.id().stage(&replayed).await.unwrap(), Stage::Stranger, "an old id came back");
                }
            }
            Call::Wait { minutes } => self.b.clock.advance(Duration::minutes(minutes)),
        }
    }

    /// A passkey's answer, asked for one door and given at that or another.
    async fn use_passkey(&mut self, before: Model, verified: bool, at: Door) {
        let mut stranger = Authenticator::new(PORTAL);
        let mut key = self.passkey.take();
        let options = match at {
            Door::Alone | Door::Second | Door::AloneForAgain => self.id().begin_passkey_sign_in(&self.session).await,
            Door::Again | Door::AgainForAlone => self.id().begin_passkey_step_up(&self.session).await,
        };
        if let Ok(options) = options {
            let signer = key.as_mut().unwrap_or(&mut stranger);
            signer.verifies = verified;
            let answer = signer.get(&options).to_string();
            let done = match at {
                Door::Alone | Door::AgainForAlone => {
                    self.id().sign_in_with_passkey(&self.session, &answer, peer()).await.map(drop)
                }
                Door::Second => self.id().second_factor(&self.session, &answer, peer()).await.map(drop),
                Door::Again | Door::AloneForAgain => self.id().step_up(&self.session, &answer, peer()).await.map(drop),
            };
            // Asked after a password it is the second step's, at any other stage a sign-in's.
            let may = key.is_some()
                && match at {
                    Door::Alone => verified && before != Model::NeedsSecond,
                    Door::Second => before == Model::NeedsSecond,
                    Door::Again => before == Model::SignedIn,
                    Door::AloneForAgain | Door::AgainForAlone => false,
                };
            assert!(done.is_err() || may, "{before:?} {at:?} {verified}");
            if done.is_ok() && at == Door::Alone {
                // It is both.
                self.proven = Proven { password: true, second: true };
                self.model = Model::SignedIn;
            }
            if done.is_ok() && at == Door::Second {
                self.proven.second = true;
                self.model = Model::SignedIn;
            }
        }
        self.passkey = key;
    }

    /// What time alone may have changed, and what must hold after every call.
    async fn check(&mut self, call: Call) {
        // the next request of the same browser: nothing is kept in memory
        self.old = self.old.or(self.session.id());
        self.session = self.b.again(&self.session);
        let stage = self.id().stage(&self.session).await.unwrap();
        let actor = self.id().actor(&self.session).await.unwrap();
        if seen(&stage) == Model::Stranger && self.model != Model::Stranger {
            // Only waiting makes a stranger again.
            assert!(self.b.clock.now() > start() + Duration::minutes(9), "{call:?}");
            self.model = Model::Stranger;
            self.proven = Proven::default();
            self.pending = None;
        }
        assert_eq!(seen(&stage), self.model, "{call:?}");
        if self.model == Model::SignedIn {
            assert!(self.proven.password && self.proven.second, "{call:?}: signed in without both factors");
            assert_eq!(actor.expect("an actor").user, self.user);
        } else {
            assert!(actor.is_none(), "{call:?}: rights without both factors");
        }
        if !matches!(call, Call::Wait { .. }) {
            self.old = self.session.id().or(self.old);
        }
    }
}

fn start() -> time::OffsetDateTime {
    time::macros::datetime!(2026-11-21 12:00 UTC)
}

const PORTAL: &str = "https://console.example.org";

async fn bench() -> Bench {
    Bench::with(Settings { portal: PORTAL.to_owned(), ..Settings::default() }).await
}

async fn walk(enrolled: bool, calls: Vec<Call>) {
    let b = bench().await;
    assert_eq!(ManualClock::now(&b.clock), start());
    let (user, app, codes) = if enrolled {
        let (Person { user, app, codes, .. }, _) = b.person("walker").await;
        (user, Some(app), codes)
    } else {
        let user = b.id.create_user("walker", "").await.unwrap();
        let token = text(&b.id.invite(user).await.unwrap());
        let redeem = Redeem { token: &token, name: None, display_name: "", password: secret(PASSWORD) };
        b.id.redeem_invitation(&b.browser(), redeem, peer()).await.unwrap();
        (user, None, Vec::new())
    };
    let session = b.browser();
    let (model, proven) = (Model::Stranger, Proven::default());
    let mut walk = Walk { b, user, session, old: None, app, pending: None, passkey: None, codes, model, proven };
    for call in calls {
        walk.make(call).await;
        walk.check(call).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nobody_is_signed_in_without_both_factors(enrolled: bool, calls in prop::collection::vec(call(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(walk(enrolled, calls));
    }
}

#[tokio::test]
async fn the_walk_of_the_property_can_reach_every_stage() {
    use Call::{AddPasskey, Begin, Codes, Confirm, Passkey, Recover, Second, SignIn, SignOut, StepUp};
    use Model::{MustEnrol, NeedsSecond, RecoveryOnly, SignedIn, Stranger};
    let right = true;
    let calls = vec![
        SignIn { right },
        Begin,
        Confirm { right },
        StepUp { right },
        Codes,
        SignOut,
        SignIn { right },
        Recover { right },
        Begin,
        Confirm { right },
        SignOut,
        SignIn { right },
        Second { right },
        AddPasskey,
        Passkey { verified: false, at: Door::Again },
        SignOut,
        Passkey { verified: true, at: Door::Alone },
        SignOut,
        SignIn { right },
        Passkey { verified: false, at: Door::Second },
    ];
    let b = bench().await;
    let user = b.id.create_user("walker", "").await.unwrap();
    let token = text(&b.id.invite(user).await.unwrap());
    let redeem = Redeem { token: &token, name: None, display_name: "", password: secret(PASSWORD) };
    b.id.redeem_invitation(&b.browser(), redeem, peer()).await.unwrap();
    let session = b.browser();
    let (model, proven) = (Model::Stranger, Proven::default());
    let (app, pending, codes) = (None, None, Vec::new());
    let mut walk = Walk { b, user, session, old: None, app, pending, passkey: None, codes, model, proven };
    let mut stages = Vec::new();
    for call in calls {
        walk.make(call).await;
        walk.check(call).await;
        stages.push(walk.model);
    }
    assert_eq!(
        stages,
        [
            MustEnrol,
            MustEnrol,
            SignedIn,
            SignedIn,
            SignedIn,
            Stranger,
            NeedsSecond,
            RecoveryOnly,
            RecoveryOnly,
            SignedIn,
            Stranger,
            NeedsSecond,
            SignedIn,
            SignedIn,
            SignedIn,
            Stranger,
            SignedIn,
            Stranger,
            NeedsSecond,
            SignedIn
        ]
    );
    assert!(matches!(walk.b.id.second_factor(&walk.session, "000000", peer()).await, Err(Error::Expired)));
}
