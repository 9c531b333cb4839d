// SPDX-License-Identifier: Apache-2.0
//! Mail, handed to the one server of the configuration: one connection a message, over the same TLS and the same rules of
//! dialling as every other way out ([`crate::Outbound`]).
//!
//! `lettre` writes the message (RFC 5322, RFC 2047) and speaks SMTP; the connection is ours, and so is STARTTLS: what comes
//! before TLS is read byte by byte and none of it is believed afterwards (RFC 3207 section 6).

use crate::{
    config::Trust,
    error::{Error, Fault},
    tls::{self, explain},
    wire::{Address, Wire},
};
use lettre::{
    Address as Mailbox, Message,
    message::{
        Mailbox as Named, SinglePart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, AsyncTokioStream},
        commands::{Data, Mail as MailFrom, Rcpt},
        extension::ClientId,
        response::Response,
    },
};
use portcullis_domain::{MailAddress, Secret};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    fmt, io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_rustls::TlsConnector;

/// How long handing one message over may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most bytes that a server may say about one message.
const MOST_SAID: usize = 64 * 1024;
/// The longest subject, in characters: in whichever encoding, no line of it comes near the 998 bytes that one may have
/// (RFC 5322 section 2.1.1).
const SUBJECT: usize = 200;
/// The longest line of it before TLS (RFC 5321 section 4.5.3.1.5), and the most lines of one reply.
const LINE: usize = 512;
const LINES: usize = 64;

/// How the connection is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// TLS from the first byte (RFC 8314 section 3.3).
    Implicit,
    /// A plain connection that becomes TLS before anything is said; one that cannot is given up.
    StartTls,
    /// None: for a server on this machine.
    None,
}

/// The server that takes mail.
pub struct MailServer<'a> {
    /// Its name or address, which its certificate carries.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// How the connection is kept from others.
    pub tls: MailTls,
    /// The authorities of its certificate; those of the system where there are none.
    pub ca_file: Option<&'a Path>,
    /// The name and password that it asks for.
    pub login: Option<(String, Secret)>,
    /// How the gateway calls itself.
    pub hello: String,
    /// Whom mail comes from.
    pub from: MailAddress,
}

/// One message.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    /// Its id, without a domain: the same when it is tried again.
    pub id: &'a str,
    /// To whom.
    pub to: &'a MailAddress,
    /// Its subject: its first 200 characters; control characters are left out.
    pub subject: &'a str,
    /// Its text.
    pub text: &'a str,
    /// When it was written.
    pub at: OffsetDateTime,
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// It may be taken later.
    #[error("the mail server {0}")]
    Later(#[source] Fault),
    /// It never will be: its receiver or its content was refused for good.
    #[error("the mail server {0}")]
    Never(#[source] Fault),
}

/// Hands mail over.
pub struct Mailer {
    address: Address,
    tls: MailTls,
    config: Arc<ClientConfig>,
    login: Option<(String, Secret)>,
    hello: String,
    from: MailAddress,
}

impl Mailer {
    /// For a server; the messages of an error name the keys below `key`.
    pub fn new(key: &str, server: MailServer<'_>) -> Result<Self, Error> {
        let MailServer { host, port, tls, ca_file, login, hello, from } = server;
        let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let address = Address::parse(&format!("{key}.host"), &shown)?;
        if tls == MailTls::None && !is_this_machine(host) {
            let why = "mail is handed over without TLS to this machine only: use \"implicit\" or \"starttls\"";
            return Err(Error::config(format!("{key}.tls"), why));
        }
        let trust = Trust { ca_file: ca_file.map(Path::to_owned), ..Trust::default() };
        let config = tls::client_config(key, &trust, None).map_err(|error| match error {
            Error::Config { why, .. } => Error::config(format!("{key}.ca_file"), why),
            other => other,
        })?;
        Ok(Self { address, tls, config: Arc::new(config), login, hello, from })
    }

    /// Hands a message over, within 30 seconds.
    pub async fn send(&self, mail: Mail<'_>) -> Result<(), Undelivered> {
        let message = self.write(mail).map_err(Undelivered::Never)?;
        match tokio::time::timeout(PATIENCE, Box::pin(self.hand_over(&message))).await {
            Ok(done) => done,
            Err(_) => Err(Undelivered::Later(Fault::TooSlow("to take a message"))),
        }
    }

    fn write(&self, mail: Mail<'_>) -> Result<Message, Fault> {
        let wrong = |e: &dyn fmt::Display| Fault::Protocol(format!("a message that cannot be written: {e}"));
        let named = |name: Option<&str>, address: &MailAddress| {
            let mailbox: Mailbox = address.as_str().parse().map_err(|e| wrong(&e))?;
            Ok(Named::new(name.map(str::to_owned), mailbox))
        };
        let subject: String = mail.subject.chars().filter(|c| !c.is_control()).take(SUBJECT).collect();
        let text: String = mail.text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        // Nobody answers it, nor is an answering machine to do so (RFC 3834 section 5).
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        Message::builder()
            .message_id(Some(format!("<{}@{}>", mail.id, self.hello)))
            .date(mail.at.into())
            .from(named(Some("Portcullis"), &self.from)?)
            .to(named(None, mail.to)?)
            .subject(subject)
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .singlepart(SinglePart::plain(text.replace('\n', "\r\n")))
            .map_err(|e| wrong(&e))
    }

    async fn hand_over(&self, message: &Message) -> Result<(), Undelivered> {
        let later = Undelivered::Later;
        let wire = self.dial().await.map_err(later)?;
        let mut smtp =
            AsyncSmtpConnection::connect_with_transport(Box::new(wire), &ClientId::Domain(self.hello.clone()))
                .await
                .map_err(|e| later(said(&e)))?;
        if let Some((name, password)) = &self.login {
            let password = password.expose_text().unwrap_or_default().to_owned();
            let login = Credentials::new(name.clone(), password);
            smtp.auth(DEFAULT_MECHANISMS, &login).await.map_err(|e| later(said(&e)))?;
        }
        let envelope = message.envelope();
        let from = MailFrom::new(envelope.from().cloned(), Vec::new());
        smtp.command(from).await.map_err(|e| later(said(&e)))?;
        for to in envelope.to() {
            smtp.command(Rcpt::new(to.clone(), Vec::new())).await.map_err(|e| for_good(&e))?;
        }
        smtp.command(Data).await.map_err(|e| later(said(&e)))?;
        let _taken: Response = smtp.message(&message.formatted()).await.map_err(|e| for_good(&e))?;
        // It has the message: how it says farewell changes nothing.
        drop(smtp.quit().await);
        Ok(())
    }

    async fn dial(&self) -> Result<Line, Fault> {
        let mut stream = self.address.dial().await?;
        let greeting: &'static [u8] = match self.tls {
            MailTls::None => return Ok(Line::new(Wire::Plain(stream), b"")),
            MailTls::Implicit => b"",
            MailTls::StartTls => {
                expect(&mut stream, b'2').await?;
                ask(&mut stream, &format!("EHLO {}\r\n", self.hello)).await?;
                let can = expect(&mut stream, b'2').await?;
                if !can.iter().any(|line| line.eq_ignore_ascii_case("STARTTLS")) {
                    return Err(Fault::Unsupported(
                        "it does not offer STARTTLS, and nothing is said without it".into(),
                    ));
                }
                ask(&mut stream, "STARTTLS\r\n").await?;
                expect(&mut stream, b'2').await?;
                // Inside TLS the server waits for us; whoever speaks SMTP waits for its greeting.
                b"220 TLS\r\n"
            }
        };
        let host = self.address.host().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host).map_err(|_| Fault::Protocol("a host that is no name".into()))?;
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await.map_err(explain)?;
        Ok(Line::new(Wire::Tls(Box::new(stream)), greeting))
    }
}

