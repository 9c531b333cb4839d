// SPDX-License-Identifier: Apache-2.0
//! What a directory sends and gets: the parts of the User resource that mean something here (RFC 7643 section 4.1). What
//! else it sends is not kept.

use crate::{reply::Refusal, state::House};
use portcullis_domain::{MailAddress, UserId};
use portcullis_store::{DirectoryGroup, Provisioned};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use time::format_description::well_known::Rfc3339;

pub(super) const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// Where mail is to reach somebody.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum MailWish {
    /// The directory says nothing.
    #[default]
    AsItIs,
    /// Nowhere.
    Nowhere,
    /// Here.
    At(MailAddress),
}

/// What is wanted of somebody; none: as it is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) user_name: Option<String>,
    pub(super) display: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) active: Option<bool>,
    pub(super) mail: MailWish,
}

/// The address of a list of them (RFC 7643 section 4.1.2): the primary one, or the only one. What is no address that mail
/// can be sent to is none: a directory is not refused for it.
fn primary(value: &Value) -> MailWish {
    let text = |one: &Value| one.get("value").and_then(Value::as_str).or(one.as_str()).map(str::to_owned);
    let found = match value {
        Value::Array(all) => {
            let primary = all.iter().find(|one| one.get("primary").is_some_and(|p| truth(p).unwrap_or(false)));
            primary.or_else(|| all.first().filter(|_| all.len() == 1)).and_then(text)
        }
        other => text(other),
    };
    found.and_then(|text| text.trim().parse().ok()).map_or(MailWish::Nowhere, MailWish::At)
}

fn bad(why: &str) -> Refusal {
    Refusal::Bad(why.to_owned())
}

/// A truth value, also as some directories write it: `"False"`.
fn truth(value: &Value) -> Result<bool, Refusal> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(bad("active is true or false.")),
    }
}

/// The fields of a whole resource of a schema.
fn fields(body: &[u8], schema: &str) -> Result<Map<String, Value>, Refusal> {
    let value: Value = serde_json::from_slice(body).map_err(|_| bad("The body is no JSON."))?;
    let Value::Object(fields) = value else { return Err(bad("The body is no resource.")) };
    let schemas = fields.get("schemas").and_then(Value::as_array);
    if schemas.is_some_and(|s| s.iter().any(|s| s == schema)) {
        return Ok(fields);
    }
    let kind = schema.rsplit(':').next().unwrap_or_default();
    Err(Refusal::Bad(format!("schemas does not name the {kind} schema.")))
}

fn text(name: &str, value: &Value) -> Result<Option<String>, Refusal> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(Refusal::Bad(format!("{name} is a text."))),
    }
}

impl Wanted {
    /// Takes one attribute, whose name is compared without regard to case (RFC 7643 section 2.1).
    fn take(&mut self, name: &str, value: &Value) -> Result<(), Refusal> {
        let name = name.strip_prefix(USER).map_or(name, |rest| rest.trim_start_matches(':'));
        match name.to_ascii_lowercase().as_str() {
            "username" => self.user_name = text("userName", value)?,
            "displayname" => self.display = text("displayName", value)?.or(self.display.take()),
            "name.formatted" if self.display.is_none() => self.display = text("name.formatted", value)?,
            "name" if self.display.is_none() => {
                let part = |key: &str| value.get(key).and_then(Value::as_str).map(str::trim).filter(|t| !t.is_empty());
                let both = [part("givenName"), part("familyName")].into_iter().flatten().collect::<Vec<_>>().join(" ");
                self.display = part("formatted").map(str::to_owned).or_else(|| (!both.is_empty()).then_some(both));
            }
            "externalid" => self.external_id = text("externalId", value)?,
            "active" => self.active = Some(truth(value)?),
            "emails" => self.mail = primary(value),
            // A path with a filter, as some directories write: `emails[type eq "work"].value`.
            path if path.starts_with("emails[") && path.ends_with("].value") => self.mail = primary(value),
            // Groups, roles and all else: it gives nothing here, and is not kept.
            _ => {}
        }
        Ok(())
    }

