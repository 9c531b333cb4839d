// SPDX-License-Identifier: Apache-2.0
//! What was wrong with what a provider, or whoever claims to be one, sent.

use std::fmt;

/// Why a provider's word does not count. For the trail; a person at the door is told less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// No such sign-in was begun in this browser, or it was used or took too long.
    State,
    /// The answer names another issuer, or none where one is promised (RFC 9207).
    Issuer,
    /// The provider answered with an error instead of a code.
    Refused,
    /// The answer holds no code.
    NoCode,
    /// The discovery document or the keys cannot be used.
    Discovery,
    /// The provider did not take the code.
    Code,
    /// The token answer has another shape than it should.
    Answer,
    /// There is no ID token in it.
    NoToken,
    /// The token is no JWT of three parts with a header that is understood.
    Format,
    /// It is signed with an algorithm that is not accepted from this provider, or not at all.
    Algorithm,
    /// No key of the provider has its id.
    UnknownKey,
    /// Several keys fit and the token does not say which.
    AmbiguousKey,
    /// The signature is wrong.
    Signature,
    /// `iss` is another provider's.
    TokenIssuer,
    /// `aud` or `azp` is not this gateway, or somebody else's too.
    Audience,
    /// `sub` is missing, empty, too long or no text.
    Subject,
    /// `exp` is missing, no whole number, or past.
    Expired,
    /// `iat` or `nbf` is missing, no whole number, or in the future.
    Issued,
    /// The nonce is missing or of another sign-in.
    Nonce,
    /// `at_hash` is not of the access token that came with it.
    AccessHash,
    /// `acr`, `amr`, `auth_time` or `sid` has another type than it should.
    ClaimType,
    /// The userinfo answer is of somebody else, or cannot be read.
    UserInfo,
    /// The person signed in at the provider too long ago, or it does not say when.
    NotFresh,
    /// The second factor that was asked for is not proven.
    NoSecond,
    /// The provider left the list of groups out because it is too long.
    Overage,
    /// A claim of the table has another type than a text or a list of texts.
    WrongType,
    /// The provider vouches for them, and nothing in the table gives them a role.
    NoRole,
    /// The account is disabled.
    Disabled,
    /// The first administrator was not set up yet.
    NotSetUp,
    /// It says who somebody else is than the one who is confirming.
    OtherPerson,
    /// A logout message without the event, with a nonce, or without person and session.
    Logout,
    /// A logout message that was used before.
    Replay,
    /// The provider no longer renews the sign-in.
    NotRenewed,
}

impl Flaw {
    /// The words in the trail.
    pub const fn words(self) -> &'static str {
        match self {
            Self::State => "no such sign-in was begun in this browser, or it was used or took too long",
            Self::Issuer => "the answer names another issuer than the provider's, or none",
            Self::Refused => "the provider answered with an error",
            Self::NoCode => "the answer holds no code",
            Self::Discovery => "the provider's discovery document or keys cannot be used",
            Self::Code => "the provider did not accept the code",
            Self::Answer => "the token answer cannot be read",
            Self::NoToken => "the token answer holds no ID token",
            Self::Format => "the token is not of a form that is accepted",
            Self::Algorithm => "the token is not signed with an algorithm that is accepted from this provider",
            Self::UnknownKey => "the token is signed with a key that the provider does not publish",
            Self::AmbiguousKey => "the token does not say which of the provider's keys signed it",
            Self::Signature => "the token's signature is wrong",
            Self::TokenIssuer => "the token is of another issuer",
            Self::Audience => "the token is not for this gateway",
            Self::Subject => "the token names nobody: sub is missing, empty, too long or no text",
            Self::Expired => "the token has expired, or does not say when",
            Self::Issued => "the token is from the future, or does not say when it was issued",
            Self::Nonce => "the token belongs to another sign-in: the nonce is wrong",
            Self::AccessHash => "the token does not fit the access token beside it",
            Self::ClaimType => "a claim of the token has a type that it cannot have",
            Self::UserInfo => "the provider's userinfo answer is of somebody else or cannot be read",
            Self::NotFresh => "they signed in at the provider too long ago, or it does not say when",
            Self::NoSecond => "the provider does not prove the second factor that was asked for",
            Self::Overage => "the provider left the list of groups out of the token because it is too long",
            Self::WrongType => "a claim that gives roles is neither a text nor a list of texts",
            Self::NoRole => "nothing that the provider says gives them a role",
            Self::Disabled => "the account is disabled",
            Self::NotSetUp => "the first administrator was not set up yet",
            Self::OtherPerson => "the provider vouched for somebody else than who is signed in",
            Self::Logout => "the logout message lacks its event or whom it is about, or has a nonce",
            Self::Replay => "the logout message was used before",
            Self::NotRenewed => "the provider no longer renews it",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}
