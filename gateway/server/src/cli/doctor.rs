// SPDX-License-Identifier: Apache-2.0
//! `portcullis doctor`: everything that this installation stands on, looked at once, with what to do about it. It changes
//! nothing, and writes no event but what the store writes when it opens.

use super::{Answer, At, Desk, chain};
use crate::{
    config::Config,
    files,
    logs::{self, Survey},
    secrets::{self, Opened},
    state::LogOf,
    tell::ROOM,
    tls,
};
use clap::Args;
use portcullis_domain::{Clock as _, HypervisorName, SystemClock, counted};
use portcullis_store::{Backlog, TrailFilter, Trouble, Way};
use portcullis_upstream::{Fleet, HealthState, SecretName, SecretState};
use serde::Serialize;
use std::{os::unix::fs::MetadataExt as _, path::Path, sync::Arc};
use time::{Duration, OffsetDateTime};

/// How long before its end a certificate is told of.
const SOON: Duration = Duration::days(14);
/// How old a secret may be before that is told.
const OLD: Duration = Duration::days(365);
/// How old a message may be before it is told that it waits.
const STUCK: Duration = Duration::minutes(10);
/// How long it is told what was not delivered, though nothing waits now.
const LATELY: Duration = Duration::DAY;

/// Look at everything that the gateway stands on, and say what is wrong and what to do: the configuration, files, the
/// clock, space, the store, the trail, what waits to be delivered, and each hypervisor with its certificate, its credentials and its machines
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    at: At,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Is {
    Well,
    Doubtful,
    Wrong,
}

#[derive(Debug, Serialize)]
struct Finding {
    is: Is,
    what: String,
    found: String,
    #[serde(rename = "do")]
    to_do: String,
}

/// What was found until now.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, is: Is, what: &str, found: impl Into<String>, to_do: impl Into<String>) {
        self.0.push(Finding { is, what: what.to_owned(), found: found.into(), to_do: to_do.into() });
    }

    fn well(&mut self, what: &str, found: impl Into<String>) {
        self.add(Is::Well, what, found, "");
    }
}

impl Doctor {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        let Self { at } = self;
        let mut all = Findings::default();
        if let Some(config) = configuration(&at, &mut all) {
            modes(&config, &mut all);
            if let Some(folder) = config.policy.directory.as_deref() {
                Box::pin(policy(folder, &mut all)).await;
            }
            space(&config, &mut all);
            match at.open().await {
                Err(why) => {
                    all.add(Is::Wrong, "keys and store", chain(&why), "nobody can sign in until this is mended");
                }
                Ok(desk) => {
                    all.well("keys and store", "the key file and the database can be used");
                    Box::pin(trail_and_clock(&desk, &mut all)).await;
                    Box::pin(outbox(&desk, &mut all)).await;
                    Box::pin(hypervisors(&desk, &mut all)).await;
                }
            }
        }
        let is_wrong = all.0.iter().any(|f| f.is == Is::Wrong);
        at.print(&all.0, &["is", "what", "found", "do"])?;
        Ok(if is_wrong { Answer::No } else { Answer::Yes })
    }
}

fn configuration(at: &At, all: &mut Findings) -> Option<Config> {
    match at.read() {
        Ok(config) => {
            all.well("configuration", format!("{} can be read", config.file.display()));
            Some(config)
        }
        Err(why) => {
            all.add(
                Is::Wrong,
                "configuration",
                why.to_string(),
                "mend the line; every key is in portcullis.example.toml",
            );
            None
        }
    }
}

