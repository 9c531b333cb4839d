// SPDX-License-Identifier: Apache-2.0
//! What simulated hypervisors stand on: HTTP over TLS, or on a unix socket, and a WebSocket with a real screen behind it.

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{collections::BTreeMap, future::Future, path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

pub(crate) type Answer = Response<Full<bytes::Bytes>>;

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A file that only its owner may read.
pub(crate) fn secret_file(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("{text}\n")).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
}

/// Reads a body whole.
pub(crate) async fn body_of(request: &mut Request<Incoming>) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(Ok(frame)) = request.body_mut().frame().await {
        body.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d));
    }
    body
}

async fn serve<S, F, R>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Answer> + Send,
{
    let answer = Arc::new(answer);
    let service = service_fn(move |request| {
        let answer = Arc::clone(&answer);
        async move { Ok::<_, hyper::Error>(answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new();
    connection.serve_connection(TokioIo::new(stream), service).with_upgrades().await.ok();
}

/// Answers on a port of loopback, with the certificate of `tls`; gives the port. It ends with the test's runtime.
#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
pub(crate) async fn listen_tls<F, R>(tls: &BTreeMap<String, String>, answer: F) -> u16
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let chain = CertificateDer::pem_file_iter(&tls["SERVER_CERT"]).expect("PEM").map(|c| c.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_file(&tls["SERVER_KEY"]).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("TLS");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, answer).await;
                }
            });
        }
    });
    port
}

/// Answers on a unix socket. It ends with the test's runtime.
#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
pub(crate) fn listen_unix<F, R>(path: &Path, answer: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let listener = UnixListener::bind(path).expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer.clone()));
        }
    });
}

/// Turns a request into a WebSocket of a subprotocol, whose binary messages are the bytes of a screen at `vnc`.
#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
pub(crate) async fn bridge(request: &mut Request<Incoming>, vnc: &str, protocol: &str) -> Result<Answer, &'static str> {
    let said = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    if said(header::SEC_WEBSOCKET_PROTOCOL) != protocol || said(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err("no WebSocket of the right subprotocol");
    }
    let accept = derive_accept_key(said(header::SEC_WEBSOCKET_KEY).as_bytes());
    let (vnc, upgrade) = (TcpStream::connect(vnc).await.expect("a screen"), hyper::upgrade::on(request));
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        carry(socket, vnc).await;
    });
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [
        (header::UPGRADE, "websocket"),
        (header::CONNECTION, "Upgrade"),
        (header::SEC_WEBSOCKET_ACCEPT, &accept),
        (header::SEC_WEBSOCKET_PROTOCOL, protocol),
    ] {
        answer.headers_mut().insert(name, value.parse().expect("a value"));
    }
    Ok(answer)
}

/// Carries a screen's bytes between a WebSocket and where it is.
pub(crate) async fn carry<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, vnc: TcpStream) {
    let (mut from, mut to) = vnc.into_split();
    let mut part = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            read = from.read(&mut part) => match read {
                Ok(n) if n > 0 => {
                    if socket.send(Message::binary(part[..n].to_vec())).await.is_err() { return }
                }
                _ => { socket.close(None).await.ok(); return }
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => if to.write_all(&bytes).await.is_err() { return },
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return,
            },
        }
    }
}
