// SPDX-License-Identifier: Apache-2.0
//! XML of a SOAP API as a small tree, read strictly and written in one form.
//!
//! What is sent on, either way, is written anew from the tree that was decided on: no reader further on can find anything
//! in it that this one did not. So a document type, a comment, a CDATA section, a processing instruction, an unknown
//! entity or namespace, an attribute that says anything else than a type, and text beside elements are refused.

use crate::classify::markup::{self, Branch, attribute, is_name};
use quick_xml::{
    XmlVersion,
    escape::partial_escape,
    events::BytesStart,
    name::{Namespace, NamespaceResolver, QName, ResolveResult},
};

const ENVELOPE: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const VIM: &str = "urn:vim25";
const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";
const XSD: &str = "http://www.w3.org/2001/XMLSchema";
/// Types of SOAP's own encoding, which old clients name.
const ENCODING: &str = "http://schemas.xmlsoap.org/soap/encoding/";

/// The namespace of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// None.
    Bare,
    /// SOAP's envelope.
    Envelope,
    /// The API's own.
    Vim,
    /// XML Schema's simple types.
    Schema,
}

/// One element: with text, or with elements in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its name without a prefix.
    pub name: String,
    /// Where its name belongs.
    pub space: Space,
    /// What `xsi:type` says it is.
    pub kind: Option<(Space, String)>,
    /// The attribute `type`: what a reference refers to.
    pub of: Option<String>,
    /// Its text, when it has no elements.
    pub text: String,
    /// Its elements.
    pub children: Vec<Element>,
    /// It says `xsi:nil`.
    pub is_nil: bool,
}

impl Element {
    /// An element of the API with text in it.
    pub fn text(name: &str, text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::new(Space::Vim, name) }
    }

    /// An element of the API with elements in it.
    pub fn of_children(name: &str, children: Vec<Element>) -> Self {
        Self { children, ..Self::new(Space::Vim, name) }
    }

    /// A reference to an object.
    pub fn reference(name: &str, of: &str, id: &str) -> Self {
        Self { of: Some(of.to_owned()), ..Self::text(name, id) }
    }

    /// The same as something of a type of the API.
    #[must_use]
    pub fn typed(mut self, kind: &str) -> Self {
        self.kind = Some((Space::Vim, kind.to_owned()));
        self
    }

    /// An empty element.
    pub fn new(space: Space, name: &str) -> Self {
        let (kind, of, text, children) = (None, None, String::new(), Vec::new());
        Self { name: name.to_owned(), space, kind, of, text, children, is_nil: false }
    }

    /// The first element in it with a name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|c| c.name == name)
    }

    /// All elements in it with a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |c| c.name == name)
    }

    /// What `xsi:type` says, without its namespace.
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_ref().map(|(_, name)| name.as_str())
    }

    /// Reads a document of at most `most` elements; the error says what is wrong, and nothing of what stood there.
    pub fn read(text: &str, most: usize) -> Result<Self, &'static str> {
        markup::read(text, most)
    }

    /// The document as it is sent.
    pub fn document(&self) -> String {
        let mut out = String::with_capacity(1024);
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        self.write(&mut out, None);
        out
    }

    /// Writes it. `outer` is the default namespace of what it stands in; the outermost element declares the prefixes.
    fn write(&self, out: &mut String, outer: Option<Space>) {
        let prefix = if self.space == Space::Envelope { "soapenv:" } else { "" };
        out.push('<');
        out.push_str(prefix);
        out.push_str(&self.name);
        if outer.is_none() {
            // govmomi knows the types of this API without a prefix or with this one, and with no other.
            let all = [("soapenv", ENVELOPE), ("xsi", XSI), ("xsd", XSD), ("vim25", VIM)];
            for (prefix, space) in all {
                attribute(out, &format!("xmlns:{prefix}"), space);
            }
        }
        // Elements of the envelope have a prefix, and leave the default as it is.
        let outer = outer.unwrap_or(Space::Bare);
        let default = if self.space == Space::Envelope { outer } else { self.space };
        if default != outer {
            attribute(out, "xmlns", if default == Space::Vim { VIM } else { "" });
        }
        if let Some((space, kind)) = &self.kind {
            let prefix = match space {
                Space::Schema => "xsd:",
                Space::Vim => "vim25:",
                Space::Envelope | Space::Bare => "",
            };
            attribute(out, "xsi:type", &format!("{prefix}{kind}"));
        }
        if self.is_nil {
            attribute(out, "xsi:nil", "true");
        }
        if let Some(of) = &self.of {
            attribute(out, "type", of);
        }
        if self.text.is_empty() && self.children.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        out.push_str(&partial_escape(self.text.as_str()));
        for child in &self.children {
            child.write(out, Some(default));
        }
        out.push_str("</");
        out.push_str(prefix);
        out.push_str(&self.name);
        out.push('>');
    }
}

