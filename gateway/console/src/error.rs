// SPDX-License-Identifier: Apache-2.0
//! Why a screen cannot be opened or recorded.

use crate::rfb::Step;
use std::{io, path::PathBuf};

/// What can go wrong before a console runs. What ends a running one is an [`portcullis_domain::Ending`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The screen did not finish its handshake in time.
    #[error("the screen did not finish its handshake in time (at: {0})")]
    TimedOut(Step),
    /// The connection to the screen broke.
    #[error("the connection to the screen broke (at: {step})")]
    Io {
        /// Where.
        step: Step,
        /// How.
        source: io::Error,
    },
    /// TLS failed: the certificate does not fit the configured CA, pin or name, or the server speaks no TLS.
    #[error("TLS to the screen failed ({0}): check the CA or pin configured for this hypervisor")]
    Tls(#[source] io::Error),
    /// Whatever listens there is no VNC server.
    #[error("what answers at the screen's address is not a VNC server")]
    NotRfb,
    /// The server refused to talk. The text is its reason.
    #[error("the screen refused the connection: {0}")]
    Refused(String),
    /// The server did not accept the login. The text is its reason.
    #[error("the screen did not accept the configured password: {0}")]
    WrongLogin(String),
    /// The server wants a password and none is configured.
    #[error("the screen asks for a password and none is configured for it")]
    NeedsPassword,
    /// The server wants a name and none is configured.
    #[error("the screen asks for a user name and none is configured for it")]
    NeedsUsername,
    /// Every type that the server offers is weaker than what is configured.
    #[error("the screen offers less security than is configured ({0}): an impostor, or its configuration changed")]
    Downgrade(&'static str),
    /// No type that the server offers is spoken here.
    #[error(
        "the screen offers only security types that the gateway does not speak ({0:?}): \
         use none, a VNC password, or VeNCrypt with X509"
    )]
    Unsupported(Vec<u32>),
    /// The server announced something beyond the limits.
    #[error("the screen announced {what} of {found}, which is too large")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large.
        found: String,
    },
    /// Too little space is left for another recording.
    #[error("{folder} has {free_mib} MiB left and recordings need {floor_mib} MiB: free some, or lower recording.min_free", folder = .folder.display())]
    NoSpace {
        /// Where recordings are written.
        folder: PathBuf,
        /// What is left.
        free_mib: u64,
        /// What must be left.
        floor_mib: u64,
    },
    /// The folder or a file in it cannot be used.
    #[error("recordings cannot be written to {path}: {source}", path = .path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The recording's key does not have 32 bytes.
    #[error("a recording's key must have 32 bytes")]
    RecordingKey,
    /// The recording could not be written; what was accepted may be incomplete on disk.
    #[error("the recording could not be written")]
    RecordingFailed,
}
