// SPDX-License-Identifier: Apache-2.0
//! How clients of LXD and Incus show who they are, sign in, and read a refusal (LXD's REST API, "Return values").
//!
//! `lxc` and `incus` show a certificate and nothing else. `lxc remote add` asks `GET /1.0`, hears that it is not trusted,
//! and sends `POST /1.0/certificates` with a password (`incus`: a trust token): a token of ours, for which the
//! certificate stands from then on.

use super::{BACK, COPIED, Look, Shown, Way, back, bearer, copy, copying, is_of_page};
use crate::{
    body::{Body as Answer, Response},
    passage::{self, Passed},
    reply::{self, Refusal},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use portcullis_domain::{Action, Effect, HypervisorName, Operation, Outcome, RequestId, Resource};
use portcullis_identity::Error;
use portcullis_policy::classify::{Asked, Body, Extent, Json, Table, Verdict};
use portcullis_store::Digest;
use portcullis_upstream::{Beside, Settings, Standing};

/// What is asked before signing in.
const SERVER: &str = "/1.0";
const CERTIFICATES: &str = "/1.0/certificates";

/// `Authorization: Bearer`, or a certificate. Where there is any `Authorization`, it alone counts; a certificate counts for
/// nothing that a web page asks.
pub(super) fn shown<'h>(headers: &'h HeaderMap, key: Option<&'h Digest>) -> Option<Shown<'h>> {
    if headers.contains_key(header::AUTHORIZATION) {
        return bearer(headers).map(|token| Shown::Token(token, None));
    }
    key.filter(|_| !is_of_page(headers)).map(Shown::Key)
}

/// Whether a request is the sign-in of somebody whose certificate is not known, or the question before it.
pub(super) fn is_sign_in(method: &Method, path: &str) -> bool {
    (*method == Method::GET && path == SERVER) || (*method == Method::POST && path == CERTIFICATES)
}

/// Answers either. Why a token does not count is told to nobody.
pub(super) async fn sign_in(way: Way<'_>, path: &str, said: &Json) -> Result<Response, Refusal> {
    let key = way.key.ok_or(Refusal::Unknown)?;
    if path == SERVER {
        return Ok(sync(
            StatusCode::OK,
            &serde_json::json!({
                "api_extensions": [], "api_status": "stable", "api_version": "1.0",
                "auth": "untrusted", "auth_methods": ["tls"], "public": false,
            }),
        ));
    }
    let shown = Shown::Token(token(said)?, None);
    way.walk(&shown, |passed| bind(way, key, passed)).await.map_err(|refusal| match refusal {
        Refusal::Unknown => Refusal::Forbidden(
            "That password is no token that counts here. Make one on your page of this gateway, and give it as the \
             password or trust token."
                .into(),
        ),
        other => other,
    })
}

/// The token in a sign-in. What asks for more than that the shown certificate be known is refused, not passed over.
fn token(said: &Json) -> Result<&str, Refusal> {
    let bad = |why: &str| Err(Refusal::Bad(why.to_owned()));
    if let Some(more) =
        said.held().find(|key| !["type", "name", "description", "password", "trust_token"].contains(key))
    {
        return bad(&format!(
            "Leave out `{more}`: only the certificate that this connection shows signs in, and it reaches what its token \
             reaches."
        ));
    }
    let text = |key: &str| said.value(key).filter(|v| !v.is_empty());
    if text("/type").is_some_and(|kind| kind != "client") {
        return bad("Certificates of type `client` sign in here, and no others.");
    }
    match (text("/password"), text("/trust_token")) {
        (Some(token), None) | (None, Some(token)) => Ok(token),
        (Some(_), Some(_)) => bad("Send one token, not two."),
        (None, None) => bad("Give a token of this gateway as the password or trust token."),
    }
}

async fn bind(way: Way<'_>, key: &Digest, passed: Passed) -> Result<Response, Refusal> {
    let Way { house, hypervisor, .. } = way;
    let (Some(actor), Some(open)) = (passed.actor, passed.open) else {
        return Err(Refusal::Unavailable("The request lost its event on the way.".into()));
    };
    let print = hex::encode(key);
    match house.identity.bind_key(&actor, key, hypervisor).await {
        Ok(()) => {
            let words = format!("the client certificate {print} stands for the token from now on");
            passage::end(open, Outcome::Done, &words, &[]);
            let mut answer = sync(StatusCode::CREATED, &serde_json::json!({}));
            if let Ok(at) = HeaderValue::try_from(format!("{CERTIFICATES}/{print}")) {
                answer.headers_mut().insert(header::LOCATION, at);
            }
            Ok(answer)
        }
        Err(error) => {
            let (outcome, refusal) = match &error {
                // It was taken back at this very moment.
                Error::NotFound(_) => (Outcome::Denied, Refusal::Unknown),
                Error::Invalid(why) => (Outcome::Denied, Refusal::Forbidden(reply::sentence(why))),
                other => (Outcome::Failed, reply::identity(other, house.clock.now())),
            };
            passage::end(open, outcome, &format!("the client certificate {print} was not bound: {error}"), &[]);
            Err(refusal)
        }
    }
}

/// An answer of type `sync`.
fn sync(status: StatusCode, metadata: &serde_json::Value) -> Response {
    let body = serde_json::json!({
        "type": "sync", "status": "Success", "status_code": 200, "operation": "", "error_code": 0, "error": "",
        "metadata": metadata,
    });
    let mut answer = Response::new(Answer::from(body.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// What LXD itself changes with each start: no person's work.
const OWN: [&str; 7] = [
    "/config/volatile.*.host_name",
    "/config/volatile.cloud-init.instance-id",
    "/config/volatile.last_state.power",
    "/config/volatile.last_state.ready",
    "/config/volatile.uuid.generation",
    "/config/volatile.vm.*",
    "/config/volatile.vsock_id",
];
/// What a snapshot does not have, and the instance keeps.
const KEPT: [&str; 2] = ["/description", "/stateful"];
/// What a copy does not have of its instance, or what says nothing.
const UNCOPIED: [&str; 5] = ["/architecture", "/config/volatile.*", "/description", "/ephemeral", "/stateful"];
/// What is written whole even where the rest stays.
const WHOLE: [&str; 2] = ["devices", "profiles"];
/// Whose entries are settings of their own.
const WITHIN: [&str; 2] = ["config", "devices"];

/// What has to be known to say what a request changes.
pub(super) fn look(verdict: Verdict, asked: &Asked<'_>) -> (Verdict, Option<Look>) {
    let (Verdict::Operation { operation, also, answer }, Body::Json(said)) = (&verdict, asked.body) else {
        return (verdict, None);
    };
    // A move under its own name gives it no other one.
    if let ("POST", Action::Migrate, Resource::Machine(at)) = (asked.method, operation.action, &operation.resource)
        && said.value("/project").is_none_or(str::is_empty)
        && said.value("/name") == at.machine.as_str().rsplit(':').next()
    {
        let (operation, mut also, answer) = (operation.clone(), also.clone(), *answer);
        also.retain(|o| o.action != Action::AccessAdmin);
        return (Verdict::Operation { operation, also, answer }, None);
    }
    // LXD gives a copy whatever the request does not give another value.
    if is_copy(asked, said)
        && let Some((verdict, machine)) = copying(&verdict)
    {
        // A snapshot has what it had then, whatever its instance is now: of that nothing can be told.
        let is_snapshot = machine.machine.as_str().contains('/');
        let look = Look { machine, beside: Beside::Nothing, why: Some(COPIED) };
        return (verdict, (!is_snapshot).then_some(look));
    }
    // What a PUT does not name is taken away, and so is what a device or the list of profiles does not name.
    let takes_away = asked.method == "PUT" || WHOLE.iter().any(|key| said.says(key));
    let is_one = is_instance(asked.path.as_str()) && matches!(asked.method, "PUT" | "PATCH");
    if !is_one || !takes_away && also.is_empty() {
        return (verdict, None);
    }
    let snapshot = snapshot(said).map(str::to_owned);
    // LXD reads a snapshot of another instance into it.
    if snapshot.as_ref().is_some_and(|name| name.contains('/')) {
        return (Verdict::Denied("Name a snapshot of the instance itself, without a slash.".into()), None);
    }
    let machine = std::iter::once(operation).chain(also).find_map(|o| match (&o.resource, o.action) {
        (Resource::Machine(machine), Action::Configure) => Some(machine.clone()),
        _ => None,
    });
    let Some(machine) = machine else { return (verdict, None) };
    let resource = Resource::Hypervisor(machine.hypervisor.clone());
    let host = Operation { action: Action::NodeAdmin, resource, effect: Effect::Unsafe };
    let (operation, mut also, answer) = (operation.clone(), also.clone(), *answer);
    if takes_away && !also.contains(&host) {
        // For where it cannot be seen what that is.
        also.push(host);
    }
    let why = snapshot.is_some().then_some(BACK);
    let beside = snapshot.map_or(Beside::Nothing, Beside::Snapshot);
    (Verdict::Operation { operation, also, answer }, Some(Look { machine, beside, why }))
}

/// Whether a request copies an instance of this server. A move between servers says all of it itself.
fn is_copy(asked: &Asked<'_>, said: &Json) -> bool {
    asked.method == "POST" && asked.path.as_str() == "/1.0/instances" && said.value("/source/type") == Some("copy")
}

fn is_instance(path: &str) -> bool {
    path.strip_prefix("/1.0/instances/").is_some_and(|name| !name.contains('/'))
}

/// The snapshot that it is to go back to. `null` is none to LXD, whatever a snapshot is called.
fn snapshot(said: &Json) -> Option<&str> {
    said.text("/restore").filter(|name| !name.is_empty())
}

/// What a request asks by what it changes: a PUT and a PATCH are asked like a PATCH of what becomes another, going back to
/// a snapshot like that of what the snapshot has otherwise, and a copy like a new one with all that is copied. LXD writes
/// only where the instance is still what it was compared with; a client may have named that itself, and nothing else.
pub(super) fn changed(
    table: &Table,
    hypervisor: &HypervisorName,
    asked: &Asked<'_>,
    standing: &Standing,
    headers: &HeaderMap,
) -> Option<Verdict> {
    let (Settings::Json(now), Body::Json(said)) = (&standing.now, asked.body) else { return None };
    if is_copy(asked, said) {
        let brought = now.clone().without(&UNCOPIED).left_by(said, &WITHIN);
        let all = said.clone().and(brought);
        let made = Asked { body: Body::Json(&all), ..*asked };
        return copy(table.classify(hypervisor, asked), table.classify(hypervisor, &made));
    }
    let mark = standing.mark.as_ref()?;
    if headers.get_all(header::IF_MATCH).iter().any(|named| named != mark) {
        return None;
    }
    let extent = if asked.method == "PUT" { Extent::All } else { Extent::Named };
    let changes = match (snapshot(said), &standing.then) {
        (Some(_), Some(Settings::Json(then))) => {
            let [now, then] = [now, then].map(|side| side.clone().without(&OWN).without(&KEPT));
            // LXD does not look at what else is said beside a snapshot; it is asked for all the same.
            let beside = said.clone().without(&["/restore"]).changes(&now, &WITHIN, Extent::Named);
            then.changes(&now, &WITHIN, Extent::All).and(beside)
        }
        (None, None) => said.changes(now, &WITHIN, extent),
        _ => return None,
    };
    let asked = Asked { method: "PATCH", body: Body::Json(&changes), ..*asked };
    match table.classify(hypervisor, &asked) {
        verdict if standing.then.is_some() => back(verdict),
        verdict @ Verdict::Operation { .. } => Some(verdict),
        _ => None,
    }
}

/// An answer of type `error`, with the fields of RFC 9457 beside its own; but for `status`, which is a text in LXD's answers:
/// with a number there its clients read none of it.
pub(super) fn refusal(refusal: &Refusal, said: &str, request: RequestId) -> serde_json::Value {
    let (title, detail) = refusal.words();
    let code = refusal.status().as_u16();
    serde_json::json!({
        "type": "error", "error": said, "error_code": code, "metadata": null,
        "title": title, "detail": detail, "request": request.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use portcullis_policy::classify::{self, ApiKind, Upgrade};

    #[test]
    fn a_token_alone_counts_where_there_is_one_and_no_page_shows_a_certificate() {
        let key = [7; 32];
        let shown = |pairs: &[(&'static str, &str)], key| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().expect("a value"));
            }
            match shown(&headers, key) {
                Some(Shown::Token(token, None)) => token.to_owned(),
                Some(Shown::Key(_)) => "key".to_owned(),
                None => "nothing".to_owned(),
                Some(_) => panic!("something else"),
            }
        };
        let token = ("authorization", "Bearer pct_x");
        for (pairs, wanted) in [
            (&[][..], "key"),
            (&[("cookie", "a=b")], "key"),
            (&[token], "pct_x"),
            (&[token, token], "nothing"),
            (&[("authorization", "Basic x")], "nothing"),
            (&[("authorization", "")], "nothing"),
            (&[("origin", "https://evil.example")], "nothing"),
            (&[("origin", "null")], "nothing"),
            (&[("sec-fetch-site", "none")], "nothing"),
        ] {
            assert_eq!(shown(pairs, Some(&key)), wanted, "{pairs:?}");
        }
        assert_eq!(shown(&[], None), "nothing");
    }

    #[test]
    fn a_sign_in_holds_a_token_and_asks_for_nothing_else() {
        let read = |body: &str| {
            let said = Json::read(None, body.as_bytes()).expect("JSON");
            token(&said).map(str::to_owned).map_err(|r| r.words().1)
        };
        // As lxc 5.0 sends it, and incus.
        let lxc = r#"{"name":"","type":"client","restricted":false,"projects":null,"certificate":"","password":"pct_x","token":false}"#;
        assert_eq!(read(lxc).as_deref(), Ok("pct_x"));
        let incus = r#"{"name":"","type":"client","restricted":false,"projects":[],"description":"","certificate":"","trust_token":"pct_x","token":false}"#;
        assert_eq!(read(incus).as_deref(), Ok("pct_x"));
        for (body, word) in [
            ("{}", "Give a token"),
            (r#"{"password": ""}"#, "Give a token"),
            (r#"{"password": "a", "trust_token": "b"}"#, "not two"),
            (r#"{"password": "a", "certificate": "MII"}"#, "Leave out `certificate`"),
            (r#"{"password": "a", "Certificate": "MII"}"#, "Leave out `Certificate`"),
            (r#"{"password": "a", "type": "server"}"#, "client"),
            (r#"{"password": "a", "restricted": true}"#, "Leave out `restricted`"),
            (r#"{"password": "a", "projects": ["p"]}"#, "Leave out `projects`"),
            (r#"{"password": "a", "token": true}"#, "Leave out `token`"),
            (r#"{"password": "a", "unheard": {"of": 1}}"#, "Leave out `unheard`"),
        ] {
            let said = read(body);
            assert!(said.as_ref().is_err_and(|why| why.contains(word)), "{body}: {said:?}");
        }
    }

    /// What c1 is.
    const NOW: &str = r#"{"architecture": "x86_64", "description": "", "ephemeral": false, "stateful": false,
        "profiles": ["default"],
        "config": {"limits.cpu": "1", "user.tags": "web,db", "raw.lxc": "x", "volatile.base_image": "f0",
            "volatile.idmap.base": "0", "volatile.last_state.idmap": "[a]", "volatile.last_state.power": "RUNNING",
            "volatile.eth0.hwaddr": "00:16:3e:00:00:01", "volatile.eth0.host_name": "veth1"},
        "devices": {"eth0": {"type": "nic", "network": "br"}, "d": {"type": "disk", "source": "/srv", "path": "/srv"}}}"#;

    fn json(text: &str) -> Json {
        Json::read(None, text.as_bytes()).expect("JSON")
    }

    fn in_words(verdict: Verdict) -> String {
        match verdict {
            Verdict::Operation { operation, also, .. } => {
                std::iter::once(&operation).chain(&also).map(ToString::to_string).collect::<Vec<_>>().join(" + ")
            }
            other => format!("{other:?}"),
        }
    }

    /// What a request asks of c1 where it is as above, with a snapshot; and whether the gateway looks at all.
    fn told(method: &str, path: &str, body: &str, then: &str) -> String {
        told_with(method, path, body, then, &HeaderMap::new())
    }

    fn told_with(method: &str, path: &str, body: &str, then: &str, headers: &HeaderMap) -> String {
        let (name, path, said) = ("i".parse().expect("a name"), classify::canonical(path).expect("a path"), json(body));
        let asked = Asked { method, path: &path, query: None, upgrade: Upgrade::None, body: Body::Json(&said) };
        let table = Table::builtin(ApiKind::Lxd);
        let (verdict, look) = look(table.classify(&name, &asked), &asked);
        let Some(look) = look else { return in_words(verdict) };
        let standing = Standing {
            now: Settings::Json(json(NOW)),
            then: matches!(look.beside, Beside::Snapshot(_)).then(|| Settings::Json(json(then))),
            mark: Some(HeaderValue::from_static("\"e\"")),
        };
        assert_eq!(look.machine.to_string(), "i/default:c1");
        in_words(changed(&table, &name, &asked, &standing, headers).unwrap_or(verdict))
    }

    /// What c1 is, with one text in place of another.
    fn with(old: &str, new: &str) -> String {
        assert!(NOW.contains(old), "{old}");
        NOW.replace(old, new)
    }

    const OWN: &str = "configure on i/default:c1";

    #[test]
    fn writing_everything_back_asks_for_what_it_changes() {
        let put = |body: &str| told("PUT", "/1.0/instances/c1", body, "");
        let asks = |old: &str, new: &str| put(&with(old, new));
        assert_eq!(put(NOW), OWN, "nothing changes");
        assert_eq!(asks(r#""limits.cpu": "1""#, r#""limits.cpu": "2""#), OWN);
        assert_eq!(asks(r#""user.tags": "web,db","#, r#""user.tags": "web","#), format!("{OWN} + access-admin on i"));
        assert_eq!(asks(r#""user.tags": "web,db","#, ""), format!("{OWN} + access-admin on i"));
        for (old, new) in [
            (r#""raw.lxc": "x","#, ""),
            (r#""raw.lxc": "x""#, r#""raw.lxc": "y""#),
            (r#""raw.lxc""#, r#""security.privileged": "true", "raw.lxc""#),
            (r#""volatile.idmap.base": "0""#, r#""volatile.idmap.base": "1000000""#),
            (r#""volatile.idmap.base": "0","#, ""),
            (r#""volatile.idmap.base""#, r#""volatile.idmap.next": "[]", "volatile.idmap.base""#),
            (r#""volatile.last_state.idmap": "[a]""#, r#""volatile.last_state.idmap": "[]""#),
            (r#""volatile.last_state.idmap": "[a]","#, ""),
            (r#""volatile.last_state.power": "RUNNING""#, r#""volatile.last_state.power": "STOPPED""#),
            ("00:16:3e:00:00:01", "00:16:3e:00:00:02"),
            (r#""volatile.eth0.host_name": "veth1""#, r#""volatile.eth0.host_name": "eth0""#),
            (r#""source": "/srv""#, r#""source": "/""#),
            (r#", "d": {"type": "disk", "source": "/srv", "path": "/srv"}"#, ""),
            (r#"["default"]"#, r#"["default", "privileged"]"#),
        ] {
            assert!(asks(old, new).contains("node-admin on i"), "{old} {new}: {}", asks(old, new));
        }
        assert!(asks(r#""network": "br""#, r#""network": "other""#).contains("network on i/default:c1"));
        assert_eq!(asks("f0", "f1"), OWN, "which image it came from gives nothing");
        let nothing = put("{}");
        assert!(nothing.contains("access-admin on i") && nothing.contains("node-admin on i"), "{nothing}");
    }

    #[test]
    fn a_part_that_is_written_asks_for_what_it_changes() {
        let patch = |body: &str| told("PATCH", "/1.0/instances/c1", body, "");
        for same in [
            r#"{"config": {"user.tags": "web,db", "raw.lxc": "x", "volatile.idmap.base": "0"}}"#,
            r#"{"devices": {"d": {"path": "/srv", "source": "/srv", "type": "disk"}}}"#,
            r#"{"config": {"limits.cpu": "2", "volatile.last_state.idmap": "[a]"}}"#,
        ] {
            assert_eq!(patch(same), OWN, "{same}");
        }
        for (other, what) in [
            (r#"{"config": {"volatile.idmap.next": "[]"}}"#, "node-admin on i"),
            (r#"{"config": {"volatile.idmap.base": ""}}"#, "node-admin on i"),
            (r#"{"config": {"user.tags": "db,web"}}"#, "access-admin on i"),
            // A device is written whole: what is missing in it goes.
            (r#"{"devices": {"eth0": {"type": "nic"}}}"#, "network on i/default:c1"),
            (r#"{"devices": {"d": {"type": "disk", "path": "/srv"}}}"#, "node-admin on i"),
        ] {
            assert_eq!(patch(other), format!("{OWN} + {what}"), "{other}");
        }
    }

    #[test]
    fn going_back_asks_for_what_it_brings_back() {
        let back = |then: &str| told("PUT", "/1.0/instances/c1", r#"{"restore": "s0", "config": null}"#, then);
        let snapshot = "snapshot on i/default:c1";
        assert_eq!(back(NOW), snapshot);
        for (old, new) in [
            (r#""limits.cpu": "1""#, r#""limits.cpu": "8""#),
            (r#""volatile.last_state.power": "RUNNING""#, r#""volatile.last_state.power": "STOPPED""#),
            (r#", "volatile.eth0.host_name": "veth1""#, ""),
            (r#""description": "", "#, ""),
        ] {
            assert_eq!(back(&with(old, new)), snapshot, "{old}");
        }
        for (old, new, what) in [
            (r#""user.tags": "web,db","#, "", "access-admin on i"),
            (r#""user.tags": "web,db""#, r#""user.tags": "pay""#, "access-admin on i"),
            (r#""raw.lxc": "x","#, r#""raw.lxc": "x", "security.privileged": "true","#, "node-admin on i"),
            (r#""volatile.last_state.idmap": "[a]""#, r#""volatile.last_state.idmap": "[]""#, "node-admin on i"),
            (r#""source": "/srv""#, r#""source": "/""#, "node-admin on i"),
            (r#""network": "br""#, r#""network": "other""#, "network on i/default:c1"),
        ] {
            assert_eq!(back(&with(old, new)), format!("{snapshot} + {OWN} + {what}"), "{old}");
        }
        // What is said beside it counts, too.
        let beside = told("PUT", "/1.0/instances/c1", r#"{"restore": "s0", "config": {"raw.lxc": "y"}}"#, NOW);
        assert_eq!(beside, format!("{snapshot} + {OWN} + node-admin on i"));
        // To LXD that is no way back but a whole configuration, in which nothing stands.
        for none in ["null", "\"\""] {
            let said = told("PUT", "/1.0/instances/c1", &format!(r#"{{"restore": {none}}}"#), NOW);
            assert!(
                said.starts_with(OWN) && said.contains("access-admin on i") && said.contains("node-admin on i"),
                "{said}"
            );
        }
        let other = told("PUT", "/1.0/instances/c1", r#"{"restore": "c2/s0"}"#, NOW);
        assert!(other.contains("without a slash"), "{other}");
    }

    #[test]
    fn what_cannot_be_compared_asks_for_everything() {
        let (method, path) = ("PUT", "/1.0/instances/c1");
        let named = |mark: &'static str| {
            let headers = HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(mark))]);
            told_with(method, path, NOW, "", &headers)
        };
        assert_eq!(named("\"e\""), OWN);
        assert!(named("\"f\"").contains("access-admin on i"), "another state than the one that was compared with");
        // Not an instance, or nothing that could be told better.
        let (name, said) = ("i".parse().expect("a name"), json(NOW));
        let path = classify::canonical(path).expect("a path");
        let asked = Asked { method, path: &path, query: None, upgrade: Upgrade::None, body: Body::Json(&said) };
        let table = Table::builtin(ApiKind::Lxd);
        let now = || Settings::Json(json(NOW));
        let mark = Some(HeaderValue::from_static("\"e\""));
        for standing in [
            Standing { now: now(), then: None, mark: None },
            Standing { now: now(), then: Some(now()), mark: mark.clone() },
            Standing { now: Settings::Params(classify::Form::default()), then: None, mark },
        ] {
            assert_eq!(changed(&table, &name, &asked, &standing, &HeaderMap::new()), None);
        }
        // What is taken away is not in what is said.
        for (method, body, is_asked) in [
            ("PUT", "{}", true),
            ("PATCH", r#"{"devices": {"eth0": {"type": "nic"}}}"#, true),
            ("PATCH", r#"{"profiles": ["default"]}"#, true),
            ("PATCH", r#"{"config": {"limits.cpu": "2"}}"#, false),
        ] {
            let said = json(body);
            let asked = Asked { method, body: Body::Json(&said), ..asked };
            let strict = in_words(look(table.classify(&name, &asked), &asked).0);
            assert_eq!(strict.contains("node-admin on i"), is_asked, "{body}: {strict}");
        }
        let strict = in_words(look(table.classify(&name, &asked), &asked).0);
        assert!(["access-admin on i", OWN, "node-admin on i"].iter().all(|what| strict.contains(what)), "{strict}");
    }

    #[test]
    fn a_move_under_its_own_name_gives_no_other_one() {
        let stays = told("POST", "/1.0/instances/c1", r#"{"migration": true, "pool": "p", "name": "c1"}"#, "");
        assert_eq!(stays, "migrate on i/default:c1");
        for moved in [r#""name": "c2""#, r#""project": "other""#] {
            let body = format!(r#"{{"migration": true, "pool": "p", {moved}}}"#);
            let said = told("POST", "/1.0/instances/c1", &body, "");
            assert!(said.contains("migrate on i/default:c1") && said.contains("access-admin"), "{said}");
        }
        assert_eq!(told("POST", "/1.0/instances/c1", r#"{"name": "c2"}"#, ""), format!("access-admin on i + {OWN}"));
        // What does not depend on what the machine is: a new one with what LXD remembers of another.
        let new = r#"{"name": "c2", "source": {"type": "none"}, "config": {"volatile.last_state.idmap": "[]"}}"#;
        assert!(told("POST", "/1.0/instances", new, "").contains("node-admin on i"));
        let copy =
            r#"{"name": "c2", "source": {"type": "copy", "source": "c1"}, "config": {"volatile.base_image": "f"}}"#;
        assert!(told("POST", "/1.0/instances", copy, "").starts_with("create on i + storage on i/default:c1"));
        let over = r#"{"name": "c2", "source": {"type": "copy", "source": "c1", "refresh": true}}"#;
        let said = told("POST", "/1.0/instances", over, "");
        assert!(said.split(" + ").any(|asked| asked == "storage on i"), "a disk is written over: {said}");
        assert!(
            told("PATCH", "/1.0/profiles/p", r#"{"config": {"volatile.idmap.next": "[]"}}"#, "").contains("node-admin")
        );
    }
    #[test]
    fn a_copy_asks_for_what_it_brings() {
        let plain = "create on i + storage on i/default:c1";
        let copy = |more: &str| {
            let body = format!(r#"{{"name": "c2", "source": {{"type": "copy", "source": "c1"}}{more}}}"#);
            told("POST", "/1.0/instances", &body, "")
        };
        // c1 has tags, a setting and a folder of the host, and a network.
        let brings = |asked: &[&str], more: &str| {
            let said = copy(more);
            let mut all: Vec<&str> = said.strip_prefix(plain).expect("a copy").split(" + ").skip(1).collect();
            all.sort_unstable();
            assert_eq!(all, asked, "{more}");
        };
        brings(&["access-admin on i", "network on i", "node-admin on i"], "");
        brings(&["access-admin on i", "network on i", "node-admin on i"], r#", "config": null, "devices": null"#);
        // What the request gives another value is not copied.
        let bare = r#""raw.lxc": "", "user.tags": """#;
        let none = r#""d": {"type": "none"}, "eth0": {"type": "none"}"#;
        // (To say anything of such a setting asks for it, too.)
        brings(&["access-admin on i", "node-admin on i"], &format!(r#", "config": {{{bare}}}, "devices": {{{none}}}"#));
        brings(
            &["access-admin on i", "network on i", "node-admin on i"],
            &format!(r#", "config": {{{bare}}}, "devices": {{"d": {{"type": "none"}}, "eth1": {{"type": "none"}}}}"#),
        );
    }

    #[test]
    fn a_copy_of_a_snapshot_asks_for_all_that_there_could_be() {
        for source in ["c1/s0", "c1/snapshots/s0"] {
            let body = format!(r#"{{"name": "c2", "source": {{"type": "copy", "source": "{source}"}}}}"#);
            let said = told("POST", "/1.0/instances", &body, "");
            assert!(said.contains("node-admin on i") || said.starts_with("Denied"), "{source}: {said}");
        }
    }

    #[test]
    fn a_copy_of_what_has_nothing_of_the_host_is_a_copy_alone() {
        let (name, path) = ("i".parse().expect("a name"), classify::canonical("/1.0/instances").expect("a path"));
        let table = Table::builtin(ApiKind::Lxd);
        let copy = |now: &str, more: &str| {
            let said = json(&format!(r#"{{"name": "c2", "source": {{"type": "copy", "source": "c1"}}{more}}}"#));
            let asked =
                Asked { method: "POST", path: &path, query: None, upgrade: Upgrade::None, body: Body::Json(&said) };
            let standing = Standing { now: Settings::Json(json(now)), then: None, mark: None };
            let (strict, look) = look(table.classify(&name, &asked), &asked);
            assert!(look.is_some() && in_words(strict).contains("node-admin on i"), "where it cannot be seen");
            in_words(changed(&table, &name, &asked, &standing, &HeaderMap::new()).expect("it can be told"))
        };
        let (plain, host) = ("create on i + storage on i/default:c1", " + node-admin on i");
        let now = r#"{"architecture": "x86_64", "profiles": ["default"], "config": {"limits.cpu": "1",
            "volatile.last_state.idmap": "[a]", "volatile.idmap.next": "[a]"}, "devices": {}}"#;
        assert_eq!(copy(now, ""), plain);
        for (old, new) in [
            (r#""limits.cpu": "1""#, r#""security.privileged": "true""#),
            (r#""limits.cpu": "1""#, r#""raw.qemu": "-device vfio-pci""#),
            (r#""devices": {}"#, r#""devices": {"gpu": {"type": "gpu"}}"#),
            (r#""devices": {}"#, r#""devices": {"u": {"type": "usb", "vendorid": "1d6b"}}"#),
            (r#""devices": {}"#, r#""devices": {"p": {"type": "pci", "address": "0000:01:00.0"}}"#),
            (r#""devices": {}"#, r#""devices": {"d": {"type": "disk", "source": "/dev/sdb", "path": "/d"}}"#),
            (r#"["default"]"#, r#"["gpu"]"#),
        ] {
            assert_eq!(copy(&now.replace(old, new), ""), format!("{plain}{host}"), "{new}");
        }
        // Profiles that the request names are asked for as ever, and stand in the place of those that are there.
        assert_eq!(copy(&now.replace(r#"["default"]"#, r#"["gpu"]"#), r#", "profiles": ["default"]"#), plain);
        assert_eq!(copy(&now.replace(r#"["default"]"#, r#"["gpu"]"#), r#", "profiles": []"#), plain);
        assert_eq!(
            copy(&now.replace(r#"["default"]"#, r#"["gpu"]"#), r#", "profiles": null"#),
            format!("{plain}{host}")
        );
        // What the gateway does not know of cannot be told: all is asked.
        let odd = json(&now.replace(r#""limits.cpu""#, r#""unheard.of""#));
        let said = json(r#"{"source": {"type": "copy", "source": "c1"}}"#);
        let asked = Asked { method: "POST", path: &path, query: None, upgrade: Upgrade::None, body: Body::Json(&said) };
        let standing = Standing { now: Settings::Json(odd), then: None, mark: None };
        assert!(changed(&table, &name, &asked, &standing, &HeaderMap::new()).is_none());
    }
}
