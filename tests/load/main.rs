// SPDX-License-Identifier: Apache-2.0
//! `portcullis-load`: what `tests/bench` measures with. Each verb is one process, so that each can be pinned to a CPU
//! and its time told apart: upstreams (HTTP, screens), a plain relay, viewers, sign-ins, and the rows of an installation
//! (people, tokens, sessions, tickets, a long trail) that are made through the rooms that own them.
//!
//! Every verb that measures prints one JSON object. Nothing here listens but on 127.0.0.1 or a unix socket.

mod accounts;
mod past;
mod relay;
mod requests;
mod screen;
mod sign_in;
mod upstream;
mod viewer;
mod wire;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(about = "The load, the upstreams and the rows that tests/bench measures with")]
enum Verb {
    /// A management API of an LXD server, as far as reads go
    Upstream(upstream::Upstream),
    /// Screens: RFB servers that stream, or that echo
    Screen(screen::Screen),
    /// Copies bytes between a listener and a target, nothing else
    Relay(relay::Relay),
    /// Viewers of screens
    Viewer(viewer::Viewer),
    /// Uploads one long body
    Upload(requests::Upload),
    /// Opens connections, asks once on each, and keeps them
    Connections(requests::Connections),
    /// Signs people in, as fast as the gateway lets it
    SignIn(sign_in::SignIn),
    /// Hashes passwords at the gateway's cost, nothing else
    Hash(sign_in::Hash),
    /// Makes people, a token and sessions in an installation that does not run
    Accounts(accounts::Accounts),
    /// Makes console tickets for a session
    Tickets(accounts::Tickets),
    /// Gives an installation that does not run a long past: events in its trail, grants in its store
    Past(past::Past),
}

fn main() -> Result<()> {
    let verb = Verb::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match verb {
        Verb::Hash(hash) => hash.run(),
        Verb::Upstream(verb) => runtime.block_on(verb.run()),
        Verb::Screen(verb) => runtime.block_on(verb.run()),
        Verb::Relay(verb) => runtime.block_on(verb.run()),
        Verb::Viewer(verb) => runtime.block_on(verb.run()),
        Verb::Upload(verb) => runtime.block_on(verb.run()),
        Verb::Connections(verb) => runtime.block_on(verb.run()),
        Verb::SignIn(verb) => runtime.block_on(verb.run()),
        Verb::Accounts(verb) => runtime.block_on(verb.run()),
        Verb::Tickets(verb) => runtime.block_on(verb.run()),
        Verb::Past(verb) => runtime.block_on(verb.run()),
    }
}
