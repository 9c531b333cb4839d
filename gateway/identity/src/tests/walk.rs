// SPDX-License-Identifier: Apache-2.0
use super::{App, Body, Dice, Pending, Place, Seat, World, code_at};
use crate::{
    BreakGlassSettings, Error, Redeem, Settings, Stage, TokenWish,
    testing::{Bench, secret, text},
    token::Maker,
};
use portcullis_domain::{Clock as _, Secret};
use std::{collections::BTreeSet, net::IpAddr};
use time::{Duration, OffsetDateTime};
use tower_sessions::{Session, session::Id};

/// A secret as somebody presents it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Right,
    /// That of the other person.
    Others,
    /// One that was right before.
    Former,
    Wrong,
}

/// What somebody does next: `at` is the browser, `whose` the person.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    SignIn {
        at: usize,
        whose: usize,
        password: Given,
    },
    Second {
        at: usize,
        code: Given,
    },
    /// The same, while another request of the browser signs out.
    SecondTooLate {
        at: usize,
    },
    Recover {
        at: usize,
        code: Given,
    },
    BeginEnrolment {
        at: usize,
    },
    ConfirmEnrolment {
        at: usize,
        code: Given,
    },
    StepUp {
        at: usize,
        code: Given,
    },
    /// The same, while an administrator disables the person.
    StepUpTooLate {
        at: usize,
    },
    NewCodes {
        at: usize,
    },
    ChangePassword {
        at: usize,
        old: Given,
    },
    RemoveApp {
        at: usize,
    },
    SignOut {
        at: usize,
    },
    EndOthers {
        at: usize,
    },
    OldCookie {
        at: usize,
    },
    Disable {
        whose: usize,
    },
    Enable {
        whose: usize,
    },
    Lock {
        whose: usize,
    },
    Unlock {
        whose: usize,
    },
    Reset {
        whose: usize,
    },
    Invite {
        whose: usize,
    },
    Redeem {
        at: usize,
        whose: usize,
        link: Given,
    },
    Mint {
        whose: usize,
    },
    UseToken {
        whose: usize,
    },
    BreakGlass {
        at: usize,
        code: Given,
        inside: bool,
    },
    Wait {
        seconds: i64,
    },
}

/// Every other call is one that leads on from where a browser stands: chance alone seldom gets far.
fn draw(dice: &mut Dice, seats: &[Seat; 2]) -> Call {
    let (at, whose) = (dice.index(2), dice.index(2));
    let (right, way) = (Given::Right, dice.roll(6));
    if dice.roll(2) == 0 {
        return match seats[at].place {
            Place::Stranger if way == 0 => Call::Redeem { at, whose, link: right },
            Place::Stranger => Call::SignIn { at, whose, password: right },
            Place::NeedsSecond { .. } if way < 3 => Call::Recover { at, code: right },
            Place::NeedsSecond { .. } => Call::Second { at, code: right },
            Place::SignedIn { .. } if way == 0 => Call::StepUp { at, code: right },
            Place::SignedIn { .. } if way == 1 => Call::NewCodes { at },
            Place::SignedIn { .. } if way == 2 => Call::ChangePassword { at, old: right },
            _ if way < 4 => Call::BeginEnrolment { at },
            _ => Call::ConfirmEnrolment { at, code: right },
        };
    }
    let given = match dice.roll(8) {
        0 => Given::Wrong,
        1 => Given::Former,
        2 => Given::Others,
        _ => Given::Right,
    };
    match dice.roll(40) {
        0..=6 => Call::SignIn { at, whose, password: given },
        7..=12 => Call::Second { at, code: given },
        13 => Call::SecondTooLate { at },
        14..=15 => Call::Recover { at, code: given },
        16..=17 => Call::BeginEnrolment { at },
        18..=20 => Call::ConfirmEnrolment { at, code: given },
        21..=22 => Call::StepUp { at, code: given },
        23 => Call::StepUpTooLate { at },
        24 => Call::NewCodes { at },
        25 => Call::ChangePassword { at, old: given },
        26 => Call::RemoveApp { at },
        27 => Call::SignOut { at },
        28 => Call::EndOthers { at },
        29 => Call::OldCookie { at },
        30 => {
            if dice.roll(2) == 0 {
                Call::Disable { whose }
            } else {
                Call::Lock { whose }
            }
        }
        31 => Call::Enable { whose },
        32 => Call::Unlock { whose },
        33 => {
            if dice.roll(2) == 0 {
                Call::Reset { whose }
            } else {
                Call::Invite { whose }
            }
        }
        34..=35 => Call::Redeem { at, whose, link: given },
        36 => Call::Mint { whose },
        37 => Call::UseToken { whose },
        38 => Call::BreakGlass { at, code: given, inside: dice.roll(4) > 0 },
        _ => {
            let waits = [1, 29, 61, 299, 301, 599, 601, 899, 901, 1_799, 1_801, 3_599, 3_601, 43_199, 43_201, 86_401];
            Call::Wait { seconds: waits[dice.index(waits.len())] }
        }
    }
}

