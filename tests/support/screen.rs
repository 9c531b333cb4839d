// SPDX-License-Identifier: Apache-2.0
//! A viewer without eyes: the WebSocket and the few RFB messages that a test needs (RFC 6143).

use super::Person;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{StatusCode, header};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, protocol::frame::coding::CloseCode},
};

/// An open stream.
pub(crate) struct Screen {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    buffer: Vec<u8>,
    size: (u16, u16),
}

/// The status with which a stream was refused.
pub(crate) async fn refused(person: &Person<'_>, machine: &str, mode: &str, ticket: &str) -> StatusCode {
    Screen::attempt(person, machine, mode, ticket).await.err().expect("refused")
}

impl Screen {
    /// Opens a stream that must open.
    pub(crate) async fn open(person: &Person<'_>, machine: &str, mode: &str, ticket: &str) -> Self {
        Self::attempt(person, machine, mode, ticket).await.expect("the stream opens")
    }

    /// Tries to open a stream from our own page.
    pub(crate) async fn attempt(
        person: &Person<'_>,
        machine: &str,
        mode: &str,
        ticket: &str,
    ) -> Result<Self, StatusCode> {
        let own = person.gateway.url();
        Self::attempt_from(person, machine, mode, ticket, &[&own]).await
    }

    /// Tries to open a stream from pages with these origins.
    pub(crate) async fn attempt_from(
        person: &Person<'_>,
        machine: &str,
        mode: &str,
        ticket: &str,
        origins: &[&str],
    ) -> Result<Self, StatusCode> {
        let gateway = person.gateway;
        let url = format!("wss://localhost:{}/api/v1/consoles/{machine}/stream/{mode}", gateway.portal.port());
        let mut request = url.into_client_request().expect("a request");
        let headers = request.headers_mut();
        for origin in origins.iter().filter(|o| !o.is_empty()) {
            headers.append(header::ORIGIN, origin.parse().expect("a value"));
        }
        headers.insert(header::COOKIE, person.cookie().parse().expect("a cookie"));
        let protocols = format!("binary, portcullis.ticket.{ticket}");
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols.parse().expect("a value"));
        let tcp = TcpStream::connect(gateway.portal).await.expect("a connection");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let tls = TlsConnector::from(Arc::new(gateway.tls())).connect(name, tcp).await.expect("TLS");
        match client_async(request, tls).await {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers()[header::SEC_WEBSOCKET_PROTOCOL], "binary");
                Ok(Self { socket, buffer: Vec::new(), size: (0, 0) })
            }
            Err(Error::Http(answer)) => Err(answer.status()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            let message = tokio::time::timeout(Duration::from_secs(10), self.socket.next()).await.expect("in time");
            match message.expect("open").expect("a frame") {
                Message::Binary(bytes) => self.buffer.extend_from_slice(&bytes),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
        self.buffer.drain(..length).collect()
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).await.expect("sent");
    }

    /// RFB 3.8 with security None, Raw encoding, and the format of noVNC.
    pub(crate) async fn handshake(&mut self) {
        assert_eq!(self.read(12).await, b"RFB 003.008\n");
        self.send(b"RFB 003.008\n").await;
        assert_eq!(self.read(2).await, [1, 1], "only None is offered to the browser");
        self.send(&[1]).await;
        assert_eq!(self.read(4).await, [0; 4]);
        self.send(&[1]).await;
        let init = self.read(24).await;
        self.size = (u16::from_be_bytes([init[0], init[1]]), u16::from_be_bytes([init[2], init[3]]));
        let name = u32::from_be_bytes([init[20], init[21], init[22], init[23]]);
        self.read(name as usize).await;
        self.send(&[2, 0, 0, 1, 0, 0, 0, 0]).await;
    }

    /// Asks for the whole picture and gives how many bytes it has.
    pub(crate) async fn picture(&mut self) -> usize {
        let (w, h) = (self.size.0.to_be_bytes(), self.size.1.to_be_bytes());
        self.send(&[3, 0, 0, 0, 0, 0, w[0], w[1], h[0], h[1]]).await;
        let head = self.read(4).await;
        assert_eq!(head[0], 0, "a picture");
        let mut bytes = 0;
        for _ in 0..u16::from_be_bytes([head[2], head[3]]) {
            let rect = self.read(12).await;
            assert_eq!(rect[8..], [0; 4], "Raw");
            let (w, h) = (u16::from_be_bytes([rect[4], rect[5]]), u16::from_be_bytes([rect[6], rect[7]]));
            let size = usize::from(w) * usize::from(h) * 4;
            self.read(size).await;
            bytes += size;
        }
        bytes
    }

    /// Presses the keys of a text, and Enter.
    pub(crate) async fn press(&mut self, text: &str) {
        for key in text.bytes().map(u32::from).chain([0xff0d]) {
            for down in [1, 0] {
                let k = key.to_be_bytes();
                self.send(&[4, down, 0, 0, k[0], k[1], k[2], k[3]]).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Waits for the end; gives its code and reason.
    pub(crate) async fn ended(&mut self, within: Duration) -> (u16, String) {
        let wait = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
                    Some(Ok(Message::Close(None))) | None => return (CloseCode::Status.into(), String::new()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return (0, error.to_string()),
                }
            }
        };
        tokio::time::timeout(within, wait).await.expect("the stream ends in time")
    }
}
