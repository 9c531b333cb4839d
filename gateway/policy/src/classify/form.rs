// SPDX-License-Identifier: Apache-2.0
//! One reading of a body that holds parameters. It is sent as it came, so a key that comes twice, a nested value or a
//! coding that another reader might read differently is refused.

use super::query::Query;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use std::fmt;

/// The largest body with parameters, in bytes.
pub const MAX_FORM: usize = 64 * 1024;
/// Most values of a key.
const MAX_VALUES: usize = 1_000;

/// The parameters of a body, each key once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, Vec<String>)>);

impl Form {
    /// Reads a body by its media type; the error is for the person.
    pub fn read(media_type: Option<&str>, body: &[u8]) -> Result<Self, &'static str> {
        if body.len() > MAX_FORM {
            return Err("The body is longer than 64 KiB.");
        }
        if body.is_empty() {
            return Ok(Self::default());
        }
        let (essence, more) = media_type.map_or(("", ""), |t| t.split_once(';').unwrap_or((t, "")));
        let is_utf8 = more.trim().is_empty() || more.trim().eq_ignore_ascii_case("charset=utf-8");
        if !is_utf8 {
            return Err("The body's character set is not UTF-8.");
        }
        match essence.trim().to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" => {
                let text = str::from_utf8(body).map_err(|_| "The body is no valid UTF-8.")?;
                let pairs = Query::read_form(text)?;
                Ok(Self(pairs.into_iter().map(|(key, value)| (key, vec![value])).collect()))
            }
            "application/json" => {
                serde_json::from_slice(body).map_err(|_| "The body is no flat JSON object with each key once.")
            }
            _ => Err("The body is neither a form nor JSON, so the gateway cannot tell what it asks."),
        }
    }

    /// Whether a media type is a form's.
    pub(super) fn is_said(media_type: &str) -> bool {
        let essence = media_type.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
    }

    /// The one value of a key.
    pub fn value(&self, key: &str) -> Option<&str> {
        let (_, values) = self.0.iter().find(|(k, _)| k == key)?;
        if let [one] = values.as_slice() { Some(one) } else { None }
    }

    /// The parameters that are not the same as `now`, with both values; those that `is_left` says are not looked at.
    #[must_use]
    pub fn changes(&self, now: &Self, is_left: impl Fn(&str) -> bool) -> Self {
        let mut all: Vec<(String, Vec<String>)> = Vec::new();
        for (key, _) in self.0.iter().chain(&now.0).filter(|(key, _)| !is_left(key)) {
            let of = |side: &Self| side.0.iter().find(|(k, _)| k == key).map(|(_, values)| values.clone());
            let (is, was) = (of(self), of(now));
            if is != was && !all.iter().any(|(k, _)| k == key) {
                all.push((key.clone(), is.into_iter().chain(was).flatten().collect()));
            }
        }
        Self(all)
    }

    /// Every key with its values.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FormVisitor)
    }
}

struct FormVisitor;

impl<'de> Visitor<'de> for FormVisitor {
    type Value = Form;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a flat object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Form, A::Error> {
        let mut pairs: Vec<(String, Vec<String>)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key.is_empty() || pairs.iter().any(|(k, _)| *k == key) {
                return Err(A::Error::custom("a key that is empty or comes twice"));
            }
            let Values(values) = map.next_value()?;
            pairs.push((key, values));
        }
        Ok(Form(pairs))
    }
}

