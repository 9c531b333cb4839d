// SPDX-License-Identifier: Apache-2.0
//! The plan of the house, held against the house: who may import whom, who owns which library, and a few rules that no
//! compiler knows. The tables below are the plan; a change of plan is a change here. Every check is also tried on
//! samples that it has to find fault with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Rooms, and the rooms that each may import.
const EDGES: [(&str, &[&str]); 9] = [
    ("domain", &[]),
    ("store", &["domain"]),
    ("policy", &["domain"]),
    ("identity", &["domain", "store"]),
    ("audit", &["domain", "store"]),
    ("governance", &["domain", "store", "policy", "audit"]),
    ("upstream", &["domain", "store", "policy"]),
    ("console", &["domain", "policy"]),
    ("server", &["domain", "store", "policy", "identity", "audit", "governance", "upstream", "console"]),
];

/// Everything that `domain` may stand on.
const WORDS: [&str; 5] = ["serde", "thiserror", "time", "uuid", "zeroize"];

/// Libraries with owners: `one library, one room`. A second room stands here with its reason.
const OWNERS: [(&str, &[&str], &str); 41] = [
    ("sqlx", &["store"], "all SQL"),
    ("casbin", &["policy"], "decides"),
    ("jiff", &["policy"], "time zones of grants' hours"),
    ("percent-encoding", &["policy"], "one place makes paths canonical"),
    ("openidconnect", &["identity"], "sign-in"),
    ("totp-rs", &["identity"], "sign-in"),
    ("webauthn-rs", &["identity"], "sign-in"),
    ("webauthn-rs-proto", &["identity"], "the words of its options"),
    ("argon2", &["identity"], "sign-in"),
    ("qrcode", &["identity"], "enrolment"),
    ("unicode-normalization", &["identity"], "passwords and names"),
    ("zxcvbn", &["identity"], "passwords"),
    (
        "tower-sessions",
        &["identity", "server"],
        "identity owns sessions; the server mounts its layer and hands `Session` on to it",
    ),
    ("postcard", &["audit"], "the encoding of events"),
    ("crc32fast", &["audit"], "frames of the log"),
    ("des", &["console"], "VNC authentication"),
    (
        "quick-xml",
        &["policy", "upstream"],
        "policy reads the calls and documents that are decided on, upstream libvirt's domains",
    ),
    ("rustls-platform-verifier", &["upstream"], "client TLS"),
    ("lettre", &["upstream"], "mail"),
    ("hyper", &["upstream", "server"], "upstream owns the client half, the server the server half"),
    ("hyper-util", &["upstream", "server"], "as hyper"),
    ("rustls", &["upstream", "server"], "upstream owns client TLS, the server owns server TLS"),
    ("tokio-rustls", &["upstream", "server"], "as rustls"),
    ("axum", &["server"], "pages"),
    ("tower", &["server"], "the page router is called as a service"),
    ("tower-http", &["server"], "pages"),
    ("askama", &["server"], "templates"),
    ("rust-embed", &["server"], "assets"),
    ("clap", &["server"], "the command line"),
    ("anyhow", &["server"], "main and verbs; everywhere else in tests only"),
    ("rcgen", &["server"], "`init` and `secrets rotate` make certificates"),
    ("x509-parser", &["upstream"], "what certificates that were met say"),
    ("socket2", &["server"], "listeners"),
    ("tokio-util", &["server"], "tracked tasks"),
    ("prometheus-client", &["server"], "metrics"),
    ("tracing-subscriber", &["server"], "log output"),
    ("ipnet", &["server"], "network zones in the configuration"),
    ("serde_urlencoded", &["server"], "forms"),
    ("governor", &["server"], "limits strangers"),
    ("reqwest", &[], "tests only"),
    ("tokio-tungstenite", &["upstream"], "events of hypervisors come over WebSockets"),
];

/// Owned by a room already, though what needs them comes later.
const LATER: [&str; 1] = ["tower-http"];

