// SPDX-License-Identifier: Apache-2.0
//! The kinds of hypervisor: one row each, and the only place of this room where they are told apart.
//!
//! A new kind is a row here, a struct of its keys with `Settings` in `config/kinds.rs`, and a driver; where its API is
//! HTTP also an `ApiKind` of policy's with a classification table, and a row of `server/dialect`.

use crate::{
    config::{
        KubevirtConfig, LibvirtConfig, LxdConfig, OpenStackConfig, OvirtConfig, ProxmoxConfig, QemuConfig, Settings,
        VmmConfig, VsphereConfig, XapiConfig,
    },
    driver::{Built, kubevirt, libvirt, lxd, openstack, ovirt, proxmox, qemu, vmm, vsphere, xapi},
    error::Error,
    secret::Site,
};
use portcullis_policy::classify::ApiKind;
use serde::Deserialize;

macro_rules! kinds {
    ($(
        $(#[$doc:meta])*
        $kind:ident = $word:literal, keys $keys:ident and [$($common:ident),*], login [$($login:ident),*], api $api:expr, $build:expr;
    )*) => {
        /// Kinds of hypervisor.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $word)] $kind,)*
        }

        impl Kind {
            /// The word in the configuration.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }

            /// What its API is classified by; none where its API is no HTTP.
            pub const fn api(self) -> Option<ApiKind> {
                match self { $(Self::$kind => $api,)* }
            }

            /// The kind that a word in the configuration names.
            pub fn named(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$kind),)* _ => None }
            }

            /// The keys that it takes of those that several kinds have.
            pub(crate) const fn common(self) -> &'static [&'static str] {
                match self { $(Self::$kind => &[$(stringify!($common)),*],)* }
            }

            /// Those of its keys that one credential has and another one has not.
            pub(crate) const fn login(self) -> &'static [&'static str] {
                match self { $(Self::$kind => &[$(stringify!($login)),*],)* }
            }
        }

        /// The keys of one kind.
        #[derive(Debug, Clone)]
        pub(crate) enum Own {
            $($(#[$doc])* $kind($keys),)*
        }

        impl Own {
            pub(crate) fn read(kind: Kind, keys: serde_json::Value) -> Result<Self, serde_json::Error> {
                match kind { $(Kind::$kind => serde_json::from_value(keys).map(Self::$kind),)* }
            }

            pub(crate) const fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }

            pub(crate) const fn settings(&self) -> &dyn Settings {
                match self { $(Self::$kind(keys) => keys,)* }
            }

            pub(crate) const fn settings_mut(&mut self) -> &mut dyn Settings {
                match self { $(Self::$kind(keys) => keys,)* }
            }
        }

        /// Makes the driver of a hypervisor with one credential.
        pub(crate) fn build(site: &mut Site<'_>, own: Own) -> Result<Built, Error> {
            if !(1..=65_536).contains(&site.common.connections) {
                return Err(Error::config(site.common.key_of("connections"), "must be 1 to 65536"));
            }
            match own { $(Own::$kind(keys) => $build(site, keys),)* }
        }
    };
}

kinds! {
    /// QEMU guests named one by one.
    Qemu = "qemu", keys QemuConfig and [], login [], api None, qemu::build;
    /// A libvirt daemon.
    Libvirt = "libvirt", keys LibvirtConfig and [tls], login [], api None, libvirt::build;
    /// An LXD server.
    Lxd = "lxd", keys LxdConfig and [tls, api, connections], login [cert_file, key], api Some(ApiKind::Lxd), lxd::build;
    /// An Incus server: the same keys.
    Incus = "incus", keys LxdConfig and [tls, api, connections], login [cert_file, key], api Some(ApiKind::Incus), lxd::build;
    /// A Proxmox VE cluster.
    Proxmox = "proxmox", keys ProxmoxConfig and [tls, api, connections], login [token], api Some(ApiKind::Proxmox), proxmox::build;
    /// An OpenStack cloud.
    OpenStack = "openstack", keys OpenStackConfig and [tls, api, connections], login [user, user_domain, project, project_domain, application_credential, secret], api Some(ApiKind::OpenStack),
        openstack::build;
    /// An oVirt engine.
    Ovirt = "ovirt", keys OvirtConfig and [tls, api, connections], login [username, password], api Some(ApiKind::Ovirt), ovirt::build;
    /// A Kubernetes cluster with KubeVirt.
    Kubevirt = "kubevirt", keys KubevirtConfig and [tls, api, connections], login [token, cert_file, key], api Some(ApiKind::Kubevirt),
        kubevirt::build;
    /// A pool of XCP-ng or XenServer.
    Xapi = "xapi", keys XapiConfig and [tls, api, connections], login [username, password], api Some(ApiKind::Xapi), xapi::build;
    /// A vCenter, or one ESXi host.
    Vsphere = "vsphere", keys VsphereConfig and [tls, api, connections], login [username, password], api Some(ApiKind::Vsphere), vsphere::build;
    /// A Cloud Hypervisor process.
    CloudHypervisor = "cloud-hypervisor", keys VmmConfig and [api, connections], login [], api Some(ApiKind::CloudHypervisor),
        |site, keys| vmm::build(site, keys, &vmm::CLOUD_HYPERVISOR);
    /// A Firecracker process.
    Firecracker = "firecracker", keys VmmConfig and [api, connections], login [], api Some(ApiKind::Firecracker),
        |site, keys| vmm::build(site, keys, &vmm::FIRECRACKER);
}
