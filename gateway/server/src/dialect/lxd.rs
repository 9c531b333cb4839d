// SPDX-License-Identifier: Apache-2.0
//! How clients of LXD show who they are, and how they read a refusal (LXD's REST API, "Return values").

use super::{Shown, Way, bearer};
use crate::reply::Refusal;
use http::{HeaderMap, Method};
use portcullis_domain::{Action, Inventory, RequestId, Resource};
use portcullis_policy::classify::{Content, Json, Verdict};
use portcullis_upstream::split_tags;

/// `Authorization: Bearer`, and nothing else.
pub(super) fn shown(headers: &HeaderMap) -> Option<Shown<'_>> {
    bearer(headers).map(|token| Shown::Token(token, None))
}

/// What is asked, where that depends on what the instance is now.
pub(super) fn settle_said(way: Way<'_>, verdict: Verdict, method: &Method, said: &Content) -> Verdict {
    match said {
        Content::Json(said) => settle(verdict, method, said, &way.house.fleet.inventory()),
        Content::Params(_) => verdict,
    }
}

/// What a whole new configuration of an instance asks. It can give and take away tags, on which access is given; where its
/// tags are those that the machine has, it does neither, and tools write everything back to change one setting.
fn settle(verdict: Verdict, method: &Method, said: &Json, inventory: &Inventory) -> Verdict {
    let Verdict::Operation { operation, mut also, answer } = verdict else { return verdict };
    // A move under its own name gives it no other one.
    if let (&Method::POST, Action::Migrate, Resource::Machine(at)) = (method, operation.action, &operation.resource)
        && said.value("/project").is_none_or(str::is_empty)
        && said.value("/name") == at.machine.as_str().rsplit(':').next()
    {
        also.retain(|o| o.action != Action::AccessAdmin);
    }
    let configures = also.iter().position(|o| o.action == Action::Configure);
    let own = configures.filter(|_| *method == Method::PUT && operation.action == Action::AccessAdmin);
    let machine = own.and_then(|at| match &also.get(at)?.resource {
        Resource::Machine(machine) => inventory.find(machine),
        _ => None,
    });
    // A snapshot brings its own tags back, whatever else is said.
    let stays = said.value("/restore").is_none_or(str::is_empty);
    let same = stays
        && machine.is_some_and(|m| {
            let mut tags = split_tags(said.value("/config/user.tags").unwrap_or_default());
            tags.sort_unstable();
            tags.dedup();
            tags == m.tags
        });
    match own.filter(|_| same) {
        Some(at) => Verdict::Operation { operation: also.remove(at), also, answer },
        None => Verdict::Operation { operation, also, answer },
    }
}

/// An answer of type `error`, with the fields of RFC 9457 beside its own.
pub(super) fn refusal(refusal: &Refusal, said: &str, request: RequestId) -> serde_json::Value {
    let (title, detail) = refusal.words();
    let code = refusal.status().as_u16();
    serde_json::json!({
        "type": "error", "error": said, "error_code": code, "metadata": null,
        "title": title, "detail": detail, "status": code, "request": request.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{ConsoleKind, Machine, MachineKind, PowerState};
    use portcullis_policy::classify::{self, ApiKind, Asked, Body, Table, Upgrade};

    fn told(method: &Method, path: &str, body: &str) -> String {
        let machine = Machine {
            at: "i/default:c1".parse().expect("a machine"),
            name: "c1".into(),
            kind: MachineKind::Container,
            state: PowerState::Running,
            pool: Some("default".into()),
            tags: vec!["db".into(), "web".into()],
            node: None,
            console: ConsoleKind::Text,
        };
        let name = machine.at.hypervisor.clone();
        let inventory = Inventory::default().with(&name, vec![machine]);
        let (path, said) =
            (classify::canonical(path).expect("a path"), Json::read(None, body.as_bytes()).expect("JSON"));
        let asked = Asked {
            method: method.as_str(),
            path: &path,
            query: None,
            upgrade: Upgrade::None,
            body: Body::Json(&said),
        };
        let verdict = Table::builtin(ApiKind::Lxd).classify(&name, &asked);
        match settle(verdict, method, &said, &inventory) {
            Verdict::Operation { operation, also, .. } => {
                std::iter::once(&operation).chain(&also).map(ToString::to_string).collect::<Vec<_>>().join(" + ")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn writing_everything_back_asks_for_access_only_where_the_tags_become_others() {
        let put = |body: &str| told(&Method::PUT, "/1.0/instances/c1", body);
        let own = "configure on i/default:c1";
        for same in ["web,db", "db, web", "db,web,db,"] {
            assert_eq!(put(&format!(r#"{{"config": {{"limits.cpu": "2", "user.tags": "{same}"}}}}"#)), own, "{same}");
        }
        let raw = r#"{"config": {"raw.lxc": "x", "user.tags": "web,db"}}"#;
        assert_eq!(put(raw), format!("{own} + node-admin on i"));
        for other in ["web", "", "web,db,pay", "web;db", "Web,db"] {
            let body = format!(r#"{{"config": {{"user.tags": "{other}"}}}}"#);
            assert_eq!(put(&body), format!("access-admin on i + {own}"), "{other}");
        }
        assert_eq!(put(r#"{"config": {}}"#), format!("access-admin on i + {own}"));
        // A snapshot's tags are not known.
        let back = put(r#"{"restore": "snap0", "config": {"user.tags": "web,db"}}"#);
        assert!(back.starts_with("access-admin on i + ") && back.contains("snapshot on"), "{back}");
        let stays = told(&Method::POST, "/1.0/instances/c1", r#"{"migration": true, "pool": "p", "name": "c1"}"#);
        assert_eq!(stays, "migrate on i/default:c1");
        for moved in [r#""name": "c2""#, r#""project": "other""#] {
            let body = format!(r#"{{"migration": true, "pool": "p", {moved}}}"#);
            let said = told(&Method::POST, "/1.0/instances/c1", &body);
            assert!(said.contains("migrate on i/default:c1") && said.contains("access-admin"), "{said}");
        }
        // A machine that is not known has no tags that could be the same, and a new name is another thing.
        let body = r#"{"config": {"user.tags": "web,db"}}"#;
        let unknown = told(&Method::PUT, "/1.0/instances/c2", body);
        assert_eq!(unknown, "access-admin on i + configure on i/default:c2");
        assert_eq!(told(&Method::POST, "/1.0/instances/c1", r#"{"name": "c2"}"#), format!("access-admin on i + {own}"));
        assert_eq!(told(&Method::PATCH, "/1.0/instances/c1", body), format!("{own} + access-admin on i"));
    }
}
