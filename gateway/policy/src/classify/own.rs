// SPDX-License-Identifier: Apache-2.0
//! The gateway's own routes, in one table: the router serves what stands here, and the tests of doors try each row.
//!
//! A method and path that are not here do not exist. `GET` answers `HEAD` too.

use super::canonical;
use portcullis_domain::{Action, ConsoleMode, Effect, MachineRef, Operation, OwnObject, Resource};
use std::borrow::Cow;

/// What somebody must be to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Anybody, without a session: what the browser loads to show any page.
    Public,
    /// Anybody; there is a session, whatever stage it is in.
    Stranger,
    /// Anybody, on the way to an identity provider or back from it: a GET that other sites lead to and that takes a step
    /// of signing in. What comes back proves itself.
    Provider,
    /// A service without a session, known by what it signed; other origins may send it.
    Signed,
    /// Somebody who is enrolling a factor: after a set-up link, an invitation or a recovery code, or signed in.
    Enrolling,
    /// Somebody who is signed in with both factors, for what is their own.
    SignedIn,
    /// The directory that the configuration names, by a token of its service account.
    Directory,
    /// Somebody who may do this to one of the gateway's own things.
    Own(Action, OwnObject),
    /// Somebody who may do this to the machine that the path names as `{hypervisor}/{machine}`. A `{mode}` in the
    /// path, `view` or `control`, asks for that mode's action instead.
    Machine(Action),
}

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnRoute {
    /// `GET` or `POST`; for a directory also `PUT`, `PATCH` and `DELETE`.
    pub method: &'static str,
    /// The path; `{name}` is one part of it, `{*name}` everything that follows.
    pub pattern: &'static str,
    /// Who may pass.
    pub door: Door,
    /// Whether the visit is an operation in the trail: every change, every use of a machine, and every look at the
    /// gateway's own things. A look at one's own pages is not.
    pub trailed: bool,
    /// The kind of its events in the trail.
    pub kind: &'static str,
}

/// What a visit leaves in the trail.
#[derive(Clone, Copy)]
enum Trail {
    Yes,
    No,
}

const fn get(pattern: &'static str, door: Door, trail: Trail) -> OwnRoute {
    OwnRoute { method: "GET", pattern, door, trailed: matches!(trail, Trail::Yes), kind: kind_of(door) }
}

// Whatever changes something leaves an event, durable before it is done.
const fn post(pattern: &'static str, door: Door) -> OwnRoute {
    OwnRoute { method: "POST", pattern, door, trailed: true, kind: kind_of(door) }
}

/// A step of signing in that is a GET, because another site leads to it.
const fn way(pattern: &'static str, kind: &'static str) -> OwnRoute {
    OwnRoute { method: "GET", pattern, door: Door::Provider, trailed: true, kind }
}

/// A change that no policy decides on: a step of signing in, or one's own account.
const fn step(pattern: &'static str, door: Door, kind: &'static str) -> OwnRoute {
    OwnRoute { method: "POST", pattern, door, trailed: true, kind }
}

const fn kind_of(door: Door) -> &'static str {
    match door {
        Door::Machine(action) if action.is_console() => "console",
        Door::Machine(_) => "machine",
        Door::Directory => "scim",
        Door::Public
        | Door::Stranger
        | Door::Provider
        | Door::Signed
        | Door::Enrolling
        | Door::SignedIn
        | Door::Own(..) => "page",
    }
}

const fn read(object: OwnObject) -> Door {
    Door::Own(Action::Read, object)
}

const fn write(object: OwnObject) -> Door {
    Door::Own(Action::Write, object)
}

/// A directory's own (RFC 7644 section 3.2).
const fn scim(method: &'static str, pattern: &'static str) -> OwnRoute {
    OwnRoute { method, pattern, door: Door::Directory, trailed: true, kind: kind_of(Door::Directory) }
}

