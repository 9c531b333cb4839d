// SPDX-License-Identifier: Apache-2.0
//! The one place that knows HTTP's status codes: what each room's errors become for a person or a tool.
//!
//! 401 not known, 403 known and seen, 404 not to be known about. A person reads the public text; the log reads the
//! source. An answer to a tool is an RFC 9457 problem document with the correlation id.

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use portcullis_domain::RequestId;
use std::{fmt::Write as _, sync::Arc};

/// Why a request got no further, in the words of the passage.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Nobody is signed in.
    Unknown,
    /// Known, and not allowed; the text names what would open the door.
    Forbidden(String),
    /// A lock stands against it; the text says until when.
    Locked(String),
    /// Not to be known about.
    NotFound,
    /// The method is not answered at this address.
    Method,
    /// A fresh factor is needed.
    StepUp,
    /// The banner has to be confirmed first.
    Banner,
    /// The request cannot be understood; the text says what to do.
    Bad(String),
    /// It did not come from our own page.
    Foreign,
    /// The body is larger than allowed here, in bytes.
    TooLarge(usize),
    /// The head is larger than allowed.
    HeadTooLarge,
    /// Too many requests; try again after this many seconds.
    TooMany(u32),
    /// This gateway does not answer for that host.
    Misdirected,
    /// Something of ours is not working: denied.
    Unavailable(String),
    /// The hypervisor did not answer as it should; the text says how.
    Upstream(String),
    /// The hypervisor took too long.
    UpstreamSlow(String),
    /// It is there already; the text says what.
    Conflict(String),
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::Locked(_) | Self::StepUp | Self::Banner | Self::Foreign => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::UpstreamSlow(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Conflict(_) => StatusCode::CONFLICT,
        }
    }

    /// The same denial, with why more is asked than its owner may expect.
    pub(crate) fn because(self, why: Option<&str>) -> Self {
        match (self, why) {
            (Self::Forbidden(text), Some(why)) => Self::Forbidden(format!("{text} {why}")),
            (other, _) => other,
        }
    }

    /// A title and what the person can do.
    pub(crate) fn words(&self) -> (&'static str, String) {
        match self {
            Self::Unknown => ("Sign in first", "You are not signed in, or your session has ended.".into()),
            Self::Forbidden(why) => ("You may not do this", why.clone()),
            Self::Locked(why) => ("This is locked", why.clone()),
            Self::NotFound => ("Not found", "There is nothing here, or nothing that you may know about.".into()),
            Self::Method => ("Not answered here", "This address does not take that kind of request.".into()),
            Self::StepUp => (
                "Confirm that it is you",
                "This needs a fresh code from your authenticator app, or your passkey.".into(),
            ),
            Self::Banner => {
                ("Read this first", "Confirm the notice of this gateway in your browser, then try again.".into())
            }
            Self::Bad(why) => ("That could not be understood", why.clone()),
            Self::Foreign => (
                "Not from our page",
                "This request did not come from this gateway's own page. Open the page again and retry.".into(),
            ),
            Self::TooLarge(limit) => ("Too large", format!("At most {limit} bytes are taken here.")),
            Self::HeadTooLarge => ("Too large", "The address or the headers are too long.".into()),
            Self::TooMany(after) => ("Too many requests", format!("Wait {after} seconds, then try again.")),
            Self::Misdirected => ("Wrong address", "This gateway does not answer for that host name.".into()),
            Self::Unavailable(why) => ("Not possible at the moment", why.clone()),
            Self::Upstream(why) => ("The hypervisor did not answer as it should", why.clone()),
            Self::UpstreamSlow(why) => ("The hypervisor took too long", why.clone()),
            Self::Conflict(why) => ("Already there", why.clone()),
        }
    }

    /// The answer to a tool: RFC 9457.
    pub(crate) fn problem(&self, request: RequestId) -> Response<Bytes> {
        self.problem_with(request, &[])
    }

    /// The same with further members (section 3.2).
    pub(crate) fn problem_with(&self, request: RequestId, more: &[(&str, &str)]) -> Response<Bytes> {
        let (title, detail) = self.words();
        let status = self.status();
        let mut body = serde_json::json!({
            "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail, "request": request.to_string(),
        });
        if let Some(members) = body.as_object_mut() {
            members.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
        }
        let mut answer = Response::new(Bytes::from(body.to_string()));
        *answer.status_mut() = status;
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        self.headers(&mut answer);
        answer
    }

    /// The answer to a person; `ask` is where they can ask for what is closed to them.
    pub(crate) fn page(&self, request: RequestId, ask: Option<String>) -> Response<Bytes> {
        let (title, detail) = self.words();
        let mut page = crate::view::ErrorPage::new(self.status().as_u16(), title, &detail, &request.to_string());
        page.ask = ask;
        let text = askama::Template::render(&page).unwrap_or_else(|_| format!("{title}\n{detail}\n"));
        let mut answer = Response::new(Bytes::from(text));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        *answer.status_mut() = self.status();
        self.headers(&mut answer);
        answer
    }

    fn headers(&self, answer: &mut Response<Bytes>) {
        match self {
            Self::TooMany(after) => {
                let mut text = String::new();
                let _ = write!(text, "{after}");
                if let Ok(value) = HeaderValue::from_str(&text) {
                    answer.headers_mut().insert(header::RETRY_AFTER, value);
                }
            }
            Self::Unknown => {
                answer
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"portcullis\""));
            }
            _ => {}
        }
    }
}

