// SPDX-License-Identifier: Apache-2.0
//! One call of a SOAP API: exactly one method in one body, with the object that it is called on and its arguments.
//!
//! What is decided on is what is sent: a call is written anew from what was read. A header of SOAP's own does not go along:
//! it could carry a session of somebody else.

mod methods;
mod xml;

pub use methods::{ABSENT, ENTITIES, Methods, Owners, Property, Reader, Told, Way};
pub use xml::{Element, Space};

/// The largest call, in bytes.
pub const MAX_CALL: usize = 256 * 1024;
/// The most elements of a call.
const MAX_ELEMENTS: usize = 20_000;
/// The longest id of an object, in bytes.
const MAX_ID: usize = 256;

/// What an object is called: its type and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Its type.
    pub of: String,
    /// Its id.
    pub id: String,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub method: String,
    /// What it is called on.
    pub this: Reference,
    /// Its arguments, in the order in which they came.
    pub arguments: Vec<Element>,
}

impl Call {
    /// Reads a call of at most 256 KiB. `action` is what the head says as `SOAPAction`. The error is for the person.
    pub fn read(body: &[u8], action: Option<&str>) -> Result<Self, &'static str> {
        if body.len() > MAX_CALL {
            return Err("The call is longer than 256 KiB.");
        }
        if action.is_some_and(|a| version(a).is_none()) {
            return Err("The call's SOAPAction is none of this API.");
        }
        let text = str::from_utf8(body).map_err(|_| "The call is no valid UTF-8.")?;
        let envelope = Element::read(text, MAX_ELEMENTS).map_err(|_| "The call is no XML that has one meaning.")?;
        Self::from_envelope(envelope).ok_or("The call is not one method in one SOAP body.")
    }

    fn from_envelope(envelope: Element) -> Option<Self> {
        let call = opened(envelope)?;
        let mut parts = call.children.into_iter();
        let this = parts.next().filter(|t| t.name == "_this")?;
        let arguments: Vec<Element> = parts.collect();
        if call.space != Space::Vim || call.of.is_some() || arguments.iter().any(|a| !is_argument(a)) {
            return None;
        }
        Some(Self { method: call.name, this: this.as_reference()?, arguments })
    }

    /// The call as it is sent.
    pub fn document(&self) -> String {
        let this = Element::reference("_this", &self.this.of, &self.this.id);
        let call = [vec![this], self.arguments.clone()].concat();
        envelope(Element::of_children(&self.method, call)).document()
    }

    /// The one argument of a name.
    pub fn argument(&self, name: &str) -> Option<&Element> {
        let mut all = self.arguments.iter().filter(|a| a.name == name);
        match (all.next(), all.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        }
    }
}

/// Below a method everything is the API's own, and what has the type of an object is a reference.
fn is_argument(element: &Element) -> bool {
    element.space == Space::Vim
        && (element.of.is_none() || element.as_reference().is_some())
        && element.children.iter().all(is_argument)
}

impl Element {
    /// What it refers to, if it is a reference.
    pub fn as_reference(&self) -> Option<Reference> {
        let of = self.of.clone()?;
        // Ids of views hold brackets; a simulator's datastores are called by their paths.
        let is_id = |b: u8| b.is_ascii_alphanumeric() || b"-_.:[]/@ ".contains(&b);
        let is_well = !self.text.is_empty() && self.text.len() <= MAX_ID && self.text.bytes().all(is_id);
        (is_well && self.text.trim() == self.text && self.children.is_empty())
            .then(|| Reference { of, id: self.text.clone() })
    }

    /// Every reference in it, at any depth.
    pub fn references(&self, found: &mut Vec<Reference>) {
        found.extend(self.as_reference());
        self.children.iter().for_each(|c| c.references(found));
    }
}

/// The one element in the one body of an envelope. None for anything else; what stands in a header is left out: it is for
/// this hop.
pub fn opened(envelope: Element) -> Option<Element> {
    if (envelope.space, envelope.name.as_str()) != (Space::Envelope, "Envelope") {
        return None;
    }
    let mut body = None;
    for (n, part) in envelope.children.into_iter().enumerate() {
        match (part.space, part.name.as_str()) {
            (Space::Envelope, "Header") if n == 0 => {}
            (Space::Envelope, "Body") if body.is_none() => body = Some(part),
            _ => return None,
        }
    }
    let [one] = <[Element; 1]>::try_from(body?.children).ok()?;
    Some(one)
}

