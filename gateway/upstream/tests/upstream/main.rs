// SPDX-License-Identifier: Apache-2.0
//! The upstream room against real peers (QEMU, libvirtd, LXD) and against hostile ones.
//!
//! Real peers come from Debian 12: `apt-get install --no-install-recommends qemu-system-x86 seabios libvirt-daemon-system
//! libvirt-clients libvirt-daemon-driver-qemu lxd lxd-client busybox-static`. libvirtd and LXD need root.

#[cfg(test)]
mod support;

#[cfg(test)]
mod forward;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod libvirt;
#[cfg(test)]
mod lxd;
#[cfg(test)]
mod outbound;
#[cfg(test)]
mod qemu;
#[cfg(test)]
mod tls;
