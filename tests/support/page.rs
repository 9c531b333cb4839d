// SPDX-License-Identifier: Apache-2.0
//! Reading our own pages the way a browser does: forms and their hidden fields.

/// The value of the first input with a name.
pub(crate) fn field(html: &str, name: &str) -> Option<String> {
    let at = html.find(&format!("name=\"{name}\""))?;
    let start = html[..at].rfind('<')?;
    let tag = &html[start..start + html[start..].find('>')?];
    attribute(tag, "value")
}

/// An attribute of a tag, unescaped.
pub(crate) fn attribute(tag: &str, name: &str) -> Option<String> {
    let at = tag.find(&format!("{name}=\""))? + name.len() + 2;
    let value = &tag[at..at + tag[at..].find('"')?];
    Some(unescape(value))
}

/// The token that forms and scripts send back.
pub(crate) fn csrf(html: &str) -> Option<String> {
    field(html, "csrf").or_else(|| {
        let at = html.find("name=\"csrf-token\"")?;
        let start = html[..at].rfind('<')?;
        attribute(&html[start..start + html[start..].find('>')?], "content")
    })
}

/// Text of the first element with an id.
pub(crate) fn text_of(html: &str, id: &str) -> Option<String> {
    let at = html.find(&format!("id=\"{id}\""))?;
    let from = at + html[at..].find('>')? + 1;
    let to = from + html[from..].find("</")?;
    Some(unescape(html[from..to].trim()))
}

/// Undoes HTML escaping.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&#38;", "&")
        .replace("&#39;", "'")
        .replace("&#x27;", "'")
        .replace("&amp;", "&")
}
