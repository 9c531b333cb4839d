// SPDX-License-Identifier: Apache-2.0
//! Opening and closing the house: everything is checked before the first port is bound, so that a wrong configuration
//! leaves nothing half-started; closing ends live consoles with a reason and waits for every task.

use crate::{
    config::{Config, ConfigError},
    doors::{self, key_of},
    files::{InEffect, Unread},
    health,
    listener::{self, Door},
    lives::{self, Lives},
    logs,
    pace::Paces,
    providers, roster, router, secrets,
    state::{House, Shard, Strangers, chain},
    tell::{self, Tell},
};
use portcullis_console::record::{self, RecorderPool};
use portcullis_domain::{Clock, Ending, Event, Grant, Outcome, Phase, UserId, counted, micros};
use portcullis_governance::Locks;
use portcullis_identity::{Feed, Identity, Scope};
use portcullis_policy::Engine;
use portcullis_store::{Apart, Keys, Store};
use std::{future::Future, net::SocketAddr, path::Path, pin::Pin, sync::Arc, thread::JoinHandle, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long closing waits for requests and consoles.
const GRACE: Duration = Duration::from_secs(10);

/// Whether plain HTTP is allowed: only for measuring and developing, only on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS on every listener.
    Tls,
    /// No TLS; every listener must be on loopback.
    PlainLoopback,
}

/// A gateway that runs.
pub struct Running {
    house: Arc<House>,
    shards: Vec<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    /// Where it listens, the portal first.
    pub listening: Vec<SocketAddr>,
    /// The one-time set-up link, when nobody has an account yet.
    pub set_up: Option<String>,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Running {
    /// Opens the house. Nothing listens until everything else is known to work.
    pub async fn start(config: Config, clock: Arc<dyn Clock>, transport: Transport) -> Result<Self, ConfigError> {
        let doors = doors::doors(&config, transport, &*clock)?;
        let wrong = |key: &str, why: String| ConfigError::new(&config.file, format!("{key}: {why}"));
        let keys = Arc::new(Keys::load(&config.keys.file).map_err(|e| wrong("keys.file", chain(&e)))?);
        let store = Store::open(&config.store.url).await.map_err(|e| wrong("store.url", chain(&e)))?;
        let engine = Arc::new(Engine::builtin().await.map_err(|e| wrong("policy", chain(&e)))?);
        let policy = InEffect::first(&engine, &store).await.map_err(|why| wrong("policy", why))?;
        let connections = providers::connections(&config, &engine)?;
        let grants = crate::requests::grants(&config, &engine, store.clone(), Arc::clone(&clock))?;
        let requests = crate::requests::requests(&config, &engine, store.clone(), Arc::clone(&clock), &grants)?;
        let locks = Locks::new(store.clone(), Arc::clone(&clock));
        locks.refresh().await.map_err(|e| wrong("store.url", chain(&e)))?;
        let tell = Tell::new(&config)?;
        let settings = config.identity.clone();
        let identity =
            Identity::with_providers(store.clone(), Arc::clone(&keys), Arc::clone(&clock), settings, connections)
                .map_err(|e| wrong("identity", chain(&e)))?;
        let unread = Arc::<Unread>::default();
        identity.tell_changes({
            let (engine, unread) = (Arc::clone(&engine), Arc::clone(&unread));
            move |feed| {
                unread.hear(&feed.unread);
                hear(&engine, feed);
            }
        });
        identity.refresh().await.map_err(|e| wrong("store.url", chain(&e)))?;
        if let Some(why) = identity.passkeys_off() {
            tracing::warn!("{why}; authenticator apps go on working");
        }
        if let Some(group) = config.scim.groups.iter().find(|g| !engine.has_role(&g.role)) {
            return Err(wrong("scim.groups", format!("{:?}: there is no role called {}", group.name, group.role)));
        }
        roster::refuse_twice(&config, &store).await?;
        let secrets::Opened { fleet, vault } = secrets::open(&config, &keys, &store, Arc::clone(&clock)).await?;
        let seen = fleet.clone();
        grants.look_up(move || seen.inventory());
        let settings = record::Settings { min_free_mib: config.recordings.min_free_mib, ..record::Settings::default() };
        let recorders =
            RecorderPool::start(&config.recordings.dir, settings).map_err(|e| wrong("recordings.dir", chain(&e)))?;
        let health = health::bind(&config)?;
        for door in &doors {
            listener::bind_alone(door.at)
                .map(drop)
                .map_err(|e| wrong(&key_of(&door.purpose), format!("{} cannot be listened on: {e}", door.at)))?;
        }
        let (trail, recovered) = logs::open(&config, &keys, &store, Arc::clone(&clock)).await?;
        let house = Arc::new(House {
            authority: config.portal.authority().unwrap_or_default(),
            origin: config.portal.origin(),
            strangers: Strangers::new(config.limits.stranger_per_second, config.limits.stranger_burst),
            paces: Paces::new(&config.limits, config.adding),
            roster: roster::Roster::of_file(&config),
            grants,
            policy,
            unread,
            locks,
            requests,
            tell,
            lives: Arc::new(Lives::default()),
            connections: Arc::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            failure: std::sync::OnceLock::new(),
            verified: std::sync::Mutex::new(None),
            config,
            clock,
            store,
            keys,
            trail,
            engine,
            identity,
            fleet,
            vault,
            recorders,
        });
        keep_apart(&house);
        house.note("system", "the gateway started", &words(&recovered));
        house
            .store
            .node_began(house.trail.node(), &logs::place(&house.config), house.clock.now())
            .await
            .map_err(|e| ConfigError::new(&house.config.file, format!("store.url: {}", chain(&e))))?;
        house
            .take_folder()
            .await
            .map_err(|e| ConfigError::new(&house.config.file, format!("store.url: {}", chain(&e))))?;
        house
            .take_roster(&mut roster::Left::new(), &roster::Drive::Later)
            .await
            .map_err(|e| ConfigError::new(&house.config.file, format!("store.url: {}", chain(&e))))?;
        let set_up = first_link(&house).await?;
        // What is running already ends when the rest cannot be started.
        let unless = house.closing.clone().drop_guard();
        let (shards, listening) = open_doors(&house, doors)?;
        let keeper = Some(keep(&house, health)?);
        unless.disarm();
        Ok(Self { house, shards, keeper, listening, set_up })
    }

    /// Waits until the house closes by itself because a part of it failed; says which. Stop it then.
    pub async fn failed(&self) -> String {
        self.house.closing.cancelled().await;
        self.house.failure.get().cloned().unwrap_or_else(|| "the gateway closed by itself".into())
    }

    /// Closes the house: no new connections, live consoles end with a reason, everything open is waited for (10 s).
    pub async fn stop(mut self) {
        self.house.closing.cancel();
        self.house.lives.cut_all(&Ending::Shutdown);
        self.house.tasks.close();
        if tokio::time::timeout(GRACE, self.house.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time and are dropped");
        }
        let threads: Vec<_> = self.shards.drain(..).chain(self.keeper.take()).collect();
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join())));
        joined.await.ok();
        if let Err(error) = self.house.store.node_ended(self.house.trail.node()).await {
            tracing::warn!(error = %chain(&error), "that this gateway ended could not be written down");
        }
        let why = self.house.failure.get().map_or("", String::as_str);
        self.house.note("system", "the gateway stopped", why);
        if let Err(error) = self.house.trail.close() {
            tracing::error!(%error, "the trail did not close well");
        }
        self.house.store.close().await;
    }
}

