// SPDX-License-Identifier: Apache-2.0
//! People who sign in as fast as they are let: password, the form for the code, the code. And the work that none of it
//! can be faster than: the password's hash.

use crate::{
    accounts::{AUTHENTICATOR, PASSWORD, hasher},
    wire::{self, Stream},
};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use portcullis_domain::{Clock as _, SystemClock};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

#[derive(Args)]
pub(crate) struct SignIn {
    /// host:port of a portal without TLS
    #[arg(long)]
    target: String,
    /// The Host that the portal answers to
    #[arg(long)]
    host: String,
    /// How many people there are
    #[arg(long)]
    people: u32,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// How many sign in at the same time
    #[arg(long, default_value_t = 4)]
    at_once: u32,
    #[arg(long)]
    seconds: f64,
}

#[derive(Args)]
pub(crate) struct Hash {
    #[arg(long, default_value_t = 1)]
    threads: u32,
    #[arg(long)]
    seconds: f64,
}

impl Hash {
    pub(crate) fn run(self) -> Result<()> {
        let time = Duration::from_secs_f64(self.seconds);
        let begun = Instant::now();
        let work = move || -> Result<u32> {
            let (hasher, mut done, mut out) = (hasher()?, 0, [0; 32]);
            while begun.elapsed() < time {
                hasher
                    .hash_password_into(PASSWORD.as_bytes(), b"0123456789abcdef", &mut out)
                    .map_err(|e| anyhow::anyhow!("{e}"))?;
                done += 1;
            }
            Ok(done)
        };
        let threads: Vec<_> = (0..self.threads).map(|_| std::thread::spawn(work)).collect();
        let mut hashes = 0;
        for thread in threads {
            hashes += thread.join().map_err(|_| anyhow::anyhow!("a thread ended"))??;
        }
        println!("{}", serde_json::json!({ "hashes": hashes, "seconds": begun.elapsed().as_secs_f64() }));
        Ok(())
    }
}

impl SignIn {
    pub(crate) async fn run(self) -> Result<()> {
        let time = Duration::from_secs_f64(self.seconds);
        let next = Arc::new(AtomicU32::new(self.first));
        let begun = Instant::now();
        let mut tasks: JoinSet<Result<u32>> = JoinSet::new();
        for _ in 0..self.at_once {
            let next = Arc::clone(&next);
            let mut browser = Browser {
                stream: wire::connect(&self.target, None).await?,
                host: self.host.clone(),
                cookie: String::new(),
            };
            let people = self.people;
            tasks.spawn(async move {
                let mut done = 0;
                while begun.elapsed() < time {
                    let n = next.fetch_add(1, Ordering::Relaxed) % people;
                    browser.sign_in(&format!("p{n}")).await?;
                    done += 1;
                }
                Ok(done)
            });
        }
        let mut done = 0;
        while let Some(ended) = tasks.join_next().await {
            done += ended??;
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{}",
            serde_json::json!({ "sign_ins": done, "seconds": seconds, "next": next.load(Ordering::Relaxed) })
        );
        Ok(())
    }
}

/// One connection and one cookie.
struct Browser {
    stream: Box<dyn Stream>,
    host: String,
    cookie: String,
}

struct Page {
    head: String,
    body: String,
}

impl Browser {
    async fn sign_in(&mut self, name: &str) -> Result<()> {
        self.cookie.clear();
        let page = self
            .send("POST", "/sign-in", &format!("name={name}&password={}&next=%2F", PASSWORD.replace(' ', "+")))
            .await?;
        ensure!(page.head.contains("/sign-in/code"), "{name}: the password was not taken: {}{}", page.head, page.body);
        let form = self.send("GET", "/sign-in/code", "").await?;
        let csrf = field(&form.body, "csrf").with_context(|| format!("no csrf field in {}", form.body))?.to_owned();
        let code = code()?;
        let page = self.send("POST", "/sign-in/code", &format!("csrf={csrf}&code={code}&next=%2F")).await?;
        ensure!(page.head.starts_with("HTTP/1.1 303"), "{name}: the code was not taken: {}{}", page.head, page.body);
        Ok(())
    }

    async fn send(&mut self, method: &str, path: &str, form: &str) -> Result<Page> {
        let Self { stream, host, cookie } = self;
        let more = match method {
            "POST" => format!(
                "Origin: https://{host}\r\nSec-Fetch-Site: same-origin\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
                form.len()
            ),
            _ => String::new(),
        };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n{more}\r\n{form}");
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the portal closed the connection");
        };
        let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
        let mut length = 0;
        for line in head.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse()?,
                "transfer-encoding" => bail!("a chunked page, which this client does not read"),
                "set-cookie" => value.split(';').next().unwrap_or_default().trim().clone_into(cookie),
                _ => {}
            }
        }
        while bytes.len() < end + length {
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the portal closed the connection");
        }
        let body = String::from_utf8_lossy(bytes.get(end..).unwrap_or_default()).into_owned();
        Ok(Page { head, body })
    }
}

/// The value of the input with a name.
fn field<'a>(html: &'a str, name: &str) -> Option<&'a str> {
    let tag = html.split('<').find(|tag| tag.contains(&format!("name=\"{name}\"")))?;
    tag.split_once("value=\"")?.1.split('"').next()
}

fn code() -> Result<String> {
    let app = totp_rs::Builder::new().with_secret(AUTHENTICATOR.to_vec()).build();
    let app = app.map_err(|e| anyhow::anyhow!("{e:?}"))?;
    Ok(app.generate(u64::try_from(SystemClock.now().unix_timestamp())?).to_string())
}
