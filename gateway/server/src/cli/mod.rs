// SPDX-License-Identifier: Apache-2.0
//! The command line: one verb a job. Exit codes: 0 yes, 1 no, 2 could not, 3 yes, and not all of it could be printed.

mod account;
mod add;
mod audit;
mod claim;
mod doctor;
mod files;
mod grant;
mod group;
mod init;
mod lock;
mod machine;
mod policy;
mod recording;
mod request;
mod rotation;
mod say;
mod secrets;
mod serve;
mod taken;
mod token;
mod user;

use crate::{
    config::{Config, ConfigError, one_line},
    logs, roster,
    state::{LogOf, open_trail},
};
use clap::{Args, Parser, Subcommand};
use portcullis_domain::{Clock as _, Event, HypervisorName, Outcome, Phase, RequestId, SystemClock, micros};
use portcullis_governance::{By, Change, Grants};
use portcullis_policy::Engine;
use portcullis_store::{AddedHypervisor, Keys, Store};
use portcullis_upstream::HypervisorConfig;
use say::{complain, say};
use serde::Serialize;
use std::{path::PathBuf, process::ExitCode, sync::Arc};
use uuid::Uuid;

/// The gateway through which people reach hypervisors: signs people in, authorizes every request, lends the
/// hypervisor's credential without showing it, relays and records the screen, and keeps a trail that nobody can
/// change unseen.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Init),
    Serve(serve::Serve),
    Doctor(doctor::Doctor),
    /// People and service accounts: list, invite, reset, factors, remove-factor, claims, disable, enable, lock, unlock,
    /// service, break-glass, training, mail, blocklist
    #[command(subcommand)]
    User(user::User),
    /// Roles given to people: list, add, revoke
    #[command(subcommand)]
    Grant(grant::Grant),
    /// Groups of people: list, members, add, remove, join, leave
    #[command(subcommand)]
    Group(group::Group),
    /// Access requests: list, show, approve, refuse, end
    #[command(subcommand)]
    Request(request::Request),
    /// Cut off a person, a machine, a hypervisor or a token for a time: list, add, end
    #[command(subcommand)]
    Lock(lock::Lock),
    /// Tokens for tools: list, mint, renew, revoke
    #[command(subcommand)]
    Token(token::Token),
    /// The policy: matrix, check, diff, apply, export, history, rollback, simulate, explain, roles
    #[command(subcommand)]
    Policy(policy::Policy),
    /// The hypervisors and how they answer: list, add, remove
    #[command(subcommand)]
    Hypervisor(machine::Hypervisor),
    /// The secrets that the gateway shows to hypervisors: list, rotate, forget
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    /// The machines behind this gateway: list
    #[command(subcommand)]
    Machine(machine::Machine),
    /// The trail: verify, tail, search, acknowledge, rebuild
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Recordings: list, verify
    #[command(subcommand)]
    Recording(recording::Recording),
}

/// What every verb that works on an installation takes.
#[derive(Debug, Args)]
struct At {
    /// The configuration file
    #[arg(long, env = "PORTCULLIS_CONFIG", default_value = "portcullis.toml")]
    config: PathBuf,
    #[command(flatten)]
    out: Out,
}

/// How a verb prints.
#[derive(Debug, Args)]
struct Out {
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Yes or no, for scripts.
enum Answer {
    Yes,
    No,
}

/// What `portcullis init` does: a key file, an own CA with a certificate for `name`, and a configuration that runs.
pub fn init_at(
    dir: &std::path::Path,
    name: &str,
    listen: std::net::SocketAddr,
    clock: &dyn portcullis_domain::Clock,
) -> anyhow::Result<()> {
    init::make(dir, name, listen, clock)
}

/// Runs the program. One line says what is wrong; code 2 means that nothing was done.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(cli.verb) {
        // What was done is done: whoever does it again because of a code makes it twice.
        Ok(Answer::Yes) if !say::is_heard() => ExitCode::from(3),
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            complain!("portcullis: {}", one_line(&chain(&error)));
            ExitCode::from(2)
        }
    }
}

/// An error and its causes, each said once.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

