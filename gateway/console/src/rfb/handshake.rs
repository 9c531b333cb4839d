// SPDX-License-Identifier: Apache-2.0
//! The upstream leg: from a fresh connection to a screen that is ready (RFC 6143 section 7.1 to 7.3, VeNCrypt 0.2).
//!
//! ```text
//! version → security type → [VeNCrypt: version → subtype → TLS] → None | VNCAuth | Plain → result → ClientInit → ServerInit → SetPixelFormat
//! ```
//! Never weaker than configured: with a TLS upgrade only X509 subtypes count, and with a password a server that asks
//! for none is refused, because it may be an impostor that wants the keystrokes. Inside TLS the server has proved
//! itself, so X509None is accepted there.

use super::{
    BoxWire, MAX_SHOWN_NAME, PINNED_FORMAT, ScreenInfo, Wire, WireNumber as _,
    auth::{CHALLENGE, answer},
    be16, be32,
    encoding::{SecurityType, VencryptType, ViewerMessage},
    fits, showable,
};
use crate::Error;
use futures_util::future::BoxFuture;
use portcullis_domain::Secret;
use std::{fmt, io, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Upgrades a stream to TLS and verifies the server; the owner of client TLS gives it.
pub type TlsUpgrade = Box<dyn FnOnce(BoxWire) -> BoxFuture<'static, io::Result<BoxWire>> + Send>;

/// Bytes of a server's reason that are read.
const MAX_REASON: u32 = 1024;
/// Bytes of a screen's name that are accepted.
const MAX_NAME: u32 = 4096;

/// What the gateway may present to the hypervisor's screen.
#[derive(Clone, Default)]
pub struct Login {
    /// For X509Plain only.
    pub username: Option<String>,
    /// For VNCAuth and X509Plain.
    pub password: Option<Secret>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .finish()
    }
}

/// How the hypervisor's screen was secured in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// No authentication, no TLS.
    None,
    /// VNC password, no TLS.
    VncAuth,
    /// TLS alone.
    X509None,
    /// VNC password inside TLS.
    X509Vnc,
    /// Name and password inside TLS.
    X509Plain,
}

/// A screen that is ready for SetEncodings.
pub struct Upstream {
    /// The stream, positioned behind ServerInit; the pixel format is pinned.
    pub stream: BoxWire,
    /// What the server said of the screen.
    pub info: ScreenInfo,
    /// How it was secured.
    pub security: Security,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("info", &self.info).field("security", &self.security).finish_non_exhaustive()
    }
}

/// The step at which a handshake stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The protocol version.
    Version,
    /// The choice of the security type.
    Security,
    /// The TLS handshake.
    Tls,
    /// The password.
    Login,
    /// The screen's description.
    Init,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "protocol version",
            Self::Security => "security type",
            Self::Tls => "TLS",
            Self::Login => "login",
            Self::Init => "screen description",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    V33,
    V37,
    V38,
}

/// Opens the screen on a fresh connection, within `limit` over all.
///
/// With `tls` only VeNCrypt X509 is accepted. The stream comes back with the pixel format pinned and ClientInit
/// shared, so that a viewer of ours never throws out another.
pub async fn connect(
    stream: impl Wire + 'static,
    login: &Login,
    tls: Option<TlsUpgrade>,
    limit: Duration,
) -> Result<Upstream, Error> {
    let mut dial = Dial { wire: Box::new(stream), step: Step::Version };
    let outcome = tokio::time::timeout(limit, dial.open(login, tls)).await;
    match outcome {
        Ok(Ok((info, security))) => Ok(Upstream { stream: dial.wire, info, security }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::TimedOut(dial.step)),
    }
}

struct Dial {
    wire: BoxWire,
    step: Step,
}

