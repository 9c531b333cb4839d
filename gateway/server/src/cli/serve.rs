// SPDX-License-Identifier: Apache-2.0
//! `portcullis serve`: runs the gateway until it is told to stop.

use super::{Answer, say::complain};
use crate::{
    config::Config,
    start::{Running, Transport},
};
use clap::Args;
use portcullis_domain::SystemClock;
use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    sync::Arc,
};
use tokio::signal::unix::{SignalKind, signal};

/// Run the gateway
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The configuration file
    #[arg(long, env = "PORTCULLIS_CONFIG", default_value = "portcullis.toml")]
    config: PathBuf,
    /// Plain HTTP, on loopback only: for measuring and developing
    #[arg(long)]
    dev: bool,
    /// Log as JSON lines
    #[arg(long)]
    log_json: bool,
}

impl Serve {
    pub(super) fn run(&self) -> anyhow::Result<Answer> {
        // tower-sessions warns of every browser that comes back with the cookie of a session that has ended, as each
        // does in the morning.
        let quiet = "info,tower_sessions_core=error";
        let filter = tracing_subscriber::EnvFilter::try_from_env("PORTCULLIS_LOG").unwrap_or_else(|_| quiet.into());
        // Colours are for eyes: in a journal they are noise that no search finds a word through.
        let colours = std::io::stderr().is_terminal();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
        let log = log.with_ansi(colours);
        if self.log_json {
            log.json().try_init().ok();
        } else {
            log.try_init().ok();
        }
        let config = Config::read(&self.config, std::env::vars())?;
        let transport = if self.dev { Transport::PlainLoopback } else { Transport::Tls };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            let url = config.portal.origin();
            let running = Running::start(config, Arc::new(SystemClock), transport).await?;
            let mut words = format!("Portcullis answers at {url}\n");
            if let Some(link) = &running.set_up {
                words += "Nobody has an account yet. Open this link within 30 minutes to become the first administrator; it works once:\n  ";
                words += link;
                words += "\n";
            }
            // Whoever started it may listen no more: that is no reason to end.
            if let Err(error) = std::io::stdout().write_all(words.as_bytes()) {
                tracing::warn!(%error, "where it answers could not be printed");
            }
            let failure = tokio::select! {
                _ = interrupt.recv() => None,
                _ = terminate.recv() => None,
                why = running.failed() => Some(why),
            };
            tracing::info!("stopping");
            running.stop().await;
            Ok(match failure {
                None => Answer::Yes,
                // Not 2, which says that nothing was done and that a start again does not help.
                Some(why) => {
                    complain!("portcullis: {why}");
                    Answer::No
                }
            })
        })
    }
}
