// SPDX-License-Identifier: Apache-2.0
//! People of an installation, made through the store: signing up a thousand people by hand is not what is measured.
#![expect(clippy::disallowed_methods, reason = "what a measurement is filled with protects nothing")]

use anyhow::{Context as _, Result};
use argon2::{Algorithm, Argon2, Params, Version, password_hash::PasswordHasher as _};
use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use portcullis_domain::{
    Assurance, Clock as _, Conditions, ConsoleMode, Factor, Grant, GrantEffect, GrantId, GrantSource, MachineRef,
    Secret, Selector, SessionId, SystemClock, TokenId, UserId,
};
use portcullis_identity::Stage;
use portcullis_store::{FactorId, Keys, NewSession, NewToken, NewUser, Others, Place, Rotation, Store, Ticket};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// What everybody's authenticator is made from (RFC 4226 section 4: 160 bits).
pub(crate) const AUTHENTICATOR: &[u8; 20] = b"portcullis benchmark";
/// Everybody's password.
pub(crate) const PASSWORD: &str = "seven maroon kettles hum";
/// KiB of memory, passes and lanes of a password's hash: those of the gateway.
pub(crate) const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// How long tokens, sessions and tickets of a measurement count.
const LASTS: Duration = Duration::HOUR;

#[derive(Args)]
pub(crate) struct Accounts {
    /// The folder that `portcullis init` made
    #[arg(long)]
    dir: PathBuf,
    /// How many people who can sign in, named p0, p1 …
    #[arg(long, default_value_t = 0)]
    people: u32,
}

#[derive(Args)]
pub(crate) struct Tickets {
    /// The folder that `portcullis init` made
    #[arg(long)]
    dir: PathBuf,
    /// Whose
    #[arg(long)]
    user: UserId,
    /// For which session
    #[arg(long)]
    session: SessionId,
    /// For which machine: hypervisor/machine
    #[arg(long)]
    machine: MachineRef,
    /// How many
    #[arg(long)]
    count: u32,
}

/// The store of an installation with the database that `init` names.
pub(crate) async fn open(dir: &Path) -> Result<Store> {
    Ok(Store::open(&format!("sqlite://{}", dir.join("portcullis.db").display())).await?)
}

fn sha256(bytes: &[u8]) -> Result<[u8; 32]> {
    Ok(digest::digest(&digest::SHA256, bytes).as_ref().try_into()?)
}

/// 256 bits of chance behind a prefix, and the digest that is stored.
fn secret(prefix: &str) -> Result<(String, [u8; 32])> {
    let text = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let hash = sha256(text.as_bytes())?;
    Ok((text, hash))
}

async fn person(store: &Store, name: &str, now: OffsetDateTime) -> Result<UserId> {
    let id = UserId::new(Uuid::now_v7());
    let user = NewUser { id, name: name.to_owned(), name_key: name.to_owned(), display_name: name.to_owned() };
    store.create_user(&user, now).await?;
    Ok(id)
}

/// A grant on everything whose step-up lasts for the whole measurement.
pub(crate) fn grant(role: &str, selector: Selector, record: Record, now: OffsetDateTime) -> Result<Grant> {
    let conditions =
        Conditions { step_up_seconds: 86_400, record: matches!(record, Record::Yes), ..Conditions::default() };
    let id = GrantId::new(Uuid::now_v7());
    let role = role.parse()?;
    Ok(Grant {
        id,
        role,
        selector,
        from: now,
        until: None,
        conditions,
        source: GrantSource::Administrator,
        effect: GrantEffect::Allow,
    })
}

/// Whether a console under a grant is recorded.
#[derive(Clone, Copy)]
pub(crate) enum Record {
    Yes,
    No,
}

impl Accounts {
    pub(crate) async fn run(self) -> Result<()> {
        let store = open(&self.dir).await?;
        let keys = Keys::load(&self.dir.join("portcullis.key"))?;
        let now = SystemClock.now();
        let token = tool(&store, "tool", "viewer", now).await?;
        let changer = tool(&store, "changer", "administrator", now).await?;
        let plain = watcher(&store, "plain", Record::No, now).await?;
        let recorded = watcher(&store, "recorded", Record::Yes, now).await?;
        if self.people > 0 {
            let password = hash_password(&keys)?;
            for n in 0..self.people {
                signer(&store, &keys, &format!("p{n}"), &password, now).await?;
            }
        }
        store.close().await;
        println!("{}", serde_json::json!({ "token": token, "changer": changer, "plain": plain, "recorded": recorded }));
        Ok(())
    }
}

