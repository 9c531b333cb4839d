// SPDX-License-Identifier: Apache-2.0
//! What can go wrong, by what the caller can do about it.

use portcullis_domain::{HypervisorName, MachineRef};

/// What a hypervisor did wrong, in words for the person who waits for it. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection: wrong address, switched off, a firewall, or it hung up. Trying again later may help.
    #[error("cannot be reached: {why}")]
    Unreachable {
        /// What was tried.
        why: String,
        /// What the system said.
        #[source]
        source: Option<std::io::Error>,
    },
    /// Its certificate was not accepted, or it did not accept ours. The configuration or the peer must change.
    #[error("failed the TLS check: {0}")]
    Untrusted(String),
    /// It did not finish a step within the step's deadline.
    #[error("took too long {0}")]
    TooSlow(&'static str),
    /// It understood and said no; the text is its own, shortened and cleaned.
    #[error("said no: {0}")]
    Refused(String),
    /// The gateway has no secret for it that could be used; the log, `secrets list` and `doctor` say why.
    #[error("cannot be asked: the gateway has no credential for it that can be used now")]
    NoSecret,
    /// It does not know the gateway's session, or does not know it any more.
    #[error("does not know the gateway's session")]
    Unauthenticated,
    /// It sent what its protocol does not allow, or too much of it.
    #[error("sent something wrong: {0}")]
    Protocol(String),
    /// This kind of hypervisor cannot do that; the text says what can.
    #[error("cannot do that: {0}")]
    Unsupported(String),
    /// The machine has no screen at the moment.
    #[error("has no screen to show: {0}")]
    NoScreen(String),
}

impl Fault {
    /// For a failed system call.
    pub(crate) fn unreachable(why: impl Into<String>, source: std::io::Error) -> Self {
        let why = format!("{}: {source}", why.into());
        Self::Unreachable { why, source: Some(source) }
    }

    /// For a connection that ended too early.
    pub(crate) fn hung_up(why: impl Into<String>) -> Self {
        Self::Unreachable { why: why.into(), source: None }
    }

    /// The same with the hypervisor's name.
    pub(crate) fn at(self, hypervisor: &HypervisorName) -> Error {
        Error::Upstream { hypervisor: hypervisor.clone(), fault: self }
    }
}

/// Errors of the upstream room.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used: `key` is the TOML key, `why` names the file where there is one.
    #[error("{key}: {why}")]
    Config {
        /// The key, such as `hypervisors.lab.tls.ca_file`.
        key: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The permit was given for another operation. A fault of the gateway itself: nothing was done.
    #[error("the permit is for {0}, not for what was asked of the hypervisor")]
    WrongPermit(String),
    /// The permit has run out: decide again.
    #[error("the permit has run out")]
    PermitExpired,
    /// No such hypervisor is configured, or it has no API.
    #[error("no hypervisor called {0} has what was asked for")]
    UnknownHypervisor(HypervisorName),
    /// The machine is not in the inventory.
    #[error("{0} is not in the inventory")]
    UnknownMachine(MachineRef),
    /// The request itself cannot be sent on; the text says which part of it.
    #[error("the request cannot be sent on: {0}")]
    Request(String),
    /// The client stopped sending its request's body.
    #[error("the client stopped sending the request")]
    ClientGone(#[source] hyper::Error),
    /// Every connection to the hypervisor, or every place in a table, is in use. Trying again later may help.
    #[error("{0}")]
    Busy(String),
    /// The hypervisor failed.
    #[error("{hypervisor} {fault}")]
    Upstream {
        /// Which one.
        hypervisor: HypervisorName,
        /// How.
        #[source]
        fault: Fault,
    },
}

impl Error {
    /// Whether the hypervisor answered, and said no: to the credential, most likely.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Upstream { fault: Fault::Refused(_) | Fault::Unauthenticated, .. })
    }

    /// A configuration error.
    pub(crate) fn config(key: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Config { key: key.into(), why: why.into() }
    }
}
