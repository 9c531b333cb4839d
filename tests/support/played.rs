// SPDX-License-Identifier: Apache-2.0
//! A provider that is played: honest, or wrong in one way at a time. For what a real one would never do.

use super::{TestGateway, gateway::free_port, person::location};
use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_domain::{Clock, ManualClock};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::net::TcpListener;

/// What the gateway is called there, and its secret.
pub(crate) const CLIENT: &str = "portcullis";
const SECRET: &str = "p@ss word:of-a-test";

type Claims = Map<String, Value>;

/// With what a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Rs256,
    Ps256,
    Es256,
    /// By a key that the provider does not publish, under the id of one that it does.
    Stranger,
    /// Not at all.
    Nothing,
    /// With the published key's own text as a shared secret: the classic confusion.
    PublicKeyAsSecret,
    /// With the client's secret.
    ClientSecret,
}

/// How it plays: each member is honest by default.
#[derive(Clone)]
pub(crate) struct Play {
    pub(crate) sign: Sign,
    /// Changes the ID token's claims, and its header.
    pub(crate) claims: fn(&mut Claims),
    pub(crate) header: fn(&mut Claims),
    /// Changes the discovery document.
    pub(crate) discovery: fn(&mut Claims),
    /// Changes the keys.
    pub(crate) keys: fn(&mut Vec<Value>),
    /// Changes the token answer.
    pub(crate) tokens: fn(&mut Claims),
    /// Changes what userinfo says.
    pub(crate) userinfo: fn(&mut Claims),
    /// Userinfo as a signed token.
    pub(crate) signs_userinfo: bool,
    /// Groups stand in userinfo only.
    pub(crate) groups_in_userinfo: bool,
    /// Changes what the browser brings back.
    pub(crate) back: fn(&mut BTreeMap<String, String>),
    /// A part of its addresses that answers with a redirect, or with a great many bytes.
    pub(crate) redirects: &'static str,
    pub(crate) floods: &'static str,
    /// What its token endpoint answers instead of what it should.
    pub(crate) fails: Option<(u16, &'static str)>,
    /// It changes its keys between the browser's visit and the token.
    pub(crate) rotates: bool,
    /// Somebody took the PKCE challenge out of the address on the way.
    pub(crate) loses_challenge: bool,
    /// It gives no ID token when it renews.
    pub(crate) renews_silently: bool,
}

impl Default for Play {
    fn default() -> Self {
        Self {
            sign: Sign::Rs256,
            claims: |_| {},
            header: |_| {},
            discovery: |_| {},
            keys: |_| {},
            tokens: |_| {},
            userinfo: |_| {},
            signs_userinfo: false,
            groups_in_userinfo: false,
            back: |_| {},
            redirects: "nowhere",
            floods: "nowhere",
            fails: None,
            rotates: false,
            loses_challenge: false,
            renews_silently: false,
        }
    }
}

struct Keys {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    generation: u32,
}

impl Keys {
    fn new(generation: u32) -> Self {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { rsa, ec, generation }
    }

