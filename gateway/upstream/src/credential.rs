// SPDX-License-Identifier: Apache-2.0
//! The one place where a permit is turned into the use of a hypervisor's credential.
//!
//! [`Injected`] has no `Debug`, no `Serialize`, no public constructor and never leaves this crate. Only a permit for
//! the very hypervisor makes one, and it must not have run out. Where a hypervisor has several credentials, the permit's
//! action says which one is lent; when that one cannot be used nothing is done, and no other one takes its place.

use crate::{
    badge::Badge,
    called,
    driver::{Automation, Session},
    error::Error,
    wire::Dialer,
};
use http::HeaderValue;
use portcullis_domain::{Action, HypervisorName, MachineRef, Resource};
use portcullis_policy::{Permit, classify::rpc::Hollow};
use time::OffsetDateTime;

/// A hypervisor's credential in use. For LXD and libvirt that is the way to a connection that is already authenticated,
/// by a client certificate or the process's own user; elsewhere it is a header of each request,
/// and for XCP-ng a session in each call.
pub(crate) struct Injected<'a> {
    dialer: &'a Dialer,
}

impl<'a> Injected<'a> {
    /// Lends the credential of one hypervisor for one permitted operation on it.
    pub(crate) fn lend(
        permit: &Permit,
        hypervisor: &HypervisorName,
        dialer: &'a Dialer,
        now: OffsetDateTime,
    ) -> Result<Self, Error> {
        check_expiry(permit, now)?;
        let operation = permit.operation();
        if operation.resource.hypervisor() != Some(hypervisor) {
            return Err(Error::WrongPermit(operation.to_string()));
        }
        // Both are answered by the gateway itself; neither can be granted, so such a permit is a fault.
        if matches!(operation.action, Action::Session | Action::Deny) {
            return Err(Error::WrongPermit(operation.to_string()));
        }
        Ok(Self { dialer })
    }

    /// The body of a call with the gateway's session.
    #[expect(clippy::unused_self, reason = "only who holds a credential in use may fill it in")]
    pub(crate) fn filled(&self, session: &Session, hollow: &Hollow) -> Option<Vec<u8>> {
        hollow.filled(session.reference())
    }

    /// The cookie of a request beside the calls.
    #[expect(clippy::unused_self, reason = "only who holds a credential in use may show it")]
    pub(crate) fn cookie(&self, session: &Session) -> Option<HeaderValue> {
        called::cookie(session)
    }

    /// What a request in a session of somebody's own shows.
    #[expect(clippy::unused_self, reason = "only who holds a credential in use may show it")]
    pub(crate) fn shown(&self, session: &Automation) -> HeaderValue {
        session.shown().clone()
    }

    /// Where and how to connect.
    pub(crate) const fn dialer(&self) -> &'a Dialer {
        self.dialer
    }

    /// What the request shows, after everything that the client said is gone.
    pub(crate) fn badge(&self) -> Option<&'a Badge> {
        self.dialer.authorization.as_ref()
    }
}

fn check_expiry(permit: &Permit, now: OffsetDateTime) -> Result<(), Error> {
    if now < permit.expires_at() { Ok(()) } else { Err(Error::PermitExpired) }
}

/// The machine that a permit is for, if its action is one of `actions` and it has not run out.
pub(crate) fn machine_of<'p>(
    permit: &'p Permit,
    actions: &[Action],
    now: OffsetDateTime,
) -> Result<&'p MachineRef, Error> {
    check_expiry(permit, now)?;
    let operation = permit.operation();
    match &operation.resource {
        Resource::Machine(machine) if actions.contains(&operation.action) => Ok(machine),
        _ => Err(Error::WrongPermit(operation.to_string())),
    }
}
