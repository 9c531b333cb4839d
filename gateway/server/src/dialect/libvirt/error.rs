// SPDX-License-Identifier: Apache-2.0
//! A refusal as libvirt's clients read it: `virNetMessageError` of `virnetprotocol.x`, with the numbers of `virterror.h`.

use crate::reply::Refusal;
use bytes::Bytes;
use portcullis_policy::classify::xdr::{Reader, Writer};
use portcullis_upstream::{Frame, FrameKind, FrameStatus};

/// `VIR_ERR_ERROR`.
const LEVEL: i32 = 2;
/// `VIR_FROM_RPC`, `VIR_FROM_QEMU`, `VIR_FROM_AUTH`, `VIR_FROM_ACCESS`.
const FROM_RPC: i32 = 7;
const FROM_QEMU: i32 = 10;
const FROM_AUTH: i32 = 46;
const FROM_ACCESS: i32 = 55;
/// `VIR_ERR_NO_DOMAIN`.
const NO_DOMAIN: i32 = 42;

/// What is said of a machine that is not there, and of one that may not be known about: byte for byte what the daemon
/// itself says of the first.
pub(super) fn no_machine(detail: &str) -> Bytes {
    let message = format!("Domain not found: {detail}");
    error(NO_DOMAIN, FROM_QEMU, &message, Some("Domain not found: %s"), Some(detail))
}

/// A refusal in the form of an error.
pub(super) fn refusal(refusal: &Refusal) -> Bytes {
    let (title, detail) = refusal.words();
    // VIR_ERR_AUTH_FAILED, VIR_ERR_ACCESS_DENIED, VIR_ERR_INVALID_ARG, VIR_ERR_OPERATION_TIMEOUT,
    // VIR_ERR_OPERATION_FAILED, VIR_ERR_RPC.
    let (code, from) = match refusal {
        Refusal::Unknown => (45, FROM_AUTH),
        Refusal::NotFound => return no_machine(&detail),
        Refusal::Forbidden(_) | Refusal::Locked(_) | Refusal::StepUp | Refusal::Banner | Refusal::Foreign => {
            (88, FROM_ACCESS)
        }
        Refusal::Bad(_) | Refusal::TooLarge(_) | Refusal::HeadTooLarge | Refusal::Method | Refusal::Misdirected => {
            (8, FROM_RPC)
        }
        Refusal::UpstreamSlow(_) => (68, FROM_RPC),
        Refusal::TooMany(_) | Refusal::Unavailable(_) | Refusal::Conflict(_) => (9, FROM_RPC),
        Refusal::Upstream(_) => (39, FROM_RPC),
    };
    let message = format!("{title}: {detail}");
    error(code, from, &message, Some("%s"), Some(&message))
}

fn error(code: i32, from: i32, message: &str, first: Option<&str>, second: Option<&str>) -> Bytes {
    let all = Writer::default().number(code).number(from).optional(Some(message)).number(LEVEL).word(0);
    let all = all.optional(first).optional(second).optional(None);
    // Two numbers that nobody reads, and no network.
    all.number(-1).number(-1).word(0).done().into()
}

/// The number of an error that the daemon sent.
pub(super) fn code(payload: &[u8]) -> u32 {
    Reader::new(payload).word().unwrap_or(0)
}

/// The frame that answers a call.
pub(super) fn reply(to: &Frame, status: FrameStatus, payload: Bytes) -> Frame {
    Frame {
        program: to.program,
        procedure: to.procedure,
        kind: FrameKind::Reply,
        serial: to.serial,
        status,
        payload,
        held: None,
    }
}
