// SPDX-License-Identifier: Apache-2.0
//! One call of a remote procedure in a body: XML-RPC (xmlrpc.com/spec) or JSON-RPC 2.0, whose first parameter is a
//! session. It is read once and written anew: what was decided on is what is sent, so no other reader can see something
//! else in it. Anything that could be read in two ways is refused all the same, because the client meant one of them.
//!
//! ```text
//! body --Call::read--> Call (decided on) --hollow--> Hollow (a hole where the session was) --filled--> body
//! ```

mod json;
mod xml;

use std::borrow::Cow;

/// The largest body of a call, in bytes.
pub const MAX_CALL: usize = 64 * 1024;
/// How deep values may nest.
const MAX_DEPTH: usize = 32;
/// Most parameters of a call.
const MAX_PARAMS: usize = 64;
/// Integers beyond this are not the same number to every reader of JSON (RFC 8259 section 6).
const MAX_EXACT: i64 = 1 << 53;

/// How a call is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// XML-RPC.
    Xml,
    /// JSON-RPC 2.0.
    Json,
}

impl Wire {
    /// The media type of its bodies.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Xml => "text/xml",
            Self::Json => "application/json",
        }
    }
}

/// A value, as both kinds of call have them.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A whole number.
    Int(i64),
    /// Any other number; never infinite and no NaN.
    Double(f64),
    /// A truth.
    Bool(bool),
    /// An instant, as its text (XML only).
    Date(Cow<'a, str>),
    /// Nothing.
    Nil,
    /// A list.
    List(Vec<Value<'a>>),
    /// Members, each name once.
    Map(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The member of a name.
    pub fn member(&self, name: &str) -> Option<&Value<'a>> {
        let Self::Map(all) = self else { return None };
        all.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A text of ours.
    pub fn from_text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }
}

/// One call.
#[derive(Debug)]
pub struct Call<'a> {
    wire: Wire,
    /// What is called.
    pub method: Cow<'a, str>,
    /// All parameters; the first one is the session, where the method has one.
    pub params: Vec<Value<'a>>,
    /// The id of a JSON call, as it is written.
    id: Cow<'a, str>,
}

/// Whom an answer goes to: how it is written, and for which call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// How.
    pub wire: Wire,
    id: String,
}

impl Caller {
    /// Of a call that could not be read.
    pub fn of(wire: Wire) -> Self {
        Self { wire, id: "null".to_owned() }
    }
}

/// A call as it is sent, without its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hollow {
    text: String,
    at: usize,
    /// How it is written.
    pub wire: Wire,
}

impl Hollow {
    /// The body, with a session. None when the session is no plain text.
    pub fn filled(&self, session: &str) -> Option<Vec<u8>> {
        let is_plain =
            !session.is_empty() && session.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.".contains(&b));
        let (head, tail) = self.text.split_at_checked(self.at).filter(|_| is_plain)?;
        Some([head, session, tail].concat().into_bytes())
    }
}

impl<'a> Call<'a> {
    /// Reads a body; the error is for the person.
    pub fn read(wire: Wire, media_type: Option<&str>, body: &'a [u8]) -> Result<Self, &'static str> {
        if body.len() > MAX_CALL {
            return Err("The call is longer than 64 KiB.");
        }
        let (essence, more) = media_type.map_or(("", ""), |t| t.split_once(';').unwrap_or((t, "")));
        let is_utf8 = more.trim().is_empty() || more.trim().trim_matches('"').eq_ignore_ascii_case("charset=utf-8");
        if !is_utf8 {
            return Err("The call's character set is not UTF-8.");
        }
        let essence = essence.trim();
        let fits = match wire {
            Wire::Xml => {
                essence.is_empty() || ["text/xml", "application/xml"].iter().any(|t| essence.eq_ignore_ascii_case(t))
            }
            Wire::Json => essence.eq_ignore_ascii_case("application/json"),
        };
        if !fits {
            return Err("The call's media type is not the one of this address.");
        }
        let text = str::from_utf8(body).map_err(|_| "The call is no valid UTF-8.")?;
        let call = match wire {
            Wire::Xml => xml::read_call(text)?,
            Wire::Json => json::read_call(text)?,
        };
        let is_name = |name: &str| {
            (1..=128).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
        };
        if !is_name(&call.method) {
            return Err("The call names no method.");
        }
        if call.params.len() > MAX_PARAMS {
            return Err("The call has too many parameters.");
        }
        Ok(call)
    }

    /// What its first parameter shows.
    pub fn session(&self) -> Option<&str> {
        self.params.first()?.text()
    }

    /// Its parameters after the session.
    pub fn args(&self) -> &[Value<'a>] {
        self.params.get(1..).unwrap_or_default()
    }

    /// Whom its answer goes to.
    pub fn caller(&self) -> Caller {
        Caller { wire: self.wire, id: self.id.clone().into_owned() }
    }

    /// The call as it is sent, with a hole in the place of its first parameter.
    pub fn hollow(&self) -> Hollow {
        let mut text = String::with_capacity(512);
        let at = match self.wire {
            Wire::Xml => xml::write_call(&mut text, &self.method, self.args()),
            Wire::Json => json::write_call(&mut text, &self.method, self.args(), &self.id),
        };
        Hollow { text, at, wire: self.wire }
    }
}

/// A call of the gateway's own, with a hole for its session.
pub fn own_call(wire: Wire, method: &str, args: &[Value<'_>]) -> Hollow {
    Call { wire, method: method.into(), params: [&[Value::Nil], args].concat(), id: "1".into() }.hollow()
}

/// A call of the gateway's own that takes no session: JSON.
pub fn first_call(method: &str, params: &[Value<'_>]) -> String {
    json::first_call(method, params)
}

/// What was answered: a value, or what went wrong: a code and what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply<'a> {
    /// It was done.
    Done(Value<'a>),
    /// It was not.
    Failed(Vec<Cow<'a, str>>),
}

impl<'a> Reply<'a> {
    /// Reads an answer; none for anything else.
    pub fn read(wire: Wire, body: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(body).ok()?;
        match wire {
            Wire::Xml => xml::read_reply(text),
            Wire::Json => json::read_reply(text),
        }
    }

    /// The answer as a body.
    pub fn write(&self, to: &Caller) -> Vec<u8> {
        let mut text = String::with_capacity(256);
        match to.wire {
            Wire::Xml => xml::write_reply(&mut text, self),
            Wire::Json => json::write_reply(&mut text, self, &to.id),
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests;
