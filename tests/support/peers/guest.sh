#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# guest.sh DIR: a tiny Linux guest, a Debian cloud kernel and a busybox initramfs, with a shell on the screen and one on
# the serial line. Kernel and busybox are fetched with apt-get, and not installed. Prints KERNEL, INITRD and BUSYBOX;
# built once, then kept.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/process.sh"
dir=$(absolute "${1:?guest.sh DIR}")

exec 9>"$dir/lock"
flock 9
work=
trap 'rm -rf "$work"' EXIT

# fetch PACKAGE: unpacks a package into $work/tree.
fetch() {
  echo "fetching $1"
  (cd "$work" && apt-get -q download "$1" && dpkg-deb -x "$1"_*.deb tree) >"$dir/fetch.log" 2>&1 ||
    { cat "$dir/fetch.log" >&2; fail "the package $1 could not be fetched"; }
}

kernel_package() {
  apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1
}

fetch_parts() {
  [ -n "$(kernel_package)" ] || as_root apt-get -q update
  local package
  package=$(kernel_package)
  [ -n "$package" ] || fail "apt knows no package linux-image-cloud-amd64"
  fetch "$package"
  fetch busybox-static
  cp "$work/tree/bin/busybox" "$dir/busybox"
  cp "$work"/tree/boot/vmlinuz-* "$dir/vmlinuz.new"
  mv "$dir/vmlinuz.new" "$dir/vmlinuz"
}

build_initrd() {
  local root=$work/root
  mkdir -p "$root"/{bin,dev,proc,sys,tmp}
  cp "$dir/busybox" "$root/bin/busybox"
  cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ PS1='guest# '
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
hostname "${GUEST:-guest}"
shell_on() { while :; do setsid -c sh -i <"/dev/$1" >"/dev/$1" 2>&1; done; }
clear >/dev/tty1
printf 'CONSOLE-READY\n' >/dev/ttyS0
printf 'This is %s, a machine behind Portcullis.\n' "$(hostname)" >/dev/tty1
shell_on ttyS0 &
shell_on tty1
INIT
  chmod 755 "$root/init"
  (cd "$root" && find . | sort | "$dir/busybox" cpio -o -H newc -R 0:0 2>/dev/null) | gzip -n -1 >"$dir/initrd.gz.new"
  mv "$dir/initrd.gz.new" "$dir/initrd.gz"
}

recipe=$(sha256sum <"${BASH_SOURCE[0]}")
if [ ! -s "$dir/vmlinuz" ] || [ ! -s "$dir/initrd.gz" ] || [ "$(cat "$dir/recipe" 2>/dev/null)" != "$recipe" ]; then
  work=$(mktemp -d "$dir/work.XXXXXX")
  { [ -s "$dir/vmlinuz" ] && [ -s "$dir/busybox" ] || fetch_parts; } >&2
  build_initrd
  echo "$recipe" >"$dir/recipe"
fi
printf '%s\n' "KERNEL=$dir/vmlinuz" "INITRD=$dir/initrd.gz" "BUSYBOX=$dir/busybox"
