// SPDX-License-Identifier: Apache-2.0
//! The logs of this installation, compared with what the store remembers of them.
//!
//! Whoever deletes a log, or puts an older copy in its place, leaves a folder that looks whole. The store knows which
//! logs were written here and how far they went: one that is gone or shorter stops the start until somebody says, in
//! the trail itself, that they know. A log that was cut is never written on: it is set aside, and a new one begins.
//!
//! ```text
//! trail/server, trail/command-line          the two that are written
//! trail/set-aside/<node>                    what is left of those that were acknowledged as cut
//! ```

use crate::{
    config::{Config, ConfigError},
    state::{LogOf, chain, open_trail},
};
use portcullis_audit::{Placed, Reader, Recovered, Trail, agrees, is_live};
use portcullis_domain::{Clock, Event, NodeId, Seq, Via};
use portcullis_store::{Keys, Store, TrailLog, TrailLoss, TrailRow};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What else an event says, in words: how whoever did it showed who they are, and its named details.
pub(crate) fn details(event: &Event) -> Vec<(String, String)> {
    let presented = event.subject.as_ref().map(|subject| match subject.via {
        Via::Session(session) => format!("browser session {session}"),
        Via::Token(token) => format!("token {token}"),
        Via::CommandLine => "command line".to_owned(),
    });
    let named = event.details.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    presented.map(|words| ("presented".to_owned(), words)).into_iter().chain(named).collect()
}

/// A log's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnDisk {
    pub(crate) node: NodeId,
    pub(crate) dir: PathBuf,
    /// How many events it holds; none when it cannot be read.
    pub(crate) events: Option<u64>,
}

/// A log that is not what the store knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Loss {
    pub(crate) node: NodeId,
    /// How many events must be there.
    expected: u64,
    /// How many the index knows of.
    known: u64,
    /// What is left of it.
    left: Option<OnDisk>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, expected: known, left, .. } = self;
        match left {
            None => write!(f, "the log of node {node} with its {known} events is missing"),
            Some(OnDisk { dir, events: None, .. }) => {
                write!(f, "the log of node {node} with its {known} events cannot be read in {}", dir.display())
            }
            Some(OnDisk { dir, events: Some(found), .. }) => {
                write!(f, "the log of node {node} in {} holds {found} of its {known} events", dir.display())
            }
        }
    }
}

impl Loss {
    fn kept(&self) -> u64 {
        self.left.as_ref().and_then(|left| left.events).unwrap_or(0)
    }
}

/// Every loss in one line.
pub(crate) fn tell(losses: &[Loss]) -> String {
    // An event's reason has room for so many.
    const MOST: usize = 4;
    let mut words: Vec<String> = losses.iter().take(MOST).map(ToString::to_string).collect();
    if losses.len() > MOST {
        words.push(format!("and {} more", losses.len() - MOST));
    }
    words.join("; ")
}

/// How this installation is told from others that share its database.
pub(crate) fn place(config: &Config) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let dir = config.trail.dir.canonicalize().unwrap_or_else(|_| config.trail.dir.clone());
    format!("{}:{}", host.trim(), dir.display())
}

fn set_aside_dir(config: &Config) -> PathBuf {
    config.trail.dir.join("set-aside")
}