/// Somebody with a role on everything, and a token.
async fn tool(store: &Store, name: &str, role: &str, now: OffsetDateTime) -> Result<String> {
    let user = person(store, name, now).await?;
    store.add_grant(user, &grant(role, Selector::Everything, Record::Yes, now)?, None, now).await?;
    let (token, hash) = secret("pct_")?;
    let id = TokenId::new(Uuid::now_v7());
    let (networks, expires_at) = (vec![], now + LASTS);
    let name = "bench".into();
    store
        .add_token(&NewToken { id, hash, user, name, hypervisor: None, networks, expires_at, made_by: None }, now)
        .await?;
    Ok(token)
}

/// Somebody who may open every screen, with a session that both factors were proven for.
async fn watcher(store: &Store, name: &str, record: Record, now: OffsetDateTime) -> Result<serde_json::Value> {
    let user = person(store, name, now).await?;
    store.add_grant(user, &grant("console-user", Selector::Everything, record, now)?, None, now).await?;
    let (before, cookie) = (rand::random::<[u8; 32]>(), rand::random::<[u8; 16]>());
    let session = SessionId::new(Uuid::now_v7());
    let expires_at = now + LASTS;
    store
        .insert_session(&NewSession { id_hash: before, session, data: "{}".into(), created_at: now, expires_at })
        .await?;
    let mut assurance = Assurance::default();
    assurance.prove(Factor::Password, now);
    assurance.prove(Factor::Totp, now);
    let data = serde_json::json!({ "stage": Stage::SignedIn { user, session, assurance } }).to_string();
    let step = Rotation {
        from: before,
        to: sha256(&cookie)?,
        session,
        user: Some(user),
        data,
        created_at: now,
        now,
        expires_at,
        peer: None,
        signed_in_at: Some(now),
    };
    anyhow::ensure!(store.rotate_session(&step).await?, "the session did not move");
    let cookie = format!("__Host-sid={}", URL_SAFE_NO_PAD.encode(cookie));
    Ok(serde_json::json!({ "user": user.to_string(), "session": session.to_string(), "cookie": cookie }))
}

/// Somebody who can sign in with the password and the authenticator of everybody.
async fn signer(store: &Store, keys: &Keys, name: &str, password: &str, now: OffsetDateTime) -> Result<()> {
    let user = person(store, name, now).await?;
    store.set_password_hash(user, password, now).await?;
    let id = FactorId::new(Uuid::now_v7());
    let row = id.to_string();
    let place = Place { table: "totp_factors", row: &row, column: "secret" };
    let sealed = keys.seal(&place, &Secret::new(AUTHENTICATOR.to_vec()))?;
    store.add_totp(id, user, "Authenticator", &sealed, now).await?;
    anyhow::ensure!(store.confirm_totp(id, 1, Others::None, now).await?, "the authenticator was there already");
    Ok(())
}

/// The password's hash as identity makes it: peppered with a key of the installation, Argon2id of [`COST`].
fn hash_password(keys: &Keys) -> Result<String> {
    let pepper = hmac::Key::new(hmac::HMAC_SHA256, keys.derive("password pepper").expose());
    let peppered = hmac::sign(&pepper, PASSWORD.as_bytes());
    let hashed = hasher()?.hash_password_with_salt(peppered.as_ref(), &rand::random::<[u8; 16]>());
    Ok(hashed.map_err(|e| anyhow::anyhow!("{e}")).context("Argon2")?.to_string())
}

/// Argon2id of [`COST`].
pub(crate) fn hasher() -> Result<Argon2<'static>> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

impl Tickets {
    pub(crate) async fn run(self) -> Result<()> {
        let Self { dir, user, session, machine, count } = self;
        let store = open(&dir).await?;
        let now = SystemClock.now();
        for _ in 0..count {
            let (text, hash) = secret("pck_")?;
            let (machine, mode) = (machine.clone(), ConsoleMode::Control);
            let ticket = Ticket { session, user, machine, mode, expires_at: now + LASTS };
            store.add_ticket(&hash, &ticket, now).await?;
            println!("{text}");
        }
        store.close().await;
        Ok(())
    }
}
