// SPDX-License-Identifier: Apache-2.0
//! Whoever may decide on a request, and whoever asked, are told by mail, by a real server, and nobody waits for it.

use crate::support::{
    Person, TestGateway,
    gateway::{free_port, sql},
    peers::{Peer, python},
    person::location,
};
use reqwest::StatusCode;
use serde_json::Value;
use std::time::{Duration, Instant};

const RULE: &str = "[[requests.rule]]\nname = \"web\"\non = [\"tag:web\"]\nowners = [\"olga\"]\nlongest_hours = 1\n";
const WISH: [(&str, &str); 4] = [("role", "viewer"), ("on", "tag:web"), ("reason", "to look at it"), ("hours", "1")];

fn section(server: &Peer, tls: &str, ca: &str) -> String {
    format!(
        "[mail]\nhost = \"localhost\"\nport = {}\ntls = \"{tls}\"\nca_file = \"{ca}\"\nuser = \"{}\"\n\
         password_file = \"{}\"\nfrom = \"portcullis@example.org\"\n{RULE}",
        server.get("PORT"),
        server.get("USER"),
        server.get("PASSWORD_FILE"),
    )
}

/// Everything that a server took, in order: heads and texts as a mail program reads them.
fn letters(server: &Peer) -> Vec<Value> {
    let read = format!(
        "import email, email.policy, glob, json, os\n\
         files = sorted(glob.glob({:?} + '/new/*'), key=os.path.getmtime)\n\
         read = lambda f: email.message_from_binary_file(open(f, 'rb'), policy=email.policy.default)\n\
         print(json.dumps([dict(m.items(), text=m.get_content()) for m in map(read, files)]))",
        server.get("MAILBOX")
    );
    serde_json::from_str(python(&read).trim()).expect("JSON")
}

/// Waits until so many letters were taken, while the gateway's clock goes on.
async fn wait_for(gateway: &TestGateway, server: &Peer, count: usize) -> Vec<Value> {
    let mut all = letters(server);
    for _ in 0..60 {
        if all.len() >= count {
            break;
        }
        gateway.clock.advance(time::Duration::seconds(5));
        tokio::time::sleep(Duration::from_millis(250)).await;
        all = letters(server);
    }
    assert_eq!(all.len(), count, "{all:#?}");
    all
}

fn address(gateway: &TestGateway, name: &str) {
    let (code, text) = gateway.shell(&["user", "mail", name, &format!("{name}@example.org")]);
    assert_eq!(code, Some(0), "{text}");
}

