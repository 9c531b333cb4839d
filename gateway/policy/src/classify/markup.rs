// SPDX-License-Identifier: Apache-2.0
//! XML as a tree, read strictly: what two readers could read differently is refused. A document type, a comment, a CDATA
//! section, a processing instruction, an entity of the document's own, another coding than UTF-8, and text beside elements
//! are all refused, so no entity is ever expanded.
//!
//! What an element's names and attributes may be is the API's own matter: SOAP has namespaces, and [`Node`] has none.

use quick_xml::{
    XmlVersion,
    escape::{escape, partial_escape},
    events::{BytesStart, Event},
    name::{NamespaceResolver, ResolveResult},
    reader::NsReader,
};

/// How deep elements may nest.
const MAX_DEPTH: usize = 64;
/// Most attributes of a [`Node`].
const MAX_ATTRIBUTES: usize = 32;

/// What a tree is made of.
pub(super) trait Branch: Sized {
    /// An element from its first tag; the error says what is wrong, and nothing of what stood there.
    fn begin(start: &BytesStart<'_>, resolver: &NamespaceResolver) -> Result<Self, &'static str>;
    /// Its text.
    fn text(&mut self) -> &mut String;
    /// What is in it.
    fn children(&mut self) -> &mut Vec<Self>;
}

/// Reads a document of at most `most` elements; the error says what is wrong, and nothing of what stood there.
pub(super) fn read<B: Branch>(text: &str, most: usize) -> Result<B, &'static str> {
    let mut reader = NsReader::from_str(text);
    let mut open: Vec<B> = Vec::new();
    let mut root = None;
    let mut count = 0;
    let mut is_first = true;
    loop {
        let event = reader.read_event().map_err(|_| "the XML is broken")?;
        let is_empty = matches!(event, Event::Empty(_));
        match event {
            Event::Start(start) | Event::Empty(start) => {
                count += 1;
                if root.is_some() || count > most || open.len() >= MAX_DEPTH {
                    return Err("the XML has more than one root, too many elements, or nests too deep");
                }
                let element = B::begin(&start, reader.resolver())?;
                if is_empty {
                    close(element, &mut open, &mut root)?;
                } else {
                    open.push(element);
                }
            }
            Event::End(_) => {
                let element = open.pop().ok_or("the XML is broken")?;
                close(element, &mut open, &mut root)?;
            }
            Event::Text(text) => add(&mut open, &text.xml10_content())?,
            Event::GeneralRef(name) => {
                let of_number = name.resolve_char_ref().map_err(|_| "the XML has a wrong character")?;
                let c = of_number.or(match &*name {
                    "amp" => Some('&'),
                    "lt" => Some('<'),
                    "gt" => Some('>'),
                    "quot" => Some('"'),
                    "apos" => Some('\''),
                    _ => None,
                });
                let c = c.ok_or("the XML uses an entity that it does not have")?;
                add(&mut open, c.encode_utf8(&mut [0; 4]))?;
            }
            Event::Decl(decl) if is_first => {
                let is_utf8 = decl.encoding().is_none_or(|e| e.is_ok_and(|e| e.eq_ignore_ascii_case("utf-8")));
                if !is_utf8 {
                    return Err("the XML is not UTF-8");
                }
            }
            Event::Eof => break,
            Event::Decl(_) | Event::DocType(_) | Event::Comment(_) | Event::CData(_) | Event::PI(_) => {
                return Err("the XML has a document type, a comment, a section or an instruction");
            }
        }
        is_first = false;
    }
    if open.is_empty() { root.ok_or("there is no XML") } else { Err("the XML ends too early") }
}

fn add<B: Branch>(open: &mut [B], text: &str) -> Result<(), &'static str> {
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err("the XML has a control character");
    }
    match open.last_mut() {
        Some(element) => element.text().push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err("the XML has text beside its root"),
    }
    Ok(())
}

fn close<B: Branch>(mut element: B, open: &mut [B], root: &mut Option<B>) -> Result<(), &'static str> {
    if !element.children().is_empty() {
        if !element.text().trim().is_empty() {
            return Err("the XML has text beside elements");
        }
        *element.text() = String::new();
    }
    match open.last_mut() {
        Some(parent) => parent.children().push(element),
        None => *root = Some(element),
    }
    Ok(())
}

/// A name as APIs write them, so that it can be written as it is.
pub(super) fn is_name(name: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    name.len() <= 128
        && name.bytes().all(is_inner)
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
}

/// Writes one attribute, with the space before it.
pub(super) fn attribute(out: &mut String, name: &str, value: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    out.push_str(&escape(value));
    out.push('"');
}

/// One element of a document without namespaces: attributes, and text or elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its attributes, each name once, in the order in which they came.
    pub attributes: Vec<(String, String)>,
    /// Its text, when it has no elements.
    pub text: String,
    /// Its elements.
    pub children: Vec<Node>,
}

