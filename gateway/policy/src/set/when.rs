// SPDX-License-Identifier: Apache-2.0
//! What a row of a grant says, and its two columns `on` and `when`.

use portcullis_domain::{
    Conditions, Grant, GrantEffect, GrantId, GrantSource, MachineKind, RoleName, Selector, micros,
};
use std::fmt::Write as _;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// Longest window of a fresh code, in seconds.
const LONGEST_WINDOW: u32 = 86_400;

/// A grant as a row says it: without an id, a source, or whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The role.
    pub role: RoleName,
    /// What it covers.
    pub selector: Selector,
    /// Whether it gives or forbids.
    pub effect: GrantEffect,
    /// First instant at which it counts; none means from when it is taken over.
    pub from: Option<OffsetDateTime>,
    /// First instant at which it no longer counts; none means as long as the row stands.
    pub until: Option<OffsetDateTime>,
    /// What must hold while it is used.
    pub conditions: Conditions,
}

impl Given {
    /// The grant that the row means, taken over at an instant.
    pub fn grant(&self, id: GrantId, now: OffsetDateTime) -> Grant {
        Grant {
            id,
            role: self.role.clone(),
            selector: self.selector.clone(),
            effect: self.effect,
            from: self.from.unwrap_or(now),
            until: self.until,
            conditions: self.conditions.clone(),
            source: GrantSource::PolicyFile,
        }
    }

    /// What a grant says, its beginning and end included.
    pub fn of(grant: &Grant) -> Self {
        Self {
            role: grant.role.clone(),
            selector: grant.selector.clone(),
            effect: grant.effect,
            from: Some(grant.from),
            until: grant.until,
            conditions: grant.conditions.clone(),
        }
    }

    /// Its columns: role, on, when, effect.
    pub fn columns(&self) -> [String; 4] {
        let (kind, value) = self.selector.columns();
        let on = if value.is_empty() { kind.to_owned() } else { format!("{kind}:{value}") };
        [self.role.to_string(), on, self.when(), self.effect.word().to_owned()]
    }

