// SPDX-License-Identifier: Apache-2.0
//! Towards the hypervisor, with its credential.
//!
//! In comes a [`Permit`](portcullis_policy::Permit) with what it permits: an API request, a change of power, the
//! opening of a screen. Out comes what the hypervisor answers, without anything that only the gateway may know. Beside
//! that, the [`Fleet`] keeps the inventory that decisions are made on.
//!
//! What must never happen here:
//! - a hypervisor's credential, console password or channel secret in a header, an answer, an event, a log or an error;
//! - a request upstream without a permit for that very hypervisor, or with a permit that has run out;
//! - an answer of one request given to another: a connection of which anything is in doubt is closed, not reused;
//! - a host that a hypervisor named: addresses come from the configuration only;
//! - one hypervisor that is slow, lying or hostile and costs another one anything.
//!
//! One connection to an API, as the [`Forwarder`] sees it:
//!
//! ```text
//! dial --TLS, credential--> idle --request--> busy --answer read, body sent, nothing else came--> idle (50 s)
//!                            |                 |---101---> tunnel, handed to the caller
//!                            '-closed by peer--'---anything else---> closed
//! ```
//!
//! What is no hypervisor is reached through [`Outbound`]: the same rules, without a permit, since nothing is lent.
//!
//! Decisions (2026-11-21): connections are driven by the request that uses them, no task each; HTTP/1.1 upstream
//! always; answers are never cached; redirects never followed; libvirt and QMP are spoken natively, because a library
//! or a helper process would be a second place with the credential; an LXD list is read without its live state
//! (recursion 1), which says all that the inventory holds at a tenth of the size; a hypervisor that is lost keeps its
//! machines in the inventory with an unknown state, so that people find them with the reason.
//!
//! Decisions (2026-11-28): a hypervisor has one driver a credential, and a permit's action says which of them works, so
//! that no driver has to know that there are others; secrets are held apart from what is made of them and looked up at
//! each use, so that a rotation needs no restart and cuts no screen.
//!
//! Decision (2026-11-28): a Proxmox screen is opened by the gateway itself, and its API passes none on: the ticket of one
//! would be good for anybody who reaches the cluster.

mod adding;
mod api;
mod automated;
mod badge;
mod body;
mod broker;
mod called;
mod calls;
mod config;
mod credential;
mod desk;
mod driver;
mod error;
mod exchange;
mod fleet;
mod forward;
mod framed;
mod headers;
mod inspect;
mod kind;
mod mail;
mod outbound;
mod rotate;
mod secret;
mod tls;
mod vault;
mod wire;

pub use adding::{Addable, Ask, Dial, Draft, Form as AskForm, Shown, Tried, Wrong, briefly};
pub use automated::Seated;
pub use badge::Account;
pub use body::ResponseBody;
pub use broker::{Broker, MAX_ANSWER, MAX_STRIPPED, TaskOwner, strip_secrets};
pub use called::{Called, Objects};
pub use calls::{Calling, Objects as CallObjects};
pub use config::{ApiDoor, HypervisorConfig, Reach, RpcDoor, Trust, Verify};
pub use desk::{Face, Part, Reply, Seat, Sight, Wait};
pub use driver::{
    Basis, Beside, Cut, Cutter, Frame, FrameKind, FrameStatus, Frames, Gaze, LinkReader, LinkWriter, PowerVerb,
    RpcFace, Screen, ScreenLogin, Settings, Standing, Step, Watched,
};
pub use error::{Error, Fault};
pub use fleet::{Fleet, Health, HealthState, Seen, Work};
pub use forward::{Answer, Forwarder, RequestContext, SWEEP};
pub use framed::Framed;
pub use inspect::Met;
pub use kind::Kind;
pub use mail::{Mail, MailServer, MailTls, Mailer, Undelivered};
pub use outbound::Outbound;
pub use rotate::{Form, KnownAs, Rotation, new_password};
pub use secret::{Kept, Origin, Refreshed, SecretName, SecretState, Secrets};
pub use tls::TlsUpgrade;
pub use vault::{Vault, VaultConfig};
pub use wire::{Early, Joined, Stream, Tunnel};