    /// A whole resource.
    pub(super) fn resource(body: &[u8]) -> Result<Self, Refusal> {
        let fields = fields(body, USER)?;
        let mut wanted = Self::default();
        // displayName before name: what is shown to people is what the directory shows.
        for key in ["displayName", "displayname"] {
            if let Some(value) = fields.get(key) {
                wanted.take(key, value)?;
            }
        }
        for (key, value) in &fields {
            wanted.take(key, value)?;
        }
        Ok(wanted)
    }

    /// A list of changes (RFC 7644 section 3.5.2): `add` and `replace`, with a path or without.
    pub(super) fn patch(body: &[u8]) -> Result<Self, Refusal> {
        let patch = Patch::read(body)?;
        let mut wanted = Self::default();
        for change in patch.operations {
            let removes = match change.op.to_ascii_lowercase().as_str() {
                "add" | "replace" => false,
                "remove" => true,
                _ => return Err(bad("op is add, replace or remove.")),
            };
            match change.path {
                Some(path) if removes => {
                    if ["active", "username"].contains(&path.to_ascii_lowercase().as_str()) {
                        return Err(bad("active and userName cannot be removed."));
                    }
                    if path.eq_ignore_ascii_case("externalId") {
                        wanted.external_id = Some(String::new());
                    }
                    if path.to_ascii_lowercase().starts_with("emails") {
                        wanted.mail = MailWish::Nowhere;
                    }
                }
                Some(path) => wanted.take(&path, &change.value)?,
                None if removes => return Err(bad("remove needs a path.")),
                None => {
                    let fields = change.value.as_object().ok_or_else(|| bad("A change without a path has a value."))?;
                    for (key, value) in fields {
                        wanted.take(key, value)?;
                    }
                }
            }
        }
        Ok(wanted)
    }
}

/// What a list is limited to: `attribute eq "value"`, the one filter that directories need (RFC 7644 section 3.4.2.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filter {
    UserName(String),
    ExternalId(String),
    Id(String),
}

impl Filter {
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let wrong = || bad("The filter is one of userName, externalId or id, then eq, then a text in quotation marks.");
        let (name, rest) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let (op, value) = rest.trim_start().split_once(' ').ok_or_else(wrong)?;
        let value: String = serde_json::from_str(value.trim()).map_err(|_| wrong())?;
        if !op.eq_ignore_ascii_case("eq") {
            return Err(wrong());
        }
        match name.to_ascii_lowercase().as_str() {
            "username" => Ok(Self::UserName(value)),
            "externalid" => Ok(Self::ExternalId(value)),
            "id" => Ok(Self::Id(value)),
            _ => Err(wrong()),
        }
    }

    /// Whether somebody passes; userName is compared without regard to case (RFC 7643 section 4.1.1).
    pub(super) fn passes(&self, of: &Provisioned) -> bool {
        match self {
            Self::UserName(name) => of.user.name.to_lowercase() == name.to_lowercase(),
            Self::ExternalId(id) => of.external_id.as_ref() == Some(id),
            Self::Id(id) => of.user.id.to_string() == *id,
        }
    }
}

/// Somebody, as the directory gets them.
pub(super) fn resource(house: &House, of: &Provisioned) -> Value {
    let id = of.user.id.to_string();
    let mut value = json!({
        "schemas": [USER], "id": id, "userName": of.user.name, "displayName": of.user.display_name,
        "active": of.user.disabled_at.is_none(),
        "meta": {
            "resourceType": "User",
            "created": of.user.created_at.format(&Rfc3339).unwrap_or_default(),
            "location": location(house, "Users", &id),
        },
    });
    let fields = value.as_object_mut();
    if let Some(fields) = fields {
        fields.extend(of.external_id.as_ref().map(|id| ("externalId".to_owned(), id.as_str().into())));
        let mail = |address: &MailAddress| json!([{ "value": address, "primary": true }]);
        fields.extend(of.mail.as_ref().map(|address| ("emails".to_owned(), mail(address))));
    }
    value
}

pub(super) fn location(house: &House, kind: &str, id: &str) -> String {
    format!("{}/scim/v2/{kind}/{id}", house.origin)
}

