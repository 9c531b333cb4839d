// SPDX-License-Identifier: Apache-2.0
//! Which secret is in use, and what changes it.

use super::*;
use portcullis_domain::SystemClock;
use std::{io::Write as _, path::Path};

fn text(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = std::fs::File::create(path).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn common() -> Common {
    serde_json::from_str(r#"{"name":"lab"}"#).unwrap()
}

fn short(secret: &Secret) -> Result<(), String> {
    if secret.expose().len() < 10 { Ok(()) } else { Err("is too long".to_owned()) }
}

fn hold(kept: &Kept, source: Source) -> Result<Arc<Held>, Error> {
    Site { common: common(), credential: DEFAULT, kept, held: Vec::new() }.hold("password", source, short)
}

fn value(held: &Held) -> String {
    held.value().map_or_else(|f| f.to_string(), |s| s.expose_text().unwrap().to_owned())
}

#[test]
fn the_credential_for_an_action_is_the_only_one_for_it() {
    let others = vec![
        (vec![Duty::Console], "console"),
        (vec![Duty::Action(Action::Power), Duty::Action(Action::Snapshot)], "power"),
    ];
    let choice = Choice { default: "default", others };
    for action in Action::ALL.iter().filter(|a| a.is_console()) {
        assert_eq!(*choice.of(*action), "console");
    }
    assert_eq!((*choice.of(Action::Power), *choice.of(Action::Snapshot)), ("power", "power"));
    for action in [Action::View, Action::Configure, Action::Destroy, Action::AccessAdmin] {
        assert_eq!(*choice.of(action), "default");
    }
    assert_eq!(choice.all().count(), 3);
}

#[tokio::test]
async fn what_cannot_be_read_or_does_not_fit_leaves_the_last_good_one_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    write(&file, "one\n");
    let held = hold(&Kept::default(), Source::File(file.clone())).unwrap();
    let secrets = Secrets::default();
    secrets.take_in(vec![Arc::clone(&held)]);
    assert_eq!(value(&held), "one");
    assert!(secrets.refresh(None, &SystemClock).await.changed.is_empty(), "nothing changed");
    write(&file, "two");
    assert_eq!(secrets.refresh(None, &SystemClock).await.changed.len(), 1);
    assert_eq!(value(&held), "two");
    for broken in ["far too long to fit", ""] {
        write(&file, broken);
        let done = secrets.refresh(None, &SystemClock).await;
        assert!(done.changed.is_empty() && done.failed.len() == 1, "{done:?}");
        assert_eq!(value(&held), "two");
        assert!(secrets.states()[0].trouble.is_some() && secrets.states()[0].is_there);
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(secrets.refresh(None, &SystemClock).await.failed.len(), 1);
    assert_eq!(value(&held), "two");
    write(&file, "three");
    secrets.refresh(None, &SystemClock).await;
    assert_eq!((value(&held).as_str(), secrets.states()[0].trouble.clone()), ("three", None));
}

#[tokio::test]
async fn a_rotated_secret_counts_before_its_source_until_it_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    let name = SecretName { hypervisor: "lab".parse().unwrap(), credential: DEFAULT.to_owned() };
    let kept = Kept::from([(name.clone(), text("rotated"))]);
    // The file may be gone.
    let held = hold(&kept, Source::File(file.clone())).unwrap();
    let secrets = Secrets::default();
    secrets.take_in(vec![Arc::clone(&held)]);
    assert_eq!((value(&held).as_str(), secrets.states()[0].origin), ("rotated", Origin::Store));
    write(&file, "file");
    assert!(secrets.refresh(None, &SystemClock).await.changed.is_empty(), "it is not asked");
    assert_eq!(held.replace(text("file"), Origin::Source, None), Ok(false), "nor by whoever asked before");
    assert_eq!(value(&held), "rotated");
    let now = SystemClock.now();
    assert_eq!(secrets.take(&name, &text("again"), now), Ok(true));
    assert_eq!(secrets.take(&name, &text("again"), now), Ok(false));
    assert!(secrets.take(&name, &text("far too long to fit"), now).is_err());
    assert_eq!(value(&held), "again");
    assert!(secrets.release(&name));
    assert_eq!(value(&held), "again", "until the source was read");
    secrets.refresh(None, &SystemClock).await;
    assert_eq!(value(&held), "file");
    let other = SecretName { hypervisor: "lab".parse().unwrap(), credential: "console".to_owned() };
    assert!(!secrets.release(&other));
    assert_eq!(secrets.take(&other, &text("x"), now), Ok(false));
}

#[test]
fn one_of_the_environment_is_read_and_one_of_a_vault_is_a_fault_until_it_was_fetched() {
    let all: Vec<(String, String)> = std::env::vars().filter(|(_, v)| (1..10).contains(&v.len())).collect();
    let (name, expected) = all.first().expect("a short variable");
    assert_eq!(value(&hold(&Kept::default(), Source::Environment(name.clone())).unwrap()), *expected);
    let none = hold(&Kept::default(), Source::Environment("PORTCULLIS_NO_SUCH".to_owned()));
    let why = none.map(drop).unwrap_err().to_string();
    assert!(why.starts_with("hypervisors.lab.password: ") && why.contains("PORTCULLIS_NO_SUCH"), "{why}");
    let vault = Source::Vault { path: "a/b".to_owned(), key: "c".to_owned() };
    let held = hold(&Kept::default(), vault).unwrap();
    // Whoever asked for something is not told where it would be.
    assert!(value(&held).contains("no credential") && !value(&held).contains("a/b"), "{}", value(&held));
}

#[tokio::test]
async fn what_is_made_of_a_secret_is_made_anew_when_it_changes() {
    let held = Held::for_tests("one");
    let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let derived = Derived::new(Arc::clone(&held), move |secret| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(format!("<{}>", secret.expose_text().unwrap()))
    });
    assert_eq!((derived.now().unwrap().1.as_str(), derived.now().unwrap().1.as_str()), ("<one>", "<one>"));
    assert_eq!(made.load(Ordering::Relaxed), 1);
    held.replace(text("two"), Origin::Source, None).unwrap();
    assert_eq!(derived.now().unwrap().1, "<two>");
    assert_eq!(made.load(Ordering::Relaxed), 2);
}
