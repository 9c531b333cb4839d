// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::qemu::{Authority, Guest, Lock, PASSWORD};
use std::sync::Arc;
use tokio::io::{DuplexStream, duplex};

const LIMIT: Duration = Duration::from_secs(20);

fn login(password: Option<&str>) -> Login {
    Login { username: None, password: password.map(|text| Secret::from(text.to_owned())) }
}

/// A server that says its lines whatever it hears, and then hangs up. Gives what it heard.
async fn against(lines: &[&[u8]], login: Login) -> (Result<Upstream, Error>, Vec<u8>) {
    let (ours, mut theirs) = duplex(65_536);
    let server = async move {
        for line in lines {
            theirs.write_all(line).await.expect("written");
        }
        theirs.shutdown().await.expect("shut down");
        let mut heard = Vec::new();
        let _ = theirs.read_to_end(&mut heard).await;
        heard
    };
    let client = async {
        let mut outcome = connect(ours, &login, None, LIMIT).await;
        if let Ok(upstream) = &mut outcome {
            upstream.stream = Box::new(tokio::io::empty());
        }
        outcome
    };
    tokio::join!(client, server)
}

const INIT: &[u8] =
    b"\x02\x80\x01\xe0\x10\x10\x00\x01\x00\x1f\x00\x3f\x00\x1f\x0b\x05\x00\x00\x00\x00\x00\x00\x00\x02vm";

#[tokio::test]
async fn qemu_without_a_password_opens() {
    let guest = Guest::start(Lock::Open);
    let upstream = connect(guest.connect().await, &login(None), None, LIMIT).await.expect("open");
    assert_eq!(upstream.security, Security::None);
    assert_eq!(upstream.info.name, "QEMU (a [31mguest)");
    assert!(upstream.info.width >= 640 && upstream.info.height >= 400);
    // an impostor on the same address would look exactly like this
    let error = connect(guest.connect().await, &login(Some("pw")), None, LIMIT).await.expect_err("downgrade");
    assert!(matches!(error, Error::Downgrade(_)), "{error}");
    let tls = Authority::new().upgrade();
    let error = connect(guest.connect().await, &login(None), Some(tls), LIMIT).await.expect_err("downgrade");
    assert!(matches!(error, Error::Downgrade(_)), "{error}");
}

#[tokio::test]
async fn qemu_with_a_password_opens_with_that_one_only() {
    let guest = Guest::start(Lock::Password);
    let upstream = connect(guest.connect().await, &login(Some(PASSWORD)), None, LIMIT).await.expect("open");
    assert_eq!(upstream.security, Security::VncAuth);
    let error = connect(guest.connect().await, &login(Some("secret13")), None, LIMIT).await.expect_err("wrong");
    assert!(matches!(error, Error::WrongLogin(_)), "{error}");
    let error = connect(guest.connect().await, &login(None), None, LIMIT).await.expect_err("none");
    assert!(matches!(error, Error::NeedsPassword), "{error}");
    let tls = Authority::new().upgrade();
    let error = connect(guest.connect().await, &login(Some(PASSWORD)), Some(tls), LIMIT).await.expect_err("no TLS");
    assert!(matches!(error, Error::Downgrade(_)), "{error}");
}

#[tokio::test]
async fn qemu_with_tls_opens_if_its_certificate_is_ours() {
    let guest = Guest::start(Lock::X509None);
    let tls = || guest.authority.as_ref().map(Authority::upgrade);
    let upstream = connect(guest.connect().await, &login(None), tls(), LIMIT).await.expect("open");
    assert_eq!(upstream.security, Security::X509None);
    // inside TLS the server has proved itself: no password asked for is no downgrade
    let upstream = connect(guest.connect().await, &login(Some(PASSWORD)), tls(), LIMIT).await.expect("open");
    assert_eq!(upstream.security, Security::X509None);
    let stranger = Authority::new().upgrade();
    let error = connect(guest.connect().await, &login(None), Some(stranger), LIMIT).await.expect_err("impostor");
    assert!(matches!(error, Error::Tls(_)), "{error}");
    let error = connect(guest.connect().await, &login(None), None, LIMIT).await.expect_err("no CA");
    assert!(matches!(error, Error::Unsupported(ref types) if types == &[19]), "{error}");
}

