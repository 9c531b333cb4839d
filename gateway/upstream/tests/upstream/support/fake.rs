// SPDX-License-Identifier: Apache-2.0
//! A scripted server on a unix socket, for what no honest peer does.

use super::spawn;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
};

pub(crate) struct Fake {
    folder: tempfile::TempDir,
    connections: Arc<AtomicUsize>,
}

impl Fake {
    /// Runs `serve` for every connection; its first argument counts them from 0.
    pub(crate) fn start<F, R>(serve: F) -> Self
    where
        F: Fn(usize, UnixStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn(serve(count.fetch_add(1, Ordering::SeqCst), stream));
            }
        });
        Self { folder, connections }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn lxd(&self, name: &str) -> serde_json::Value {
        serde_json::json!({ "kind": "lxd", "name": name, "socket": self.socket() })
    }
}

/// Reads up to the end of one request's head; gives the head and what came after it. None at the end of the stream.
pub(crate) async fn head(stream: &mut UnixStream, rest: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = rest.windows(4).position(|w| w == b"\r\n\r\n") {
            let tail = rest.split_off(end + 4);
            let head = String::from_utf8(std::mem::replace(rest, tail)).unwrap();
            return Some(head);
        }
        rest.reserve(16 * 1024);
        if matches!(stream.read_buf(rest).await, Ok(0) | Err(_)) {
            return None;
        }
    }
}

/// The value of a header in a head.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v))
}
