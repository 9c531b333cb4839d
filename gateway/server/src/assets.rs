// SPDX-License-Identifier: Apache-2.0
//! What browsers load besides pages: scripts, style, pictures. All of it is inside the program.
//!
//! An asset's address holds the digest of its bytes, `/assets/<digest>/<name>`, so that a browser may keep it for ever
//! and an upgrade never mixes old and new. There is no listing, no other path, and nothing from the disk.

use crate::reply::Refusal;
use axum::{
    extract::Path,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rust_embed::{Embed, EmbeddedFile};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    future::{Ready, ready},
    sync::OnceLock,
};

#[derive(Embed)]
#[folder = "../web/dist"]
struct Dist;

/// One file as it is served.
#[derive(Debug, Clone)]
pub(crate) struct Asset {
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// Its type, with the character set where there is one.
    pub(crate) content_type: &'static str,
    /// A strong validator, with its quotes.
    pub(crate) etag: String,
    digest: String,
}

/// Content types of everything that the build makes; a file that is not in this table is not served.
const TYPES: [(&str, &str); 3] =
    [(".js", "text/javascript; charset=utf-8"), (".css", "text/css; charset=utf-8"), (".svg", "image/svg+xml")];

fn table() -> &'static BTreeMap<String, Asset> {
    static TABLE: OnceLock<BTreeMap<String, Asset>> = OnceLock::new();
    TABLE.get_or_init(|| Dist::iter().filter_map(|name| Some((name.to_string(), load(&name)?))).collect())
}

fn load(name: &str) -> Option<Asset> {
    let (_, content_type) = TYPES.into_iter().find(|(end, _)| name.ends_with(end))?;
    let EmbeddedFile { data, metadata } = Dist::get(name)?;
    let digest = hex::encode(metadata.sha256_hash().get(..10)?);
    let bytes = match data {
        Cow::Borrowed(data) => Bytes::from_static(data),
        Cow::Owned(data) => Bytes::from(data),
    };
    Some(Asset { bytes, content_type, etag: format!("\"{digest}\""), digest })
}

/// The address of an asset, for templates: `/assets/<digest>/<name>`. A name that the build did not make gives an
/// address that is not found; the tests of the pages see to it that no page holds one.
pub(crate) fn asset_url(name: &str) -> String {
    let digest = table().get(name).map_or("missing", |a| &a.digest);
    format!("/assets/{digest}/{name}")
}

/// The asset at a path below `/assets/`, as it stands in the request: `<digest>/<name>`.
pub(crate) fn find(path: &str) -> Option<&'static Asset> {
    let (digest, name) = path.split_once('/')?;
    table().get(name).filter(|a| a.digest == digest)
}

/// `GET /assets/{*path}`: an asset, or 404. A digest that is not this program's is not found: a page of an older
/// program is loaded again rather than mixed with a newer script.
#[expect(clippy::needless_pass_by_value, reason = "axum hands over what it extracts by value")]
pub(crate) fn serve(Path(path): Path<String>, headers: HeaderMap) -> Ready<Result<Response, Refusal>> {
    let asset = find(&path).ok_or(Refusal::NotFound);
    ready(asset.map(|a| answer(a, &headers, "public, max-age=31536000, immutable")))
}

/// `GET /favicon.ico`, for what asks without reading the page: the same picture.
#[expect(clippy::needless_pass_by_value, reason = "axum hands over what it extracts by value")]
pub(crate) fn favicon(headers: HeaderMap) -> Ready<Result<Response, Refusal>> {
    let asset = table().get("favicon.svg").ok_or(Refusal::NotFound);
    ready(asset.map(|a| answer(a, &headers, "public, max-age=86400")))
}

fn answer(asset: &Asset, headers: &HeaderMap, keep: &'static str) -> Response {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|k| k.to_str().ok());
    let same = known.flat_map(|k| k.split(',')).any(|tag| tag.trim() == asset.etag || tag.trim() == "*");
    let fixed = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static(keep)),
    ];
    let etag = [(header::ETAG, asset.etag.as_str())];
    if same {
        (StatusCode::NOT_MODIFIED, fixed, etag).into_response()
    } else {
        (fixed, etag, asset.bytes.clone()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> String {
        asset_url(name).strip_prefix("/assets/").expect("prefix").to_owned()
    }

    #[test]
    fn every_file_of_the_build_has_an_address_that_is_found() {
        for name in ["app.js", "app.css", "console.js", "console.css", "logo.svg", "favicon.svg"] {
            let asset = find(&path(name)).unwrap_or_else(|| panic!("{name} is not in the build"));
            assert!(!asset.bytes.is_empty(), "{name}");
        }
    }

    // SEC-081
    #[test]
    fn only_exact_addresses_are_found() {
        let good = path("app.js");
        for bad in ["", "/", "app.js", ".git/config", "../Cargo.toml", "missing/app.js", "missing/none.js"] {
            assert!(find(bad).is_none(), "{bad:?}");
        }
        for bad in [format!("{good}/"), format!("{good}.map"), format!("x{good}"), good.replace('/', "//")] {
            assert!(find(&bad).is_none(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_known_asset_is_not_sent_again() {
        let ask = |headers| serve(Path(path("app.css")), headers);
        let first = ask(HeaderMap::new()).await.expect("there");
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
        assert!(first.headers()[header::CACHE_CONTROL].to_str().expect("text").contains("immutable"));
        let mut known = HeaderMap::new();
        known.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let again = ask(known).await.expect("there");
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(axum::body::to_bytes(again.into_body(), 1).await.expect("body").is_empty());
        assert!(serve(Path("missing/app.css".into()), HeaderMap::new()).await.is_err());
        assert_eq!(favicon(HeaderMap::new()).await.expect("there").status(), StatusCode::OK);
    }
}
