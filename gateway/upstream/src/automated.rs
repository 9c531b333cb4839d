// SPDX-License-Identifier: Apache-2.0
//! Requests to an HTTP API that has sessions: each with a permit, in the session of whoever asks.

use crate::{
    credential::Injected,
    desk::{Desk, Placed, Seat, Sight, full},
    driver::{Automation, keep_seen},
    error::{Error, Fault},
    fleet::Fleet,
    forward::{Answer, Forwarder, RequestContext, Signed},
};
use bytes::Bytes;
use http::Request;
use hyper::body::Body;
use portcullis_domain::HypervisorName;
use portcullis_policy::{Permit, classify::Canonical};
use std::{error::Error as StdError, sync::Arc};

/// Whose session a request is sent in, and where the sessions are.
#[derive(Clone, Copy)]
pub struct Seated<'a> {
    /// All hypervisors.
    pub fleet: &'a Fleet,
    /// Whose.
    pub seat: Seat,
}

impl Fleet {
    /// Leaves in the answer to a list what somebody sees, and takes the secrets out.
    pub fn keep_seen(&self, permit: &Permit, answer: &[u8], sight: &Sight) -> Result<Vec<u8>, Error> {
        let operation = permit.operation();
        let name = operation.resource.hypervisor().ok_or_else(|| Error::WrongPermit(operation.to_string()))?;
        keep_seen(answer, sight).map_err(|f| f.at(name))
    }
}

impl Desk {
    fn release(&self) -> String {
        self.face.load().as_ref().map(|face| face.release.clone()).unwrap_or_default()
    }

    async fn open(&self, seat: Seat) -> Result<Arc<Automation>, Fault> {
        let session = Arc::new(self.center.open(&self.release()).await?);
        match self.automation.place(seat, &session) {
            Placed::Here(given_up) => {
                if let Some(given_up) = given_up {
                    self.center.close(&given_up).await;
                }
                Ok(session)
            }
            Placed::Taken(first) => {
                self.center.close(&session).await;
                Ok(first)
            }
            Placed::Full => {
                self.center.close(&session).await;
                Err(full())
            }
        }
    }
}

impl<B> Forwarder<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Sends one request in somebody's own session, which is made where there is none. One that the hypervisor has ended
    /// is made anew, once, and the request is sent again: nothing of it was done. `make` gives the request.
    pub async fn forward_seated(
        &self,
        permit: &Permit,
        seated: Seated<'_>,
        path: &Canonical,
        context: RequestContext,
        make: impl Fn() -> Request<B>,
    ) -> Result<Answer<B>, Error> {
        let Seated { fleet, seat } = seated;
        let operation = permit.operation();
        let name = operation.resource.hypervisor().ok_or_else(|| Error::WrongPermit(operation.to_string()))?;
        if permit.user() != seat.user {
            return Err(Error::WrongPermit(operation.to_string()));
        }
        let desk = fleet.desk_for(name, operation.action).ok_or_else(|| Error::UnknownHypervisor(name.clone()))?;
        // Lent for this one request: whoever has no permit for this hypervisor gets no further.
        let _lent = Injected::lend(permit, name, &desk.center.dialer, self.clock.now())?;
        let mut is_new = false;
        loop {
            let session = if let Some(session) = desk.automation.seated(&seat) {
                session
            } else {
                is_new = true;
                desk.open(seat).await.map_err(|f| f.at(name))?
            };
            let answer = self.forward_signed(permit, path, make(), context, Signed::Own(&session)).await?;
            let is_unknown = matches!(&answer, Answer::Response(r) if r.status().as_u16() == 401);
            // A guest that does not know somebody is said in the same status: only the session itself tells.
            if !is_unknown || counts(&desk, &session, name).await? {
                return Ok(answer);
            }
            desk.automation.leave(&seat, &session);
            if is_new {
                return Err(Fault::Unauthenticated.at(name));
            }
        }
    }
}

async fn counts(desk: &Desk, session: &Automation, name: &HypervisorName) -> Result<bool, Error> {
    desk.center.counts(session).await.map_err(|f| f.at(name))
}
