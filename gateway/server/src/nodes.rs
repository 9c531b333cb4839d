// SPDX-License-Identifier: Apache-2.0
//! That this gateway runs, said through the store to whoever waits until every gateway has done something.

use crate::state::{House, chain};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// How often it is said.
const SAY: Duration = Duration::from_secs(5);
/// For how long a gateway that says nothing is counted among those that run, by the clock of whoever waits for it: three
/// times nothing was said. One that runs on without the store can do nothing for anybody.
pub(crate) const GONE: Duration = Duration::from_secs(15);
/// When one that is gone is forgotten.
const FORGOTTEN: time::Duration = time::Duration::DAY;

/// Says it while the house is open. `anew` is set when others have forgotten what this gateway does: it slept for a day.
pub(crate) async fn keep(house: &House, anew: &AtomicBool) {
    let node = house.trail.node();
    loop {
        tokio::time::sleep(SAY).await;
        let now = house.clock.now();
        let said = async {
            if !house.store.node_runs(node, now).await? {
                house.store.node_began(node, &crate::logs::place(&house.config), now).await?;
                anew.store(true, Ordering::Release);
            }
            house.store.drop_nodes(now - FORGOTTEN).await
        };
        if let Err(error) = said.await {
            tracing::warn!(error = %chain(&error), "that this gateway runs could not be written down");
        }
    }
}
