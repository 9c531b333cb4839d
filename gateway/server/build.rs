// SPDX-License-Identifier: Apache-2.0
//! Builds what runs in the browser, so that the program can embed it: `npm ci`, then `npm run build`, and only when
//! something changed. What was built from is written down as a digest beside the result; a checkout that brings the
//! result along (a source package) builds without npm.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash as _, Hasher as _},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

/// Files and folders below `gateway/web` that the result is made of.
const SOURCES: [&str; 5] = ["package.json", "package-lock.json", "tsconfig.json", "build.mjs", "src"];

fn main() {
    let web = Path::new("../web");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", web.join(source).display());
    }
    // Gone with the result: then it is built again.
    println!("cargo::rerun-if-changed={}", web.join("dist/.built").display());
    if let Err(message) = build(web) {
        println!("cargo::error={message}");
    }
}

fn build(web: &Path) -> Result<(), String> {
    let sources = digest(web).map_err(|e| format!("gateway/web cannot be read: {e}"))?;
    let built = web.join("dist/.built");
    if fs::read_to_string(&built).is_ok_and(|b| b == sources) {
        return Ok(());
    }
    if !runs("npm") {
        return if newer(web) {
            println!(
                "cargo::warning=npm is not installed; gateway/web/dist is newer than its sources and is used as it is"
            );
            Ok(())
        } else {
            Err("npm is not installed, and the browser's part of the program (gateway/web) has to be built. \
                 Install Node.js 18 or newer with npm (on Debian: apt-get install nodejs npm) and build again."
                .into())
        };
    }
    // The same mark as the scripts of deploy/ and tests/ leave, so that nothing is installed twice.
    let lock = fs::read(web.join("package-lock.json")).map_err(|e| format!("gateway/web/package-lock.json: {e}"))?;
    let installed = web.join("node_modules/.installed-lock");
    if !fs::read(&installed).is_ok_and(|i| i == lock) {
        npm(web, &["ci", "--include=dev", "--no-audit", "--no-fund"])?;
        fs::write(&installed, &lock).map_err(|e| format!("{} cannot be written: {e}", installed.display()))?;
    }
    npm(web, &["run", "--silent", "build"])?;
    stamp(&built, &sources)
}

/// Writes a stamp that is older than this run, or cargo would take it for a change and run us once more.
fn stamp(file: &Path, text: &str) -> Result<(), String> {
    let write = || -> io::Result<()> {
        fs::write(file, text)?;
        fs::File::options().write(true).open(file)?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
    };
    write().map_err(|e| format!("{} cannot be written: {e}", file.display()))
}

fn runs(program: &str) -> bool {
    command(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

fn npm(web: &Path, arguments: &[&str]) -> Result<(), String> {
    let words = arguments.join(" ");
    let output = command("npm")
        .args(arguments)
        .current_dir(web)
        .output()
        .map_err(|e| format!("npm {words} in gateway/web did not start: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    // One line a message: cargo shows the first only. What names an error comes first; the rest is the program's own.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let named: Vec<&str> = lines.iter().copied().filter(|l| l.to_lowercase().contains("error")).take(4).collect();
    let last: Vec<&str> = lines.iter().rev().take(4).rev().copied().collect();
    let told = if named.is_empty() { last } else { named }.join(" | ");
    Err(format!("npm {words} in gateway/web failed ({}): {told}", output.status))
}

#[expect(clippy::disallowed_methods, reason = "the build starts npm; the gateway itself starts nothing")]
fn command(program: &str) -> Command {
    Command::new(program)
}

/// Every source file, in order.
fn files(web: &Path) -> io::Result<Vec<PathBuf>> {
    let mut waiting: Vec<PathBuf> = SOURCES.iter().map(|n| web.join(n)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A digest of the names and bytes of the sources; it only has to notice a change.
fn digest(web: &Path) -> io::Result<String> {
    let mut hasher = DefaultHasher::new();
    for file in files(web)? {
        file.strip_prefix(web).unwrap_or(&file).hash(&mut hasher);
        fs::read(&file)?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Whether the result is there and newer than everything that it is made of.
fn newer(web: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let made = ["app.js", "app.css", "console.js", "console.css"].iter().map(|n| modified(&web.join("dist").join(n)));
    let made: Option<Vec<SystemTime>> = made.collect();
    let oldest = made.and_then(|m| m.into_iter().min());
    let newest = files(web).ok().and_then(|f| f.iter().filter_map(|p| modified(p)).max());
    oldest.zip(newest).is_some_and(|(made, source)| made >= source)
}
