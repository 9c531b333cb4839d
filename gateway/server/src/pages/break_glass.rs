// SPDX-License-Identifier: Apache-2.0
//! The way in for emergencies: a sealed code, once, from allowed networks, for an hour. A use is loud: an event of its
//! own kind, a line in the log, and a notice on the pages of everybody who manages people until one of them wrote who it
//! was and what for.

use super::{Answer, Form, again, go, login::noted, page};
use crate::{
    guest::{Guest, Step},
    state::House,
    view::{BreakGlass, Problems, Shell},
};
use axum::extract::State;
use http::HeaderMap;
use portcullis_identity::Stage;
use serde::Deserialize;
use std::sync::Arc;

pub(crate) async fn form(guest: Guest) -> Answer {
    page(&BreakGlass { shell: Shell::stranger(guest.csrf), problems: Problems::none() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    code: String,
}

/// Uses a code.
pub(crate) async fn enter(
    State(house): State<Arc<House>>,
    guest: Guest,
    headers: HeaderMap,
    Form(form): Form<Sealed>,
) -> Answer {
    match house.identity.break_glass(&guest.session, &form.code, guest.peer.ip).await {
        Ok(used) => {
            let Stage::SignedIn { user, session, .. } = house.stage(&guest).await? else { return go("/break-glass") };
            let name = house.name_of(&house.stage(&guest).await?).await?;
            let words = format!("sealed code {} was used: emergency access for an hour", used.number);
            tracing::error!(request = %guest.peer.request, from = %guest.peer.ip, "ALARM: {words}");
            guest.say(&Step { user: Some((user, Some(session))), ..Step::done(&name, &words) })?;
            guest.tell("alarm", "break-glass");
            house.describe(&guest, &headers).await;
            go("/")
        }
        Err(error) => {
            tracing::warn!(request = %guest.peer.request, from = %guest.peer.ip, "a sealed code was refused");
            guest.say(&Step::denied("", &noted(&error)))?;
            guest.tell("alarm", "break-glass refused");
            let shown = house.shown(&error)?;
            again(&BreakGlass { shell: Shell::stranger(guest.csrf), problems: Problems::one("code", shown) })
        }
    }
}