/// What stands at the top level beside dotfiles; `target` is cargo's and never committed.
const TOP: [&str; 9] =
    ["Cargo.toml", "Cargo.lock", "README.md", "gateway", "policies", "migrations", "templates", "tests", "deploy"];
const UNTRACKED: [&str; 1] = ["target"];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 9] =
    ["common", "core", "util", "utils", "helper", "helpers", "manager", "misc", "shared_utils"];

/// Longest source file, lines before its tests.
const LONGEST: usize = 500;

/// Files whose first line is the licence (the second one after `#!`).
const LICENSED: [&str; 9] = ["rs", "ts", "mjs", "css", "sql", "sh", "service", "yaml", "Dockerfile"];

/// A text file of the project.
struct Source {
    path: String,
    text: String,
    /// Whether the whole file is there for tests.
    test: bool,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or_default();
        let in_folder = path.split('/').any(|part| part == "tests" || part == "testing");
        let test = in_folder || ["tests.rs", "testing.rs"].contains(&name) || name.contains(".test.");
        Self { path: path.to_owned(), text: text.to_owned(), test }
    }

    fn extension(&self) -> &str {
        let name = self.name();
        name.rsplit_once('.').map_or(name, |(_, e)| e)
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The room that a path below `gateway/` belongs to.
    fn room(&self) -> Option<&str> {
        self.path.strip_prefix("gateway/")?.split('/').next()
    }

    /// The files whose modules this one declares for tests only.
    fn test_files(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").unwrap_or_default();
        let folder = stem.strip_suffix("/mod").or_else(|| stem.strip_suffix("/lib")).unwrap_or(stem);
        let pairs = self.text.lines().zip(self.text.lines().skip(1));
        pairs
            .filter(|(attribute, _)| attribute.trim() == "#[cfg(test)]")
            .filter_map(|(_, item)| {
                item.strip_suffix(';')?.split_once("mod ").map(|(_, name)| format!("{folder}/{name}.rs"))
            })
            .collect()
    }

    /// Lines outside `#[cfg(test)]` items, with their numbers.
    fn lines(&self) -> Vec<(usize, &str)> {
        let mut kept = Vec::new();
        // The indentation of the item that is left out, and whether its body has begun.
        let mut left_out: Option<(&str, bool)> = None;
        for (number, line) in self.text.lines().enumerate() {
            let indentation = &line[..line.len() - line.trim_start().len()];
            left_out = match left_out {
                None if line.trim() == "#[cfg(test)]" => Some((indentation, false)),
                None => {
                    kept.push((number + 1, line));
                    None
                }
                Some((at, true)) => (line.strip_prefix(at) != Some("}")).then_some((at, true)),
                Some((at, false)) if line.trim_start().starts_with('#') => Some((at, false)),
                Some((at, false)) => line.ends_with('{').then_some((at, true)),
            };
        }
        kept
    }

    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().into_iter().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests stand in the project").to_owned()
}

/// Every text file of the project, without what is built, fetched or made by running it.
fn sources() -> Vec<Source> {
    let root = root();
    let (mut waiting, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if [".git", "target", "node_modules", "dist", ".run"].contains(&name.as_str()) {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let relative = path.strip_prefix(&root).expect("below the project");
                found.push(Source::new(&relative.to_string_lossy(), &text));
            }
        }
    }
    assert!(found.len() > 100, "only {} files found: is this the project?", found.len());
    let for_tests: BTreeSet<String> = found.iter().flat_map(Source::test_files).collect();
    for source in &mut found {
        source.test |= for_tests.contains(&source.path);
    }
    found
}

fn manifests() -> BTreeMap<String, toml::Table> {
    EDGES
        .iter()
        .map(|(room, _)| {
            let file = root().join("gateway").join(room).join("Cargo.toml");
            let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            ((*room).to_owned(), text.parse().expect("a manifest"))
        })
        .collect()
}

fn names<'a>(manifest: &'a toml::Table, section: &str) -> Vec<&'a str> {
    manifest
        .get(section)
        .and_then(toml::Value::as_table)
        .map(|t| t.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}