/// A group, as the directory gets it.
pub(super) fn group(house: &House, of: &DirectoryGroup) -> Value {
    let id = of.id.to_string();
    let members: Vec<Value> = of
        .members
        .iter()
        .map(|m| json!({ "value": m.to_string(), "$ref": location(house, "Users", &m.to_string()), "type": "User" }))
        .collect();
    let mut value = json!({
        "schemas": [GROUP], "id": id, "displayName": of.name, "members": members,
        "meta": {
            "resourceType": "Group",
            "created": of.created_at.format(&Rfc3339).unwrap_or_default(),
            "location": location(house, "Groups", &id),
        },
    });
    if let (Some(external), Some(fields)) = (&of.external_id, value.as_object_mut()) {
        fields.insert("externalId".into(), external.as_str().into());
    }
    value
}

/// The name that a list of groups is limited to.
pub(super) fn group_filter(text: &str) -> Result<String, Refusal> {
    let wrong = || bad("The filter is displayName eq, then a text in quotation marks.");
    let (name, rest) = text.trim().split_once(' ').ok_or_else(wrong)?;
    let (op, value) = rest.trim_start().split_once(' ').ok_or_else(wrong)?;
    if !name.eq_ignore_ascii_case("displayName") || !op.eq_ignore_ascii_case("eq") {
        return Err(wrong());
    }
    serde_json::from_str(value.trim()).map_err(|_| wrong())
}

/// One change of who is in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Members {
    Add(Vec<String>),
    Remove(Vec<String>),
    Replace(Vec<String>),
    Clear,
}

impl Members {
    /// Makes it. An id that cannot be one is refused where somebody is to be added, and is in no group anyway.
    pub(super) fn make(self, members: &mut BTreeSet<UserId>) -> Result<(), Refusal> {
        let read = |ids: Vec<String>| -> Result<BTreeSet<UserId>, Refusal> {
            ids.iter().map(|id| id.parse().map_err(|_| bad("A member is no id of a user."))).collect()
        };
        match self {
            Self::Add(ids) => members.extend(read(ids)?),
            Self::Replace(ids) => *members = read(ids)?,
            Self::Remove(ids) => members.retain(|m| !ids.contains(&m.to_string())),
            Self::Clear => members.clear(),
        }
        Ok(())
    }
}

/// What is wanted of a group; none: as it is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct GroupWish {
    pub(super) name: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) members: Vec<Members>,
}

/// The ids in a list of members, or in one member.
fn ids(value: &Value) -> Result<Vec<String>, Refusal> {
    let one = |v: &Value| {
        let id = v.get("value").and_then(Value::as_str).or(v.as_str());
        id.map(str::to_owned).ok_or_else(|| bad("A member has a value: the id of a user."))
    };
    match value {
        Value::Array(all) => all.iter().map(one).collect(),
        Value::Null => Ok(Vec::new()),
        other => one(other).map(|id| vec![id]),
    }
}

impl GroupWish {
    fn take(&mut self, name: &str, value: &Value) -> Result<(), Refusal> {
        let name = name.strip_prefix(GROUP).map_or(name, |rest| rest.trim_start_matches(':'));
        match name.to_ascii_lowercase().as_str() {
            "displayname" => self.name = text("displayName", value)?,
            "externalid" => self.external_id = text("externalId", value)?,
            _ => {}
        }
        Ok(())
    }

    /// A whole group.
    pub(super) fn resource(body: &[u8]) -> Result<Self, Refusal> {
        let fields = fields(body, GROUP)?;
        let mut wish = Self::default();
        for (key, value) in &fields {
            wish.take(key, value)?;
            if key.eq_ignore_ascii_case("members") {
                wish.members.push(Members::Replace(ids(value)?));
            }
        }
        Ok(wish)
    }