/// Every route.
pub const ROUTES: &[OwnRoute] = &[
    get("/", Door::Stranger, Trail::No),
    get("/assets/{*path}", Door::Public, Trail::No),
    get("/favicon.ico", Door::Public, Trail::No),
    // Signing in.
    get("/sign-in", Door::Stranger, Trail::No),
    step("/sign-in", Door::Stranger, "sign-in"),
    get("/sign-in/code", Door::Stranger, Trail::No),
    step("/sign-in/code", Door::Stranger, "sign-in"),
    get("/sign-in/recovery", Door::Stranger, Trail::No),
    step("/sign-in/recovery", Door::Stranger, "sign-in"),
    way("/sign-in/with/{provider}", "sign-in"),
    way("/sign-in/callback/{provider}", "sign-in"),
    step("/sign-in/backchannel/{provider}", Door::Signed, "sign-out"),
    // What a browser is asked for: it changes nothing, and its answer leaves the event.
    get("/api/v1/passkeys/sign-in", Door::Stranger, Trail::No),
    step("/sign-in/passkey", Door::Stranger, "sign-in"),
    step("/sign-out", Door::Stranger, "sign-out"),
    get("/set-up", Door::Stranger, Trail::No),
    step("/set-up", Door::Stranger, "user"),
    get("/invitation", Door::Stranger, Trail::No),
    step("/invitation", Door::Stranger, "user"),
    get("/enrol", Door::Enrolling, Trail::No),
    step("/enrol", Door::Enrolling, "factor"),
    get("/api/v1/passkeys/new", Door::Enrolling, Trail::No),
    step("/enrol/passkey", Door::Enrolling, "factor"),
    get("/step-up", Door::SignedIn, Trail::No),
    step("/step-up", Door::SignedIn, "step-up"),
    get("/api/v1/passkeys/step-up", Door::SignedIn, Trail::No),
    // A notice that everybody confirms after signing in.
    get("/banner", Door::SignedIn, Trail::No),
    step("/banner", Door::SignedIn, "banner"),
    // Sealed codes for emergencies: each try and each use stands out in the trail by its kind.
    get("/break-glass", Door::Stranger, Trail::No),
    step("/break-glass", Door::Stranger, "break-glass"),
    // One's own things. Where a fresh factor is needed, the identity room asks for it.
    get("/me", Door::SignedIn, Trail::No),
    step("/me/sessions/end", Door::SignedIn, "session"),
    step("/me/sessions/end-others", Door::SignedIn, "session"),
    step("/me/factors/remove", Door::SignedIn, "factor"),
    step("/me/recovery-codes", Door::SignedIn, "factor"),
    step("/me/password", Door::SignedIn, "factor"),
    step("/me/tokens", Door::SignedIn, "token"),
    step("/me/tokens/revoke", Door::SignedIn, "token"),
    // Machines. The lists hold what the person may see.
    get("/machines", Door::SignedIn, Trail::No),
    get("/api/v1/machines", Door::SignedIn, Trail::No),
    step("/favourites", Door::SignedIn, "favourite"),
    post("/machines/{hypervisor}/{machine}/power", Door::Machine(Action::Power)),
    get("/c/{hypervisor}/{machine}", Door::Machine(Action::ConsoleView), Trail::Yes),
    post("/api/v1/consoles/{hypervisor}/{machine}/ticket/{mode}", Door::Machine(Action::ConsoleView)),
    get("/api/v1/consoles/{hypervisor}/{machine}/stream/{mode}", Door::Machine(Action::ConsoleView), Trail::Yes),
    // What the doors for programs are: nothing of this installation.
    get("/api/v1/openapi.json", Door::Stranger, Trail::No),
    // Access requests. Owners decide without a role: the handlers ask governance, and each step is in the trail.
    get("/requests", Door::SignedIn, Trail::No),
    step("/requests", Door::SignedIn, "request"),
    get("/requests/new", Door::SignedIn, Trail::No),
    get("/requests/{id}", Door::SignedIn, Trail::No),
    step("/requests/{id}/approve", Door::SignedIn, "request"),
    step("/requests/{id}/refuse", Door::SignedIn, "request"),
    step("/requests/{id}/withdraw", Door::SignedIn, "request"),
    step("/requests/{id}/begin", Door::SignedIn, "request"),
    step("/requests/{id}/end", Door::SignedIn, "request"),
    get("/api/v1/requests", Door::SignedIn, Trail::No),
    step("/api/v1/requests", Door::SignedIn, "request"),
    step("/api/v1/requests/{id}/approve", Door::SignedIn, "request"),
    step("/api/v1/requests/{id}/refuse", Door::SignedIn, "request"),
    step("/api/v1/requests/{id}/withdraw", Door::SignedIn, "request"),
    step("/api/v1/requests/{id}/begin", Door::SignedIn, "request"),
    step("/api/v1/requests/{id}/end", Door::SignedIn, "request"),
    // Administration.
    get("/users", read(OwnObject::Users), Trail::Yes),
    post("/users", write(OwnObject::Users)),
    get("/users/{id}", read(OwnObject::Users), Trail::Yes),
    post("/users/{id}/disable", write(OwnObject::Users)),
    post("/users/{id}/enable", write(OwnObject::Users)),
    post("/users/{id}/reset", write(OwnObject::Users)),
    post("/users/{id}/sign-out", Door::Own(Action::Lock, OwnObject::Sessions)),
    post("/users/{id}/sessions/end", Door::Own(Action::Lock, OwnObject::Sessions)),
    post("/users/{id}/lock", Door::Own(Action::Lock, OwnObject::Users)),
    post("/users/{id}/unlock", Door::Own(Action::Lock, OwnObject::Users)),
    post("/users/{id}/training", write(OwnObject::Users)),
    post("/users/{id}/mail", write(OwnObject::Users)),
    post("/users/{id}/tokens", write(OwnObject::Users)),
    post("/users/{id}/tokens/revoke", Door::Own(Action::Lock, OwnObject::Sessions)),
    post("/service-accounts", write(OwnObject::Users)),
    get("/break-glass/uses", read(OwnObject::Users), Trail::Yes),
    post("/break-glass/review", write(OwnObject::Users)),
    get("/access", read(OwnObject::Policy), Trail::Yes),
    get("/grants", read(OwnObject::Policy), Trail::Yes),
    post("/grants", write(OwnObject::Policy)),
    // It says what a change would do, and makes none.
    post("/grants/preview", read(OwnObject::Policy)),
    post("/grants/revoke", write(OwnObject::Policy)),
    get("/groups", read(OwnObject::Users), Trail::Yes),
    post("/groups", write(OwnObject::Users)),
    get("/groups/{id}", read(OwnObject::Users), Trail::Yes),
    post("/groups/{id}/add", write(OwnObject::Users)),
    post("/groups/{id}/remove", write(OwnObject::Users)),
    post("/groups/{id}/delete", write(OwnObject::Users)),
    get("/roles", read(OwnObject::Policy), Trail::Yes),
    get("/policy/history", read(OwnObject::Policy), Trail::Yes),
    get("/policy/history/{version}", read(OwnObject::Policy), Trail::Yes),
    post("/policy/history/{version}/rollback", write(OwnObject::Policy)),
    get("/proposals/{id}", read(OwnObject::Policy), Trail::Yes),
    post("/proposals/{id}/approve", write(OwnObject::Policy)),
    post("/proposals/{id}/refuse", write(OwnObject::Policy)),
    get("/api/v1/proposals", read(OwnObject::Policy), Trail::Yes),
    // It says what rows would do, and takes none over.
    post("/policy/try", read(OwnObject::Policy)),
    get("/sessions", read(OwnObject::Sessions), Trail::Yes),
    post("/sessions/end", Door::Own(Action::Lock, OwnObject::Sessions)),
    get("/locks", read(OwnObject::Sessions), Trail::Yes),
    post("/locks", Door::Own(Action::Lock, OwnObject::Sessions)),
    post("/locks/end", Door::Own(Action::Lock, OwnObject::Sessions)),
    get("/api/v1/locks", read(OwnObject::Sessions), Trail::Yes),
    post("/api/v1/locks", Door::Own(Action::Lock, OwnObject::Sessions)),
    post("/api/v1/locks/end", Door::Own(Action::Lock, OwnObject::Sessions)),
    get("/api/v1/access", read(OwnObject::Policy), Trail::Yes),
    get("/hypervisors", read(OwnObject::Hypervisors), Trail::Yes),
    get("/hypervisors/{name}", read(OwnObject::Hypervisors), Trail::Yes),
    get("/new-hypervisor", write(OwnObject::Hypervisors), Trail::Yes),
    // It shows who answers at an address, and changes nothing here; that the gateway dials it is enough to ask for.
    post("/new-hypervisor", write(OwnObject::Hypervisors)),
    post("/hypervisors", write(OwnObject::Hypervisors)),
    post("/hypervisors/{name}/remove", write(OwnObject::Hypervisors)),
    get("/api/v1/hypervisors", read(OwnObject::Hypervisors), Trail::Yes),
    get("/api/v1/hypervisors/{name}", read(OwnObject::Hypervisors), Trail::Yes),
    post("/api/v1/new-hypervisor", write(OwnObject::Hypervisors)),
    post("/api/v1/hypervisors", write(OwnObject::Hypervisors)),
    post("/api/v1/hypervisors/{name}/remove", write(OwnObject::Hypervisors)),
    get("/recordings", read(OwnObject::Recordings), Trail::Yes),
    get("/trail", read(OwnObject::Audit), Trail::Yes),
    get("/trail/{node}/{number}", read(OwnObject::Audit), Trail::Yes),
    // What a directory calls.
    scim("GET", "/scim/v2/ServiceProviderConfig"),
    scim("GET", "/scim/v2/ResourceTypes"),
    scim("GET", "/scim/v2/Users"),
    scim("POST", "/scim/v2/Users"),
    scim("GET", "/scim/v2/Users/{id}"),
    scim("PUT", "/scim/v2/Users/{id}"),
    scim("PATCH", "/scim/v2/Users/{id}"),
    scim("DELETE", "/scim/v2/Users/{id}"),
    scim("GET", "/scim/v2/Groups"),
    scim("POST", "/scim/v2/Groups"),
    scim("GET", "/scim/v2/Groups/{id}"),
    scim("PUT", "/scim/v2/Groups/{id}"),
    scim("PATCH", "/scim/v2/Groups/{id}"),
    scim("DELETE", "/scim/v2/Groups/{id}"),
];

