// SPDX-License-Identifier: Apache-2.0
//! A browser, as far as the relay can tell: WebSocket frames and noVNC's handshake.
#![expect(clippy::cast_possible_truncation, reason = "test data is made of small numbers")]

use crate::rfb::Wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A frame with a mask.
pub(crate) fn client_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            frame.push(0x80 | 0x7e);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 0x7f);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

/// The close frame that ended a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) code: u16,
    pub(crate) text: String,
}

/// The browser's end of a session.
pub(crate) struct Browser<S> {
    pub(crate) wire: S,
    /// RFB bytes that were not taken yet.
    pub(crate) stream: Vec<u8>,
    pub(crate) pings: u32,
    pub(crate) pongs: Vec<Vec<u8>>,
}

impl<S: Wire> Browser<S> {
    pub(crate) fn new(wire: S) -> Self {
        Self { wire, stream: Vec::new(), pings: 0, pongs: Vec::new() }
    }

    /// Sends RFB bytes in one frame.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.wire.write_all(&client_frame(0x82, bytes, [0x12, 0x34, 0x56, 0x78])).await.expect("the relay reads");
    }

    /// Reads one frame: data into `stream`, control frames into their counts; the close frame is the result.
    pub(crate) async fn frame(&mut self) -> Option<Closed> {
        let mut head = [0; 2];
        self.wire.read_exact(&mut head).await.expect("a frame");
        assert_eq!(head[1] & 0x80, 0, "servers do not mask");
        let length = match head[1] {
            126 => usize::from(self.wire.read_u16().await.expect("a length")),
            127 => self.wire.read_u64().await.expect("a length") as usize,
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.wire.read_exact(&mut payload).await.expect("a payload");
        match head[0] {
            0x82 => self.stream.extend(payload),
            0x89 => {
                self.pings += 1;
                let pong = client_frame(0x8a, &payload, [1; 4]);
                self.wire.write_all(&pong).await.expect("the relay reads");
            }
            0x8a => self.pongs.push(payload),
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                return Some(Closed { code, text: String::from_utf8(payload[2..].to_vec()).expect("UTF-8") });
            }
            other => panic!("frame {other:#x}"),
        }
        None
    }

    /// The next `count` RFB bytes.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.stream.len() < count {
            if let Some(closed) = self.frame().await {
                panic!("closed: {closed:?}");
            }
        }
        self.stream.drain(..count).collect()
    }

    /// Reads on until the relay closes, answers the close, and gives it.
    pub(crate) async fn closed(&mut self) -> Closed {
        loop {
            if let Some(closed) = self.frame().await {
                let answer = client_frame(0x88, &closed.code.to_be_bytes(), [1; 4]);
                // the relay may be gone already
                let _ = self.wire.write_all(&answer).await;
                return closed;
            }
        }
    }

    /// noVNC's handshake; gives width, height and name.
    pub(crate) async fn shake_hands(&mut self) -> (u16, u16, String) {
        assert_eq!(self.take(12).await, b"RFB 003.008\n");
        self.send(b"RFB 003.008\n").await;
        assert_eq!(self.take(2).await, [1, 1]);
        self.send(&[1]).await;
        assert_eq!(self.take(4).await, [0; 4]);
        self.send(&[1]).await;
        let init = self.take(24).await;
        assert_eq!(init[4..20], crate::rfb::PINNED_FORMAT);
        let name = self.take(usize::from(init[23])).await;
        let number = |at: usize| u16::from_be_bytes([init[at], init[at + 1]]);
        (number(0), number(2), String::from_utf8(name).expect("UTF-8"))
    }

    /// What noVNC 1.7 sends next: its pixel format and its whole list of encodings.
    pub(crate) async fn set_up(&mut self) {
        let mut message = vec![0, 0, 0, 0];
        message.extend_from_slice(&crate::rfb::PINNED_FORMAT);
        self.send(&message).await;
        self.send(&encodings(&NOVNC)).await;
    }
}

/// noVNC 1.7's list.
pub(crate) const NOVNC: [i32; 25] = [
    1,
    50,
    7,
    -260,
    16,
    21,
    5,
    2,
    6,
    0,
    -26,
    -254,
    -223,
    -224,
    -258,
    -261,
    -308,
    -309,
    -312,
    -313,
    -307,
    -1_063_131_698,
    -316,
    0x574d_5664,
    -239,
];

/// What the gateway makes of it.
pub(crate) const NOVNC_KEPT: [i32; 21] =
    [1, 7, -260, 16, 5, 2, 6, 0, -26, -254, -223, -224, -258, -261, -308, -312, -313, -307, -316, 0x574d_5664, -239];

/// A SetEncodings message.
pub(crate) fn encodings(numbers: &[i32]) -> Vec<u8> {
    let mut bytes = vec![2, 0];
    bytes.extend_from_slice(&(numbers.len() as u16).to_be_bytes());
    for number in numbers {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes
}