    /// A list of changes: of the name, and of who is in it (RFC 7644 section 3.5.2).
    pub(super) fn patch(body: &[u8]) -> Result<Self, Refusal> {
        let patch = Patch::read(body)?;
        let mut wish = Self::default();
        for Change { op, path, value } in patch.operations {
            let op = op.to_ascii_lowercase();
            let path = path.unwrap_or_default();
            // members[value eq "ID"]
            let one = path
                .strip_prefix("members[")
                .and_then(|rest| rest.strip_suffix(']'))
                .and_then(|inside| inside.trim().strip_prefix("value eq "))
                .and_then(|id| serde_json::from_str::<String>(id.trim()).ok());
            match (op.as_str(), path.as_str(), one) {
                ("remove", _, Some(id)) => wish.members.push(Members::Remove(vec![id])),
                ("remove", "members", None) if value.is_null() => wish.members.push(Members::Clear),
                ("remove", "members", None) => wish.members.push(Members::Remove(ids(&value)?)),
                ("add", "members", None) => wish.members.push(Members::Add(ids(&value)?)),
                ("replace", "members", None) => wish.members.push(Members::Replace(ids(&value)?)),
                ("add" | "replace", "", None) => {
                    let fields = value.as_object().ok_or_else(|| bad("A change without a path has a value."))?;
                    for (key, value) in fields {
                        wish.take(key, value)?;
                        if key.eq_ignore_ascii_case("members") {
                            let ids = ids(value)?;
                            wish.members.push(if op == "add" { Members::Add(ids) } else { Members::Replace(ids) });
                        }
                    }
                }
                ("add" | "replace", path, None) if !path.starts_with("members") => wish.take(path, &value)?,
                _ => return Err(bad("That change of a group cannot be made.")),
            }
        }
        Ok(wish)
    }
}

/// A page of a list; `start` counts from 1.
pub(super) fn list(resources: &[Value], start: usize, count: usize) -> Value {
    let page: Vec<&Value> = resources.iter().skip(start.saturating_sub(1)).take(count).collect();
    json!({
        "schemas": [LIST], "totalResults": resources.len(), "startIndex": start.max(1), "itemsPerPage": page.len(),
        "Resources": page,
    })
}

/// A list of changes.
#[derive(Deserialize)]
struct Patch {
    schemas: Vec<String>,
    #[serde(rename = "Operations", alias = "operations")]
    operations: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    op: String,
    path: Option<String>,
    #[serde(default)]
    value: Value,
}

impl Patch {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let patch: Self = serde_json::from_slice(body).map_err(|_| bad("The body is no list of changes."))?;
        if !patch.schemas.iter().any(|s| s == PATCH) {
            return Err(bad("schemas does not name the PatchOp message."));
        }
        if patch.operations.is_empty() {
            return Err(bad("There is no change in it."));
        }
        Ok(patch)
    }
}

/// What this service can do (RFC 7643 section 5).
pub(super) fn service() -> Value {
    let no = json!({ "supported": false });
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": { "supported": true },
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": 200 },
        "changePassword": no, "sort": no, "etag": no,
        "authenticationSchemes": [{ "type": "oauthbearertoken", "name": "Bearer token",
            "description": "A token of the service account that the configuration names." }],
    })
}

