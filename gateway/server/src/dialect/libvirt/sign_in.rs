// SPDX-License-Identifier: Apache-2.0
//! Who comes: SASL's mechanism PLAIN (RFC 4616) with a token of ours for a password.

use super::{
    REMOTE,
    error::{refusal, reply},
};
use crate::{
    dialect::{Knock, Shown},
    layers::Peer,
    passage::{self, Asked, Passed, Trailed, Visit},
    reply::Refusal,
    state::{House, request_id},
};
use portcullis_domain::{HypervisorName, Outcome, TokenId, Via};
use portcullis_policy::classify::xdr::{Broken, Reader, Writer};
use portcullis_upstream::{Frame, FrameKind, FrameStatus, Frames};
use std::{io, net::IpAddr, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

/// Numbers of `remote_protocol.x`.
const AUTH_LIST: u32 = 66;
const SASL_INIT: u32 = 67;
const SASL_START: u32 = 68;
/// `REMOTE_AUTH_SASL`.
const SASL: u32 = 1;
const PLAIN: &str = "PLAIN";
/// Calls before somebody is known: a list, a beginning and a try need three.
const MOST: usize = 8;
/// The longest name and password together, in bytes.
const LONGEST: usize = 1024;

/// Lets somebody sign in; none when they did not. One try a connection: a token is right, or it is not.
pub(super) async fn sign_in<R, W>(
    house: &Arc<House>,
    hypervisor: &HypervisorName,
    ip: IpAddr,
    frames: &mut Frames<R>,
    write: &mut W,
) -> io::Result<Option<TokenId>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    for _ in 0..MOST {
        let Some(call) = frames.next().await? else { return Ok(None) };
        if call.is_keepalive() {
            if let Some(pong) = call.pong() {
                put(write, &pong).await?;
            }
            continue;
        }
        if call.kind != FrameKind::Call || call.status != FrameStatus::Ok {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that calls nothing"));
        }
        let answer = match (call.program, call.procedure, call.payload.is_empty()) {
            (REMOTE, AUTH_LIST, true) => Writer::default().word(1).word(SASL),
            (REMOTE, SASL_INIT, true) => Writer::default().opaque(PLAIN.as_bytes()),
            (REMOTE, SASL_START, _) => {
                let known = match start(&call.payload) {
                    Ok((name, token)) => enter(house, hypervisor, ip, &name, &token).await,
                    Err(why) => Err(Refusal::Bad(format!("The sign-in cannot be read: {why}."))),
                };
                match known {
                    Ok(token) => {
                        // Complete; no more data.
                        let done = Writer::default().word(1).word(1).word(0).done();
                        put(write, &reply(&call, FrameStatus::Ok, done.into())).await?;
                        return Ok(Some(token));
                    }
                    Err(why) => {
                        put(write, &reply(&call, FrameStatus::Error, refusal(&why))).await?;
                        return Ok(None);
                    }
                }
            }
            // Nothing else is answered to somebody who is not known.
            _ => {
                put(write, &reply(&call, FrameStatus::Error, refusal(&Refusal::Unknown))).await?;
                return Ok(None);
            }
        };
        put(write, &reply(&call, FrameStatus::Ok, answer.done().into())).await?;
    }
    Ok(None)
}

async fn put<W: AsyncWrite + Unpin>(write: &mut W, frame: &Frame) -> io::Result<()> {
    let bytes = frame.bytes().unwrap_or_default();
    write.write_all(&bytes).await?;
    write.flush().await
}

/// The name and the token of a `remote_auth_sasl_start_args`: mechanism, whether there is data, the data with a word for
/// each byte. PLAIN's data is who to act as, who it is, and the password, with a zero byte between.
fn start(payload: &[u8]) -> Result<(String, zeroize::Zeroizing<String>), Broken> {
    let mut reader = Reader::new(payload);
    if reader.opaque(64)? != PLAIN.as_bytes() {
        return Err(Broken("only the mechanism PLAIN is known here"));
    }
    reader.word()?;
    let length = reader.count(LONGEST)?;
    let mut data = zeroize::Zeroizing::new(Vec::with_capacity(length));
    for _ in 0..length {
        // A `char` travels with its sign.
        data.push(reader.word()?.to_be_bytes()[3]);
    }
    if reader.left() > 0 {
        return Err(Broken("it goes on after its end"));
    }
    let text = std::str::from_utf8(&data).map_err(|_| Broken("the name or the password is not UTF-8"))?;
    let mut parts = text.split('\0');
    let (Some(act_as), Some(name), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Broken("it is no name and password"));
    };
    if !act_as.is_empty() && act_as != name {
        return Err(Broken("nobody acts as somebody else here"));
    }
    Ok((name.to_owned(), zeroize::Zeroizing::new(password.to_owned())))
}

/// The way in: the same look at a token, the same pace and the same event as for every dialect.
async fn enter(
    house: &Arc<House>,
    hypervisor: &HypervisorName,
    ip: IpAddr,
    name: &str,
    token: &str,
) -> Result<TokenId, Refusal> {
    let at = house.clock.now();
    let peer = Peer { ip, request: request_id(at), at };
    let caller = Knock { house, hypervisor, peer }.known(Some(&Shown::Token(token, Some(name))), None)?;
    let visit = Visit { kind: "api", peer, asked: Asked::Presence, trailed: Trailed::Yes, at };
    let answer = |passed: Passed| {
        let (Some(actor), Some(open)) = (passed.actor, passed.open) else {
            return std::future::ready(Err(Refusal::Unavailable("The request lost its event on the way.".into())));
        };
        let Via::Token(token) = actor.via else {
            passage::end(open, Outcome::Denied, "only a token for tools signs in here", &[]);
            return std::future::ready(Err(Refusal::Unknown));
        };
        passage::end(open, Outcome::Done, "signed in to the API", &[]);
        std::future::ready(Ok(token))
    };
    passage::walk(house, visit, std::future::ready(Ok(caller)), || std::future::ready(Ok(None)), answer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(mechanism: &str, data: &[u8]) -> Vec<u8> {
        let all = Writer::default().opaque(mechanism.as_bytes()).word(0).word(u32::try_from(data.len()).unwrap());
        data.iter().fold(all, |all, byte| all.number(i32::from(byte.cast_signed()))).done()
    }

    #[test]
    fn a_name_and_a_token_are_read_or_nothing_is() {
        let (name, token) = start(&message("PLAIN", b"\0ada\0pct_x")).unwrap();
        assert_eq!((name.as_str(), token.as_str()), ("ada", "pct_x"));
        assert_eq!(start(&message("PLAIN", "ada\0ada\0p\u{e9}".as_bytes())).unwrap().1.as_str(), "p\u{e9}");
        for (mechanism, data) in [
            ("PLAIN", &b"eve\0ada\0pct_x"[..]),
            ("PLAIN", b"ada"),
            ("PLAIN", b"\0ada\0pct_x\0more"),
            ("PLAIN", b"\0ada\0\xff"),
            ("PLAIN", &[b'x'; LONGEST + 1]),
            ("ANONYMOUS", b"\0ada\0pct_x"),
            ("", b""),
        ] {
            assert!(start(&message(mechanism, data)).is_err(), "{mechanism} {data:?}");
        }
        let mut more = message("PLAIN", b"\0ada\0pct_x");
        more.extend([0; 4]);
        assert!(start(&more).is_err());
        assert!(start(&more[..20]).is_err());
    }
}
