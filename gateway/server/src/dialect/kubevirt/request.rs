// SPDX-License-Identifier: Apache-2.0
//! A request as it goes to the cluster: what of it is read, and what is written anew.

use crate::{body::Sent, reply::Refusal};
use http::{HeaderMap, HeaderValue, Request, Uri, header, uri::PathAndQuery};
use portcullis_policy::classify::{self, Canonical};
use std::fmt::Write as _;

/// What of the query and the head goes to the cluster: written anew.
pub(super) fn rewrite(request: &mut Request<Sent>, path: &str, more: &[(&str, &str)]) -> Result<(), Refusal> {
    let bad = |why: &str| Refusal::Bad(why.to_owned());
    let pairs = classify::read_pairs(request.uri().query()).map_err(bad)?;
    let said = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    // Ours counts, whatever was said under its name.
    let kept = said.filter(|(key, _)| !more.iter().any(|(ours, _)| ours == key));
    let mut address = path.to_owned();
    for (n, (key, value)) in kept.chain(more.iter().copied()).enumerate() {
        address.push(if n == 0 { '?' } else { '&' });
        encode(key, &mut address);
        address.push('=');
        encode(value, &mut address);
    }
    let address = PathAndQuery::try_from(address).map_err(|_| bad("The address cannot be sent on."))?;
    *request.uri_mut() = Uri::from(address);
    Ok(())
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Leaves what can be read and cut of what a client accepts: JSON, also as a table and as a list of groups.
pub(super) fn negotiate(headers: &mut HeaderMap) -> Shape {
    let said = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let is_read = |one: &&str| {
        let mut parts = one.split(';').map(str::trim);
        let is_json = parts.next().is_some_and(|t| t.eq_ignore_ascii_case("application/json"));
        is_json && parts.all(|p| p.is_ascii() && !p.starts_with("as=Partial"))
    };
    let mut accepted: Vec<&str> = said.map(str::trim).filter(is_read).collect();
    let shape = if accepted.iter().any(|a| a.contains("as=Table")) { Shape::Table } else { Shape::Objects };
    if !accepted.contains(&"application/json") {
        accepted.push("application/json");
    }
    let value = HeaderValue::from_str(&accepted.join(",")).unwrap_or(HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, value);
    headers.remove(header::ACCEPT_ENCODING);
    shape
}

/// The description of the API that kubectl checks manifests with before it sends them, in the one form that it takes
/// (gnostic's OpenAPIv2.proto): a title, and not one kind of object. What stands in no description is left to the cluster
/// to check, and which kinds there are beside KubeVirt's is nobody's to read here.
pub(super) const DESCRIPTION: &[u8] = b"\x0a\x032.0\x12\x0f\x0a\x0aKubernetes\x12\x01-\x42\x00";

/// The media type of that form, where a client takes no other. Clients write it with an `@`, which no answer may.
pub(super) fn packed_description(path: &Canonical, headers: &HeaderMap) -> Option<HeaderValue> {
    const FORM: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    const FORMS: [&str; 2] = [FORM, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];
    let mut said = headers.get_all(header::ACCEPT).iter();
    let (Some(one), None, "/openapi/v2") = (said.next(), said.next(), path.as_str()) else { return None };
    let is_asked = FORMS.into_iter().any(|form| one.as_bytes() == form.as_bytes());
    is_asked.then_some(HeaderValue::from_static(FORM))
}

/// In which shape a client wants objects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Objects,
    Table,
}

/// Whether a query asks for something, as the cluster reads it; none where readers differ.
pub(super) fn asks(pairs: &[(String, String)], name: &str) -> Option<bool> {
    let value = pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_ascii_lowercase());
    match value.as_deref() {
        None | Some("0" | "false") => Some(false),
        Some("" | "1" | "true") => Some(true),
        Some(_) => None,
    }
}

/// Whether there are many objects at a path.
pub(super) fn is_list(path: &Canonical) -> bool {
    let parts: Vec<&str> = path.segments().collect();
    match parts.as_slice() {
        ["apis", _, _, resource] => *resource != "namespaces",
        ["apis", group, _, "namespaces", _, _] => *group != "subresources.kubevirt.io",
        _ => false,
    }
}
