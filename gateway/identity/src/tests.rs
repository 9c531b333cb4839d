// SPDX-License-Identifier: Apache-2.0
//! Signing in, held against a model of it: long random sequences of calls by somebody who knows every secret and may leave
//! out any step, in two browsers and with two people, while an administrator disables, locks and resets.
//!
//! The model says beforehand whether each call is accepted, and afterwards where each browser stands, whether what it
//! proved is fresh, and whether it acts at all. It was written from the drawing in `lib.rs` and shares no code with what
//! it judges, but for the arithmetic of RFC 6238, which its own tests hold against the vectors.
//!
//! A new way to sign in is a [`walk::Call`], its line in `Walk::make`, and a proof in [`World`].

mod matrix;
mod walk;

use portcullis_domain::{Secret, UserId};
use std::collections::BTreeSet;
use time::{Duration, OffsetDateTime};

/// A generator whose every number follows from its seed (SplitMix64): a sequence that fails can be run again.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.roll(length as u64)).unwrap()
    }
}

const IDLE: Duration = Duration::minutes(30);
const ABSOLUTE: Duration = Duration::hours(12);
const EMERGENCY: Duration = Duration::HOUR;
const HALF_DONE: Duration = Duration::minutes(10);
const ENROLLING: Duration = Duration::minutes(30);
const WINDOW: Duration = Duration::minutes(5);
/// How often a use is written down.
const TOUCH: Duration = Duration::MINUTE;

/// Where a browser stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Stranger,
    NeedsSecond { since: OffsetDateTime },
    MustEnrol { since: OffsetDateTime },
    RecoveryOnly { since: OffsetDateTime },
    SignedIn { second_at: Option<OffsetDateTime>, emergency: bool },
}

/// An authenticator app, and the last step that a code of it counted for.
#[derive(Clone)]
pub(super) struct App {
    pub(super) secret: Secret,
    pub(super) last_step: i64,
}

/// An app that was shown and not confirmed.
#[derive(Clone)]
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) secret: Secret,
    pub(super) made: OffsetDateTime,
}

/// A person, as the model knows them.
#[derive(Clone)]
pub(super) struct Body {
    pub(super) name: String,
    pub(super) user: UserId,
    pub(super) password: Option<String>,
    pub(super) former: Option<String>,
    pub(super) apps: Vec<App>,
    pub(super) pending: Option<Pending>,
    pub(super) codes: Vec<String>,
    pub(super) spent: Option<String>,
    pub(super) disabled: bool,
    pub(super) locked: bool,
    pub(super) invitation: Option<(String, OffsetDateTime)>,
    pub(super) used_invitation: Option<String>,
    pub(super) tokens: Vec<(String, OffsetDateTime, bool)>,
    /// Failures at the password, the old password and the second factor since they were forgotten.
    pub(super) failures: [u32; 3],
}

impl Body {
    /// An account that nobody can sign in to yet.
    pub(super) const fn new(name: String, user: UserId) -> Self {
        Self {
            name,
            user,
            password: None,
            former: None,
            apps: vec![],
            pending: None,
            codes: vec![],
            spent: None,
            disabled: false,
            locked: false,
            invitation: None,
            used_invitation: None,
            tokens: vec![],
            failures: [0; 3],
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        !self.disabled && !self.locked
    }

    /// The app and the step that a code is right for now.
    pub(super) fn right(&self, code: &str, now: OffsetDateTime) -> Option<(usize, i64)> {
        let of = |(n, app): (usize, &App)| step_of(&app.secret, code, now).map(|step| (n, step));
        self.apps.iter().enumerate().filter_map(of).find(|(n, step)| *step > self.apps[*n].last_step)
    }
}

/// The step around now whose code this is.
pub(super) fn step_of(secret: &Secret, code: &str, now: OffsetDateTime) -> Option<i64> {
    let step = now.unix_timestamp() / 30;
    (step - 1..=step + 1).find(|step| code_at(secret, *step) == code)
}

/// The code of a step.
pub(super) fn code_at(secret: &Secret, step: i64) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose());
    let tag = aws_lc_rs::hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[19] & 0xf);
    let number = u32::from_be_bytes([tag[at] & 0x7f, tag[at + 1], tag[at + 2], tag[at + 3]]);
    format!("{:06}", number % 1_000_000)
}

