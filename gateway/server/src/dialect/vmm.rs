// SPDX-License-Identifier: Apache-2.0
//! How a refusal reads for clients of Cloud Hypervisor and Firecracker, which sign nobody in: they show a token of ours as
//! `Authorization: Bearer`.

use crate::reply::Refusal;
use portcullis_domain::RequestId;

/// Firecracker's word for why, with the fields of RFC 9457 beside it.
pub(super) fn refusal(refusal: &Refusal, said: &str, request: RequestId) -> serde_json::Value {
    let (title, detail) = refusal.words();
    serde_json::json!({
        "fault_message": said,
        "title": title, "detail": detail, "status": refusal.status().as_u16(), "request": request.to_string(),
    })
}