    fn published(&self) -> Vec<Value> {
        // RFC 8017 appendix A.1.1, at 2048 bits: a sequence of a number of 256 bytes and one of three.
        let public = self.rsa.public_key().as_ref();
        let (n, e) = (B64.encode(&public[9..265]), B64.encode(&public[267..270]));
        let point = self.ec.public_key().as_ref();
        let (x, y) = (B64.encode(&point[1..33]), B64.encode(&point[33..65]));
        vec![
            json!({"kty": "RSA", "use": "sig", "kid": format!("rsa-{}", self.generation), "n": n, "e": e}),
            json!({"kty": "EC", "use": "sig", "crv": "P-256", "kid": format!("ec-{}", self.generation), "x": x, "y": y}),
            // Of a kind that nobody knows: it is passed over.
            json!({"kty": "LATER", "kid": "later", "q": "AQAB"}),
        ]
    }
}

/// A sign-in that a browser began.
struct Begun {
    nonce: String,
    challenge: Option<String>,
    redirect: String,
    at: i64,
}

struct Inside {
    issuer: String,
    clock: Arc<ManualClock>,
    play: Play,
    keys: Keys,
    others: Keys,
    codes: BTreeMap<String, Begun>,
    count: u64,
    asked: Vec<String>,
    given: String,
}

/// It answers until the test ends.
#[derive(Clone)]
pub(crate) struct Played {
    inside: Arc<Mutex<Inside>>,
    pub(crate) port: u16,
}

impl Played {
    /// A gateway that trusts a played provider; `settings` are more keys of its table.
    pub(crate) async fn company(settings: &str) -> (TestGateway, Self) {
        let port = free_port();
        let secret = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(secret.path(), SECRET).expect("written");
        let table = format!(
            "[limits]\nsign_in_per_minute = 600\nstranger_per_second = 1000\nstranger_burst = 1000\n\
             [[identity.providers]]\nname = \"corp\"\ntitle = \"Example Corp\"\nissuer = \"http://127.0.0.1:{port}/id\"\n\
             client_id = {CLIENT:?}\nclient_secret_file = {:?}\n{settings}\n[[identity.providers.roles]]\n\
             value = \"vm-admins\"\nrole = \"operator\"\non = \"everything\"\n\
             [[identity.providers]]\nname = \"other\"\ntitle = \"Other\"\n\
             issuer = \"http://127.0.0.1:{port}/id/other\"\nclient_id = {CLIENT:?}\n",
            secret.path().display().to_string()
        );
        let gateway = TestGateway::start(&table).await;
        let played = Self::start(port, Arc::clone(&gateway.clock)).await;
        (gateway, played)
    }

    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    async fn start(port: u16, clock: Arc<ManualClock>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("its port");
        let inside = Arc::new(Mutex::new(Inside {
            issuer: format!("http://127.0.0.1:{port}/id"),
            clock,
            play: Play::default(),
            keys: Keys::new(1),
            others: Keys::new(1),
            codes: BTreeMap::new(),
            count: 0,
            asked: Vec::new(),
            given: String::new(),
        }));
        let shared = Arc::clone(&inside);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inside = Arc::clone(&shared);
                let service = service_fn(move |request| {
                    let inside = Arc::clone(&inside);
                    async move { Ok::<_, hyper::Error>(answer(&inside, request).await) }
                });
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    builder.serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        });
        Self { inside, port }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("whole")
    }

    /// Plays like this from now on.
    pub(crate) fn play(&self, change: impl FnOnce(&mut Play)) {
        let mut play = Play::default();
        change(&mut play);
        self.lock().play = play;
    }

    /// Other keys from now on.
    pub(crate) fn rotate(&self) {
        let mut inside = self.lock();
        let generation = inside.keys.generation + 1;
        inside.keys = Keys::new(generation);
    }

    /// How often an address was asked for since the last time.
    pub(crate) fn asked(&self, end: &str) -> usize {
        let mut inside = self.lock();
        let count = inside.asked.iter().filter(|a| a.ends_with(end)).count();
        inside.asked.clear();
        count
    }

    /// The ID token that it gave last.
    pub(crate) fn last_token(&self) -> String {
        self.lock().given.clone()
    }

    /// What its sign-in page would do with a browser that the gateway sent: the path that leads back.
    pub(crate) fn visit(&self, sent: &reqwest::Response) -> String {
        let address = reqwest::Url::parse(&location(sent)).expect("an address of the provider");
        let asked: BTreeMap<String, String> = address.query_pairs().into_owned().collect();
        let get = |name: &str| asked.get(name).cloned();
        assert_eq!(get("response_type").as_deref(), Some("code"));
        assert_eq!(get("code_challenge_method").as_deref(), Some("S256"));
        let mut inside = self.lock();
        inside.count += 1;
        let code = format!("code-{}", inside.count);
        let begun = Begun {
            nonce: get("nonce").expect("a nonce"),
            challenge: get("code_challenge").filter(|_| !inside.play.loses_challenge),
            redirect: get("redirect_uri").expect("a way back"),
            at: inside.clock.now().unix_timestamp(),
        };
        let mut back = BTreeMap::from([
            ("code".to_owned(), code.clone()),
            ("state".to_owned(), get("state").expect("a state")),
            ("iss".to_owned(), inside.issuer.clone()),
        ]);
        (inside.play.back)(&mut back);
        let to = reqwest::Url::parse_with_params(&begun.redirect, back).expect("an address");
        inside.codes.insert(code, begun);
        if inside.play.rotates {
            let generation = inside.keys.generation + 1;
            inside.keys = Keys::new(generation);
        }
        format!("{}?{}", to.path(), to.query().unwrap_or_default())
    }

    /// A logout token about somebody, changed as wished.
    pub(crate) fn logout_token(&self, sign: Sign, change: impl FnOnce(&mut Claims)) -> String {
        let mut inside = self.lock();
        inside.count += 1;
        let now = inside.clock.now().unix_timestamp();
        let claims = json!({
            "iss": inside.issuer, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": format!("j{}", inside.count),
            "sub": "u-1", "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        });
        let Value::Object(mut claims) = claims else { unreachable!("an object") };
        change(&mut claims);
        inside.signed(sign, &claims, |header| drop(header.insert("typ".into(), "logout+jwt".into())))
    }
}

impl Inside {
    fn signed(&self, sign: Sign, claims: &Claims, change: impl Fn(&mut Claims)) -> String {
        let (algorithm, kind) = match sign {
            Sign::Rs256 | Sign::Stranger => ("RS256", "rsa"),
            Sign::Ps256 => ("PS256", "rsa"),
            Sign::Es256 => ("ES256", "ec"),
            Sign::Nothing => ("none", "rsa"),
            Sign::PublicKeyAsSecret | Sign::ClientSecret => ("HS256", "rsa"),
        };
        let mut header = Claims::new();
        header.insert("alg".into(), algorithm.into());
        header.insert("kid".into(), format!("{kind}-{}", self.keys.generation).into());
        change(&mut header);
        let part = |map: &Claims| B64.encode(Value::Object(map.clone()).to_string());
        // A number that JSON can write and this program's own type cannot hold.
        let payload = Value::Object(claims.clone()).to_string().replace("\"1e400\"", "1e400");
        let signed = format!("{}.{}", part(&header), B64.encode(payload));
        let random = SystemRandom::new();
        let keys = if sign == Sign::Stranger { &self.others } else { &self.keys };
        let rsa = |padding| {
            let mut signature = vec![0; keys.rsa.public_modulus_len()];
            keys.rsa.sign(padding, &random, signed.as_bytes(), &mut signature).expect("signed");
            signature
        };
        let shared =
            |secret: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes()).as_ref().to_vec();
        let signature = match sign {
            Sign::Rs256 | Sign::Stranger => rsa(&RSA_PKCS1_SHA256),
            Sign::Ps256 => rsa(&RSA_PSS_SHA256),
            Sign::Es256 => keys.ec.sign(&random, signed.as_bytes()).expect("signed").as_ref().to_vec(),
            Sign::Nothing => Vec::new(),
            Sign::PublicKeyAsSecret => shared(self.keys.published()[0]["n"].as_str().expect("a key").as_bytes()),
            Sign::ClientSecret => shared(SECRET.as_bytes()),
        };
        format!("{signed}.{}", B64.encode(signature))
    }

    fn object(value: Value) -> Claims {
        let Value::Object(map) = value else { unreachable!("an object") };
        map
    }

    fn discovery(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        let mut document = Self::object(json!({
            "issuer": self.issuer, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
            "jwks_uri": at("/jwks"), "userinfo_endpoint": at("/userinfo"), "end_session_endpoint": at("/end"),
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "PS256", "ES256", "HS256", "none"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "authorization_response_iss_parameter_supported": true,
        }));
        (self.play.discovery)(&mut document);
        Value::Object(document)
    }

    fn token(&self, form: &BTreeMap<String, String>, basic: Option<&str>) -> (StatusCode, Value) {
        let refuse = |why: &str| (StatusCode::BAD_REQUEST, json!({"error": why}));
        let form_encoded = |text: &str| serde_urlencoded_value(text);
        let expected = format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!(
                "{}:{}",
                form_encoded(CLIENT),
                form_encoded(SECRET)
            ))
        );
        if basic != Some(expected.as_str()) {
            return (StatusCode::UNAUTHORIZED, json!({"error": "invalid_client"}));
        }
        let now = self.clock.now().unix_timestamp();
        let get = |name: &str| form.get(name).map(String::as_str);
        let renews = get("grant_type") == Some("refresh_token");
        let (nonce, at) = if renews {
            if get("refresh_token") != Some("refresh-1") {
                return refuse("invalid_grant");
            }
            (None, now)
        } else {
            let Some(begun) = get("code").and_then(|c| self.codes.get(c)) else { return refuse("invalid_grant") };
            let digest = aws_lc_rs::digest::digest(
                &aws_lc_rs::digest::SHA256,
                get("code_verifier").unwrap_or_default().as_bytes(),
            );
            // RFC 9700 section 2.1.1: a verifier without a challenge, or one that does not fit, is refused.
            if begun.challenge.as_deref() != Some(B64.encode(digest).as_str())
                || get("redirect_uri") != Some(begun.redirect.as_str())
            {
                return refuse("invalid_grant");
            }
            (Some(begun.nonce.clone()), begun.at)
        };
        let mut claims = Self::object(json!({
            "iss": self.issuer, "aud": CLIENT, "sub": "u-1", "iat": now, "exp": now + 300, "auth_time": at,
            "sid": "s-1", "preferred_username": "alice", "name": "Alice",
        }));
        if let Some(nonce) = nonce {
            claims.insert("nonce".into(), nonce.into());
        }
        if !self.play.groups_in_userinfo {
            claims.insert("groups".into(), json!(["vm-admins"]));
        }
        (self.play.claims)(&mut claims);
        let id_token = self.signed(self.play.sign, &claims, self.play.header);
        let mut answer = Self::object(json!({
            "access_token": "access-1", "token_type": "Bearer", "expires_in": 300, "id_token": id_token,
            "refresh_token": "refresh-1",
        }));
        if renews && self.play.renews_silently {
            answer.remove("id_token");
        }
        (self.play.tokens)(&mut answer);
        (StatusCode::OK, Value::Object(answer))
    }

    fn userinfo(&self, bearer: Option<&str>) -> (StatusCode, &'static str, String) {
        if bearer != Some("Bearer access-1") {
            return (StatusCode::UNAUTHORIZED, "application/json", "{}".to_owned());
        }
        let mut claims = Self::object(json!({"sub": "u-1", "groups": ["vm-admins"]}));
        if self.play.signs_userinfo {
            claims.insert("iss".into(), self.issuer.clone().into());
            claims.insert("aud".into(), CLIENT.into());
        }
        (self.play.userinfo)(&mut claims);
        if self.play.signs_userinfo {
            return (StatusCode::OK, "application/jwt", self.signed(self.play.sign, &claims, self.play.header));
        }
        (StatusCode::OK, "application/json; charset=utf-8", Value::Object(claims).to_string())
    }
}