fn wrong_edges(manifests: &BTreeMap<String, toml::Table>) -> Vec<String> {
    let mut faults = Vec::new();
    for (room, may) in EDGES {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in names(&manifests[room], section) {
                let Some(other) = name.strip_prefix("portcullis-") else { continue };
                if !may.contains(&other) {
                    faults.push(format!("{room} may not import {other} ({section}); it may import {may:?}"));
                }
            }
        }
    }
    faults
}

fn wrong_owners(manifests: &BTreeMap<String, toml::Table>) -> Vec<String> {
    let mut faults = Vec::new();
    for (room, manifest) in manifests {
        for name in names(manifest, "dependencies") {
            if let Some((_, owners, why)) = OWNERS.iter().find(|(library, ..)| *library == name)
                && !owners.contains(&room.as_str())
            {
                faults.push(format!("{room} may not use {name}: it belongs to {owners:?} ({why})"));
            }
            if room == "domain" && !WORDS.contains(&name) {
                faults.push(format!("domain stands on {WORDS:?} only, not on {name}"));
            }
        }
    }
    for (library, owners, _) in OWNERS {
        for owner in owners.iter().filter(|_| !LATER.contains(&library)) {
            if manifests.get(*owner).is_some_and(|m| !names(m, "dependencies").contains(&library)) {
                faults.push(format!("{owner} owns {library} and does not use it: take the line out of the table"));
            }
        }
    }
    faults
}

fn loose_manifests(manifests: &BTreeMap<String, toml::Table>) -> Vec<String> {
    let mut faults = Vec::new();
    for (room, manifest) in manifests {
        if manifest.get("lints").and_then(|l| l.get("workspace")).and_then(toml::Value::as_bool) != Some(true) {
            faults.push(format!("{room} does not take the workspace's lints"));
        }
        if manifest.contains_key("features") {
            faults.push(format!("{room} has features: behaviour is configuration"));
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    faults.push(format!("{room} names a version of {name}: versions stand in the workspace"));
                }
            }
        }
    }
    faults
}

fn long_files(sources: &[Source]) -> Vec<String> {
    let measured =
        sources.iter().filter(|s| ["rs", "ts", "html", "css", "mjs", "sh"].contains(&s.extension()) && !s.test);
    measured
        .filter_map(|s| {
            let lines = s.lines().len();
            (lines > LONGEST).then(|| format!("{} has {lines} lines before its tests, at most {LONGEST}", s.path))
        })
        .collect()
}

fn named_statuses(sources: &[Source]) -> Vec<String> {
    find(
        sources,
        |s| s.extension() == "rs" && !s.test && s.room().is_some_and(|r| r != "server"),
        |line| {
            line.contains("StatusCode::").then(|| "names a status: only the server speaks HTTP to people".to_owned())
        },
    )
}

fn foreign_clients(sources: &[Source]) -> Vec<String> {
    find(
        sources,
        |s| s.extension() == "rs" && !s.test && s.room().is_some_and(|r| r != "upstream"),
        |line| {
            ["hyper::client", "hyper_util::client", "TlsConnector", "ClientConfig"]
                .into_iter()
                .find(|client| line.contains(client))
                .map(|client| format!("uses {client}: only upstream calls out"))
        },
    )
}

fn panics(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in
        sources.iter().filter(|s| s.extension() == "rs" && !s.test && s.room().is_some() && s.name() != "build.rs")
    {
        let mut excused = 0;
        for (number, line) in source.code() {
            // An exception names its invariant, and holds for the few lines below it.
            if line.contains("#[expect(clippy::") {
                excused = 8;
            }
            let found =
                [".unwrap()", ".expect(\"", ".expect(&", "panic!(", "todo!(", "unimplemented!(", "unreachable!("];
            if let Some(word) = found.into_iter().find(|w| line.contains(w))
                && excused == 0
            {
                faults.push(format!("{}:{number} has {word} outside tests", source.path));
            }
            excused = usize::saturating_sub(excused, 1);
        }
    }
    faults
}

