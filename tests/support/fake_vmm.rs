// SPDX-License-Identifier: Apache-2.0
//! A Cloud Hypervisor or a Firecracker on a unix socket, as strict as the real ones where a gateway could go wrong: an
//! address or a body that they do not have is refused, a change of power that does not fit the state too, chunks are
//! not understood.
//!
//! Known differences: there is no machine behind it; what changes something else than the power is answered with 204 and
//! noted down; a shutdown that the guest is asked for happens at once.

use super::fake::{Answer, Came, body_of, listen_unix};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Which of them it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vmm {
    CloudHypervisor,
    Firecracker,
}

/// It runs until the test ends.
pub(crate) struct FakeVmm {
    dir: TempDir,
    kind: Vmm,
    inside: Arc<Inside>,
}

struct Inside {
    kind: Vmm,
    state: Mutex<&'static str>,
    came: Mutex<Vec<Came>>,
    wrongs: Mutex<Vec<String>>,
}

impl FakeVmm {
    pub(crate) fn start(kind: Vmm) -> Self {
        let dir = tempfile::Builder::new().prefix("pc").tempdir_in("/tmp").expect("a folder");
        let state = if kind == Vmm::Firecracker { "Not started" } else { "Created" };
        let inside =
            Arc::new(Inside { kind, state: Mutex::new(state), came: Mutex::default(), wrongs: Mutex::default() });
        let shared = Arc::clone(&inside);
        listen_unix(&dir.path().join("s"), move |request| {
            let inside = Arc::clone(&shared);
            async move { inside.answer(request).await }
        });
        Self { dir, kind, inside }
    }

    /// What the configuration says about it.
    pub(crate) fn config(&self, name: &str, port: u16) -> String {
        let kind = if self.kind == Vmm::Firecracker { "firecracker" } else { "cloud-hypervisor" };
        let socket = self.dir.path().join("s").display().to_string();
        format!(
            "[[hypervisors]]\nname = {name:?}\nkind = {kind:?}\nsocket = {socket:?}\nmachine = \"web-1\"\ntags = [\"web\"]\n\
             [hypervisors.api]\nport = {port}\n"
        )
    }

    /// The requests that changed something, in their order.
    pub(crate) fn changes(&self) -> Vec<(String, String)> {
        let came = self.inside.came.lock().expect("whole");
        let changes = came.iter().filter(|c| !c.line.starts_with("GET "));
        changes.map(|c| (c.line.clone(), String::from_utf8(c.body.clone()).expect("text"))).collect()
    }

    /// What came that a real one would have refused.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.inside.wrongs.lock().expect("whole").clone()
    }
}

fn whole(status: StatusCode, body: &Value) -> Answer {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer
}

impl Inside {
    fn wrong(&self, why: &str) -> Answer {
        self.wrongs.lock().expect("whole").push(why.to_owned());
        self.refuse(why)
    }

    fn refuse(&self, why: &str) -> Answer {
        match self.kind {
            Vmm::Firecracker => whole(StatusCode::BAD_REQUEST, &json!({ "fault_message": why })),
            Vmm::CloudHypervisor => whole(StatusCode::INTERNAL_SERVER_ERROR, &json!(["Error from API", why])),
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let body = body_of(&mut request).await;
        let line = format!("{} {}", request.method(), request.uri());
        self.came.lock().expect("whole").push(Came {
            line: line.clone(),
            headers: request.headers().clone(),
            body: body.clone(),
        });
        if request.headers().contains_key(header::TRANSFER_ENCODING) {
            return self.wrong("chunks");
        }
        if request.headers().contains_key(header::AUTHORIZATION) {
            return self.wrong("a credential of somebody's");
        }
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let state = *self.state.lock().expect("whole");
        let next = match (self.kind, line.as_str(), said["action_type"].as_str().or(said["state"].as_str())) {
            (Vmm::CloudHypervisor, "GET /api/v1/vm.info", _) => {
                return whole(StatusCode::OK, &json!({ "state": state, "config": {}, "memory_actual_size": 1 }));
            }
            (Vmm::Firecracker, "GET /", _) => {
                return whole(
                    StatusCode::OK,
                    &json!({ "id": "a", "state": state, "vmm_version": "1.13", "app_name": "Firecracker" }),
                );
            }
            (Vmm::CloudHypervisor, "PUT /api/v1/vm.boot", None) if state == "Created" || state == "Shutdown" => {
                "Running"
            }
            (Vmm::CloudHypervisor, "PUT /api/v1/vm.shutdown" | "PUT /api/v1/vm.power-button", None)
                if state == "Running" =>
            {
                "Shutdown"
            }
            (Vmm::CloudHypervisor, "PUT /api/v1/vm.reboot", None) if state == "Running" => "Running",
            (Vmm::CloudHypervisor, "PUT /api/v1/vm.pause", None) | (Vmm::Firecracker, "PATCH /vm", Some("Paused"))
                if state == "Running" =>
            {
                "Paused"
            }
            (Vmm::CloudHypervisor, "PUT /api/v1/vm.resume", None)
            | (Vmm::Firecracker, "PATCH /vm", Some("Resumed"))
                if state == "Paused" =>
            {
                "Running"
            }
            (Vmm::CloudHypervisor, "PUT /api/v1/vm.resize" | "PUT /api/v1/vm.add-disk", None)
            | (Vmm::Firecracker, "PUT /machine-config" | "PUT /drives/d", None) => state,
            (Vmm::Firecracker, "PUT /actions", Some("InstanceStart")) if state == "Not started" => "Running",
            (Vmm::Firecracker, "PUT /actions", Some("SendCtrlAltDel")) if state == "Running" => state,
            (_, _, _) if line.starts_with("PUT /api/v1/vm.") || line.starts_with("PUT /actions") => {
                return self.refuse("The operation is not allowed in this state");
            }
            _ => return self.wrong(&format!("{line} is nothing that it has")),
        };
        *self.state.lock().expect("whole") = next;
        whole(StatusCode::NO_CONTENT, &Value::Null)
    }
}