/// Who else may write or read what must be the gateway's own.
fn modes(config: &Config, all: &mut Findings) {
    let mut look = |what: &str, path: &Path, forbidden: u32, words: &str| match std::fs::metadata(path) {
        Ok(meta) if meta.mode() & forbidden != 0 => {
            let (mode, path) = (meta.mode() & 0o777, path.display());
            let mend = if meta.is_dir() { "chmod 0700" } else { "chmod 0600" };
            all.add(
                Is::Wrong,
                what,
                format!("{path} (mode {mode:04o}): others may {words} it"),
                format!("{mend} {path}"),
            );
        }
        Ok(_) => all.well(what, format!("{} is the gateway's own", path.display())),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            all.add(
                Is::Doubtful,
                what,
                format!("{} is not there yet", path.display()),
                "it is made at the first start",
            );
        }
        Err(why) => all.add(Is::Wrong, what, format!("{}: {why}", path.display()), "let the gateway's user read it"),
    };
    look("configuration file", &config.file, 0o022, "write");
    look("key file", &config.keys.file, 0o077, "read");
    look("TLS key", &config.tls.key_file, 0o077, "read");
    look("trail", &config.trail.dir, 0o077, "read");
    look("recordings", &config.recordings.dir, 0o077, "read");
    if let Some(database) = config.store.url.strip_prefix("sqlite://") {
        look("database", Path::new(database), 0o077, "read");
    }
    match tls::look(config, &SystemClock) {
        Ok(doubts) if doubts.is_empty() => all.well("own certificate", "it counts, and names this gateway"),
        Ok(doubts) => {
            all.add(Is::Doubtful, "own certificate", doubts.join("; "), "put a new one in tls.cert_file, and restart");
        }
        Err(why) => all.add(Is::Wrong, "own certificate", why.to_string(), "the gateway does not start without it"),
    }
}

/// The folder that says who may do what: as the gateway takes it over when it starts.
async fn policy(folder: &Path, all: &mut Findings) {
    let shown = folder.display();
    // A folder that cannot be read is told of below.
    if let Ok(Some(owner)) = files::foreign_owner(folder, rustix::process::geteuid().as_raw()) {
        all.add(
            Is::Doubtful,
            "policy",
            format!("{shown} belongs to user {owner}, who may change who may do what"),
            format!("chown it to the gateway's user or to root, if {owner} is not who keeps the policy"),
        );
    }
    match files::examine(folder).await {
        Ok(_) => all.well("policy", format!("{shown} can be taken over, and its tests hold")),
        Err(why) => all.add(Is::Wrong, "policy", format!("{shown}: {why}"), "until then the last good version stays"),
    }
}

fn space(config: &Config, all: &mut Findings) {
    let least = config.recordings.min_free_mib;
    for (what, dir, least) in
        [("space of recordings", &config.recordings.dir, least), ("space of the trail", &config.trail.dir, 64)]
    {
        // Before the first start the folder above is on the same disk, most likely.
        let there = if dir.exists() { dir.as_path() } else { dir.parent().unwrap_or(dir) };
        match rustix::fs::statvfs(there) {
            Ok(disk) => {
                let free = disk.f_bavail.saturating_mul(disk.f_frsize) >> 20;
                let found = format!("{free} MiB are free in {}", there.display());
                if free < least {
                    all.add(Is::Wrong, what, format!("{found}, and {least} are needed"), "make room there");
                } else if free < least.saturating_mul(2) {
                    all.add(Is::Doubtful, what, format!("{found}; from {least} on it stops"), "make room there soon");
                } else {
                    all.well(what, found);
                }
            }
            Err(why) => {
                all.add(Is::Wrong, what, format!("{}: {why}", there.display()), "the gateway needs this folder");
            }
        }
    }
}

async fn trail_and_clock(desk: &Desk, all: &mut Findings) {
    match Survey::make(&desk.config, &desk.store).await.and_then(|survey| survey.refuse(&desk.config)) {
        Ok(()) => all.well("trail", "every log is there"),
        Err(why) => all.add(Is::Wrong, "trail", why.to_string(), "portcullis audit verify says where"),
    }
    let dir = LogOf::Server.dir(&desk.config);
    let there = if dir.exists() { dir.clone() } else { desk.config.trail.dir.clone() };
    if there.exists() && rustix::fs::access(&there, rustix::fs::Access::WRITE_OK).is_err() {
        all.add(
            Is::Wrong,
            "trail",
            format!("{} cannot be written", there.display()),
            "nothing privileged happens without it",
        );
    }
    match logs::on_disk(&desk.config) {
        Ok(logs) => all.well(
            "trail",
            format!(
                "{} in {}",
                counted(logs.iter().filter_map(|l| l.events).sum::<u64>(), "event", "events"),
                counted(logs.len(), "log", "logs")
            ),
        ),
        Err(why) => all.add(Is::Wrong, "trail", why.to_string(), "let the gateway's user read it"),
    }
    let now = SystemClock.now();
    match desk.store.search_trail(&TrailFilter::default(), 1, None).await {
        Ok(newest) => match newest.first().map(|e| e.at - now).filter(|ahead| *ahead > Duration::MINUTE) {
            Some(ahead) => all.add(
                Is::Wrong,
                "clock",
                format!("it is {} s behind the newest event of the trail", ahead.whole_seconds()),
                "set it: codes, tickets and ends of access depend on it",
            ),
            None => all.well("clock", format!("{now}, after everything in the trail")),
        },
        Err(why) => all.add(Is::Wrong, "clock", why.to_string(), "the trail's index cannot be read"),
    }
}

