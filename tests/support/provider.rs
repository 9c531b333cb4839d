// SPDX-License-Identifier: Apache-2.0
//! A company with an identity provider: a certified one, a gateway that trusts it, and people who sign in there.

use super::{Person, TestGateway, gateway::free_port, page, peers::Peer, person::location};
use reqwest::{Client, Response, redirect::Policy};
use std::{io::Write as _, os::unix::fs::PermissionsExt as _};
use tempfile::NamedTempFile;

/// What the provider and the gateway share.
const SECRET: &str = "a-secret-that-only-a-test-knows-0123456789";

/// The table of roles that the gateway is given.
const ROLES: &str = r#"
[[identity.providers.roles]]
value = "vm-admins"
role = "operator"
on = "everything"
[[identity.providers.roles]]
value = "vm-users"
role = "viewer"
on = "tag web"
"#;

/// The gateway and its provider.
pub(crate) struct Company {
    pub(crate) gateway: TestGateway,
    pub(crate) provider: Peer,
    _secret: NamedTempFile,
}

impl Company {
    /// Starts both; `more` are options of the provider's script, `settings` more keys of the provider's table.
    pub(crate) async fn start(hypervisors: &str, settings: &str, more: &[&str]) -> Self {
        let port = free_port();
        let mut secret = NamedTempFile::new().expect("a file");
        secret.write_all(SECRET.as_bytes()).expect("written");
        std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let table = format!(
            "[[identity.providers]]\nname = \"corp\"\ntitle = \"Example Corp\"\nissuer = \"http://localhost:{port}\"\n\
             client_id = \"portcullis\"\nclient_secret_file = {:?}\nscopes = [\"profile\", \"groups\"]\n{settings}\n{ROLES}\n",
            secret.path().display().to_string()
        );
        let gateway = TestGateway::start(&format!("{table}{hypervisors}")).await;
        let trust = gateway.dir.path().join("tls/ca.pem").display().to_string();
        let provider = Peer::oidc(port, &gateway.url(), &trust, more);
        Self { gateway, provider, _secret: secret }
    }

    /// Changes what the provider knows of its people.
    pub(crate) fn set_people(&self, people: &serde_json::Value) {
        std::fs::write(self.provider.get("PEOPLE"), people.to_string()).expect("written");
    }
}

/// Somebody's browser as far as the provider sees it.
pub(crate) struct AtProvider(Client);

impl AtProvider {
    /// A fresh one.
    pub(crate) fn new() -> Self {
        let client = Client::builder().cookie_store(true).redirect(Policy::none()).no_proxy();
        Self(client.build().expect("a browser"))
    }

    async fn get(&self, address: &str) -> Response {
        self.0.get(address).send().await.expect("the provider answers")
    }

    /// Follows the provider's pages from an address and fills in its forms, until it leads back to `home`; gives that
    /// address, or the last page.
    pub(crate) async fn walk(&self, address: &str, login: &str, home: &str) -> Result<String, String> {
        let mut answer = self.get(address).await;
        let mut at = address.to_owned();
        for _ in 0..20 {
            if answer.status().is_redirection() {
                let to = reqwest::Url::parse(&at).expect("an address").join(&location(&answer)).expect("an address");
                at = to.to_string();
                if at.starts_with(home) {
                    return Ok(at);
                }
                answer = self.get(&at).await;
                continue;
            }
            let html = answer.text().await.expect("a page");
            let Some(form) = html.find("<form").map(|f| &html[f..]) else { return Err(html) };
            let action = page::attribute(&form[..form.find('>').expect("a tag")], "action").expect("an action");
            let mut fields = Vec::new();
            for tag in form.split('<').filter(|t| t.starts_with("input") || t.starts_with("button")) {
                let tag = &tag[..tag.find('>').expect("a tag")];
                let Some(name) = page::attribute(tag, "name") else { continue };
                let value = match name.as_str() {
                    "login" => login.to_owned(),
                    "password" => "any".to_owned(),
                    "logout" => "yes".to_owned(),
                    _ => page::attribute(tag, "value").unwrap_or_default(),
                };
                fields.push((name, value));
            }
            let to = reqwest::Url::parse(&at).expect("an address").join(&action).expect("an address");
            at = to.to_string();
            answer = self.0.post(&at).form(&fields).send().await.expect("the provider answers");
        }
        Err("too many steps".to_owned())
    }

    /// Signs out at the provider; gives its last word.
    pub(crate) async fn sign_out(&self, company: &Company) -> String {
        let address = format!("{}/session/end", company.provider.get("ISSUER"));
        self.walk(&address, "", "https://nowhere").await.expect_err("a page")
    }
}

impl Person<'_> {
    /// Goes to the provider, signs in there, and comes back; gives what the gateway answers to that.
    pub(crate) async fn come_from(&self, provider: &AtProvider, login: &str) -> Response {
        let answer = self.get("/sign-in/with/corp?next=%2Fme").await;
        let there = location(&answer);
        assert!(there.contains("code_challenge_method=S256") && there.contains("nonce="), "{there}");
        let home = self.gateway.url();
        let back = provider.walk(&there, login, &home).await.expect("the way back");
        self.get(back.strip_prefix(&home).expect("ours")).await
    }

    /// The same person with another browser, signed in through the provider and with the code of their app.
    pub(crate) async fn another_browser_at(&self, provider: &AtProvider, login: &str) -> Person<'_> {
        let other = Person::with_key(self.gateway, &self.name, self.key());
        let answer = other.come_from(provider, login).await;
        assert_eq!(location(&answer), "/sign-in/code?next=%2Fme");
        assert_eq!(location(&other.give_code().await), "/me");
        other
    }

    /// Signs out, and gives the address that the page leads on to.
    pub(crate) async fn sign_out_to(&self) -> String {
        let answer = self.submit("/sign-out", &[]).await;
        assert_eq!(answer.status(), reqwest::StatusCode::OK);
        let html = answer.text().await.expect("a page");
        let tag = html.split('<').find(|tag| tag.contains("http-equiv=\"refresh\"")).expect("it leads on by itself");
        let content = page::attribute(tag, "content").expect("an address");
        content.strip_prefix("0; url=").expect("at once").to_owned()
    }

    /// Gives the code that is asked for after the first factor.
    pub(crate) async fn give_code(&self) -> Response {
        let form = self.page("/sign-in/code").await;
        let csrf = page::csrf(&form).unwrap_or_default();
        let code = self.next_code();
        self.post("/sign-in/code", &[("csrf", &csrf), ("code", &code), ("next", "/me")]).await
    }
}