#[tokio::test]
async fn qemu_with_tls_and_a_password_wants_both() {
    let guest = Guest::start(Lock::X509Vnc);
    let tls = || guest.authority.as_ref().map(Authority::upgrade);
    let upstream = connect(guest.connect().await, &login(Some(PASSWORD)), tls(), LIMIT).await.expect("open");
    assert_eq!(upstream.security, Security::X509Vnc);
    let error = connect(guest.connect().await, &login(Some("wrong")), tls(), LIMIT).await.expect_err("wrong");
    assert!(matches!(error, Error::WrongLogin(_)), "{error}");
    let error = connect(guest.connect().await, &login(None), tls(), LIMIT).await.expect_err("none");
    assert!(matches!(error, Error::NeedsPassword), "{error}");
}

/// QEMU offers X509Plain only with SASL; this is its side of rfbproto's VeNCrypt.
#[tokio::test]
async fn name_and_password_travel_inside_tls() {
    let authority = Authority::new();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![authority.server.clone()],
            rustls::pki_types::PrivateKeyDer::try_from(authority.key.serialize_der()).expect("a key"),
        )
        .expect("a configuration");
    let (ours, mut theirs) = duplex(65_536);
    let server = async move {
        theirs
            .write_all(b"RFB 003.008\n\x02\x01\x13\x00\x02\x00\x03\x00\x00\x01\x02\x00\x00\x01\x05\x00\x00\x01\x06\x01")
            .await
            .expect("written");
        let mut heard = [0; 12 + 1 + 2 + 4];
        theirs.read_exact(&mut heard).await.expect("the choice");
        assert_eq!(heard[12..], [19, 0, 2, 0, 0, 1, 6]);
        let mut tls = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(theirs).await.expect("TLS");
        let mut message = [0; 8 + 5 + 13];
        tls.read_exact(&mut message).await.expect("a login");
        assert_eq!(&message, b"\0\0\0\x05\0\0\0\x0dalicelong password");
        tls.write_all(&[0; 4]).await.expect("accepted");
        assert_eq!(tls.read_u8().await.expect("ClientInit"), 1);
        tls.write_all(INIT).await.expect("ServerInit");
        let mut pin = [0; 20];
        tls.read_exact(&mut pin).await.expect("SetPixelFormat");
        assert_eq!(pin[4..], PINNED_FORMAT);
    };
    let who = Login { username: Some("alice".into()), password: Some(Secret::from("long password".to_owned())) };
    let (outcome, ()) = tokio::join!(connect(ours, &who, Some(authority.upgrade()), LIMIT), server);
    let upstream = outcome.expect("open");
    assert_eq!(upstream.security, Security::X509Plain);
    assert_eq!(upstream.info, ScreenInfo { width: 640, height: 480, name: "vm".into() });
}

#[tokio::test]
async fn old_versions_open_and_are_answered_in_kind() {
    let (outcome, heard) = against(&[b"RFB 003.003\n", &[0, 0, 0, 1], INIT], login(None)).await;
    outcome.expect("3.3");
    assert_eq!(heard[..13], *b"RFB 003.003\n\x01");
    let (outcome, heard) = against(&[b"RFB 003.007\n", &[1, 1], INIT], login(None)).await;
    outcome.expect("3.7");
    assert_eq!(heard[..14], *b"RFB 003.007\n\x01\x01");
    let (outcome, heard) = against(&[b"RFB 003.889\n", &[1, 1], &[0; 4], INIT], login(None)).await;
    outcome.expect("Apple's");
    assert_eq!(heard[..14], *b"RFB 003.008\n\x01\x01");
    assert_eq!(heard[14..18], [0, 0, 0, 0]);
    assert_eq!(heard.len(), 14 + 20);
}

#[tokio::test]
async fn refusals_tell_the_servers_reason_cleaned_and_bounded() {
    let (outcome, _) = against(&[b"RFB 003.008\n", &[0, 0, 0, 0, 8], b"too\x1bmany"], login(None)).await;
    assert!(matches!(outcome, Err(Error::Refused(ref why)) if why == "toomany"), "{outcome:?}");
    let (outcome, _) = against(&[b"RFB 003.003\n", &[0; 4], &[0, 0, 0, 2], b"no"], login(None)).await;
    assert!(matches!(outcome, Err(Error::Refused(ref why)) if why == "no"), "{outcome:?}");
    let (outcome, _) = against(&[b"RFB 003.008\n", &[0], &[255; 4], &[b'x'; 1024]], login(None)).await;
    assert!(matches!(outcome, Err(Error::Refused(ref why)) if why.len() == 256), "{outcome:?}");
}

