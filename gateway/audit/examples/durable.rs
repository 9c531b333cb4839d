// SPDX-License-Identifier: Apache-2.0
//! What a durable record costs on this disk: the limit of bare `fdatasync`, and the trail beside it, interleaved.
//! `durable [FOLDER] [SECONDS a step] [ROUNDS]` prints one JSON line a figure, medians over the rounds.

use anyhow::Result;
use portcullis_audit::{Known, Settings, Trail, TrailKeys, verify};
use portcullis_domain::{Event, NodeId, Outcome, Phase, RequestId, Secret, SystemClock};
use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use uuid::Uuid;

const RECORD: usize = 256;
const AREA: u64 = 64 * 1024 * 1024;

/// One step: records, commits a second where they are known, and waiting times.
struct Step {
    wall: f64,
    cpu: f64,
    records: u64,
    waits: Vec<Duration>,
}

impl Step {
    fn figures(mut self) -> Figures {
        self.waits.sort_unstable();
        let at = |percent: usize| self.waits.get(self.waits.len() * percent / 100).map_or(0.0, |d| micros(*d));
        let records = as_f64(self.records);
        Figures { rate: records / self.wall, cpu: self.cpu * 1e6 / records, p50: at(50), p99: at(99) }
    }
}

#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    cpu: f64,
    p50: f64,
    p99: f64,
}

fn as_f64(n: u64) -> f64 {
    Duration::from_nanos(n).as_secs_f64() * 1e9
}

fn micros(d: Duration) -> f64 {
    d.as_secs_f64() * 1e6
}

/// CPU time of this process's threads so far, in seconds.
fn cpu() -> Result<f64> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task")? {
        if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
            sum += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(sum).as_secs_f64())
}

/// The limit, with the scheduling that the trail's writer asks for: beside other load it tells of the disk only then.
fn limit(dir: &Path, batch: usize, time: Duration) -> Result<Step> {
    thread::scope(|scope| {
        let alone = scope.spawn(|| {
            use thread_priority::{RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
            let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
            let own = thread_priority::thread_native_id();
            let _wish = thread_priority::set_thread_priority_and_policy(own, ThreadPriority::Min, fifo);
            write_alone(dir, batch, time)
        });
        alone.join().map_err(|_| anyhow::anyhow!("the measuring thread failed"))?
    })
}

fn write_alone(dir: &Path, batch: usize, time: Duration) -> Result<Step> {
    let path = dir.join("limit");
    let file = fs::File::options().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0; usize::try_from(AREA)?], 0)?;
    file.sync_all()?;
    let data = vec![0x5a; RECORD * batch];
    let (begun, spent) = (Instant::now(), cpu()?);
    let (mut at, mut records, mut waits) = (0, 0, Vec::new());
    while begun.elapsed() < time {
        let started = Instant::now();
        if at + data.len() as u64 > AREA {
            at = 0;
        }
        file.write_all_at(&data, at)?;
        rustix::fs::fdatasync(&file)?;
        at += data.len() as u64;
        records += batch as u64;
        waits.push(started.elapsed());
    }
    let step = Step { wall: begun.elapsed().as_secs_f64(), cpu: cpu()? - spent, records, waits };
    fs::remove_file(path)?;
    Ok(step)
}

fn record(n: u64) -> Event {
    Event {
        at_us: 1_790_000_000_000_000 + i64::try_from(n).unwrap_or(0),
        request: RequestId::new(Uuid::from_u128(u128::from(n))),
        phase: Phase::Noted,
        kind: "api".into(),
        subject: None,
        peer: Some([192, 0, 2, 1].into()),
        action: None,
        resource: "x".repeat(RECORD - 60).into(),
        outcome: Outcome::Done,
        reason: "".into(),
        details: Vec::new(),
    }
}

