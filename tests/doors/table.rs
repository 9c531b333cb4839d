// SPDX-License-Identifier: Apache-2.0
//! What each of our own doors answers to nobody, to the wrong role, to a stale factor and to the right person.
//!
//! An answer is its status, and where it leads or what it asks for: `303 /me`, `403 fresh`. In paths and forms `$name`
//! stands for something of the gateway that is tried. The order is the one in which the right person tries them.

/// One door.
pub(super) struct Row {
    /// `METHOD /pattern`, as policy lists it.
    pub(super) route: &'static str,
    /// The form that is sent.
    pub(super) form: &'static [(&'static str, &'static str)],
    /// To somebody who is not signed in.
    pub(super) nobody: &'static str,
    /// To somebody signed in without a grant. `-`: the door asks for no role.
    pub(super) wrong: &'static str,
    /// To the right person, whose last code is more than five minutes old.
    pub(super) stale: &'static str,
    /// To the right person.
    pub(super) right: &'static str,
}

type Form = &'static [(&'static str, &'static str)];

const fn row(route: &'static str, form: Form, answers: [&'static str; 4]) -> Row {
    let [nobody, wrong, stale, right] = answers;
    Row { route, form, nobody, wrong, stale, right }
}

const IN: &str = "303 /sign-in";
const UP: &str = "303 /step-up";
const FRESH: &str = "403 fresh";

