// SPDX-License-Identifier: Apache-2.0
//! How clients of LXD show who they are, and how they read a refusal (LXD's REST API, "Return values").

use super::{Shown, bearer};
use crate::reply::Refusal;
use http::HeaderMap;
use portcullis_domain::RequestId;

/// `Authorization: Bearer`, and nothing else.
pub(super) fn shown(headers: &HeaderMap) -> Option<Shown<'_>> {
    bearer(headers).map(|token| Shown::Token(token, None))
}

/// An answer of type `error`, with the fields of RFC 9457 beside its own.
pub(super) fn refusal(refusal: &Refusal, said: &str, request: RequestId) -> serde_json::Value {
    let (title, detail) = refusal.words();
    let code = refusal.status().as_u16();
    serde_json::json!({
        "type": "error", "error": said, "error_code": code, "metadata": null,
        "title": title, "detail": detail, "status": code, "request": request.to_string(),
    })
}
