// SPDX-License-Identifier: Apache-2.0
//! What the driver reads in a domain's XML. Size and depth are capped, a document type is refused, and no entity but
//! the five of XML itself is expanded.

use quick_xml::{
    XmlVersion,
    events::{BytesStart, Event},
    name::{Namespace, ResolveResult},
    reader::NsReader,
};
use std::path::PathBuf;

/// The largest description, bytes.
const MAX_XML: usize = 4 * 1024 * 1024;
/// How deep elements may nest.
const MAX_DEPTH: usize = 64;
/// The most `graphics` elements.
const MAX_GRAPHICS: usize = 16;
/// The longest text of one tag list, bytes.
const MAX_TEXT: usize = 16 * 1024;

/// Kinds of screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GraphicsKind {
    /// RFB.
    Vnc,
    /// SPICE.
    Spice,
}

/// One screen. Its password is only there when the XML was asked for with secrets.
#[derive(Clone)]
pub(super) struct Graphics {
    pub(super) kind: GraphicsKind,
    pub(super) port: Option<u16>,
    pub(super) socket: Option<PathBuf>,
    pub(super) password: Option<String>,
}

/// What was read.
#[derive(Default)]
pub(super) struct Description {
    pub(super) graphics: Vec<Graphics>,
    pub(super) tags: Vec<String>,
    pub(super) pool: Option<String>,
}

impl Description {
    /// Reads a domain's XML. `namespace` is the one of the `tags` and `pool` elements in its metadata.
    pub(super) fn parse(text: &str, namespace: &str) -> Result<Self, String> {
        if text.len() > MAX_XML {
            return Err("its XML is larger than 4 MiB".to_owned());
        }
        let mut reader = NsReader::from_str(text);
        let mut found = Self::default();
        // Where we are: local names, those of our own namespace marked with `=` (which no XML name holds).
        let mut path: Vec<String> = Vec::new();
        let mut tags = String::new();
        let mut pool = String::new();
        loop {
            let (resolved, event) = reader.read_resolved_event().map_err(|e| format!("its XML is broken: {e}"))?;
            let whose = match resolved {
                ResolveResult::Bound(Namespace(n)) if n == namespace => Whose::Ours,
                _ => Whose::Libvirts,
            };
            match event {
                Event::Start(element) => {
                    found.begin(&path, &element)?;
                    path.push(step(&element, whose));
                    if path.len() > MAX_DEPTH {
                        return Err("its XML nests too deep".to_owned());
                    }
                }
                Event::Empty(element) => found.begin(&path, &element)?,
                Event::End(_) => {
                    if is_at(&path, &["domain", "metadata", "=tags", "*"]) {
                        tags.push(',');
                    }
                    path.pop();
                }
                Event::Text(text) => place(&path, &mut tags, &mut pool, &text.xml10_content())?,
                Event::CData(text) => place(&path, &mut tags, &mut pool, &text.xml10_content())?,
                Event::GeneralRef(name) => {
                    let resolved = name.resolve_char_ref().map_err(|e| format!("its XML is broken: {e}"))?;
                    let c = resolved.or(match &*name {
                        "amp" => Some('&'),
                        "lt" => Some('<'),
                        "gt" => Some('>'),
                        "quot" => Some('"'),
                        "apos" => Some('\''),
                        _ => None,
                    });
                    let c = c.ok_or_else(|| "its XML uses an unknown entity".to_owned())?;
                    place(&path, &mut tags, &mut pool, c.encode_utf8(&mut [0; 4]))?;
                }
                Event::DocType(_) => return Err("its XML has a document type".to_owned()),
                Event::Eof => break,
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            }
        }
        if !path.is_empty() {
            return Err("its XML ends too early".to_owned());
        }
        found.tags = tags.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect();
        found.pool = Some(pool.trim().to_owned()).filter(|p| !p.is_empty());
        Ok(found)
    }

    /// The screen to show: VNC before SPICE.
    pub(super) fn screen(&self) -> Option<&Graphics> {
        let vnc = self.graphics.iter().find(|g| g.kind == GraphicsKind::Vnc);
        vnc.or_else(|| self.graphics.first())
    }

    fn begin(&mut self, path: &[String], element: &BytesStart<'_>) -> Result<(), String> {
        let name = element.local_name();
        if is_at(path, &["domain", "devices"]) && name.as_ref() == "graphics" {
            let kind = match attribute(element, "type")?.as_deref() {
                Some("vnc") => GraphicsKind::Vnc,
                Some("spice") => GraphicsKind::Spice,
                _ => return Ok(()),
            };
            if self.graphics.len() >= MAX_GRAPHICS {
                return Err("it has too many screens".to_owned());
            }
            let port = attribute(element, "port")?.and_then(|p| p.parse().ok()).filter(|p| *p != 0);
            let socket = attribute(element, "socket")?.map(PathBuf::from);
            let password = attribute(element, "passwd")?.filter(|p| !p.is_empty());
            self.graphics.push(Graphics { kind, port, socket, password });
        } else if is_at(path, &["domain", "devices", "graphics"]) && name.as_ref() == "listen" {
            let socket = attribute(element, "socket")?.map(PathBuf::from);
            if attribute(element, "type")?.as_deref() == Some("socket")
                && let Some(last) = self.graphics.last_mut()
            {
                last.socket = socket.or(last.socket.take());
            }
        }
        Ok(())
    }
}

