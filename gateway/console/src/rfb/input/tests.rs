// SPDX-License-Identifier: Apache-2.0
#![expect(clippy::cast_possible_truncation, reason = "test data is made of small numbers")]
use super::*;
use crate::{rfb::encoding::Encoding, testing::scene::Dice};
use proptest::prelude::*;
use std::time::Duration;

#[derive(Default)]
struct Seen {
    forwarded: Vec<u8>,
    replies: Vec<u8>,
    parts: Vec<Part>,
    dropped: u32,
    keys: u32,
    pointers: u32,
}

impl Sink for Seen {
    fn forward(&mut self, part: Part, bytes: &[u8]) {
        self.parts.push(part);
        self.forwarded.extend_from_slice(bytes);
    }
    fn reply(&mut self, bytes: &[u8]) {
        self.replies.extend_from_slice(bytes);
    }
    fn note_dropped(&mut self) {
        self.dropped += 1;
    }
    fn note_input(&mut self, kind: Touch) {
        match kind {
            Touch::Key => self.keys += 1,
            Touch::Pointer => self.pointers += 1,
        }
    }
}

/// A hypervisor that has confirmed every extension.
fn willing() -> Walker {
    let mut walker = Walker::new(100, 100, None);
    for one in Encoding::ALL {
        walker.ask(*one);
    }
    let mut stream = vec![150, 248, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
    for encoding in [-258i32, -316, -308] {
        stream.extend_from_slice(&[0, 0, 0, 0, 0, 100, 0, 100]);
        stream.extend_from_slice(&encoding.to_be_bytes());
    }
    stream.extend_from_slice(&[0; 4]);
    let mut rest = &stream[..];
    while !rest.is_empty() {
        rest = &rest[walker.step(rest, Duration::ZERO).expect("valid").taken..];
    }
    walker
}

fn running(mode: ConsoleMode, clipboard_in: TextLimit) -> Filter {
    let info = ScreenInfo { width: 100, height: 100, name: "vm".into() };
    let mut filter = Filter::new(mode, clipboard_in, info);
    let mut seen = Seen::default();
    filter.feed(b"RFB 003.008\n\x01\x00", &mut willing(), &mut seen).expect("handshake");
    assert!(filter.is_running());
    filter
}

fn fault(mode: ConsoleMode, bytes: &[u8], walker: &mut Walker) -> String {
    let mut seen = Seen::default();
    let Fault(what) = running(mode, None).feed(bytes, walker, &mut seen).expect_err("must be refused");
    assert!(seen.forwarded.is_empty());
    what
}

fn input() -> Vec<Vec<u8>> {
    vec![
        vec![4, 1, 0, 0, 0, 0, 0, 65],
        vec![4, 0, 0, 0, 0, 0, 0, 65],
        vec![255, 0, 0, 1, 0, 0, 0, 65, 0, 0, 0, 30],
        vec![5, 1, 0, 1, 0, 2],
        vec![5, 0x81, 0, 1, 0, 2, 1],
        [vec![6, 0, 0, 0, 0, 0, 0, 3], b"abc".to_vec()].concat(),
        [vec![251, 0, 0, 50, 0, 50, 1, 0], vec![7; 16]].concat(),
    ]
}

const HARMLESS: [&[u8]; 3] =
    [&[3, 1, 0, 0, 0, 0, 0, 100, 0, 100], &[150, 1, 0, 0, 0, 0, 0, 9, 0, 9], &[248, 0, 0, 0, 0, 0, 0, 3, 2, 8, 8]];

#[test]
fn the_handshake_offers_none_and_describes_the_screen() {
    let info = ScreenInfo { width: 640, height: 480, name: "näme".into() };
    let mut filter = Filter::new(ConsoleMode::View, None, info);
    let mut seen = Seen::default();
    for byte in b"RFB 003.008\n\x01\x01" {
        filter.feed(&[*byte], &mut willing(), &mut seen).expect("handshake");
    }
    let mut expected = vec![1, 1, 0, 0, 0, 0, 2, 128, 1, 224];
    expected.extend_from_slice(&PINNED_FORMAT);
    expected.extend_from_slice(&[0, 0, 0, 5]);
    expected.extend_from_slice("näme".as_bytes());
    assert_eq!(seen.replies, expected);
    assert!(seen.forwarded.is_empty());
}

#[test]
fn a_handshake_that_asks_for_anything_else_is_refused() {
    for bytes in [&b"RFB 003.003\n"[..], b"GET / HTTP/1", b"RFB 003.008\n\x02"] {
        let info = ScreenInfo { width: 1, height: 1, name: String::new() };
        let mut filter = Filter::new(ConsoleMode::Control, None, info);
        assert!(filter.feed(bytes, &mut willing(), &mut Seen::default()).is_err());
    }
}

#[test]
fn view_drops_every_input_and_nothing_else() {
    let mut filter = running(ConsoleMode::View, Some(1000));
    let mut seen = Seen::default();
    let mut stream = Vec::new();
    for (index, message) in input().iter().enumerate() {
        stream.extend_from_slice(message);
        stream.extend_from_slice(HARMLESS[index % 3]);
    }
    filter.feed(&stream, &mut willing(), &mut seen).expect("valid");
    let expected: Vec<u8> = (0..input().len()).flat_map(|index| HARMLESS[index % 3].to_vec()).collect();
    assert_eq!(seen.forwarded, expected);
    assert_eq!((seen.dropped, seen.keys, seen.pointers), (7, 3, 2));
}

#[test]
fn control_passes_input_byte_for_byte() {
    let mut filter = running(ConsoleMode::Control, Some(3));
    let mut seen = Seen::default();
    let stream = input().concat();
    filter.feed(&stream, &mut willing(), &mut seen).expect("valid");
    assert_eq!(seen.forwarded, stream);
    assert_eq!((seen.dropped, seen.keys, seen.pointers), (0, 3, 2));
    assert_eq!(seen.parts.iter().filter(|part| **part == Part::Key(4)).count(), 3);
}

#[test]
fn clipboard_text_needs_a_policy_and_stays_within_its_size() {
    let text = [vec![6, 0, 0, 0, 0, 0, 0, 4], b"abcd".to_vec(), HARMLESS[0].to_vec()].concat();
    for (limit, passes) in [(None, false), (Some(3), false), (Some(4), true)] {
        let mut seen = Seen::default();
        running(ConsoleMode::Control, limit).feed(&text, &mut willing(), &mut seen).expect("valid");
        assert_eq!(seen.forwarded == text, passes, "{limit:?}");
        assert!(seen.forwarded.ends_with(HARMLESS[0]));
        assert_eq!(seen.dropped, u32::from(!passes));
    }
}

#[test]
fn the_list_of_encodings_is_rewritten() {
    let wanted = [1, 50, 7, -260, 16, 21, 5, 2, 6, 0, -26, -254, -223, -224, -258, -261, -308, -309, -312, -313, -307];
    let wanted =
        [&wanted[..], &[0xc0a1_e5ce_u32.cast_signed(), -316, 0x574d_5664, -239, -259, -305, 7, 7, 1, -26]].concat();
    let kept = [1, 7, -260, 16, 5, 2, 6, 0, -26, -254, -223, -224, -258, -261, -308, -312, -313, -307];
    let kept = [&kept[..], &[-316, 0x574d_5664, -239]].concat();
    let list = |numbers: &[i32]| {
        let mut bytes = vec![2, 0];
        bytes.extend_from_slice(&(numbers.len() as u16).to_be_bytes());
        for number in numbers {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes
    };
    let mut walker = Walker::new(9, 9, None);
    let mut seen = Seen::default();
    let mut filter = running(ConsoleMode::View, None);
    filter.feed(&list(&wanted), &mut walker, &mut seen).expect("valid");
    assert_eq!(seen.forwarded, list(&kept));
    assert_eq!(seen.parts, [Part::Message]);
    // what was asked for may now come
    assert!(walker.step(&[150], Duration::ZERO).is_ok());
    filter.feed(&list(&[]), &mut walker, &mut seen).expect("valid");
    assert!(seen.forwarded.ends_with(&list(&[])));
    let all: Vec<i32> = (-400..100).collect();
    filter.feed(&list(&all), &mut walker, &mut seen).expect("valid");
}

#[test]
fn only_the_pinned_pixel_format_is_accepted_and_it_is_not_sent_on() {
    let mut message = vec![0, 0, 0, 0];
    message.extend_from_slice(&PINNED_FORMAT);
    let mut seen = Seen::default();
    running(ConsoleMode::View, None).feed(&message, &mut willing(), &mut seen).expect("pinned");
    assert!(seen.forwarded.is_empty());
    for at in 4..17 {
        let mut other = message.clone();
        other[at] ^= 1;
        assert!(fault(ConsoleMode::View, &other, &mut willing()).contains("pixel format"));
    }
}

#[test]
fn what_has_no_known_length_or_means_power_ends_the_session() {
    for mode in [ConsoleMode::View, ConsoleMode::Control] {
        assert!(fault(mode, &[250, 0, 1, 2], &mut willing()).contains("power"));
        assert!(fault(mode, &[255, 1, 0, 0], &mut willing()).contains("QEMU message 1"));
        for number in [1u8, 7, 11, 127, 151, 249, 252, 253] {
            assert!(fault(mode, &[number; 8], &mut willing()).contains("message type"), "{number}");
        }
        assert!(fault(mode, &[6, 0, 0, 0, 255, 255, 255, 250], &mut willing()).contains("clipboard"));
        assert!(fault(mode, &[248, 0, 0, 0, 0, 0, 0, 0, 65], &mut willing()).contains("fence"));
        assert!(fault(mode, &[251, 0, 0, 1, 0, 1, 17, 0], &mut willing()).contains("screens"));
        assert!(fault(mode, &[2, 0, 255, 255], &mut willing()).contains("65535 encodings"));
    }
}

#[test]
fn extensions_that_the_screen_has_not_confirmed_never_reach_it() {
    for message in [&input()[2], &input()[6], &HARMLESS[1].to_vec(), &HARMLESS[2].to_vec()] {
        let what = fault(ConsoleMode::Control, message, &mut Walker::new(9, 9, None));
        assert!(what.contains("not confirmed"), "{what}");
    }
    // without extended buttons a pointer event has 6 bytes whatever its mask says
    let mut seen = Seen::default();
    let stream = [&[5, 0x81, 0, 1, 0, 2], HARMLESS[0]].concat();
    running(ConsoleMode::Control, None).feed(&stream, &mut Walker::new(9, 9, None), &mut seen).expect("valid");
    assert_eq!(seen.forwarded, stream);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_split_forwards_the_same(seed: u64, control: bool) {
        let mut dice = Dice(seed | 1);
        let mut stream = Vec::new();
        for _ in 0..30 {
            match dice.roll(3) {
                0 => stream.extend_from_slice(HARMLESS[dice.roll(3) as usize]),
                1 => stream.extend_from_slice(&input()[dice.roll(7) as usize]),
                _ => {
                    let count = dice.roll(30) as u16;
                    stream.extend_from_slice(&[2, 0]);
                    stream.extend_from_slice(&count.to_be_bytes());
                    for _ in 0..count {
                        stream.extend_from_slice(&((dice.roll(400) as i32) - 350).to_be_bytes());
                    }
                }
            }
        }
        let mode = if control { ConsoleMode::Control } else { ConsoleMode::View };
        let mut whole = Seen::default();
        running(mode, Some(9)).feed(&stream, &mut willing(), &mut whole).expect("valid");
        let (mut filter, mut walker, mut pieces) = (running(mode, Some(9)), willing(), Seen::default());
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + dice.roll(9) as usize).min(rest.len()));
            filter.feed(now, &mut walker, &mut pieces).expect("valid");
            rest = later;
        }
        prop_assert_eq!(whole.forwarded, pieces.forwarded);
        prop_assert_eq!((whole.dropped, whole.keys, whole.pointers), (pieces.dropped, pieces.keys, pieces.pointers));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 1..600), first in prop::sample::select(vec![0u8, 2, 3, 4, 5, 6, 150, 248, 251, 255])) {
        let mut bytes = bytes;
        bytes[0] = first;
        let _ = running(ConsoleMode::Control, Some(99)).feed(&bytes, &mut willing(), &mut Seen::default());
    }
}
