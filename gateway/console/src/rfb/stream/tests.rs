// SPDX-License-Identifier: Apache-2.0
#![expect(clippy::cast_possible_truncation, reason = "test data is made of small numbers")]
use super::*;
use crate::testing::scene::{Dice, Kind, SIZE, scene};
use proptest::prelude::*;

fn walker(clipboard_out: TextLimit) -> Walker {
    let mut walker = Walker::new(SIZE.0, SIZE.1, clipboard_out);
    for one in Encoding::ALL {
        walker.ask(*one);
    }
    walker
}

/// Walks through one read; what passes goes to `out`, where messages end to `ends`.
fn walk(walker: &mut Walker, mut data: &[u8], out: &mut Vec<u8>, starts: &mut Vec<usize>) -> Result<(), Fault> {
    while !data.is_empty() {
        let walked = walker.step(data, Duration::ZERO)?;
        if walked.first && walked.fate == Fate::Pass {
            starts.push(out.len());
        }
        match (walked.fate, walker.take_held()) {
            (Fate::Pass, held) => {
                assert!(held.is_none());
                out.extend_from_slice(&data[..walked.taken]);
            }
            (Fate::Drop, Some(head)) => {
                starts.push(out.len());
                out.extend_from_slice(&head);
            }
            (Fate::Drop, None) => {}
        }
        data = &data[walked.taken..];
    }
    Ok(())
}

fn fault_of(messages: &[&[u8]]) -> String {
    let mut walker = walker(None);
    let (mut out, mut starts) = (Vec::new(), Vec::new());
    for message in messages {
        if let Err(Fault(what)) = walk(&mut walker, message, &mut out, &mut starts) {
            return what;
        }
    }
    panic!("no fault");
}

/// An update of one rectangle with this head and body.
fn update(rect: [u16; 4], encoding: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 1];
    for number in rect {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&encoding.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_split_gives_the_same_messages_and_bytes(seed: u64, split: u64, count in 1u64..30, allowed: bool) {
        let scene = scene(seed, count);
        let mut walker = walker(allowed.then_some(256));
        let mut dice = Dice(split | 1);
        let (mut out, mut starts) = (Vec::new(), Vec::new());
        let mut rest = &scene.bytes[..];
        while !rest.is_empty() {
            let widest = [1, 3, 20, 4000][dice.roll(4) as usize];
            let (now, later) = rest.split_at((1 + dice.roll(widest) as usize).min(rest.len()));
            prop_assert_eq!(walk(&mut walker, now, &mut out, &mut starts), Ok(()));
            rest = later;
        }
        let (bytes, kept): (_, Vec<_>) = if allowed {
            (scene.bytes.clone(), scene.messages.iter().map(|(range, _)| range.len()).collect())
        } else {
            let kept = scene.messages.iter().filter(|(_, kind)| *kind != Kind::Text);
            (scene.without_texts(), kept.map(|(range, _)| range.len()).collect())
        };
        prop_assert!(out == bytes, "bytes differ");
        let expected: Vec<usize> = kept.iter().scan(0, |at, length| { *at += length; Some(*at - length) }).collect();
        prop_assert_eq!(starts, expected);
        let texts = scene.messages.iter().filter(|(_, kind)| *kind == Kind::Text).count() as u64;
        prop_assert_eq!((walker.texts_passed, walker.texts_dropped), if allowed { (texts, 0) } else { (0, texts) });
        prop_assert_eq!(walker.updates, scene.messages.iter().filter(|(_, kind)| *kind == Kind::Update).count() as u64);
        prop_assert_eq!(walker.state, State::Type);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 1..2000), types in 0u8..4) {
        let mut bytes = bytes;
        bytes[0] = types;
        let _ = walk(&mut walker(Some(9)), &bytes, &mut Vec::new(), &mut Vec::new());
    }

    #[test]
    fn valid_streams_with_one_changed_byte_never_panic(seed: u64, at: prop::sample::Index, to: u8) {
        let mut bytes = scene(seed, 8).bytes;
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = walk(&mut walker(None), &bytes, &mut Vec::new(), &mut Vec::new());
    }
}