/// A text, number or truth, none, or a list of them.
struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor)
    }
}

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, or a list of them")
    }

    fn visit_str<E>(self, text: &str) -> Result<Values, E> {
        Ok(Values(vec![text.to_owned()]))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Values, E> {
        Ok(Values(vec![if truth { "1" } else { "0" }.to_owned()]))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Values, E> {
        Ok(Values(vec![number.to_string()]))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Values, E> {
        Ok(Values(vec![number.to_string()]))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Values, E> {
        Ok(Values(vec![number.to_string()]))
    }

    fn visit_unit<E>(self) -> Result<Values, E> {
        Ok(Values(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element()? {
            all.push(match one {
                Value::String(text) if all.len() < MAX_VALUES => text,
                Value::Number(number) if all.len() < MAX_VALUES => number.to_string(),
                _ => return Err(A::Error::custom("a list of something else, or too long")),
            });
        }
        Ok(Values(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(media_type: &str, body: &str) -> Result<Vec<(String, String)>, &'static str> {
        let form = Form::read(Some(media_type), body.as_bytes())?;
        Ok(form.pairs().map(|(k, v)| (k.to_owned(), v.join("|"))).collect())
    }

    #[test]
    fn a_form_and_json_say_the_same() {
        let wanted: Vec<(String, String)> =
            [("vmid", "100"), ("full", "1"), ("name", "a b;c")].map(|(k, v)| (k.into(), v.into())).into();
        assert_eq!(pairs("application/x-www-form-urlencoded", "vmid=100&full=1&name=a+b%3Bc").unwrap(), wanted);
        let json = r#"{"vmid":100,"full":true,"name":"a b;c"}"#;
        assert_eq!(pairs("application/json;charset=UTF-8", json).unwrap(), wanted);
        assert_eq!(pairs("application/json", r#"{"vms":[100,"101"],"x":null}"#).unwrap()[0].1, "100|101");
        // A form's value may hold what a query's may not: line ends.
        assert_eq!(pairs("application/x-www-form-urlencoded", "description=a%0Ab").unwrap()[0].1, "a\nb");
        assert_eq!(Form::read(None, b"").unwrap(), Form::default());
    }

    #[test]
    fn changes_are_what_comes_goes_or_becomes_another() {
        let form = |body: &str| Form::read(Some("application/json"), body.as_bytes()).unwrap();
        let now = form(r#"{"a": "1", "b": "2", "c": "3", "gone": 4}"#);
        let then = form(r#"{"a": 1, "b": "x", "new": "y", "c": ["3", "4"], "left": "z"}"#);
        let changes = then.changes(&now, |key| key == "left");
        let said: Vec<_> = changes.pairs().map(|(k, v)| format!("{k}={}", v.join("|"))).collect();
        assert_eq!(said, ["b=x|2", "new=y", "c=3|4|3", "gone=4"]);
        assert!(now.changes(&now, |_| false).is_empty());
    }

    // SEC-049
    #[test]
    fn a_body_that_two_readers_could_read_differently_is_refused() {
        for (media_type, body) in [
            ("application/x-www-form-urlencoded", "vmid=1&vmid=2"),
            ("application/x-www-form-urlencoded", "vmid=1&%76mid=2"),
            ("application/x-www-form-urlencoded", "vmid=1;vmid=2"),
            ("application/x-www-form-urlencoded", "vmid=%zz"),
            ("application/x-www-form-urlencoded", "vmid=%00"),
            ("application/x-www-form-urlencoded; charset=utf-16", "vmid=1"),
            ("application/json", r#"{"vmid":1,"vmid":2}"#),
            ("application/json", r#"{"vmid":1,"\u0076mid":2}"#),
            ("application/json", r#"{"vmid":{"a":1}}"#),
            ("application/json", r#"{"vmid":[[1]]}"#),
            ("application/json", "[1]"),
            ("application/json", r#"{"vmid":1}x"#),
            ("application/json", "vmid: 1"),
            ("application/yaml", "vmid: 1"),
            ("multipart/form-data; boundary=x", "--x--"),
            ("text/plain", "vmid=1"),
            ("", "vmid=1"),
        ] {
            assert!(pairs(media_type, body).is_err(), "{media_type} {body}");
        }
        assert!(Form::read(Some("application/json"), &vec![b' '; MAX_FORM + 1]).is_err());
        assert!(Form::read(None, b"vmid=1").is_err());
    }
}
