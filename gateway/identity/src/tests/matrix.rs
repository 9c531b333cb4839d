// SPDX-License-Identifier: Apache-2.0
use crate::{
    TokenWish,
    testing::{Bench, Person, peer, text},
    token::Maker,
};
use portcullis_domain::{Clock as _, ConsoleMode, MachineRef, Secret, SessionId};
use time::Duration;
use tower_sessions::Session;

/// What somebody presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    Cookie,
    Token,
    Ticket,
}

/// What ends or limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Disabled,
    Locked,
    Reset,
    PasswordChanged,
    Revoked,
    TimeOver,
    ElsewhereFrom,
    ForSomethingElse,
    NodeThatLostTheStore,
}

/// Which limits a credential has; all others are none of its own.
const TABLE: &[(Credential, &[Limit])] = &[
    (
        Credential::Cookie,
        &[
            Limit::Disabled,
            Limit::Locked,
            Limit::Reset,
            Limit::PasswordChanged,
            Limit::Revoked,
            Limit::TimeOver,
            Limit::NodeThatLostTheStore,
        ],
    ),
    (
        Credential::Token,
        &[
            Limit::Disabled,
            Limit::Locked,
            Limit::Reset,
            Limit::PasswordChanged,
            Limit::Revoked,
            Limit::TimeOver,
            Limit::ElsewhereFrom,
            Limit::ForSomethingElse,
            Limit::NodeThatLostTheStore,
        ],
    ),
    (
        Credential::Ticket,
        &[
            Limit::Disabled,
            Limit::Locked,
            Limit::Reset,
            Limit::PasswordChanged,
            Limit::Revoked,
            Limit::TimeOver,
            Limit::ForSomethingElse,
            Limit::NodeThatLostTheStore,
        ],
    ),
];

struct Held {
    b: Bench,
    ada: Person,
    /// The browser that is asked about, and another one of the same person.
    session: Session,
    other: Session,
    id: SessionId,
    token: Secret,
    tickets: Vec<Secret>,
    web: MachineRef,
}

impl Held {
    async fn new() -> Self {
        let b = Bench::quick(crate::Settings::default()).await;
        let (ada, first) = b.person("ada").await;
        b.id.sign_out(&first).await.unwrap();
        let session = b.signed_in(&ada).await;
        let id = b.id.sessions_of(ada.user).await.unwrap()[0].session;
        let other = b.signed_in(&ada).await;
        let web = MachineRef { hypervisor: "lab".parse().unwrap(), machine: "web-1".parse().unwrap() };
        let wish = TokenWish {
            user: ada.user,
            name: "tool",
            hypervisor: Some("lab".parse().unwrap()),
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            expires_at: b.clock.now() + Duration::HOUR,
            by: Maker::Owner,
        };
        let (_, token) = b.id.mint_token(wish).await.unwrap();
        let mut tickets = Vec::new();
        for _ in 0..2 {
            tickets.push(b.id.mint_ticket(id, ada.user, web.clone(), ConsoleMode::Control).await.unwrap());
        }
        Self { b, ada, session, other, id, token, tickets, web }
    }

    /// Whether it is accepted now, on the node that hears of everything last.
    async fn counts(&self, credential: Credential, limit: Option<Limit>, ticket: usize) -> bool {
        let node = &self.b.other;
        match credential {
            Credential::Cookie => {
                matches!(node.actor(&self.b.again(&self.session)).await, Ok(Some(actor)) if actor.user == self.ada.user)
            }
            Credential::Token => {
                let from = if limit == Some(Limit::ElsewhereFrom) { "198.51.100.7".parse().unwrap() } else { peer() };
                let wanted = if limit == Some(Limit::ForSomethingElse) { "rack" } else { "lab" };
                node.token_actor(&text(&self.token), from)
                    .is_some_and(|a| a.scope.as_ref().is_none_or(|s| s.as_str() == wanted))
            }
            Credential::Ticket => {
                let mode =
                    if limit == Some(Limit::ForSomethingElse) { ConsoleMode::View } else { ConsoleMode::Control };
                node.take_ticket(&text(&self.tickets[ticket]), self.id, &self.web, mode).await.is_ok()
            }
        }
    }

    async fn apply(&self, credential: Credential, limit: Limit) {
        let (b, user) = (&self.b, self.ada.user);
        match limit {
            Limit::Disabled => b.id.disable_user(user).await.unwrap(),
            Limit::Locked => b.id.lock_user(user, "x", None).await.unwrap(),
            Limit::Reset => drop(b.id.reset(user).await.unwrap()),
            Limit::PasswordChanged => {
                let new = "eighteen violet trombones asleep".to_owned();
                let old = Secret::from(crate::testing::PASSWORD.to_owned());
                b.id.change_password(&self.other, old, Secret::from(new)).await.unwrap();
            }
            Limit::Revoked if credential == Credential::Token => {
                let id = b.id.tokens_of(user).await.unwrap()[0].id;
                b.id.revoke_token(user, id).await.unwrap();
            }
            Limit::Revoked => b.id.end_session(self.id, "x").await.unwrap(),
            Limit::TimeOver => b.clock.advance(Duration::hours(13)),
            Limit::ElsewhereFrom | Limit::ForSomethingElse => {}
            Limit::NodeThatLostTheStore => {
                b.store.close().await;
                b.other.0.store.close().await;
                b.clock.advance(Duration::seconds(31));
            }
        }
        // What the server does each second; a node without its store hears nothing.
        let _ = b.other.refresh().await;
    }
}

// SEC-011, SEC-141, SEC-142
#[tokio::test]
async fn every_credential_obeys_every_limit_that_it_has() {
    for (credential, limits) in TABLE {
        for limit in *limits {
            let held = Held::new().await;
            held.b.other.refresh().await.unwrap();
            assert!(held.counts(*credential, None, 0).await, "{credential:?} counts before {limit:?}");
            held.apply(*credential, *limit).await;
            assert!(!held.counts(*credential, Some(*limit), 1).await, "{credential:?} counts in spite of {limit:?}");
        }
    }
}
