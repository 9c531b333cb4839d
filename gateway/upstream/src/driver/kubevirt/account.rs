// SPDX-License-Identifier: Apache-2.0
//! The gateway's own service account: what it may do (SelfSubjectRulesReview), and another token for it.
//!
//! A token is only taken away by deleting what it is bound to. So a new one is bound to an empty Secret of its own
//! (TokenRequest, `boundObjectRef`), which is deleted with it; one that is bound to nothing counts until it ends by itself,
//! and is replaced by hand.

use super::{Kubevirt, VMS, refused, rows};
use crate::{
    badge::Renewed,
    driver::{clean_text, rest::Told},
    error::Fault,
    rotate::{KnownAs, Rotation, next_name},
    secret::Held,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Method};
use portcullis_domain::{Action, Secret};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use time::OffsetDateTime;

/// How long a new token is asked to last, seconds: a year. The cluster may give less.
const LASTS: u32 = 365 * 24 * 3600;
/// In how many namespaces rights are asked for.
const NAMESPACES: usize = 8;

const OF_A_POD: &str = "its token is that of a pod, which the cluster renews by itself: it needs no rotation";
const UNBOUND: &str = "its token is bound to nothing, so it could not be taken away: have one made that is bound to a \
                       secret (kubectl create token ACCOUNT --bound-object-kind Secret --bound-object-name SECRET)";
const NO_TOKEN: &str = "its certificate is signed by whoever keeps the cluster's authority, and no API takes one back: have \
                        another one signed there";

/// The token of a service account; a file with it is written anew as it is renewed.
pub(super) struct Token {
    pub(super) held: Arc<Held>,
    pub(super) badge: Arc<Renewed>,
}

impl Token {
    pub(super) fn read(&self) -> Result<(), Fault> {
        let token = self.held.fresh()?;
        self.badge.set(authorization(&token), None);
        Ok(())
    }
}

/// The header that shows the token, if it is one (RFC 6750 section 2.1).
pub(super) fn authorization(token: &Secret) -> Option<HeaderValue> {
    let text = token.expose_text()?;
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b));
    is_plain.then(|| HeaderValue::from_str(&format!("Bearer {text}")).ok())?
}

/// What a token says of itself (JSON Web Account; its signature is the cluster's to check). Bound tokens, and those of
/// Secrets of the type `kubernetes.io/service-account-token`, say it in words of their own.
#[derive(Default, Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    exp: Option<i64>,
    #[serde(rename = "kubernetes.io", default)]
    bound: Bound,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    secret: String,
}

#[derive(Default, Deserialize)]
struct Bound {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    serviceaccount: Named,
    secret: Option<Named>,
    pod: Option<Named>,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

/// Whose token it is, and what the token is bound to.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    namespace: String,
    name: String,
    /// The Secret whose end is its own.
    secret: Option<String>,
    is_of_pod: bool,
    ends_at: Option<OffsetDateTime>,
}

impl Account {
    fn read(secret: &Secret) -> Option<Self> {
        let payload = secret.expose_text()?.split('.').nth(1)?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let either = |one: String, other: String| if one.is_empty() { other } else { one };
        let secret = either(claims.bound.secret.unwrap_or_default().name, claims.secret);
        let namespace = either(claims.bound.namespace, claims.namespace);
        let account = either(claims.bound.serviceaccount.name, claims.account);
        let is_whole = claims.sub == format!("system:serviceaccount:{namespace}:{account}");
        // They go into addresses.
        let is_name = |name: &String| rows::is_name(name);
        (is_whole && is_name(&namespace) && is_name(&account)).then_some(Self {
            namespace,
            name: account,
            secret: Some(secret).filter(is_name),
            is_of_pod: claims.bound.pod.is_some(),
            ends_at: claims.exp.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
        })
    }
}