struct Walk<'a> {
    b: &'a Bench,
    world: World,
    sessions: [Session; 2],
    cookies: [Vec<Id>; 2],
    peer: IpAddr,
    outside: IpAddr,
    counter: u64,
    /// The browser that took a step in this call: its cookie is another one afterwards.
    stepped: Option<usize>,
    done: Vec<Call>,
    seed: u64,
}

impl Walk<'_> {
    fn now(&self) -> OffsetDateTime {
        self.b.clock.now()
    }

    fn fail(&self, why: &str) -> ! {
        panic!("{why}\nseed {}, after {:#?}", self.seed, self.done)
    }

    /// Holds an answer against what the model said. A lock after too many tries may refuse what is right otherwise.
    fn judge<T>(&self, expected: bool, tries: u32, answer: Result<T, Error>) -> Option<T> {
        match (expected, answer) {
            (true, Ok(value)) => Some(value),
            (false, Err(_)) => None,
            (true, Err(Error::Locked { .. })) if tries >= 5 => None,
            (true, Err(error)) => self.fail(&format!("refused what is right: {error:?}")),
            (false, Ok(_)) => self.fail("BYPASS: accepted what is not right"),
        }
    }

    /// A code as somebody types it; the model judges the text, so an accident that makes it right is no surprise.
    fn code(&self, apps: &[App], others: &[App], given: Given) -> String {
        let step = self.now().unix_timestamp() / 30;
        match given {
            Given::Right => apps.first().map(|app| code_at(&app.secret, step)),
            Given::Others => others.first().map(|app| code_at(&app.secret, step)),
            Given::Former => apps.first().map(|app| code_at(&app.secret, app.last_step.max(step - 1))),
            Given::Wrong => None,
        }
        .unwrap_or_else(|| "000000".to_owned())
    }

    fn new_password(&mut self) -> String {
        self.counter += 1;
        format!("coral bicycle umbrella {} thirteen", self.counter)
    }

    fn other(whose: usize) -> usize {
        usize::from(whose == 0)
    }

    fn user_of(&self, at: usize) -> Option<usize> {
        (self.world.seats[at].place != Place::Stranger).then_some(self.world.seats[at].whose)
    }

    async fn make(&mut self, call: Call) {
        // Each call is in a step of its own, so that the code of now was never used.
        self.b.next_step();
        let now = self.now();
        self.world.seats.iter_mut().for_each(|s| s.expire(now));
        self.done.push(call);
        self.stepped = None;
        match call {
            Call::SignIn { at, whose, password } => self.sign_in(at, whose, password).await,
            Call::Second { at, code } => self.second(at, code, false).await,
            Call::SecondTooLate { at } => self.second(at, Given::Right, true).await,
            Call::Recover { at, code } => self.recover(at, code).await,
            Call::BeginEnrolment { at } => self.begin(at).await,
            Call::ConfirmEnrolment { at, code } => self.confirm(at, code).await,
            Call::StepUp { at, code } => self.step_up(at, code, false).await,
            Call::StepUpTooLate { at } => self.step_up(at, Given::Right, true).await,
            Call::NewCodes { at } => {
                let codes = self.b.id.regenerate_recovery_codes(&self.sessions[at]).await;
                let expected = self.world.seats[at].is_fresh(now);
                if let Some(codes) = self.judge(expected, 0, codes) {
                    self.keep_codes(at, codes.iter().map(|c| c.to_string()).collect());
                }
            }
            Call::ChangePassword { at, old } => self.change_password(at, old).await,
            Call::RemoveApp { at } => self.remove_app(at).await,
            Call::SignOut { at } => {
                self.b.id.sign_out(&self.sessions[at]).await.unwrap();
                self.world.seats[at] = Seat::stranger(now);
            }
            Call::EndOthers { at } => {
                let ended = self.b.id.end_others(&self.sessions[at]).await;
                let expected = matches!(self.world.seats[at].place, Place::SignedIn { .. });
                if self.judge(expected, 0, ended).is_some() {
                    self.world.end_sessions(self.world.seats[at].whose, Some(at), now);
                }
            }
            Call::OldCookie { at } => self.old_cookies(at).await,
            Call::Disable { whose } => {
                self.b.id.disable_user(self.world.bodies[whose].user).await.unwrap();
                self.world.bodies[whose].disabled = true;
                self.world.revoke_tokens(whose);
                self.world.end_sessions(whose, None, now);
            }
            Call::Enable { whose } => {
                self.b.id.enable_user(self.world.bodies[whose].user).await.unwrap();
                self.world.bodies[whose].disabled = false;
            }
            Call::Lock { whose } => {
                self.b.id.lock_user(self.world.bodies[whose].user, "x", None).await.unwrap();
                self.world.bodies[whose].locked = true;
                self.world.end_sessions(whose, None, now);
            }
            Call::Unlock { whose } => {
                self.b.id.unlock_user(self.world.bodies[whose].user).await.unwrap();
                let body = &mut self.world.bodies[whose];
                (body.locked, body.failures) = (false, [0; 3]);
            }
            Call::Reset { whose } => {
                let token = self.b.id.reset(self.world.bodies[whose].user).await;
                let expected = !self.world.bodies[whose].disabled;
                let token = self.judge(expected, 0, token);
                let body = &mut self.world.bodies[whose];
                body.former = body.password.take().or(body.former.take());
                (body.apps, body.codes, body.pending) = (vec![], vec![], None);
                body.used_invitation = body.invitation.take().map(|i| i.0).or(body.used_invitation.take());
                body.invitation = token.map(|t| (text(&t), now));
                self.world.revoke_tokens(whose);
                self.world.end_sessions(whose, None, now);
            }
            Call::Invite { whose } => {
                let token = self.b.id.invite(self.world.bodies[whose].user).await;
                if let Some(token) = self.judge(!self.world.bodies[whose].disabled, 0, token) {
                    let body = &mut self.world.bodies[whose];
                    body.used_invitation = body.invitation.replace((text(&token), now)).map(|i| i.0);
                }
            }
            Call::Redeem { at, whose, link } => self.redeem(at, whose, link).await,
            Call::Mint { whose } => {
                let (user, expires_at) = (self.world.bodies[whose].user, now + Duration::HOUR);
                let wish =
                    TokenWish { user, name: "tool", hypervisor: None, networks: vec![], expires_at, by: Maker::Owner };
                let made = self.b.id.mint_token(wish).await;
                if let Some((_, token)) = self.judge(self.world.bodies[whose].is_open(), 0, made) {
                    self.world.bodies[whose].tokens.push((text(&token), expires_at, true));
                }
            }
            Call::UseToken { whose } => {
                self.b.id.refresh().await.unwrap();
                let body = &self.world.bodies[whose];
                for (token, until, live) in &body.tokens {
                    let acts = self.b.id.token_actor(token, self.peer).map(|a| a.user);
                    let expected = (*live && body.is_open() && now < *until).then_some(body.user);
                    if acts != expected {
                        self.fail(&format!("BYPASS: a token acts as {acts:?}, not {expected:?}"));
                    }
                }
            }
            Call::BreakGlass { at, code, inside } => self.break_glass(at, code, inside).await,
            Call::Wait { seconds } => self.b.clock.advance(Duration::seconds(seconds)),
        }
        self.check().await;
    }

    async fn sign_in(&mut self, at: usize, whose: usize, given: Given) {
        let now = self.now();
        let body = &self.world.bodies[whose];
        let typed = match given {
            Given::Right => body.password.clone(),
            Given::Others => self.world.bodies[Self::other(whose)].password.clone(),
            Given::Former => body.former.clone(),
            Given::Wrong => None,
        };
        let typed = typed.unwrap_or_else(|| "nothing that anybody has".to_owned());
        let (right, tries) = (body.password.as_ref() == Some(&typed), body.failures[0]);
        let expected = right && body.is_open();
        let answer = self.b.id.sign_in(&self.sessions[at], &body.name, secret(&typed), self.peer).await;
        if self.judge(expected, tries, answer).is_some() {
            self.world.bodies[whose].failures[0] = 0;
            self.arrive_half(at, whose, now);
        } else {
            self.world.bodies[whose].failures[0] += 1;
        }
    }

    fn arrive_half(&mut self, at: usize, whose: usize, now: OffsetDateTime) {
        self.stepped = Some(at);
        let enrolled = !self.world.bodies[whose].apps.is_empty();
        let place = if enrolled { Place::NeedsSecond { since: now } } else { Place::MustEnrol { since: now } };
        self.world.arrive(at, whose, place, now);
    }

    async fn second(&mut self, at: usize, given: Given, late: bool) {
        let now = self.now();
        let seat = self.world.seats[at];
        let code = match self.user_of(at) {
            Some(whose) if whose < 2 => {
                let (own, others) = (&self.world.bodies[whose], &self.world.bodies[Self::other(whose)]);
                self.code(&own.apps, &others.apps, given)
            }
            _ => "000000".to_owned(),
        };
        let held = self.sessions[at].clone();
        if late {
            // The record is in memory when the other request signs out.
            self.b.id.stage(&held).await.unwrap();
            self.b.id.sign_out(&self.b.again(&held)).await.unwrap();
        }
        let body = &self.world.bodies[seat.whose];
        let right = body.right(&code, now).filter(|_| body.is_open());
        let stage = matches!(seat.place, Place::NeedsSecond { .. });
        let (expected, tries) = (stage && right.is_some() && !late, body.failures[2]);
        let answer = self.b.id.second_factor(&held, &code, self.peer).await;
        let locked = matches!(answer, Err(Error::Locked { .. }));
        let accepted = self.judge(expected, tries / 2, answer).is_some();
        if stage && !locked {
            if let Some((n, step)) = right {
                self.world.bodies[seat.whose].apps[n].last_step = step;
            } else if self.world.bodies[seat.whose].is_open() {
                self.world.bodies[seat.whose].failures[2] += 1;
            }
        }
        if late {
            self.world.seats[at] = Seat::stranger(now);
        } else if accepted {
            self.stepped = Some(at);
            self.world.arrive(at, seat.whose, Place::SignedIn { second_at: Some(now), emergency: false }, now);
        }
    }

    async fn recover(&mut self, at: usize, given: Given) {
        let now = self.now();
        let seat = self.world.seats[at];
        let body = &self.world.bodies[seat.whose];
        let others = &self.world.bodies[Self::other(seat.whose)];
        let code = match given {
            Given::Right => body.codes.first().cloned(),
            Given::Others => others.codes.first().cloned(),
            Given::Former => body.spent.clone(),
            Given::Wrong => None,
        };
        let code = code.unwrap_or_else(|| "AAAA-AAAA-AAAA-AAAA".to_owned());
        let stage = matches!(seat.place, Place::NeedsSecond { .. });
        let right = body.codes.contains(&code);
        let (expected, tries) = (stage && right && body.is_open(), body.failures[2]);
        let answer = self.b.id.recover(&self.sessions[at], &code, self.peer).await;
        if self.judge(expected, tries / 2, answer).is_some() {
            let body = &mut self.world.bodies[seat.whose];
            body.codes.retain(|c| *c != code);
            body.spent = Some(code);
            self.stepped = Some(at);
            self.world.arrive(at, seat.whose, Place::RecoveryOnly { since: now }, now);
        } else if stage {
            self.world.bodies[seat.whose].failures[2] += 1;
        }
    }

    fn may_enrol(&self, at: usize) -> bool {
        let seat = &self.world.seats[at];
        match seat.place {
            Place::MustEnrol { .. } | Place::RecoveryOnly { .. } => true,
            Place::SignedIn { .. } => seat.is_fresh(self.now()),
            Place::Stranger | Place::NeedsSecond { .. } => false,
        }
    }

    async fn begin(&mut self, at: usize) {
        let now = self.now();
        let answer = self.b.id.begin_enrolment(&self.sessions[at]).await;
        let Some(shown) = self.judge(self.may_enrol(at), 0, answer) else { return };
        let app = totp_rs::Secret::try_from_base32(shown.secret_text.replace(' ', "")).unwrap();
        let shown = Secret::new(app.as_bytes().to_vec());
        if let Some(pending) = self.world.pending(at, now) {
            if pending.secret.expose() != shown.expose() {
                self.fail("another app was shown than the one that waits");
            }
            return;
        }
        self.counter += 1;
        let (number, whose) = (self.counter, self.world.seats[at].whose);
        self.world.bodies[whose].pending = Some(Pending { number, secret: shown, made: now });
        self.world.seats[at].pending = Some(number);
    }

    async fn confirm(&mut self, at: usize, given: Given) {
        let now = self.now();
        let seat = self.world.seats[at];
        let pending = self.world.pending(at, now);
        let apps = &self.world.bodies[seat.whose].apps;
        let of_pending: Vec<App> = pending.iter().map(|p| App { secret: p.secret.clone(), last_step: -1 }).collect();
        let code = self.code(&of_pending, apps, given);
        let step = pending.as_ref().and_then(|p| super::step_of(&p.secret, &code, now));
        let first = !matches!(seat.place, Place::MustEnrol { .. }) || apps.is_empty();
        let expected = self.may_enrol(at) && step.is_some() && first;
        let tries = self.world.bodies[seat.whose].failures[2];
        let answer = self.b.id.confirm_enrolment(&self.sessions[at], &code, self.peer).await;
        let Some(codes) = self.judge(expected, tries / 2, answer) else {
            if self.may_enrol(at) && pending.is_some() {
                self.world.bodies[seat.whose].failures[2] += 1;
            }
            return;
        };
        let (Some(pending), Some(step)) = (pending, step) else { return };
        let app = App { secret: pending.secret, last_step: step };
        self.world.bodies[seat.whose].pending = None;
        self.world.end_sessions(seat.whose, Some(at), now);
        if matches!(seat.place, Place::SignedIn { .. }) {
            self.world.bodies[seat.whose].apps.push(app);
            self.world.seats[at].pending = None;
            return;
        }
        self.world.bodies[seat.whose].apps = vec![app];
        self.stepped = Some(at);
        self.world.arrive(at, seat.whose, Place::SignedIn { second_at: Some(now), emergency: false }, now);
        self.keep_codes(at, codes.iter().map(|c| c.to_string()).collect());
    }

    fn keep_codes(&mut self, at: usize, codes: Vec<String>) {
        let body = &mut self.world.bodies[self.world.seats[at].whose];
        body.spent = body.codes.pop().or(body.spent.take());
        body.codes = codes;
    }

    async fn step_up(&mut self, at: usize, given: Given, late: bool) {
        let now = self.now();
        let seat = self.world.seats[at];
        let signed_in = matches!(seat.place, Place::SignedIn { .. });
        let own = &self.world.bodies[seat.whose];
        let others = &self.world.bodies[Self::other(seat.whose)];
        let code = self.code(&own.apps, &others.apps, given);
        let held = self.sessions[at].clone();
        if late {
            self.b.id.stage(&held).await.unwrap();
            self.b.id.disable_user(own.user).await.unwrap();
        }
        let right = own.right(&code, now).filter(|_| !late);
        let (expected, tries) = (signed_in && right.is_some(), own.failures[2]);
        let answer = self.b.id.step_up(&held, &code, self.peer).await;
        let accepted = self.judge(expected, tries / 2, answer).is_some();
        if late {
            self.world.bodies[seat.whose].disabled = true;
            self.world.revoke_tokens(seat.whose);
            self.world.end_sessions(seat.whose, None, now);
        } else if let (true, Some((n, step))) = (accepted, right) {
            self.world.bodies[seat.whose].apps[n].last_step = step;
            if let Place::SignedIn { second_at, .. } = &mut self.world.seats[at].place {
                *second_at = Some(now);
            }
            self.stepped = Some(at);
            // A step writes the session down anew.
            (self.world.seats[at].seen, self.world.seats[at].pending) = (now, None);
        } else if signed_in {
            self.world.bodies[seat.whose].failures[2] += 1;
        }
    }

    async fn change_password(&mut self, at: usize, given: Given) {
        let now = self.now();
        let new = self.new_password();
        let seat = self.world.seats[at];
        let body = &self.world.bodies[seat.whose];
        let typed = match given {
            Given::Right => body.password.clone(),
            Given::Others => self.world.bodies[Self::other(seat.whose)].password.clone(),
            Given::Former => body.former.clone(),
            Given::Wrong => None,
        };
        let typed = typed.unwrap_or_else(|| "nothing that anybody has".to_owned());
        let (right, tries) = (body.password.as_ref() == Some(&typed), body.failures[1]);
        let expected = seat.is_fresh(now) && right;
        let answer = self.b.id.change_password(&self.sessions[at], secret(&typed), secret(&new)).await;
        if self.judge(expected, tries, answer).is_some() {
            let body = &mut self.world.bodies[seat.whose];
            body.failures[1] = 0;
            body.former = body.password.replace(new);
            self.world.revoke_tokens(seat.whose);
            self.stepped = Some(at);
            self.world.end_sessions(seat.whose, Some(at), now);
            (self.world.seats[at].seen, self.world.seats[at].pending) = (now, None);
        } else if seat.is_fresh(now) {
            self.world.bodies[seat.whose].failures[1] += 1;
        }
    }

    async fn remove_app(&mut self, at: usize) {
        let now = self.now();
        let seat = self.world.seats[at];
        let factors = self.b.id.factors(self.world.bodies[seat.whose].user).await.unwrap();
        let Some(oldest) = factors.first() else { return };
        let expected = seat.is_fresh(now) && factors.len() > 1;
        let answer = self.b.id.remove_factor(&self.sessions[at], oldest.id).await;
        if self.judge(expected, 0, answer).is_some() {
            self.world.bodies[seat.whose].apps.remove(0);
            self.world.end_sessions(seat.whose, Some(at), now);
        }
    }

    async fn redeem(&mut self, at: usize, whose: usize, given: Given) {
        let now = self.now();
        let new = self.new_password();
        let body = &self.world.bodies[whose];
        let link = match given {
            Given::Right => body.invitation.as_ref().map(|i| i.0.clone()),
            Given::Former => body.used_invitation.clone(),
            Given::Others | Given::Wrong => None,
        };
        let link = link.unwrap_or_else(|| "pci_nothing".to_owned());
        let counts = |(text, made): &(String, OffsetDateTime)| *text == link && now < *made + Duration::minutes(15);
        let expected = body.invitation.as_ref().is_some_and(counts) && body.is_open();
        let redeem = Redeem { token: &link, name: Some("eve"), display_name: "", password: secret(&new) };
        let answer = self.b.id.redeem_invitation(&self.sessions[at], redeem, self.peer).await;
        if self.judge(expected, 0, answer).is_some() {
            let body = &mut self.world.bodies[whose];
            body.used_invitation = body.invitation.take().map(|i| i.0);
            body.former = body.password.replace(new).or(body.former.take());
            self.world.revoke_tokens(whose);
            self.world.end_sessions(whose, Some(at).filter(|at| self.world.seats[*at].whose != whose), now);
            self.arrive_half(at, whose, now);
        }
    }

    async fn break_glass(&mut self, at: usize, given: Given, inside: bool) {
        let now = self.now();
        let code = match given {
            Given::Right => self.world.sealed.first().cloned(),
            Given::Former => self.world.used_sealed.clone(),
            Given::Others | Given::Wrong => None,
        };
        let code = code.unwrap_or_else(|| "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA".to_owned());
        let expected = inside && self.world.sealed.contains(&code) && self.world.bodies[2].is_open();
        let peer = if inside { self.peer } else { self.outside };
        let answer = self.b.id.break_glass(&self.sessions[at], &code, peer).await;
        if self.judge(expected, 0, answer).is_some() {
            self.world.sealed.remove(&code);
            self.world.used_sealed = Some(code);
            self.stepped = Some(at);
            self.world.arrive(at, 2, Place::SignedIn { second_at: None, emergency: true }, now);
        }
    }

    async fn old_cookies(&self, at: usize) {
        for cookie in self.cookies.iter().flatten() {
            if self.sessions.iter().any(|s| s.id() == Some(*cookie)) {
                continue;
            }
            let rows = std::sync::Arc::new(self.b.id.0.rows.clone());
            let stage = self.b.id.stage(&Session::new(Some(*cookie), rows, None)).await.unwrap();
            if stage != Stage::Stranger {
                self.fail(&format!("BYPASS: an old cookie of browser {at} is {stage:?}"));
            }
        }
    }

    /// The next request of each browser: it stands where the model says, and acts as who the model says or not at all.
    async fn check(&mut self) {
        let now = self.now();
        for at in 0..2 {
            self.sessions[at] = self.b.again(&self.sessions[at]);
            self.world.seats[at].request(now);
            let stage = self.b.id.stage(&self.sessions[at]).await.unwrap();
            let actor = self.b.id.actor(&self.sessions[at]).await.unwrap();
            let seat = self.world.seats[at];
            let body = &self.world.bodies[seat.whose];
            let same = match (&stage, seat.place) {
                (Stage::Stranger, Place::Stranger) => true,
                (Stage::NeedsSecond { user, .. }, Place::NeedsSecond { .. })
                | (Stage::MustEnrol { user, .. }, Place::MustEnrol { .. })
                | (Stage::RecoveryOnly { user, .. }, Place::RecoveryOnly { .. })
                | (Stage::SignedIn { user, .. }, Place::SignedIn { .. }) => *user == body.user,
                _ => false,
            };
            if !same {
                self.fail(&format!("browser {at} is {stage:?}, and the model says {:?} of {}", seat.place, body.name));
            }
            let acts = matches!(seat.place, Place::SignedIn { .. }).then_some(body.user);
            if actor.as_ref().map(|a| a.user) != acts {
                self.fail(&format!("BYPASS: browser {at} acts as {actor:?}, not as {acts:?}"));
            }
            if let Some(actor) = actor {
                let emergency = matches!(seat.place, Place::SignedIn { emergency: true, .. });
                let fresh = actor.assurance.is_fresh(super::WINDOW, now);
                if fresh != (seat.is_fresh(now) || emergency) {
                    self.fail(&format!("BYPASS: browser {at} is fresh: {fresh}"));
                }
            }
            let cookie = self.sessions[at].id();
            if self.stepped == Some(at) && cookie.is_none_or(|id| self.cookies.iter().flatten().any(|old| *old == id)) {
                self.fail(&format!("BYPASS: browser {at} took a step and kept its cookie"));
            }
            if let Some(id) = cookie
                && self.cookies[at].last() != Some(&id)
            {
                self.cookies[at].push(id);
            }
        }
    }
}