fn unlicensed(sources: &[Source]) -> Vec<String> {
    let wanted = "SPDX-License-Identifier: Apache-2.0";
    let mut faults = Vec::new();
    for source in sources {
        let script = source.text.starts_with("#!");
        if !script && !LICENSED.contains(&source.extension()) {
            continue;
        }
        if !source.text.lines().nth(usize::from(script)).is_some_and(|line| line.contains(wanted)) {
            faults.push(format!("{} does not begin with {wanted}", source.path));
        }
    }
    faults
}

fn stray_top(entries: &BTreeSet<String>) -> Vec<String> {
    let known = |name: &str| name.starts_with('.') || TOP.contains(&name) || UNTRACKED.contains(&name);
    let stray = entries.iter().filter(|n| !known(n)).map(|n| format!("{n} does not belong to the top level"));
    let missing = TOP.iter().filter(|n| !entries.contains(**n)).map(|n| format!("{n} is missing at the top level"));
    stray.chain(missing).collect()
}

fn machine_paths(sources: &[Source]) -> Vec<String> {
    // In pieces, or this file would be its own finding.
    let banned = [
        concat!("/wor", "k/"),
        concat!("/roo", "t/"),
        concat!("/far", "m/"),
        concat!("../.lib", "rary"),
        concat!("registry.npm", "js.org"),
        concat!("deb.debian", ".org"),
        concat!("index.crates", ".io"),
    ];
    // `/proc/1/root/…` is somebody's root, not this machine's.
    let absolute = |line: &str, path: &str| {
        line.match_indices(path)
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "}_-.".contains(c)))
    };
    find(
        sources,
        |s| s.name() != "Cargo.lock",
        |line| {
            let name = banned.into_iter().find(|b| absolute(line, b))?;
            Some(format!("names {name}, which is another machine's business"))
        },
    )
}

fn empty_names(sources: &[Source]) -> Vec<String> {
    let ours = sources
        .iter()
        .filter(|s| s.path.starts_with("gateway/") || s.path.starts_with("tests/") || s.path.starts_with("templates/"));
    ours.filter_map(|s| {
        let empty =
            s.path.split('/').map(|p| p.split('.').next().unwrap_or_default()).find(|p| EMPTY_NAMES.contains(p))?;
        Some(format!("{}: the name {empty} does not say what is in it", s.path))
    })
    .collect()
}

fn skipped_tests(sources: &[Source]) -> Vec<String> {
    let skips = [concat!("#[ign", "ore]"), concat!("test.sk", "ip("), concat!(".on", "ly("), concat!("it.sk", "ip(")];
    find(
        sources,
        |s| ["rs", "ts", "mjs"].contains(&s.extension()),
        |line| skips.into_iter().find(|s| line.contains(s)).map(|s| format!("has {s} without a reason")),
    )
}

/// Where the keys of the configuration are declared, each a public field.
const CONFIGURATION: [&str; 7] = [
    "gateway/server/src/config.rs",
    "gateway/server/src/config/access.rs",
    "gateway/identity/src/settings.rs",
    "gateway/identity/src/oidc/settings.rs",
    "gateway/identity/src/webauthn/settings.rs",
    "gateway/upstream/src/config.rs",
    "gateway/upstream/src/vault.rs",
];

fn undocumented_keys(sources: &[Source], example: &str) -> Vec<String> {
    let example = with_optional_keys(example);
    let documented = |key: &str| {
        let assigned = format!("{key} = ");
        example.lines().any(|l| l.starts_with(&assigned) || l.trim_matches(['[', ']']).rsplit('.').next() == Some(key))
    };
    let declared = sources.iter().filter(|s| CONFIGURATION.contains(&s.path.as_str())).flat_map(Source::lines);
    declared
        .filter_map(|(_, line)| Some(line.trim().strip_suffix(',')?.strip_prefix("pub ")?.split_once(": ")?.0))
        .filter(|key| !documented(key))
        .map(|key| format!("deploy/portcullis.example.toml does not explain {key}"))
        .collect()
}