#[tokio::test]
async fn what_is_no_screen_of_ours_is_refused() {
    let (outcome, _) = against(&[b"HTTP/1.1 400"], login(None)).await;
    assert!(matches!(outcome, Err(Error::NotRfb)), "{outcome:?}");
    let (outcome, _) = against(&[b"RFB 003.008\n", &[3, 16, 18, 30]], login(Some("x"))).await;
    assert!(matches!(outcome, Err(Error::Unsupported(ref types)) if types == &[16, 18, 30]), "{outcome:?}");
    let (outcome, _) = against(&[b"RFB 003.003\n", &[0, 0, 1, 1]], login(None)).await;
    assert!(matches!(outcome, Err(Error::Unsupported(_))), "{outcome:?}");
    let (outcome, _) = against(&[b"RFB 003.008\n", &[1, 1]], login(None)).await;
    assert!(matches!(outcome, Err(Error::Io { step: Step::Login, .. })), "{outcome:?}");
}

#[tokio::test]
async fn announced_sizes_are_refused_before_anything_is_allocated() {
    let mut screen = INIT.to_vec();
    screen[..4].copy_from_slice(&[255; 4]);
    let (outcome, _) = against(&[b"RFB 003.008\n", &[1, 1], &[0; 4], &screen], login(None)).await;
    assert!(matches!(outcome, Err(Error::TooLarge { what: "a screen", .. })), "{outcome:?}");
    let mut name = INIT.to_vec();
    name[20..24].copy_from_slice(&[255; 4]);
    let (outcome, _) = against(&[b"RFB 003.008\n", &[1, 1], &[0; 4], &name], login(None)).await;
    assert!(matches!(outcome, Err(Error::TooLarge { what: "a name", .. })), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endless_handshake_ends_at_its_deadline() {
    let (ours, theirs): (DuplexStream, DuplexStream) = duplex(64);
    let (mut reading, mut writing) = tokio::io::split(theirs);
    let drip = async {
        for byte in b"RFB 003.008\n\x01\x01\0\0\0\0".iter().chain(INIT) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if writing.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    let swallow = async { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await };
    let started = tokio::time::Instant::now();
    let who = login(None);
    let dial = connect(ours, &who, None, Duration::from_secs(30));
    let outcome = tokio::select! {
        outcome = dial => outcome,
        () = async { tokio::join!(drip, swallow).0 } => panic!("it ended"),
    };
    assert!(matches!(outcome, Err(Error::TimedOut(Step::Init))), "{outcome:?}");
    assert_eq!(started.elapsed(), Duration::from_secs(30));
}

#[test]
fn a_login_does_not_print_its_password() {
    let text =
        format!("{:?}", Login { username: Some("bob".into()), password: Some(Secret::from("hunter2".to_owned())) });
    assert!(text.contains("bob") && !text.contains("hunter2"));
}

#[test]
fn the_strongest_offer_is_chosen() {
    let both = Login { username: Some("a".into()), password: Some(Secret::from("b".to_owned())) };
    assert_eq!(choose_vencrypt(&[260, 261, 262], &both).ok(), Some(VencryptType::Login));
    assert_eq!(choose_vencrypt(&[260, 261, 262], &login(Some("b"))).ok(), Some(VencryptType::Password));
    assert_eq!(choose_vencrypt(&[261, 260], &login(None)).ok(), Some(VencryptType::Alone));
    assert!(matches!(choose_vencrypt(&[256, 257, 258, 259], &both), Err(Error::Downgrade(_))));
    assert!(matches!(choose_vencrypt(&[262], &login(Some("b"))), Err(Error::NeedsUsername)));
    assert!(matches!(choose_vencrypt(&[263, 264], &both), Err(Error::Unsupported(_))));
    assert_eq!(choose(&[1, 2, 19], &both, Wish::Tls).ok(), Some(SecurityType::Vencrypt));
    assert_eq!(choose(&[1, 2, 19], &login(Some("b")), Wish::Plain).ok(), Some(SecurityType::VncAuth));
}