/// Takes over who holds what.
pub(crate) fn hear(engine: &Engine, feed: Feed) {
    for why in &feed.unread {
        tracing::error!(why, "a grant or a group cannot be read: whoever depends on it is denied everything");
    }
    match feed.scope {
        Scope::Whole => engine.reset(feed.changes),
        Scope::Changes => engine.apply(feed.changes),
    }
}

/// Keeps roles apart where an identity provider's word would give them: the later one is not given, and an alarm says so.
fn keep_apart(house: &Arc<House>) {
    let weak = Arc::downgrade(house);
    let may = move |user: UserId, held: &[Grant], new: &Grant| {
        let Some(house) = weak.upgrade() else { return false };
        let Some(why) = house.grants.objection(&house.engine, held, new) else { return true };
        let words = format!("{} is not given on an identity provider's word: {why}", new.role);
        house.note_of("alarm", &user.to_string(), &words);
        false
    };
    house.identity.keep_apart(Apart(Arc::new(may)));
}

impl House {
    /// A part without which the gateway must not go on has failed: everything closes, and the first reason is kept.
    pub(crate) fn fail(&self, why: &str) {
        if self.failure.set(why.to_owned()).is_ok() {
            tracing::error!("{why}; the gateway closes");
        }
        self.closing.cancel();
    }

    /// One event of the program itself.
    pub(crate) fn note(&self, kind: &str, reason: &str, more: &str) {
        let reason = if more.is_empty() { reason.to_owned() } else { format!("{reason}; {more}") };
        self.note_of(kind, "gateway:system", &reason);
    }

    /// One event of what the program did, or did not do, by itself to somebody or something.
    fn note_of(&self, kind: &str, about: &str, reason: &str) {
        if let Err(error) = self.trail.append(&self.event(kind, about, reason)) {
            tracing::error!(%error, "an event of the program itself could not be written");
        }
    }