impl Dial {
    async fn open(&mut self, login: &Login, tls: Option<TlsUpgrade>) -> Result<(ScreenInfo, Security), Error> {
        let version = self.agree_version().await?;
        self.step = Step::Security;
        let offered = self.read_offer(version).await?;
        let security = match choose(&offered, login, if tls.is_some() { Wish::Tls } else { Wish::Plain })? {
            SecurityType::Vencrypt => {
                self.send(&[SecurityType::Vencrypt.number()]).await?;
                self.open_vencrypt(login, tls).await?
            }
            plain => {
                if version >= Version::V37 {
                    self.send(&[plain.number()]).await?;
                }
                if plain == SecurityType::VncAuth {
                    self.prove_password(login).await?;
                    Security::VncAuth
                } else {
                    Security::None
                }
            }
        };
        // RFC 6143 section 7.1.3: before 3.8 there is no result after None
        let silent = matches!(security, Security::None | Security::X509None) && version < Version::V38;
        if !silent {
            self.step = Step::Login;
            self.read_result(version).await?;
        }
        self.step = Step::Init;
        self.send(&[1]).await?;
        let info = self.read_init().await?;
        let mut pin = [0; 20];
        pin.iter_mut()
            .zip([ViewerMessage::SetPixelFormat.number(), 0, 0, 0].iter().chain(&PINNED_FORMAT))
            .for_each(|(slot, byte)| *slot = *byte);
        self.send(&pin).await?;
        Ok((info, security))
    }

    async fn agree_version(&mut self) -> Result<Version, Error> {
        let hello: [u8; 12] = self.read().await?;
        let (version, reply): (_, &[u8; 12]) = match &hello {
            b"RFB 003.003\n" | b"RFB 003.005\n" | b"RFB 003.006\n" => (Version::V33, b"RFB 003.003\n"),
            b"RFB 003.007\n" => (Version::V37, b"RFB 003.007\n"),
            b"RFB 003.008\n" | b"RFB 003.889\n" | b"RFB 004.000\n" | b"RFB 004.001\n" | b"RFB 005.000\n" => {
                (Version::V38, b"RFB 003.008\n")
            }
            _ => return Err(Error::NotRfb),
        };
        self.send(reply).await?;
        Ok(version)
    }

    /// The security types that the server offers; in 3.3 the one that it dictates.
    async fn read_offer(&mut self, version: Version) -> Result<Vec<u8>, Error> {
        if version == Version::V33 {
            let dictated = self.read_u32().await?;
            return match u8::try_from(dictated) {
                Ok(0) => Err(Error::Refused(self.read_reason().await?)),
                Ok(one) => Ok(vec![one]),
                Err(_) => Err(Error::Unsupported(vec![dictated])),
            };
        }
        let [count] = self.read().await?;
        if count == 0 {
            return Err(Error::Refused(self.read_reason().await?));
        }
        self.read_bytes(usize::from(count)).await
    }

    async fn open_vencrypt(&mut self, login: &Login, tls: Option<TlsUpgrade>) -> Result<Security, Error> {
        let upgrade = tls.ok_or(Error::Downgrade("TLS without a CA or pin"))?;
        let version: [u8; 2] = self.read().await?;
        if version < [0, 2] {
            return Err(Error::Unsupported(vec![u32::from(SecurityType::Vencrypt.number())]));
        }
        self.send(&[0, 2]).await?;
        let [refused] = self.read().await?;
        if refused != 0 {
            return Err(Error::Refused("VeNCrypt 0.2".to_owned()));
        }
        let [count] = self.read().await?;
        let list = self.read_bytes(usize::from(count) * 4).await?;
        let offered: Vec<u32> = list.chunks_exact(4).map(|b| be32(b, 0)).collect();
        let chosen = choose_vencrypt(&offered, login)?;
        self.send(&chosen.number().to_be_bytes()).await?;
        let [accepted] = self.read().await?;
        if accepted != 1 {
            return Err(Error::Refused("the chosen VeNCrypt type".to_owned()));
        }
        self.step = Step::Tls;
        let plain: BoxWire = std::mem::replace(&mut self.wire, Box::new(tokio::io::empty()));
        self.wire = upgrade(plain).await.map_err(Error::Tls)?;
        self.step = Step::Login;
        match chosen {
            VencryptType::Alone => Ok(Security::X509None),
            VencryptType::Password => {
                self.prove_password(login).await?;
                Ok(Security::X509Vnc)
            }
            VencryptType::Login => {
                let (Some(name), Some(password)) = (&login.username, &login.password) else {
                    return Err(Error::NeedsUsername);
                };
                let mut message = Vec::new();
                for part in [name.as_bytes(), password.expose()] {
                    let length = u32::try_from(part.len())
                        .map_err(|_| Error::TooLarge { what: "a login", found: part.len().to_string() })?;
                    message.extend_from_slice(&length.to_be_bytes());
                }
                message.extend_from_slice(name.as_bytes());
                message.extend_from_slice(password.expose());
                // wiped when dropped
                let message = Secret::new(message);
                self.send(message.expose()).await?;
                Ok(Security::X509Plain)
            }
        }
    }