/// The kinds of resource there are (RFC 7643 section 6).
pub(super) fn kinds() -> Value {
    let kind = |name: &str, schema: &str| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name, "name": name, "endpoint": format!("/{name}s"), "schema": schema,
        })
    };
    list(&[kind("User", USER), kind("Group", GROUP)], 1, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_read_and_what_gives_nothing_is_left_out() {
        let body = br#"{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"bob","externalId":"7",
            "name":{"givenName":"Bob","familyName":"Ross"},"active":"True","emails":[{"value":"ada@example.org"}],
            "roles":[{"value":"administrator"}],"groups":["admins"],"password":"chosen by the directory"}"#;
        let wanted = Wanted::resource(body).unwrap();
        let expected = Wanted {
            user_name: Some("bob".into()),
            display: Some("Bob Ross".into()),
            external_id: Some("7".into()),
            active: Some(true),
            mail: MailWish::At("ada@example.org".parse().unwrap()),
        };
        assert_eq!(wanted, expected);
        for bad in [
            "[]",
            "{}",
            r#"{"schemas":[]}"#,
            "",
            r#"{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"active":1}"#,
        ] {
            assert!(Wanted::resource(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn changes_are_read_however_directories_write_them() {
        let patch = |operations: &str| {
            let head = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":"#;
            Wanted::patch(format!("{head}{operations}}}").as_bytes())
        };
        for good in [
            r#"[{"op":"replace","path":"active","value":false}]"#,
            r#"[{"op":"Replace","path":"active","value":"False"}]"#,
            r#"[{"op":"replace","value":{"active":false}}]"#,
            r#"[{"op":"add","path":"urn:ietf:params:scim:schemas:core:2.0:User:active","value":false}]"#,
        ] {
            assert_eq!(patch(good).unwrap(), Wanted { active: Some(false), ..Wanted::default() }, "{good}");
        }
        for bad in [
            "[]",
            r#"[{"op":"replace","path":"active","value":"no"}]"#,
            r#"[{"op":"remove","path":"active"}]"#,
            r#"[{"op":"remove"}]"#,
            r#"[{"op":"swap","path":"active","value":true}]"#,
            r#"[{"op":"replace","value":false}]"#,
        ] {
            assert!(patch(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_primary_address_is_the_one_that_counts() {
        let patch = |operation: &str| {
            let head = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":"#;
            Wanted::patch(format!("{head}[{operation}]}}").as_bytes()).unwrap().mail
        };
        let ada = MailWish::At("ada@example.org".parse().unwrap());
        for (operation, expected) in [
            (r#"{"op":"add","path":"emails","value":[{"value":"ada@example.org"}]}"#, ada.clone()),
            (
                r#"{"op":"replace","value":{"emails":[{"value":"x@example.org"},{"value":"ada@example.org","primary":true}]}}"#,
                ada.clone(),
            ),
            (r#"{"op":"replace","path":"emails[type eq \"work\"].value","value":"ada@example.org"}"#, ada),
            (
                r#"{"op":"replace","path":"emails","value":[{"value":"x@example.org"},{"value":"y@example.org"}]}"#,
                MailWish::Nowhere,
            ),
            (r#"{"op":"replace","path":"emails","value":[{"value":"no address","primary":true}]}"#, MailWish::Nowhere),
            (r#"{"op":"replace","path":"emails","value":[]}"#, MailWish::Nowhere),
            (r#"{"op":"remove","path":"emails"}"#, MailWish::Nowhere),
            (r#"{"op":"remove","path":"emails[type eq \"work\"]"}"#, MailWish::Nowhere),
            (r#"{"op":"replace","path":"active","value":true}"#, MailWish::AsItIs),
        ] {
            assert_eq!(patch(operation), expected, "{operation}");
        }
    }

    #[test]
    fn members_change_however_directories_write_it() {
        let patch = |operations: &str| {
            let head = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":"#;
            GroupWish::patch(format!("{head}{operations}}}").as_bytes()).map(|w| w.members)
        };
        let one = || vec!["a".to_owned()];
        for (text, expected) in [
            (r#"[{"op":"add","path":"members","value":[{"value":"a"}]}]"#, Members::Add(one())),
            (r#"[{"op":"Add","path":"members","value":{"value":"a"}}]"#, Members::Add(one())),
            (r#"[{"op":"replace","value":{"members":[{"value":"a"}]}}]"#, Members::Replace(one())),
            (r#"[{"op":"remove","path":"members[value eq \"a\"]"}]"#, Members::Remove(one())),
            (r#"[{"op":"remove","path":"members","value":[{"value":"a"}]}]"#, Members::Remove(one())),
            (r#"[{"op":"remove","path":"members"}]"#, Members::Clear),
        ] {
            assert_eq!(patch(text).unwrap(), [expected], "{text}");
        }
        for bad in [
            r#"[{"op":"add","path":"members","value":[{"display":"a"}]}]"#,
            r#"[{"op":"replace","path":"members[value eq \"a\"]","value":"b"}]"#,
            r#"[{"op":"remove","path":"displayName"}]"#,
        ] {
            assert!(patch(bad).is_err(), "{bad}");
        }
        let mut members = BTreeSet::new();
        assert!(Members::Add(one()).make(&mut members).is_err(), "no id");
    }

    #[test]
    fn a_filter_is_one_comparison() {
        assert_eq!(Filter::read(r#"userName eq "bob""#).unwrap(), Filter::UserName("bob".into()));
        assert_eq!(Filter::read(r#"externalid EQ "a \"b\"""#).unwrap(), Filter::ExternalId("a \"b\"".into()));
        for bad in ["", "userName", "userName eq", "userName eq bob", r#"userName sw "b""#, r#"emails eq "b""#] {
            assert!(Filter::read(bad).is_err(), "{bad}");
        }
    }
}
