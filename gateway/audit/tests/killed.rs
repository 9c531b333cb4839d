// SPDX-License-Identifier: Apache-2.0
//! Writers that are killed at any instant, and disks that are full: no acknowledged event is lost, and nothing is
//! acknowledged that could not be written. The program runs itself as the writer; it answers the questions of a test
//! runner itself for that reason.

#![cfg(test)]

use anyhow::{Context, Result, bail, ensure};
use portcullis_audit::{Error, Known, Settings, Trail, TrailKeys, verify};
use portcullis_domain::{Event, NodeId, Outcome, Phase, RequestId, Secret, Seq, SystemClock};
use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use uuid::Uuid;

const WRITER: &str = "PORTCULLIS_TRAIL_WRITER";
const ROUNDS: &str = "PORTCULLIS_KILL_ROUNDS";

type Test = fn() -> Result<()>;
const TESTS: &[(&str, Test)] = &[
    ("killed_writers_lose_no_acknowledged_event", killed_writers_lose_no_acknowledged_event),
    ("a_write_that_fails_closes_the_gate_for_good", a_write_that_fails_closes_the_gate_for_good),
];

fn main() -> ExitCode {
    let result = if let Some(dir) = env::var_os(WRITER) { write(Path::new(&dir)) } else { run() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why:?}");
            ExitCode::FAILURE
        }
    }
}

/// What cargo and nextest ask of a test program.
fn run() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let is = |flag: &str| args.iter().any(|a| a == flag);
    if is("--list") {
        for (name, _) in TESTS.iter().filter(|_| !is("--ignored")) {
            println!("{name}: test");
        }
        return Ok(());
    }
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    let mut passed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        test().with_context(|| format!("test {name}"))?;
        println!("test {name} ... ok");
        passed += 1;
    }
    println!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {} filtered out",
        TESTS.len() - passed
    );
    Ok(())
}

fn keys() -> TrailKeys {
    TrailKeys { mac: Secret::new(vec![3; 32]), sign: Secret::new(vec![4; 32]) }
}

fn open(dir: &Path) -> Result<(Trail, portcullis_audit::Recovered), Error> {
    let settings = Settings {
        segment_bytes: 32 * 1024,
        first_bytes: 8 * 1024,
        reserve_bytes: 0,
        checkpoint_events: 100,
        ..Settings::default()
    };
    Trail::open_with(dir, &keys(), NodeId::new(Uuid::from_u128(1)), Arc::new(SystemClock), settings)
}

fn event(n: u64, phase: Phase) -> Event {
    Event {
        at_us: 1_790_000_000_000_000,
        request: RequestId::new(Uuid::from_u128(u128::from(n))),
        phase,
        kind: "api".into(),
        subject: None,
        peer: None,
        action: None,
        resource: "x".repeat(usize::try_from(n % 300).unwrap_or(0)).into(),
        outcome: Outcome::Done,
        reason: "".into(),
        details: Vec::new(),
    }
}

/// The writer: several tasks append, and tell each number and request as soon as it is durable.
fn write(dir: &Path) -> Result<()> {
    let (trail, _) = open(dir)?;
    let start = trail.head().size * 1000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let told = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let (trail, told) = (trail.clone(), Arc::clone(&told));
            local.spawn_local(async move {
                for n in 0.. {
                    let id = start + n * 8 + task;
                    let open = n % 3 == 0;
                    let seq = match trail.append(&event(id, if open { Phase::Opened } else { Phase::Noted })) {
                        Ok(seq) => seq,
                        Err(why) => return why,
                    };
                    if let Err(why) = trail.durable(seq).await {
                        return why;
                    }
                    // one write a line: a line that was begun is a line that is whole, or the pipe is gone
                    let line = format!("{seq} {id}\n");
                    if std::io::stdout().write_all(line.as_bytes()).is_err() {
                        return Error::Closed;
                    }
                    told.fetch_add(1, Ordering::Relaxed);
                    if open && n % 2 == 0 {
                        let closes = Event { outcome: Outcome::Done, ..event(id, Phase::Closed(seq)) };
                        if let Err(why) = trail.append(&closes) {
                            return why;
                        }
                    }
                }
                Error::Closed
            })
        })
        .collect();
    runtime.block_on(local.run_until(async {
        for task in tasks {
            // only a trail that failed ends a task
            let why = task.await?;
            println!("failed {}", matches!(why, Error::Failed { .. }));
        }
        anyhow::Ok(())
    }))?;
    println!("after {}", trail.append(&event(0, Phase::Noted)).is_err());
    println!("closed {}", trail.close().is_err());
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the test starts itself as the process that is killed")]
fn command(program: &std::ffi::OsStr) -> Command {
    Command::new(program)
}

struct Told {
    acknowledged: Vec<(u64, u64)>,
    other: Vec<String>,
}

/// Reads what a writer told until it was gone.
fn listen(child: &mut Child) -> Result<thread::JoinHandle<Result<Told>>> {
    let out = child.stdout.take().context("a writer has an output")?;
    Ok(thread::spawn(move || {
        let mut told = Told { acknowledged: Vec::new(), other: Vec::new() };
        for line in BufReader::new(out).split(b'\n') {
            let line = String::from_utf8(line?)?;
            match line.split_once(' ') {
                Some((seq, id)) if seq.parse::<u64>().is_ok() => told.acknowledged.push((seq.parse()?, id.parse()?)),
                _ => told.other.push(line),
            }
        }
        Ok(told)
    }))
}