fn dispatch(verb: Verb) -> anyhow::Result<Answer> {
    let verb = match verb {
        Verb::Init(init) => return init.run(&SystemClock).map(|()| Answer::Yes),
        Verb::Serve(serve) => return serve.run(),
        verb => verb,
    };
    alone(async move {
        match verb {
            Verb::User(verb) => Box::pin(verb.run()).await,
            Verb::Grant(verb) => Box::pin(verb.run()).await,
            Verb::Group(verb) => Box::pin(verb.run()).await,
            Verb::Request(verb) => Box::pin(verb.run()).await,
            Verb::Lock(verb) => Box::pin(verb.run()).await,
            Verb::Token(verb) => Box::pin(verb.run()).await,
            Verb::Policy(verb) => Box::pin(verb.run()).await,
            Verb::Hypervisor(verb) => Box::pin(verb.run()).await,
            Verb::Doctor(verb) => Box::pin(verb.run()).await,
            Verb::Secrets(verb) => Box::pin(verb.run()).await,
            Verb::Machine(verb) => Box::pin(verb.run()).await,
            Verb::Audit(verb) => verb.run().await,
            Verb::Recording(verb) => verb.run().await,
            Verb::Init(_) | Verb::Serve(_) => Ok(Answer::Yes),
        }
    })
}

/// Runs one verb on a runtime of its own.
fn alone(work: impl Future<Output = anyhow::Result<Answer>>) -> anyhow::Result<Answer> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// An installation as a verb sees it.
struct Desk {
    /// With the hypervisors that were added to the store.
    config: Config,
    store: Store,
    keys: Arc<Keys>,
    /// Those of the store that cannot be used, and why.
    unused: Vec<(AddedHypervisor, String)>,
}

impl At {
    fn read(&self) -> Result<Config, ConfigError> {
        Config::read(&self.config, std::env::vars())
    }

    async fn open(&self) -> anyhow::Result<Desk> {
        let mut config = self.read()?;
        let keys = Arc::new(
            Keys::load(&config.keys.file).map_err(|e| ConfigError::new(&config.file, format!("keys.file: {e}")))?,
        );
        let store = Store::open(&config.store.url)
            .await
            .map_err(|e| ConfigError::new(&config.file, format!("store.url: {e}")))?;
        let added = roster::read(&config, &keys, &store).await;
        let added = added.map_err(|e| ConfigError::new(&config.file, format!("store.url: {e}")))?;
        let mut unused = Vec::new();
        for (row, read) in added {
            match read {
                Ok(hypervisor) => config.hypervisors.push(hypervisor),
                Err(why) => unused.push((row, why)),
            }
        }
        Ok(Desk { config, store, keys, unused })
    }

    fn print<T: Serialize>(&self, rows: &[T], columns: &[&str]) -> anyhow::Result<()> {
        self.out.print(rows, columns)
    }
}

impl Out {
    /// Prints what was done, in words or as JSON.
    fn tell(&self, json: &serde_json::Value, words: &str) {
        if self.json {
            say!("{json}");
        } else {
            say!("{words}");
        }
    }

    /// Prints rows as a table or as JSON.
    fn print<T: Serialize>(&self, rows: &[T], columns: &[&str]) -> anyhow::Result<()> {
        if self.json {
            for row in rows {
                say!("{}", serde_json::to_string(row)?);
            }
            return Ok(());
        }
        let mut table = vec![columns.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>()];
        for row in rows {
            let value = serde_json::to_value(row)?;
            table.push(columns.iter().map(|c| cell(value.get(*c))).collect());
        }
        let widths: Vec<usize> = (0..columns.len())
            .map(|i| table.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
            .collect();
        for row in &table {
            let line: Vec<String> = row.iter().zip(&widths).map(|(c, w)| format!("{c:w$}", w = *w)).collect();
            say!("{}", line.join("  ").trim_end());
        }
        Ok(())
    }
}

/// A value as one cell, without control characters: names come from hypervisors.
fn cell(value: Option<&serde_json::Value>) -> String {
    let text = match value {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(s)) => s.clone(),
        Some(serde_json::Value::Array(a)) => a.iter().map(|v| cell(Some(v))).collect::<Vec<_>>().join(","),
        Some(serde_json::Value::Object(o)) => {
            o.iter().map(|(k, v)| format!("{k} {}", cell(Some(v)))).collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    };
    text.chars().filter(|c| !c.is_control()).collect()
}

impl Desk {
    /// Which adding a hypervisor is, as it was read; none where the file names it.
    fn adding(&self, name: &HypervisorName) -> Option<Uuid> {
        self.config.hypervisors.iter().find(|h| h.name() == name).and_then(HypervisorConfig::adding)
    }

