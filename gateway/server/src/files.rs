// SPDX-License-Identifier: Apache-2.0
//! The version of the policy files that this node has in effect. A shell takes versions over; every node sees within a
//! second that there is a newer one. One that cannot be read changes nothing here, and is told once.

use crate::state::{House, chain};
use portcullis_governance::{By, Change, Error, Files, Grants, rights_of, take_rights};
use portcullis_policy::Engine;
use portcullis_store::Store;
use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// The longest file of a policy, in bytes: some 100,000 rows.
const LONGEST: u64 = 16 * 1024 * 1024;

/// What this node has in effect.
#[derive(Debug, Default)]
pub(crate) struct InEffect {
    number: AtomicU32,
    refused: AtomicU32,
}

impl InEffect {
    /// The version in effect as the gateway starts. Without one that can be read it does not start: what comes with the
    /// gateway might give more.
    pub(crate) async fn first(engine: &Engine, store: &Store) -> Result<Self, String> {
        let version = store.policy_version().await.map_err(|e| chain(&e))?;
        take_rights(engine, version.as_ref())
            .await
            .map_err(|e| format!("{}: take an older version over again with: portcullis policy rollback", chain(&e)))?;
        let number = AtomicU32::new(version.map_or(0, |v| v.number));
        Ok(Self { number, refused: AtomicU32::new(0) })
    }
}

/// Rows of grants and groups that could not be read: whoever depends on one is denied everything, and the trail tells of
/// each once.
#[derive(Default)]
pub(crate) struct Unread(Mutex<BTreeMap<String, bool>>);

impl Unread {
    /// Takes what a look at the store found.
    pub(crate) fn hear(&self, rows: &[String]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for why in rows {
            known.entry(why.clone()).or_default();
        }
    }

    /// What was not told yet.
    fn news(&self) -> Vec<String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let news = known.iter_mut().filter(|(_, told)| !**told);
        news.map(|(why, told)| {
            *told = true;
            why.clone()
        })
        .collect()
    }
}

/// Reads a file, or the `*.csv` of a folder and the `*.toml` of its `tests`.
pub(crate) fn read(path: &Path) -> io::Result<Files> {
    let told = |at: &Path, error: &io::Error| io::Error::new(error.kind(), format!("{}: {error}", at.display()));
    let text = |file: &Path| whole(file).map_err(|e| told(file, &e));
    let name = |file: &Path| file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut files = Files::default();
    if path.is_file() {
        files.0.insert(name(path), text(path)?);
        return Ok(files);
    }
    for (folder, kind, before) in [(path.to_owned(), "csv", ""), (path.join("tests"), "toml", "tests/")] {
        if kind == "toml" && !folder.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(|e| told(&folder, &e))? {
            let file = entry?.path();
            if file.extension().is_some_and(|e| e == kind) {
                files.0.insert(format!("{before}{}", name(&file)), text(&file)?);
            }
        }
    }
    Ok(files)
}

/// A file of the policy: at most [`LONGEST`] bytes, and a file (a pipe would be waited for).
fn whole(path: &Path) -> io::Result<String> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if !std::fs::metadata(path)?.is_file() {
        return Err(wrong("it is no file".to_owned()));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST { Err(wrong(format!("it is longer than {LONGEST} bytes"))) } else { Ok(text) }
}