/// Somebody who is enrolled, or invited only.
async fn body(b: &Bench, name: String, enrolled: bool, peer: IpAddr, password: &str) -> Body {
    let user = b.id.create_user(&name, "").await.unwrap();
    let token = text(&b.id.invite(user).await.unwrap());
    let mut body = Body::new(name, user);
    if !enrolled {
        body.invitation = Some((token, b.clock.now()));
        return body;
    }
    let session = b.browser();
    let redeem = Redeem { token: &token, name: None, display_name: "", password: secret(password) };
    b.id.redeem_invitation(&session, redeem, peer).await.unwrap();
    let (secret, codes) = b.enrol(&session).await;
    let step = b.clock.now().unix_timestamp() / 30;
    b.id.sign_out(&session).await.unwrap();
    body.apps.push(App { secret, last_step: step });
    (body.password, body.codes, body.used_invitation) = (Some(password.to_owned()), codes, Some(token));
    body
}

async fn walk(bench: &Bench, seed: u64, longest: u64, count: &mut [u64; 5]) {
    let mut dice = Dice(seed);
    let net: [u8; 4] = u32::try_from(seed).unwrap().to_be_bytes();
    let address = |head: u16| {
        let [first, second, third, fourth] = net.map(u16::from);
        IpAddr::from([0x2001, head, first << 8 | second, third << 8 | fourth, 0, 0, 0, 1])
    };
    let (peer, outside) = (address(0xdb8), address(0xdb9));
    let name = format!("glass-{seed}");
    let glass = bench.id.break_glass_account(&name).await.unwrap();
    let sealed: BTreeSet<String> =
        bench.id.break_glass_codes(glass).await.unwrap().iter().map(|c| c.to_string()).collect();
    let mut bodies = Vec::new();
    for n in 0..2 {
        let enrolled = dice.roll(4) > 0;
        bodies.push(body(bench, format!("p{n}-{seed}"), enrolled, peer, &format!("coral bicycle {n} thirteen")).await);
    }
    bodies.push(Body::new(name, glass));
    let now = bench.clock.now();
    let world = World { bodies, seats: [Seat::stranger(now); 2], sealed, used_sealed: None };
    let sessions = [bench.browser(), bench.browser()];
    let cookies = [vec![], vec![]];
    let mut walk =
        Walk { b: bench, world, sessions, cookies, peer, outside, counter: 0, stepped: None, done: vec![], seed };
    for _ in 0..4 + dice.roll(longest) {
        let call = draw(&mut dice, &walk.world.seats);
        walk.make(call).await;
        for seat in &walk.world.seats {
            let n = match seat.place {
                Place::Stranger => 0,
                Place::NeedsSecond { .. } => 1,
                Place::MustEnrol { .. } => 2,
                Place::RecoveryOnly { .. } => 3,
                Place::SignedIn { .. } => 4,
            };
            count[n] += 1;
        }
    }
}

/// Sequences on one database before it is left behind: what a node keeps in memory grows with it.
const TOGETHER: u64 = 100;

// SEC-098, SEC-113, SEC-115
#[tokio::test]
async fn no_sequence_of_calls_gets_past_the_model() {
    let full = std::env::var("PORTCULLIS_TEST_FULL").is_ok_and(|v| v == "1");
    let (sequences, longest) = if full { (100_000, 24) } else { (300, 24) };
    let mut count = [0; 5];
    let networks = vec!["2001:db8::/32".parse().unwrap()];
    let settings = Settings { break_glass: BreakGlassSettings { networks }, ..Settings::default() };
    for chunk in 0..sequences / TOGETHER {
        let b = Bench::quick(settings.clone()).await;
        for n in 0..TOGETHER {
            walk(&b, chunk * TOGETHER + n, longest, &mut count).await;
        }
    }
    // A walk that never gets anywhere would prove nothing.
    assert!(count.iter().all(|n| *n > sequences / 4), "{count:?}");
}
