// SPDX-License-Identifier: Apache-2.0
//! A person with a browser, a password and an authenticator app, speaking HTTP to a gateway.

use super::{TestGateway, authenticator::Authenticator, page};
use portcullis_domain::Clock;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    cookie::{CookieStore as _, Jar},
    header,
    redirect::Policy,
};
use std::sync::Arc;

/// A password that the rules take.
pub(crate) const PASSWORD: &str = "seven maroon kettles hum";

/// Somebody.
pub(crate) struct Person<'a> {
    pub(crate) gateway: &'a TestGateway,
    pub(crate) browser: Client,
    cookies: Arc<Jar>,
    pub(crate) name: String,
    key: Option<totp_rs::Totp>,
    /// The authenticator app's key as the page showed it, once.
    pub(crate) key_text: String,
    pub(crate) recovery: Vec<String>,
}

/// A browser that trusts the gateway's CA, keeps cookies and follows nothing.
fn browser(gateway: &TestGateway, cookies: Arc<Jar>) -> Client {
    Client::builder()
        .tls_certs_only([gateway.ca()])
        .cookie_provider(cookies)
        .redirect(Policy::none())
        .build()
        .expect("a browser")
}

impl<'a> Person<'a> {
    /// Somebody who just opened a browser.
    pub(crate) fn stranger(gateway: &'a TestGateway, name: &str) -> Self {
        let cookies = Arc::new(Jar::default());
        let browser = browser(gateway, Arc::clone(&cookies));
        Self { gateway, browser, cookies, name: name.to_owned(), key: None, key_text: String::new(), recovery: vec![] }
    }

    /// Somebody who has an account and an authenticator app, in a fresh browser.
    pub(crate) fn with_key(gateway: &'a TestGateway, name: &str, key: totp_rs::Totp) -> Self {
        Self { key: Some(key), ..Self::stranger(gateway, name) }
    }

