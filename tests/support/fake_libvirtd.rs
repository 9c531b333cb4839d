// SPDX-License-Identifier: Apache-2.0
//! A libvirtd that is none, on a unix socket, and a client that keeps to no rule. For what the real ones cannot tell:
//! which calls arrived, and what happens when either side sends too much, too little, or nothing.

use super::TestGateway;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixListener},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const REMOTE: u32 = 0x2000_8086;
/// The one machine that it has.
pub(crate) const ID: [u8; 16] = *b"\x11\x11\x11\x11\x22\x22\x43\x33\x84\x44\x55\x55\x55\x55\x55\x55";

/// One message: program, procedure, type, serial, status, payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) program: u32,
    pub(crate) procedure: u32,
    pub(crate) kind: u32,
    pub(crate) serial: u32,
    pub(crate) status: u32,
    pub(crate) payload: Vec<u8>,
}

impl Said {
    pub(crate) fn call(procedure: u32, serial: u32, payload: Vec<u8>) -> Self {
        Self { program: REMOTE, procedure, kind: 0, serial, status: 0, payload }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(28 + self.payload.len()).expect("short");
        let words = [length, self.program, 1, self.procedure, self.kind, self.serial, self.status];
        words.iter().flat_map(|w| w.to_be_bytes()).chain(self.payload.iter().copied()).collect()
    }
}

/// Reads one message; none when the other side has gone.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Option<Said> {
    let length = from.read_u32().await.ok()?;
    let mut words = [0; 6];
    for word in &mut words {
        *word = from.read_u32().await.ok()?;
    }
    let mut payload = vec![0; usize::try_from(length).ok()?.checked_sub(28)?];
    from.read_exact(&mut payload).await.ok()?;
    let [program, _, procedure, kind, serial, status] = words;
    Some(Said { program, procedure, kind, serial, status, payload })
}

fn words(all: &[u32]) -> Vec<u8> {
    all.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// `remote_nonnull_domain` of its machine.
pub(crate) fn domain() -> Vec<u8> {
    [&words(&[5])[..], b"web-1\0\0\0", &ID, &words(&[7])].concat()
}

/// It runs until the test ends.
pub(crate) struct FakeLibvirtd {
    dir: TempDir,
    calls: Arc<Mutex<Vec<Said>>>,
    /// Whether it answers calls that the gateway's own inventory does not make.
    pub(crate) answers: Arc<AtomicBool>,
}

impl FakeLibvirtd {
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("pc").tempdir_in("/tmp").expect("a folder");
        let listener = UnixListener::bind(dir.path().join("s")).expect("bound");
        let (calls, answers) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(true)));
        let (noted, does) = (Arc::clone(&calls), Arc::clone(&answers));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (noted, does) = (Arc::clone(&noted), Arc::clone(&does));
                tokio::spawn(async move {
                    while let Some(said) = read(&mut stream).await {
                        if said.program != REMOTE && said.kind == 2 {
                            continue;
                        }
                        noted.lock().expect("a lock").push(said.clone());
                        let payload = match said.procedure {
                            66 => words(&[1, 0]),
                            60 | 316 => words(&[1]),
                            273 => [&words(&[1])[..], &domain(), &words(&[1])].concat(),
                            212 => words(&[1, 1]),
                            14 => {
                                let xml = b"<domain type='qemu'><name>web-1</name></domain>\0";
                                [&words(&[47])[..], xml].concat()
                            }
                            _ if !does.load(Ordering::Relaxed) => continue,
                            // More than anybody reads.
                            7 => [&words(&[4 << 20])[..], &vec![b'x'; 4 << 20]].concat(),
                            _ => Vec::new(),
                        };
                        let answer = Said { kind: 1, payload, ..said };
                        if stream.write_all(&answer.bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { dir, calls, answers }
    }

    /// What the configuration says about it.
    pub(crate) fn config(&self, port: u16) -> String {
        let socket = self.dir.path().join("s");
        format!(
            "[[hypervisors]]\nname = \"kvm\"\nkind = \"libvirt\"\nsocket = {:?}\n[hypervisors.rpc]\nport = {port}\n",
            socket.display().to_string()
        )
    }

    /// The calls that arrived.
    pub(crate) fn calls(&self) -> Vec<Said> {
        self.calls.lock().expect("a lock").clone()
    }
}

/// A connection of somebody who writes what they like.
pub(crate) struct Raw(pub(crate) TlsStream<TcpStream>);

impl Raw {
    pub(crate) async fn connect(gateway: &TestGateway, port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        let name = "localhost".try_into().expect("a name");
        let tls = TlsConnector::from(Arc::new(gateway.tls())).connect(name, stream).await.expect("TLS");
        let mut raw = Self(tls);
        assert_eq!(raw.0.read_u8().await.expect("welcome"), 1);
        raw
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok() && self.0.flush().await.is_ok()
    }

    /// Makes a call and reads what comes; none when the connection ends instead.
    pub(crate) async fn ask(&mut self, procedure: u32, payload: Vec<u8>) -> Option<Said> {
        self.write(&Said::call(procedure, 1, payload).bytes()).await;
        read(&mut self.0).await
    }

    /// Signs in, and opens the connection.
    pub(crate) async fn enter(&mut self, name: &str, token: &str) {
        let data = format!("\0{name}\0{token}");
        let mut payload = [&words(&[5])[..], b"PLAIN\0\0\0", &words(&[0])].concat();
        payload.extend(words(&[u32::try_from(data.len()).expect("short")]));
        payload.extend(data.bytes().flat_map(|b| u32::from(b).to_be_bytes()));
        let answer = self.ask(68, payload).await.expect("an answer");
        assert_eq!((answer.status, &answer.payload), (0, &words(&[1, 1, 0])), "signed in");
        let answer = self.ask(1, words(&[0, 0])).await.expect("an answer");
        assert_eq!(answer.status, 0, "{}", String::from_utf8_lossy(&answer.payload));
    }
}
