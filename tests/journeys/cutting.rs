// SPDX-License-Identifier: Apache-2.0
//! An open console is cut within five seconds of whatever ends the access to it, and its last frame says why.

use crate::support::{
    Person, TestGateway,
    lab::{lab, ready, ticket},
    peers::Peer,
    screen::Screen,
};
use reqwest::StatusCode;
use std::time::{Duration, Instant};

/// What ends somebody's access.
#[derive(Debug, Clone, Copy)]
enum Deed {
    SignOut,
    EndFromAnotherBrowser,
    EndAllOthers,
    ChangePassword,
    Disable,
    SignOutByAdministrator,
    EndOneByAdministrator,
    Revoke,
    Reset,
    Lock,
    LockFromShell,
}

/// Each reason, and the words of the close frame behind "access ended: ".
const TABLE: &[(Deed, &str)] = &[
    (Deed::SignOut, "you signed out"),
    (Deed::EndFromAnotherBrowser, "you ended this session from another browser"),
    (Deed::EndAllOthers, "you ended this session from another browser"),
    (Deed::ChangePassword, "the password was changed"),
    (Deed::Disable, "the account was disabled"),
    (Deed::SignOutByAdministrator, "signed out by an administrator"),
    (Deed::EndOneByAdministrator, "signed out by an administrator"),
    (Deed::Revoke, "There is no such machine, or you may not see it."),
    (Deed::Reset, "an administrator reset the account"),
    (Deed::Lock, "the account was locked"),
    (Deed::LockFromShell, "the account was locked"),
];

/// The id that a form beside an action carries.
fn id_beside(html: &str, action: &str) -> String {
    let at = html.find(&format!("action=\"{action}\"")).unwrap_or_else(|| panic!("no {action}: {html}"));
    crate::support::page::field(&html[at..], "id").expect("an id")
}

async fn done(person: &Person<'_>, path: &str, fields: &[(&str, &str)]) {
    let status = person.submit(path, fields).await.status();
    assert!(matches!(status, StatusCode::SEE_OTHER | StatusCode::OK), "{path}: {status}");
}

impl Deed {
    async fn is_done(self, gateway: &TestGateway, ada: &Person<'_>, who: &Person<'_>, other: &Person<'_>) {
        let user = gateway.user_id(&who.name).await;
        let at = |verb: &str| format!("/users/{user}/{verb}");
        match self {
            Self::SignOut => done(who, "/sign-out", &[]).await,
            Self::EndFromAnotherBrowser => {
                let id = id_beside(&other.page("/me").await, "/me/sessions/end");
                done(other, "/me/sessions/end", &[("id", &id)]).await;
            }
            Self::EndAllOthers => done(other, "/me/sessions/end-others", &[]).await,
            Self::ChangePassword => {
                let fields = [("old", crate::support::person::PASSWORD), ("password", "eleven green lanterns sway")];
                done(other, "/me/password", &fields).await;
            }
            Self::Disable => done(ada, &at("disable"), &[]).await,
            Self::SignOutByAdministrator => done(ada, &at("sign-out"), &[]).await,
            Self::EndOneByAdministrator => {
                // Two browsers are there: the older one is at the screen, and stands last.
                let html = ada.page(&format!("/users/{user}")).await;
                let last = html.rfind(&format!("action=\"{}\"", at("sessions/end"))).expect("a session");
                let id = id_beside(&html[last..], &at("sessions/end"));
                done(ada, &at("sessions/end"), &[("id", &id)]).await;
            }
            Self::Revoke => ada.revoke_grants(&who.name).await,
            Self::Reset => done(ada, &at("reset"), &[]).await,
            Self::Lock => done(ada, &at("lock"), &[("reason", "a laptop was stolen")]).await,
            Self::LockFromShell => {
                let (code, text) = gateway.shell(&["user", "lock", &who.name, "--reason", "a laptop was stolen"]);
                assert_eq!(code, Some(0), "{text}");
            }
        }
    }
}

// SEC-140, SEC-141
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_is_cut_within_five_seconds_with_the_reason_in_the_picture() {
    let guest = Peer::qemu("web-1", "none");
    let limits = "[limits]\nsign_in_per_minute = 600\nreset_per_hour = 100\n";
    let gateway = TestGateway::start(&format!("{limits}{}", lab(&guest))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    for (n, (deed, words)) in TABLE.iter().enumerate() {
        ada.step_up().await;
        let who = ada.invite(&format!("person-{n}")).await;
        ada.grant(&who.name, "console-user", "tag", "web").await;
        let mut screen = Screen::open(&who, "lab/web-1", "control", &ticket(&who, "control").await).await;
        screen.handshake().await;
        assert!(screen.picture().await > 10_000, "{deed:?}: it is open");
        let other = who.another_browser().await;
        ada.step_up().await;
        deed.is_done(&gateway, &ada, &who, &other).await;
        let begun = Instant::now();
        let (code, reason) = screen.ended(Duration::from_secs(5)).await;
        eprintln!("{deed:?}: {:?}", begun.elapsed());
        assert_eq!(code, 4000, "{deed:?}: {reason}");
        let told = reason.strip_prefix("access ended: ").unwrap_or_else(|| panic!("{deed:?}: {reason}"));
        assert!(told.starts_with(words), "{deed:?}: {reason}");
        // And the door is closed: a new ticket is refused.
        let again = who.get("/c/lab/web-1").await.status();
        assert_ne!(again, StatusCode::OK, "{deed:?}");
    }
    gateway.stop().await;
}