/// Whether a host is this machine, whatever its resolver says.
fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// What the server said, in words that can be logged.
fn said(error: &lettre::transport::smtp::Error) -> Fault {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    let text = text.chars().filter(|c| !c.is_control()).take(200).collect();
    if error.status().is_some() { Fault::Refused(text) } else { Fault::Protocol(text) }
}

/// The same where a refusal may be for good: of the receiver, or of the message.
fn for_good(error: &lettre::transport::smtp::Error) -> Undelivered {
    if error.is_permanent() { Undelivered::Never(said(error)) } else { Undelivered::Later(said(error)) }
}

async fn ask(stream: &mut (impl AsyncWrite + Unpin), line: &str) -> Result<(), Fault> {
    let broke = |e| Fault::unreachable("the connection broke", e);
    stream.write_all(line.as_bytes()).await.map_err(broke)
}

/// Reads one reply, byte by byte so that nothing of what follows is taken; gives its lines without their code.
async fn expect(stream: &mut (impl AsyncRead + Unpin), class: u8) -> Result<Vec<String>, Fault> {
    let broke = |e| Fault::unreachable("the connection broke", e);
    let wrong = || Fault::Protocol("no reply of SMTP".into());
    let mut lines = Vec::new();
    for _ in 0..LINES {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() >= LINE {
                return Err(wrong());
            }
            line.push(stream.read_u8().await.map_err(broke)?);
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        let (code, rest) = line.split_at_checked(3).ok_or_else(wrong)?;
        if !code.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        if code.as_bytes().first() != Some(&class) {
            return Err(Fault::Refused(line.chars().filter(|c| !c.is_control()).take(200).collect()));
        }
        lines.push(rest.trim_start_matches(['-', ' ']).to_owned());
        if !rest.starts_with('-') {
            return Ok(lines);
        }
    }
    Err(wrong())
}

/// A connection that speaks SMTP, with what is to be read before anything of it, and an end to what a server may say.
struct Line {
    wire: Wire,
    first: &'static [u8],
    left: usize,
}

impl Line {
    const fn new(wire: Wire, first: &'static [u8]) -> Self {
        Self { wire, first, left: MOST_SAID }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        if !line.first.is_empty() {
            let (now, later) = line.first.split_at(line.first.len().min(buf.remaining()));
            buf.put_slice(now);
            line.first = later;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let done = Pin::new(&mut line.wire).poll_read(cx, buf);
        match line.left.checked_sub(buf.filled().len() - before) {
            Some(left) => line.left = left,
            None => return Poll::Ready(Err(io::Error::other("the server says too much"))),
        }
        done
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for Line {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

#[cfg(test)]
mod tests;
