// SPDX-License-Identifier: Apache-2.0
//! The screen behind a ticket: a WebSocket at the host that runs the machine. Behind it is RFB without a password (the
//! ticket was the authentication).

use crate::{
    desk::Center,
    driver::{Screen, ScreenLogin},
    error::{Error, Fault},
    framed,
    tls::{Tls, TlsUpgrade},
    wire::{Address, Dialer},
};
use http::{HeaderValue, Request, header::SEC_WEBSOCKET_PROTOCOL};
use portcullis_policy::classify::soap::Element;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Where screens are, where a ticket does not say otherwise.
const PORT: u16 = 443;

/// The hosts whose screens may be dialled.
pub(super) struct Hosts {
    listed: Vec<Address>,
    own: Address,
}

impl Hosts {
    pub(super) fn read(key: &str, listed: &[String], own: &Address) -> Result<Self, Error> {
        let one = |text: &String| {
            let has_port = text.rsplit_once(':').is_some_and(|(h, _)| !h.contains(':') || h.ends_with(']'));
            let full = if has_port { text.clone() } else { format!("{text}:{PORT}") };
            Address::parse(key, &full)
        };
        let listed = listed.iter().map(one).collect::<Result<_, _>>()?;
        Ok(Self { listed, own: own.clone() })
    }

    /// Where a ticket leads, if it may.
    fn place(&self, ticket: &Element) -> Result<Address, Fault> {
        let text = |name: &str| ticket.child(name).map(|c| c.text.trim()).filter(|t| !t.is_empty());
        let port = match text("port").filter(|p| *p != "0") {
            Some(port) => port.parse().map_err(|_| Fault::Protocol("a screen at a port that is none".to_owned()))?,
            None => PORT,
        };
        let Some(host) = text("host") else { return Ok(self.own.clone()) };
        let place = Address::Tcp(host.to_owned(), port);
        if place == self.own || self.listed.contains(&place) {
            return Ok(place);
        }
        let shown = crate::driver::clean_text(&place.to_string());
        Err(Fault::NoScreen(format!("it is at {shown}, which screen_hosts in the configuration does not list")))
    }

    /// Connects to the screen of a ticket.
    pub(super) async fn open(&self, ticket: &Element, center: &Center) -> Result<Screen, Fault> {
        let place = self.place(ticket)?;
        let all = ticket.all("certThumbprintList").filter_map(|t| t.child("thumbprint"));
        let mut thumbprints: Vec<&str> = all.map(|t| t.text.trim()).filter(|t| !t.is_empty()).collect();
        if thumbprints.is_empty() {
            thumbprints.extend(ticket.child("sslThumbprint").map(|t| t.text.trim()).filter(|t| !t.is_empty()));
        }
        let tls = if thumbprints.is_empty() {
            // Without one only the hypervisor's own place is believed, as its API is.
            let own = center.dialer.tls.as_ref().filter(|_| place == self.own);
            own.map(Tls::now).transpose()?
        } else {
            TlsUpgrade::pinned_to(&thumbprints)
        };
        let tls = tls.ok_or_else(|| Fault::Untrusted("the ticket of its screen says no thumbprint".to_owned()))?;
        let secret = ticket.child("ticket").map(|t| t.text.trim()).unwrap_or_default();
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        if secret.is_empty() || secret.len() > 1024 || !secret.bytes().all(is_plain) {
            return Err(Fault::Protocol("a ticket that cannot be sent".to_owned()));
        }
        // The scheme only satisfies the library: TLS is already on the wire.
        let address = format!("ws://{place}/ticket/{secret}");
        let wrong = || Fault::Protocol("a ticket that cannot be sent".to_owned());
        let mut request: Request<()> = address.into_client_request().map_err(|_| wrong())?;
        // Alone: a server may wrap the screen in something else for a client that offers more.
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("binary"));
        let dialer = Dialer { address: place, tls: Some(Tls::Fixed(tls)), authorization: None };
        let stream = framed::open(request, dialer.dial().await?).await?;
        Ok(Screen { stream, login: ScreenLogin { username: None, password: None }, tls: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(host: &str, port: &str) -> Element {
        Element::of_children("returnval", vec![Element::text("host", host), Element::text("port", port)])
    }

    #[test]
    fn only_hosts_of_the_configuration_are_dialled() {
        let own = Address::Tcp("vc.example".to_owned(), 443);
        let listed = ["esx1.example".to_owned(), "10.0.0.5:9443".to_owned(), "[2001:db8::1]".to_owned()];
        let hosts = Hosts::read("k", &listed, &own).unwrap();
        for (host, port, shown) in [
            ("esx1.example", "443", "esx1.example:443"),
            ("esx1.example", "", "esx1.example:443"),
            ("10.0.0.5", "9443", "10.0.0.5:9443"),
            ("2001:db8::1", "443", "[2001:db8::1]:443"),
            ("", "", "vc.example:443"),
        ] {
            assert_eq!(hosts.place(&ticket(host, port)).unwrap().to_string(), shown);
        }
        for (host, port) in [("esx2.example", "443"), ("esx1.example", "22"), ("10.0.0.5", ""), ("127.0.0.1", "5900")] {
            assert!(hosts.place(&ticket(host, port)).is_err(), "{host} {port}");
        }
        assert!(hosts.place(&ticket("esx1.example", "70000")).is_err());
    }
}