#[test]
fn hostile_numbers_end_the_stream() {
    let cases: [(&str, Vec<u8>); 21] = [
        ("a copy from outside", update([0, 0, 9, 9], 1, &[0, 192, 0, 0])),
        ("message type 9", vec![9]),
        ("message type 250", vec![250]),
        ("message type 255", vec![255, 1]),
        ("a screen of 65535×65535", update([0, 0, 65535, 65535], -223, &[])),
        ("a screen of 16384×16384", update([0, 0, 16384, 16384], -308, &[])),
        ("outside", update([0, 0, 201, 1], 0, &[])),
        ("outside", update([65535, 65535, 65535, 65535], 0, &[])),
        ("outside", update([100, 100, 1, 51], 7, &[])),
        ("encoding 21", update([0, 0, 1, 1], 21, &[])),
        ("encoding 50", update([0, 0, 1, 1], 50, &[])),
        ("as a rectangle", update([0, 0, 1, 1], -312, &[])),
        ("a cursor of 65535×65535", update([0, 0, 65535, 65535], -239, &[])),
        ("cursor of kind 7", update([0, 0, 1, 1], 0x574d_5664, &[7, 0])),
        ("a name of 4294967295", update([0; 4], -307, &[255; 4])),
        ("4294967295 bytes for", update([0, 0, 9, 9], 16, &[255; 4])),
        ("4294967295 parts", update([0, 0, 9, 9], 2, &[255; 4])),
        ("Tight control byte 0xf0", update([0, 0, 9, 9], 7, &[0xf0])),
        ("Tight control byte 0xa0", update([0, 0, 9, 9], 7, &[0xa0])),
        ("Tight control byte 0x00", update([0, 0, 9, 9], -260, &[0])),
        ("Tight filter 3", update([0, 0, 9, 9], 7, &[0x40, 3])),
    ];
    for (what, bytes) in cases {
        let found = fault_of(&[&bytes]);
        assert!(found.contains(what), "{what}: {found}");
    }
    assert!(fault_of(&[&[3, 0, 0, 0, 255, 255, 255, 250]]).contains("a clipboard text of"));
    assert!(fault_of(&[&[248, 0, 0, 0, 0, 0, 0, 0, 65]]).contains("a fence of 65"));
}

#[test]
fn what_nobody_asked_for_ends_the_stream() {
    let mut fresh = Walker::new(100, 100, None);
    let mut out = Vec::new();
    for (message, what) in [
        (update([0, 0, 1, 1], 7, &[0x80, 1, 2, 3]), "Tight"),
        (update([0, 0, 50, 50], -223, &[]), "DesktopSize"),
        (vec![150], "ContinuousUpdates"),
        (vec![248, 0, 0, 0, 0, 0, 0, 0, 0], "Fence"),
    ] {
        let Err(Fault(found)) = walk(&mut fresh, &message, &mut out, &mut Vec::new()) else { panic!("{what}") };
        assert!(found.contains(what), "{found}");
        fresh = Walker::new(100, 100, None);
    }
    walk(&mut fresh, &update([0, 0, 1, 1], 0, &[0; 4]), &mut out, &mut Vec::new()).expect("raw needs no asking");
}

#[test]
fn a_resize_storm_ends_the_stream_and_a_booting_guest_does_not() {
    let storm = update([0, 0, 100, 100], -223, &[]);
    let mut walker = walker(None);
    let mut count = 0;
    while walker.step(&storm, Duration::ZERO).is_ok() {
        count += 1;
        assert!(count < 1000);
    }
    assert_eq!(count, RESIZE_BURST);
    let mut booting = self::walker(None);
    for second in 0..600 {
        for _ in 0..RESIZES_PER_SECOND {
            booting.step(&storm, Duration::from_secs(second)).expect("six a second");
        }
    }
}

#[test]
fn the_screen_size_is_followed() {
    let mut walker = walker(None);
    let mut out = Vec::new();
    walk(&mut walker, &update([0, 0, 1920, 1080], -223, &[]), &mut out, &mut Vec::new()).expect("larger");
    assert_eq!(walker.size(), (1920, 1080));
    walk(&mut walker, &update([1919, 1079, 1, 1], 0, &[0; 4]), &mut out, &mut Vec::new()).expect("inside now");
    // reason 1, status 3: this viewer's wish was refused
    walk(&mut walker, &update([1, 3, 10, 10], -308, &[1; 20]), &mut out, &mut Vec::new()).expect("refused");
    assert_eq!(walker.size(), (1920, 1080));
    walk(&mut walker, &update([1, 0, 10, 10], -308, &[0; 4]), &mut out, &mut Vec::new()).expect("accepted");
    assert_eq!(walker.size(), (10, 10));
}

#[test]
fn updates_of_65535_rectangles_keep_no_memory() {
    let mut walker = walker(None);
    let mut message = vec![0, 0, 255, 255];
    message.extend((0..65_535).flat_map(|_| update([0, 0, 0, 0], 1, &[0; 4])[4..].to_vec()));
    let mut out = Vec::new();
    walk(&mut walker, &message, &mut out, &mut Vec::new()).expect("allowed by RFC 6143");
    assert_eq!(walker.state, State::Type);
    assert!(std::mem::size_of::<Walker>() <= 256, "{}", std::mem::size_of::<Walker>());
}

#[test]
fn a_text_beyond_the_limit_is_dropped_and_one_within_passes() {
    let text = |length: u32| {
        let mut bytes = vec![3, 0, 0, 0];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend((0..length).map(|n| n as u8));
        bytes
    };
    let mut walker = walker(Some(100));
    let mut out = Vec::new();
    for length in [0, 100, 101, 1 << 20] {
        walk(&mut walker, &text(length), &mut out, &mut Vec::new()).expect("valid");
    }
    assert_eq!(out, [text(0), text(100)].concat());
    assert_eq!((walker.texts_passed, walker.texts_dropped), (2, 2));
}
