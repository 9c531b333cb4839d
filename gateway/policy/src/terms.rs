// SPDX-License-Identifier: Apache-2.0
//! The conditions of grants, made ready for decisions: where, when, on which kinds of machines, with what proven.
//!
//! What cannot be told counts against whoever asks: a grant that gives gives nothing, one that forbids forbids.

use jiff::{Timestamp, tz::TimeZone};
use portcullis_domain::{Conditions, GrantEffect, Hours, MachineKind, micros};
use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};
use time::OffsetDateTime;

/// When, from where and with what somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub(crate) now: OffsetDateTime,
    pub(crate) micros: i64,
    pub(crate) from: Option<IpAddr>,
    pub(crate) passkey: Passkey,
}

/// Whether a passkey is among what somebody proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passkey {
    /// It is.
    Proven,
    /// It is not.
    Missing,
}

impl Moment {
    /// An instant, the address that somebody asks from as far as it is known, and whether they proved a passkey.
    pub fn new(now: OffsetDateTime, from: Option<IpAddr>, passkey: Passkey) -> Self {
        Self { now, micros: micros(now), from, passkey }
    }
}

/// Whether conditions hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    Yes,
    /// All but the passkey.
    ButPasskey,
    No,
}

/// The zone of the hours, if there are any.
#[derive(Debug)]
enum Zone {
    None,
    Known(TimeZone),
    /// The machine's database has no such zone.
    Unknown,
}

/// Conditions with their zone; shared by all grants that have the same ones.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) conditions: Conditions,
    plain: bool,
    zone: Zone,
}

fn zone(hours: &Hours) -> Option<TimeZone> {
    match hours.zone() {
        "UTC" => Some(TimeZone::UTC),
        name => TimeZone::get(name).ok().filter(|z| !z.is_unknown()),
    }
}

/// Whether the zone of some hours is known on this machine.
pub fn knows_zone(hours: &Hours) -> bool {
    zone(hours).is_some()
}

/// Whether an instant is inside some hours, in their zone; none when this machine has lost the zone.
pub fn in_hours(hours: &Hours, now: OffsetDateTime) -> Option<bool> {
    let (day, minute) = local(&zone(hours)?, now)?;
    Some(hours.contain(day, minute))
}

/// The day of the week (0 is Monday) and the minute of the day.
fn local(zone: &TimeZone, now: OffsetDateTime) -> Option<(u8, u16)> {
    let at = zone.to_datetime(Timestamp::from_second(now.unix_timestamp()).ok()?);
    let day = u8::try_from(at.weekday().to_monday_zero_offset()).ok()?;
    Some((day, u16::try_from(i32::from(at.hour()) * 60 + i32::from(at.minute())).ok()?))
}

impl Terms {
    pub(crate) fn new(conditions: Conditions) -> Self {
        let zone = match &conditions.hours {
            None => Zone::None,
            Some(hours) => zone(hours).map_or(Zone::Unknown, Zone::Known),
        };
        Self { plain: conditions.is_plain(), zone, conditions }
    }

    /// Whether they hold for a machine of a kind, or for something that is no machine.
    pub(crate) fn met(&self, effect: GrantEffect, kind: Option<MachineKind>, at: &Moment) -> Met {
        if self.plain {
            return Met::Yes;
        }
        let c = &self.conditions;
        let forbids = effect == GrantEffect::Deny;
        let kinds = c.kinds.is_empty() || kind.is_some_and(|k| c.kinds.contains(&k));
        let near = || {
            c.networks.is_empty() || at.from.map_or(forbids, |address| c.networks.iter().any(|n| n.contains(address)))
        };
        if !kinds || !near() || !self.in_hours(at.now).unwrap_or(forbids) {
            Met::No
        } else if c.passkey && !forbids && at.passkey == Passkey::Missing {
            Met::ButPasskey
        } else {
            Met::Yes
        }
    }

    /// Whether somebody asks from one of the networks.
    pub(crate) fn is_near(&self, effect: GrantEffect, at: &Moment) -> bool {
        let networks = &self.conditions.networks;
        networks.is_empty()
            || at.from.map_or(effect == GrantEffect::Deny, |address| networks.iter().any(|n| n.contains(address)))
    }

    /// Whether an instant is inside the hours; none when that cannot be told.
    pub(crate) fn in_hours(&self, now: OffsetDateTime) -> Option<bool> {
        match (&self.zone, &self.conditions.hours) {
            (Zone::None, None) => Some(true),
            (Zone::Known(zone), Some(hours)) => {
                let (day, minute) = local(zone, now)?;
                Some(hours.contain(day, minute))
            }
            _ => None,
        }
    }

    /// When the hours that it is now in end; none for never.
    pub(crate) fn hours_end(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let (Zone::Known(zone), Some(hours)) = (&self.zone, &self.conditions.hours) else { return None };
        let (day, minute) = local(zone, now)?;
        let left = hours.left(day, minute)?;
        let begun = now - time::Duration::seconds(now.unix_timestamp().rem_euclid(60));
        let begun = begun.replace_nanosecond(0).unwrap_or(begun);
        Some(begun + time::Duration::minutes(i64::from(left)))
    }
}

/// The same conditions are kept once.
#[derive(Debug, Clone)]
pub(crate) struct SharedTerms(pub(crate) Arc<Terms>);

impl Borrow<Conditions> for SharedTerms {
    fn borrow(&self) -> &Conditions {
        &self.0.conditions
    }
}

impl PartialEq for SharedTerms {
    fn eq(&self, other: &Self) -> bool {
        self.0.conditions == other.0.conditions
    }
}

impl Eq for SharedTerms {}

impl Hash for SharedTerms {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.conditions.hash(state);
    }
}