    /// The same person at another browser, signed in there too.
    pub(crate) async fn another_browser(&self) -> Person<'a> {
        let key = self.key.clone().expect("an authenticator app");
        let mut other = Self::with_key(self.gateway, &self.name, key);
        other.sign_in().await;
        other
    }

    /// A token for tools, limited to one hypervisor, by the page.
    pub(crate) async fn token(&self, hypervisor: &str) -> String {
        let answer = self.submit("/me/tokens", &[("name", "tool"), ("hypervisor", hypervisor), ("days", "1")]).await;
        let html = answer.text().await.expect("a page");
        let at = html.find("pct_").expect("the token is shown once");
        html[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect()
    }

    /// The authenticator app alone: what outlives a gateway that is stopped.
    pub(crate) fn into_key(self) -> totp_rs::Totp {
        self.key.expect("an authenticator app")
    }

    /// The authenticator app's key.
    pub(crate) fn key(&self) -> totp_rs::Totp {
        self.key.clone().expect("an authenticator app")
    }

    /// The cookies of this browser, as a header.
    pub(crate) fn cookie(&self) -> String {
        let url = self.gateway.url().parse().expect("an address");
        self.cookies.cookies(&url).and_then(|c| c.to_str().ok().map(str::to_owned)).unwrap_or_default()
    }

    /// Invites somebody, who follows the link.
    pub(crate) async fn invite(&self, name: &str) -> Person<'a> {
        let (mut person, link) = self.invitation(name).await;
        person.redeem(&link).await;
        person
    }

    /// Invites somebody who does nothing about it yet; gives the link.
    pub(crate) async fn invitation(&self, name: &str) -> (Person<'a>, String) {
        let answer = self.submit("/users", &[("name", name), ("display_name", name)]).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let html = answer.text().await.expect("a page");
        let at = html.find(&format!("{}/invitation#", self.gateway.url())).expect("a one-time link is shown");
        let link: String = html[at..].chars().take_while(|c| !matches!(c, '"' | '<' | '\'' | ' ')).collect();
        (Person::stranger(self.gateway, name), page::unescape(&link))
    }

    /// Gives somebody a role for a day.
    pub(crate) async fn grant(&self, name: &str, role: &str, kind: &str, value: &str) {
        self.give(name, role, (kind, value), &[("record", "on")]).await;
    }

    /// The same, without consoles being recorded.
    pub(crate) async fn grant_unrecorded(&self, name: &str, role: &str, kind: &str, value: &str) {
        self.give(name, role, (kind, value), &[]).await;
    }

    async fn give(&self, name: &str, role: &str, (kind, value): (&str, &str), more: &[(&str, &str)]) {
        let html = self.page("/grants").await;
        let label = html.find(&format!(">{name}</option>")).expect("the person can be chosen");
        let tag = &html[html[..label].rfind('<').expect("a tag")..label];
        let user = page::attribute(tag, "value").expect("an id");
        let on = if value.is_empty() { kind.to_owned() } else { format!("{kind}:{value}") };
        let fields = [("user", &*user), ("role", role), ("on", &*on), ("hours", "24"), ("step_up_seconds", "300")];
        let answer = self.submit("/grants", &[&fields, more].concat()).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{}", answer.text().await.unwrap_or_default());
    }

    /// Takes back everything that somebody was given.
    pub(crate) async fn revoke_grants(&self, name: &str) {
        for holding in self.gateway.grants_of(name).await {
            let answer = self.submit("/grants/revoke", &[("grant", &holding), ("next", "/grants")]).await;
            assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{}", answer.text().await.unwrap_or_default());
        }
    }

    /// The first administrator, by the set-up link, signed in.
    pub(crate) async fn first_administrator(gateway: &'a TestGateway, name: &str) -> Self {
        let link = gateway.set_up.clone().expect("a set-up link is printed when nobody has an account");
        let mut person = Self::stranger(gateway, name);
        person.redeem(&link).await;
        person
    }

    /// Follows a one-time link: password, authenticator app, recovery codes.
    pub(crate) async fn redeem(&mut self, link: &str) {
        self.set_password(link).await;
        self.enrol().await;
    }

    /// Follows a one-time link as far as the second factor.
    pub(crate) async fn set_password(&self, link: &str) {
        let (path, token) = link.split_once('#').expect("the token is in the fragment");
        let path = path.strip_prefix(&self.gateway.url()).expect("a link of this gateway").to_owned();
        let form = self.page(&path).await;
        let csrf = page::csrf(&form).unwrap_or_default();
        let name = self.name.clone();
        let fields =
            [("csrf", &*csrf), ("token", token), ("name", &name), ("display_name", &name), ("password", PASSWORD)];
        let answer = self.post(&path, &fields).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{}", answer.text().await.unwrap_or_default());
    }

    /// Adds an authenticator app and keeps the recovery codes.
    pub(crate) async fn enrol(&mut self) {
        let form = self.page("/enrol").await;
        let key = page::text_of(&form, "key").expect("the key as text").replace(' ', "");
        let bytes = totp_rs::Secret::try_from_base32(&key).expect("base32");
        self.key_text = key;
        self.key = Some(totp_rs::Builder::new().with_secret(bytes).build().expect("a key"));
        let code = self.code();
        let csrf = page::csrf(&form).unwrap_or_default();
        let answer = self.post("/enrol", &[("csrf", &csrf), ("code", &code)]).await;
        let status = answer.status();
        let html = answer.text().await.expect("a page");
        assert_eq!(status, StatusCode::OK, "{html}");
        self.recovery =
            html.split("<code>").skip(1).filter_map(|p| p.split("</code>").next()).map(page::unescape).collect();
        assert_eq!(self.recovery.len(), 10);
    }

    /// The first code of an authenticator app that is being added, and that is not kept.
    pub(crate) async fn code_of_new_key(&self) -> String {
        let answer = self.get("/enrol").await;
        let form = answer.text().await.expect("a page");
        let Some(key) = page::text_of(&form, "key") else { return "000000".to_owned() };
        let bytes = totp_rs::Secret::try_from_base32(key.replace(' ', "")).expect("base32");
        let key = totp_rs::Builder::new().with_secret(bytes).build().expect("a key");
        let now = u64::try_from(self.gateway.clock.now().unix_timestamp()).expect("after 1970");
        key.generate(now).to_string()
    }

    /// A passkey that is being added, and its answer; none that counts where it may not be.
    pub(crate) async fn answer_of_new_passkey(&self) -> (Authenticator, String) {
        let mut key = Authenticator::new(&self.gateway.url());
        let answer = self.get("/api/v1/passkeys/new").await;
        if answer.status() != StatusCode::OK {
            return (key, "{}".to_owned());
        }
        let made = key.create(&answer.text().await.expect("options")).to_string();
        (key, made)
    }

    /// Adds a passkey to an account that has a second factor.
    pub(crate) async fn add_passkey(&self) -> Authenticator {
        let (key, answer) = self.answer_of_new_passkey().await;
        let answer = self.submit("/enrol/passkey", &[("passkey", &answer), ("name", "laptop")]).await;
        assert_eq!(location(&answer), "/me", "{}", answer.text().await.unwrap_or_default());
        key
    }

    /// What a passkey answers to what this browser is asked at an address.
    pub(crate) async fn answer_of(&self, key: &mut Authenticator, path: &str) -> String {
        let options = self.page(path).await;
        key.get(&options).to_string()
    }

    /// Signs in with a passkey and nothing else.
    pub(crate) async fn sign_in_with(&self, key: &mut Authenticator) -> Response {
        let answer = self.answer_of(key, "/api/v1/passkeys/sign-in").await;
        self.post("/sign-in/passkey", &[("passkey", &answer), ("next", "/me")]).await
    }

    /// Signs in with password and code.
    pub(crate) async fn sign_in(&mut self) {
        let form = self.page("/sign-in").await;
        let csrf = page::csrf(&form).unwrap_or_default();
        let name = self.name.clone();
        let answer =
            self.post("/sign-in", &[("csrf", &*csrf), ("name", &name), ("password", PASSWORD), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        assert!(location(&answer).starts_with("/sign-in/code"), "{}", location(&answer));
        let form = self.page("/sign-in/code").await;
        let csrf = page::csrf(&form).unwrap_or_default();
        let code = self.next_code();
        let answer = self.post("/sign-in/code", &[("csrf", &csrf), ("code", &code), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{}", answer.text().await.unwrap_or_default());
    }

    /// Confirms that it is them, with the next code.
    pub(crate) async fn step_up(&self) {
        let form = self.page("/step-up?next=%2F").await;
        let csrf = page::csrf(&form).expect("a form");
        let code = self.next_code();
        let answer = self.post("/step-up", &[("csrf", &csrf), ("code", &code), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{}", answer.text().await.unwrap_or_default());
    }

    /// The code of this moment.
    pub(crate) fn code(&self) -> String {
        let now = u64::try_from(self.gateway.clock.now().unix_timestamp()).expect("after 1970");
        self.key.as_ref().expect("an authenticator app").generate(now).to_string()
    }

    /// Waits for the next code (by moving the gateway's clock) and reads it: each code counts once.
    pub(crate) fn next_code(&self) -> String {
        self.gateway.clock.advance(time::Duration::seconds(30));
        self.code()
    }

    /// A GET.
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.browser.get(format!("{}{path}", self.gateway.url())).send().await.expect("an answer")
    }

    /// The HTML of a page that must be there.
    pub(crate) async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        let status = answer.status();
        let to = location(&answer);
        let html = answer.text().await.expect("a page");
        assert_eq!(status, StatusCode::OK, "{path} -> {to}: {html}");
        html
    }

    /// A form sent from our own page.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        self.send_from_our_page(path).form(fields).send().await.expect("an answer")
    }

    /// A form sent from our own page to a gateway that may be gone: the status of its whole answer, if there was one.
    pub(crate) async fn try_post(&self, path: &str, fields: &[(&str, &str)]) -> Option<StatusCode> {
        let answer = self.send_from_our_page(path).form(fields).send().await.ok()?;
        let status = answer.status();
        answer.bytes().await.ok().map(|_| status)
    }

    /// A form sent with this session's CSRF token.
    pub(crate) async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let csrf = page::csrf(&self.page("/me").await).expect("a token");
        let mut all = vec![("csrf", csrf.as_str())];
        all.extend_from_slice(fields);
        self.post(path, &all).await
    }

    fn send_from_our_page(&self, path: &str) -> RequestBuilder {
        self.browser
            .post(format!("{}{path}", self.gateway.url()))
            .header(header::ORIGIN, self.gateway.url())
            .header("sec-fetch-site", "same-origin")
    }

    /// JSON sent by a script of our own page.
    pub(crate) async fn post_json(&self, path: &str) -> Response {
        let csrf = page::csrf(&self.page("/me").await).expect("a token");
        self.send_from_our_page(path).header("x-csrf-token", csrf).send().await.expect("an answer")
    }
}

/// Where an answer leads.
pub(crate) fn location(answer: &Response) -> String {
    answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok()).unwrap_or_default().to_owned()
}
