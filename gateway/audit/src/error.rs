// SPDX-License-Identifier: Apache-2.0
//! What can go wrong in this room, by what the caller can do about it.

use portcullis_domain::{NodeId, Seq};
use std::{io, path::PathBuf, sync::Arc};

/// Why the trail could not do what was asked. Whatever the variant, the operation that needed the event is refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Another process writes this log: end it first.
    #[error("{} is in use by another process; a log has one writer", .0.display())]
    InUse(PathBuf),
    /// Not enough free space to begin: free some.
    #[error("only {free} bytes are free in {}, and the trail wants {needed} in reserve; free some space", dir.display())]
    NoSpace {
        /// The folder of the log.
        dir: PathBuf,
        /// Free bytes.
        free: u64,
        /// Bytes that the settings ask for.
        needed: u64,
    },
    /// The file system refused while a log was opened or read.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A write or a flush failed while the trail was running. It accepts nothing more: mend the disk and start again.
    #[error("the trail failed and accepts nothing more: cannot {doing}: {source}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The trail was closed.
    #[error("the trail is closed")]
    Closed,
    /// The disk is slower than the events: refuse now, try again later.
    #[error("the trail is behind: {0} bytes wait for the disk")]
    Behind(usize),
    /// The event does not fit.
    #[error("an event of {bytes} bytes does not fit into the trail; at most {limit}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The greatest size in bytes.
        limit: usize,
    },
    /// The event could not be encoded.
    #[error("an event could not be encoded: {0}")]
    Encode(postcard::Error),
    /// Acknowledged bytes were changed or lost: run `portcullis audit verify`, then restore the log from a backup.
    #[error("{file} is damaged at byte {offset}: {what}; run `portcullis audit verify`, then restore the log")]
    Damaged {
        /// The file's name in the log's folder.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The log ends before a checkpoint that was published: it was cut, or an old copy was put back.
    #[error(
        "the log holds {found} events, but a signed checkpoint says that there were {known}: its end was cut or an old \
         copy was put back; restore the newest copy"
    )]
    Cut {
        /// Events that a signed checkpoint covers.
        known: u64,
        /// Events that are there.
        found: u64,
    },
    /// The log belongs to another node.
    #[error("this log belongs to node {found}, not to {expected}")]
    WrongNode {
        /// The node that the caller is.
        expected: NodeId,
        /// The node in the log.
        found: NodeId,
    },
    /// A key has the wrong size.
    #[error("the trail's {0}")]
    Keys(&'static str),
    /// A setting cannot be used.
    #[error("the trail's {0}")]
    Settings(&'static str),
    /// There is no such event where the index says: rebuild the index.
    #[error("event {0} is not where the index says it is; rebuild the index")]
    Misplaced(Seq),
    /// The store refused: the index can be filled again later.
    #[error("the index of the trail: {0}")]
    Index(Arc<portcullis_store::Error>),
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.into(), source: Arc::new(source) }
    }

    pub(crate) fn index(source: portcullis_store::Error) -> Self {
        Self::Index(Arc::new(source))
    }
}
