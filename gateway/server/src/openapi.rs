// SPDX-License-Identifier: Apache-2.0
//! The description of our own doors for programs, as OpenAPI. It is a file that is read and reviewed; the tests here hold
//! it against the table of routes, and `tests/journeys/scripts.rs` holds it against what the doors answer.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};

/// The document.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

/// Serves it.
pub(crate) async fn serve() -> Response {
    let mut answer = DOCUMENT.into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_policy::classify::own::{Door, OwnRoute, ROUTES};
    use serde_json::Value;
    use std::collections::{BTreeMap, BTreeSet};

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    /// Method and path of everything that is described, with what is said of it.
    fn described(document: &Value) -> BTreeMap<(String, String), Value> {
        let paths = document["paths"].as_object().unwrap();
        let each = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            methods.iter().map(move |(method, said)| ((method.to_uppercase(), path.clone()), said.clone()))
        });
        each.collect()
    }

    fn doors() -> impl Iterator<Item = &'static OwnRoute> {
        ROUTES.iter().filter(|r| r.pattern.starts_with("/api/"))
    }

    #[test]
    fn each_door_for_programs_is_described_and_nothing_else_is() {
        let document = document();
        let said: BTreeSet<_> = described(&document).into_keys().collect();
        let are: BTreeSet<_> = doors().map(|r| (r.method.to_owned(), r.pattern.to_owned())).collect();
        assert_eq!(said, are);
    }

    #[test]
    fn what_is_said_of_a_door_fits_it() {
        let document = document();
        let described = described(&document);
        let mut ids = BTreeSet::new();
        for route in doors() {
            let said = &described[&(route.method.to_owned(), route.pattern.to_owned())];
            let id = said["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} stands twice");
            let in_path = |p: &&str| p.starts_with('{');
            let wanted: Vec<String> =
                route.pattern.split('/').filter(in_path).map(|p| p.trim_matches(['{', '}']).to_owned()).collect();
            let none = Vec::new();
            let told = said["parameters"].as_array().unwrap_or(&none).iter().filter(|p| p["in"] == "path");
            let told: Vec<String> = told.map(|p| p["name"].as_str().unwrap().to_owned()).collect();
            assert_eq!(told, wanted, "{id}");
            // Whoever is nobody needs nothing; whoever changes something proves where it comes from.
            let security = match route.door {
                Door::Stranger => serde_json::json!([]),
                _ if route.method == "POST" => serde_json::json!([{ "session": [], "csrf": [] }]),
                _ => Value::Null,
            };
            assert_eq!(said["security"], security, "{id}");
            assert!(said["responses"]["default"].is_object() && said["summary"].is_string(), "{id}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|v| references(v, found));
                }
                Value::Array(items) => items.iter().for_each(|v| references(v, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for place in &found {
            assert!(document.pointer(place.trim_start_matches('#')).is_some(), "{place}");
        }
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            assert!(found.contains(&format!("#/components/schemas/{name}")), "{name} is used nowhere");
        }
    }
}
