// SPDX-License-Identifier: Apache-2.0
//! What a request asks, told from its method, path, query and upgrade, and from its body where an API says it there.
//!
//! A hypervisor's API is classified by one reviewed table an API, under `policies/classify`; the gateway's own routes
//! by [`own`]. What no table knows is denied. The path is read once, by [`canonical`], and the same text is decided on
//! and sent; the query is sent as it came, so one that could be read in two ways is refused.

mod canonical;
mod form;
mod json;
pub mod libvirt;
mod markup;
mod methods;
pub mod own;
mod params;
mod patch;
pub mod qmp;
mod query;
pub mod rpc;
pub mod soap;
mod table;
mod tree;
mod volume;
pub mod xdr;

pub use canonical::{Ambiguous, Canonical, canonical};
pub use form::{Form, MAX_FORM};
pub use json::{Extent, Json, MAX_JSON, Written};
pub use markup::Node;
pub use methods::{Back, Entrance, MethodEntry, Methods, MethodsKind, Objects, Owner, Told, reference};
pub use query::read_pairs;
pub use table::{ApiKind, Entry, Table};

use portcullis_domain::{Action, Effect, HypervisorName, Operation};
use std::{borrow::Cow, fmt};

/// Whether the request asks to change the protocol of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// It does not.
    None,
    /// It asks for a WebSocket, or another stream of bytes both ways.
    WebSocket,
}

/// One request, as far as it says what it asks.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method, in capitals as sent.
    pub method: &'a str,
    /// The path.
    pub path: &'a Canonical,
    /// What follows `?`, undecoded.
    pub query: Option<&'a str>,
    /// Whether the protocol is to change.
    pub upgrade: Upgrade,
    /// What its body says.
    pub body: Body<'a>,
}

/// The body of a request, as far as it says what is asked.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// It was not looked at.
    Unread,
    /// Parameters.
    Params(&'a Form),
    /// Nested JSON.
    Json(&'a Json),
}

/// The body of a request, read as its API's table wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Parameters.
    Params(Form),
    /// Nested JSON.
    Json(Json),
}

impl Content {
    /// What it says.
    pub const fn said(&self) -> Body<'_> {
        match self {
            Self::Params(form) => Body::Params(form),
            Self::Json(json) => Body::Json(json),
        }
    }
}

/// What a request asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// An operation that can be decided on.
    Operation {
        /// What is asked.
        operation: Operation,
        /// What must be allowed as well, for what the parameters name.
        also: Vec<Operation>,
        /// What must be done to the answer.
        answer: Answer,
    },
    /// A look at what the person may see of a hypervisor: all of it, or the machines that they may see.
    Visible {
        /// Which hypervisor.
        hypervisor: HypervisorName,
        /// What must be done to the answer.
        answer: Answer,
    },
    /// It can be told only with its body: read it by [`Table::read_body`], and ask again.
    Unread,
    /// A task that an earlier operation began: what it touches is known to whoever keeps tasks.
    Task {
        /// Which task, and what is done with it.
        task: Task,
        /// What must be done to the answer.
        answer: Answer,
    },
    /// Never passed on. The reason is for the person.
    Denied(Cow<'static, str>),
}

/// A task of a hypervisor, named by its id. What it touches must be looked up by who began it through this gateway; one
/// that the person did not begin is what its id says, or denied.
#[derive(Clone, PartialEq, Eq)]
pub struct Task {
    /// Where it runs.
    pub hypervisor: HypervisorName,
    /// What is asked of its machine. For a stream, the right that began the task is asked again if it is another one.
    pub action: Action,
    /// Whether it can change something.
    pub effect: Effect,
    /// Its id.
    pub id: String,
    /// What following it is for somebody who did not begin it, where the id itself says that.
    pub about: Option<Operation>,
    /// The secret that was presented for one of its streams. It is one that the gateway gave out, never the real one.
    pub secret: Option<String>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hypervisor, action, effect, id, about: _, secret } = self;
        let secret = if secret.is_some() { "present" } else { "none" };
        write!(f, "Task({action} on task {id} of {hypervisor}, {effect:?}, secret {secret})")
    }
}

/// What must be done to an answer before the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Nothing.
    Pass,
    /// Its body carries the secrets of streams: they are exchanged for ones of the gateway's own.
    ConsoleSecrets,
    /// Its body may carry secrets of streams: they are taken out.
    StripSecrets,
    /// A stream of events: each one is filtered.
    Events,
    /// Its rows are left out where the person may not see what they are about, and secrets are taken out.
    Rows,
    /// The same; secrets are taken out for those, too, who may see the whole of it.
    CleanRows,
    /// It is made of objects, as a list that comes in pages or a stream of changes: each is left out where the person may
    /// not see what it is about, and secrets are taken out for everybody.
    Objects,
}