/// The example with its optional keys and tables switched on.
fn with_optional_keys(example: &str) -> String {
    let is_key = |line: &str| {
        line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let switch = |line: &str| match line.strip_prefix("# ") {
        Some(optional) if optional.starts_with('[') || is_key(optional) => format!("{optional}\n"),
        _ => format!("{line}\n"),
    };
    example.lines().map(switch).collect()
}

fn find(sources: &[Source], which: impl Fn(&Source) -> bool, fault: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|s| which(s)) {
        faults.extend(
            source.lines().into_iter().filter_map(|(n, line)| Some(format!("{}:{n} {}", source.path, fault(line)?))),
        );
    }
    faults
}

#[test]
fn rooms_import_only_the_rooms_that_the_plan_allows() {
    none(&wrong_edges(&manifests()));
}

#[test]
fn every_library_is_used_by_its_owner_only() {
    none(&wrong_owners(&manifests()));
}

#[test]
fn manifests_take_versions_and_lints_from_the_workspace_and_have_no_features() {
    none(&loose_manifests(&manifests()));
}

#[test]
fn every_member_of_the_workspace_is_in_the_plan() {
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    let workspace: toml::Table = text.parse().expect("a manifest");
    let members = workspace["workspace"]["members"].as_array().expect("members");
    let members: BTreeSet<&str> = members.iter().filter_map(toml::Value::as_str).collect();
    let rooms = EDGES.iter().map(|(room, _)| format!("gateway/{room}")).chain(["tests".to_owned()]).collect::<Vec<_>>();
    assert_eq!(members, rooms.iter().map(String::as_str).collect());
    let known = workspace["workspace"]["dependencies"].as_table().expect("dependencies");
    none(
        &OWNERS
            .iter()
            .filter(|(library, ..)| !known.contains_key(*library) && !LATER.contains(library))
            .map(|(library, ..)| format!("{library} has an owner and no version: take the line out of the table"))
            .chain(
                LATER.iter().filter(|l| known.contains_key(**l)).map(|l| format!("{l} has come: take it out of LATER")),
            )
            .collect::<Vec<_>>(),
    );
}

#[test]
fn no_source_file_is_too_long_to_read() {
    none(&long_files(&sources()));
}

#[test]
fn only_the_server_names_http_statuses() {
    none(&named_statuses(&sources()));
}

#[test]
fn only_upstream_calls_out() {
    none(&foreign_clients(&sources()));
}

#[test]
fn nothing_panics_on_purpose_outside_tests() {
    none(&panics(&sources()));
}

#[test]
fn every_file_says_its_licence_first() {
    none(&unlicensed(&sources()));
}

#[test]
fn the_top_level_stays_bare() {
    let entries = fs::read_dir(root()).expect("the project").flatten();
    none(&stray_top(&entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()));
}

#[test]
fn nothing_names_a_path_or_a_registry_of_some_machine() {
    none(&machine_paths(&sources()));
}

#[test]
fn names_say_what_is_inside() {
    none(&empty_names(&sources()));
}

#[test]
fn no_test_is_skipped_without_a_reason() {
    none(&skipped_tests(&sources()));
}

#[test]
fn the_example_explains_every_key_and_can_be_read_with_and_without_the_optional_ones() {
    let file = root().join("deploy/portcullis.example.toml");
    let example = fs::read_to_string(&file).expect("the example");
    none(&undocumented_keys(&sources(), &example));
    portcullis_server::Config::read(&file, std::iter::empty()).expect("the example as it stands");
    let full = tempfile::NamedTempFile::new().expect("a file");
    fs::write(full.path(), with_optional_keys(&example)).expect("written");
    portcullis_server::Config::read(full.path(), std::iter::empty()).expect("the example with all its keys");
}

mod checks_can_fail {
    use super::*;

