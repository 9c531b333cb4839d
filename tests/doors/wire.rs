// SPDX-License-Identifier: Apache-2.0
//! What no HTTP library would send: requests whose end can be read in two ways, written byte by byte to an API's door.
//! The tool behind them is allowed everything, so that only the framing stands between what is smuggled and the
//! hypervisor.

use crate::support::{FakeLxd, Person, TestGateway, gateway::free_port};
use rustls::pki_types::ServerName;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What hides in a body or behind a request, and must not be asked for by its own.
pub(super) const SMUGGLED: &str = "/1.0/profiles/smuggled";
/// What stands in the open.
pub(super) const OPEN: &str = "/1.0/profiles/open";

/// How long an answer may take to begin, and another one to follow it.
pub(super) const FIRST: Duration = Duration::from_millis(1500);
pub(super) const NEXT: Duration = Duration::from_millis(250);

/// A door, and a tool of somebody who may do everything there.
pub(super) struct Door {
    pub(super) gateway: TestGateway,
    pub(super) lxd: FakeLxd,
    pub(super) port: u16,
    tls: TlsConnector,
    pub(super) token: String,
}

impl Door {
    pub(super) async fn open() -> Self {
        let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
        let limits = "[limits]\nstranger_per_second = 10000\nstranger_burst = 10000\n";
        let gateway = TestGateway::start(&format!("{limits}{}", lxd.config("lxd", &format!("port = {port}")))).await;
        let ada = Person::first_administrator(&gateway, "ada").await;
        let token = ada.token("lxd").await;
        let tls = TlsConnector::from(Arc::new(gateway.tls()));
        Self { gateway, lxd, port, tls, token }
    }

    /// The head of a request that would be let through.
    fn head(&self, method: &str, path: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: Bearer {}\r\n", self.port, self.token)
    }

    /// A connection whose TLS agreed on this protocol.
    pub(super) async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.expect("connected");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = rustls::ClientConfig::clone(self.tls.config());
        tls.alpn_protocols = vec![protocol.to_vec()];
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }

    /// All that comes back, until the other side closes or says nothing more.
    async fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        // It may close before all of it is there.
        stream.write_all(bytes).await.ok();
        let (mut got, mut part, mut patience) = (Vec::new(), [0; 4096], FIRST);
        while let Ok(Ok(read @ 1..)) = tokio::time::timeout(patience, stream.read(&mut part)).await {
            got.extend_from_slice(&part[..read]);
            patience = NEXT;
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    pub(super) fn smuggled(&self) -> usize {
        self.lxd.asked(&format!("GET {SMUGGLED}")) + self.lxd.asked(&format!("POST {SMUGGLED}"))
    }
}

/// The status of each answer.
fn statuses(answers: &str) -> Vec<u16> {
    answers.split("HTTP/1.1 ").skip(1).filter_map(|a| a.get(..3)?.parse().ok()).collect()
}