/// A browser, as the model knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) place: Place,
    /// Whose it is: a number of [`World::bodies`].
    pub(super) whose: usize,
    pub(super) created: OffsetDateTime,
    pub(super) seen: OffsetDateTime,
    pub(super) pending: Option<u64>,
}

impl Seat {
    pub(super) const fn stranger(now: OffsetDateTime) -> Self {
        Self { place: Place::Stranger, whose: 0, created: now, seen: now, pending: None }
    }

    /// A request at an instant: what it finds, and that it was made.
    pub(super) fn request(&mut self, now: OffsetDateTime) {
        self.expire(now);
        if self.place != Place::Stranger && now - self.seen >= TOUCH {
            self.seen = now;
        }
    }

    /// What time alone has ended at an instant.
    pub(super) fn expire(&mut self, now: OffsetDateTime) {
        let longest = if matches!(self.place, Place::SignedIn { emergency: true, .. }) { EMERGENCY } else { ABSOLUTE };
        let over = match self.place {
            Place::Stranger => true,
            Place::NeedsSecond { since } => now >= since + HALF_DONE,
            Place::MustEnrol { since } | Place::RecoveryOnly { since } => now >= since + ENROLLING,
            Place::SignedIn { .. } => false,
        };
        if over || now >= self.seen + IDLE || now >= self.created + longest {
            *self = Self::stranger(now);
        }
    }

    /// Whether what it proved is fresh enough for a change of one's own account.
    pub(super) fn is_fresh(&self, now: OffsetDateTime) -> bool {
        let within = |at: OffsetDateTime| at <= now && now - at <= WINDOW;
        matches!(self.place, Place::SignedIn { second_at, emergency: false } if second_at.is_some_and(within))
    }
}

/// Everybody and every browser.
pub(super) struct World {
    /// Two people, and the account for emergencies.
    pub(super) bodies: Vec<Body>,
    pub(super) seats: [Seat; 2],
    pub(super) sealed: BTreeSet<String>,
    pub(super) used_sealed: Option<String>,
}

impl World {
    /// Ends the sessions of somebody but for one browser.
    pub(super) fn end_sessions(&mut self, whose: usize, but: Option<usize>, now: OffsetDateTime) {
        for (n, seat) in self.seats.iter_mut().enumerate() {
            if seat.whose == whose && Some(n) != but && seat.place != Place::Stranger {
                *seat = Seat::stranger(now);
            }
        }
    }

    /// A browser arrives somewhere with a new session.
    pub(super) fn arrive(&mut self, at: usize, whose: usize, place: Place, now: OffsetDateTime) {
        self.seats[at] = Seat { place, whose, created: now, seen: now, pending: None };
    }

    pub(super) fn revoke_tokens(&mut self, whose: usize) {
        self.bodies[whose].tokens.iter_mut().for_each(|t| t.2 = false);
    }

    /// The app that a browser began to enrol, if it can still be confirmed.
    pub(super) fn pending(&self, at: usize, now: OffsetDateTime) -> Option<Pending> {
        let seat = self.seats[at];
        let pending = self.bodies[seat.whose].pending.clone();
        pending.filter(|p| Some(p.number) == seat.pending && now < p.made + Duration::minutes(30))
    }
}

#[test]
fn the_model_counts_codes_as_rfc_6238_does() {
    let secret = Secret::new(b"12345678901234567890".to_vec());
    // Appendix B, the last six of eight digits.
    for (seconds, code) in
        [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
    {
        assert_eq!(code_at(&secret, seconds / 30), code);
    }
}