    /// Does something privileged as two events of the command line's own log beside the server's (a log belongs to the
    /// process that writes it): that it begins is durable before anything happens, and how it came out before this
    /// returns.
    async fn act<T>(
        &self,
        kind: &str,
        resource: &str,
        words: &str,
        deed: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        // A log that was cut is not written on: what the index still knows of its end would be overwritten.
        Box::pin(logs::Survey::make(&self.config, &self.store)).await?.refuse(&self.config)?;
        Box::pin(self.note(kind, resource, words, deed)).await
    }

    /// The same without a look at the logs.
    async fn note<T>(
        &self,
        kind: &str,
        resource: &str,
        words: &str,
        deed: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let clock = Arc::new(SystemClock);
        let (trail, _) = open_trail(&self.config, &self.keys, LogOf::CommandLine, clock.clone())?;
        logs::claim(&self.config, &self.store, trail.node()).await?;
        let request = RequestId::new(Uuid::now_v7());
        let event = |phase, outcome, reason: &str| Event {
            at_us: micros(clock.now()),
            request,
            phase,
            kind: kind.into(),
            subject: None,
            peer: None,
            action: None,
            resource: resource.into(),
            outcome,
            reason: format!("command line: {reason}").into(),
            details: caller(),
        };
        let seq = trail.append(&event(Phase::Opened, Outcome::Pending, words))?;
        trail.durable(seq).await?;
        let done = deed.await;
        let closing = match &done {
            Ok(_) => event(Phase::Closed(seq), Outcome::Done, words),
            Err(why) => event(Phase::Closed(seq), Outcome::Failed, &one_line(&chain(why))),
        };
        let seq = trail.append(&closing)?;
        trail.durable(seq).await?;
        // The server indexes its own log; this one is indexed by whoever writes it.
        let indexed = portcullis_audit::rebuild(&trail.reader(), &self.store).await;
        trail.close()?;
        // What failed first says more than that the index lacks it: the next verb makes the index whole.
        let done = done?;
        indexed?;
        Ok(done)
    }
}

impl Desk {
    /// Gives and takes roles, and looks machines up where a change may take two people.
    async fn seeing(&self, at: &At, engine: &Engine) -> anyhow::Result<Grants> {
        let grants = self.grants(engine)?;
        if grants.has_four_eyes() {
            let inventory = machine::asked(at).await?.inventory();
            grants.look_up(move || Arc::clone(&inventory));
        }
        Ok(grants)
    }

    /// Keeps a change for a second person if it takes one, and says so; none when it can be made at once.
    async fn wait(
        &self,
        at: &At,
        grants: &Grants,
        engine: &Engine,
        change: &Change,
        words: &str,
        why: &str,
    ) -> anyhow::Result<Option<Answer>> {
        let Some(reason) = grants.needs_second(engine, change).await? else { return Ok(None) };
        let propose = async { Ok(grants.propose(engine, By::Shell, change, words, why).await?) };
        let words = format!("is proposed to a second person: {words}");
        let made = Box::pin(self.act("proposal", "gateway:policy", &words, propose)).await?;
        let link = format!("{}/proposals/{}", self.config.portal.origin(), made.new.id);
        let told = serde_json::json!({ "waits": true, "proposal": made.new.id.to_string(), "link": link });
        at.out.tell(&told, &format!("Nothing was changed yet: this waits for a second person. {reason} See {link}"));
        Ok(Some(Answer::No))
    }
}

/// Whose shell it is: what the kernel says, and what sudo says of who asked it.
fn caller() -> Vec<(Arc<str>, Arc<str>)> {
    use std::os::unix::fs::MetadataExt as _;
    let uid = std::fs::metadata("/proc/self").ok().map(|me| ("uid", me.uid().to_string()));
    let sudo = std::env::var("SUDO_USER").ok().map(|name| ("sudo_user", name));
    let short = |text: String| text.chars().filter(|c| !c.is_control()).take(64).collect::<String>();
    uid.into_iter().chain(sudo).map(|(name, value)| (name.into(), short(value).into())).collect()
}

#[cfg(test)]
mod tests;