/// SEC-065, SEC-071: whichever way its end is read, what hides in a body stays a body, and what is not framed at all is
/// refused and its connection closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_hides_in_another_ones_body() {
    let door = Door::open().await;
    let inner = format!("{}\r\n", door.head("GET", SMUGGLED));
    let (length, chunk) = (inner.len(), format!("{:x}", inner.len()));
    let chunked = "Transfer-Encoding: chunked\r\n";
    let (whole, none) = (format!("{chunk}\r\n{inner}\r\n0\r\n\r\n"), format!("0\r\n\r\n{inner}"));
    // Header lines, body. Each of them is sent with a GET's and a POST's head.
    let mut vectors: Vec<(String, String)> = vec![
        // Two ways to the end.
        (format!("Content-Length: {}\r\n{chunked}", none.len()), none.clone()),
        (format!("{chunked}Content-Length: {}\r\n", none.len()), none.clone()),
        (format!("Content-Length: 4\r\n{chunked}"), whole.clone()),
        (format!("{chunked}Content-Length: 4\r\n"), whole.clone()),
        // Two lengths, or a length that is none.
        (format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), inner.clone()),
        (format!("Content-Length: {length}\r\nContent-Length: 0\r\n"), inner.clone()),
        (format!("Content-Length: 0, {length}\r\n"), inner.clone()),
        // Chunks that say their size in other ways, or end differently.
        (chunked.to_owned(), format!("+0\r\n\r\n{inner}")),
        (chunked.to_owned(), format!("0x0\r\n\r\n{inner}")),
        (chunked.to_owned(), format!("-1\r\n\r\n{inner}")),
        (chunked.to_owned(), format!("ffffffffffffffff1\r\n{inner}\r\n0\r\n\r\n")),
        (chunked.to_owned(), format!("10000000000000000\r\n\r\n{inner}")),
        (chunked.to_owned(), format!("g\r\n\r\n{inner}")),
        (chunked.to_owned(), format!("\r\n\r\n{inner}")),
        (chunked.to_owned(), format!("0;a\rb\r\n\r\n{inner}")),
        (chunked.to_owned(), format!("0;{}\r\n\r\n{inner}", "x".repeat(64 * 1024))),
        (chunked.to_owned(), format!("1\r\nx0\r\n\r\n{inner}")),
        (chunked.to_owned(), format!("1\r\nxX\r\n0\r\n\r\n{inner}")),
    ];
    for length_of_none in ["+0", "-0", "0x0", "0 0", " 0 ;", "0\0", "18446744073709551616", "a", ""] {
        vectors.push((format!("Content-Length: {length_of_none}\r\n"), inner.clone()));
    }
    for encoding in [
        "xchunked",
        "chunked, identity",
        "identity",
        "chunked, chunked",
        "gzip, chunked",
        "chunked\0",
        "\"chunked\"",
        "chunked;q=1",
        "chunk",
        "x",
        "identity, chunked",
        "\u{b}chunked",
        "CHUNKED ,",
        ",chunked",
        "cow",
    ] {
        vectors.push((format!("Transfer-Encoding: {encoding}\r\nContent-Length: {}\r\n", none.len()), none.clone()));
        vectors.push((format!("Transfer-Encoding: {encoding}\r\n"), none.clone()));
    }
    // Names and lines that some read as the header and others do not.
    for spelled in [
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\n",
        "Transfer-Encoding\0: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    ] {
        vectors.push((format!("{spelled}Content-Length: {}\r\n", none.len()), none.clone()));
    }
    assert!(vectors.len() >= 60, "{}", vectors.len());
    for (lines, body) in &vectors {
        for method in ["POST", "GET"] {
            let request = format!("{}{lines}\r\n{body}", door.head(method, OPEN));
            let answers = statuses(&door.send(request.as_bytes()).await);
            // Nothing of it may be answered as if it had been asked for by its own.
            let begins = body.get(..body.len().min(24));
            assert!(answers.len() <= 1, "{method} {lines:?} {begins:?}: {answers:?}");
            assert_eq!(door.smuggled(), 0, "{method} {lines:?} {begins:?}: it was asked for; {answers:?}");
        }
    }
    // What no one may read as a request at all.
    for broken in [
        "GET\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "PRI / HTTP/1.1\r\n\r\n",
    ] {
        let answers = statuses(&door.send(broken.as_bytes()).await);
        assert!(answers.iter().all(|status| (400..500).contains(status)), "{broken:?}: {answers:?}");
    }
    // The door is as it was, and what stands in the open is answered: the vectors failed for what they are.
    let answers = statuses(&door.send(format!("{}\r\n", door.head("GET", OPEN)).as_bytes()).await);
    assert_eq!(answers, [200]);
    assert_eq!(door.smuggled(), 0, "it came late");
    door.gateway.stop().await;
}

/// SEC-066: what follows a wish to become something else is no part of it before it is granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_rides_behind_a_wish_to_upgrade() {
    let door = Door::open().await;
    let wish = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let hidden = format!("GET {SMUGGLED} HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", door.port);
    for path in [OPEN, "/1.0", "/1.0/unheard-of", "/1.0/operations/none/websocket"] {
        let answers = door.send(format!("{}{wish}\r\n{hidden}", door.head("GET", path)).as_bytes()).await;
        assert_eq!(door.smuggled(), 0, "{path}: {answers}");
        // By its own it is a request of nobody.
        assert!(statuses(&answers).iter().skip(1).all(|status| *status == 401), "{path}: {answers}");
    }
    door.gateway.stop().await;
}

