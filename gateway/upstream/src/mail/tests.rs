// SPDX-License-Identifier: Apache-2.0
use super::*;
use time::macros::datetime;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    task::JoinHandle,
};

fn mailer(host: &str, port: u16, tls: MailTls) -> Result<Mailer, Error> {
    let from = "gateway@example.org".parse().unwrap();
    Mailer::new(
        "mail",
        MailServer { host, port, tls, ca_file: None, login: None, hello: "console.example.org".into(), from },
    )
}

fn mail<'a>(to: &'a MailAddress, subject: &'a str, text: &'a str) -> Mail<'a> {
    Mail { id: "0193", to, subject, text, at: datetime!(2026-11-28 12:00 UTC) }
}

fn kim() -> MailAddress {
    "kim@example.org".parse().unwrap()
}

#[test]
fn mail_without_tls_goes_to_this_machine_only() {
    for here in ["localhost", "127.0.0.1", "127.9.9.9", "::1"] {
        assert!(mailer(here, 25, MailTls::None).is_ok(), "{here}");
    }
    for away in ["mail.example.org", "10.0.0.1", "127.0.0.1.example.org", "localhost.example.org", "0.0.0.0", "fe80::1"]
    {
        let error = mailer(away, 25, MailTls::None).err().unwrap().to_string();
        assert!(error.starts_with("mail.tls: "), "{error}");
        assert!(mailer(away, 465, MailTls::Implicit).is_ok(), "{away}");
    }
    for bad in ["", "mail example.org", "mail.example.org/x", "user@mail.example.org"] {
        assert!(mailer(bad, 465, MailTls::Implicit).err().unwrap().to_string().starts_with("mail.host: "), "{bad}");
    }
}

#[test]
fn nothing_that_people_wrote_becomes_a_header_or_an_end() {
    let mailer = mailer("localhost", 25, MailTls::None).unwrap();
    let to = kim();
    let evil = "Zoë asks\r\nBcc: eve@example.org\r\n\r\n<b>now</b>\u{202e}";
    for (subject, text) in [
        (evil, "Grüße\n.\nQUIT\r\nRSET\n"),
        ("\n\nTo: eve@example.org", "plain\n.\n.\n"),
        (&"x".repeat(2_000), &"y".repeat(5_000)),
        ("=?utf-8?q?Bcc:_eve?=", "\u{0}\u{1b}[31m"),
    ] {
        let written = mailer.write(mail(&to, subject, text)).unwrap();
        let text = String::from_utf8(written.formatted()).expect("plain letters");
        assert!(text.is_ascii());
        let (head, _) = text.split_once("\r\n\r\n").expect("a head");
        let lines = head.split("\r\n").filter(|l| !l.starts_with([' ', '\t']));
        let mut names: Vec<&str> = lines.filter_map(|l| l.split(':').next()).collect();
        names.sort_unstable();
        let ours = "Auto-Submitted Content-Transfer-Encoding Content-Type Date From MIME-Version Message-ID Subject To";
        assert_eq!(names.join(" "), ours, "{head}");
        assert!(head.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])), "{head}");
        assert!(head.contains("<0193@console.example.org>") && head.contains("auto-generated"), "{head}");
        assert_eq!(written.envelope().to().len(), 1, "one receiver");
    }
}

/// A server that says its replies in turn, and gives all that it heard.
async fn server(replies: &'static [&'static str]) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "a peer of a test")]
    let heard = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut heard = Vec::new();
        for reply in replies {
            if stream.write_all(reply.as_bytes()).await.is_err() {
                break;
            }
            let until: &[u8] = if reply.starts_with("354") { b"\r\n.\r\n" } else { b"\r\n" };
            let from = heard.len();
            while !heard[from..].ends_with(until) {
                if stream.read_until(b'\n', &mut heard).await.unwrap_or(0) == 0 {
                    return heard;
                }
            }
        }
        heard
    });
    (port, heard)
}