impl Branch for Node {
    fn begin(start: &BytesStart<'_>, resolver: &NamespaceResolver) -> Result<Self, &'static str> {
        let (space, name) = resolver.resolve_element(start.name());
        // A name with a prefix, or in a namespace, could choose another type of thing for some readers (`xsi:type`).
        if !matches!(space, ResolveResult::Unbound) || start.name().as_ref() != name.as_ref() || !is_name(name.as_ref())
        {
            return Err("the XML has a name that is none of the API's");
        }
        let mut node = Self { name: name.as_ref().to_owned(), ..Self::default() };
        for found in start.attributes() {
            let found = found.map_err(|_| "the XML has a broken or doubled attribute")?;
            let key = found.key.as_ref();
            if !is_name(key) || key.eq_ignore_ascii_case("xmlns") || node.attributes.len() >= MAX_ATTRIBUTES {
                return Err("the XML has an attribute that the gateway does not know");
            }
            let value =
                found.normalized_value(XmlVersion::Implicit1_0).map_err(|_| "the XML has a broken attribute")?;
            if value.chars().any(char::is_control) {
                return Err("the XML has a control character");
            }
            node.attributes.push((key.to_owned(), value.into_owned()));
        }
        Ok(node)
    }

    fn text(&mut self) -> &mut String {
        &mut self.text
    }

    fn children(&mut self) -> &mut Vec<Self> {
        &mut self.children
    }
}

impl Node {
    /// An element with text in it.
    pub fn of_text(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), ..Self::default() }
    }

    /// An element with elements in it.
    pub fn of_children(name: &str, children: Vec<Self>) -> Self {
        Self { name: name.to_owned(), children, ..Self::default() }
    }

    /// Reads a document of at most `most` elements.
    pub fn read(text: &str, most: usize) -> Result<Self, &'static str> {
        read(text, most)
    }

    /// The first element in it with a name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|c| c.name == name)
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The document as it is sent.
    pub fn document(&self) -> String {
        let mut out = String::with_capacity(1024);
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n");
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        out.push('<');
        out.push_str(&self.name);
        for (name, value) in &self.attributes {
            attribute(out, name, value);
        }
        if self.text.is_empty() && self.children.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        out.push_str(&partial_escape(self.text.as_str()));
        for child in &self.children {
            child.write(out);
        }
        out.push_str("</");
        out.push_str(&self.name);
        out.push('>');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_read() {
        let text = "<?xml version='1.0' encoding='UTF-8' standalone='yes'?>\n<vm id='1' href=\"/a?b=1&amp;c=&lt;\">\
             <name>x&lt;&amp;&#65;&quot; y</name>\n  <tags/><cluster id=\"2\"><name/></cluster></vm>";
        let read = Node::read(text, 100).unwrap();
        assert_eq!((read.attribute("id"), read.attribute("href")), (Some("1"), Some("/a?b=1&c=<")));
        assert_eq!(read.child("name").unwrap().text, "x<&A\" y");
        assert_eq!(read.child("cluster").unwrap().children.len(), 1);
        assert_eq!(Node::read(&read.document(), 100).unwrap(), read);
    }

    // SEC-049
    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for bad in [
            "<vm><!-- x --></vm>",
            "<vm><name>a<!-- x -->b</name></vm>",
            "<vm><![CDATA[x]]></vm>",
            "<vm><?x y?></vm>",
            "<vm>&bomb;</vm>",
            "<vm>text<name/></vm>",
            "<vm xmlns='urn:x'/>",
            "<x:vm xmlns:x='urn:x'/>",
            "<x:vm/>",
            "<vm xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xsi:type='host'/>",
            "<vm xsi:type='host'/>",
            "<vm id='1' id='2'/>",
            "<vm id='&bomb;'/>",
            "<vm id='&#10;'/>",
            "<vm id=1/>",
            "<vm>&#1;</vm>",
            "<vm><a></vm></a>",
            "<vm>",
            "<vm/><vm/>",
            "<vm/>x",
            "",
            "x",
            "<?xml version='1.0' encoding='UTF-16'?><vm/>",
            "<!DOCTYPE vm [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><vm>&x;</vm>",
            "<!DOCTYPE vm><vm/>",
        ] {
            assert!(Node::read(bad, 100).is_err(), "{bad}");
        }
        assert!(Node::read(&format!("<a>{}</a>", "<b/>".repeat(100)), 100).is_err(), "too many");
        let deep = format!("{}{}", "<a>".repeat(65), "</a>".repeat(65));
        assert!(Node::read(&deep, 1000).is_err(), "too deep");
        let wide = (0..33).map(|n| format!("a{n}='x'")).collect::<Vec<_>>().join(" ");
        assert!(Node::read(&format!("<a {wide}/>"), 100).is_err(), "too many attributes");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_is_written_in_one_form(text in "(<[a-z/:!?= '\"\\[]{0,12}>?|[a-z&;#0-9]{0,6}){0,12}") {
            if let Ok(read) = Node::read(&text, 1000) {
                let written = read.document();
                let again = Node::read(&written, 1000).unwrap();
                proptest::prop_assert_eq!(&again, &read);
                proptest::prop_assert_eq!(again.document(), written);
            }
        }
    }
}