/// An answer or a call in its envelope.
pub fn envelope(inner: Element) -> Element {
    let body = Element { children: vec![inner], ..Element::new(Space::Envelope, "Body") };
    Element { children: vec![body], ..Element::new(Space::Envelope, "Envelope") }
}

/// The release that a `SOAPAction` names: `urn:vim25`, alone or with a release behind it, in quotes or not. Empty where it
/// names none. A client of govmomi that was kept between two runs forgets the name and writes the release alone, as `/7.0`.
pub fn version(action: &str) -> Option<&str> {
    let plain = action.trim();
    let plain = plain.strip_prefix('"').and_then(|p| p.strip_suffix('"')).unwrap_or(plain);
    if plain.is_empty() {
        return Some("");
    }
    let rest = plain.strip_prefix("urn:vim25").or_else(|| plain.starts_with('/').then_some(plain))?;
    let release = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
    let is_release = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (release.len() <= 32 && release.bytes().all(is_release)).then_some(release)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inner: &str) -> Result<Call, &'static str> {
        let text = format!("<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'>{inner}</e:Envelope>");
        Call::read(text.as_bytes(), Some("\"urn:vim25/8.0.3.0\""))
    }

    const THIS: &str = "<_this type='VirtualMachine'>vm-1</_this>";

    #[test]
    fn a_call_is_one_method_on_one_object_and_is_sent_as_it_was_read() {
        let call = read(&format!(
            "<e:Header><vcSessionCookie xmlns='urn:vim25'>stolen</vcSessionCookie></e:Header>
             <e:Body><MigrateVM_Task xmlns='urn:vim25'>{THIS}<host type='HostSystem'>host-9</host></MigrateVM_Task></e:Body>"
        ))
        .unwrap();
        assert_eq!((call.method.as_str(), call.this.id.as_str()), ("MigrateVM_Task", "vm-1"));
        assert_eq!(call.argument("host").and_then(Element::as_reference).unwrap().id, "host-9");
        let sent = call.document();
        assert!(!sent.contains("stolen"));
        assert_eq!(Call::read(sent.as_bytes(), None).unwrap(), call);
    }

    #[test]
    fn what_is_not_one_call_is_refused() {
        let method = format!("<PowerOffVM_Task xmlns='urn:vim25'>{THIS}</PowerOffVM_Task>");
        assert!(read(&format!("<e:Body>{method}</e:Body>")).is_ok());
        for bad in [
            format!("<e:Body>{method}{method}</e:Body>"),
            format!("<e:Body>{method}</e:Body><e:Body>{method}</e:Body>"),
            format!("<e:Body>{method}</e:Body><e:Header/>"),
            "<e:Body/>".to_owned(),
            method.clone(),
            format!("<Body xmlns='urn:vim25'>{method}</Body>"),
            format!("<e:Body><PowerOffVM_Task>{THIS}</PowerOffVM_Task></e:Body>"),
            "<e:Body><PowerOffVM_Task xmlns='urn:vim25'/></e:Body>".to_owned(),
            "<e:Body><PowerOffVM_Task xmlns='urn:vim25'><_this>vm-1</_this></PowerOffVM_Task></e:Body>".to_owned(),
            format!("<e:Body><A xmlns='urn:vim25'><x/>{THIS}</A></e:Body>"),
            format!("<e:Body><A xmlns='urn:vim25'>{THIS}<x type='Folder'> group-1</x></A></e:Body>"),
            format!("<e:Body><A xmlns='urn:vim25'>{THIS}<x type='Folder'><y/></x></A></e:Body>"),
            format!("<e:Body><A xmlns='urn:vim25'>{THIS}<x xmlns=''/></A></e:Body>"),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_soap_action_names_this_api_or_nothing() {
        for (text, release) in [
            ("\"urn:vim25/8.0.3.0\"", "8.0.3.0"),
            ("urn:vim25", ""),
            ("\"\"", ""),
            ("", ""),
            ("urn:vim25/6.5", "6.5"),
            ("/7.0", "7.0"),
        ] {
            assert_eq!(version(text), Some(release), "{text}");
        }
        for bad in [
            "urn:pbm",
            "\"urn:vim25",
            "urn:vim25x",
            "urn:vim25/a b",
            "urn:sso/1",
            "RetrieveServiceContent",
            "/7.0/x",
            "7.0",
        ] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }
}