    /// The same, durable before this returns; false when it could not be written, and then nothing may be done.
    pub(crate) async fn note_about(&self, kind: &str, about: &str, reason: &str) -> bool {
        let event = self.event(kind, about, reason);
        let written = async { self.trail.durable(self.trail.append(&event)?).await };
        written.await.inspect_err(|error| tracing::error!(%error, "nothing is done without its event")).is_ok()
    }

    fn event(&self, kind: &str, about: &str, reason: &str) -> Event {
        Event {
            at_us: micros(self.clock.now()),
            request: self.request_id(),
            phase: Phase::Noted,
            kind: kind.into(),
            subject: None,
            peer: None,
            action: None,
            resource: about.chars().filter(|c| !c.is_control()).take(128).collect::<String>().into(),
            outcome: Outcome::Done,
            reason: reason.into(),
            details: vec![],
        }
    }
}

/// What was found when the trail was opened, for the first event.
fn words(recovered: &portcullis_audit::Recovered) -> String {
    let mut words = vec![format!("{} in the trail", counted(recovered.events, "event", "events"))];
    if recovered.torn_bytes > 0 {
        words.push(format!("{} half-written bytes after the last commit were dropped", recovered.torn_bytes));
    }
    if !recovered.abandoned.is_empty() {
        words.push(format!("{} operations that a crash left open were closed as abandoned", recovered.abandoned.len()));
    }
    words.join("; ")
}

/// A link for the first administrator, when nobody has an account. A new start makes a new link; old ones run out.
async fn first_link(house: &Arc<House>) -> Result<Option<String>, ConfigError> {
    let wrong = |e: &(dyn std::error::Error + 'static)| {
        ConfigError::new(&house.config.file, format!("store.url: {}", chain(e)))
    };
    if !house.store.users().await.map_err(|e| wrong(&e))?.is_empty() {
        return Ok(None);
    }
    let token = house.identity.invite_first().await.map_err(|e| wrong(&e))?;
    house.note("system", "a set-up link for the first administrator was made", "");
    Ok(Some(set_up_link(&house.config, &token)))
}

/// The address of a link for somebody who was invited or reset.
pub(crate) fn invitation_link(config: &Config, token: &portcullis_domain::Secret) -> String {
    format!("{}/invitation#{}", config.portal.origin(), token.expose_text().unwrap_or_default())
}

/// The address of a one-time link. The token rides in the fragment: it is in no log, no history of a proxy, no Referer.
pub(crate) fn set_up_link(config: &Config, token: &portcullis_domain::Secret) -> String {
    format!("{}/set-up#{}", config.portal.origin(), token.expose_text().unwrap_or_default())
}

fn open_doors(house: &Arc<House>, doors: Vec<Door>) -> Result<(Vec<JoinHandle<()>>, Vec<SocketAddr>), ConfigError> {
    let wrong = |key: String, e: std::io::Error| ConfigError::new(&house.config.file, format!("{key}: {e}"));
    let shards = match house.config.limits.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let doors: Vec<Arc<Door>> = doors.into_iter().map(Arc::new).collect();
    let mut listening = Vec::new();
    let mut threads = Vec::new();
    for number in 0..shards {
        let mut bound = Vec::new();
        for (i, door) in doors.iter().enumerate() {
            // A port of 0 (tests) is chosen once, by the first shard.
            let at = listening.get(i).copied().unwrap_or(door.at);
            let listener = listener::bind(at).map_err(|e| wrong(key_of(&door.purpose), e))?;
            if number == 0 {
                listening.push(listener.local_addr().map_err(|e| wrong(key_of(&door.purpose), e))?);
            }
            bound.push((Arc::clone(door), listener));
        }
        let house = Arc::clone(house);
        let body = move || {
            let _ends = Ends { house: Arc::clone(&house), name: "a shard" };
            run_shard(&house, bound);
        };
        let thread = std::thread::Builder::new().name(format!("shard-{number}")).spawn(body);
        threads.push(thread.map_err(|e| ConfigError::new(Path::new("threads"), e.to_string()))?);
    }
    Ok((threads, listening))
}

/// Closes the house when a thread of it ends that should not, by a panic too: what is left would be half a gateway.
struct Ends {
    house: Arc<House>,
    name: &'static str,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if !self.house.closing.is_cancelled() {
            self.house.fail(&format!("{} ended by itself", self.name));
        }
    }
}

