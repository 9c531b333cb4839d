// SPDX-License-Identifier: Apache-2.0
//! What a change of rights would do, before it is made: who gains and loses what, and what people asked lately that it
//! would decide otherwise.

use crate::{
    reply::Refusal,
    state::House,
    view::{OtherwiseRow, Preview, ShiftRow},
};
use portcullis_domain::{Action, Holder, HypervisorName, Resource, UserId};
use portcullis_governance::{Ground, Shift, Side, Turn};
use std::collections::{HashMap, HashSet};
use time::Duration;

/// Days of the trail that a preview looks at.
const DAYS: i64 = 30;
/// Operations that a preview asks again at most.
const MOST_ASKED: u32 = 20_000;
/// Lines of a preview.
pub(super) const LINES: usize = 50;
/// Names in one line of a preview.
const NAMES: usize = 12;

/// The list of things in a line of a preview, cut where it is long.
fn on(things: &[Resource]) -> String {
    let names: Vec<String> = things.iter().take(NAMES).map(ToString::to_string).collect();
    let more = things.len().saturating_sub(NAMES);
    if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) }
}

/// A line for each thing that somebody gains or loses.
pub(super) fn shift_rows(shifts: &[Shift], names: &HashMap<Holder, String>) -> Vec<ShiftRow> {
    let row = |shift: &Shift| ShiftRow {
        who: names.get(&shift.user.into()).cloned().unwrap_or_default(),
        gains: shift.turn == Turn::Gains,
        actions: Action::deeds(&shift.actions),
        on: on(&shift.on),
    };
    shifts.iter().map(row).collect()
}

/// Everything that can be asked about.
pub(super) fn hypervisors(house: &House) -> Vec<HypervisorName> {
    house.roster.load().names()
}

/// What one side would change about the other.
pub(super) async fn foresee(
    house: &House,
    sentence: String,
    before: Side<'_>,
    after: Side<'_>,
) -> Result<Preview, Refusal> {
    let failed = |e: portcullis_store::Error| house.unavailable(&e);
    let names = house.store.holder_names().await.map_err(failed)?;
    let now = house.clock.now();
    let same_roles = std::ptr::eq(before.engine, after.engine);
    let people = before.held.keys().chain(after.held.keys());
    let touched: HashSet<UserId> =
        people.filter(|u| !same_roles || before.held.get(u) != after.held.get(u)).copied().collect();
    let mut past = house.store.decided_since(now - Duration::days(DAYS), MOST_ASKED).await.map_err(failed)?;
    // Nobody else's is decided otherwise by this.
    past.retain(|asked| touched.contains(&asked.user));
    let (inventory, hypervisors) = (house.fleet.inventory(), hypervisors(house));
    let ground = Ground { inventory: &inventory, hypervisors: &hypervisors, now };
    let shifts = portcullis_governance::compare(before, after, ground);
    let replay = portcullis_governance::replay(past, before, after, ground);
    let mut rows = shift_rows(&shifts, &names);
    let more_shifts = rows.len().saturating_sub(LINES);
    rows.truncate(LINES);
    let more_otherwise = replay.otherwise.len().saturating_sub(LINES);
    let otherwise = replay.otherwise.into_iter().take(LINES).map(|o| OtherwiseRow {
        at: house.when(o.asked.at),
        what: format!("{}: {}", o.asked.resource, o.asked.action.deed()),
        who: o.asked.user_name,
        allowed: o.turn == Turn::Gains,
    });
    Ok(Preview {
        sentence,
        shifts: rows,
        more_shifts,
        days: DAYS,
        asked: replay.asked,
        unknown: replay.unknown,
        otherwise: otherwise.collect(),
        more_otherwise,
    })
}