#[derive(Deserialize)]
struct Rules {
    status: RulesStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RulesStatus {
    #[serde(default)]
    resource_rules: Vec<Rule>,
    #[serde(default)]
    incomplete: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    api_groups: Vec<String>,
    #[serde(default)]
    resources: Vec<String>,
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewStatus {
    user_info: UserInfo,
}

#[derive(Deserialize)]
struct UserInfo {
    username: String,
}

#[derive(Deserialize)]
struct Made {
    metadata: MadeMeta,
}

#[derive(Deserialize)]
struct MadeMeta {
    uid: String,
}

/// No `Debug`: it holds a token.
#[derive(Deserialize)]
struct Given {
    status: GivenStatus,
}

#[derive(Deserialize)]
struct GivenStatus {
    token: String,
}

/// Where machines are.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: ItemMeta,
}

#[derive(Deserialize)]
struct ItemMeta {
    namespace: String,
}

/// What a right means: one verb on one resource of one group. What reads only, and is no secret, means nothing here.
fn meaning(group: &str, resource: &str, verb: &str) -> Option<Action> {
    let is_read = matches!(verb, "get" | "list" | "watch");
    let (kind, part) = resource.split_once('/').unwrap_or((resource, ""));
    match (group, kind, part) {
        // Everything of a group that holds secrets or rights, or of all groups.
        ("*" | "" | "rbac.authorization.k8s.io", "*", _)
        | ("" | "*", "secrets", _)
        | ("" | "*", "serviceaccounts", "token") => Some(Action::AccessAdmin),
        ("" | "*", "users" | "groups" | "serviceaccounts", _) if verb == "impersonate" => Some(Action::AccessAdmin),
        ("subresources.kubevirt.io", _, "console" | "vnc") => Some(Action::ConsoleControl),
        ("subresources.kubevirt.io", _, "portforward") => Some(Action::Network),
        ("subresources.kubevirt.io", _, "usbredir" | "sev") => Some(Action::NodeAdmin),
        ("subresources.kubevirt.io", "*", _) => Some(Action::Configure),
        _ if is_read => None,
        ("rbac.authorization.k8s.io", _, _) => Some(Action::AccessAdmin),
        ("subresources.kubevirt.io", _, "migrate") | ("kubevirt.io", "virtualmachineinstancemigrations", _) => {
            Some(Action::Migrate)
        }
        ("subresources.kubevirt.io", _, "addvolume" | "removevolume" | "memorydump" | "removememorydump") => {
            Some(Action::Configure)
        }
        ("subresources.kubevirt.io", ..) => Some(Action::Power),
        ("kubevirt.io", "kubevirts" | "*", _) => Some(Action::NodeAdmin),
        ("kubevirt.io", ..) if verb == "create" => Some(Action::Create),
        ("kubevirt.io", ..) if verb.starts_with("delete") => Some(Action::Destroy),
        ("kubevirt.io" | "instancetype.kubevirt.io" | "pool.kubevirt.io", ..) => Some(Action::Configure),
        ("snapshot.kubevirt.io", ..) => Some(Action::Snapshot),
        ("clone.kubevirt.io", ..) => Some(Action::Create),
        ("cdi.kubevirt.io" | "upload.cdi.kubevirt.io" | "export.kubevirt.io", ..)
        | ("", "persistentvolumeclaims", _) => Some(Action::Storage),
        ("k8s.cni.cncf.io" | "networking.k8s.io", ..) | ("", "services" | "endpoints", _) => Some(Action::Network),
        // What asks about itself is everybody's.
        ("authorization.k8s.io" | "authentication.k8s.io", _, _) | ("", "events", _) => None,
        // Whoever may write any other thing of a cluster may run something on it, sooner or later.
        _ => Some(Action::NodeAdmin),
    }
}

/// The rights that mean something, with the verbs of each thing together.
fn powers(rules: &[Rule]) -> Vec<(Action, String)> {
    let mut all: BTreeMap<(String, &str), BTreeMap<&str, Action>> = BTreeMap::new();
    for rule in rules {
        for (group, resource) in rule.api_groups.iter().flat_map(|g| rule.resources.iter().map(move |r| (g, r))) {
            let thing = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            for verb in &rule.verbs {
                if let Some(action) = meaning(group, resource, verb) {
                    all.entry((thing.clone(), action.word())).or_default().insert(verb, action);
                }
            }
        }
    }
    let told = all.into_iter().filter_map(|((thing, _), verbs)| {
        let action = verbs.values().next().copied()?;
        let verbs: Vec<&str> = verbs.into_keys().collect();
        Some((action, clean_text(&format!("{} {thing}", verbs.join(",")))))
    });
    told.collect()
}

impl Kubevirt {
    async fn make<T: DeserializeOwned>(&self, target: &str, body: &Value) -> Result<T, Fault> {
        let Told { status, text, .. } = self.ask(Method::POST, target, Some(body.to_string())).await?;
        if !status.is_success() {
            return Err(refused(status.as_u16(), &text));
        }
        // Its place and not its text: it may hold a token.
        let wrong =
            |e: serde_json::Error| Fault::Protocol(format!("an answer of another shape, at column {}", e.column()));
        serde_json::from_slice(&text).map_err(wrong)
    }

    fn own_token(&self) -> Result<Option<Account>, Fault> {
        let Some(token) = &self.token else { return Ok(None) };
        Ok(Account::read(&*token.held.value()?))
    }

