// SPDX-License-Identifier: Apache-2.0
//! Opening a log: from the newest checkpoint to the last commit that holds. What comes after it was never acknowledged
//! and is cut; what stands before it and does not hold was changed, and then nothing is opened.

use crate::{
    checkpoint::Checkpoint,
    error::Error,
    frame::{self, CHECKPOINT, COMMIT, Commit, EVENT, HEADER, Header, MAX_BATCH, MAX_PAYLOAD, Mark, Seal},
    keys::{LogId, Ring, Spot},
    scan::{Scan, Step, find_commit, last_set, part},
    segment::{self, Area, Filler},
    sidecar::{CHECKPOINTS, Sidecar},
    trail::Settings,
    tree::{self, Frontier},
    writer::State,
};
use portcullis_domain::{NodeId, Phase};
use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

/// How far behind the last commit a crash can have torn.
const REACH: u64 = (MAX_BATCH + MAX_PAYLOAD + 4096) as u64;

/// Everything about the log that is being opened.
pub(crate) struct Opening<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) node: NodeId,
    pub(crate) ring: &'a Ring,
    pub(crate) settings: &'a Settings,
    pub(crate) filler: &'a Filler,
}

/// The state after the last commit that holds, and how many torn bytes were cut after it.
pub(crate) fn recover(
    opening: &Opening<'_>,
    sidecar: &mut Sidecar,
    published: Option<Checkpoint>,
) -> Result<(State, u64), Error> {
    let (state, torn) = match segment::list(opening.dir)?.last() {
        None => {
            if let Some(known) = published {
                return Err(Error::Cut { known: known.head.size, found: 0 });
            }
            return Ok((begin(opening)?, 0));
        }
        Some(last) => resume(opening, sidecar, *last, published.as_ref())?,
    };
    if let Some(known) = published {
        if known.origin != state.log.origin() {
            let what = "these checkpoints belong to another log";
            return Err(Error::Damaged { file: CHECKPOINTS.to_owned(), offset: 0, what });
        }
        if known.head.size > state.frontier.size() {
            return Err(Error::Cut { known: known.head.size, found: state.frontier.size() });
        }
    }
    Ok((state, torn))
}

/// A new log with an empty tree.
fn begin(opening: &Opening<'_>) -> Result<State, Error> {
    let mut log = [0; 16];
    aws_lc_rs::rand::fill(&mut log).map_err(|_| Error::Keys("log could not be given a random number"))?;
    let log = LogId { node: opening.node, log };
    let frontier = Frontier::default();
    let header = Header::new(log, 0, &frontier, Vec::new()).write(opening.ring)?;
    let fail = |doing| Error::io(doing, opening.dir.join(segment::file_name(0)));
    let area = opening.filler.take().map_err(fail("create"))?;
    area.write(&header, 0).map_err(fail("write"))?;
    area.sync().map_err(fail("flush"))?;
    opening.filler.place(opening.dir, 0).map_err(fail("name"))?;
    let start = header.len() as u64;
    Ok(State { log, segment: 0, area, start, offset: start, frontier, open: BTreeSet::new(), marked: 0 })
}

/// What holds up to some place.
#[derive(Clone)]
struct Ground {
    offset: u64,
    frontier: Frontier,
    open: BTreeSet<u64>,
    marked: u64,
}

