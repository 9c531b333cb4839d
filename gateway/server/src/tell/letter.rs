// SPDX-License-Identifier: Apache-2.0
//! Letters: who gets one, and what stands in it. Plain words, nothing secret, and one link: to the request on the portal's
//! own pages.

use super::{Happens, News, Undelivered, message};
use crate::{
    config::{Config, ConfigError, MailTlsWord},
    pages::requests::lasts,
    state::{House, chain},
};
use portcullis_domain::{Action, MailAddress, RoleName};
use portcullis_store::{AccessRequest, AccessState, Message, StepWhat, Way};
use portcullis_upstream::{Mail, MailServer, MailTls, Mailer, Outbound};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, macros::format_description};

/// The most people who are told that somebody asks.
const MOST: usize = 50;
/// The longest piece of what people wrote, in characters.
const PIECE: usize = 512;

/// The server of the configuration.
pub(super) struct Post {
    mailer: Mailer,
}

/// A letter as it waits in the outbox.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Letter {
    to: MailAddress,
    subject: String,
    text: String,
}

impl Post {
    /// The server of the configuration, if there is one.
    pub(super) fn new(config: &Config) -> Result<Option<Self>, ConfigError> {
        let Some(mail) = &config.mail else { return Ok(None) };
        let wrong = |e: portcullis_upstream::Error| ConfigError::new(&config.file, chain(&e));
        let password = mail.password_file.as_deref().map(|file| Outbound::read_secret("mail.password_file", file));
        let server = MailServer {
            host: &mail.host,
            port: mail.port(),
            tls: match mail.tls {
                MailTlsWord::Implicit => MailTls::Implicit,
                MailTlsWord::StartTls => MailTls::StartTls,
                MailTlsWord::None => MailTls::None,
            },
            ca_file: mail.ca_file.as_deref(),
            login: mail.user.clone().zip(password.transpose().map_err(wrong)?),
            hello: config.portal.host().unwrap_or_default(),
            from: mail.from.clone(),
        };
        Ok(Some(Self { mailer: Mailer::new("mail", server).map_err(wrong)? }))
    }

    pub(super) async fn deliver(&self, message: &Message) -> Result<(), Undelivered> {
        let letter: Letter =
            serde_json::from_str(&message.body).map_err(|_| Undelivered::Never("it cannot be read".to_owned()))?;
        let Letter { to, subject, text } = &letter;
        let id = message.id.to_string();
        self.mailer.send(Mail { id: &id, to, subject, text, at: message.made }).await.map_err(|e| match &e {
            portcullis_upstream::Undelivered::Later(_) => Undelivered::Later(chain(&e)),
            portcullis_upstream::Undelivered::Never(_) => Undelivered::Never(chain(&e)),
        })
    }
}

/// The letters about a step: to whoever may decide, or to whoever asked.
pub(super) async fn letters(house: &House, news: &News) -> Result<Vec<Message>, String> {
    let failed = |e: portcullis_store::Error| chain(&e);
    let mut letters = Vec::new();
    let mut post = |name: &str, to: &MailAddress, subject: String, text: String| {
        let letter = Letter { to: to.clone(), subject, text };
        let body = serde_json::to_string(&letter).map_err(|e| e.to_string())?;
        letters.push(message(Way::Mail, name, body, news));
        Ok::<(), String>(())
    };
    if news.what == Happens::Step(StepWhat::Asked) {
        // A rule that approved it at once asks nobody.
        if !matches!(news.request.state, AccessState::Asked(_)) {
            return Ok(letters);
        }
        let known = house.store.addresses().await.map_err(failed)?;
        let inventory = house.fleet.inventory();
        let could = house.requests.deciders(&house.engine, &inventory, &news.request, |u| known.contains_key(u)).await;
        for user in could.map_err(|e| chain(&e))?.iter().take(MOST) {
            if let Some(to) = known.get(&user.id) {
                let (subject, text) = to_decide(news, &house.origin);
                post(&user.name, to, subject, text)?;
            }
        }
        return Ok(letters);
    }
    // Who did it themselves knows.
    let own = news.by == news.asker;
    if let Some((subject, text)) = to_asker(news, &house.origin).filter(|_| !own)
        && let Some(to) = house.store.address_of(news.request.user).await.map_err(failed)?
    {
        post(&news.asker, &to.address, subject, text)?;
    }
    Ok(letters)
}