/// Tasks of one thread, each waiting for its own record.
fn waiters(trail: &Trail, count: u64, time: Duration) -> Result<Step> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (begun, spent, first) = (Instant::now(), cpu()?, trail.head().size);
    let waits = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..count {
            let trail = trail.clone();
            tasks.spawn(async move {
                let (event, mut waits) = (record(task), Vec::new());
                while begun.elapsed() < time {
                    let started = Instant::now();
                    trail.durable(trail.append(&event)?).await?;
                    waits.push(started.elapsed());
                }
                anyhow::Ok(waits)
            });
        }
        let mut all = Vec::new();
        while let Some(waits) = tasks.join_next().await {
            all.extend(waits??);
        }
        anyhow::Ok(all)
    })?;
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu()? - spent);
    Ok(Step { wall, cpu, records: trail.head().size - first, waits })
}

fn median(all: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    let mut all: Vec<f64> = all.iter().map(of).collect();
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let dir = args.next().map_or_else(env::temp_dir, PathBuf::from).join(format!("durable-{}", std::process::id()));
    let time = Duration::from_secs_f64(args.next().map_or(Ok(1.0), |s| s.parse())?);
    let rounds: usize = args.next().map_or(Ok(3), |r| r.parse())?;
    fs::create_dir_all(&dir)?;
    let keys = TrailKeys { mac: Secret::new(vec![1; 32]), sign: Secret::new(vec![2; 32]) };
    let log = dir.join("log");
    let gather = env::var("GATHER_US").ok().and_then(|g| g.parse().ok()).map(Duration::from_micros);
    let settings = Settings { gather: gather.unwrap_or(Settings::default().gather), ..Settings::default() };
    let (trail, _) = Trail::open_with(&log, &keys, NodeId::new(Uuid::nil()), Arc::new(SystemClock), settings)?;
    let mut seen: BTreeMap<(&str, u64), Vec<Figures>> = BTreeMap::new();
    for _ in 0..rounds {
        for batch in [1, 16, 64, 256] {
            let figures = limit(&dir, batch, time)?.figures();
            seen.entry(("limit", batch as u64)).or_default().push(figures);
        }
        for count in [1, 32, 128] {
            let figures = waiters(&trail, count, time)?.figures();
            seen.entry(("trail", count)).or_default().push(figures);
        }
    }
    for ((what, count), all) in &seen {
        let (rate, cpu) = (median(all, |f| f.rate), median(all, |f| f.cpu));
        let (p50, p99) = (median(all, |f| f.p50), median(all, |f| f.p99));
        // one waiter against one a commit, 32 against 16, 128 against 64
        let peer =
            seen.get(&("limit", (count / 2).max(1))).filter(|_| *what == "trail").map(|l| rate / median(l, |f| f.rate));
        let ratio = peer.map_or_else(|| "null".to_owned(), |r| format!("{r:.3}"));
        println!(
            "{{\"what\":\"{what}\",\"at_once\":{count},\"records_s\":{rate:.0},\"ratio\":{ratio},\"cpu_us\":{cpu:.2},\"p50_us\":{p50:.0},\"p99_us\":{p99:.0}}}"
        );
    }
    let event = record(0);
    let (begun, count) = (Instant::now(), 20_000_u32);
    for _ in 0..count {
        trail.append(&event)?;
    }
    println!("{{\"what\":\"append\",\"ns\":{}}}", begun.elapsed().as_nanos() / u128::from(count));
    trail.close()?;
    let events = trail.head().size;
    drop(trail);
    let begun = Instant::now();
    let report = verify(&log, &keys, &Known::default())?;
    let rate = as_f64(events) / begun.elapsed().as_secs_f64();
    println!(
        "{{\"what\":\"verify\",\"events\":{events},\"sound\":{},\"records_s\":{rate:.0},\"segments\":{}}}",
        report.is_sound(),
        report.segments
    );
    let begun = Instant::now();
    let opened = Trail::open(&log, &keys, NodeId::new(Uuid::nil()), Arc::new(SystemClock))?;
    println!("{{\"what\":\"open\",\"events\":{},\"ms\":{:.1}}}", opened.1.events, micros(begun.elapsed()) / 1000.0);
    drop(opened);
    fs::remove_dir_all(dir)?;
    Ok(())
}
