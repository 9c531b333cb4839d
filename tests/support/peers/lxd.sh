#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A real LXD 5.0 without systemd, with one running container "c1" made of busybox.
#   lxd.sh start DIR     prints LXD_DIR, SOCKET, ADDRESS, SERVER_CERT, CLIENT_CERT, CLIENT_KEY, CONTAINER
#   lxd.sh lxc DIR …     the lxc client on it
#   lxd.sh stop DIR      its containers too
# LXD runs as root only. Virtual machines do not work where the kernel has no vhost_vsock: containers only.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='lxd.sh start|lxc|stop DIR …'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}"); shift 2
pidfile=$dir/lxd.pid mark=$dir/lxd.log
export LXD_DIR=$dir/lxd LXD_CONF=$dir/client

container() {
  local work; work=$(mktemp -d "$dir/image.XXXXXX")
  mkdir -p "$work"/rootfs/{bin,sbin,dev,proc,sys,etc,tmp,root}
  eval "$("$here/guest.sh" "$here/../../../target/peers/guest")"
  cp "$BUSYBOX" "$work/rootfs/bin/busybox"
  for applet in sh ls cat echo sleep hostname ps; do ln -s busybox "$work/rootfs/bin/$applet"; done
  ln -s ../bin/busybox "$work/rootfs/sbin/init"
  echo '::respawn:/bin/sh' >"$work/rootfs/etc/inittab"
  echo 'root:x:0:0::/root:/bin/sh' >"$work/rootfs/etc/passwd"
  printf '%s\n' 'architecture: x86_64' 'creation_date: 1700000000' 'properties: {description: busybox, os: busybox, release: test}' \
    >"$work/metadata.yaml"
  tar -C "$work" --owner=0 --group=0 -czf "$dir/busybox.tar.gz" metadata.yaml rootfs
  rm -rf "$work"
  lxc image import "$dir/busybox.tar.gz" --alias busybox
  lxc init busybox c1 -c security.privileged=true
  lxc start c1
}

start() {
  ! runs "$pidfile" "$mark" || fail "an LXD runs already in $dir"
  [ ${#dir} -le 70 ] || fail "$dir is too long for sockets: take a folder with a shorter path"
  eval "$("$here/certificates.sh" "$dir/certificates")"
  mkdir -p "$LXD_DIR" "$LXD_CONF"
  port=$(free_port)
  command=(lxd --group "$(id -gn)" --logfile "$mark")
  if [ "$(id -u)" != 0 ]; then command=(sudo -n --preserve-env=LXD_DIR "${command[@]}"); as_root true; fi
  begin "$pidfile" "$dir/lxd.out" "${command[@]}"
  await 60 "LXD to answer" "$pidfile" "$dir/lxd.out" lxc query /1.0
  {
    lxc storage create default dir
    lxc profile device add default root disk path=/ pool=default
    lxc config set core.https_address "127.0.0.1:$port"
    lxc config set images.auto_update_interval 0
    lxc config trust add "$CLIENT_CERT" --name portcullis
    container
  } >"$dir/set-up.log" 2>&1 || { cat "$dir/set-up.log" >&2; stop; fail "LXD could not be set up"; }
  printf '%s\n' "LXD_DIR=$LXD_DIR" "SOCKET=$LXD_DIR/unix.socket" "ADDRESS=https://127.0.0.1:$port" \
    "SERVER_CERT=$LXD_DIR/server.crt" "CLIENT_CERT=$CLIENT_CERT" "CLIENT_KEY=$CLIENT_KEY" CONTAINER=c1
}

stop() {
  local line pid at
  if runs "$pidfile" "$mark"; then
    lxc list -f csv -c n 2>/dev/null | while read -r name; do lxc stop -f "$name" </dev/null || true; done
    timeout 20 lxd shutdown -t 10 >/dev/null 2>&1 || true
  fi
  end "$pidfile" "$mark" 10
  # Containers outlive a daemon that was killed. Their monitors name the folder in their command line; a container ends
  # with its first process, and its monitor with it.
  for line in /proc/[0-9]*/cmdline; do
    if [[ $({ tr '\0' ' ' <"$line"; } 2>/dev/null) == "[lxc monitor] $LXD_DIR/containers "* ]]; then
      pid=${line#/proc/} pid=${pid%/cmdline}
      for pid in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do signal KILL "$pid"; done
    fi
  done
  # LXD leaves a tmpfs and its pools' mounts behind; only those below our own folder are ours.
  awk -v at="$dir/" 'index($2, at) == 1 { print $2 }' /proc/mounts | sort -r | while read -r at; do as_root umount -l "$at" || true; done
}

case $verb in
  start) start ;;
  lxc) exec lxc "$@" ;;
  stop) stop ;;
  *) fail "$usage" ;;
esac
