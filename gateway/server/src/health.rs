// SPDX-License-Identifier: Apache-2.0
//! `/healthz`, `/readyz` and `/metrics`, on a listener of their own that no person needs to reach.

use crate::{
    config::{Config, ConfigError},
    listener,
    state::House,
};
use axum::{Router, extract::State, routing::get};
use http::{StatusCode, header};
use portcullis_upstream::HealthState;
use prometheus_client::{encoding::text::encode, metrics::gauge::Gauge, registry::Registry};
use std::sync::Arc;

/// Binds health's address, when there is one: while the house starts, so that one that is taken is a refused start and
/// not a gateway that nothing can watch.
pub(crate) fn bind(config: &Config) -> Result<Option<std::net::TcpListener>, ConfigError> {
    let Some(at) = config.health.listen else { return Ok(None) };
    let wrong = |e| ConfigError::new(&config.file, format!("health.listen: {at} cannot be listened on: {e}"));
    listener::bind_alone(at).map(Some).map_err(wrong)
}

/// Serves health until the house closes.
pub(crate) async fn serve(house: Arc<House>, listener: std::net::TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return house.fail(&format!("health.listen cannot be served: {error}")),
    };
    let closing = house.closing.clone();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(house);
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { closing.cancelled().await });
    if let Err(error) = served.await {
        tracing::error!(%error, "health is no longer served");
    }
}

/// Ready means: the store answers and the trail takes events. A hypervisor that is down does not make the gateway unready.
async fn ready(State(house): State<Arc<House>>) -> (StatusCode, &'static str) {
    if house.trail.failure().is_some() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the trail cannot be written\n");
    }
    match house.store.ping().await {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n"),
    }
}

async fn metrics(State(house): State<Arc<House>>) -> ([(header::HeaderName, &'static str); 1], String) {
    let mut registry = Registry::with_prefix("portcullis");
    let mut gauge = |name: &str, help: &str, value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    gauge("connections", "Open connections", count(house.connections.all()));
    gauge("consoles", "Live console sessions", count(house.lives.list().len()));
    gauge("machines", "Machines in the inventory", count(house.fleet.inventory().len()));
    gauge("trail_events", "Events in this node's trail", i64::try_from(house.trail.head().size).unwrap_or(i64::MAX));
    gauge(
        "trail_failed",
        "1 when the trail cannot be written and everything is denied",
        i64::from(house.trail.failure().is_some()),
    );
    gauge(
        "messages_waiting",
        "Mails and webhook messages that are still to be delivered",
        house.store.waiting_messages().await.unwrap_or(-1),
    );
    gauge(
        "messages_unposted",
        "Mails and webhook messages that were not posted since the start, because too many were waiting",
        i64::try_from(house.tell.unposted()).unwrap_or(i64::MAX),
    );
    let down = house.fleet.health().iter().filter(|h| !matches!(h.state, HealthState::Ok)).count();
    gauge("hypervisors_down", "Hypervisors that do not answer", count(down));
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &registry) {
        tracing::error!(%error, "metrics cannot be written");
    }
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
