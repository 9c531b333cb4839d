// SPDX-License-Identifier: Apache-2.0
//! The token endpoint and userinfo: from a code, or a refresh token, to claims that count.

use super::{
    Connection, FetchError, Flaw, Provider, Trouble,
    discovery::{Credentials, Document},
    token::{How, Kind, Parties, Proven, id},
};
use http::{Method, Request, header};
use openidconnect::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, EndpointNotSet, EndpointSet,
    IssuerUrl, JsonWebKeySet, OAuth2TokenResponse, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError,
    StandardErrorResponse, TokenResponse, TokenUrl,
    core::{CoreClient, CoreErrorResponseType, CoreTokenResponse},
};
use portcullis_domain::Secret;
use serde_json::{Map, Value};
use std::{future::Future, pin::Pin};
use time::OffsetDateTime;

/// The library's client with what is needed here.
pub(super) type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet, EndpointNotSet>;

/// What a provider says of somebody, all of it checked.
pub(super) struct Word {
    pub(super) subject: String,
    pub(super) claims: Map<String, Value>,
    pub(super) how: How,
    /// The ID token as it was sent; none when a renewal gave none.
    pub(super) id_token: Option<Secret>,
    pub(super) refresh_token: Option<Secret>,
}

/// What the library says of a token endpoint that gave no tokens.
type NoTokens = RequestTokenError<FetchError, StandardErrorResponse<CoreErrorResponseType>>;

/// Why a renewal gave nothing. Only a clear no is one: an endpoint that is broken or overloaded (a page of a proxy, an
/// error of the server's own) must not sign everybody out.
fn not_renewed(error: NoTokens) -> Trouble {
    match error {
        RequestTokenError::ServerResponse(said) if *said.error() == CoreErrorResponseType::InvalidGrant => {
            Flaw::NotRenewed.into()
        }
        RequestTokenError::ServerResponse(said) => Trouble::Down(format!("it answered {}", said.error())),
        RequestTokenError::Parse(..) => Trouble::Down("its token endpoint gave no usable answer".to_owned()),
        other => trouble(other, Flaw::NotRenewed),
    }
}

fn trouble(error: NoTokens, refused: Flaw) -> Trouble {
    match error {
        RequestTokenError::ServerResponse(_) => refused.into(),
        RequestTokenError::Request(why) => Trouble::Down(why.to_string()),
        // The parser's words could quote the answer, and the answer holds tokens.
        RequestTokenError::Parse(..) => Flaw::Answer.into(),
        RequestTokenError::Other(_) => Trouble::Down("its token endpoint gave no usable answer".to_owned()),
    }
}

/// A question to the token endpoint.
type Asking<'a> = Pin<Box<dyn Future<Output = Result<CoreTokenResponse, Trouble>> + Send + 'a>>;

impl<'c> AsyncHttpClient<'c> for Connection {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = super::Fetched> + Send>>;

    fn call(&'c self, request: Request<Vec<u8>>) -> Self::Future {
        (self.fetch)(request)
    }
}

impl Provider {
    /// The library's client for the endpoints of a document.
    pub(super) fn client(&self, document: &Document) -> Result<Client, Flaw> {
        let wrong = |_| Flaw::Discovery;
        let settings = &self.settings;
        let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(wrong)?;
        let mut client =
            CoreClient::new(ClientId::new(settings.client_id.clone()), issuer, JsonWebKeySet::new(Vec::new()));
        if let Some(secret) = self.connection.secret.as_ref().and_then(Secret::expose_text) {
            client = client.set_client_secret(ClientSecret::new(secret.to_owned()));
        }
        let auth_type = match document.credentials {
            Credentials::Basic => AuthType::BasicAuth,
            Credentials::Form => AuthType::RequestBody,
        };
        Ok(client
            .set_auth_type(auth_type)
            .set_redirect_uri(RedirectUrl::new(self.connection.redirect.clone()).map_err(wrong)?)
            .set_auth_uri(AuthUrl::new(document.authorization.clone()).map_err(wrong)?)
            .set_token_uri(TokenUrl::new(document.token.clone()).map_err(wrong)?))
    }

    // The library's futures are boxed: what they are generic over does not pass through the compiler's proof of `Send`.
    fn redeem<'a>(&'a self, client: &'a Client, code: AuthorizationCode, verifier: String) -> Asking<'a> {
        let request = client.exchange_code(code).set_pkce_verifier(PkceCodeVerifier::new(verifier));
        let asking = request.request_async(&self.connection);
        Box::pin(async move { asking.await.map_err(|e| trouble(e, Flaw::Code)) })
    }

