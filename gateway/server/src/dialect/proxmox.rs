// SPDX-License-Identifier: Apache-2.0
//! How clients of Proxmox VE show who they are, sign in, write the names of volumes and read a refusal.

use super::{BACK, COPIED, Look, Shown, authorization, back, copy, copying, is_of_page};
use crate::{
    body::{Body, Response},
    passage::{self, Passed},
    reply::Refusal,
    state::House,
};
use http::{HeaderMap, HeaderValue, Method, header};
use portcullis_domain::{Action, HypervisorName, Outcome, Resource};
use portcullis_policy::classify::{self, Asked, Form, Table, Verdict};
use portcullis_upstream::{Beside, Settings, Standing};
use std::borrow::Cow;

/// The cookie and the header of somebody who signed in at Proxmox VE.
const COOKIE: &str = "PVEAuthCookie";
const GUARD: &str = "csrfpreventiontoken";
/// What a pass stands behind in a ticket, beside the name.
const TICKET: &str = "PVE:";
/// The realm that people of the gateway are said to be of.
const REALM: &str = "portcullis";

/// A volume's name holds slashes, which clients of Proxmox write as `%2F` in an address that ends with it. Proxmox decodes
/// an address before it looks at it, so both spellings are one there; here it is the one with slashes. Nowhere else.
pub(super) fn path(raw: &str) -> Cow<'_, str> {
    let place = raw.strip_prefix("/api2/").and_then(|rest| {
        let parts: Vec<&str> = rest.splitn(7, '/').collect();
        match parts.as_slice() {
            [_, "nodes", _, "storage", _, "content", volume] => Some(raw.len() - volume.len()),
            _ => None,
        }
    });
    match place.and_then(|at| raw.split_at_checked(at)) {
        Some((before, volume)) if volume.contains('%') => {
            Cow::Owned(format!("{before}{}", volume.replace("%2F", "/").replace("%2f", "/")))
        }
        _ => Cow::Borrowed(raw),
    }
}

/// `PVEAPIToken=name@realm!tool=token`, or the cookie of somebody who signed in. A browser sends no cookie of ours here,
/// and one that it was made to send is refused with its `Origin`.
pub(super) fn shown(headers: &HeaderMap) -> Option<Shown<'_>> {
    if headers.contains_key(header::AUTHORIZATION) {
        let text = authorization(headers)?;
        if let Some(token) = text.strip_prefix("Bearer ") {
            return Some(Shown::Token(token, None));
        }
        let (id, token) = text.strip_prefix("PVEAPIToken=")?.rsplit_once('=')?;
        let (name, _) = id.split_once('!')?;
        return Some(Shown::Token(token, Some(name)));
    }
    if is_of_page(headers) {
        return None;
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut tickets = cookies.flat_map(|v| v.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    });
    let (Some(ticket), None) = (tickets.next(), tickets.next()) else { return None };
    let mut guards = headers.get_all(GUARD).iter();
    let guard = match (guards.next(), guards.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    };
    Some(Shown::Ticket(plain(ticket), guard))
}

/// A cookie's value without the codes that clients write for `:` and `@`. Whatever else is coded proves nothing.
fn plain(value: &str) -> String {
    value.trim_matches('"').replace("%3A", ":").replace("%3a", ":").replace("%40", "@")
}

/// The name and the pass of a ticket of ours.
pub(super) fn pass(ticket: &str) -> Option<(&str, &str)> {
    ticket.strip_prefix(TICKET)?.rsplit_once(':')
}

/// Whether a request is the sign-in.
pub(super) fn is_sign_in(method: &Method, path: &str) -> bool {
    *method == Method::POST && ["/api2/json/access/ticket", "/api2/extjs/access/ticket"].contains(&path)
}

/// What somebody shows who signs in: a token, or a ticket that is renewed. A second factor of Proxmox's own has no place
/// here: the token was made with one.
pub(super) fn signing_in<'a>(name: &'a str, password: &'a str) -> Shown<'a> {
    if password.starts_with(TICKET) {
        Shown::Ticket(password.to_owned(), None)
    } else {
        Shown::Token(password, Some(name))
    }
}

/// What going back to a snapshot leaves as it is, or what is said of the snapshot alone (Proxmox's
/// `__snapshot_apply_config`).
const LEFT: [&str; 10] = [
    "description",
    "digest",
    "lock",
    "parent",
    "running-nets-host-mtu",
    "runningcpu",
    "runningmachine",
    "snapstate",
    "snaptime",
    "vmstate",
];

/// What Proxmox notes of when it made a machine: a copy has its own.
const MADE: &str = "meta";

/// The address of the machine, and the snapshot that it is to go back to.
fn rollback(path: &str) -> Option<(&str, &str)> {
    let (machine, snapshot) = path.strip_suffix("/rollback")?.rsplit_once("/snapshot/")?;
    (!snapshot.is_empty() && !snapshot.contains('/')).then_some((machine, snapshot))
}