/// What people wrote, as it stands in a letter: short, and nothing in it that a mail program makes a link of, so that a
/// reason cannot lead anybody to a page that is not ours.
fn tame(text: &str) -> String {
    let mut tamed = String::new();
    let mut before = ' ';
    let mut rest = text.trim().chars().filter(|c| !c.is_control() || *c == '\n').take(PIECE).peekable();
    while let Some(c) = rest.next() {
        let letter_next = rest.peek().is_some_and(|n| n.is_alphanumeric());
        match c {
            ':' if rest.peek() == Some(&'/') => tamed.push_str("[:]"),
            '.' if before.is_alphanumeric() && letter_next => tamed.push_str("[.]"),
            '@' => tamed.push_str("[at]"),
            // Marks that turn the direction of what follows.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            _ => tamed.push(c),
        }
        before = c;
    }
    tamed
}

fn line(text: &str) -> String {
    tame(text).replace('\n', " ")
}

fn when(at: OffsetDateTime) -> String {
    at.format(format_description!("[year]-[month]-[day] [hour]:[minute] UTC")).unwrap_or_default()
}

/// What a role gives, in a sentence: `act as viewer`, `switch its power`.
fn acts(role: &RoleName) -> String {
    role.right().map_or_else(|| format!("act as {role}"), |(_, action): (_, Action)| action.deed().to_owned())
}

/// What it is about: `act as viewer on tag web`.
fn about(request: &AccessRequest) -> String {
    line(&format!("{} on {}", acts(&request.role), request.selector))
}

fn foot(why: &str, origin: &str) -> String {
    format!("-- \nYou get this because {why}. Letters of this gateway lead to {origin} only.\n")
}

fn to_decide(news: &News, origin: &str) -> (String, String) {
    let request = &news.request;
    let (who, about) = (line(&news.asker), about(request));
    let from = request.start.map(|at| format!(", from {}", when(at))).unwrap_or_default();
    let text = format!(
        "{who} asks to {about}, for {}{from}.\n\nWhy: {}\n\nLook at it and decide:\n{}\n\n{}",
        lasts(request.seconds),
        tame(&request.reason),
        news.link,
        foot("you may decide on it", origin)
    );
    (format!("{who} asks to {about}"), text)
}

/// What whoever asked is told; none where there is nothing to tell.
fn to_asker(news: &News, origin: &str) -> Option<(String, String)> {
    let request = &news.request;
    let (by, about) = (line(&news.by), about(request));
    let until = match request.state {
        AccessState::Active(_, ends) => format!(" until {}", when(ends)),
        _ => String::new(),
    };
    let (subject, said) = match news.what {
        Happens::Step(StepWhat::Approved) => {
            let then = match request.start {
                Some(at) => format!("It begins by itself at {}.", when(at)),
                None => "It has not begun: you begin it on its page, and its time counts from then.".to_owned(),
            };
            ("Approved", format!("{by} approved that you may {about}, for {}. {then}", lasts(request.seconds)))
        }
        Happens::Step(StepWhat::Refused) => ("Refused", format!("{by} refused that you may {about}.")),
        Happens::Step(StepWhat::Expired) => {
            ("Out of time", format!("Nobody decided in time whether you may {about}, or it was not begun in time."))
        }
        Happens::Step(StepWhat::Active) => ("Begun", format!("You may {about}{until}.")),
        Happens::Ending => {
            let then = "What is open then is cut. Ask again before that if you need it for longer.";
            ("Ends soon", format!("You may {about}{until}. {then}"))
        }
        Happens::Step(StepWhat::Over) => ("Over", format!("The time is over in which you could {about}.")),
        Happens::Step(StepWhat::Ended) => ("Ended", format!("{by} ended before its time that you may {about}.")),
        Happens::Step(StepWhat::Asked | StepWhat::Withdrawn) => return None,
    };
    let words =
        if news.words.trim().is_empty() { String::new() } else { format!("\n\n{by} wrote: {}", tame(&news.words)) };
    let text = format!("{said}{words}\n\nThe request:\n{}\n\n{}", news.link, foot("you asked for it", origin));
    Some((format!("{subject}: {about}"), text))
}

#[cfg(test)]
mod tests;