/// The node whose log a folder holds; none when there is no log.
fn node_of(dir: &Path) -> io::Result<Option<NodeId>> {
    match std::fs::read_to_string(dir.join("node")) {
        Ok(text) => text.trim().parse().map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The logs that are there: those that are written first, then what was set aside.
pub(crate) fn on_disk(config: &Config) -> io::Result<Vec<OnDisk>> {
    let mut dirs: Vec<PathBuf> = [LogOf::Server, LogOf::CommandLine].map(|of| of.dir(config)).into();
    match std::fs::read_dir(set_aside_dir(config)) {
        Ok(entries) => dirs.extend(entries.collect::<Result<Vec<_>, _>>()?.into_iter().map(|e| e.path())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut found = Vec::new();
    for dir in dirs {
        if let Some(node) = node_of(&dir)? {
            let reader = Reader::new(&dir);
            // The node file beside a log of another node: such a log is not opened, and not believed here.
            let is_own = reader.node().is_ok_and(|n| n.is_none_or(|n| n == node));
            let events = if is_own { reader.count().ok() } else { None };
            found.push(OnDisk { node, dir, events });
        }
    }
    Ok(found)
}

/// What is known of the logs of this installation, and what is there.
pub(crate) struct Survey {
    pub(crate) found: Vec<OnDisk>,
    pub(crate) losses: Vec<Loss>,
    /// Logs of others that share the database.
    pub(crate) elsewhere: Vec<TrailLog>,
    known: Vec<TrailLog>,
}

impl Survey {
    /// Asks the store first and looks at the disk then: a log that is being written is only ever ahead of its index.
    pub(crate) async fn make(config: &Config, store: &Store) -> Result<Self, ConfigError> {
        let wrong = |key: &str, why: String| ConfigError::new(&config.file, format!("{key}: {why}"));
        let known = store.trail_logs().await.map_err(|e| wrong("store.url", chain(&e)))?;
        let asked = config.clone();
        let found = tokio::task::spawn_blocking(move || on_disk(&asked)).await;
        let found = found
            .map_err(|e| wrong("trail.dir", e.to_string()))?
            .map_err(|e| wrong("trail.dir", format!("{}: {e}", config.trail.dir.display())))?;
        let here = place(config);
        let (own, elsewhere): (Vec<_>, Vec<_>) = known.into_iter().partition(|log| {
            // A log that nobody ever claimed is missed here rather than nowhere.
            !store.is_shared()
                || log.place.as_ref().is_none_or(|place| *place == here)
                || found.iter().any(|f| f.node == log.node)
        });
        let losses = own.iter().filter_map(|log| loss(log, &found)).collect();
        Ok(Self { found, losses, elsewhere, known: own })
    }

    /// The newest event of a log that must be there.
    pub(crate) fn newest(&self, node: NodeId) -> Option<Seq> {
        self.known.iter().find(|log| log.node == node).and_then(|log| expected(log).checked_sub(1)).map(Seq)
    }

    /// Whether a log was acknowledged as gone altogether: what lies in its folder proves nothing.
    pub(crate) fn is_given_up(&self, node: NodeId) -> bool {
        self.known.iter().any(|log| log.node == node && is_given_up(log))
    }

    /// Nothing, when nothing is missed.
    pub(crate) fn refuse(&self, config: &Config) -> Result<(), ConfigError> {
        if self.losses.is_empty() {
            return Ok(());
        }
        let told = tell(&self.losses);
        Err(ConfigError::new(
            &config.file,
            format!(
                "trail.dir: {told}. Put it back, or go on without it: portcullis audit acknowledge --reason \"what \
                 happened\""
            ),
        ))
    }
}

/// How many events of a log must be on the disk.
fn expected(log: &TrailLog) -> u64 {
    match &log.loss {
        // More than what was acknowledged: it was written on since, and that is gone as well.
        Some(loss) if log.known <= loss.known => loss.kept,
        _ => log.known,
    }
}

fn is_given_up(log: &TrailLog) -> bool {
    log.loss.is_some_and(|l| l.kept == 0 && log.known <= l.known)
}

fn loss(log: &TrailLog, found: &[OnDisk]) -> Option<Loss> {
    let left = found.iter().find(|f| f.node == log.node);
    let holds = left.and_then(|f| f.events);
    // A log without an event is missed too: it was begun here.
    let is_there = holds.is_some_and(|events| events >= expected(log));
    (!is_there && !is_given_up(log)).then(|| Loss {
        node: log.node,
        expected: expected(log),
        known: log.known,
        left: left.cloned(),
    })
}

/// Opens the server's log, unless something is missing that nobody acknowledged.
pub(crate) async fn open(
    config: &Config,
    keys: &Keys,
    store: &Store,
    clock: Arc<dyn Clock>,
) -> Result<(Trail, Recovered), ConfigError> {
    Survey::make(config, store).await?.refuse(config)?;
    let opened = open_trail(config, keys, LogOf::Server, clock)?;
    claim(config, store, opened.0.node()).await?;
    Ok(opened)
}

/// Remembers that a log is written here, before anything of it is in the index.
pub(crate) async fn claim(config: &Config, store: &Store, node: NodeId) -> Result<(), ConfigError> {
    let claimed = store.claim_trail(node, &place(config)).await;
    claimed.map_err(|e| ConfigError::new(&config.file, format!("store.url: {}", chain(&e))))
}

/// Takes what is left of a log out of the way of a new one, when it stands where one is written.
pub(crate) fn set_aside(config: &Config, of: LogOf, losses: &[Loss]) -> Result<(), ConfigError> {
    let dir = of.dir(config);
    let is_there = |loss: &&Loss| loss.left.as_ref().is_some_and(|left| left.dir == dir);
    let Some(loss) = losses.iter().find(is_there) else { return Ok(()) };
    let wrong = |why: String| ConfigError::new(&config.file, format!("trail.dir: {}: {why}", dir.display()));
    if is_live(&dir) {
        return Err(wrong("it is being written: stop the gateway first".to_owned()));
    }
    let aside = set_aside_dir(config);
    crate::state::make_private(&aside).map_err(|e| wrong(e.to_string()))?;
    std::fs::rename(&dir, aside.join(loss.node.to_string())).map_err(|e| wrong(e.to_string()))
}

/// What the store shall remember of them.
pub(crate) fn acknowledged(losses: &[Loss]) -> Vec<TrailLoss> {
    losses.iter().map(|l| TrailLoss { node: l.node, known: l.known, kept: l.kept() }).collect()
}

/// What the log says about an event that the index found.
pub(crate) enum Told {
    /// The event itself.
    Event(Box<Placed>),
    /// The log says something else than the index, or nothing.
    Otherwise,
    /// Its log is not on this machine.
    NotHere,
}

/// Reads the events that the index found where the index says that they stand. It blocks on the disk.
pub(crate) fn read(config: &Config, rows: &[TrailRow]) -> Vec<Told> {
    let dirs = on_disk_dirs(config);
    rows.iter()
        .map(|row| {
            let Some((_, dir)) = dirs.iter().find(|(node, _)| *node == row.node) else { return Told::NotHere };
            match Reader::new(dir).placed(row.segment, row.offset) {
                Ok(Some(placed)) if agrees(row, &placed) => Told::Event(Box::new(placed)),
                _ => Told::Otherwise,
            }
        })
        .collect()
}

/// Which node's log is in which folder, without reading any.
fn on_disk_dirs(config: &Config) -> Vec<(NodeId, PathBuf)> {
    let own = [LogOf::Server, LogOf::CommandLine].map(|of| of.dir(config));
    let aside = std::fs::read_dir(set_aside_dir(config)).into_iter().flatten().flatten().map(|e| e.path());
    own.into_iter().chain(aside).filter_map(|dir| Some((node_of(&dir).ok()??, dir))).collect()
}
