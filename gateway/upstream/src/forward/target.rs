// SPDX-License-Identifier: Apache-2.0
//! Where requests go: the connections of one shard to each hypervisor, by what its credentials are for.

use crate::{
    api::{Api, Dialect},
    driver::MethodApi,
    error::Error,
    exchange::Live,
    secret::Choice,
    wire::Dialer,
};
use bytes::Bytes;
use http::HeaderValue;
use hyper::body::Body;
use portcullis_domain::HypervisorName;
use std::{
    error::Error as StdError,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many sweeps a connection may lie idle before it is closed instead of used: 50 s.
const IDLE: u64 = 10;
/// How long a request waits for one of a hypervisor's connections.
const QUEUE: Duration = Duration::from_secs(10);

/// Idle connections to one hypervisor, newest first out.
pub(crate) struct Pool<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    #[expect(clippy::vec_box, reason = "a connection is large; between pool and request only a pointer moves")]
    idle: Mutex<Vec<Box<Live<B>>>>,
    slots: Arc<Semaphore>,
    sweeps: AtomicU64,
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    pub(super) fn take(&self) -> Option<Box<Live<B>>> {
        loop {
            let mut live = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if self.is_young(&live) && live.is_clean() {
                return Some(live);
            }
        }
    }

    /// Takes a connection back; one that is not clean is closed (SEC-068).
    pub(crate) fn give_back(&self, mut live: Box<Live<B>>) {
        if live.is_clean() {
            live.rest(self.sweeps.load(Ordering::Relaxed));
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(live);
        }
    }

    fn is_young(&self, live: &Live<B>) -> bool {
        self.sweeps.load(Ordering::Relaxed) - live.rested() < IDLE
    }

    pub(super) fn sweep(&self) {
        self.sweeps.fetch_add(1, Ordering::Relaxed);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|l| self.is_young(l) && l.is_clean());
    }

    pub(super) async fn slot(&self, hypervisor: &HypervisorName) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        match Box::pin(tokio::time::timeout(QUEUE, Arc::clone(&self.slots).acquire_owned())).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(Error::Busy(format!("all connections to {hypervisor} are in use; try again in a moment"))),
        }
    }
}

pub(crate) struct Target<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    pub(super) dialer: Arc<Dialer>,
    pub(super) host: HeaderValue,
    pub(super) origins: Vec<String>,
    pub(super) dialect: &'static Dialect,
    pub(super) pool: Arc<Pool<B>>,
    /// Where it is signed in at, and the other hosts of it.
    api: Option<Arc<MethodApi>>,
    pub(super) others: Vec<Target<B>>,
}

impl<B> Target<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    fn new(api: &Api, dialer: &Arc<Dialer>, host: &HeaderValue) -> Self {
        let pool = Pool {
            idle: Mutex::new(Vec::new()),
            slots: Arc::new(Semaphore::new(api.connections)),
            sweeps: AtomicU64::new(0),
        };
        let (dialer, host, pool) = (Arc::clone(dialer), host.clone(), Arc::new(pool));
        let (origins, others) = (api.origins.clone(), Vec::new());
        Self { dialer, host, origins, dialect: api.dialect, pool, api: api.pool.clone(), others }
    }

    pub(crate) const fn api(&self) -> Option<&Arc<MethodApi>> {
        self.api.as_ref()
    }

    pub(crate) const fn dialer(&self) -> &Arc<Dialer> {
        &self.dialer
    }

    /// The host of a number.
    pub(crate) fn member(&self, number: usize) -> Option<&Self> {
        number.checked_sub(1).map_or(Some(self), |n| self.others.get(n))
    }
}

/// The way to one hypervisor, by what its credentials are for.
pub(crate) struct Lent<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    /// Whose API it is: another one under the same name is another way.
    pub(super) api: Arc<Choice<Arc<Api>>>,
    pub(crate) targets: Choice<Target<B>>,
}

impl<B> Lent<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    pub(super) fn new(api: Arc<Choice<Arc<Api>>>) -> Self {
        let of = |api: &Arc<Api>| {
            let mut target = Target::new(api, &api.dialer, &api.host);
            let others = api.pool.iter().flat_map(|pool| pool.members().iter().skip(1));
            target.others = others.map(|m| Target::new(api, &m.dialer, &m.host)).collect();
            target
        };
        // Connections of their own each: one that was made with a credential is used with no other one.
        let others = api.others.iter().map(|(duties, api)| (duties.clone(), of(api))).collect();
        let targets = Choice { default: of(&api.default), others };
        Self { api, targets }
    }
}