/// What waits to be delivered, and why.
async fn outbox(desk: &Desk, all: &mut Findings) {
    let Config { mail, requests, .. } = &desk.config;
    let ways = [("mail", Way::Mail, mail.is_some()), ("webhook", Way::Webhook, requests.webhook.is_some())];
    for (name, way, is_set) in ways {
        let what = format!("outbox: {name}");
        match desk.store.backlog(way).await {
            // Nothing is told this way.
            Ok(backlog) if !is_set && backlog.waiting == 0 => {}
            Ok(backlog) => waiting(&what, &backlog, is_set, all),
            Err(why) => all.add(Is::Wrong, &what, why.to_string(), "nobody is told of access requests"),
        }
    }
}

fn waiting(what: &str, backlog: &Backlog, is_set: bool, all: &mut Findings) {
    let Backlog { waiting, of_one, oldest, trouble } = backlog;
    let now = SystemClock.now();
    let mut found = format!("waiting: {}, of at most {}", counted(*waiting, "message", "messages"), ROOM.all);
    if let Some(oldest) = oldest {
        let age = counted((now - *oldest).whole_minutes(), "minute", "minutes");
        found = format!("{found}, the oldest for {age}");
    }
    if *of_one >= ROOM.each {
        found = format!("{found}; {of_one} of them are one person's doing, who is told of nothing more");
    }
    let lately = trouble.as_ref().filter(|t| *waiting > 0 || now - t.at < LATELY);
    if let Some(Trouble { at, whom, why }) = lately {
        found = format!("{found}; last not delivered, about {whom}, at {}: {why}", minute(*at));
    }
    let is_old = oldest.is_some_and(|oldest| now - oldest > STUCK);
    if !is_set {
        all.add(Is::Doubtful, what, found, "nothing is told this way any more: the next start drops them");
    } else if *waiting >= ROOM.all {
        all.add(Is::Wrong, what, found, "nobody is told of access requests: see that the server takes them again");
    } else if is_old || lately.is_some() || *waiting * 2 >= ROOM.all || *of_one >= ROOM.each {
        all.add(Is::Doubtful, what, found, "see that the server takes them; after a day each is given up");
    } else {
        all.well(what, found);
    }
}

async fn hypervisors(desk: &Desk, all: &mut Findings) {
    for (row, why) in &desk.unused {
        let mend = format!("portcullis hypervisor remove {}, and add it again if it is needed", row.name);
        all.add(Is::Wrong, &format!("{}: added", row.name), format!("it is not used: {why}"), mend);
    }
    let opened = secrets::open(&desk.config, &desk.keys, &desk.store, Arc::new(SystemClock)).await;
    let fleet = match opened {
        Ok(Opened { fleet, .. }) => fleet,
        Err(why) => {
            return all.add(Is::Wrong, "hypervisors", why.to_string(), "the gateway does not start until it is mended");
        }
    };
    match desk.store.hypervisor_secrets().await {
        Ok(rows) => {
            for row in &rows {
                let left = super::secrets::left(row);
                if !left.is_empty() {
                    let what = format!("{}: credential {}", row.hypervisor, row.credential);
                    all.add(Is::Doubtful, &what, left, "no rotation begins while another one is at it");
                }
            }
        }
        Err(why) => all.add(Is::Wrong, "hypervisors", why.to_string(), "rotated secrets cannot be read"),
    }
    fleet.refresh_once().await;
    let states = fleet.secrets().states();
    for health in fleet.health() {
        let name = &health.name;
        let what = |part: &str| format!("{name}: {part}");
        certificate(&fleet, name, all).await;
        for state in states.iter().filter(|s| s.name.hypervisor == *name) {
            credential(&fleet, state, all).await;
        }
        let machines = counted(health.machines, "machine", "machines");
        match &health.state {
            HealthState::Ok if health.notes.is_empty() => {
                all.well(&what("machines"), format!("{machines}, by {}", health.address));
            }
            HealthState::Ok => all.add(
                Is::Doubtful,
                &what("machines"),
                format!("{machines}; {}", health.notes.join("; ")),
                "what is left out is not there for anybody",
            ),
            HealthState::Down { why, .. } => {
                all.add(
                    Is::Wrong,
                    &what("machines"),
                    format!("{}: {why}", health.address),
                    "nobody reaches its machines",
                );
            }
        }
    }
}