/// A request's route, with what its path holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'p> {
    /// The route.
    pub route: &'static OwnRoute,
    params: Vec<(&'static str, Cow<'p, str>)>,
}

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// There is no such path.
    Path,
    /// The path is there, but not with this method.
    Method,
    /// The path could be read in more than one way.
    Ambiguous,
}

impl OwnRoute {
    /// Whether a visit may change something: its event is durable before, and its end before it is answered.
    pub fn changes(&self) -> bool {
        self.method != "GET" || self.door == Door::Provider
    }
}

impl Found<'_> {
    /// A parameter of the path, decoded.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| *n == name).map(|(_, v)| &**v)
    }

    /// The operation that the door asks to be decided on: none where somebody need only be there, or where the path
    /// names no machine, hypervisor or mode that could exist. Opening a screen is never safe, though it is a GET.
    pub fn operation(&self) -> Option<Operation> {
        let effect = if self.route.method == "GET" { Effect::Safe } else { Effect::Unsafe };
        match self.route.door {
            Door::Public
            | Door::Stranger
            | Door::Provider
            | Door::Signed
            | Door::Enrolling
            | Door::SignedIn
            | Door::Directory => None,
            Door::Own(action, object) => Some(Operation { action, resource: Resource::Own(object), effect }),
            Door::Machine(action) => {
                let hypervisor = self.param("hypervisor")?.parse().ok()?;
                let machine = self.param("machine")?.parse().ok()?;
                let action = match self.param("mode") {
                    Some(mode) => mode.parse::<ConsoleMode>().ok()?.action(),
                    None => action,
                };
                let effect = if action.is_console() { Effect::Unsafe } else { effect };
                Some(Operation { action, resource: Resource::Machine(MachineRef { hypervisor, machine }), effect })
            }
        }
    }
}