/// Where machines of one's kind are made, of the address of a copy.
fn making(path: &str) -> Option<&str> {
    path.strip_suffix("/clone")?.rsplit_once('/').map(|(making, _)| making)
}

/// What a copy is made of: a snapshot, or what is in effect where none is named.
fn copied(asked: &Asked<'_>) -> Beside {
    let in_body = if let classify::Body::Params(form) = asked.body { form.value("snapname") } else { None };
    let pairs = classify::read_pairs(asked.query).unwrap_or_default();
    let in_query = pairs.iter().find(|(key, _)| key == "snapname").map(|(_, value)| value.as_str());
    in_body.or(in_query).filter(|n| !n.is_empty()).map_or(Beside::Effective, |name| Beside::Snapshot(name.to_owned()))
}

/// What has to be known to say what a request changes.
pub(super) fn look(verdict: Verdict, asked: &Asked<'_>) -> (Verdict, Option<Look>) {
    let path = asked.path.as_str();
    if asked.method != "POST" {
        return (verdict, None);
    }
    if let (Some(_), Some((verdict, machine))) = (making(path), copying(&verdict)) {
        return (verdict, Some(Look { machine, beside: copied(asked), why: Some(COPIED) }));
    }
    let look = match (&verdict, rollback(path)) {
        (Verdict::Operation { operation, .. }, Some((_, snapshot))) => match &operation.resource {
            Resource::Machine(machine) => {
                let beside = Beside::Snapshot(snapshot.to_owned());
                Some(Look { machine: machine.clone(), beside, why: Some(BACK) })
            }
            _ => None,
        },
        _ => None,
    };
    (verdict, look)
}

/// What going back to a snapshot asks: what it would to write the settings that become others. And what a copy asks: what
/// it would to make a machine with all that is copied.
pub(super) fn changed(
    table: &Table,
    hypervisor: &HypervisorName,
    asked: &Asked<'_>,
    standing: &Standing,
) -> Option<Verdict> {
    let (Settings::Params(now), Some(Settings::Params(then))) = (&standing.now, &standing.then) else { return None };
    let is_left = |key: &str| LEFT.contains(&key) || key.starts_with("unused");
    if let Some(making) = making(asked.path.as_str()) {
        // A container that is not privileged has less of its host than one of which nothing is said.
        let less = |key: &str| key == "unprivileged" && then.value(key) == Some("1");
        let held = then.changes(&Form::default(), |key| is_left(key) || less(key) || key == MADE);
        let path = classify::canonical(making).ok()?;
        let made = Asked { path: &path, query: None, body: classify::Body::Params(&held), ..*asked };
        let Verdict::Operation { operation, mut also, answer } = table.classify(hypervisor, asked) else { return None };
        // It was asked because nobody had looked at the snapshot.
        also.retain(|o| o.action != Action::NodeAdmin);
        return copy(Verdict::Operation { operation, also, answer }, table.classify(hypervisor, &made));
    }
    let (machine, _) = rollback(asked.path.as_str())?;
    let changes = then.changes(now, is_left);
    let path = classify::canonical(&format!("{machine}/config")).ok()?;
    let written = Asked { method: "PUT", path: &path, query: None, body: classify::Body::Params(&changes), ..*asked };
    back(table.classify(hypervisor, &written))
}

/// A refusal in the API's own form, with the fields of RFC 9457 beside it.
pub(super) fn refusal(refusal: &Refusal, said: &str) -> serde_json::Value {
    let (title, detail) = refusal.words();
    serde_json::json!({
        "data": null, "message": said, "success": 0,
        "title": title, "detail": detail, "status": refusal.status().as_u16(),
    })
}