    /// Reads what [`Given::columns`] wrote.
    pub fn read(role: &str, on: &str, when: &str, effect: &str) -> Result<Self, String> {
        let role = super::check_role(role)?;
        let (kind, value) = on.split_once(':').unwrap_or((on, ""));
        let selector = Selector::parse(kind, value).map_err(|e| e.to_string())?;
        let effect = match effect {
            "allow" => GrantEffect::Allow,
            "deny" => GrantEffect::Deny,
            _ => return Err(format!("{effect:?} is neither allow nor deny")),
        };
        let mut given = Self { role, selector, effect, from: None, until: None, conditions: Conditions::default() };
        let mut seen = Vec::new();
        for part in when.split(';').map(|p| p.trim_matches(' ')).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').map_or((part, None), |(n, v)| (n, Some(v)));
            if seen.contains(&name) {
                return Err(format!("{name} stands twice"));
            }
            seen.push(name);
            given.take(name, value)?;
        }
        if let (Some(from), Some(until)) = (given.from, given.until)
            && until <= from
        {
            return Err("it ends before it begins".to_owned());
        }
        if seen.contains(&"record") && seen.contains(&"unrecorded") {
            return Err("record and unrecorded exclude each other".to_owned());
        }
        Ok(given)
    }

    fn take(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        let c = &mut self.conditions;
        match (name, value) {
            ("since", Some(v)) => self.from = Some(instant(v)?),
            ("until", Some(v)) => self.until = Some(instant(v)?),
            ("hours", Some(v)) => {
                let hours = v.parse().map_err(|e| format!("{e}"))?;
                if !crate::terms::knows_zone(&hours) {
                    return Err(format!("{:?} is no time zone that this machine knows", hours.zone()));
                }
                c.hours = Some(hours);
            }
            ("from", Some(v)) => {
                c.networks = v
                    .split(',')
                    .map(|n| n.trim_matches(' ').parse().map_err(|e| format!("{e}")))
                    .collect::<Result<_, _>>()?;
            }
            ("kinds", Some(v)) => {
                c.kinds = v.split(',').map(|k| kind(k.trim_matches(' '))).collect::<Result<_, _>>()?;
            }
            ("record", None) => c.record = true,
            ("unrecorded", None) => c.record = false,
            ("passkey", None) => c.passkey = true,
            ("step-up-each", None) => c.step_up_each = true,
            ("step-up", Some(v)) => {
                c.step_up_seconds = number(v)
                    .filter(|n| *n <= LONGEST_WINDOW)
                    .ok_or_else(|| format!("step-up={v}: use 0 to {LONGEST_WINDOW} seconds"))?;
            }
            ("clipboard-in", Some(v)) => c.clipboard_in = Some(bytes(name, v)?),
            ("clipboard-out", Some(v)) => c.clipboard_out = Some(bytes(name, v)?),
            _ => {
                return Err(format!(
                    "{name:?} is no condition: use since=, until=, hours=, from=, kinds=, record, unrecorded, passkey, \
                     step-up=, step-up-each, clipboard-in=, clipboard-out="
                ));
            }
        }
        Ok(())
    }

    /// The column of times and conditions. What is as usual is left out.
    fn when(&self) -> String {
        let usual = Conditions::default();
        let Conditions {
            step_up_seconds,
            step_up_each,
            record,
            hours,
            networks,
            passkey,
            kinds,
            clipboard_in,
            clipboard_out,
        } = &self.conditions;
        let mut parts: Vec<String> = Vec::new();
        let joined = |all: Vec<String>| all.join(",");
        parts.extend(self.from.map(|at| format!("since={}", text(at))));
        parts.extend(self.until.map(|at| format!("until={}", text(at))));
        parts.extend(hours.iter().map(|h| format!("hours={h}")));
        if !networks.is_empty() {
            parts.push(format!("from={}", joined(networks.iter().map(ToString::to_string).collect())));
        }
        if !kinds.is_empty() {
            parts.push(format!("kinds={}", joined(kinds.iter().map(|k| word(*k).to_owned()).collect())));
        }
        if *record != usual.record {
            parts.push(if *record { "record" } else { "unrecorded" }.to_owned());
        }
        if *passkey {
            parts.push("passkey".to_owned());
        }
        if *step_up_seconds != usual.step_up_seconds {
            parts.push(format!("step-up={step_up_seconds}"));
        }
        if *step_up_each {
            parts.push("step-up-each".to_owned());
        }
        parts.extend(clipboard_in.map(|n| format!("clipboard-in={n}")));
        parts.extend(clipboard_out.map(|n| format!("clipboard-out={n}")));
        parts.join(";")
    }
}

const fn word(kind: MachineKind) -> &'static str {
    match kind {
        MachineKind::Guest => "guest",
        MachineKind::Container => "container",
        MachineKind::Template => "template",
    }
}

fn kind(text: &str) -> Result<MachineKind, String> {
    [MachineKind::Guest, MachineKind::Container, MachineKind::Template]
        .into_iter()
        .find(|k| word(*k) == text)
        .ok_or_else(|| format!("{text:?} is no kind of machine: use guest, container or template"))
}

/// Digits only: `parse` alone takes a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn bytes(name: &str, text: &str) -> Result<u32, String> {
    number(text).ok_or_else(|| format!("{name}={text}: use a number of bytes"))
}

/// `2026-12-01T00:00Z`, with seconds and parts of them where there are any.
fn text(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    let mut text =
        format!("{:04}-{:02}-{:02}T{:02}:{:02}", at.year(), u8::from(at.month()), at.day(), at.hour(), at.minute());
    let parts = micros(at).rem_euclid(1_000_000);
    if at.second() != 0 || parts != 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, ":{:02}", at.second());
        if parts != 0 {
            let _ = write!(text, ".{parts:06}");
        }
    }
    text.push('Z');
    text
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    let wrong = || format!("{text:?} is no instant such as 2026-12-01T18:00Z or 2026-12-01T18:00+01:00");
    let (date, time) = text.split_once('T').ok_or_else(wrong)?;
    let zone = time.find(['Z', '+', '-']).ok_or_else(wrong)?;
    let (clock, zone) = time.split_at_checked(zone).ok_or_else(wrong)?;
    let seconds = if clock.len() == 5 { ":00" } else { "" };
    OffsetDateTime::parse(&format!("{date}T{clock}{seconds}{zone}"), &Rfc3339)
        .map(|at| at.to_offset(UtcOffset::UTC))
        .map_err(|_| wrong())
}
