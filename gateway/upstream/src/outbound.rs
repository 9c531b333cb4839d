// SPDX-License-Identifier: Apache-2.0
//! Calls to a service that is no hypervisor, such as an identity provider: one connection a call, one bounded answer.
//!
//! No permit is asked for: no credential of a hypervisor is lent, and whoever calls names the address. What holds for
//! hypervisors holds here: the address that was looked up is the one that is dialled, a name never leads to this machine,
//! the certificate is checked, redirects are not followed.

use crate::{
    config::{Trust, read_secret},
    error::{Error, Fault},
    forward::fault,
    tls::{self, explain},
    wire::{Address, Wire},
};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Bytes, client::conn::http1::Builder};
use hyper_util::rt::TokioIo;
use portcullis_domain::Secret;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{future::pending, path::Path, sync::Arc, time::Duration};
use tokio_rustls::TlsConnector;

/// The most header lines that an answer may have.
const MAX_HEADERS: usize = 100;
/// The largest answer head, bytes.
const READ_BUFFER: usize = 64 * 1024;

/// A way out to services that are no hypervisors. A cheap handle.
#[derive(Clone)]
pub struct Outbound {
    tls: Arc<ClientConfig>,
}

impl Outbound {
    /// Trusts the authorities in a PEM file, or without one those of the system. `key` is the TOML key of the file.
    pub fn new(key: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let trust = Trust { ca_file: ca_file.map(Path::to_owned), ..Trust::default() };
        Ok(Self { tls: Arc::new(tls::client_config(key, &trust, None)?) })
    }

    /// Reads a secret that goes with it: refused when group or others may read the file; one trailing line end is
    /// dropped. `key` is the TOML key of the file.
    pub fn read_secret(key: &str, path: &Path) -> Result<Secret, Error> {
        read_secret(key, path)
    }

    /// Sends a request to an `https` address (or an `http` one, if the caller allows such) and reads all of its answer,
    /// at most `largest` bytes, within `patience`.
    pub async fn fetch(
        &self,
        request: Request<Vec<u8>>,
        largest: usize,
        patience: Duration,
    ) -> Result<Response<Vec<u8>>, Fault> {
        match tokio::time::timeout(patience, self.exchange(request, largest)).await {
            Ok(done) => done,
            Err(_) => Err(Fault::TooSlow("to answer")),
        }
    }

    async fn dial(&self, uri: &Uri) -> Result<Wire, Fault> {
        let wrong = |why: &str| Fault::Protocol(format!("an address {why}"));
        let host = uri.host().ok_or_else(|| wrong("without a host"))?;
        let bare = host.trim_matches(['[', ']']);
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("that is neither https nor http")),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = Address::Tcp(bare.to_owned(), port).dial().await?;
        if !secure {
            return Ok(Wire::Plain(stream));
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| wrong("whose host is no name"))?;
        let connect = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        connect.await.map(|stream| Wire::Tls(Box::new(stream))).map_err(explain)
    }

    #[expect(clippy::disallowed_methods, reason = "the client for services that are no hypervisors")]
    async fn exchange(&self, request: Request<Vec<u8>>, largest: usize) -> Result<Response<Vec<u8>>, Fault> {
        let (mut head, body) = request.into_parts();
        let wire = self.dial(&head.uri).await?;
        let wrong = |e: &dyn std::fmt::Display| Fault::Protocol(format!("a request that cannot be made: {e}"));
        let host = head.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        head.headers.insert(header::HOST, HeaderValue::from_str(host).map_err(|e| wrong(&e))?);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        head.uri = target.parse().map_err(|e: http::uri::InvalidUri| wrong(&e))?;
        let request = Request::from_parts(head, Full::new(Bytes::from(body)));
        let builder = Builder::new().max_buf_size(READ_BUFFER).max_headers(MAX_HEADERS).to_owned();
        let (mut send, connection) = builder.handshake(TokioIo::new(wire)).await.map_err(|e| fault(&e))?;
        let work = async {
            let (head, body) = send.send_request(request).await.map_err(|e| fault(&e))?.into_parts();
            let body = Limited::new(body, largest).collect().await.map_err(|e| too_large(e.as_ref(), largest))?;
            Ok(Response::from_parts(head, body.to_bytes().to_vec()))
        };
        // When the connection is over, what was read of it is still to be taken.
        let drive = async {
            connection.await.ok();
            pending::<()>().await;
        };
        tokio::select! {
            done = work => done,
            () = drive => Err(Fault::hung_up("closed the connection before it had answered")),
        }
    }
}

fn too_large(error: &(dyn std::error::Error + 'static), largest: usize) -> Fault {
    if error.is::<LengthLimitError>() {
        return Fault::Protocol(format!("an answer larger than {} KiB", largest / 1024));
    }
    match error.downcast_ref::<hyper::Error>() {
        Some(error) => fault(error),
        None => Fault::hung_up("the answer broke off"),
    }
}
