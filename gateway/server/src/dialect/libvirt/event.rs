// SPDX-License-Identifier: Apache-2.0
//! Events on their way to the client: of the machines that the person may see now, and of the rest of the hypervisor for
//! those who may see all of it. What cannot be told is left out.

use super::{answer::Sight, session::Session};
use portcullis_policy::classify::libvirt::{About, Procedures};
use portcullis_upstream::Frame;

/// Passes one on, or not.
pub(super) async fn pass(session: &Session, frame: Frame) {
    let about = Procedures::builtin().about(&session.hypervisor, frame.program, frame.procedure, &frame.payload);
    let Some(actor) = session.actor() else { return };
    let sight = Sight::of(session, &actor);
    let may = match about {
        Some(About::Machine(at)) => sight.sees(&at),
        Some(About::Hypervisor) => sight.whole(),
        Some(About::Connection) => true,
        None => false,
    };
    if may {
        session.send(frame).await;
    }
}