    /// The real manifests with one line more in a section of a room's.
    fn with(room: &str, section: &str, line: &str) -> BTreeMap<String, toml::Table> {
        let mut all = manifests();
        let more: toml::Table = line.parse().expect("toml");
        let table = all.get_mut(room).expect("a room").entry(section).or_insert_with(|| toml::Table::new().into());
        table.as_table_mut().expect("a section").extend(more);
        all
    }

    #[track_caller]
    fn one(faults: &[String], word: &str) {
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(word), "{faults:?}");
    }

    /// What a check finds in changed manifests beyond what it finds in the real ones.
    fn beyond(
        check: fn(&BTreeMap<String, toml::Table>) -> Vec<String>,
        changed: &BTreeMap<String, toml::Table>,
    ) -> Vec<String> {
        let before = check(&manifests());
        check(changed).into_iter().filter(|f| !before.contains(f)).collect()
    }

    #[test]
    fn an_edge_that_is_not_in_the_plan() {
        one(
            &beyond(wrong_edges, &with("policy", "dependencies", "portcullis-store.workspace = true")),
            "policy may not import store",
        );
        one(
            &beyond(wrong_edges, &with("domain", "dev-dependencies", "portcullis-audit.workspace = true")),
            "domain may not import audit",
        );
    }

    #[test]
    fn a_library_in_the_wrong_room_and_one_that_nobody_uses_any_more() {
        one(
            &beyond(wrong_owners, &with("governance", "dependencies", "sqlx.workspace = true")),
            "governance may not use sqlx",
        );
        one(&beyond(wrong_owners, &with("domain", "dependencies", "tracing.workspace = true")), "not on tracing");
        one(
            &beyond(wrong_owners, &with("store", "dependencies", "reqwest.workspace = true")),
            "store may not use reqwest",
        );
        let mut all = manifests();
        all.get_mut("console").expect("a room")["dependencies"].as_table_mut().expect("a section").remove("des");
        one(&beyond(wrong_owners, &all), "console owns des");
    }

    #[test]
    fn a_manifest_with_a_version_a_feature_or_no_lints() {
        one(&beyond(loose_manifests, &with("audit", "dependencies", "hex = \"0.4\"")), "names a version of hex");
        one(&beyond(loose_manifests, &with("audit", "features", "fast = []")), "has features");
        let mut all = manifests();
        all.get_mut("store").expect("a room").remove("lints");
        one(&beyond(loose_manifests, &all), "lints");
    }

    #[test]
    fn a_long_file_but_not_a_long_test() {
        let long = "let x = 1;\n".repeat(501);
        one(&long_files(&[Source::new("gateway/store/src/user.rs", &long)]), "501 lines");
        let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let test = Source::new("gateway/store/src/user/tests.rs", &long);
        assert!(long_files(&[Source::new("gateway/store/src/user.rs", &tested), test]).is_empty());
        let after = format!("#[cfg(test)]\nmod tests {{\n    fn a() {{}}\n}}\n{long}");
        one(&long_files(&[Source::new("gateway/store/src/user.rs", &after)]), "501 lines");
        let declared = Source::new("gateway/store/src/lib.rs", &format!("#[cfg(test)]\nmod samples;\n{long}"));
        assert_eq!(declared.test_files(), ["gateway/store/src/samples.rs"]);
        one(&long_files(&[declared]), "501 lines");
        let inner = format!("impl A {{\n    #[cfg(test)]\n    fn b() {{\n    {long}    }}\n}}\n");
        assert_eq!(Source::new("gateway/store/src/user.rs", &inner).lines().len(), 2);
    }

    #[test]
    fn a_status_or_a_client_in_the_wrong_room() {
        let text = "fn a() { StatusCode::OK }\n";
        one(&named_statuses(&[Source::new("gateway/upstream/src/forward.rs", text)]), "names a status");
        assert!(named_statuses(&[Source::new("gateway/server/src/reply.rs", text)]).is_empty());
        let text = "use hyper_util::client::legacy::Client;\n";
        one(&foreign_clients(&[Source::new("gateway/server/src/state.rs", text)]), "only upstream calls out");
        assert!(foreign_clients(&[Source::new("gateway/upstream/src/forward.rs", text)]).is_empty());
    }

    #[test]
    fn a_panic_without_an_invariant() {
        for word in [".unwrap()", ".expect(\"x\")", "panic!(\"x\")", "todo!()", "unimplemented!()"] {
            let text = format!(
                "fn a() {{\n    b{word};\n}}\n// c{word}\n#[cfg(test)]\nmod tests {{\n    fn a() {{ b{word} }}\n}}\n"
            );
            one(&panics(&[Source::new("gateway/store/src/user.rs", &text)]), "user.rs:2");
            assert!(panics(&[Source::new("gateway/store/tests/user.rs", &text)]).is_empty());
        }
        let excused = "#[expect(clippy::expect_used, reason = \"the table is not empty\")]\nlet a = b.expect(\"x\");\n";
        assert!(panics(&[Source::new("gateway/store/src/user.rs", excused)]).is_empty());
    }

    #[test]
    fn a_file_without_a_licence() {
        let spdx = "SPDX-License-Identifier: Apache-2.0";
        one(&unlicensed(&[Source::new("gateway/store/src/user.rs", "//! Users.\n")]), "user.rs");
        one(&unlicensed(&[Source::new("tests/run", "#!/usr/bin/env bash\nset -e\n")]), "tests/run");
        let good = [
            Source::new("a.rs", &format!("// {spdx}\n")),
            Source::new("tests/run", &format!("#!/bin/sh\n# {spdx}\n")),
            Source::new("README.md", "# Portcullis\n"),
        ];
        assert!(unlicensed(&good).is_empty());
    }

    #[test]
    fn something_new_or_missing_at_the_top() {
        let mut entries: BTreeSet<String> =
            TOP.iter().map(ToString::to_string).chain([".git".into(), "target".into()]).collect();
        assert!(stray_top(&entries).is_empty());
        entries.insert("docs".into());
        one(&stray_top(&entries), "docs does not belong");
        entries.remove("docs");
        entries.remove("deploy");
        one(&stray_top(&entries), "deploy is missing");
    }

    #[test]
    fn a_path_of_some_machine_and_a_registry() {
        for bad in [concat!("cd /wor", "k/main"), concat!("https://registry.npm", "js.org/x")] {
            one(&machine_paths(&[Source::new("tests/run", bad)]), "another machine's business");
        }
        let harmless = "see /etc/portcullis, /proc/1/root/run and the framework/ of it";
        assert!(machine_paths(&[Source::new("README.md", harmless)]).is_empty());
    }

    #[test]
    fn a_name_that_says_nothing() {
        for bad in ["gateway/store/src/utils.rs", "gateway/server/src/common/mod.rs", "tests/support/helpers.mjs"] {
            one(&empty_names(&[Source::new(bad, "")]), "does not say what is in it");
        }
        assert!(empty_names(&[Source::new("gateway/store/src/user.rs", "")]).is_empty());
    }

    #[test]
    fn a_test_that_is_skipped_in_silence() {
        let text = concat!("#[ign", "ore]\nfn a() {}\n");
        one(&skipped_tests(&[Source::new("gateway/store/src/user.rs", text)]), "without a reason");
        let reason = concat!("#[ign", "ore = \"an hour\"]\nfn a() {}\n");
        assert!(skipped_tests(&[Source::new("gateway/store/src/user.rs", reason)]).is_empty());
    }

    #[test]
    fn a_key_that_the_example_does_not_explain() {
        let code = Source::new(
            CONFIGURATION[0],
            "pub struct A {\n    pub dir: PathBuf,\n    pub shards: usize,\n    pub tls: Tls,\n}\n",
        );
        assert!(undocumented_keys(&[code], "[tls]\ndir = 1\n# How many.\n# shards = 0\n").is_empty());
        let code = Source::new(CONFIGURATION[0], "pub struct A {\n    pub colour: String,\n}\n");
        one(&undocumented_keys(&[code], "# The colour = of it.\n"), "does not explain colour");
    }
}