/// A head has 64 lines at most, whoever counts them: the door, which is told of no limit, or hyper, whose own is 100. One
/// with more of them goes no further.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_of_too_many_lines_goes_no_further() {
    let door = Door::open().await;
    // Two stand in each head already.
    for (lines, expected) in [(0, 200), (62, 200), (63, 431), (98, 431), (99, 431), (400, 431)] {
        let each = (0..lines).map(|n| format!("X-Filler-{n}: a\r\n")).collect::<Vec<_>>().concat();
        for more in [each, "X-Filler: a\r\n".repeat(lines)] {
            let before = door.lxd.asked(&format!("GET {OPEN}"));
            let answers = door.send(format!("{}{more}\r\n", door.head("GET", OPEN)).as_bytes()).await;
            assert_eq!(statuses(&answers), [expected], "{lines}: {answers}");
            let came = door.lxd.asked(&format!("GET {OPEN}")) - before;
            assert_eq!(came, usize::from(expected == 200), "{lines}");
        }
    }
    door.gateway.stop().await;
}

/// SEC-046, SEC-048, SEC-051: no name of a tool, no way to ask and no form of the address is a way around.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tool_no_method_and_no_form_of_the_address_goes_around() {
    let door = Door::open().await;
    let host = format!("localhost:{}", door.port);
    for tool in ["kube-probe/1.30", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Prometheus/2.53"] {
        for path in [OPEN, "/1.0", "/healthz", "/readyz", "/metrics", "/ping"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {tool}\r\n\r\n");
            let answers = statuses(&door.send(request.as_bytes()).await);
            assert!(matches!(answers[..], [401 | 403 | 404]), "{tool} {path}: {answers:?}");
        }
    }
    for method in ["CONNECT", "TRACE", "TRACK", "PROPFIND", "get", "PATCHED"] {
        let target = if method == "CONNECT" { "127.0.0.1:22" } else { OPEN };
        let answers = statuses(&door.send(format!("{}\r\n", door.head(method, target)).as_bytes()).await);
        assert!(matches!(answers[..], [400..=499]), "{method}: {answers:?}");
        assert_eq!(door.lxd.asked(&format!("{method} ")), 0, "{method}");
    }
    // What a read is turned into by a header is still a read.
    for name in ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"] {
        let request = format!("{}{name}: DELETE\r\n\r\n", door.head("GET", OPEN));
        assert_eq!(statuses(&door.send(request.as_bytes()).await), [200], "{name}");
        assert_eq!(door.lxd.asked("DELETE"), 0, "{name}");
    }
    let before = door.lxd.asked(&format!("GET {SMUGGLED}"));
    for target in [
        "http://169.254.169.254/1.0/profiles/smuggled",
        "http://evil.example/1.0/profiles/smuggled",
        "https://user@evil.example/1.0/profiles/smuggled",
        "//evil.example/1.0/profiles/smuggled",
        "@evil.example/1.0/profiles/smuggled",
        "1.0/profiles/smuggled",
        "/1.0/profiles/open/../smuggled",
        "/1.0/profiles/open/%2e%2e/smuggled",
        "/1.0/profiles/open%2f..%2fsmuggled",
        "/1.0/profiles/.%00/../smuggled",
        "/1.0/profiles//smuggled",
        "/1.0/profiles/%73muggled/.",
    ] {
        let answers = statuses(&door.send(format!("{}\r\n", door.head("GET", target)).as_bytes()).await);
        assert!(matches!(answers[..], [] | [400..=499]), "{target}: {answers:?}");
        assert_eq!(door.lxd.asked(&format!("GET {SMUGGLED}")), before, "{target}");
    }
    // No host, two, or one that is none (RFC 9112 section 3.2). A port of its own is one hypervisor's under whatever name it is reached.
    for hosts in [
        "",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: a b\r\n",
        "Host: \r\n",
        "Host: u@localhost\r\n",
        "Host: localhost/x\r\n",
    ] {
        let request = format!("GET {SMUGGLED} HTTP/1.1\r\n{hosts}Authorization: Bearer {}\r\n\r\n", door.token);
        let answers = statuses(&door.send(request.as_bytes()).await);
        assert!(matches!(answers[..], [] | [400..=499]), "{hosts:?}: {answers:?}");
        assert_eq!(door.lxd.asked(&format!("GET {SMUGGLED}")), before, "{hosts:?}");
    }
    door.gateway.stop().await;
}