fn resume(
    opening: &Opening<'_>,
    sidecar: &mut Sidecar,
    number: u64,
    published: Option<&Checkpoint>,
) -> Result<(State, u64), Error> {
    let name = segment::file_name(number);
    let path = opening.dir.join(&name);
    let fail = |doing| Error::io(doing, path.clone());
    let damaged = |offset, what| Error::Damaged { file: name.clone(), offset, what };
    let file = segment::open(&path, &mut OpenOptions::new()).map_err(fail("open"))?;
    let read = file.try_clone().map_err(fail("open"))?;
    let mut scan = Scan::after_magic(read).map_err(fail("read"))?.ok_or_else(|| damaged(0, "this is no segment"))?;
    let header = match scan.next().map_err(fail("read"))? {
        Step::Frame(at, f) if f.kind == HEADER => {
            Header::read(f.payload, Some(opening.ring)).map_err(|what| damaged(at, what))?
        }
        Step::Frame(at, _) | Step::End(at) | Step::Bad(at, _) => return Err(damaged(at, "the header is gone")),
    };
    let (header, seal) = header;
    let at = scan.offset();
    if seal != Seal::Holds {
        return Err(damaged(8, "the header was not sealed with this key"));
    }
    if header.segment != number {
        return Err(damaged(8, "the header belongs to another segment"));
    }
    let log = header.log();
    if log.node != opening.node {
        return Err(Error::WrongNode { expected: opening.node, found: log.node });
    }
    let frontier = header.frontier().ok_or_else(|| damaged(8, "the header does not agree with itself"))?;
    let spot = |offset| Spot { log, segment: number, offset };

    let open = header.open.iter().copied().collect();
    let mut ground = Ground { offset: at, marked: frontier.size(), frontier, open };
    if let Some(hinted) = hinted(&mut scan, sidecar, opening.ring, &spot(0)) {
        ground = hinted;
    }
    scan.go(ground.offset);
    let mut next = ground.clone();
    let mut last = ground.offset;
    let stopped = loop {
        match scan.next().map_err(fail("read"))? {
            Step::End(_) => break false,
            Step::Bad(..) => break true,
            Step::Frame(at, f) => match f.kind {
                EVENT => {
                    let (_, phase) = frame::peek(f.payload).ok_or_else(|| damaged(at, "an event is unreadable"))?;
                    match phase {
                        Phase::Opened => drop(next.open.insert(next.frontier.size())),
                        Phase::Closed(opened) => drop(next.open.remove(&opened.0)),
                        Phase::Noted => {}
                    }
                    next.frontier.push(tree::sha256(f.hashed));
                }
                COMMIT => {
                    let (commit, seal) = Commit::read(f.payload, Some(opening.ring), &spot(at))
                        .ok_or_else(|| damaged(at, "a commit is unreadable"))?;
                    if seal != Seal::Holds {
                        return Err(damaged(at, "a commit was not sealed here with this key"));
                    }
                    if commit.first != ground.frontier.size()
                        || commit.size() != next.frontier.size()
                        || commit.root != next.frontier.root()
                    {
                        return Err(damaged(at, "the events before this commit are not those that it sealed"));
                    }
                    last = ground.offset;
                    next.offset = at + f.length as u64;
                    ground = next.clone();
                }
                CHECKPOINT => {
                    let (mark, seal) = Mark::read(f.payload, Some(opening.ring), &spot(at))
                        .ok_or_else(|| damaged(at, "a checkpoint is unreadable"))?;
                    if seal != Seal::Holds || mark.frontier().as_ref() != Some(&next.frontier) {
                        return Err(damaged(at, "a checkpoint does not agree with the events before it"));
                    }
                    // the process may have ended between writing a checkpoint and publishing it
                    if published.is_none_or(|p| p.head.size < mark.size) {
                        sidecar.publish(&mark.note).map_err(Error::io("write", opening.dir.join(CHECKPOINTS)))?;
                    }
                    (next.offset, next.marked) = (at + f.length as u64, mark.size);
                    ground = next.clone();
                }
                _ => return Err(damaged(at, "a frame of a kind that does not belong here")),
            },
        }
    };
    let torn = settle(&file, &ground, last, stopped, &spot(0), opening.ring).map_err(|e| match e {
        Unsettled::Io(e) => fail("mend")(e),
        Unsettled::Damaged(at) => damaged(at, "bytes before a commit that was acknowledged do not hold"),
    })?;
    let area = Arc::new(Area::new(file, opening.settings.segment_bytes).map_err(fail("open"))?);
    let Ground { offset, frontier, open, marked } = ground;
    Ok((State { log, segment: number, area, start: at, offset, frontier, open, marked }, torn))
}

/// The ground at the newest checkpoint, if the hint leads to one whose seal holds.
fn hinted(scan: &mut Scan, sidecar: &Sidecar, ring: &Ring, spot: &Spot) -> Option<Ground> {
    let (segment, offset) = sidecar.hint()?;
    if segment != spot.segment || offset < scan.offset() {
        return None;
    }
    scan.go(offset);
    let Ok(Step::Frame(at, f)) = scan.next() else { return None };
    if f.kind != CHECKPOINT {
        return None;
    }
    let (mark, seal) = Mark::read(f.payload, Some(ring), &Spot { offset: at, ..*spot })?;
    let frontier = mark.frontier().filter(|_| seal == Seal::Holds)?;
    let open = mark.open.iter().copied().collect();
    Some(Ground { offset: at + f.length as u64, frontier, open, marked: mark.size })
}

enum Unsettled {
    Io(io::Error),
    Damaged(u64),
}

/// Cuts what was torn after the ground, and writes the last commit once more.
fn settle(file: &File, ground: &Ground, last: u64, stopped: bool, spot: &Spot, ring: &Ring) -> Result<u64, Unsettled> {
    let end = ground.offset + REACH;
    let set = last_set(file, ground.offset, end).map_err(Unsettled::Io)?;
    let torn = set.map_or(0, |at| at + 1 - ground.offset);
    if torn > 0 || stopped {
        // only one batch can be in the air, so a commit that begins behind it proves that the bytes before it were whole
        let bytes = part(file, ground.offset, end).map_err(Unsettled::Io)?;
        let from = Spot { offset: ground.offset, ..*spot };
        if find_commit(&bytes, &from, Some(ring), ground.frontier.size() + 1).is_some() {
            return Err(Unsettled::Damaged(ground.offset));
        }
        let zeros = vec![0; usize::try_from(torn).unwrap_or_default()];
        file.write_all_at(&zeros, ground.offset).map_err(Unsettled::Io)?;
    }
    // after a flush that failed the kernel may hold pages as clean that the disk never saw
    let bytes = part(file, last, ground.offset).map_err(Unsettled::Io)?;
    file.write_all_at(&bytes, last).map_err(Unsettled::Io)?;
    file.sync_all().map_err(Unsettled::Io)?;
    Ok(torn)
}