    fn refresh<'a>(&'a self, client: &'a Client, token: &'a RefreshToken) -> Asking<'a> {
        let asking = client.exchange_refresh_token(token).request_async(&self.connection);
        Box::pin(async move { asking.await.map_err(not_renewed) })
    }

    /// Exchanges a code (with the PKCE verifier, always) and checks everything that comes back.
    pub(super) async fn exchange(
        &self,
        document: &Document,
        code: &str,
        verifier: String,
        nonce: &str,
        now: OffsetDateTime,
    ) -> Result<Word, Trouble> {
        let client = self.client(document)?;
        let answer = self.redeem(&client, AuthorizationCode::new(code.to_owned()), verifier).await?;
        let id_token = answer.id_token().ok_or(Flaw::NoToken)?.to_string();
        let (proven, mut word) = self.believe(document, id_token, &answer, now).await?;
        if super::token::text(&proven.claims, "nonce") != Some(nonce) {
            return Err(Flaw::Nonce.into());
        }
        self.complete(document, &answer, &mut word, now).await?;
        Ok(word)
    }

    /// Renews a sign-in (OpenID Connect Core 1.0 section 12). An ID token that comes with it must be about the same
    /// person; where neither it nor userinfo comes, there are no claims.
    pub(super) async fn renew(
        &self,
        document: &Document,
        refresh_token: &Secret,
        subject: &str,
        now: OffsetDateTime,
    ) -> Result<Word, Trouble> {
        let client = self.client(document)?;
        let token = RefreshToken::new(refresh_token.expose_text().unwrap_or_default().to_owned());
        let answer = self.refresh(&client, &token).await?;
        let mut word = match answer.id_token() {
            Some(id_token) => {
                let (_, word) = self.believe(document, id_token.to_string(), &answer, now).await?;
                if word.subject != subject {
                    return Err(Flaw::Subject.into());
                }
                word
            }
            None => Word {
                subject: subject.to_owned(),
                claims: Map::new(),
                how: How { acr: None, amr: Vec::new(), at: None, sid: None },
                id_token: None,
                refresh_token: answer.refresh_token().map(|t| Secret::from(t.secret().clone())),
            },
        };
        self.complete(document, &answer, &mut word, now).await?;
        Ok(word)
    }

    /// Checks an ID token and reads what it says.
    async fn believe(
        &self,
        document: &Document,
        id_token: String,
        answer: &CoreTokenResponse,
        now: OffsetDateTime,
    ) -> Result<(Proven, Word), Trouble> {
        let proven = self.prove(document, &id_token, Kind::Identity, now).await?;
        let parties = Parties { issuer: &self.settings.issuer, client: &self.settings.client_id };
        proven.check(&parties, now)?;
        proven.check_access(answer.access_token().secret())?;
        let subject = id(&proven.claims, "sub").ok_or(Flaw::Subject)?.to_owned();
        let how = How::read(&proven.claims)?;
        let word = Word {
            subject,
            claims: proven.claims.clone(),
            how,
            id_token: Some(Secret::from(id_token)),
            refresh_token: answer.refresh_token().map(|t| Secret::from(t.secret().clone())),
        };
        Ok((proven, word))
    }

    /// Adds what userinfo says where the ID token leaves out a claim that the table of roles asks about.
    async fn complete(
        &self,
        document: &Document,
        answer: &CoreTokenResponse,
        word: &mut Word,
        now: OffsetDateTime,
    ) -> Result<(), Trouble> {
        let Some(address) = document.userinfo.as_ref().filter(|_| self.settings.lacks_claims(&word.claims)) else {
            return Ok(());
        };
        let request = Request::builder()
            .method(Method::GET)
            .uri(address)
            .header(header::ACCEPT, "application/json, application/jwt")
            .header(header::AUTHORIZATION, format!("Bearer {}", answer.access_token().secret()))
            .body(Vec::new())
            .map_err(|_| Flaw::UserInfo)?;
        let told = self.ask(request).await?;
        let kind = told.headers().get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
        let more = if kind.starts_with("application/jwt") {
            let text = std::str::from_utf8(told.body()).map_err(|_| Flaw::UserInfo)?;
            let proven = self.prove(document, text.trim(), Kind::Identity, now).await?;
            // Section 5.3.2: a signed answer names its issuer and its audience.
            let is = |name: &str, value: &str| super::token::text(&proven.claims, name) == Some(value);
            if !is("iss", &self.settings.issuer) || !is("aud", &self.settings.client_id) {
                return Err(Flaw::UserInfo.into());
            }
            proven.claims
        } else {
            serde_json::from_slice(told.body()).map_err(|_| Flaw::UserInfo)?
        };
        // Section 5.3.2: what is said of somebody else is not used.
        if super::token::text(&more, "sub") != Some(word.subject.as_str()) {
            return Err(Flaw::UserInfo.into());
        }
        for (name, value) in more {
            word.claims.entry(name).or_insert(value);
        }
        Ok(())
    }
}
