// SPDX-License-Identifier: Apache-2.0
//! What can go wrong, by what the person can do about it.

use crate::oidc::Flaw;
use portcullis_domain::UserId;
use std::fmt;
use time::OffsetDateTime;

/// Why it did not happen. The text of each variant may be shown to anybody; no variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was presented does not count. Every reason has the same text.
    #[error("that did not match: check what you typed and try again")]
    Refused(Refusal),
    /// Too many tries; known and unknown names are treated alike.
    #[error("too many tries: wait until {until} and try again")]
    Locked {
        /// When to try again.
        until: OffsetDateTime,
    },
    /// Too many people sign in at this moment.
    #[error("too many people are signing in: try again in a few seconds")]
    Busy,
    /// The new password breaks a rule; the text says which and what helps.
    #[error("{0}")]
    Weak(String),
    /// An identity provider's word does not count; the true reason is for the trail.
    #[error("signing in with {title} did not work: {}", advice(*flaw))]
    NotVouched {
        /// What people call the provider.
        title: String,
        /// The true reason.
        flaw: Flaw,
        /// Who it was about, as far as that is known.
        user: Option<UserId>,
        /// What was changed all the same, in words for the trail; mostly nothing.
        changed: String,
    },
    /// An identity provider said no, in its own words.
    #[error("{title} answered: {words}")]
    ProviderSaid {
        /// What people call the provider.
        title: String,
        /// Its words, short and on one line.
        words: String,
    },
    /// An identity provider cannot be asked at the moment.
    #[error("{title} cannot be reached at the moment: try again later, or sign in another way")]
    ProviderDown {
        /// What people call the provider.
        title: String,
        /// Why, for the trail.
        why: String,
    },
    /// The step belongs to a sign-in that is over, was ended, or never began: start again.
    #[error("this sign-in is over: begin again")]
    Expired,
    /// A fresh second factor is needed first.
    #[error("confirm with a new authenticator code or a passkey first")]
    NotFresh,
    /// A name or a time that is not allowed; the text says what is.
    #[error("{0}")]
    Invalid(String),
    /// It exists already.
    #[error("{0} exists already")]
    Conflict(&'static str),
    /// It does not exist.
    #[error("{0} does not exist")]
    NotFound(&'static str),
    /// A setting is out of range.
    #[error("{0}")]
    Settings(String),
    /// The store could not do it: deny, and try later.
    #[error("the store could not answer")]
    Store(#[source] portcullis_store::Error),
    /// The session could not be read or written: deny, and try later.
    #[error("the session could not be read or written")]
    Session(#[source] tower_sessions::session::Error),
    /// A cryptographic operation failed; never because of what was typed.
    #[error("a cryptographic operation failed: {0}")]
    Crypto(&'static str),
}

/// The true reason of a refusal: for the trail, never for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub noted: Why,
    /// Who it was about, as far as that is known.
    pub user: Option<UserId>,
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody has this name.
    UnknownName,
    /// The account is disabled.
    Disabled,
    /// The account is locked.
    Locked,
    /// The account has no password yet.
    NoPassword,
    /// The password is wrong.
    WrongPassword,
    /// The code is wrong.
    WrongCode,
    /// The code was right and was used before.
    UsedCode,
    /// The recovery code is wrong or was used before.
    WrongRecoveryCode,
    /// The invitation is unknown, used or over.
    WrongInvitation,
    /// The sealed code is unknown, used, or newer ones took its place.
    WrongBreakGlass,
    /// It does not count from this network.
    WrongNetwork,
    /// The console ticket is unknown, used, over, or for something else.
    WrongTicket,
    /// The form was not made for this session.
    WrongForm,
    /// What an identity provider said does not count.
    Provider(Flaw),
    /// The passkey's answer does not hold.
    WrongPasskey,
    /// Nobody has this passkey.
    UnknownPasskey,
    /// The passkey was only touched, where it must check a PIN, a finger or a face.
    UnverifiedPasskey,
    /// The passkey's counter went back: there may be a copy of it.
    PasskeyCounter,
    /// This session was not asked for it, not for this purpose, too long ago, or it was answered before.
    NotAsked,
}

/// What a person can do about a provider's word that does not count. Only those whom the provider vouched for learn
/// more than that.
const fn advice(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::State => "it took too long or was begun in another browser; begin again",
        Flaw::NoRole | Flaw::Disabled => "no access here is given to you; ask an administrator",
        Flaw::Overage | Flaw::WrongType => {
            "your groups did not come with it in a form that can be read; tell an administrator"
        }
        Flaw::NotSetUp => "this gateway is not set up yet; tell an administrator",
        Flaw::NotFresh | Flaw::NoSecond => "it did not ask you for what is needed here; sign in there again",
        Flaw::OtherPerson => "somebody else is signed in there; sign out there first",
        _ => "try again, and tell an administrator if it happens again",
    }
}

impl Why {
    /// The words in the trail.
    pub const fn words(self) -> &'static str {
        match self {
            Self::UnknownName => "nobody has this name",
            Self::Disabled => "the account is disabled",
            Self::Locked => "the account is locked",
            Self::NoPassword => "the account has no password yet",
            Self::WrongPassword => "wrong password",
            Self::WrongCode => "wrong authenticator code",
            Self::UsedCode => "authenticator code was used before",
            Self::WrongRecoveryCode => "recovery code is wrong or was used before",
            Self::WrongInvitation => "invitation is unknown, used or over",
            Self::WrongBreakGlass => "sealed code is unknown, used, or newer ones took its place",
            Self::WrongNetwork => "it does not count from this network",
            Self::WrongTicket => "console ticket is unknown, used, over or for something else",
            Self::WrongForm => "the form was not made for this session",
            Self::Provider(flaw) => flaw.words(),
            Self::WrongPasskey => "the passkey's answer does not hold",
            Self::UnknownPasskey => "nobody has this passkey",
            Self::UnverifiedPasskey => "the passkey checked no PIN, finger or face",
            Self::PasskeyCounter => "the passkey's counter went back: there may be a copy of it",
            Self::NotAsked => "the passkey was not asked for in this session, or its answer came too late or twice",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl Error {
    pub(crate) const fn refused(noted: Why, user: Option<UserId>) -> Self {
        Self::Refused(Refusal { noted, user })
    }

    /// The true reason, when there is one beside the text.
    pub const fn noted(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(*refusal),
            Self::NotVouched { flaw, user, .. } => Some(Refusal { noted: Why::Provider(*flaw), user: *user }),
            _ => None,
        }
    }

    pub(crate) fn store(error: portcullis_store::Error) -> Self {
        match error {
            portcullis_store::Error::Conflict(what) => Self::Conflict(what),
            portcullis_store::Error::NotFound(what) => Self::NotFound(what),
            other => Self::Store(other),
        }
    }
}