pub(super) fn signed_in(
    house: &House,
    hypervisor: &HypervisorName,
    name: &str,
    passed: Passed,
) -> Result<Response, Refusal> {
    let (actor, pass, open) = super::signed_in(house, hypervisor, passed)?;
    let pass = pass.expose_text().unwrap_or_default();
    let user = if name.contains('@') { name.to_owned() } else { format!("{}@{REALM}", actor.name) };
    let body = serde_json::json!({ "data": {
        "username": user,
        "ticket": format!("{TICKET}{}:{pass}", actor.name),
        "CSRFPreventionToken": house.identity.guard_of(pass, hypervisor),
        "cap": {},
    }});
    passage::end(open, Outcome::Done, "signed in to the API", &[]);
    let mut answer = Response::new(Body::from(body.to_string()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_policy::classify::{ApiKind, Body, Form, Upgrade};

    const NOW: &str = r#"{"name": "web", "memory": 2048, "tags": "web", "net0": "virtio=AA,bridge=vmbr0", "digest": "d1",
        "scsi0": "local:vm-100-disk-0,size=8G", "description": "now"}"#;

    fn going_back(now: &str, then: &str) -> String {
        told(
            "/api2/json/nodes/n1/qemu/100/snapshot/s0/rollback",
            None,
            "{}",
            Beside::Snapshot("s0".into()),
            now,
            Some(then),
        )
    }

    /// What a POST asks where the machine is `now`, and `then` what is looked at as well; without that it cannot be told.
    fn told(path: &str, query: Option<&str>, said: &str, of: Beside, now: &str, then: Option<&str>) -> String {
        let form = |text: &str| Form::read(Some("application/json"), text.as_bytes()).expect("settings");
        let name = "p".parse().expect("a name");
        let path = classify::canonical(path).expect("a path");
        let said = form(said);
        let asked = Asked { method: "POST", path: &path, query, upgrade: Upgrade::None, body: Body::Params(&said) };
        let table = Table::builtin(ApiKind::Proxmox);
        let (verdict, look) = look(table.classify(&name, &asked), &asked);
        let look = look.expect("it depends on what the machine is");
        assert_eq!((look.machine.to_string().as_str(), look.beside), ("p/100", of));
        let Some(then) = then else { return in_words(verdict) };
        let standing =
            Standing { now: Settings::Params(form(now)), then: Some(Settings::Params(form(then))), mark: None };
        in_words(changed(&table, &name, &asked, &standing).unwrap_or(verdict))
    }

    fn in_words(verdict: Verdict) -> String {
        match verdict {
            Verdict::Operation { operation, also, .. } => {
                std::iter::once(&operation).chain(&also).map(ToString::to_string).collect::<Vec<_>>().join(" + ")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_copy_asks_for_what_it_brings_of_the_host() {
        let guest = "/api2/json/nodes/n1/qemu/100/clone";
        let (plain, host) = ("create on p + storage on p/100", "create on p + storage on p/100 + node-admin on p");
        let copy = |then: &str| told(guest, None, r#"{"newid": 101}"#, Beside::Effective, NOW, Some(then));
        assert_eq!(copy(NOW), plain);
        let more = |key: &str| NOW.replace('{', &format!("{{{key}, "));
        for left in [
            r#""meta": "creation-qemu=9.0.2,ctime=1""#,
            r#""lock": "backup""#,
            r#""unused0": "local:vm-100-disk-9""#,
            r#""net1": "virtio=BB,bridge=vmbr1""#,
            r#""ide2": "local:iso/debian.iso,media=cdrom""#,
        ] {
            assert_eq!(copy(&more(left)), plain, "{left}");
        }
        for brings in [
            r#""hostpci0": "0000:01:00.0""#,
            r#""usb0": "host=1-2""#,
            r#""args": "-x""#,
            r#""virtiofs0": "home""#,
            r#""hookscript": "local:snippets/x.pl""#,
            r#""serial0": "/dev/ttyS0""#,
            // A disk by its path on the host, and what nobody reviewed, cannot be told.
            r#""scsi1": "/dev/disk/by-id/x,size=1T""#,
            r#""unheard-of": 1"#,
        ] {
            assert_eq!(copy(&more(brings)), host, "{brings}");
            assert_eq!(told(guest, None, "{}", Beside::Effective, NOW, None), host, "where it cannot be seen");
        }
        assert_eq!(copy(&more(r#""scsi1": "local:vm-200-disk-0""#)), format!("{plain} + storage on p/200"));
        // A snapshot has what it has, whatever the machine is now, and wherever it is named.
        let (old, named) = (more(r#""hostpci0": "0000:01:00.0""#), r#"{"newid": 101, "snapname": "s0"}"#);
        for (query, said) in [(None, named), (Some("snapname=s0"), "{}")] {
            assert_eq!(told(guest, query, said, Beside::Snapshot("s0".into()), NOW, Some(&old)), host);
            assert_eq!(told(guest, query, said, Beside::Snapshot("s0".into()), &old, Some(NOW)), plain);
            let unseen = told(guest, query, said, Beside::Snapshot("s0".into()), NOW, None);
            assert_eq!(unseen, "create on p + node-admin on p + storage on p/100");
        }
        // Containers: what is not privileged has less of the host, not more.
        let container = "/api2/json/nodes/n1/lxc/100/clone";
        let copy = |then: &str| told(container, None, r#"{"newid": 101}"#, Beside::Effective, then, Some(then));
        let ct = r#"{"hostname": "c", "rootfs": "local:vm-100-disk-0,size=8G", "unprivileged": 1}"#;
        assert_eq!(copy(ct), plain);
        assert_eq!(copy(&ct.replace(r#""unprivileged": 1"#, r#""unprivileged": 0"#)), host);
        for brings in [r#""features": "nesting=1""#, r#""dev0": "/dev/dri/card0""#, r#""mp0": "/srv,mp=/srv""#] {
            assert_eq!(copy(&ct.replace('{', &format!("{{{brings}, "))), host, "{brings}");
        }
    }

    #[test]
    fn going_back_to_a_snapshot_asks_for_what_it_brings_back() {
        let snapshot = "snapshot on p/100";
        let then = NOW.replace("now", "then").replace("d1", "d2").replace('{', r#"{"snaptime": 7, "parent": "s", "#);
        assert_eq!(going_back(NOW, &then), snapshot);
        assert_eq!(going_back(NOW, &NOW.replace("2048", "4096")), snapshot, "what stays within the machine");
        for (old, new, what) in [
            (r#""tags": "web", "#, "", "access-admin on p"),
            (r#""tags": "web""#, r#""tags": "pay""#, "access-admin on p"),
            (r#""name""#, r#""hostpci0": "0000:01:00.0", "name""#, "node-admin on p"),
            (r#""name""#, r#""args": "-x", "name""#, "node-admin on p"),
            ("vmbr0", "vmbr1", "network on p/100"),
            ("size=8G", "size=16G", "storage on p/100"),
        ] {
            let wanted = format!("{snapshot} + configure on p/100 + {what}");
            assert_eq!(going_back(NOW, &NOW.replace(old, new)), wanted, "{new}");
            // What was taken away since comes back; what was added since goes.
            assert_eq!(going_back(&NOW.replace(old, new), NOW), wanted, "{new}");
        }
        let strict = format!("{snapshot} + configure on p/100 + access-admin on p + node-admin on p");
        assert_eq!(
            going_back(NOW, &NOW.replace('{', r#"{"unheard-of": 1, "#)),
            strict,
            "a setting that nobody reviewed"
        );
        let other = NOW.replace("vm-100-disk-0", "vm-200-disk-0");
        assert!(going_back(NOW, &other).contains("storage on p/200"), "another machine's disk");
    }

    fn shown(pairs: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        super::shown(&headers).map(|shown| match shown {
            Shown::Token(token, name) => format!("{} {token}", name.unwrap_or("-")),
            Shown::Ticket(ticket, guard) => format!("{ticket} {}", guard.unwrap_or("-")),
            Shown::Pass(pass) => format!("pass {pass}"),
            Shown::Key(key) => format!("key {key:?}"),
        })
    }

    #[test]
    fn a_slash_may_be_written_as_a_code_in_a_volume_and_nowhere_else() {
        let path = |raw: &str| classify::canonical(&super::path(raw)).map(|c| c.as_str().to_owned()).ok();
        let content = "/api2/json/nodes/pve1/storage/local/content";
        for volume in ["local:iso/x.iso", "local:iso%2Fx.iso", "local:iso%2fx.iso", "local%3Aiso%2Fx.iso"] {
            assert_eq!(path(&format!("{content}/{volume}")), Some(format!("{content}/local:iso/x.iso")), "{volume}");
        }
        for bad in [
            format!("{content}/local:iso%2F..%2F..%2Faccess"),
            format!("{content}/local:iso%2F%2Fx"),
            format!("{content}/local:iso%252Fx"),
            format!("{content}%2Fx"),
            "/api2/json/nodes/pve1%2Fqemu/100".to_owned(),
            "/api2/json/nodes/pve1/qemu%2F100/content/x".to_owned(),
            "/api2/json/nodes/a%2Fb/storage/local/content/x".to_owned(),
        ] {
            assert_eq!(path(&bad), None, "{bad}");
        }
    }

    #[test]
    fn one_credential_counts_and_a_header_wins_over_a_cookie() {
        let token = ("authorization", "PVEAPIToken=ada@portcullis!tool=pct_x");
        let cookie = ("cookie", "a=b; PVEAuthCookie=PVE%3Aada%3Ap.q; c=d");
        assert_eq!(shown(&[token]).as_deref(), Some("ada@portcullis pct_x"));
        assert_eq!(shown(&[token, cookie]).as_deref(), Some("ada@portcullis pct_x"));
        assert_eq!(shown(&[("authorization", "Bearer pct_x")]).as_deref(), Some("- pct_x"));
        assert_eq!(shown(&[cookie]).as_deref(), Some("PVE:ada:p.q -"));
        assert_eq!(shown(&[cookie, ("csrfpreventiontoken", "g")]).as_deref(), Some("PVE:ada:p.q g"));
        for none in [
            &[][..],
            &[token, token],
            &[("authorization", "Basic x"), cookie],
            &[("authorization", "PVEAPIToken=ada@portcullis")],
            &[("authorization", "PVEAPIToken=ada@portcullis=pct_x")],
            &[cookie, cookie],
            &[cookie, ("origin", "https://evil.example")],
            &[cookie, ("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(shown(none), None, "{none:?}");
        }
    }
}