#[tokio::test]
async fn what_was_refused_for_good_is_told_from_what_may_be_taken_later() {
    const HELLO: [&str; 2] = ["220 there\r\n", "250 hello\r\n"];
    for (replies, never) in [
        (&["554 no service\r\n"][..], false),
        (&[HELLO[0], "502 what?\r\n"], false),
        // Whom mail comes from is the configuration's: that can be mended.
        (&[HELLO[0], HELLO[1], "550 not you\r\n"], false),
        (&[HELLO[0], HELLO[1], "250 ok\r\n", "450 busy\r\n"], false),
        (&[HELLO[0], HELLO[1], "250 ok\r\n", "550 nobody\r\n"], true),
        (&[HELLO[0], HELLO[1], "250 ok\r\n", "250 ok\r\n", "451 later\r\n"], false),
        (&[HELLO[0], HELLO[1], "250 ok\r\n", "250 ok\r\n", "354 go on\r\n", "452 full\r\n"], false),
        (&[HELLO[0], HELLO[1], "250 ok\r\n", "250 ok\r\n", "354 go on\r\n", "554 not that\r\n"], true),
        (&[HELLO[0], HELLO[1], "250 ok\r\n", "250 ok\r\n", "354 go on\r\n"], false),
        (&["hello?\r\n"], false),
        (&[], false),
    ] {
        let (port, heard) = server(replies).await;
        let sent = mailer("127.0.0.1", port, MailTls::None).unwrap().send(mail(&kim(), "s", "t")).await;
        assert_eq!(matches!(sent, Err(Undelivered::Never(_))), never, "{replies:?}: {sent:?}");
        assert_eq!(matches!(sent, Err(Undelivered::Later(_))), !never, "{replies:?}: {sent:?}");
        drop(heard);
    }
    let taken =
        &["220 there\r\n", "250-hello\r\n250 SIZE 9\r\n", "250 ok\r\n", "250 ok\r\n", "354 go on\r\n", "250 mine\r\n"];
    let (port, heard) = server(taken).await;
    mailer("127.0.0.1", port, MailTls::None).unwrap().send(mail(&kim(), "s", "a\n.\nb")).await.unwrap();
    let heard = String::from_utf8(heard.await.unwrap()).unwrap();
    let want = ["EHLO console.example.org\r\n", "MAIL FROM:<gateway@example.org>", "RCPT TO:<kim@example.org>\r\n"];
    assert!(want.iter().all(|line| heard.contains(line)), "{heard}");
    assert!(heard.contains("\r\n..\r\n"), "a dot alone is no end: {heard}");
    let nobody = mailer("127.0.0.1", 1, MailTls::None).unwrap().send(mail(&kim(), "s", "t")).await;
    assert!(matches!(nobody, Err(Undelivered::Later(Fault::Unreachable { .. }))), "{nobody:?}");
}

#[tokio::test]
async fn a_server_that_says_too_much_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for tls in [MailTls::None, MailTls::StartTls] {
        let talk = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.write_all(&[b'2'; 4096]).await.is_ok() {}
        };
        let mailer = mailer("127.0.0.1", port, tls).unwrap();
        let to = kim();
        let sent = mailer.send(mail(&to, "s", "t"));
        let (sent, ()) = tokio::join!(sent, talk);
        assert!(matches!(sent, Err(Undelivered::Later(Fault::Protocol(_)))), "{tls:?}: {sent:?}");
    }
}

#[tokio::test]
async fn nothing_is_said_before_tls_and_nothing_that_was_said_before_it_is_believed() {
    for (replies, said) in [
        (&["220 there\r\n", "250 hello\r\n"][..], "does not offer STARTTLS"),
        (&["220 there\r\n", "250-there\r\n250 STARTTLSX\r\n"], "does not offer STARTTLS"),
        (&["220 there\r\n", "250 STARTTLS\r\n", "454 not now\r\n"], "454 not now"),
        // Replies of somebody on the way, sent along with the last one in the open.
        (&["220 there\r\n", "250-there\r\n250 starttls\r\n", "220 go on\r\n250 AUTH PLAIN\r\n250 ok\r\n"], ""),
    ] {
        let (port, heard) = server(replies).await;
        let sent = mailer("localhost", port, MailTls::StartTls).unwrap().send(mail(&kim(), "s", "t")).await;
        let error = sent.unwrap_err();
        assert!(matches!(error, Undelivered::Later(_)) && error.to_string().contains(said), "{error}");
        let heard = heard.await.unwrap();
        // What follows a handshake's first byte is TLS.
        let open = heard.split(|byte| *byte == 0x16).next().unwrap_or_default();
        let text = String::from_utf8_lossy(open);
        assert!(text.starts_with("EHLO console.example.org\r\n"), "{text}");
        for word in ["MAIL", "RCPT", "AUTH", "DATA", "kim"] {
            assert!(!text.contains(word), "{word} in the open: {text}");
        }
    }
}
