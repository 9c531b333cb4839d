// SPDX-License-Identifier: Apache-2.0
//! What it costs to know who a request comes from, among many sessions: the look-up beside one step of a SHA-256 chain,
//! and everything that a page asks of its session. `sessions [FOLDER] [SESSIONS] [ROUNDS]` prints one JSON line a
//! figure, medians over the rounds.

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};
use portcullis_domain::{Assurance, Clock, Factor, SessionId, SystemClock};
use portcullis_identity::{Identity, Settings, Stage};
use portcullis_store::{Digest, Keys, NewSession, Rotation, Store};
use std::{env, fs, hint::black_box, path::PathBuf, sync::Arc, time::Instant};
use time::OffsetDateTime;
use tower_sessions::{Session, session::Id};
use uuid::Uuid;

const PEOPLE: usize = 500;
/// What one step of the chain hashes.
const STEP: usize = 256;
/// Steps through the sessions that visit each once, far apart.
const STRIDE: usize = 61_007;

/// Stands still, and costs what the system's clock does: filling takes longer than a session goes without its use being
/// written down.
struct KnownAs(OffsetDateTime);

impl Clock for KnownAs {
    fn now(&self) -> OffsetDateTime {
        black_box(SystemClock.now());
        self.0
    }
}

fn hash(bytes: &[u8]) -> Digest {
    let mut hash = Digest::default();
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The cookies of so many signed-in sessions.
async fn fill(store: &Store, identity: &Identity, now: OffsetDateTime, count: usize) -> Result<Vec<Id>> {
    let mut people = Vec::new();
    for n in 0..PEOPLE {
        people.push(identity.create_user(&format!("person-{n}"), "").await?);
    }
    let mut cookies = Vec::with_capacity(count);
    for (n, user) in people.iter().cycle().take(count).enumerate() {
        let bytes = Keys::fresh()?.expose().get(..16).context("16 bytes of chance")?.to_vec();
        let cookie = Id(i128::from_le_bytes(bytes.as_slice().try_into()?));
        let id_hash = hash(&cookie.0.to_le_bytes());
        let session = SessionId::new(Uuid::from_u128(n as u128));
        let mut assurance = Assurance::default();
        assurance.prove(Factor::Password, now);
        assurance.prove(Factor::Totp, now);
        let stage = Stage::SignedIn { user: *user, session, assurance };
        let data = serde_json::json!({ "stage": stage }).to_string();
        let expires_at = now + time::Duration::minutes(30);
        let first = hash(&id_hash);
        let new = NewSession { id_hash: first, session, data: "{}".into(), created_at: now, expires_at };
        store.insert_session(&new).await?;
        let step = Rotation {
            from: first,
            to: id_hash,
            session,
            user: Some(*user),
            data,
            created_at: now,
            now,
            expires_at,
            peer: None,
            signed_in_at: Some(now),
        };
        anyhow::ensure!(store.rotate_session(&step).await?, "a session was not taken");
        cookies.push(cookie);
    }
    Ok(cookies)
}

fn nanos(begun: Instant, count: usize) -> f64 {
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let dir = args.next().map_or_else(env::temp_dir, PathBuf::from).join(format!("sessions-{}", std::process::id()));
    let count: usize = args.next().map_or(Ok(100_000), |n| n.parse())?;
    let rounds: usize = args.next().map_or(Ok(3), |r| r.parse())?;
    fs::create_dir_all(&dir)?;
    let now = SystemClock.now();
    let store = Store::open(&format!("sqlite://{}", dir.join("store.db").display())).await?;
    let keys = Arc::new(Keys::create(&dir.join("keys"))?);
    let identity = Identity::new(store.clone(), keys, Arc::new(KnownAs(now)), Settings::default())?;
    let cookies = fill(&store, &identity, now, count).await?;
    identity.refresh().await?;

    let rows = Arc::new(identity.session_rows());
    let session = |cookie| Session::new(Some(cookie), Arc::clone(&rows) as _, None);
    let far = |n: usize| cookies.get(n.wrapping_mul(STRIDE) % count).copied().unwrap_or_default();
    let begun = Instant::now();
    for n in 0..count {
        anyhow::ensure!(identity.actor(&session(far(n))).await?.is_some(), "a session does not count");
    }
    let cold = nanos(begun, count);

    let (mut looked, mut chained, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        let found = (0..count).filter(|n| rows.remembers(far(*n))).count();
        looked.push(nanos(begun, count));
        anyhow::ensure!(found == count, "{found} of {count} sessions are in memory");

        let mut step = [0x5a; STEP];
        let begun = Instant::now();
        for _ in 0..count {
            let next = hash(&step);
            step.iter_mut().zip(next).for_each(|(byte, next)| *byte = next);
        }
        chained.push(nanos(begun, count));
        black_box(step);

        let begun = Instant::now();
        for n in 0..count {
            let session = session(far(n));
            black_box(identity.stage(&session).await?);
            black_box(identity.csrf(&session).await?);
            black_box(identity.actor(&session).await?);
        }
        whole.push(nanos(begun, count));
    }
    println!(
        "{{\"sessions\":{count},\"look_up_ns\":{:.1},\"chain_ns\":{:.1},\"warm_us\":{:.3},\"cold_us\":{:.1}}}",
        median(looked),
        median(chained),
        median(whole) / 1e3,
        cold / 1e3
    );
    store.close().await;
    fs::remove_dir_all(dir)?;
    Ok(())
}