fn run_shard(house: &Arc<House>, bound: Vec<(Arc<Door>, std::net::TcpListener)>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return house.fail(&format!("a shard cannot start: {error}"));
        }
    };
    runtime.block_on(async {
        let mut changes = house.roster.changes();
        let shard = Arc::new(Shard::new(router::portal(house), &house.fleet));
        // What all requests of one turn append and wait for is put to the trail's writer together.
        house.tasks.spawn(house.closing.clone().run_until_cancelled_owned(house.trail.turns()));
        let (closing, fleet, swept) = (house.closing.clone(), house.fleet.clone(), Arc::clone(&shard));
        house.tasks.spawn(async move {
            let mut sweep = tokio::time::interval(portcullis_upstream::SWEEP);
            while !closing.is_cancelled() {
                tokio::select! {
                    () = closing.cancelled() => {}
                    _ = sweep.tick() => swept.forwarder().sweep(),
                    Ok(()) = changes.changed() => swept.renew(&fleet),
                }
            }
        });
        for (door, listener) in bound {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    house.tasks.spawn(listener::accept(Arc::clone(house), Arc::clone(&shard), door, listener));
                }
                Err(error) => {
                    house.fail(&format!("{}: the listener cannot start: {error}", key_of(&door.purpose)));
                }
            }
        }
        house.closing.cancelled().await;
        tokio::time::timeout(GRACE, house.tasks.wait()).await.ok();
    });
}

/// The housekeeping thread: inventories, sessions, the trail's index, health.
fn keep(house: &Arc<House>, health: Option<std::net::TcpListener>) -> Result<JoinHandle<()>, ConfigError> {
    let house = Arc::clone(house);
    let (stopping, stop) = tokio::sync::watch::channel(false);
    let work: Vec<Task> = {
        let h = || Arc::clone(&house);
        let (h1, h2, h3, h4, h5) = (h(), h(), h(), h(), h());
        let mut work: Vec<Task> = vec![
            Box::pin(async move {
                loop {
                    // Before the grants that a version brings.
                    if let Err(error) = h1.take_policy().await {
                        tracing::error!(error = %chain(&error), "whether there is a newer policy is not known");
                    }
                    if let Err(error) = h1.identity.refresh().await {
                        tracing::error!(error = %chain(&error), "sessions and grants could not be refreshed");
                    }
                    h1.tell_unread();
                    h1.end_seats();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }),
            Box::pin(lives::keep(h2)),
            Box::pin(crate::recordings::end_what_was_cut(Arc::clone(&house))),
            Box::pin(async move {
                if let Err(error) = h3.trail.clone().index(h3.store.clone()).await {
                    tracing::error!(error = %chain(&error), "the index of the trail is no longer filled");
                }
            }),
            Box::pin(crate::admin::trail::watch(Arc::clone(&house))),
            Box::pin(providers::keep(Arc::clone(&house))),
            Box::pin(crate::locks::keep(Arc::clone(&house))),
            Box::pin(crate::requests::keep(Arc::clone(&house))),
            Box::pin(tell::keep(Arc::clone(&house))),
            Box::pin(secrets::keep(Arc::clone(&house))),
            Box::pin(async move {
                loop {
                    tokio::time::sleep(Duration::from_mins(1)).await;
                    h4.paces.tidy(h4.clock.now());
                    for (prefix, times) in h4.strangers.tidy() {
                        let whose = if prefix.is_unspecified() { "other networks".into() } else { prefix.to_string() };
                        h4.note("flood", "turned away for knocking too often", &format!("{times} times from {whose}"));
                    }
                }
            }),
        ];
        work.push(Box::pin(roster::keep(Arc::clone(&house), stop.clone())));
        if let Some(listener) = health {
            work.push(Box::pin(health::serve(h5, listener)));
        }
        work.extend(house.fleet.run(&stop));
        work
    };
    let body = move || {
        let _ends = Ends { house: Arc::clone(&house), name: "housekeeping" };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return house.fail(&format!("housekeeping cannot start: {error}")),
        };
        runtime.block_on(async {
            let all = TaskTracker::new();
            for task in work {
                let closing = house.closing.clone();
                all.spawn(async move { closing.run_until_cancelled(task).await });
            }
            all.close();
            house.closing.cancelled().await;
            stopping.send_replace(true);
            tokio::time::timeout(GRACE, all.wait()).await.ok();
        });
    };
    std::thread::Builder::new()
        .name("keeper".into())
        .spawn(body)
        .map_err(|e| ConfigError::new(Path::new("threads"), e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::SystemClock;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_part_that_fails_closes_the_house_with_the_first_reason() {
        let dir = tempfile::tempdir().unwrap();
        let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        crate::init(dir.path(), "localhost", at, &SystemClock).unwrap();
        let config = Config::read(&dir.path().join("portcullis.toml"), std::iter::empty()).unwrap();
        let running = Running::start(config, Arc::new(SystemClock), Transport::Tls).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), running.failed()).await.is_err(), "it runs");
        drop(Ends { house: Arc::clone(&running.house), name: "a shard" });
        running.house.fail("something later");
        assert_eq!(running.failed().await, "a shard ended by itself");
        running.stop().await;
        assert!(std::net::TcpStream::connect(at).is_err(), "nothing listens any more");
    }
}
