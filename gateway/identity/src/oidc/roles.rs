// SPDX-License-Identifier: Apache-2.0
//! From claims to roles, by the table of the configuration and nothing else.

use super::{Flaw, ProviderSettings, RoleRule};
use portcullis_domain::{Grant, GrantEffect, GrantId, GrantSource};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use time::OffsetDateTime;

/// More values than this in one claim are not read.
const MOST_VALUES: usize = 2_000;

/// The values of one claim: one text, or a list of texts. Anything else is not understood, and what is not understood
/// gives nothing to anybody.
fn values<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<HashSet<&'c str>, Flaw> {
    // The provider says that the list is elsewhere (OpenID Connect Core 1.0 section 5.6.2): it has too many entries.
    let elsewhere = claims.get("_claim_names").is_some_and(|names| names.get(name).is_some() || !names.is_object());
    let hinted = claims.get("hasgroups").is_some_and(|has| *has != Value::Bool(false)) && !claims.contains_key(name);
    if elsewhere || hinted {
        return Err(Flaw::Overage);
    }
    match claims.get(name) {
        None => Ok(HashSet::new()),
        Some(Value::String(one)) => Ok(HashSet::from([one.as_str()])),
        Some(Value::Array(many)) if many.len() <= MOST_VALUES => {
            many.iter().map(|value| value.as_str().ok_or(Flaw::WrongType)).collect()
        }
        Some(Value::Array(_)) => Err(Flaw::Overage),
        Some(_) => Err(Flaw::WrongType),
    }
}

impl ProviderSettings {
    /// The rows that a set of claims answers to, each role on each thing once. An error when a claim that the table
    /// asks about has another shape than a text or a list of texts, or is kept elsewhere: then nobody comes in.
    pub fn roles_for(&self, claims: &Map<String, Value>) -> Result<Vec<&RoleRule>, Flaw> {
        let mut read = HashMap::new();
        for rule in &self.roles {
            let claim = self.claim_of(rule);
            if !read.contains_key(claim) {
                read.insert(claim, values(claims, claim)?);
            }
        }
        let mut found: Vec<&RoleRule> = Vec::new();
        for rule in &self.roles {
            let answers = read.get(self.claim_of(rule)).is_some_and(|values| values.contains(rule.value.as_str()));
            let gives = |f: &&RoleRule| f.role == rule.role && f.on == rule.on && f.conditions() == rule.conditions();
            if answers && !found.iter().any(gives) {
                found.push(rule);
            }
        }
        Ok(found)
    }

    /// Whether the table asks about a claim that is missing: then the provider's other source is worth a question.
    pub(super) fn lacks_claims(&self, claims: &Map<String, Value>) -> bool {
        self.roles.iter().any(|rule| !claims.contains_key(self.claim_of(rule)))
    }
}

/// Rows as grants from now until revoked.
pub(super) fn grants(
    rules: &[&RoleRule],
    now: OffsetDateTime,
    mut id: impl FnMut() -> Result<GrantId, crate::Error>,
) -> Result<Vec<Grant>, crate::Error> {
    let grant = |rule: &&RoleRule| {
        Ok(Grant {
            id: id()?,
            role: rule.role.clone(),
            selector: rule.on.0.clone(),
            from: now,
            until: None,
            conditions: rule.conditions(),
            source: GrantSource::IdentityProvider,
            effect: GrantEffect::Allow,
        })
    };
    rules.iter().map(grant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn provider() -> ProviderSettings {
        serde_json::from_value(json!({
            "name": "corp", "title": "Example", "issuer": "https://id.example", "client_id": "g",
            "roles": [
                {"value": "vm-admins", "role": "operator", "on": "everything"},
                {"value": "ops", "role": "operator", "on": "everything"},
                {"value": "ops", "role": "viewer", "on": "tag web", "record": false},
                {"claim": "department", "value": "audit", "role": "auditor", "on": "everything"},
            ],
        }))
        .unwrap()
    }

    fn roles(claims: Value) -> Result<Vec<String>, Flaw> {
        let provider = provider();
        let Value::Object(claims) = claims else { panic!("an object") };
        let found = provider.roles_for(&claims)?;
        Ok(found.iter().map(|r| format!("{} on {}", r.role, r.on.0)).collect())
    }

    // SEC-099
    #[test]
    fn a_claim_gives_what_the_table_says_and_nothing_else_gives_anything() {
        assert_eq!(
            roles(json!({"groups": ["vm-admins", "ops"]})).unwrap(),
            ["operator on everything", "viewer on tag web"]
        );
        assert_eq!(roles(json!({"groups": "vm-admins"})).unwrap(), ["operator on everything"]);
        assert_eq!(roles(json!({"department": "audit", "groups": []})).unwrap(), ["auditor on everything"]);
        for nothing in [
            json!({}),
            json!({"groups": ["VM-ADMINS", "vm-admin", "vm-admins ", "audit", ""]}),
            json!({"department": "vm-admins"}),
            json!({"roles": ["vm-admins"]}),
            json!({"hasgroups": false}),
        ] {
            assert_eq!(roles(nothing.clone()).unwrap(), [""; 0], "{nothing}");
        }
    }

    // SEC-099
    #[test]
    fn groups_of_another_type_or_kept_elsewhere_let_nobody_in() {
        for wrong in [
            json!({"groups": {"vm-admins": true}}),
            json!({"groups": true}),
            json!({"groups": null}),
            json!({"groups": 1}),
            json!({"groups": ["vm-admins", 1]}),
            json!({"groups": [["vm-admins"]]}),
            json!({"groups": ["vm-admins"], "department": 5}),
        ] {
            assert_eq!(roles(wrong.clone()), Err(Flaw::WrongType), "{wrong}");
        }
        for elsewhere in [
            json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://x"}}}),
            json!({"_claim_names": {"groups": "src1"}, "groups": ["vm-admins"]}),
            json!({"_claim_names": "groups", "groups": ["vm-admins"]}),
            json!({"hasgroups": true}),
            json!({"hasgroups": "true"}),
            json!({"groups": vec!["x"; MOST_VALUES + 1]}),
        ] {
            assert_eq!(roles(elsewhere.clone()), Err(Flaw::Overage), "{elsewhere}");
        }
    }
}
