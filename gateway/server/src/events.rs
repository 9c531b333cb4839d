// SPDX-License-Identifier: Apache-2.0
//! LXD's event stream, filtered message by message: secrets of operations are taken out, and what concerns a machine
//! that the person may not see is left out. What cannot be read is left out too.

use crate::state::House;
use portcullis_domain::{Actor, MachineId, MachineRef, Resource};
use portcullis_policy::Permit;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Largest event message, in bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// Copies until one side ends; returns bytes from and to the client.
pub(crate) async fn copy<C, S>(
    house: &House,
    actor: &Actor,
    permit: &Permit,
    client: C,
    server: S,
) -> io::Result<(u64, u64)>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    // What the client sends are pings, pongs and a close: LXD reads nothing else from this stream.
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut bytes = 0;
        loop {
            let frame = read(&mut from_server).await?;
            let frame = match frame.opcode {
                TEXT => match clean(house, actor, permit, &frame.payload) {
                    Some(payload) => Frame { opcode: TEXT, payload },
                    None => continue,
                },
                PING | PONG | CLOSE => frame,
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the event stream sent something that is no text",
                    ));
                }
            };
            let out = written(&frame);
            to_client.write_all(&out).await?;
            bytes += out.len() as u64;
            if frame.opcode == CLOSE {
                to_client.shutdown().await?;
                return Ok::<u64, io::Error>(bytes);
            }
        }
    };
    tokio::select! {
        up = up => up.map(|up| (up, 0)),
        down = down => down.map(|down| (0, down)),
    }
}

/// Frame types of RFC 6455 section 5.2.
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

struct Frame {
    opcode: u8,
    payload: Vec<u8>,
}

/// A server's frame: final, unmasked.
fn written(frame: &Frame) -> Vec<u8> {
    let length = frame.payload.len();
    let mut out = Vec::with_capacity(length + 10);
    out.push(0x80 | frame.opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(middle)) => {
            out.push(126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&frame.payload);
    out
}

/// One unfragmented, unmasked frame of a server (RFC 6455 section 5.2). LXD fragments nothing.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = [0; 2];
    from.read_exact(&mut head).await?;
    let [first, second] = head;
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(wrong("the event stream sent a frame that is fragmented, masked or compressed"));
    }
    let length = match second {
        126 => u64::from(from.read_u16().await?),
        127 => from.read_u64().await?,
        n => u64::from(n),
    };
    let length =
        usize::try_from(length).ok().filter(|n| *n <= MAX_MESSAGE).ok_or_else(|| wrong("an event was too long"))?;
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok(Frame { opcode: first & 0x0f, payload })
}

/// An event without secrets, if the person may see what it is about.
fn clean(house: &House, actor: &Actor, permit: &Permit, payload: &[u8]) -> Option<Vec<u8>> {
    let text = portcullis_upstream::strip_secrets(payload).ok()?;
    let event: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let hypervisor = permit.operation().resource.hypervisor()?;
    let now = house.clock.now();
    let inventory = house.fleet.inventory();
    let instances = instances(&event);
    // Whoever may not see the whole hypervisor hears of machines only, and of nothing that is written down about it.
    let whole = matches!(permit.operation().resource, Resource::Hypervisor(_));
    if !whole && (instances.is_empty() || !is_of_machines(&event)) {
        return None;
    }
    for (project, name) in instances {
        let machine: MachineId = format!("{project}:{name}").parse().ok()?;
        let at = Resource::Machine(MachineRef { hypervisor: hypervisor.clone(), machine });
        if !house.engine.may_see(actor, &at, &inventory, now) {
            return None;
        }
    }
    Some(text)
}

/// Whether an event is of a kind that tells what becomes of machines; logs say anything.
fn is_of_machines(event: &serde_json::Value) -> bool {
    matches!(event.get("type").and_then(serde_json::Value::as_str), Some("lifecycle" | "operation"))
}

/// The instances that an event names, as (project, name): by `/1.0/instances/NAME` in any text of it.
fn instances(event: &serde_json::Value) -> Vec<(String, String)> {
    let project =
        event.get("project").and_then(serde_json::Value::as_str).filter(|p| !p.is_empty()).unwrap_or("default");
    let mut found = Vec::new();
    let mut look = vec![event];
    while let Some(value) = look.pop() {
        match value {
            serde_json::Value::String(s) => {
                if let Some(rest) = s.strip_prefix("/1.0/instances/") {
                    let name = rest.split(['/', '?']).next().unwrap_or(rest);
                    let query = s.split_once("project=").map(|(_, p)| p.split('&').next().unwrap_or(p));
                    found.push((query.unwrap_or(project).to_owned(), name.to_owned()));
                }
            }
            serde_json::Value::Array(a) => look.extend(a),
            serde_json::Value::Object(o) => look.extend(o.values()),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_survives_being_written_and_read() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let frame = Frame { opcode: TEXT, payload: vec![7; length] };
            let bytes = written(&frame);
            let back = read(&mut bytes.as_slice()).await.expect("a frame");
            assert_eq!((back.opcode, back.payload.len()), (TEXT, length));
        }
        for bad in [&[0x01, 0][..], &[0x81, 0x80, 0, 0, 0, 0], &[0xc1, 0], &[0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(read(&mut &*bad).await.is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_instances_of_an_event_are_found_wherever_they_stand() {
        let event = serde_json::json!({
            "type": "lifecycle", "project": "blue",
            "metadata": {"action": "instance-started", "source": "/1.0/instances/c1"},
            "more": {"resources": {"instances": ["/1.0/instances/c2?project=red", "/1.0/instances/c3/snapshots/s"]}},
        });
        let mut found = instances(&event);
        found.sort();
        assert_eq!(found, [("blue".into(), "c1".into()), ("blue".into(), "c3".into()), ("red".into(), "c2".into())]);
    }
}
