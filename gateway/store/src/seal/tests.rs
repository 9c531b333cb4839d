// SPDX-License-Identifier: Apache-2.0
use super::*;
use std::os::unix::fs::PermissionsExt;

const HERE: Place<'_> = Place { table: "totp_factors", row: "1", column: "secret" };

fn secret() -> Secret {
    Secret::from("JBSWY3DPEHPK3PXP".to_owned())
}

#[test]
fn a_sealed_value_opens_in_its_place_only() {
    let keys = Keys::for_tests();
    let sealed = keys.seal(&HERE, &secret()).unwrap();
    assert_eq!(keys.open(&HERE, &sealed).unwrap().expose(), secret().expose());
    for elsewhere in [
        Place { table: "recordings", ..HERE },
        Place { row: "2", ..HERE },
        Place { column: "name", ..HERE },
        // the same letters, cut elsewhere
        Place { table: "totp_factors1", row: "", column: "secret" },
        Place { table: "totp_factor", row: "s1", column: "secret" },
    ] {
        assert!(matches!(keys.open(&elsewhere, &sealed), Err(Error::Sealed)), "{elsewhere:?}");
    }
    assert!(matches!(Keys::for_tests().open(&HERE, &sealed), Err(Error::Sealed)));
}

#[test]
fn every_changed_or_missing_byte_is_noticed() {
    let keys = Keys::for_tests();
    let sealed = keys.seal(&HERE, &secret()).unwrap();
    for i in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[i] ^= 1;
        assert!(keys.open(&HERE, &changed).is_err(), "byte {i}");
        assert!(keys.open(&HERE, &sealed[..i]).is_err(), "cut at {i}");
    }
}

#[test]
fn two_seals_of_one_secret_differ() {
    let keys = Keys::for_tests();
    assert_ne!(keys.seal(&HERE, &secret()).unwrap(), keys.seal(&HERE, &secret()).unwrap());
}

fn line(version: u32, first: u8) -> String {
    let bytes: Vec<u8> = (0..32).map(|i| first.wrapping_add(i)).collect();
    format!("v{version}:{}\n", STANDARD.encode(bytes))
}

#[test]
fn values_of_an_older_key_open_and_new_ones_use_the_newest() {
    let old = Keys::parse(&line(1, 1)).unwrap();
    let both = Keys::parse(&(line(1, 1) + &line(2, 77))).unwrap();
    let sealed = old.seal(&HERE, &secret()).unwrap();
    assert_eq!(both.open(&HERE, &sealed).unwrap().expose(), secret().expose());
    assert_eq!(both.newest(), 2);
    let mut newer = both.seal(&HERE, &secret()).unwrap();
    assert!(matches!(old.open(&HERE, &newer), Err(Error::Sealed)));
    // the version in front is bound: one cannot be passed for the other, even under equal keys
    let equal = Keys::parse(&(line(1, 77) + &line(2, 77))).unwrap();
    newer[3] = 1;
    assert!(equal.open(&HERE, &newer).is_err());
}

#[test]
fn derived_keys_differ_by_label_and_survive_rotation() {
    let old = Keys::parse(&line(1, 1)).unwrap();
    let both = Keys::parse(&(line(1, 1) + &line(2, 77))).unwrap();
    assert_eq!(old.derive("a").expose(), both.derive("a").expose());
    assert_ne!(old.derive("a").expose(), old.derive("b").expose());
    assert_eq!(old.derive("a").expose().len(), 32);
}

fn write(text: &str, mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (dir, path)
}

fn why(path: &Path) -> String {
    let error = Keys::load(path).expect_err("this file is refused");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    error.to_string()
}

#[test]
fn a_made_file_is_private_loads_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let made = Keys::create(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
    let sealed = made.seal(&HERE, &secret()).unwrap();
    assert!(Keys::load(&path).unwrap().open(&HERE, &sealed).is_ok());
    let before = std::fs::read(&path).unwrap();
    assert!(Keys::create(&path).err().unwrap().to_string().contains("exists already"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn files_that_cannot_be_trusted_are_refused_with_what_to_do() {
    let good = line(1, 1);
    let equal = format!("v1:{}\n", STANDARD.encode([7; 32]));
    let short = format!("v1:{}\n", STANDARD.encode([7; 31]));
    for (text, mode, says) in [
        (good.as_str(), 0o440, "chmod 0400"),
        (&good, 0o404, "chmod 0400"),
        (&good, 0o420, "chmod 0400"),
        (&short, 0o400, "31 bytes"),
        (&equal, 0o400, "all equal"),
        ("", 0o400, "empty"),
        ("v1:!!!\n", 0o400, "line 1"),
        ("v1\n", 0o400, "line 1"),
        ("x1:AAAA\n", 0o400, "line 1"),
        ("v0:AAAA\n", 0o400, "line 1"),
        ("v+1:AAAA\n", 0o400, "line 1"),
        (&(good.clone() + "# remark\n"), 0o400, "line 2"),
        (&(good.clone() + &good), 0o400, "twice"),
        (&line(2, 1), 0o400, "v1 is missing"),
    ] {
        let (_dir, path) = write(text, mode);
        assert!(why(&path).contains(says), "{text:?} {mode:o}: {}", why(&path));
        assert!(!why(&path).contains(&STANDARD.encode([7; 8])[..8]), "a message repeats key bytes");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(why(&dir.path().join("none")).contains("portcullis init"));
    assert!(why(dir.path()).contains("not a regular file"));
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let (_dir, path) = write(&line(1, 1), 0o400);
    // Only root can give a file away; elsewhere the owner is always ourselves.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert!(why(&path).contains("belongs to user 65534"));
    }
}