/// Every door.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    // route, form                                                          nobody, wrong, stale, right
    row("GET /", &[],                                                       [IN, "-", "200", "200"]),
    row("GET /assets/{*path}", &[],                                         ["200", "-", "200", "200"]),
    row("GET /favicon.ico", &[],                                            ["200", "-", "200", "200"]),
    row("GET /set-up", &[],                                                 ["200", "-", "200", "200"]),
    row("POST /set-up", &[("token", "x"), ("name", "eve"), ("password", "$password")],
                                                                            ["422", "-", "422", "422"]),
    row("GET /invitation", &[],                                             ["200", "-", "200", "200"]),
    row("POST /invitation", &[("token", "x"), ("password", "$password")],   ["422", "-", "422", "422"]),
    row("GET /step-up", &[],                                                [IN, "-", "200", "200"]),
    row("GET /api/v1/passkeys/step-up", &[],                                ["401", "-", "200", "200"]),
    row("GET /banner", &[],                                                 [IN, "-", "303 /", "303 /"]),
    row("POST /banner", &[],                                                [IN, "-", "303 /", "303 /"]),
    row("GET /break-glass", &[],                                            ["200", "-", "200", "200"]),
    row("POST /break-glass", &[("code", "AAAA")],                           ["422", "-", "422", "422"]),
    row("GET /me", &[],                                                     [IN, "-", "200", "200"]),
    row("POST /me/sessions/end", &[("id", "$session")],                     [IN, "-", "303 /me", "303 /me"]),
    row("POST /me/sessions/end-others", &[],                                [IN, "-", "303 /me", "303 /me"]),
    row("GET /enrol", &[],                                                  [IN, "-", UP, "200"]),
    row("POST /enrol", &[("code", "$new-code")],                            [IN, "-", FRESH, "303 /me"]),
    row("GET /api/v1/passkeys/new", &[],                                    ["401", "-", FRESH, "200"]),
    row("POST /enrol/passkey", &[("passkey", "$new-passkey"), ("name", "key")],
                                                                            [IN, "-", FRESH, "303 /me"]),
    row("POST /me/factors/remove", &[("id", "$factor")],                    [IN, "-", FRESH, "303 /me"]),
    row("POST /me/recovery-codes", &[],                                     [IN, "-", FRESH, "200"]),
    row("POST /me/tokens", &[("name", "t"), ("days", "1")],                 [IN, "-", FRESH, "200"]),
    row("POST /me/tokens/revoke", &[("id", "$token")],                      [IN, "-", "303 /me", "303 /me"]),
    row("GET /machines", &[],                                               [IN, "-", "200", "200"]),
    row("GET /api/v1/openapi.json", &[],                                    ["200", "-", "200", "200"]),
    row("GET /api/v1/machines", &[],                                        ["401", "-", "200", "200"]),
    row("POST /favourites", &[("machine", "lab/web-1"), ("set", "on")],     [IN, "-", "303 /", "303 /"]),
    // A machine without a control socket: whoever may is told so, by the driver.
    row("POST /machines/{hypervisor}/{machine}/power", &[("verb", "start")], [IN, "404", "409", "409"]),
    row("GET /c/{hypervisor}/{machine}", &[],                               [IN, "404", UP, "200"]),
    row("POST /api/v1/consoles/{hypervisor}/{machine}/ticket/{mode}", &[],  ["401", "404", FRESH, "200"]),
    // It came to the handler, and is no WebSocket.
    row("GET /api/v1/consoles/{hypervisor}/{machine}/stream/{mode}", &[],   ["401", "404", FRESH, "400"]),
    row("GET /requests", &[],                                               [IN, "-", "200", "200"]),
    row("GET /requests/new", &[],                                           [IN, "-", "200", "200"]),
    row("GET /api/v1/requests", &[],                                        ["401", "-", "200", "200"]),
    row("POST /requests", &[("role", "viewer"), ("on", "tag:web"), ("reason", "a test"), ("hours", "1")],
                                                                            [IN, "-", "303 /requests/", "303 /requests/"]),
    row("POST /api/v1/requests", &[("role", "viewer"), ("on", "tag:db"), ("reason", "a test"), ("hours", "1")],
                                                                            ["401", "-", "200", "200"]),
    // There is no such request: the handler looked for it.
    row("POST /api/v1/requests/{id}/approve", &[],                          ["401", "-", "404", "404"]),
    row("POST /api/v1/requests/{id}/refuse", &[],                           ["401", "-", "404", "404"]),
    row("POST /api/v1/requests/{id}/withdraw", &[],                         ["401", "-", "404", "404"]),
    row("POST /api/v1/requests/{id}/begin", &[],                            ["401", "-", "404", "404"]),
    row("POST /api/v1/requests/{id}/end", &[],                              ["401", "-", "404", "404"]),
    row("GET /requests/{id}", &[],                                          [IN, "-", "404", "404"]),
    row("POST /requests/{id}/approve", &[],                                 [IN, "-", "404", "404"]),
    row("POST /requests/{id}/refuse", &[],                                  [IN, "-", "404", "404"]),
    row("POST /requests/{id}/withdraw", &[],                                [IN, "-", "404", "404"]),
    row("POST /requests/{id}/begin", &[],                                   [IN, "-", "404", "404"]),
    row("POST /requests/{id}/end", &[],                                     [IN, "-", "404", "404"]),
    row("GET /users", &[],                                                  [IN, "403", "200", "200"]),
    row("POST /users", &[("name", "noa")],                                  [IN, "403", FRESH, "200"]),
    row("GET /users/{id}", &[],                                             [IN, "403", "200", "200"]),
    row("POST /users/{id}/disable", &[],                                    [IN, "403", FRESH, "303 /users/"]),
    row("POST /users/{id}/enable", &[],                                     [IN, "403", FRESH, "303 /users/"]),
    row("POST /users/{id}/lock", &[],                                       [IN, "403", FRESH, "303 /users/"]),
    row("POST /users/{id}/unlock", &[],                                     [IN, "403", FRESH, "303 /users/"]),
    row("POST /users/{id}/training", &[("until", "$day")],                  [IN, "403", FRESH, "303 /users/"]),
    row("POST /users/{id}/mail", &[("address", "noa@example.org")],         [IN, "403", FRESH, "303 /users/"]),
    // People make their own tokens: the handler says so.
    row("POST /users/{id}/tokens", &[("name", "t"), ("days", "1")],         [IN, "403", FRESH, "400"]),
    // The handler looked for them.
    row("POST /users/{id}/tokens/revoke", &[("id", "00000000-0000-0000-0000-000000000007")],
                                                                            [IN, "403", FRESH, "404"]),
    row("POST /users/{id}/sessions/end", &[("id", "00000000-0000-0000-0000-000000000007")],
                                                                            [IN, "403", FRESH, "404"]),
    row("POST /service-accounts", &[("name", "robot")],                     [IN, "403", FRESH, "303 /users/"]),
    row("GET /break-glass/uses", &[],                                       [IN, "403", "200", "200"]),
    row("POST /break-glass/review", &[("id", "00000000-0000-0000-0000-000000000007"), ("who", "x"), ("why", "x")],
                                                                            [IN, "403", FRESH, "404"]),
    row("POST /users/{id}/sign-out", &[],                                   [IN, "403", FRESH, "303 /users/"]),
    row("POST /users/{id}/reset", &[],                                      [IN, "403", FRESH, "200"]),
    row("GET /access", &[],                                                 [IN, "403", "200", "200"]),
    row("GET /grants", &[],                                                 [IN, "403", "200", "200"]),
    row("POST /grants", &[("user", "$user"), ("role", "viewer"), ("on", "everything"), ("step_up_seconds", "300")],
                                                                            [IN, "403", FRESH, "303 /grants"]),
    row("POST /grants/preview", &[("user", "$user"), ("role", "viewer"), ("on", "everything"), ("step_up_seconds", "300")],
                                                                            [IN, "403", "200", "200"]),
    row("POST /grants/revoke", &[("grant", "$grant")],                      [IN, "403", FRESH, "303 /grants"]),
    row("GET /groups", &[],                                                 [IN, "403", "200", "200"]),
    row("POST /groups", &[("name", "ops")],                                 [IN, "403", FRESH, "303 /groups/"]),
    row("GET /groups/{id}", &[],                                            [IN, "403", "200", "200"]),
    row("POST /groups/{id}/add", &[("user", "$user")],                      [IN, "403", FRESH, "303 /groups/"]),
    row("POST /groups/{id}/remove", &[("user", "$user")],                   [IN, "403", FRESH, "303 /groups/"]),
    row("POST /groups/{id}/delete", &[],                                    [IN, "403", FRESH, "303 /groups"]),
    row("GET /roles", &[],                                                  [IN, "403", "200", "200"]),
    row("GET /policy/history", &[],                                         [IN, "403", "200", "200"]),
    row("POST /policy/try", &[("rows", "p, person:mia, viewer, everything, , allow")],
                                                                            [IN, "403", "200", "200"]),
    // No files were taken over here: what journeys do.
    row("GET /policy/history/{version}", &[],                               [IN, "403", "404", "404"]),
    row("POST /policy/history/{version}/rollback", &[],                     [IN, "403", FRESH, "404"]),
    // Nothing waits for a second person here: what journeys do.
    row("GET /proposals/{id}", &[],                                         [IN, "403", "404", "404"]),
    row("POST /proposals/{id}/approve", &[],                                [IN, "403", FRESH, "404"]),
    row("POST /proposals/{id}/refuse", &[],                                 [IN, "403", FRESH, "404"]),
    row("GET /api/v1/proposals", &[],                                       ["401", "403", "200", "200"]),
    row("GET /sessions", &[],                                               [IN, "403", "200", "200"]),
    // No console is open: the handler looked for it.
    row("POST /sessions/end", &[("id", "00000000-0000-0000-0000-000000000007")],
                                                                            [IN, "403", FRESH, "404"]),
    row("GET /locks", &[],                                                  [IN, "403", "200", "200"]),
    row("GET /api/v1/locks", &[],                                           ["401", "403", "200", "200"]),
    row("POST /locks", &[("kind", "hypervisor"), ("value", "other"), ("reason", "a test")],
                                                                            [IN, "403", FRESH, "303 /locks"]),
    row("POST /api/v1/locks", &[("kind", "hypervisor"), ("value", "third"), ("reason", "a test")],
                                                                            ["401", "403", FRESH, "200"]),
    row("POST /api/v1/locks/end", &[("id", "00000000-0000-0000-0000-000000000007")],
                                                                            ["401", "403", FRESH, "404"]),
    // Nothing is asked about: the handler looked for it.
    row("GET /api/v1/access", &[],                                          ["401", "403", "400", "400"]),
    // There is no such lock: the handler looked for it.
    row("POST /locks/end", &[("id", "00000000-0000-0000-0000-000000000007")],
                                                                            [IN, "403", FRESH, "404"]),
    row("GET /hypervisors", &[],                                            [IN, "403", "200", "200"]),
    row("GET /hypervisors/{name}", &[],                                     [IN, "403", "200", "200"]),
    row("GET /new-hypervisor", &[],                                         [IN, "403", UP, "200"]),
    // What is written cannot be dialled, and stands in the configuration file: the handlers looked.
    row("POST /new-hypervisor", &[("kind", "proxmox"), ("name", "pve"), ("address", "x")],
                                                                            [IN, "403", FRESH, "422"]),
    row("POST /hypervisors", &[("kind", "proxmox"), ("name", "pve"), ("address", "x")],
                                                                            [IN, "403", FRESH, "422"]),
    row("POST /hypervisors/{name}/remove", &[],                             [IN, "403", FRESH, "409"]),
    row("GET /api/v1/hypervisors", &[],                                     ["401", "403", "200", "200"]),
    row("GET /api/v1/hypervisors/{name}", &[],                              ["401", "403", "200", "200"]),
    row("POST /api/v1/new-hypervisor", &[("kind", "proxmox"), ("name", "pve"), ("address", "x")],
                                                                            ["401", "403", FRESH, "400"]),
    row("POST /api/v1/hypervisors", &[("kind", "proxmox"), ("name", "pve"), ("address", "x")],
                                                                            ["401", "403", FRESH, "400"]),
    row("POST /api/v1/hypervisors/{name}/remove", &[],                      ["401", "403", FRESH, "409"]),
    row("GET /recordings", &[],                                             [IN, "403", "200", "200"]),
    row("GET /trail", &[],                                                  [IN, "403", "200", "200"]),
    row("GET /trail/{node}/{number}", &[],                                  [IN, "403", "200", "200"]),
    // A directory presents a token; a person is nobody here.
    row("GET /scim/v2/ServiceProviderConfig", &[],                          ["401", "-", "401", "401"]),
    row("GET /scim/v2/ResourceTypes", &[],                                  ["401", "-", "401", "401"]),
    row("GET /scim/v2/Users", &[],                                          ["401", "-", "401", "401"]),
    row("POST /scim/v2/Users", &[],                                         ["401", "-", "401", "401"]),
    row("GET /scim/v2/Users/{id}", &[],                                     ["401", "-", "401", "401"]),
    row("PUT /scim/v2/Users/{id}", &[],                                     ["401", "-", "401", "401"]),
    row("PATCH /scim/v2/Users/{id}", &[],                                   ["401", "-", "401", "401"]),
    row("DELETE /scim/v2/Users/{id}", &[],                                  ["401", "-", "401", "401"]),
    row("GET /scim/v2/Groups", &[],                                         ["401", "-", "401", "401"]),
    row("POST /scim/v2/Groups", &[],                                        ["401", "-", "401", "401"]),
    row("GET /scim/v2/Groups/{id}", &[],                                    ["401", "-", "401", "401"]),
    row("PUT /scim/v2/Groups/{id}", &[],                                    ["401", "-", "401", "401"]),
    row("PATCH /scim/v2/Groups/{id}", &[],                                  ["401", "-", "401", "401"]),
    row("DELETE /scim/v2/Groups/{id}", &[],                                 ["401", "-", "401", "401"]),
    row("POST /step-up", &[("code", "$code"), ("next", "/me")],             [IN, "-", "303 /me", "303 /me"]),
    // At a provider that nobody can reach: what it would say is the business of journeys.
    row("GET /sign-in/with/{provider}", &[],                                ["422", "-", "400", "400"]),
    row("GET /sign-in/callback/{provider}", &[],                            ["422", "-", "400", "400"]),
    row("POST /sign-in/backchannel/{provider}", &[("logout_token", "x")],   ["400", "-", "400", "400"]),
    // Out, and in again.
    row("POST /sign-out", &[],                                              [IN, "-", IN, IN]),
    row("GET /sign-in", &[],                                                ["200", "-", "200", "200"]),
    row("POST /sign-in", &[("name", "ada"), ("password", "$password")],
                                                                            ["303 /sign-in/code", "-", "303 /sign-in/code", "303 /sign-in/code"]),
    row("GET /api/v1/passkeys/sign-in", &[],                                ["200", "-", "200", "200"]),
    row("POST /sign-in/passkey", &[("passkey", "{}")],                      ["422", "-", "422", "422"]),
    row("GET /sign-in/recovery", &[],                                       [IN, "-", "200", "200"]),
    row("POST /sign-in/recovery", &[("code", "AAAA")],                      [IN, "-", "422", "422"]),
    row("GET /sign-in/code", &[],                                           [IN, "-", "200", "200"]),
    row("POST /sign-in/code", &[("code", "$code")],                         [IN, "-", "303 /", "303 /"]),
    row("POST /me/password", &[("old", "$password"), ("password", "eleven green lanterns sway")],
                                                                            [IN, "-", FRESH, "303 /me"]),
];
