// SPDX-License-Identifier: Apache-2.0
//! What the messages of the RPC hold, read from the list of procedures: enough to find every argument and every machine
//! in a message, and to hold a message against its form to the last byte.

use super::super::xdr::{Broken, Reader};
use std::{collections::BTreeMap, ops::Range};
use uuid::Uuid;

/// The largest text, in bytes (`REMOTE_STRING_MAX`).
const MAX_TEXT: usize = 4 * 1024 * 1024;

/// A program and a procedure of it.
pub(super) type Number = (u32, u32);

/// The programs, and their numbers (`remote_protocol.x`, `qemu_protocol.x`, `lxc_protocol.x`).
pub(super) const PROGRAMS: [(&str, u32); 3] = [("remote", 0x2000_8086), ("qemu", 0x2000_8087), ("lxc", 0x0006_8000)];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Word,
    Long,
    Text,
    Uuid,
    Opaque(usize),
    /// A typed parameter's value: a word says which of the others it is.
    Param,
    Structure(usize),
    Optional(Box<Self>),
    List(Box<Self>, usize),
    Exactly(Box<Self>, usize),
}

pub(super) type Fields = Vec<(String, Type)>;

/// One procedure.
#[derive(Debug)]
pub(super) struct Procedure {
    pub(super) name: String,
    pub(super) holds: Holds,
}

#[derive(Debug)]
pub(super) enum Holds {
    Call { arguments: Fields, results: Fields },
    Event(Fields),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    names: Vec<String>,
    structures: Vec<Fields>,
    pub(super) procedures: BTreeMap<Number, Procedure>,
    domain: usize,
}

/// The arguments of a call, or what an event says.
#[derive(Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) words: Vec<(&'a str, u64)>,
    pub(super) texts: Vec<(&'a str, Option<&'a str>)>,
    pub(super) uuids: Vec<Uuid>,
    /// Machines, wherever they stand.
    pub(super) domains: Vec<Uuid>,
    /// The name of the first thing that is no machine and has one: a snapshot, a volume.
    pub(super) name: Option<&'a str>,
}

impl<'a> Said<'a> {
    pub(super) fn word(&self, name: &str) -> Option<u64> {
        self.words.iter().find(|(n, _)| *n == name).map(|(_, word)| *word)
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.texts.iter().find(|(n, _)| *n == name).and_then(|(_, text)| *text)
    }
}

