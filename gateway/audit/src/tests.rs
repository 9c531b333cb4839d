// SPDX-License-Identifier: Apache-2.0
//! Rules of the whole room; those of one file stand beside its code.

mod indexed;
mod mutation;
mod opening;
mod waiting;

use crate::{Error, Known, Recovered, Settings, Trail, TrailKeys, verify};
use portcullis_domain::{Event, NodeId, Outcome, Phase, RequestId, Secret, Seq, SystemClock};
use std::{path::Path, sync::Arc, time::Duration};
use uuid::Uuid;

fn keys() -> TrailKeys {
    TrailKeys { mac: Secret::new(vec![7; 32]), sign: Secret::new(vec![9; 32]) }
}

fn node() -> NodeId {
    NodeId::new(Uuid::from_u128(0xa))
}

fn small() -> Settings {
    Settings {
        segment_bytes: 16 * 1024,
        first_bytes: 4096,
        reserve_bytes: 0,
        checkpoint_events: 40,
        checkpoint_every: Duration::from_mins(1),
        gather: Duration::from_micros(250),
    }
}

fn open(dir: &Path) -> Result<(Trail, Recovered), Error> {
    Trail::open_with(dir, &keys(), node(), Arc::new(SystemClock), small())
}

fn event(n: u64, phase: Phase) -> Event {
    Event {
        at_us: 1_790_000_000_000_000 + i64::try_from(n).unwrap(),
        request: RequestId::new(Uuid::from_u128(u128::from(n))),
        phase,
        kind: "api".into(),
        subject: None,
        peer: None,
        action: None,
        resource: format!("qemu/machine-{n}").into(),
        outcome: Outcome::Done,
        reason: "".into(),
        details: vec![("status".into(), "200".into())],
    }
}

/// Appends events in commits of random sizes.
fn fill(trail: &Trail, count: u64) {
    let mut last = Seq(0);
    for n in 0..count {
        let phase = match n % 4 {
            0 => Phase::Opened,
            1 => Phase::Closed(last),
            _ => Phase::Noted,
        };
        last = trail.append(&event(n, phase)).unwrap();
        if n * n % 7 < 3 {
            trail.wait(last).unwrap();
        }
    }
    trail.wait(last).unwrap();
}

fn sound(dir: &Path) -> u64 {
    let report = verify(dir, &keys(), &Known::default()).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    report.events
}
