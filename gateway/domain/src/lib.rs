// SPDX-License-Identifier: Apache-2.0
//! The words of the house: what people, machines, actions and proofs are called.
//!
//! No I/O, no async, no clock of its own and no randomness: time and chance are
//! arguments. Every room imports this one and it imports none, so it is kept
//! small and dull. What must never happen here: a secret that can be printed or
//! serialised (see [`secret::Secret`]), or a word that means two things.

pub mod action;
pub mod actor;
pub mod assurance;
pub mod clock;
pub mod console;
mod count;
pub mod event;
pub mod grant;
pub mod hours;
pub mod id;
mod intent;
pub mod machine;
mod mail;
pub mod network;
pub mod resource;
pub mod secret;

pub use action::{Action, UnknownAction};
pub use actor::{Actor, Pass, Via};
pub use assurance::{Assurance, Factor, Level};
pub use clock::{Clock, ManualClock, SystemClock};
pub use console::{ConsoleMode, Ending};
pub use count::counted;
pub use event::{Event, Outcome, Phase, Seq, Subject, micros};
pub use grant::{
    Conditions, Grant, GrantChange, GrantEffect, GrantSource, Holder, Pattern, RoleName, Segment, Selector,
};
pub use hours::Hours;
pub use id::{
    AccessId, GrantId, GroupId, HypervisorName, LockId, MachineId, NodeId, ParseIdError, PassId, ProposalId,
    RecordingId, RequestId, SessionId, TokenId, UserId,
};
pub use intent::Intent;
pub use machine::{ConsoleKind, Inventory, Machine, MachineKind, PowerState};
pub use mail::{BadMailAddress, MailAddress};
pub use network::Network;
pub use resource::{Effect, MachineRef, Operation, OwnObject, Resource};
pub use secret::Secret;