/// The route of a request, by its method and the path as it stands in the request line.
pub fn find<'p>(method: &str, path: &'p str) -> Result<Found<'p>, Missing> {
    let canonical = canonical(path).map_err(|_| Missing::Ambiguous)?;
    let method = if method == "HEAD" { "GET" } else { method };
    let segments: Vec<&str> = canonical.segments().collect();
    // No separator can be encoded in a canonical path, so the raw one has the same parts at the same places.
    let raw: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let mut missing = Missing::Path;
    for route in ROUTES {
        let Some(params) = fit(route.pattern, &segments, &raw) else { continue };
        if route.method == method {
            return Ok(Found { route, params });
        }
        missing = Missing::Method;
    }
    Err(missing)
}

fn fit<'p>(pattern: &'static str, segments: &[&str], raw: &[&'p str]) -> Option<Vec<(&'static str, Cow<'p, str>)>> {
    let inside = pattern.strip_prefix('/')?;
    let mut params = Vec::new();
    let mut rest = segments.iter().zip(raw);
    for part in inside.split('/').filter(|p| !p.is_empty()) {
        let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
        if let Some(name) = name.and_then(|n| n.strip_prefix('*')) {
            let tail: Vec<&str> = rest.by_ref().map(|(s, _)| *s).collect();
            let whole = !tail.is_empty() && tail.iter().all(|s| !s.is_empty());
            params.push((name, Cow::Owned(tail.join("/"))));
            return whole.then_some(params);
        }
        let (segment, raw) = rest.next()?;
        match name {
            Some(name) if !segment.is_empty() => {
                let value = if segment == raw { Cow::Borrowed(*raw) } else { Cow::Owned((*segment).to_owned()) };
                params.push((name, value));
            }
            None if part == *segment => {}
            _ => return None,
        }
    }
    rest.next().is_none().then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn each_row_is_found_by_its_own_path_and_by_no_other_method() {
        for (n, route) in ROUTES.iter().enumerate() {
            let path = route.pattern.replace("{*path}", "a/b.js").replace("{mode}", "view").replace(['{', '}'], "");
            let found = find(route.method, &path).unwrap();
            assert_eq!(found.route, route, "{path}");
            let directory =
                |method: &&str| route.door != Door::Directory || !["PUT", "PATCH", "DELETE"].contains(method);
            for method in
                ["PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "OPTIONS", "get", ""].into_iter().filter(directory)
            {
                assert_eq!(find(method, &path), Err(Missing::Method), "{method} {path}");
            }
            assert_eq!(
                find(route.method, &format!("{path}/")).err(),
                if path == "/" { Some(Missing::Ambiguous) } else { Some(Missing::Path) },
                "{path}/"
            );
            assert!(!ROUTES[..n].contains(route), "{route:?} stands twice");
            if let Door::Own(action, object) = route.door {
                assert!(Kind::Own(object).answers(action), "{route:?}");
            }
            if let Door::Machine(action) = route.door {
                assert!(Kind::Machine.answers(action), "{route:?}");
                assert!(route.pattern.contains("{hypervisor}/{machine}"), "{route:?}");
            }
            // Nothing that changes something, and nothing of the gateway's own, goes unseen.
            let unseen = matches!(route.door, Door::Public | Door::Stranger | Door::Enrolling | Door::SignedIn);
            assert!(route.trailed || (unseen && route.method == "GET"), "{route:?}");
            // A GET that other sites may lead to takes a step of signing in, and nothing else.
            assert_eq!(route.door == Door::Provider, route.method == "GET" && route.kind == "sign-in", "{route:?}");
        }
    }

    #[test]
    fn a_machine_route_asks_for_what_its_path_names() {
        let found = find("GET", "/api/v1/consoles/qemu/vm%2d1/stream/control").unwrap();
        assert_eq!(found.param("machine"), Some("vm-1"));
        let operation = found.operation().unwrap();
        assert_eq!(operation.to_string(), "console.control on qemu/vm-1");
        assert_eq!(operation.effect, Effect::Unsafe);
        let view = find("POST", "/api/v1/consoles/qemu/vm-1/ticket/view").unwrap().operation().unwrap();
        assert_eq!(view.action, Action::ConsoleView);
        for bad in ["/c/QEMU/vm-1", "/c/qemu/.vm", "/api/v1/consoles/qemu/vm-1/stream/console.viewx"] {
            assert_eq!(find("GET", bad).unwrap().operation(), None, "{bad}");
        }
        assert_eq!(find("GET", "/users").unwrap().operation().unwrap().to_string(), "read on gateway:users");
        assert_eq!(find("HEAD", "/users").unwrap().route.method, "GET");
        assert_eq!(find("GET", "/me").unwrap().operation(), None);
    }

    #[test]
    fn a_path_with_two_readings_has_no_route() {
        for bad in
            ["/public/../users", "/users/%2e%2e/me", "//users", "/users%2f1", "/users;x", "http://h/users", "/a%00"]
        {
            assert_eq!(find("GET", bad), Err(Missing::Ambiguous), "{bad}");
        }
        for missing in ["/Users", "/users/a/b", "/assets", "/assets/", "/nothing", "/api"] {
            assert_eq!(find("GET", missing), Err(Missing::Path), "{missing}");
        }
    }
}