/// Whether nobody may write to the file system that a folder is on.
fn is_read_only(folder: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statvfs(folder)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Refuses a folder, or a file in it, that everybody on this machine may write: it says who may do what. A folder of a
/// file system that nobody may write counts as closed, whatever its mode says (Kubernetes mounts its own so).
fn check_writers(folder: &Path, is_read_only: impl Fn(&Path) -> io::Result<bool>) -> io::Result<()> {
    let open_to_all = |path: &Path| Ok::<_, io::Error>(std::fs::metadata(path)?.mode() & 0o002 != 0);
    let refuse = |path: &Path| {
        let path = path.display();
        let why = format!("{path} can be written by everybody: chmod o-w {path}");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    };
    if is_read_only(folder)? {
        return Ok(());
    }
    if open_to_all(folder)? {
        return refuse(folder);
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if open_to_all(&path)? {
            return refuse(&path);
        }
    }
    Ok(())
}

/// Whether the tests of a set hold; which do not, where some do not.
pub(crate) async fn try_tests(files: &Files) -> Result<(), String> {
    let set = files.set().map_err(|e| e.to_string())?;
    let engine = Engine::load(&rights_of(&set)).await.map_err(|e| e.to_string())?;
    let told = crate::files_tests::run(&engine, &set, files).map_err(|e| e.to_string())?;
    if told.failed.is_empty() { Ok(()) } else { Err(told.failed.join("\n")) }
}

/// Reads a folder that is the only source of the policy, if it may be taken over. Nothing is written.
pub(crate) async fn examine(folder: &Path) -> Result<Files, String> {
    check_writers(folder, is_read_only).map_err(|e| e.to_string())?;
    let files = read(folder).map_err(|e| e.to_string())?;
    try_tests(&files).await?;
    Ok(files)
}

/// Who else may change a folder: its owner may, whatever its mode says. None where that is the gateway's user, or root,
/// who may anyway.
pub(crate) fn foreign_owner(folder: &Path, own: u32) -> io::Result<Option<u32>> {
    let owner = std::fs::metadata(folder)?.uid();
    Ok(Some(owner).filter(|owner| *owner != own && *owner != 0))
}

impl House {
    /// Writes down what of the policy cannot be read.
    pub(crate) fn tell_unread(&self) {
        for why in self.unread.news() {
            self.note("alarm", "a grant or a group cannot be read: whoever depends on it is denied everything", &why);
        }
    }

    /// Takes the folder over that is the only source of the policy, as the gateway starts. What cannot be taken leaves
    /// the last good version in effect, with an alarm.
    pub(crate) async fn take_folder(&self) -> Result<(), portcullis_store::Error> {
        let Some(folder) = self.config.policy.directory.as_deref() else { return Ok(()) };
        match self.try_folder(folder).await {
            Ok(()) => self.take_policy().await,
            Err(why) => {
                tracing::error!(why, folder = %folder.display(), "the policy keeps its last good version");
                let words = format!("the policy's folder {} is not taken over", folder.display());
                self.note("alarm", &words, &why);
                Ok(())
            }
        }
    }

    async fn try_folder(&self, folder: &Path) -> Result<(), String> {
        let files = examine(folder).await?;
        let said = |error: Error| chain(&error);
        let plan = self.grants.plan(&self.engine, &files).await.map_err(said)?;
        let version = self.store.policy_version().await.map_err(|e| chain(&e))?;
        if plan.is_empty() && version.is_some_and(|v| v.hash == Grants::hash_of(&files)) {
            return Ok(());
        }
        let why = "the folder, as the gateway started";
        let change = Change::Files(files.clone(), why.to_owned());
        if let Some(why) = self.grants.needs_second(&self.engine, &change).await.map_err(said)? {
            return Err(format!("it takes two people ({why}): propose it with: portcullis policy apply"));
        }
        let words = format!("version {} with SHA-256 {} is taken over: {why}", plan.number, plan.hash);
        if !self.note_about("policy", "gateway:policy", &words).await {
            return Err("its event could not be written".to_owned());
        }
        self.grants.apply(&self.engine, By::Shell, &files, why).await.map_err(said)?;
        Ok(())
    }

    /// Takes a newer version over, if there is one.
    pub(crate) async fn take_policy(&self) -> Result<(), portcullis_store::Error> {
        let newest = self.store.policy_number().await?;
        if newest == self.policy.number.load(Ordering::Acquire) || newest == self.policy.refused.load(Ordering::Acquire)
        {
            return Ok(());
        }
        let version = self.store.policy_version().await?;
        match take_rights(&self.engine, version.as_ref()).await {
            Ok(()) => self.policy.number.store(newest, Ordering::Release),
            Err(error) => {
                self.policy.refused.store(newest, Ordering::Release);
                tracing::error!(error = %chain(&error), version = newest, "the policy keeps its last good version");
                self.note("alarm", &format!("version {newest} of the policy cannot be taken"), &chain(&error));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn a_folder_that_everybody_may_write_and_what_is_no_file_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a.csv");
        fs::write(&file, "g2, machine/view, viewer\n").expect("written");
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
        mode(&file, 0o664);
        mode(dir.path(), 0o755);
        let check = |folder: &Path| check_writers(folder, is_read_only);
        assert!(check(dir.path()).is_ok());
        assert_eq!(read(dir.path()).expect("read").0.len(), 1);
        for path in [file.as_path(), dir.path()] {
            let before = fs::metadata(path).expect("there").permissions().mode();
            mode(path, before | 0o002);
            let why = check(dir.path()).expect_err("refused").to_string();
            assert!(why.contains("chmod o-w"), "{why}");
            assert!(check_writers(dir.path(), |_| Ok(true)).is_ok(), "nobody may write there");
            assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1, "nothing was written to find out");
            mode(path, before);
        }
        let owner = fs::metadata(dir.path()).expect("there").uid();
        assert_eq!(foreign_owner(dir.path(), owner).expect("read"), None);
        let other = foreign_owner(dir.path(), owner + 1).expect("read");
        assert_eq!(other, Some(owner).filter(|owner| *owner != 0), "root may anyway");
        fs::create_dir(dir.path().join("b.csv")).expect("made");
        assert!(read(dir.path()).expect_err("refused").to_string().contains("no file"));
        fs::remove_dir(dir.path().join("b.csv")).expect("removed");
        fs::File::create(&file).expect("made").set_len(LONGEST + 1).expect("long");
        assert!(read(dir.path()).expect_err("refused").to_string().contains("longer than"));
    }
}
