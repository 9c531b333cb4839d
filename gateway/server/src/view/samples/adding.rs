// SPDX-License-Identifier: Apache-2.0
//! Adding a hypervisor, and the page of one.

use super::*;

type Page = (&'static str, Result<String, askama::Error>);

fn certificate(w: &Words, odd: &str) -> CertificateRow {
    CertificateRow {
        address: w.text("https://10.0.0.7:8006"),
        subject: w.text("OU=PVE Cluster Node, O=Proxmox Virtual Environment, CN=pve-1.example.org"),
        issuer: w.text("CN=Proxmox Virtual Environment, O=PVE Cluster Manager CA"),
        from: when(-60 * 24 * 90),
        until: when(60 * 24 * 640),
        sha256: ["3fa9 c0d1 7be2 9f04"; 4].join(" "),
        odd: odd.to_owned(),
    }
}

fn field(key: &'static str, label: &'static str, value: String, written: Written) -> Field {
    Field { key, label, hint: "As it is there.", value, written, needed: written != Written::Line }
}

/// The pages.
pub(super) fn pages(w: &Words) -> Vec<Page> {
    let full = w.fill != Fill::Empty;
    let wrong = |key: &'static str| {
        if w.fill == Fill::Hostile { Problems::one(key, w.text("That is no address.")) } else { Problems::none() }
    };
    let kinds = || vec![KindRow { word: "proxmox", title: "Proxmox VE" }, KindRow { word: "lxd", title: "LXD" }];
    let new = |chosen: bool, changed: bool, problem| NewHypervisor {
        shell: w.shell(),
        kinds: kinds(),
        chosen: chosen.then_some(KindRow { word: "proxmox", title: "Proxmox VE" }),
        name: w.text("pve-1"),
        fields: vec![field("address", "Address", w.text("https://10.0.0.7:8006"), Written::Line)],
        api: full.then(|| ApiDraft { open: true, host: w.text("pve-1.example.org") }),
        domain: if full { "hv.example.org".to_owned() } else { String::new() },
        replaces: changed.then(|| w.text("0198c1a0-0000-7000-8000-000000000001")),
        back: "/new-hypervisor?kind=proxmox".to_owned(),
        problems: wrong(problem),
    };
    let agree = |replaces| AgreeHypervisor {
        shell: w.shell(),
        title: "Proxmox VE",
        kind: "proxmox",
        name: w.name("pve-1"),
        hidden: vec![("address", w.text("https://10.0.0.7:8006"))],
        shown: vec![certificate(w, ""), certificate(w, "it has ended")],
        prints: "ab".repeat(32),
        replaces,
        back: "/new-hypervisor?kind=proxmox".to_owned(),
        fields: vec![field("username", "User name", w.text("root"), Written::Line)],
        secret: field("secret", "API token", String::new(), if full { Written::Hidden } else { Written::Lines }),
        problems: wrong("secret"),
    };
    let one = HypervisorPage {
        shell: w.shell(),
        name: w.name("pve-1"),
        kind: "Proxmox VE".to_owned(),
        address: w.text("10.0.0.7:8006"),
        state: if full { HypervisorState::Up } else { HypervisorState::Down(w.text("Connection refused."), when(-7)) },
        machines: "1 machine".to_owned(),
        first: if full { vec![(w.text("qemu/100"), w.name("web-1"), "running")] } else { vec![] },
        trust: "pinned certificate".to_owned(),
        api: full.then(|| w.text("https://pve-1.hv.example.org")),
        added: full.then(|| AddedFacts {
            id: "0198c1a0-0000-7000-8000-000000000001".to_owned(),
            at: when(-60 * 24),
            by: w.name("ada"),
            shown: vec![certificate(w, "")],
            who: w.text("portcullis@pve!gateway"),
            beyond: vec![w.text("Permissions.Modify"), w.text("Sys.Console")],
            untold: (w.fill == Fill::Hostile).then(|| w.text("it does not say")),
        }),
        may_remove: full,
    };
    vec![
        ("new-hypervisor-kinds", new(false, false, "").render()),
        ("new-hypervisor", new(true, false, "address").render()),
        ("changed-hypervisor", new(true, true, "address").render()),
        ("agree-hypervisor", agree(false).render()),
        ("agree-changed-hypervisor", agree(true).render()),
        ("hypervisor", one.render()),
    ]
}
