// SPDX-License-Identifier: Apache-2.0
//! What the door of libvirt's RPC owes to those who keep to no rule, and to those who wait.

use crate::support::{
    Person, TestGateway,
    fake_libvirtd::{FakeLibvirtd, ID, REMOTE, Raw, Said, domain, read},
    gateway::free_port,
    page,
};
use portcullis_domain::{HypervisorName, Inventory};
use portcullis_policy::classify::{
    Verdict,
    libvirt::{Place, Procedures},
};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::io::AsyncWriteExt as _;

const FAST: &str = "[limits]\ntoken_per_second = 100000\ntoken_burst = 100000\nstranger_per_second = 1000\n\
                    stranger_burst = 1000\nsign_in_per_minute = 600\n";

/// The serial of a call that ends a round.
const LAST: u32 = 1_000_000;

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("small")
    }
}

/// The gateway, its daemon, and somebody's token, once the machine is in the inventory.
async fn house(limits: &str) -> (FakeLibvirtd, TestGateway, u16, String) {
    let (libvirtd, port) = (FakeLibvirtd::start(), free_port());
    let gateway = TestGateway::start(&format!("{limits}{}", libvirtd.config(port))).await;
    let token = {
        let ada = Person::first_administrator(&gateway, "ada").await;
        for _ in 0..100 {
            if ada.get("/api/v1/machines").await.text().await.expect("text").contains("web-1") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ada.token("kvm").await
    };
    (libvirtd, gateway, port, token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_odd_messages_change_nothing_and_pass_only_with_a_verdict() {
    let (libvirtd, gateway, port, token) = house(FAST).await;
    let mut dice = Dice(0x5eed_1234_5678_9abc);
    let (mut sent, mut connections) = (0, 0);
    while sent < 10_000 {
        let mut raw = Raw::connect(&gateway, port).await;
        raw.enter("ada", &token).await;
        connections += 1;
        let (mut from, mut to) = tokio::io::split(raw.0);
        let last = Said::call(273, LAST, [0, 0, 0, 1, 0, 0, 0, 0].to_vec());
        let reading = async {
            while let Some(said) = read(&mut from).await {
                if said.serial == LAST {
                    return;
                }
            }
        };
        let writing = async {
            for _ in 0..400 {
                let mut bytes = odd(&mut dice);
                // Closing is no fun.
                if bytes.get(12..16) == Some(&[0, 0, 0, 2]) {
                    bytes[15] = 9;
                }
                sent += 1;
                if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
            to.write_all(&last.bytes()).await.ok();
            to.flush().await.ok();
        };
        // Whatever goes on is answered to its end; others end, or wait for the rest of a message that has none.
        let both = async { tokio::join!(reading, writing) };
        tokio::time::timeout(Duration::from_secs(2), both).await.ok();
    }
    assert!(connections > 20, "{connections}");

    let calls = libvirtd.calls();
    let (inventory, kvm): (Inventory, HypervisorName) = (Inventory::default(), "kvm".parse().expect("a name"));
    let place = Place { hypervisor: &kvm, inventory: &inventory, labels: "urn:portcullis:1" };
    let of_the_gateway = [1, 60, 66, 273, 316];
    for call in &calls {
        assert_eq!((call.kind, call.status), (0, 0), "only calls: {call:?}");
        let known = Procedures::builtin().classify(place, call.program, call.procedure, &call.payload);
        let denied = matches!(known.verdict, Verdict::Denied(_) | Verdict::Unread);
        assert!(!denied || of_the_gateway.contains(&call.procedure), "{call:?}");
        assert!(call.program == REMOTE || call.program == 0x2000_8087, "{call:?}");
    }
    let passed = calls.iter().filter(|c| !of_the_gateway.contains(&c.procedure) && ![14, 212].contains(&c.procedure));
    let passed = passed.count();
    assert!(passed > 100, "{passed} of {sent} passed: nothing was tried");
    println!("{sent} messages on {connections} connections, {passed} passed");

    // It is all there still.
    let mut raw = Raw::connect(&gateway, port).await;
    raw.enter("ada", &token).await;
    let answer = raw.ask(273, [0, 0, 0, 1, 0, 0, 0, 0].to_vec()).await.expect("an answer");
    assert!(answer.status == 0 && answer.payload.windows(16).any(|w| w == ID), "{answer:?}");
    gateway.stop().await;
}

/// A message that is nearly right, or wrong.
fn odd(dice: &mut Dice) -> Vec<u8> {
    // Some take nothing but a machine: those have a chance to be right.
    let short = [9, 12, 15, 16, 17, 18, 19, 28, 33, 34, 35, 150, 151, 163, 164, 202];
    let procedure =
        if dice.roll(3) == 0 { short[dice.roll(16)] } else { u32::try_from(dice.roll(460)).expect("small") };
    let payload = match dice.roll(5) {
        0 => Vec::new(),
        1 => domain(),
        2 => [domain(), vec![0; 4]].concat(),
        3 => {
            [domain(), (0..4 * dice.roll(8)).map(|_| u8::try_from(dice.roll(256)).expect("a byte")).collect()].concat()
        }
        _ => (0..4 * dice.roll(40)).map(|_| u8::try_from(dice.roll(3)).expect("a byte")).collect(),
    };
    let program = [REMOTE, REMOTE, REMOTE, 0x2000_8087, 0x0006_8000, 0x6b65_6570, 7][dice.roll(7)];
    let serial = u32::try_from(dice.roll(1000)).expect("small");
    let mut bytes = Said { program, procedure, kind: 0, serial, status: 0, payload }.bytes();
    // Most are sent as they are; some with a word that is wrong, some with a byte that is.
    match dice.roll(1000) {
        0 => bytes[3] = bytes[3].wrapping_add(u8::try_from(dice.roll(256)).expect("a byte")),
        1 => bytes[dice.roll(28)] ^= 1 << dice.roll(8),
        2 => bytes[19] = u8::try_from(dice.roll(8)).expect("a byte"),
        3 => bytes[27] = u8::try_from(dice.roll(4)).expect("a byte"),
        4..=200 if bytes.len() > 28 => {
            let at = 28 + dice.roll(bytes.len() - 28);
            bytes[at] ^= 1 << dice.roll(8);
        }
        _ => {}
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_none_ends_the_connection() {
    let (libvirtd, gateway, port, token) = house(FAST).await;
    let good = Said::call(9, 7, domain());
    let with = |at: usize, word: u32| {
        let mut bytes = good.bytes();
        bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        bytes
    };
    let reply = Said { kind: 1, ..good.clone() }.bytes();
    let event = Said { kind: 2, procedure: 107, ..good.clone() }.bytes();
    let files = Said { kind: 4, ..good.clone() }.bytes();
    for (what, bytes) in [
        ("shorter than its head", with(0, 27)),
        ("longer than any", with(0, 0x7fff_ffff)),
        ("another version", with(8, 2)),
        ("an answer", reply),
        ("an event", event),
        ("open files", files),
        ("a call with an error", with(24, 1)),
        ("a call that goes on", with(24, 2)),
    ] {
        let mut raw = Raw::connect(&gateway, port).await;
        raw.enter("ada", &token).await;
        raw.write(&bytes).await;
        let ended = tokio::time::timeout(Duration::from_secs(5), read(&mut raw.0)).await;
        assert_eq!(ended.expect("in time"), None, "{what}");
    }
    // The same before anybody is known; and nothing but the sign-in is answered then.
    for bytes in [with(0, 27), with(0, 100_000), with(8, 2), Said::call(273, 1, vec![0; 8]).bytes()] {
        let mut raw = Raw::connect(&gateway, port).await;
        raw.write(&bytes).await;
        let answer = tokio::time::timeout(Duration::from_secs(5), read(&mut raw.0)).await.expect("in time");
        assert!(answer.is_none_or(|a| a.status == 1), "{bytes:?}");
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), read(&mut raw.0)).await.expect("in time"), None);
    }
    assert!(!libvirtd.calls().iter().any(|c| c.procedure == 9), "nothing of it arrived");
    // What has another form than its call is refused, and the connection goes on.
    let mut raw = Raw::connect(&gateway, port).await;
    raw.enter("ada", &token).await;
    for (procedure, payload) in
        [(9, vec![]), (9, [domain(), vec![0; 4]].concat()), (9, domain()[..20].to_vec()), (454, domain())]
    {
        assert_eq!(raw.ask(procedure, payload).await.expect("an answer").status, 1);
    }
    assert!(!libvirtd.calls().iter().any(|c| [9, 454].contains(&c.procedure)));
    assert_eq!(raw.ask(9, domain()).await.expect("an answer").status, 0);
    assert_eq!(libvirtd.calls().iter().filter(|c| c.procedure == 9).count(), 1);
    // The connection is opened once.
    assert_eq!(raw.ask(1, vec![0; 8]).await.expect("an answer").status, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_read_and_whoever_does_not_answer_costs_a_bounded_amount() {
    let (libvirtd, gateway, port, token) = house(FAST).await;
    // Each of these is answered with 4 MiB, and nobody reads: a few are asked for, and then no more.
    let mut raw = Raw::connect(&gateway, port).await;
    raw.enter("ada", &token).await;
    let asked = |procedure: u32| libvirtd.calls().iter().filter(|c| c.procedure == procedure).count();
    let flood = async {
        for serial in 0..2000 {
            if !raw.write(&Said::call(7, serial, vec![]).bytes()).await {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(4), flood).await.ok();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let first = asked(7);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!((1..=40).contains(&first) && asked(7) == first, "{first} answers of 4 MiB each, then {}", asked(7));
    drop(raw);

    // A daemon that does not answer: so many calls wait, and the next ones are not taken.
    libvirtd.answers.store(false, Ordering::Relaxed);
    let mut raw = Raw::connect(&gateway, port).await;
    libvirtd.answers.store(true, Ordering::Relaxed);
    raw.enter("ada", &token).await;
    libvirtd.answers.store(false, Ordering::Relaxed);
    for serial in 0..100 {
        raw.write(&Said::call(59, serial, vec![]).bytes()).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(asked(59), 16, "calls that wait at a time");
    // Somebody else is not held up by it.
    libvirtd.answers.store(true, Ordering::Relaxed);
    let mut other = Raw::connect(&gateway, port).await;
    other.enter("ada", &token).await;
    assert_eq!(other.ask(9, domain()).await.expect("an answer").status, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_hears_that_its_token_was_revoked() {
    let (libvirtd, port) = (FakeLibvirtd::start(), free_port());
    let gateway = TestGateway::start(&format!("{FAST}{}", libvirtd.config(port))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let token = ada.token("kvm").await;
    let mut raw = Raw::connect(&gateway, port).await;
    raw.enter("ada", &token).await;
    libvirtd.answers.store(false, Ordering::Relaxed);
    raw.write(&Said::call(59, 3, vec![]).bytes()).await;
    let begun = Instant::now();
    let html = ada.page("/me").await;
    let at = html.find("action=\"/me/tokens/revoke\"").expect("it is listed");
    let id = page::field(&html[at..], "id").expect("an id");
    let answer = ada.submit("/me/tokens/revoke", &[("id", &id)]).await;
    assert!(answer.status().is_redirection(), "{}", answer.status());
    let told = tokio::time::timeout(Duration::from_secs(5), read(&mut raw.0)).await.expect("in time").expect("words");
    let text = String::from_utf8_lossy(&told.payload).into_owned();
    assert!(told.status == 1 && text.contains("access ended: the token no longer counts"), "{text}");
    assert_eq!(read(&mut raw.0).await, None);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let mut raw = Raw::connect(&gateway, port).await;
    assert_eq!(raw.ask(66, vec![]).await.expect("an answer").status, 0);
    let cut = |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.contains("access ended"));
    gateway.find_event(&["--kind", "api", "--outcome", "failed"], cut).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_wrong_tokens_is_slowed_down_and_does_not_fill_the_trail() {
    let limits = "[limits]\nstranger_per_second = 1\nstranger_burst = 5\nsign_in_per_minute = 600\n";
    let (_libvirtd, gateway, port, token) = house(limits).await;
    let (begun, mut slow) = (Instant::now(), 0);
    for _ in 0..60 {
        let mut raw = Raw::connect(&gateway, port).await;
        let data = b"\0ada\0pct_wrong";
        let mut payload = [&[0, 0, 0, 5][..], b"PLAIN\0\0\0", &[0; 4], &[0, 0, 0, 14]].concat();
        payload.extend(data.iter().flat_map(|b| u32::from(*b).to_be_bytes()));
        let answer = raw.ask(68, payload).await.expect("an answer");
        assert_eq!(answer.status, 1);
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(text.contains("Sign in first") || text.contains("Too many requests"), "{text}");
        slow += usize::from(text.contains("Too many requests"));
        assert_eq!(read(&mut raw.0).await, None, "one try a connection");
    }
    let let_in = 6 + usize::try_from(begun.elapsed().as_secs()).expect("short");
    assert!(slow >= 60 - let_in, "{slow}");
    // The right one is let in all the while.
    let mut raw = Raw::connect(&gateway, port).await;
    raw.enter("ada", &token).await;
    gateway.find_event(&["--kind", "api", "--outcome", "denied"], |_| true).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let events = gateway.search(&["--kind", "api", "--outcome", "denied", "--limit", "1000"]).len();
    assert!(events <= let_in, "{events} events of 60 that knocked");
    gateway.stop().await;
}
