// SPDX-License-Identifier: Apache-2.0
#![expect(clippy::cast_possible_truncation, reason = "test data is made of small numbers")]
use super::*;
use crate::testing::{browser::client_frame, scene::Dice};
use proptest::prelude::*;

fn fault(bytes: &[u8]) -> CloseCode {
    let mut bytes = bytes.to_vec();
    Decoder::default().decode(&mut bytes, &mut Noticed::default()).expect_err("must be refused").code
}

#[test]
fn tables_read_what_they_write() {
    for one in Opcode::ALL {
        assert_eq!(Opcode::from_number(one.number()), Some(*one));
    }
    for one in CloseCode::ALL {
        assert_eq!(CloseCode::from_number(one.number()), Some(*one));
    }
}

#[test]
fn the_accept_key_is_that_of_the_rfc() {
    assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn what_rfc_6455_forbids_is_refused_with_its_code() {
    let cases: &[(&[u8], CloseCode)] = &[
        (&[0x82, 0x01, 0], CloseCode::Protocol),
        (&[0xc2, 0x81, 0, 0, 0, 0, 0], CloseCode::Protocol),
        (&[0x83, 0x80], CloseCode::Protocol),
        (&[0x8f, 0x80], CloseCode::Protocol),
        (&[0x81, 0x80], CloseCode::Unsupported),
        (&[0x80, 0x80], CloseCode::Protocol),
        (&[0x09, 0x80], CloseCode::Protocol),
        (&[0x89, 0xfe, 0, 126], CloseCode::Protocol),
        (&[0x82, 0xfe, 0, 125, 0, 0, 0, 0], CloseCode::Protocol),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0], CloseCode::Protocol),
        (&[0x82, 0xff, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], CloseCode::Protocol),
        (&[0x82, 0xff, 127, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0], CloseCode::TooBig),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0], CloseCode::TooBig),
        (&[0x88, 0x81, 0, 0, 0, 0, 3], CloseCode::Protocol),
    ];
    for (bytes, code) in cases {
        assert_eq!(fault(bytes), *code, "{bytes:x?}");
    }
    let nested = [client_frame(0x02, b"a", [1; 4]), client_frame(0x82, b"b", [1; 4])].concat();
    assert_eq!(fault(&nested), CloseCode::Protocol);
}

#[test]
fn endless_fragments_end() {
    let mut endless = client_frame(0x02, b"", [9; 4]);
    for _ in 0..2000 {
        endless.extend(client_frame(0x00, b"", [9; 4]));
    }
    assert_eq!(fault(&endless), CloseCode::Policy);
    let piece = vec![0; 200 * 1024];
    let mut large = client_frame(0x02, &piece, [9; 4]);
    for _ in 0..6 {
        large.extend(client_frame(0x00, &piece, [9; 4]));
    }
    assert_eq!(fault(&large), CloseCode::TooBig);
}

#[test]
fn a_ping_keeps_its_payload_whatever_follows() {
    let mut bytes = [client_frame(0x89, b"are you there", [1, 2, 3, 4]), client_frame(0x8a, b"pong", [5; 4])].concat();
    let (mut decoder, mut noticed) = (Decoder::default(), Noticed::default());
    assert_eq!(decoder.decode(&mut bytes, &mut noticed), Ok(0));
    assert_eq!(noticed, Noticed { controls: 2, closed: None, ping: Some(13) });
    assert_eq!(decoder.ping(13), b"are you there");
}

#[test]
fn nothing_behind_a_close_counts() {
    for (payload, code) in [(&b""[..], 1000), (&[3, 233], 1001), (&[3, 237], 1002), (&[15, 160, b'x'], 4000)] {
        let mut bytes = [client_frame(0x82, b"data", [7; 4]), client_frame(0x88, payload, [1; 4])].concat();
        bytes.extend_from_slice(&[0xff; 20]);
        let mut noticed = Noticed::default();
        assert_eq!(Decoder::default().decode(&mut bytes, &mut noticed), Ok(4));
        assert_eq!(noticed.closed, Some(code));
        assert_eq!(&bytes[..4], b"data");
    }
}

#[test]
fn headers_are_as_short_as_they_must_be() {
    for (length, expected) in [
        (0, vec![0x82, 0]),
        (125, vec![0x82, 125]),
        (126, vec![0x82, 126, 0, 126]),
        (65_535, vec![0x82, 126, 255, 255]),
        (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let (bytes, used) = header(Opcode::Binary, length);
        assert_eq!(bytes[HEADER - used..], expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_split_gives_the_same_bytes(seed: u64) {
        let mut dice = Dice(seed | 1);
        let (mut wire, mut data) = (Vec::new(), Vec::new());
        for _ in 0..=dice.roll(8) {
            let fragments = 1 + dice.roll(3);
            for index in 0..fragments {
                let most = [10, 300, 70_000][dice.roll(3) as usize];
                let length = dice.roll(most);
                let payload: Vec<u8> = (0..length).map(|_| dice.roll(256) as u8).collect();
                let mask = [(); 4].map(|()| dice.roll(256) as u8);
                let first = if index == 0 { 2 } else { 0 } | if index + 1 == fragments { 0x80 } else { 0 };
                wire.extend(client_frame(first, &payload, mask));
                data.extend(payload);
                if dice.roll(3) == 0 {
                    wire.extend(client_frame(0x89, b"ping", mask));
                }
            }
        }
        let (mut decoder, mut noticed, mut out) = (Decoder::default(), Noticed::default(), Vec::new());
        let mut rest = &mut wire[..];
        while !rest.is_empty() {
            let widest = [1, 20, 5000, 70_000][dice.roll(4) as usize];
            let at = (1 + dice.roll(widest) as usize).min(rest.len());
            let (now, later) = rest.split_at_mut(at);
            let count = decoder.decode(now, &mut noticed).expect("valid");
            out.extend_from_slice(&now[..count]);
            rest = later;
        }
        prop_assert!(out == data);
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (mut decoder, mut noticed) = (Decoder::default(), Noticed::default());
        for piece in bytes.chunks_mut(7) {
            if decoder.decode(piece, &mut noticed).is_err() {
                break;
            }
        }
    }

    #[test]
    fn unmasking_is_xor(bytes in proptest::collection::vec(any::<u8>(), 0..100), mask: [u8; 4]) {
        let mut fast = bytes.clone();
        unmask(&mut fast, mask);
        let slow: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        prop_assert_eq!(fast, slow);
    }
}