/// Whose namespace an element stands in.
#[derive(Clone, Copy)]
enum Whose {
    Ours,
    Libvirts,
}

fn step(element: &BytesStart<'_>, whose: Whose) -> String {
    let name = element.local_name();
    match whose {
        Whose::Ours => format!("={}", name.as_ref()),
        Whose::Libvirts => name.as_ref().to_owned(),
    }
}

fn is_at(path: &[String], wanted: &[&str]) -> bool {
    path.len() == wanted.len() && path.iter().zip(wanted).all(|(p, w)| *w == "*" || p == w)
}

fn place(path: &[String], tags: &mut String, pool: &mut String, text: &str) -> Result<(), String> {
    let into = if is_at(path, &["domain", "metadata", "=tags"]) || is_at(path, &["domain", "metadata", "=tags", "*"]) {
        tags
    } else if is_at(path, &["domain", "metadata", "=pool"]) {
        pool
    } else {
        return Ok(());
    };
    if into.len() + text.len() > MAX_TEXT {
        return Err("its tags are too long".to_owned());
    }
    into.push_str(text);
    Ok(())
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let found = element.try_get_attribute(name).map_err(|e| format!("its XML is broken: {e}"))?;
    let Some(found) = found else { return Ok(None) };
    let value = found.normalized_value(XmlVersion::Implicit1_0).map_err(|e| format!("its XML is broken: {e}"))?;
    Ok(Some(value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: &str = "urn:portcullis:1";

    fn parse(inner: &str) -> Result<Description, String> {
        Description::parse(&format!("<domain type='qemu'><name>x</name>{inner}</domain>"), NS)
    }

    #[test]
    fn screens_are_read_with_port_socket_and_password() {
        let d = parse(
            "<devices><graphics type='spice' port='5901'/><graphics type='vnc' port='5900' passwd='a&amp;b&#33;' listen='127.0.0.1'>
             <listen type='address' address='127.0.0.1'/></graphics><graphics type='vnc'><listen type='socket' socket='/var/s'/>
             </graphics><graphics type='sdl'/></devices>",
        )
        .unwrap();
        assert_eq!(d.graphics.len(), 3);
        let screen = d.screen().unwrap();
        assert_eq!(
            (screen.kind, screen.port, screen.password.as_deref()),
            (GraphicsKind::Vnc, Some(5900), Some("a&b!"))
        );
        assert_eq!(d.graphics[2].socket, Some(PathBuf::from("/var/s")));
        assert_eq!(parse("<devices><graphics type='vnc' port='-1'/></devices>").unwrap().screen().unwrap().port, None);
    }

    #[test]
    fn a_screen_outside_of_devices_is_none() {
        let d =
            parse("<metadata><a:devices xmlns:a='u'><graphics type='vnc' port='1'/></a:devices></metadata>").unwrap();
        assert!(d.graphics.is_empty());
    }

    #[test]
    fn tags_come_from_our_namespace_only() {
        let d = parse(&format!(
            "<metadata><p:tags xmlns:p='{NS}'>web, db ,,<p:tag>one</p:tag><p:tag>two</p:tag>last&amp;</p:tags>
             <p:pool xmlns:p='{NS}'> blue </p:pool><x:tags xmlns:x='urn:other'>evil</x:tags><tags>evil</tags></metadata>
             <title>evil</title><description><p:tags xmlns:p='{NS}'>evil</p:tags></description>"
        ))
        .unwrap();
        assert_eq!(d.tags, ["web", "db", "one", "two", "last&"]);
        assert_eq!(d.pool.as_deref(), Some("blue"));
    }

    #[test]
    fn hostile_xml_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
        let long = format!("<metadata><p:tags xmlns:p='{NS}'>{}</p:tags></metadata>", "x".repeat(MAX_TEXT + 1));
        let many = format!("<devices>{}</devices>", "<graphics type='vnc'/>".repeat(17));
        for bad in [
            deep.as_str(),
            long.as_str(),
            many.as_str(),
            "<a>",
            "</a>",
            "<devices><graphics type='vnc' passwd='&boom;'/></devices>",
        ] {
            assert!(parse(bad).is_err(), "{}", &bad[..bad.len().min(60)]);
        }
        let bomb = "<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><domain><metadata>&b;</metadata></domain>";
        assert!(Description::parse(bomb, NS).is_err());
        assert!(Description::parse(&" ".repeat(MAX_XML + 1), NS).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC*") {
            let _ = parse(&text);
            let _ = Description::parse(&text, NS);
        }
    }
}