/// Opens a log again and compares it with what was acknowledged.
fn check(dir: &Path, acknowledged: &[(u64, u64)]) -> Result<(u64, u64, Duration)> {
    let begun = Instant::now();
    let (trail, found) = open(dir)?;
    let took = begun.elapsed();
    trail.close()?;
    let events = trail.reader().tail(u64::MAX)?;
    for (seq, id) in acknowledged {
        let placed = usize::try_from(*seq).ok().and_then(|s| events.get(s)).with_context(|| format!("lost {seq}"))?;
        ensure!(placed.seq == Seq(*seq) && placed.event.request.uuid().as_u128() == u128::from(*id), "event {seq}");
    }
    let known = Known { node: Some(trail.node()), indexed: None, head: Some(trail.head()) };
    let report = verify(dir, &keys(), &known)?;
    let broken: Vec<_> = report.findings.iter().filter(|f| f.grade == portcullis_audit::Grade::Broken).collect();
    ensure!(report.is_sound() && report.open.is_empty(), "{broken:#?} {:?}", report.open);
    Ok((u64::from(found.torn_bytes > 0), found.abandoned.len() as u64, took))
}

fn killed_writers_lose_no_acknowledged_event() -> Result<()> {
    let rounds: u64 = env::var(ROUNDS).map_or(Ok(1000), |r| r.parse())?;
    let next = AtomicU64::new(0);
    let (acknowledged, torn, abandoned) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = || -> Result<Duration> {
        let me = env::current_exe()?;
        let (mut dir, mut told, mut slowest) = (tempfile::tempdir()?, Vec::new(), Duration::ZERO);
        loop {
            let round = next.fetch_add(1, Ordering::Relaxed);
            if round >= rounds {
                return Ok(slowest);
            }
            if round % 16 < 2 {
                (dir, told) = (tempfile::tempdir()?, Vec::new());
            }
            let mut child = command(me.as_os_str()).env(WRITER, dir.path()).stdout(Stdio::piped()).spawn()?;
            let listener = listen(&mut child)?;
            // from before the log is open to well into its work, spread evenly without being regular
            thread::sleep(Duration::from_micros(1000 + round * 7919 % 30_000));
            child.kill()?;
            child.wait()?;
            let Ok(heard) = listener.join() else { bail!("the listener failed") };
            let heard = heard?;
            // the last line may be cut in two by the kill only if the pipe was full, which its size forbids
            ensure!(heard.other.iter().all(String::is_empty), "round {round}: {:?}", heard.other);
            acknowledged.fetch_add(heard.acknowledged.len() as u64, Ordering::Relaxed);
            told.extend(heard.acknowledged);
            let (cut, left, took) = check(dir.path(), &told).with_context(|| format!("round {round}"))?;
            torn.fetch_add(cut, Ordering::Relaxed);
            abandoned.fetch_add(left, Ordering::Relaxed);
            slowest = slowest.max(took);
        }
    };
    let slowest = thread::scope(|scope| {
        let other = scope.spawn(work);
        let mine = work();
        match other.join() {
            Ok(theirs) => anyhow::Ok(mine?.max(theirs?)),
            Err(_) => bail!("a worker failed"),
        }
    })?;
    let (acknowledged, abandoned) = (acknowledged.into_inner(), abandoned.into_inner());
    println!(
        "{rounds} kills, {acknowledged} acknowledged events, 0 lost, {} torn ends, {abandoned} abandoned, slowest start \
         {} ms",
        torn.into_inner(),
        slowest.as_millis()
    );
    ensure!(acknowledged > rounds * 5 && abandoned > rounds / 2, "the writers were killed before they wrote");
    ensure!(slowest < Duration::from_secs(3), "a start took {slowest:?}");
    Ok(())
}

/// A limit on the size of files stands for a full disk: the write that crosses it fails with an error.
fn a_write_that_fails_closes_the_gate_for_good() -> Result<()> {
    let me = env::current_exe()?;
    for blocks in [17, 24, 33, 40, 47, 55, 63] {
        let dir = tempfile::tempdir()?;
        // the limit is in blocks of 512 bytes; a shell sets it and ignores the signal that comes with it
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\"");
        let mut child = command("sh".as_ref())
            .args(["-c", &script])
            .arg(&me)
            .env(WRITER, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let listener = listen(&mut child)?;
        let (begun, limit) = (Instant::now(), Duration::from_secs(20));
        while child.try_wait()?.is_none() {
            if begun.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                bail!("with {blocks} blocks the writer went on");
            }
            thread::sleep(Duration::from_millis(5));
        }
        let Ok(told) = listener.join() else { bail!("the listener failed") };
        let told = told?;
        let mut logged = String::new();
        child.stderr.take().context("a writer has an error output")?.read_to_string(&mut logged)?;
        ensure!(told.acknowledged.len() > 20, "with {blocks} blocks: {logged}");
        let expected: Vec<&str> = ["failed true"; 8].into_iter().chain(["after true", "closed true"]).collect();
        ensure!(told.other == expected, "with {blocks} blocks: {:?} {logged}", told.other);
        check(dir.path(), &told.acknowledged).with_context(|| format!("with {blocks} blocks"))?;
    }
    Ok(())
}
