// SPDX-License-Identifier: Apache-2.0
//! Which machines the value of a disk's parameter names: `storage:volume` and what follows it. Who may change one
//! machine's disks may not reach another's by naming its volume.

use super::params::is_number;

/// The numbers of the machines that a value names; the error is for the person. What has no shape that is known here
/// names something that cannot be told, and is refused.
pub(crate) fn machines(value: &str) -> Result<Vec<&str>, &'static str> {
    let mut found = Vec::new();
    for (place, part) in value.split(',').enumerate() {
        let volume = match part.split_once('=') {
            Some(("file" | "volume" | "import-from", volume)) => volume,
            // Options hold sizes, switches and paths inside the machine.
            Some((_, option)) if place > 0 => {
                if option.contains("..") {
                    return Err(UNKNOWN);
                }
                continue;
            }
            None if place == 0 => part,
            Some(_) | None => return Err(UNKNOWN),
        };
        of_volume(volume, &mut found)?;
    }
    Ok(found)
}

const UNKNOWN: &str = "The gateway cannot tell what this names: write storage:volume.";

fn of_volume<'v>(volume: &'v str, found: &mut Vec<&'v str>) -> Result<(), &'static str> {
    if matches!(volume, "none" | "") {
        return Ok(());
    }
    // A path, a drive of the host, or anything else without a storage's name.
    let (storage, rest) = volume.split_once(':').ok_or(UNKNOWN)?;
    let is_storage = storage.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && storage.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let is_plain = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+/:@".contains(&b)) && !rest.contains("..");
    if !is_storage || !is_plain || rest.is_empty() {
        return Err(UNKNOWN);
    }
    // A new volume of so many gigabytes.
    if rest.bytes().all(|b| b.is_ascii_digit() || b == b'.') || rest == "cloudinit" {
        return Ok(());
    }
    let mut parts = rest.split('/');
    let before = found.len();
    let names_none = match parts.next() {
        Some("iso" | "vztmpl" | "import") => true,
        Some("backup") => {
            of_backup(rest, found);
            false
        }
        _ => false,
    };
    for part in rest.split('/') {
        let numbered = ["vm-", "base-", "subvol-", "basevol-"].iter().find_map(|p| part.strip_prefix(p));
        let number = numbered.map_or(part, |rest| rest.split(['-', '.']).next().unwrap_or_default());
        if is_number(number) {
            found.push(number);
        }
    }
    if names_none || found.len() > before { Ok(()) } else { Err(UNKNOWN) }
}

/// `backup/vzdump-qemu-100-….vma.zst`, or `backup/vm/100/2026-…` on a backup server.
fn of_backup<'v>(rest: &'v str, found: &mut Vec<&'v str>) {
    for part in rest.split('/') {
        let Some(dump) = part.strip_prefix("vzdump-") else { continue };
        let number = dump.split_once('-').map(|(_, after)| after.split('-').next().unwrap_or_default());
        found.extend(number.filter(|n| is_number(n)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_names_the_machines_whose_disk_it_is() {
        for (value, wanted) in [
            ("local-lvm:32,format=raw", &[][..]),
            ("local-lvm:0,import-from=local:import/x.qcow2", &[]),
            ("local-lvm:0,import-from=local-lvm:vm-200-disk-0", &["200"]),
            ("none,media=cdrom", &[]),
            ("local:iso/debian-12.iso,media=cdrom", &[]),
            ("local:cloudinit", &[]),
            ("local-lvm:vm-100-disk-0,size=32G", &["100"]),
            ("file=local-lvm:vm-100-disk-0,size=32G", &["100"]),
            ("local:100/vm-100-disk-0.qcow2", &["100", "100"]),
            ("local:200/base-200-disk-0.qcow2/101/vm-101-disk-0.qcow2", &["200", "200", "101", "101"]),
            ("zfs:base-200-disk-0/vm-100-disk-0", &["200", "100"]),
            ("volume=zfs:subvol-100-disk-0,mp=/data", &["100"]),
            ("local:backup/vzdump-qemu-200-2026_01_01-00_00_00.vma.zst", &["200"]),
            ("pbs:backup/ct/200/2026-01-01T00:00:00Z", &["200"]),
            ("local:vztmpl/debian-12.tar.zst", &[]),
        ] {
            assert_eq!(machines(value).unwrap(), wanted, "{value}");
        }
    }

    #[test]
    fn what_names_something_unknown_is_refused() {
        for bad in [
            "/dev/sda",
            "/mnt/data,mp=/data",
            "cdrom,media=cdrom",
            "local",
            "local:",
            "local:other",
            "local:snippets/user.yaml",
            "local:../200/vm-200-disk-0.raw",
            "local:iso/../200/vm-200-disk-0.raw",
            "local:vm-2x-disk-0",
            "ssize=1",
            "local:32,vm-200-disk-0",
            "local:32,x=../y",
            "1local:32",
            "lo cal:32",
            "local:backup/other.vma",
        ] {
            assert!(machines(bad).is_err(), "{bad}");
        }
    }
}