fn space(found: &ResolveResult<'_>) -> Result<Space, &'static str> {
    match found {
        ResolveResult::Unbound | ResolveResult::Bound(Namespace("")) => Ok(Space::Bare),
        ResolveResult::Bound(Namespace(ENVELOPE)) => Ok(Space::Envelope),
        ResolveResult::Bound(Namespace(VIM)) => Ok(Space::Vim),
        ResolveResult::Bound(Namespace(XSD | ENCODING)) => Ok(Space::Schema),
        ResolveResult::Bound(_) | ResolveResult::Unknown(_) => Err("the XML has a name of an unknown namespace"),
    }
}

fn begin(start: &BytesStart<'_>, resolver: &NamespaceResolver) -> Result<Element, &'static str> {
    let (found, name) = resolver.resolve_element(start.name());
    if !is_name(name.as_ref()) {
        return Err("the XML has a name that is none of the API's");
    }
    let mut element = Element::new(space(&found)?, name.as_ref());
    if element.space == Space::Schema {
        return Err("the XML has a name of an unknown namespace");
    }
    for found in start.attributes() {
        let found = found.map_err(|_| "the XML has a broken or doubled attribute")?;
        if found.key.as_namespace_binding().is_some() {
            continue;
        }
        let value = found.normalized_value(XmlVersion::Implicit1_0).map_err(|_| "the XML has a broken attribute")?;
        let (whose, name) = resolver.resolve_attribute(found.key);
        match (&whose, name.as_ref()) {
            (ResolveResult::Bound(Namespace(XSI)), "type") if element.kind.is_none() => {
                let (kind_space, kind) = resolver.resolve_element(QName(&value));
                if !is_name(kind.as_ref()) {
                    return Err("the XML has a type that is none");
                }
                element.kind = Some((space(&kind_space)?, kind.as_ref().to_owned()));
            }
            (ResolveResult::Bound(Namespace(XSI)), "nil") => element.is_nil = matches!(&*value, "true" | "1"),
            (ResolveResult::Unbound, "type") if element.of.is_none() => {
                if !is_name(&value) {
                    return Err("the XML has a type that is none");
                }
                element.of = Some(value.into_owned());
            }
            // Which release the client speaks; said once more in the head of the request.
            (ResolveResult::Unbound, "versionId" | "serverGuid") => {}
            (ResolveResult::Bound(Namespace(ENVELOPE)), _) if element.space == Space::Envelope => {}
            _ => return Err("the XML has an attribute that the gateway does not know"),
        }
    }
    Ok(element)
}

impl Branch for Element {
    fn begin(start: &BytesStart<'_>, resolver: &NamespaceResolver) -> Result<Self, &'static str> {
        begin(start, resolver)
    }

    fn text(&mut self) -> &mut String {
        &mut self.text
    }

    fn children(&mut self) -> &mut Vec<Self> {
        &mut self.children
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(inner: &str) -> String {
        format!(
            "<?xml version='1.0' encoding='UTF-8'?><e:Envelope xmlns:e='{ENVELOPE}' xmlns:i='{XSI}' xmlns:s='{XSD}'>
             <e:Body>{inner}</e:Body></e:Envelope>"
        )
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let text = wrapped(
            "<PowerOnVM_Task xmlns='urn:vim25'><_this versionId='6.5' type='VirtualMachine'>vm-1</_this>
             <a i:type='s:string'>x&lt;&amp;&#65;&quot; y</a><b i:type='OptionValue'><key/></b><c i:nil='true'/>
             </PowerOnVM_Task><e:Fault><faultcode xmlns=''>S</faultcode></e:Fault>",
        );
        let read = Element::read(&text, 100).unwrap();
        let body = read.child("Body").unwrap();
        let call = body.child("PowerOnVM_Task").unwrap();
        assert_eq!((call.space, call.child("_this").unwrap().of.as_deref()), (Space::Vim, Some("VirtualMachine")));
        assert_eq!(call.child("a").unwrap().text, "x<&A\" y");
        assert_eq!(call.child("a").unwrap().kind, Some((Space::Schema, "string".into())));
        assert_eq!(call.child("b").unwrap().kind(), Some("OptionValue"));
        assert_eq!(body.child("Fault").unwrap().child("faultcode").unwrap().space, Space::Bare);
        let written = read.document();
        assert!(!written.contains("versionId"));
        assert_eq!(Element::read(&written, 100).unwrap(), read);
    }

    #[test]
    fn what_govmomi_writes_is_read() {
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Envelope xmlns=\"{ENVELOPE}\"><Body><RetrieveProperties xmlns=\"{VIM}\">\
             <_this type=\"PropertyCollector\">propertyCollector</_this><specSet><propSet><type>ManagedEntity</type>\
             <pathSet>name</pathSet></propSet><objectSet><obj type=\"Folder\">group-d1</obj><skip>false</skip><selectSet \
             xmlns:XMLSchema-instance=\"{XSI}\" XMLSchema-instance:type=\"TraversalSpec\"><name>up</name>\
             <selectSet XMLSchema-instance:type=\"SelectionSpec\"><name>up</name></selectSet></selectSet></objectSet></specSet>\
             </RetrieveProperties></Body></Envelope>"
        );
        let read = Element::read(&text, 100);
        let set = read
            .as_ref()
            .map(|r| r.child("Body").and_then(|b| b.child("RetrieveProperties")?.child("specSet")?.child("objectSet")));
        let select = set.unwrap().and_then(|s| s.child("selectSet")).unwrap();
        assert_eq!(select.kind(), Some("TraversalSpec"));
        assert_eq!(select.child("selectSet").unwrap().kind(), Some("SelectionSpec"));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for bad in [
            "<a xmlns='urn:vim25'>vm-1<!-- x -->2</a>",
            "<a xmlns='urn:vim25'><![CDATA[x]]></a>",
            "<a xmlns='urn:vim25'><?x y?></a>",
            "<a xmlns='urn:vim25'>&bomb;</a>",
            "<a xmlns='urn:vim25'>text<b/></a>",
            "<a xmlns='urn:other'/>",
            "<x:a/>",
            "<a xmlns='urn:vim25' type='VirtualMachine' type='Folder'/>",
            "<a xmlns='urn:vim25' href='#1'/>",
            "<a xmlns='urn:vim25' e:encodingStyle='x'/>",
            "<a xmlns='urn:vim25' type='a b'/>",
            "<a xmlns='urn:vim25' i:type='x:y'/>",
            "<a xmlns='urn:vim25'>&#1;</a>",
            "<a xmlns='urn:vim25'><b></a></b>",
            "<a xmlns='urn:vim25'>",
        ] {
            assert!(Element::read(&wrapped(bad), 100).is_err(), "{bad}");
        }
        let doctype = format!("<!DOCTYPE e [<!ENTITY x 'y'>]>{}", wrapped("").split_once("?>").unwrap().1);
        for bad in ["", "x", "<a/><a/>", "<a/>x", &doctype, "<?xml version='1.0' encoding='UTF-16'?><a/>"] {
            assert!(Element::read(bad, 100).is_err(), "{bad}");
        }
        assert!(Element::read(&wrapped(&"<a xmlns='urn:vim25'/>".repeat(99)), 100).is_err(), "too many");
        let deep = format!("{}{}", "<a xmlns='urn:vim25'>".repeat(70), "</a>".repeat(70));
        assert!(Element::read(&wrapped(&deep), 1000).is_err(), "too deep");
    }

    fn trees() -> impl proptest::strategy::Strategy<Value = Element> {
        use proptest::prelude::*;
        let name = "[a-zA-Z_][a-zA-Z0-9_.-]{0,8}";
        let kind = proptest::option::of((prop_oneof![Just(Space::Vim), Just(Space::Schema)], name));
        let head = (name, kind, proptest::option::of(name), any::<bool>());
        let of = |(name, kind, of, is_nil): (String, Option<(Space, String)>, Option<String>, bool)| Element {
            kind,
            of,
            is_nil,
            ..Element::new(Space::Vim, &name)
        };
        let leaf = (head.clone(), "[ -~äß\u{1f600}\n\t]{0,20}").prop_map(move |(h, text)| Element { text, ..of(h) });
        leaf.prop_recursive(4, 40, 5, move |inner| {
            (head.clone(), proptest::collection::vec(inner, 1..5))
                .prop_map(move |(h, children)| Element { children, ..of(h) })
        })
    }

    proptest::proptest! {
        #[test]
        fn any_tree_is_read_as_it_was_written(tree in trees()) {
            let envelope = crate::classify::soap::envelope(tree);
            proptest::prop_assert_eq!(Element::read(&envelope.document(), 1000).unwrap(), envelope);
        }

        #[test]
        fn whatever_is_read_is_written_in_one_form(text in "(<[a-z/:!?= '\"\\[]{0,12}>?|[a-z&;#0-9]{0,6}){0,12}") {
            if let Ok(read) = Element::read(&text, 1000) {
                let written = read.document();
                let again = Element::read(&written, 1000).unwrap();
                proptest::prop_assert_eq!(&again, &read);
                proptest::prop_assert_eq!(again.document(), written);
            }
        }
    }
}