    async fn prove_password(&mut self, login: &Login) -> Result<(), Error> {
        self.step = Step::Login;
        let password = login.password.as_ref().ok_or(Error::NeedsPassword)?;
        let challenge: [u8; CHALLENGE] = self.read().await?;
        self.send(&answer(password, &challenge)).await
    }

    async fn read_result(&mut self, version: Version) -> Result<(), Error> {
        if self.read_u32().await? == 0 {
            return Ok(());
        }
        let reason = if version == Version::V38 { self.read_reason().await? } else { "no reason given".to_owned() };
        Err(Error::WrongLogin(reason))
    }

    async fn read_init(&mut self) -> Result<ScreenInfo, Error> {
        let head: [u8; 24] = self.read().await?;
        let (width, height) = (be16(&head, 0), be16(&head, 2));
        if !fits(width, height) {
            return Err(Error::TooLarge { what: "a screen", found: format!("{width}×{height}") });
        }
        let length = be32(&head, 20);
        if length > MAX_NAME {
            return Err(Error::TooLarge { what: "a name", found: format!("{length} bytes") });
        }
        let name = self.read_bytes(length as usize).await?;
        Ok(ScreenInfo { width, height, name: showable(&name, MAX_SHOWN_NAME) })
    }

    /// A reason as it may be shown. What is beyond the limit stays unread: the connection is over anyway.
    async fn read_reason(&mut self) -> Result<String, Error> {
        let length = self.read_u32().await?.min(MAX_REASON);
        let bytes = self.read_bytes(length as usize).await?;
        Ok(showable(&bytes, MAX_SHOWN_NAME))
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let step = self.step;
        self.wire.write_all(bytes).await.map_err(|source| Error::Io { step, source })?;
        self.wire.flush().await.map_err(|source| Error::Io { step, source })
    }

    async fn read<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.read().await?))
    }

    /// `count` is bounded by every caller.
    async fn read_bytes(&mut self, count: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes).await?;
        Ok(bytes)
    }

    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let step = self.step;
        self.wire.read_exact(bytes).await.map(|_| ()).map_err(|source| Error::Io { step, source })
    }
}

/// What the configuration asks of a screen's connection.
#[derive(Clone, Copy)]
enum Wish {
    Plain,
    Tls,
}

/// The strongest type that was offered and fits what is configured.
fn choose(offered: &[u8], login: &Login, wish: Wish) -> Result<SecurityType, Error> {
    let has = |one: SecurityType| offered.contains(&one.number());
    match (wish, &login.password) {
        (Wish::Tls, _) if has(SecurityType::Vencrypt) => Ok(SecurityType::Vencrypt),
        (Wish::Tls, _) => Err(Error::Downgrade("TLS is configured, the screen offers none")),
        (Wish::Plain, Some(_)) if has(SecurityType::VncAuth) => Ok(SecurityType::VncAuth),
        (Wish::Plain, Some(_)) if has(SecurityType::None) => {
            Err(Error::Downgrade("a password is configured, the screen asks for none"))
        }
        (Wish::Plain, None) if has(SecurityType::None) => Ok(SecurityType::None),
        (Wish::Plain, None) if has(SecurityType::VncAuth) => Err(Error::NeedsPassword),
        _ => Err(Error::Unsupported(offered.iter().map(|one| u32::from(*one)).collect())),
    }
}

/// The same among VeNCrypt's subtypes.
fn choose_vencrypt(offered: &[u32], login: &Login) -> Result<VencryptType, Error> {
    let has = |one: VencryptType| offered.contains(&one.number());
    match (&login.username, &login.password) {
        (Some(_), Some(_)) if has(VencryptType::Login) => Ok(VencryptType::Login),
        (_, Some(_)) if has(VencryptType::Password) => Ok(VencryptType::Password),
        _ if has(VencryptType::Alone) => Ok(VencryptType::Alone),
        (_, None) if has(VencryptType::Password) || has(VencryptType::Login) => Err(Error::NeedsPassword),
        (None, Some(_)) if has(VencryptType::Login) => Err(Error::NeedsUsername),
        _ if offered.iter().any(|one| (256..=259).contains(one)) => {
            Err(Error::Downgrade("TLS without a certificate, or no TLS at all"))
        }
        _ => Err(Error::Unsupported(offered.to_vec())),
    }
}

#[cfg(test)]
mod tests;