/// What an error of the upstream room is for whoever asked.
pub(crate) fn upstream(error: &portcullis_upstream::Error) -> Refusal {
    use portcullis_upstream::{Error, Fault};
    let words = crate::state::chain(error);
    tracing::info!(error = %words, "a hypervisor could not be used");
    match error {
        Error::Upstream { fault: Fault::TooSlow(_), .. } => Refusal::UpstreamSlow(sentence(&words)),
        Error::Upstream { fault: Fault::Unsupported(_) | Fault::NoScreen(_), .. } => {
            Refusal::Conflict(sentence(&words))
        }
        Error::Upstream { .. } => Refusal::Upstream(sentence(&words)),
        Error::UnknownHypervisor(_) | Error::UnknownMachine(_) => Refusal::NotFound,
        Error::Request(why) => Refusal::Bad(sentence(why)),
        Error::ClientGone(_) => Refusal::Bad("The request's body broke off.".into()),
        Error::Busy(why) => Refusal::Unavailable(sentence(why)),
        Error::Config { .. } | Error::WrongPermit(_) | Error::PermitExpired => {
            Refusal::Unavailable("The gateway lost its leave to do this. Try again.".into())
        }
    }
}

/// What an error of the identity room is for whoever asked.
pub(crate) fn identity(error: &portcullis_identity::Error, now: time::OffsetDateTime) -> Refusal {
    use portcullis_identity::Error;
    match error {
        Error::Refused(_)
        | Error::Weak(_)
        | Error::Invalid(_)
        | Error::NotVouched { .. }
        | Error::ProviderSaid { .. }
        | Error::ProviderDown { .. } => Refusal::Bad(sentence(&error.to_string())),
        Error::Locked { until } => Refusal::TooMany(u32::try_from((*until - now).whole_seconds().max(1)).unwrap_or(60)),
        Error::Busy => Refusal::TooMany(3),
        Error::Expired => Refusal::Unknown,
        Error::NotFresh => Refusal::StepUp,
        Error::Conflict(_) => Refusal::Conflict(sentence(&error.to_string())),
        Error::NotFound(_) => Refusal::NotFound,
        Error::Settings(_) | Error::Store(_) | Error::Session(_) | Error::Crypto(_) => {
            tracing::error!(error = %crate::state::chain(error), "denied because a part of the gateway failed");
            Refusal::Unavailable(
                "A part of the gateway is not working, so nothing is let through. Try again in a moment.".into(),
            )
        }
    }
}

/// What an error of the governance room is for whoever asked; words for the form, or a refusal of the whole request.
pub(crate) fn governance(error: portcullis_governance::Error) -> Refusal {
    use portcullis_governance::Error;
    match error {
        Error::Store(portcullis_store::Error::Overtaken) => {
            Refusal::Conflict("Somebody else changed rights at the same moment. Look again, then try again.".into())
        }
        Error::Store(store) => {
            tracing::error!(error = %crate::state::chain(&store), "denied because the store failed");
            Refusal::Unavailable("The store is not working, so nothing is changed. Try again in a moment.".into())
        }
        Error::UnknownGrant | Error::UnknownGroup | Error::UnknownLock => Refusal::NotFound,
        Error::Kept(why) => Refusal::Conflict(why),
        Error::Forbidden(why) => Refusal::Forbidden(why),
        Error::NameTaken | Error::NoChange | Error::UnknownProposal | Error::Waits(_) | Error::Changed => {
            Refusal::Conflict(error.to_string())
        }
        Error::ToOneself
        | Error::UnknownRole(_)
        | Error::UnknownPerson
        | Error::BadTime
        | Error::BadWindow
        | Error::BadZone
        | Error::NoReason
        | Error::BadLock
        | Error::BadThings
        | Error::BadPolicy(_)
        | Error::BadName => Refusal::Bad(error.to_string()),
    }
}

/// The same for access requests.
pub(crate) fn requests(error: portcullis_governance::RequestError) -> Refusal {
    use portcullis_governance::RequestError;
    match error {
        RequestError::Store(store) => governance(portcullis_governance::Error::Store(store)),
        RequestError::Unknown => Refusal::NotFound,
        RequestError::Forbidden(why) => Refusal::Forbidden(why),
        RequestError::Kept(why) => Refusal::Conflict(why),
        RequestError::Late => Refusal::Conflict(error.to_string()),
        RequestError::Bad(_, why) => Refusal::Bad(why),
    }
}

/// Words as a sentence: a capital in front, a full stop behind.
pub(crate) fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first: String = letters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    let rest = letters.as_str();
    let stop = if rest.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{rest}{stop}")
}

/// A handler refuses by returning it: the passage finds it in the answer and says it as a page or as a problem.
#[derive(Debug, Clone)]
pub(crate) struct Carried(pub(crate) Arc<Refusal>);

impl IntoResponse for Refusal {
    fn into_response(self) -> axum::response::Response {
        let mut answer = self.status().into_response();
        answer.extensions_mut().insert(Carried(Arc::new(self)));
        answer
    }
}