// SEC-124: both sides are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_are_told_by_mail_and_nobody_else() {
    let server = Peer::smtp("starttls", &[]);
    let gateway = TestGateway::start(&section(&server, "starttls", server.get("CA_FILE"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (kim, olga, bob) = (ada.invite("kim").await, ada.invite("olga").await, ada.invite("bob").await);
    for name in ["kim", "bob"] {
        address(&gateway, name);
    }
    // On a page, by an administrator; what is no address is said, and not kept.
    ada.step_up().await;
    let page = format!("/users/{}", gateway.user_id("olga").await);
    for bad in ["olga", "olga@example.org\r\nBcc: eve@example.org", "Olga <olga@example.org>"] {
        let answer = ada.submit(&format!("{page}/mail"), &[("address", bad)]).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{bad:?}");
        assert!(answer.text().await.expect("a page").contains("Write an address like ada@example.org"), "{bad:?}");
    }
    assert_eq!(location(&ada.submit(&format!("{page}/mail"), &[("address", "olga@example.org")]).await), page);
    assert!(ada.page(&page).await.contains("<bdi>olga@example.org</bdi>, written by an administrator"));
    assert_eq!(bob.submit(&format!("{page}/mail"), &[("address", "bob@example.org")]).await.status(), 403);

    let reason = "Störung seit zwölf: siehe https://evil.example/x\nBcc: eve@example.org";
    let wish = [("role", "viewer"), ("on", "tag:web"), ("reason", reason), ("hours", "1")];
    let asked = location(&kim.submit("/requests", &wish).await);
    let link = format!("{}{asked}", gateway.url());
    let all = wait_for(&gateway, &server, 1).await;
    assert_eq!(
        (&all[0]["To"], &all[0]["From"]),
        (&"olga@example.org".into(), &"Portcullis <portcullis@example.org>".into())
    );
    assert_eq!(all[0]["Subject"], "kim asks to act as viewer on tag web");
    assert_eq!(all[0]["Auto-Submitted"], "auto-generated");
    let text = all[0]["text"].as_str().expect("text");
    assert!(
        text.contains("Why: Störung seit zwölf: siehe https[:]//evil[.]example/x\nBcc: eve[at]example[.]org\n"),
        "{text}"
    );
    assert!(text.contains(&format!("decide:\n{link}\n")) && text.matches("://").count() == 2, "{text}");
    assert!(
        all[0].get("Bcc").is_none() && all[0].get("X-MailFrom") == Some(&"portcullis@example.org".into()),
        "{all:?}"
    );

    olga.step_up().await;
    assert_eq!(location(&olga.submit(&format!("{asked}/approve"), &[("reason", "go ahead")]).await), asked);
    let all = wait_for(&gateway, &server, 2).await;
    assert_eq!(
        (&all[1]["To"], &all[1]["Subject"]),
        (&"kim@example.org".into(), &"Approved: act as viewer on tag web".into())
    );
    let text = all[1]["text"].as_str().expect("text");
    assert!(text.contains("olga approved that you may act as viewer on tag web, for 1 hour."), "{text}");
    assert!(text.contains("olga wrote: go ahead") && text.contains(&link), "{text}");
    // What she does herself she knows; that it ends soon, and is over, she is told once.
    assert_eq!(location(&kim.submit(&format!("{asked}/begin"), &[]).await), asked);
    gateway.clock.advance(time::Duration::minutes(50));
    let all = wait_for(&gateway, &server, 3).await;
    assert_eq!(
        (&all[2]["To"], &all[2]["Subject"]),
        (&"kim@example.org".into(), &"Ends soon: act as viewer on tag web".into())
    );
    gateway.clock.advance(time::Duration::minutes(10));
    let all = wait_for(&gateway, &server, 4).await;
    assert_eq!(all[3]["Subject"], "Over: act as viewer on tag web");
    let ids: std::collections::BTreeSet<_> = all.iter().map(|m| m["Message-ID"].to_string()).collect();
    assert_eq!(ids.len(), 4, "each has an id of its own");
    let log = std::fs::read_to_string(server.get("LOG")).expect("a log");
    assert!(log.lines().filter(|l| l.starts_with("RCPT")).all(|l| l.ends_with("TLS True")), "{log}");
    // The trail names nobody's address.
    let (_, trail) = gateway.shell(&["audit", "search", "--json"]);
    assert!(trail.contains("an address for mail is written down") && !trail.contains("@example.org"), "{trail}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_holds_nobody_up_and_gets_its_letters_when_it_is_back() {
    let server = Peer::smtp("implicit", &[]);
    let gateway = TestGateway::start(&section(&server, "implicit", server.get("CA_FILE"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (kim, olga) = (ada.invite("kim").await, ada.invite("olga").await);
    address(&gateway, "olga");
    server.halt();
    let before = Instant::now();
    let asked = location(&kim.submit("/requests", &WISH).await);
    assert!(asked.starts_with("/requests/") && before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    // It is tried, and waits; a restart loses nothing.
    for _ in 0..8 {
        gateway.clock.advance(time::Duration::seconds(5));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let doctor = || {
        // The gateway's clock goes before the machine's here, which the doctor finds wrong.
        let (_, out) = gateway.shell(&["doctor", "--json"]);
        let all: Vec<Value> = out.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let found: Vec<Value> = all.into_iter().filter(|f| f["what"].to_string().contains("outbox")).collect();
        assert_eq!(found.len(), 1, "of a way that is not used nothing is said: {found:?}");
        (found[0]["is"].as_str().expect("a word").to_owned(), found[0]["found"].as_str().expect("words").to_owned())
    };
    let (is, said) = doctor();
    assert_eq!(is, "doubtful", "{said}");
    assert!(said.contains("waiting: 1 message, of at most 10000, the oldest for 0 minutes"), "{said}");
    assert!(said.contains("last not delivered, about olga, at ") && said.contains("refused"), "{said}");
    gateway.restart().await;
    assert!(letters(&server).is_empty());
    server.ask("start", &["implicit"]);
    let all = wait_for(&gateway, &server, 1).await;
    assert_eq!(all[0]["To"], "olga@example.org");
    // What failed is told for a day, though it was taken since.
    let (is, said) = doctor();
    assert!(is == "doubtful" && said.starts_with("waiting: 0 messages, of at most 10000; last not"), "{said}");

    // Whoever is refused for good is given up at once, and said so; the others get theirs.
    let (code, text) = gateway.shell(&["user", "mail", "kim", "nobody@example.org"]);
    assert_eq!(code, Some(0), "{text}");
    let mut olga = Person::with_key(&gateway, "olga", olga.key());
    olga.sign_in().await;
    olga.step_up().await;
    assert_eq!(location(&olga.submit(&format!("{asked}/refuse"), &[("reason", "no")]).await), asked);
    let given_up = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("given up") && r.contains("550"));
    gateway.find_event(&["--kind", "alarm", "--resource", "kim"], given_up).await;
    assert_eq!(letters(&server).len(), 1);
    let (_, said) = doctor();
    assert!(said.contains("about kim, at ") && said.contains("550"), "what was given up, too: {said}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_to_a_server_whose_certificate_is_not_the_one_and_a_day_later_it_is_given_up() {
    let server = Peer::smtp("implicit", &[]);
    let starttls = Peer::smtp("starttls", &[]);
    for (server, tls) in [(&server, "implicit"), (&starttls, "starttls")] {
        // The authority that the gateway made for itself signed none of them.
        let gateway = TestGateway::start(&section(server, tls, "tls/ca.pem")).await;
        let ada = Person::first_administrator(&gateway, "ada").await;
        let (kim, _) = (ada.invite("kim").await, ada.invite("olga").await);
        address(&gateway, "olga");
        let asked = location(&kim.submit("/requests", &WISH).await);
        assert!(asked.starts_with("/requests/"), "{asked}");
        gateway.clock.advance(time::Duration::hours(25));
        let given_up = |e: &Value| {
            e["reason"].as_str().is_some_and(|r| r.contains("given up") && r.contains("failed the TLS check"))
        };
        for _ in 0..10 {
            gateway.clock.advance(time::Duration::minutes(10));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        gateway.find_event(&["--kind", "alarm", "--resource", "olga"], given_up).await;
        assert!(letters(server).is_empty());
        let log = std::fs::read_to_string(server.get("LOG")).expect("a log");
        assert!(!log.contains("RCPT"), "{log}");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_outbox_is_said_once_and_one_person_does_not_fill_it() {
    let server = Peer::smtp("implicit", &[]);
    let health = free_port();
    let sections =
        format!("[health]\nlisten = \"127.0.0.1:{health}\"\n{}", section(&server, "implicit", server.get("CA_FILE")));
    let gateway = TestGateway::start(&sections).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (kim, zoe) = (ada.invite("kim").await, ada.invite("zoe").await);
    ada.invite("olga").await;
    address(&gateway, "olga");
    // Messages that wait, and go on waiting.
    let user = gateway.user_id("kim").await;
    let fill = |from: u32, count: u32, cause: &str| {
        let (id, year) = ("printf('%08x-0000-4000-8000-000000000000', i)", 3_000_000_000_000_000_i64);
        sql(
            &gateway.dir.path().join("portcullis.db"),
            &format!(
                "insert into outbox (id, way, whom, body, made_at, due_at, tries, cause) \
                 with recursive n(i) as (select {from} union all select i + 1 from n where i < {from} + {count} - 1) \
                 select {id}, 'mail', 'x', '{{}}', 1, {year}, 0, '{cause}' from n"
            ),
        );
    };
    let ask = async |by: &Person<'_>, role: &str| {
        let wish = [("role", role), ("on", "tag:web"), ("reason", "to look at it"), ("hours", "1")];
        let asked = location(&by.submit("/requests", &wish).await);
        assert!(asked.starts_with("/requests/"), "{asked}: a step is taken whether or not anybody hears of it");
    };
    let alarms = |about: &str| gateway.search(&["--kind", "alarm", "--resource", about]).len();
    fill(1, 500, &user);
    ask(&kim, "viewer").await;
    let said = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("this person's doing"));
    gateway.find_event(&["--kind", "alarm", "--resource", "kim"], said).await;
    ask(&zoe, "viewer").await;
    assert_eq!(wait_for(&gateway, &server, 1).await[0]["Subject"], "zoe asks to act as viewer on tag web");

    fill(1_000, 9_500, "");
    for role in ["operator", "auditor"] {
        ask(&zoe, role).await;
    }
    let said = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("nobody is told of steps"));
    gateway.find_event(&["--kind", "alarm", "--resource", "outbox"], said).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((alarms("outbox"), alarms("kim")), (1, 1), "once, and not for each message");
    let metrics = reqwest::get(format!("http://127.0.0.1:{health}/metrics")).await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    assert!(metrics.contains("portcullis_messages_unposted 3\n"), "{metrics}");
    assert!(metrics.contains("portcullis_messages_waiting 10000\n"), "{metrics}");
    // An hour later it is said again.
    gateway.clock.advance(time::Duration::hours(2));
    let mut zoe = Person::with_key(&gateway, "zoe", zoe.key());
    zoe.sign_in().await;
    ask(&zoe, "administrator").await;
    for _ in 0..50 {
        if alarms("outbox") == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(alarms("outbox"), 2);
    assert_eq!(letters(&server).len(), 1);
    gateway.stop().await;
}
