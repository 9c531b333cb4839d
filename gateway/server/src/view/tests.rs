// SPDX-License-Identifier: Apache-2.0
//! Every page, filled in every way, held against the rules of all pages.

use super::{
    Tone, When, device,
    samples::{Fill, Rendered, pages},
    size, span,
};
use time::{Duration, macros::datetime};

fn all() -> Vec<Rendered> {
    [Fill::Plain, Fill::Hostile, Fill::Empty].into_iter().flat_map(pages).collect()
}

/// A tag as written, with its attributes; our templates never put `>` into an attribute, and values are escaped.
fn tags<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let open = format!("<{name}");
    html.match_indices(&open)
        .filter_map(|(at, _)| {
            let rest = &html[at..];
            let after = rest.as_bytes().get(open.len())?;
            (after.is_ascii_whitespace() || *after == b'>').then(|| &rest[..=rest.find('>').unwrap_or(rest.len() - 1)])
        })
        .collect()
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    tag[start..].split('"').next()
}

#[test]
fn nothing_from_data_becomes_markup() {
    for page in all() {
        let html = page.html.replace("&#34;", "").replace("&#60;", "");
        for raw in ["<script>alert", "<img src=x", "onerror=alert(1)>"] {
            assert!(!page.html.contains(raw), "{} {:?}: {raw}", page.name, page.fill);
        }
        for tag in tags(&html, "script") {
            assert!(tag.contains("type=\"module\" src=\"/assets/"), "{}: {tag}", page.name);
        }
        for attribute in [" onclick=", " onload=", " style=", "javascript:"] {
            assert!(!html.contains(attribute), "{}: {attribute}", page.name);
        }
        assert!(tags(&html, "style").is_empty(), "{}: inline style", page.name);
    }
}

#[test]
fn each_hostile_page_shows_its_data_as_text() {
    for page in pages(Fill::Hostile) {
        // The page for a recovery code shows no data of ours but its problem.
        let marks = ["&#60;script&#62;alert(1)", "&#34;&#62;&#60;img"];
        assert!(marks.iter().any(|m| page.html.contains(m)), "{}: hostile data is missing", page.name);
    }
}

#[test]
fn each_page_has_one_heading_a_language_a_title_and_a_main_part() {
    for page in all() {
        assert_eq!(tags(&page.html, "h1").len(), 1, "{}", page.name);
        assert_eq!(tags(&page.html, "main").len(), 1, "{}", page.name);
        assert!(page.html.contains("<html lang=\"en\">"), "{}", page.name);
        assert!(page.html.contains("href=\"#main\""), "{}", page.name);
        let title = page.html.split("<title>").nth(1).and_then(|t| t.split("</title>").next()).unwrap_or_default();
        assert!(title.ends_with(" · Portcullis") && title.len() > " · Portcullis".len(), "{}: {title}", page.name);
    }
}

#[test]
fn each_field_has_a_label() {
    for page in all() {
        for name in ["input", "select", "textarea"] {
            for tag in tags(&page.html, name) {
                if attribute(tag, "type") == Some("hidden") || attribute(tag, "aria-label").is_some() {
                    continue;
                }
                let id = attribute(tag, "id").unwrap_or_else(|| panic!("{}: {tag} has no id", page.name));
                assert!(page.html.contains(&format!("for=\"{id}\"")), "{}: {id} has no label", page.name);
            }
        }
    }
}

#[test]
fn ids_are_unique_and_references_lead_somewhere() {
    for page in all() {
        let ids: Vec<&str> = page.html.split('<').filter_map(|t| attribute(t.split('>').next()?, "id")).collect();
        let mut unique = ids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(ids.len(), unique.len(), "{}: an id stands there twice: {ids:?}", page.name);
        for tag in page.html.split('<') {
            let tag = tag.split('>').next().unwrap_or_default();
            for name in ["aria-describedby", "aria-labelledby", "aria-controls", "list"] {
                for id in attribute(tag, name).unwrap_or_default().split_whitespace() {
                    assert!(ids.contains(&id), "{}: {name} names {id}, which is not there", page.name);
                }
            }
        }
    }
}

#[test]
fn each_form_that_changes_something_carries_the_csrf_token() {
    for page in all() {
        for form in page.html.split("<form").skip(1) {
            let form = form.split("</form>").next().unwrap_or_default();
            if form.contains("method=\"post\"") {
                assert!(form.contains("name=\"csrf\" value=\"c5Rf-Token_0\""), "{}: {form}", page.name);
            }
        }
    }
}

#[test]
fn every_asset_that_a_page_names_exists() {
    for page in all() {
        for part in page.html.split("\"/assets/").skip(1) {
            let path = part.split('"').next().unwrap_or_default();
            assert!(crate::assets::find(path).is_some(), "{}: /assets/{path}", page.name);
        }
    }
}

#[test]
fn a_wrong_field_is_tied_to_its_problem() {
    let page = pages(Fill::Hostile).into_iter().find(|p| p.name == "set-up").expect("sample");
    let field =
        tags(&page.html, "input").into_iter().find(|t| t.contains("id=\"password\"")).expect("field").to_owned();
    assert!(field.contains("aria-describedby=\"password-hint password-problem\" aria-invalid=\"true\""), "{field}");
}

#[test]
fn distances_are_told_in_words() {
    let now = datetime!(2026-11-21 04:24:07 UTC);
    for (seconds, words) in [
        (0, "just now"),
        (10, "in a moment"),
        (-60, "1 minute ago"),
        (240, "in 4 minutes"),
        (-5_399, "90 minutes ago"),
        (-7_200, "2 hours ago"),
        (60 * 60 * 24 * 13, "in 13 days"),
    ] {
        assert_eq!(When::new(now + Duration::seconds(seconds), now).ago(), words);
    }
    let w = When::new(datetime!(2026-11-21 05:24:07.9 +1), now);
    assert_eq!((w.iso().as_str(), w.text().as_str()), ("2026-11-21T04:24:07Z", "2026-11-21 04:24:07"));
}

#[test]
fn sizes_and_lengths_are_told_in_words() {
    assert_eq!((size(0), size(1_536), size(14_900_000)), ("0 bytes".into(), "1.5 KiB".into(), "14.2 MiB".into()));
    assert_eq!(span(Duration::seconds(7)), "7 s");
    assert_eq!(span(Duration::seconds(200)), "3 min 20 s");
    assert_eq!(span(Duration::seconds(3_840)), "1 h 04 min");
}

#[test]
fn a_browser_is_named_without_its_whole_signature() {
    let edge = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0";
    assert_eq!(device(edge), "Edge on Windows");
    assert_eq!(device("curl/8.1"), "curl");
    assert_eq!(device("\u{202e}<b>"), "unknown browser");
}

#[test]
fn tones_survive_a_session() {
    for tone in [Tone::Good, Tone::Note, Tone::Warn, Tone::Bad] {
        assert_eq!(Tone::from_word(tone.word()), tone);
    }
}