async fn certificate(fleet: &Fleet, name: &HypervisorName, all: &mut Findings) {
    let what = format!("{name}: certificate");
    match fleet.meet(name).await {
        Ok(None) => {}
        Ok(Some(met)) => {
            let now = SystemClock.now();
            let found = format!("{}, by {}, until {}, SHA-256 {}", met.subject, met.issuer, day(met.until), met.sha256);
            let renew = "renew it there, and take the new pin over if one is configured";
            if met.until <= now || met.from > now {
                all.add(Is::Wrong, &what, format!("it does not count today: {found}"), renew);
            } else if met.until - now < SOON {
                all.add(Is::Doubtful, &what, format!("it ends soon: {found}"), renew);
            } else {
                all.well(&what, found);
            }
        }
        Err(why) => all.add(
            Is::Wrong,
            &what,
            why.to_string(),
            "see that it runs, and what answers at its address; where it has another certificate now, take that over: \
             its new pin, or portcullis hypervisor add --replace",
        ),
    }
}

async fn credential(fleet: &Fleet, state: &SecretState, all: &mut Findings) {
    let SecretName { hypervisor, credential } = &state.name;
    let what = format!("{hypervisor}: credential {credential}");
    if let Some(why) = &state.trouble {
        all.add(Is::Wrong, &what, format!("{}: {why}", state.source), "mend its source, or: portcullis secrets rotate");
    }
    // A guest's password is asked for when its screen opens, and at no other time.
    if !state.is_there || credential.starts_with("guest ") {
        return;
    }
    match fleet.known_as(&state.name).await {
        Ok(standing) => {
            let beyond = standing.beyond(credential);
            let untold = standing.untold.as_ref();
            if !beyond.is_empty() {
                all.add(
                    Is::Doubtful,
                    &what,
                    format!("as {} it may also do what it need not: {}", standing.who, beyond.join(", ")),
                    "take that away there, unless people are granted it through the gateway",
                );
            }
            match untold {
                Some(why) => all.well(
                    &what,
                    format!("it counts, as {}; what it may do is not told, or not all of it: {why}", standing.who),
                ),
                None if beyond.is_empty() => {
                    all.well(&what, format!("it counts, as {}, and may do no more than it is for", standing.who));
                }
                None => {}
            }
            let now = SystemClock.now();
            if let Some(end) = standing.ends_at.filter(|end| *end - now < SOON) {
                all.add(
                    Is::Doubtful,
                    &what,
                    format!("it ends by itself on {}", day(end)),
                    rotate(hypervisor, credential),
                );
            }
        }
        Err(portcullis_upstream::Error::Upstream { fault: portcullis_upstream::Fault::Unsupported(_), .. }) => {}
        Err(why) => {
            all.add(Is::Wrong, &what, why.to_string(), "make a new one there: portcullis secrets rotate --from");
        }
    }
    let age = state.since.map(|at| SystemClock.now() - at).filter(|age| *age > OLD);
    if let Some(age) = age {
        all.add(
            Is::Doubtful,
            &what,
            format!("it is {} old", counted(age.whole_days(), "day", "days")),
            rotate(hypervisor, credential),
        );
    }
}

fn rotate(hypervisor: &HypervisorName, credential: &str) -> String {
    format!("portcullis secrets rotate {hypervisor} --for {credential}")
}

fn day(at: OffsetDateTime) -> String {
    at.date().to_string()
}

fn minute(at: OffsetDateTime) -> String {
    format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute())
}
