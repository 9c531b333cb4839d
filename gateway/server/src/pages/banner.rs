// SPDX-License-Identifier: Apache-2.0
//! The notice that everybody confirms after signing in, where there is one: nothing else is answered before.

use super::{Answer, Form, encode, go, page, safe_next};
use crate::{
    guest::{Guest, Step},
    reply,
    state::House,
    view::{Banner, Shell},
};
use axum::extract::{Query, State};
use portcullis_policy::classify::own::{Door, OwnRoute};
use serde::Deserialize;
use std::sync::Arc;

/// Whether the notice is confirmed before this door opens to somebody who is signed in: all but the notice itself and
/// the ways in and out.
pub(crate) fn comes_first(route: &OwnRoute) -> bool {
    let open = ["/banner", "/sign-in", "/sign-out", "/set-up", "/invitation", "/break-glass"];
    let provider = matches!(route.door, Door::Provider | Door::Signed);
    !provider
        && !open
            .iter()
            .any(|path| route.pattern == *path || route.pattern.strip_prefix(path).is_some_and(|r| r == "/code"))
}

/// Where somebody confirms it, and comes back from.
pub(crate) fn address(back: Option<&str>) -> String {
    format!("/banner?next={}", encode(safe_next(back, "/")))
}

#[derive(Deserialize)]
pub(crate) struct Next {
    next: Option<String>,
}

pub(crate) async fn form(State(house): State<Arc<House>>, guest: Guest, Query(next): Query<Next>) -> Answer {
    let next = safe_next(next.next.as_deref(), "/").to_owned();
    let text = house.identity.banner_to_confirm(&guest.session).await.map_err(|e| house.unavailable(&e))?;
    match text {
        Some(text) => page(&Banner { shell: Shell::stranger(guest.csrf), text: text.to_owned(), next }),
        None => go(&next),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmed {
    next: Option<String>,
}

/// Notes that it was read.
pub(crate) async fn confirm(State(house): State<Arc<House>>, guest: Guest, Form(form): Form<Confirmed>) -> Answer {
    guest.say(&Step::done("", "the notice was confirmed"))?;
    house.identity.confirm_banner(&guest.session).await.map_err(|e| reply::identity(&e, house.clock.now()))?;
    go(safe_next(form.next.as_deref(), "/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_policy::classify::own::ROUTES;

    #[test]
    fn nothing_but_the_ways_in_and_out_opens_before_the_notice() {
        let before: Vec<&str> = ROUTES.iter().filter(|r| !comes_first(r)).map(|r| r.pattern).collect();
        let expected = [
            "/sign-in",
            "/sign-in",
            "/sign-in/code",
            "/sign-in/code",
            "/sign-in/with/{provider}",
            "/sign-in/callback/{provider}",
            "/sign-in/backchannel/{provider}",
            "/sign-out",
            "/set-up",
            "/set-up",
            "/invitation",
            "/invitation",
            "/banner",
            "/banner",
            "/break-glass",
            "/break-glass",
        ];
        assert_eq!(before, expected);
    }
}