    pub(super) async fn own_standing(&self) -> Result<KnownAs, Fault> {
        self.renew();
        let token = self.own_token()?;
        // Older clusters (before 1.28) do not say who asks; the token does, if it counts.
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let who = self.make::<Review>("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await;
        let named = token.as_ref().map(|t| format!("system:serviceaccount:{}:{}", t.namespace, t.name));
        let who = who.ok().map(|r| clean_text(&r.status.user_info.username)).or(named);
        let who = who.unwrap_or_else(|| "its certificate".to_owned());
        let mut spaces: BTreeSet<String> = token.iter().map(|t| t.namespace.clone()).collect();
        if spaces.is_empty() {
            spaces.insert("default".to_owned());
        }
        if let Ok(page) = self.read::<Page>(&format!("{VMS}?limit=500")).await {
            let found = page.items.into_iter().map(|i| i.metadata.namespace).filter(|n| rows::is_name(n));
            spaces.extend(found.collect::<BTreeSet<_>>().into_iter().take(NAMESPACES));
        }
        let (mut rules, mut is_incomplete) = (Vec::new(), false);
        for space in &spaces {
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": space },
            });
            let told: Rules = self.make("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review).await?;
            is_incomplete |= told.status.incomplete;
            rules.extend(told.status.resource_rules);
        }
        let mut known = KnownAs::new(who, powers(&rules));
        known.ends_at = token.and_then(|t| t.ends_at);
        known.untold = is_incomplete.then(|| "the cluster tells only a part of it".to_owned());
        Ok(known)
    }

    pub(super) fn own_rotation(&self) -> Result<Rotation, Fault> {
        if self.token.is_none() {
            return Ok(Rotation::ByHand(NO_TOKEN));
        }
        Ok(match self.own_token()? {
            Some(token) if token.is_of_pod => Rotation::ByHand(OF_A_POD),
            Some(Account { secret: Some(_), .. }) => Rotation::Made,
            Some(_) | None => Rotation::ByHand(UNBOUND),
        })
    }

