// SPDX-License-Identifier: Apache-2.0
//! How each kind of API speaks beside its operations: one row a kind, and the only place where dialects are told apart by
//! it but for what they answer to a sign-in.

use super::vsphere::rest::Form;
use super::{Look, Shown, Way, kubevirt, lxd, openstack, ovirt, proxmox, vmm, vsphere, without_slash};
use crate::reply::Refusal;
use http::{HeaderMap, Method};
use portcullis_domain::{HypervisorName, RequestId};
use portcullis_policy::classify::{self, ApiKind, Table, Verdict};
use portcullis_store::Digest;
use portcullis_upstream::Standing;
use std::borrow::Cow;

/// How far a dialect's clients read a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// All of it.
    Body,
    /// No further than the status line.
    StatusLine,
}

/// In what a client reads a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Json,
    Xml,
    /// JSON, with a value in it that says why.
    Valued,
}

impl Written {
    /// What the path and the head of a request say of it.
    pub(crate) fn of(kind: ApiKind, path: &str, headers: &HeaderMap) -> Self {
        (speech(kind).written)(path, headers)
    }
}

/// How one kind of API speaks beside its operations.
#[derive(Clone, Copy)]
pub(super) struct Speech {
    /// What the head of a request shows.
    pub(super) shown: for<'h> fn(&'h HeaderMap, Option<&'h Digest>) -> Option<Shown<'h>>,
    /// The path in the form that the table knows.
    pub(super) path: for<'p> fn(&'p str) -> Result<Cow<'p, str>, Refusal>,
    /// Whether a request is the dialect's own sign-in, or what its clients ask before it.
    pub(super) is_sign_in: fn(&Method, &str) -> bool,
    /// Whether a request ends, by its head, what a sign-in gave.
    pub(super) is_sign_out: fn(&Method, &str) -> bool,
    /// What has to be known of a machine to say what is asked.
    pub(super) look: fn(Verdict, &classify::Asked<'_>) -> (Verdict, Option<Look>),
    /// What is asked, by what that machine is; none where it cannot be told.
    pub(super) changed: fn(&Table, &HypervisorName, &classify::Asked<'_>, &Standing, &HeaderMap) -> Option<Verdict>,
    /// What is asked, by what the inventory knows.
    pub(super) settle: fn(Way<'_>, Verdict, &classify::Asked<'_>) -> Verdict,
    /// Refuses a head that changes what is asked in a way that nobody reviewed.
    pub(super) check: fn(&HeaderMap) -> Result<(), Refusal>,
    /// The body of a refusal.
    pub(super) refusal: fn(&Refusal, &str, RequestId) -> serde_json::Value,
    /// In what it is written.
    pub(super) written: fn(&str, &HeaderMap) -> Written,
    pub(super) reads: Reads,
}

/// The dialects: one row a kind of API.
pub(super) const fn speech(kind: ApiKind) -> Speech {
    const PLAIN: Speech = Speech {
        shown: |headers, _| lxd::shown(headers, None),
        path: |raw| Ok(Cow::Borrowed(raw)),
        is_sign_in: |_, _| false,
        is_sign_out: |_, _| false,
        look: |verdict, _| (verdict, None),
        changed: |_, _, _, _, _| None,
        settle: |_, verdict, _| verdict,
        check: |_| Ok(()),
        refusal: lxd::refusal,
        written: |_, _| Written::Json,
        reads: Reads::Body,
    };
    match kind {
        ApiKind::Lxd | ApiKind::Incus => Speech {
            shown: |headers, key| lxd::shown(headers, key),
            is_sign_in: lxd::is_sign_in,
            look: lxd::look,
            changed: lxd::changed,
            ..PLAIN
        },
        ApiKind::CloudHypervisor | ApiKind::Firecracker => Speech { refusal: vmm::refusal, ..PLAIN },
        ApiKind::Proxmox => Speech {
            shown: |headers, _| proxmox::shown(headers),
            path: |raw| Ok(proxmox::path(raw)),
            is_sign_in: proxmox::is_sign_in,
            look: proxmox::look,
            changed: |table, name, asked, standing, _| proxmox::changed(table, name, asked, standing),
            refusal: |refusal, said, _| proxmox::refusal(refusal, said),
            reads: Reads::StatusLine,
            ..PLAIN
        },
        ApiKind::OpenStack => Speech {
            shown: |headers, _| openstack::shown(headers),
            path: |raw| Ok(without_slash(raw)),
            is_sign_in: openstack::is_own,
            is_sign_out: |method, raw| *method == Method::DELETE && without_slash(raw) == openstack::SIGN_IN,
            check: openstack::check,
            refusal: openstack::refusal,
            ..PLAIN
        },
        ApiKind::Ovirt => Speech {
            shown: |headers, _| ovirt::shown(headers),
            path: |raw| ovirt::path(raw),
            is_sign_in: ovirt::is_own,
            check: ovirt::check,
            refusal: ovirt::refusal,
            written: ovirt::written,
            ..PLAIN
        },
        ApiKind::Kubevirt => Speech {
            shown: |headers, _| kubevirt::shown(headers),
            path: |raw| Ok(without_slash(raw)),
            settle: kubevirt::settle_said,
            check: kubevirt::check,
            refusal: kubevirt::refusal,
            ..PLAIN
        },
        // Who calls stands in the calls.
        ApiKind::Xapi => Speech { shown: |_, _| None, ..PLAIN },
        ApiKind::Vsphere => Speech {
            shown: |headers, _| vsphere::rest::shown(headers).map(Shown::Pass),
            path: |raw| Ok(without_slash(raw)),
            refusal: |refusal, _, _| vsphere::rest::refusal(refusal, Form::New),
            written: |path, _| if Form::of(path) == Form::Old { Written::Valued } else { Written::Json },
            ..PLAIN
        },
    }
}