impl Shapes {
    /// Reads the list.
    pub(super) fn read(list: &str) -> Result<Self, String> {
        let mut shapes = Self::default();
        for line in list.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            shapes.add(line).ok_or_else(|| format!("{line:?} is no structure, call or event"))?;
        }
        shapes.domain = shapes.names.iter().position(|n| n == "domain").ok_or("there is no structure domain")?;
        let of = shapes.structures.get(shapes.domain);
        let wanted = [("name", Type::Text), ("uuid", Type::Uuid), ("id", Type::Word)];
        let is_right = of.is_some_and(|f| f.iter().map(|(n, t)| (n.as_str(), t.clone())).eq(wanted));
        if is_right { Ok(shapes) } else { Err("a domain has a name, a uuid and an id".to_owned()) }
    }

    fn add(&mut self, line: &str) -> Option<()> {
        if let Some((name, fields)) = line.split_once(" = ") {
            let fields = self.fields(fields)?;
            self.names.push(name.to_owned());
            self.structures.push(fields);
            return Some(());
        }
        let mut parts = line.splitn(5, ' ');
        let (program, number, name, kind) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let program = PROGRAMS.iter().find(|(word, _)| *word == program)?;
        let name = if program.0 == "remote" { name.to_owned() } else { format!("{}:{name}", program.0) };
        let rest = parts.next().unwrap_or_default();
        let holds = match kind {
            "!" => Holds::Event(self.fields(rest)?),
            ":" => {
                let (arguments, results) = rest.split_once('>')?;
                Holds::Call { arguments: self.fields(arguments)?, results: self.fields(results)? }
            }
            _ => return None,
        };
        let before = self.procedures.insert((program.1, number.parse().ok()?), Procedure { name, holds });
        before.is_none().then_some(())
    }

    fn fields(&self, text: &str) -> Option<Fields> {
        let one = |field: &str| {
            let (name, of) = field.split_once(':')?;
            Some((name.to_owned(), self.of(of)?))
        };
        text.split_whitespace().map(one).collect()
    }

    fn of(&self, text: &str) -> Option<Type> {
        if let Some(inner) = text.strip_suffix('?') {
            return Some(Type::Optional(Box::new(self.of(inner)?)));
        }
        if let Some((inner, most)) = text.strip_suffix(']').and_then(|t| t.rsplit_once('[')) {
            let most = most.parse().ok()?;
            return Some(match inner {
                "opaque" => Type::Opaque(most),
                inner => Type::List(Box::new(self.of(inner)?), most),
            });
        }
        if let Some((inner, count)) = text.strip_suffix('}').and_then(|t| t.rsplit_once('{')) {
            return Some(Type::Exactly(Box::new(self.of(inner)?), count.parse().ok()?));
        }
        Some(match text {
            "i32" | "u32" => Type::Word,
            "i64" | "u64" | "f64" => Type::Long,
            "text" => Type::Text,
            "uuid" => Type::Uuid,
            "param" => Type::Param,
            name => Type::Structure(self.names.iter().position(|n| n == name)?),
        })
    }

    /// Reads all that fields hold, to the last byte.
    pub(super) fn say<'a>(&'a self, fields: &'a Fields, bytes: &'a [u8]) -> Result<Said<'a>, Broken> {
        let mut reader = Reader::new(bytes);
        let mut said = Said::default();
        for (name, of) in fields {
            match of {
                Type::Word => said.words.push((name, u64::from(reader.word()?))),
                Type::Long => said.words.push((name, reader.long()?)),
                Type::Text => said.texts.push((name, Some(text(&mut reader)?))),
                Type::Optional(inner) if **inner == Type::Text => {
                    let found = if reader.is_there()? { Some(text(&mut reader)?) } else { None };
                    said.texts.push((name, found));
                }
                Type::Uuid => said.uuids.push(uuid(&mut reader)?),
                of => {
                    let begin = bytes.len() - reader.left();
                    self.pass(of, &mut reader, Texts::Plain, &mut |domain| said.domains.push(domain))?;
                    if said.name.is_none() && self.has_name(of) {
                        said.name = Some(text(&mut Reader::new(bytes.get(begin..).unwrap_or_default()))?);
                    }
                }
            }
        }
        if reader.left() > 0 { Err(Broken("it goes on after its end")) } else { Ok(said) }
    }

    /// Whether a value begins with the name of something that is no machine.
    fn has_name(&self, of: &Type) -> bool {
        let Type::Structure(n) = of else { return false };
        let first = self.structures.get(*n).and_then(|fields| fields.first());
        *n != self.domain && first.is_some_and(|(name, of)| name == "name" && *of == Type::Text)
    }

    /// Passes over a value, and tells every machine in it.
    fn pass(
        &self,
        of: &Type,
        reader: &mut Reader<'_>,
        texts: Texts,
        tell: &mut impl FnMut(Uuid),
    ) -> Result<(), Broken> {
        match of {
            Type::Word => drop(reader.word()?),
            Type::Long => drop(reader.long()?),
            Type::Text => texts.pass(reader)?,
            Type::Opaque(most) => drop(reader.opaque(*most)?),
            Type::Uuid => drop(reader.take(16)?),
            Type::Param => match reader.word()? {
                // virTypedParameterType: int, unsigned, long, unsigned long, double, boolean, text.
                1 | 2 | 6 => drop(reader.word()?),
                3..=5 => drop(reader.long()?),
                7 => texts.pass(reader)?,
                _ => return Err(Broken("a parameter is of no known type")),
            },
            Type::Structure(n) if *n == self.domain => {
                texts.pass(reader)?;
                tell(uuid(reader)?);
                reader.word()?;
            }
            Type::Structure(n) => {
                for (_, of) in self.structures.get(*n).into_iter().flatten() {
                    self.pass(of, reader, texts, tell)?;
                }
            }
            Type::Optional(inner) => {
                if reader.is_there()? {
                    self.pass(inner, reader, texts, tell)?;
                }
            }
            Type::List(inner, most) => {
                for _ in 0..reader.count(*most)? {
                    self.pass(inner, reader, texts, tell)?;
                }
            }
            Type::Exactly(inner, count) => {
                for _ in 0..*count {
                    self.pass(inner, reader, texts, tell)?;
                }
            }
        }
        Ok(())
    }

    /// How many machines fields name; none where that depends on the message.
    pub(super) fn machines(&self, fields: &Fields) -> Option<usize> {
        fields.iter().map(|(_, of)| self.machines_in(of)).sum()
    }

    fn machines_in(&self, of: &Type) -> Option<usize> {
        match of {
            Type::Structure(n) if *n == self.domain => Some(1),
            Type::Structure(n) => self.structures.get(*n).and_then(|fields| self.machines(fields)),
            Type::Optional(inner) | Type::List(inner, _) | Type::Exactly(inner, _) => {
                (self.machines_in(inner) == Some(0)).then_some(0)
            }
            _ => Some(0),
        }
    }

    /// Cuts a result into its pieces: each entry of a list, and everything between.
    pub(super) fn pieces(&self, fields: &Fields, bytes: &[u8]) -> Result<Vec<Piece>, Broken> {
        let mut reader = Reader::new(bytes);
        let mut all = Vec::new();
        let at = |reader: &Reader<'_>| bytes.len() - reader.left();
        for (name, of) in fields {
            let begin = at(&reader);
            if let Type::List(inner, most) = of {
                let count = reader.count(*most)?;
                let mut entries = Vec::new();
                for _ in 0..count {
                    let (begin, mut domain) = (at(&reader), None);
                    self.pass(inner, &mut reader, Texts::Any, &mut |uuid| domain = Some(uuid))?;
                    entries.push((begin..at(&reader), domain));
                }
                all.push(Piece::List(entries));
            } else {
                let mut domain = None;
                self.pass(of, &mut reader, Texts::Any, &mut |uuid| domain = Some(uuid))?;
                let is_count = name == "ret" && *of == Type::Word;
                let bytes = begin..at(&reader);
                all.push(if is_count { Piece::Count(bytes) } else { Piece::One(bytes, domain) });
            }
        }
        if reader.left() > 0 { Err(Broken("it goes on after its end")) } else { Ok(all) }
    }
}

/// A piece of a result, and the machine in it.
#[derive(Debug)]
pub(super) enum Piece {
    List(Vec<(Range<usize>, Option<Uuid>)>),
    /// How many entries there are in all.
    Count(Range<usize>),
    One(Range<usize>, Option<Uuid>),
}

/// Which texts a message may hold.
#[derive(Clone, Copy)]
enum Texts {
    /// Those that both sides read in one way.
    Plain,
    /// Whatever the daemon says.
    Any,
}

impl Texts {
    fn pass(self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        match self {
            Self::Plain => text(reader).map(drop),
            Self::Any => reader.opaque(MAX_TEXT).map(drop),
        }
    }
}

/// A text that clients and daemons agree on: UTF-8 without an end in its middle.
fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Broken> {
    let bytes = reader.opaque(MAX_TEXT)?;
    if bytes.contains(&0) {
        return Err(Broken("a text ends in its middle"));
    }
    std::str::from_utf8(bytes).map_err(|_| Broken("a text is not UTF-8"))
}

fn uuid(reader: &mut Reader<'_>) -> Result<Uuid, Broken> {
    Uuid::from_slice(reader.take(16)?).map_err(|_| Broken("an id is cut"))
}