    /// A token of the same account, bound to a Secret of its own.
    pub(super) async fn make_token(&self) -> Result<Secret, Fault> {
        self.renew();
        let own = self.own_token()?.ok_or_else(|| Fault::Unsupported(UNBOUND.to_owned()))?;
        let bound = own.secret.ok_or_else(|| Fault::Unsupported(UNBOUND.to_owned()))?;
        let (name, secrets) = (next_name(&bound), format!("/api/v1/namespaces/{}/secrets", own.namespace));
        let body = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": name, "annotations": { "portcullis": "its end is that of the gateway's token" } },
        });
        let made: Made = self.make(&secrets, &body).await?;
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "expirationSeconds": LASTS, "boundObjectRef": {
                "kind": "Secret", "apiVersion": "v1", "name": name, "uid": made.metadata.uid,
            }},
        });
        let target = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", own.namespace, own.name);
        let token = match self.make::<Given>(&target, &body).await {
            Ok(given) => Ok(Secret::from(given.status.token)),
            Err(fault) => Err(fault),
        };
        let is_it = |token: &Secret| Account::read(token).is_some_and(|t| t.secret.as_deref() == Some(name.as_str()));
        match token {
            Ok(token) if is_it(&token) && authorization(&token).is_some() => Ok(token),
            other => {
                let _ = self.delete(&format!("{secrets}/{name}")).await;
                Err(other.err().unwrap_or_else(|| Fault::Protocol("a new token that is none".to_owned())))
            }
        }
    }

    async fn delete(&self, target: &str) -> Result<(), Fault> {
        let Told { status, text, .. } = self.ask(Method::DELETE, target, None).await?;
        if status.is_success() { Ok(()) } else { Err(refused(status.as_u16(), &text)) }
    }

    /// Deletes what a token is bound to.
    pub(super) async fn retire_token(&self, old: &Secret) -> Result<(), Fault> {
        self.renew();
        let (own, old) = (self.own_token()?, Account::read(old));
        let Some(Account { namespace, secret: Some(secret), .. }) = old else {
            return Err(Fault::Unsupported(
                "the token is bound to nothing: it counts until it ends by itself".to_owned(),
            ));
        };
        if own.is_some_and(|own| own.namespace == namespace && own.secret.as_ref() == Some(&secret)) {
            return Err(Fault::Refused("it is the token in use".to_owned()));
        }
        self.delete(&format!("/api/v1/namespaces/{namespace}/secrets/{secret}")).await
    }

    /// What a token is bound to, for people.
    pub(super) fn label_of(token: &Secret) -> Option<String> {
        let token = Account::read(token)?;
        let secret = token.secret?;
        Some(format!("the token of the secret {}/{secret}", token.namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &Value) -> Secret {
        Secret::from(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string())))
    }

    #[test]
    fn a_token_says_whose_it_is_and_what_it_is_bound_to_in_both_forms() {
        let bound = token(&json!({
            "sub": "system:serviceaccount:infra:gateway", "exp": 1_900_000_000,
            "kubernetes.io": { "namespace": "infra", "serviceaccount": { "name": "gateway" }, "secret": { "name": "gw-1" } },
        }));
        let found = Account::read(&bound).unwrap();
        assert_eq!((found.namespace.as_str(), found.name.as_str()), ("infra", "gateway"));
        assert_eq!((found.secret.as_deref(), found.is_of_pod), (Some("gw-1"), false));
        assert_eq!(found.ends_at.map(OffsetDateTime::unix_timestamp), Some(1_900_000_000));
        let old = token(&json!({
            "sub": "system:serviceaccount:infra:gateway", "kubernetes.io/serviceaccount/namespace": "infra",
            "kubernetes.io/serviceaccount/secret.name": "gateway-token",
            "kubernetes.io/serviceaccount/service-account.name": "gateway",
        }));
        let found = Account::read(&old).unwrap();
        assert_eq!((found.secret.as_deref(), found.ends_at), (Some("gateway-token"), None));
        let pod = token(&json!({
            "sub": "system:serviceaccount:infra:gateway",
            "kubernetes.io": { "namespace": "infra", "serviceaccount": { "name": "gateway" }, "pod": { "name": "p" } },
        }));
        let found = Account::read(&pod).unwrap();
        assert!(found.is_of_pod && found.secret.is_none());
    }

    #[test]
    fn a_token_that_points_somewhere_else_is_none() {
        for claims in [
            json!({ "sub": "system:serviceaccount:infra:gateway" }),
            json!({ "sub": "system:serviceaccount:infra:other",
                "kubernetes.io": { "namespace": "infra", "serviceaccount": { "name": "gateway" } } }),
            json!({ "sub": "system:serviceaccount:../x:gateway",
                "kubernetes.io": { "namespace": "../x", "serviceaccount": { "name": "gateway" } } }),
            json!([1]),
        ] {
            assert_eq!(Account::read(&token(&claims)), None, "{claims}");
        }
        let odd = token(&json!({
            "sub": "system:serviceaccount:infra:gateway",
            "kubernetes.io": { "namespace": "infra", "serviceaccount": { "name": "gateway" }, "secret": { "name": "a/b" } },
        }));
        assert_eq!(Account::read(&odd).unwrap().secret, None);
        for text in ["", "a.b.c", "opaque"] {
            assert_eq!(Account::read(&Secret::from(text.to_owned())), None, "{text}");
        }
    }

    #[test]
    fn what_a_right_means_is_told_by_its_thing_and_verb() {
        for (group, resource, verb, action) in [
            ("*", "*", "*", Some(Action::AccessAdmin)),
            ("", "*", "get", Some(Action::AccessAdmin)),
            ("", "secrets", "list", Some(Action::AccessAdmin)),
            ("", "serviceaccounts/token", "create", Some(Action::AccessAdmin)),
            ("rbac.authorization.k8s.io", "rolebindings", "create", Some(Action::AccessAdmin)),
            ("rbac.authorization.k8s.io", "rolebindings", "list", None),
            ("", "pods/exec", "create", Some(Action::NodeAdmin)),
            ("apps", "deployments", "patch", Some(Action::NodeAdmin)),
            ("", "pods", "list", None),
            ("subresources.kubevirt.io", "virtualmachineinstances/vnc", "get", Some(Action::ConsoleControl)),
            ("subresources.kubevirt.io", "virtualmachines/start", "update", Some(Action::Power)),
            ("subresources.kubevirt.io", "virtualmachines/migrate", "update", Some(Action::Migrate)),
            ("subresources.kubevirt.io", "virtualmachineinstances/guestosinfo", "get", None),
            ("kubevirt.io", "virtualmachines", "watch", None),
            ("kubevirt.io", "virtualmachines", "create", Some(Action::Create)),
            ("kubevirt.io", "virtualmachines", "deletecollection", Some(Action::Destroy)),
            ("kubevirt.io", "virtualmachines", "patch", Some(Action::Configure)),
            ("authorization.k8s.io", "selfsubjectaccessreviews", "create", None),
        ] {
            assert_eq!(meaning(group, resource, verb), action, "{verb} {resource}.{group}");
        }
        let rule = |verbs: &[&str], group: &str, resource: &str| Rule {
            verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
            api_groups: vec![group.to_owned()],
            resources: vec![resource.to_owned()],
        };
        let told = powers(&[rule(&["get", "create"], "", "secrets"), rule(&["list", "get"], "", "secrets")]);
        assert_eq!(told, [(Action::AccessAdmin, "create,get,list secrets".to_owned())]);
    }
}
