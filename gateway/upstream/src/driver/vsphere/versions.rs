// SPDX-License-Identifier: Apache-2.0
//! Which releases of the API a server speaks: `GET /sdk/vimServiceVersions.xml`, which it tells to anybody.

use super::is_release;
use crate::{
    desk::Center,
    driver::{LIST, rest::Call},
};
use http::Method;
use quick_xml::{Reader, events::Event};

/// The largest list, in bytes.
const MAX: usize = 64 * 1024;
/// The most releases.
const MOST: usize = 200;

/// The newest release, and older ones.
pub(super) async fn ask(center: &Center) -> Option<(String, Vec<String>)> {
    let call = Call { method: Method::GET, target: "/sdk/vimServiceVersions.xml", body: None, patience: LIST };
    let told = call.send(&center.dialer, &center.host).await.ok().filter(|t| t.status.is_success())?;
    read(str::from_utf8(&told.text).ok()?)
}

fn read(text: &str) -> Option<(String, Vec<String>)> {
    let mut reader = Reader::from_str(text.get(..MAX).map_or(text, |_| ""));
    let (mut path, mut is_ours): (Vec<String>, bool) = (Vec::new(), false);
    let mut found = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => path.push(start.local_name().as_ref().to_owned()),
            Event::End(_) => drop(path.pop()),
            Event::Text(text) => match path.last().map(String::as_str) {
                Some("name") => is_ours = text.trim() == "urn:vim25",
                Some("version") if is_ours && is_release(text.trim()) => found.push(text.trim().to_owned()),
                _ => {}
            },
            Event::Eof => break,
            Event::DocType(_) => return None,
            _ => {}
        }
        if found.len() > MOST || path.len() > 8 {
            return None;
        }
    }
    let mut all = found.into_iter();
    Some((all.next()?, all.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_stands_first_and_other_services_do_not_count() {
        let list = "<?xml version='1.0'?><namespaces version='1.0'>
            <namespace><name>urn:vim25</name><version>8.0.3.0</version>
            <priorVersions><version>8.0.2.0</version><version>6.5</version><version>a b</version></priorVersions></namespace>
            <namespace><name>urn:pbm</name><version>9.9</version></namespace></namespaces>";
        assert_eq!(read(list), Some(("8.0.3.0".to_owned(), vec!["8.0.2.0".to_owned(), "6.5".to_owned()])));
        for bad in ["", "<namespaces/>", "<!DOCTYPE x><namespaces/>", "<namespace><name>urn:vim25</name>"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
