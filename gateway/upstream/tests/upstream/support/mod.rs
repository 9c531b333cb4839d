// SPDX-License-Identifier: Apache-2.0
//! Starters of real peers, a scripted fake, permits from the real policy engine.

pub(crate) mod fake;
pub(crate) mod libvirtd;
pub(crate) mod lxd;
pub(crate) mod pki;
pub(crate) mod qemu;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use portcullis_domain::{
    Action, Actor, Assurance, Clock, Conditions, Effect, Factor, Grant, GrantChange, GrantEffect, GrantId, GrantSource,
    HypervisorName, Machine, MachineRef, Operation, RequestId, Resource, Selector, SystemClock, TokenId, UserId, Via,
};
use portcullis_policy::{
    Decision, Engine, Permit,
    classify::{Upgrade, canonical},
};
use portcullis_upstream::{Answer, Error, Fleet, Forwarder, HypervisorConfig, RequestContext};
use std::{
    process::{Child, Command, Output},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

#[expect(clippy::disallowed_methods, reason = "tests start real peers")]
pub(crate) fn command(program: &str) -> Command {
    Command::new(program)
}

#[expect(clippy::disallowed_methods, reason = "a test drives the room's futures itself")]
pub(crate) fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(future)
}

/// Runs a program to its end; what it prints is in the message when it fails.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program()));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed:\n{out}{err}");
    output
}

/// Fails with what to install when a peer is missing.
pub(crate) fn need(program: &str, packages: &str) {
    let is_there =
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|d| std::path::Path::new(d).join(program).exists());
    assert!(is_there, "{program} is missing: apt-get install --no-install-recommends {packages}");
}

pub(crate) fn need_root(what: &str) {
    let uid = run(command("id").arg("-u")).stdout;
    assert_eq!(String::from_utf8_lossy(&uid).trim(), "0", "{what} runs as root only: run the tests as root");
}

/// Ends a process that this test started.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

pub(crate) fn kill(pid: &str) {
    if pid.trim().parse::<u32>().is_ok_and(|p| p > 1) {
        let _ = command("kill").arg("-9").arg(pid.trim()).output();
    }
}

pub(crate) fn config(json: serde_json::Value) -> HypervisorConfig {
    serde_json::from_value(json).unwrap()
}

pub(crate) fn fleet(configs: Vec<HypervisorConfig>) -> Fleet {
    Fleet::new(configs, Arc::new(SystemClock)).unwrap()
}

/// A fleet at work; it stops when this is dropped.
pub(crate) struct Running {
    pub(crate) fleet: Fleet,
    _stop: watch::Sender<bool>,
}

impl Running {
    pub(crate) fn start(configs: Vec<HypervisorConfig>) -> Self {
        let fleet = fleet(configs);
        let (stop, stopped) = watch::channel(false);
        for work in fleet.run(&stopped) {
            spawn(work);
        }
        Self { fleet, _stop: stop }
    }

    pub(crate) fn machine(&self, at: &str) -> Option<Machine> {
        self.fleet.inventory().find(&at.parse().unwrap()).cloned()
    }

    /// Waits until the inventory says so; gives the time that it took.
    pub(crate) async fn until(&self, at: &str, limit: Duration, is_so: impl Fn(Option<&Machine>) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let machine = self.machine(at);
            if is_so(machine.as_ref()) {
                return began.elapsed();
            }
            assert!(began.elapsed() < limit, "{at} is still {machine:?} after {limit:?}; {:?}", self.fleet.health());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn on(at: &str) -> Resource {
    Resource::Machine(at.parse::<MachineRef>().unwrap())
}

/// A permit from the real engine, for somebody who may do everything.
pub(crate) async fn permit(fleet: &Fleet, action: Action, resource: Resource) -> Permit {
    let effect = if action == Action::View { Effect::Safe } else { Effect::Unsafe };
    decide(fleet, &somebody(), Operation { action, resource, effect }).await
}

pub(crate) async fn decide(fleet: &Fleet, actor: &Actor, operation: Operation) -> Permit {
    let grant = |role: &str| Grant {
        id: GrantId::new(Uuid::new_v4()),
        role: role.parse().unwrap(),
        selector: Selector::Everything,
        from: SystemClock.now() - time::Duration::hours(1),
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Administrator,
        effect: GrantEffect::Allow,
    };
    let engine = Engine::builtin().await.unwrap();
    let roles = ["administrator", "operator", "console-user"];
    engine.apply(roles.map(|role| GrantChange::Put(actor.user.into(), grant(role))));
    match engine.decide(actor, &operation, &fleet.inventory(), SystemClock.now()) {
        Decision::Permit(permit) => permit,
        Decision::StepUp(_) => panic!("{operation}: step-up"),
        Decision::Deny(_) => panic!("{operation}: denied"),
    }
}

/// Somebody who may do everything, with a token.
pub(crate) fn somebody() -> Actor {
    let now = SystemClock.now();
    let mut assurance = Assurance::default();
    assurance.prove(Factor::Password, now);
    assurance.prove(Factor::Totp, now);
    Actor {
        user: UserId::new(Uuid::new_v4()),
        name: "tester".into(),
        via: Via::Token(TokenId::new(Uuid::new_v4())),
        assurance,
        scope: None,
        pass: None,
        from: None,
    }
}

/// One request through a forwarder, with a permit for the hypervisor itself.
pub(crate) struct Client {
    pub(crate) forwarder: Forwarder<Feed>,
    pub(crate) hypervisor: HypervisorName,
    pub(crate) permit: Permit,
}

/// What a test sends: a whole body, or one that is made as it goes.
pub(crate) type Feed = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

pub(crate) fn whole(bytes: impl Into<Bytes>) -> Feed {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Client {
    pub(crate) async fn new(fleet: &Fleet, hypervisor: &str) -> Self {
        let hypervisor: HypervisorName = hypervisor.parse().unwrap();
        let permit = permit(fleet, Action::View, Resource::Hypervisor(hypervisor.clone())).await;
        Self { forwarder: Forwarder::new(fleet), hypervisor, permit }
    }

    pub(crate) async fn send(&self, request: http::Request<Feed>, upgrade: Upgrade) -> Result<Answer<Feed>, Error> {
        self.send_with(&self.permit, request, upgrade).await
    }

    pub(crate) async fn send_with(
        &self,
        permit: &Permit,
        request: http::Request<Feed>,
        upgrade: Upgrade,
    ) -> Result<Answer<Feed>, Error> {
        let path = canonical(request.uri().path()).unwrap();
        let context = RequestContext { request: RequestId::new(Uuid::new_v4()), upgrade };
        self.forwarder.forward(permit, &path, request, context).await
    }

    /// An answer's status, headers and whole body.
    pub(crate) async fn ask(&self, request: http::Request<Feed>) -> Result<(http::response::Parts, Bytes), Error> {
        match self.send(request, Upgrade::None).await? {
            Answer::Response(response) => {
                let (head, body) = response.into_parts();
                let body = body
                    .collect()
                    .await
                    .map_err(|fault| Error::Upstream { hypervisor: self.hypervisor.clone(), fault })?;
                Ok((head, body.to_bytes()))
            }
            Answer::Upgraded(..) => panic!("nobody asked for an upgrade"),
        }
    }

    pub(crate) async fn get(&self, target: &str) -> Result<(http::response::Parts, Bytes), Error> {
        self.ask(http::Request::get(target).body(whole("")).unwrap()).await
    }
}

/// The most memory that this process ever had, bytes.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