/// As RFC 6749 section 2.3.1 wants a name and a secret in the header.
fn serde_urlencoded_value(text: &str) -> String {
    let url = reqwest::Url::parse_with_params("http://x/", [("v", text)]).expect("an address");
    url.query().expect("a query").trim_start_matches("v=").to_owned()
}

async fn answer(inside: &Mutex<Inside>, request: Request<Incoming>) -> Response<Full<bytes::Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = head.uri.path().to_owned();
    let told = |name: header::HeaderName| head.headers.get(name).and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
    let mut inside = inside.lock().expect("whole");
    inside.asked.push(path.clone());
    if path.ends_with(inside.play.redirects) {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        let to = HeaderValue::from_str(&format!("{}/elsewhere", inside.issuer)).expect("a value");
        answer.headers_mut().insert(header::LOCATION, to);
        return answer;
    }
    let (status, kind, text) = match path.strip_prefix("/id").unwrap_or_default() {
        "/.well-known/openid-configuration" => (StatusCode::OK, "application/json", inside.discovery().to_string()),
        "/jwks" => {
            let mut keys = inside.keys.published();
            (inside.play.keys)(&mut keys);
            (StatusCode::OK, "application/jwk-set+json", json!({ "keys": keys }).to_string())
        }
        "/token" => {
            let query = format!("http://x/?{}", String::from_utf8_lossy(&body));
            let form = reqwest::Url::parse(&query).expect("a form").query_pairs().into_owned().collect();
            let (status, answer) = inside.token(&form, told(header::AUTHORIZATION).as_deref());
            answer["id_token"].as_str().unwrap_or_default().clone_into(&mut inside.given);
            match inside.play.fails {
                Some((status, text)) => {
                    (StatusCode::from_u16(status).expect("a status"), "text/plain", text.to_owned())
                }
                None => (status, "application/json", answer.to_string()),
            }
        }
        "/userinfo" => inside.userinfo(told(header::AUTHORIZATION).as_deref()),
        _ => (StatusCode::NOT_FOUND, "text/plain", String::new()),
    };
    let text = if path.ends_with(inside.play.floods) { format!("{text}{}", " ".repeat(300 * 1024)) } else { text };
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
