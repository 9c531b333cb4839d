#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A real libvirtd without systemd.
#   libvirt.sh start DIR                  prints SOCKET, URI, TLS (host:port), CA_FILE, CLIENT_CERT, CLIENT_KEY
#   libvirt.sh domain DIR NAME [--security none|password] [--metadata XML] [--disk] [--define]
#                                         starts a domain with a VNC screen (with --define: leaves it shut off) and
#                                         prints NAME, UUID, PASSWORD
#   libvirt.sh virsh DIR ARGUMENT…        virsh on it
#   libvirt.sh stop DIR                   its domains too
# As root it runs in a mount namespace of its own, so that nothing under /etc, /var or /run of the machine is touched
# and several can run at once; as somebody else it is that user's own session daemon.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='libvirt.sh start|domain|virsh|stop DIR …'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}"); shift 2
pidfile=$dir/libvirtd.pid mark=$dir/libvirtd.conf
cache=$(absolute "$here/../../../target/peers/libvirt-cache")
export XDG_CONFIG_HOME=$dir/config XDG_CACHE_HOME=$cache XDG_RUNTIME_DIR=$dir/run
if [ "$(id -u)" = 0 ]; then
  uri="qemu+unix:///system?socket=$dir/libvirt-sock"
else
  uri="qemu+unix:///session?socket=$dir/libvirt-sock"
fi
on_it() { virsh -q -c "$uri" "$@"; }

start() {
  [ ${#dir} -le 80 ] || fail "$dir is too long for sockets: take a folder with a shorter path"
  ! runs "$pidfile" "$mark" || fail "a libvirtd runs already in $dir"
  eval "$("$here/certificates.sh" "$dir/certificates")"
  port=$(free_port)
  mkdir -p "$dir"/{etc,lib,run,log,config/libvirt}
  cat >"$dir/libvirtd.conf" <<CONF
listen_tls = 1
listen_tcp = 0
listen_addr = "127.0.0.1"
tls_port = "$port"
unix_sock_dir = "$dir"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
auth_tls = "none"
ca_file = "$CA_FILE"
cert_file = "$SERVER_CERT"
key_file = "$SERVER_KEY"
tls_allowed_dn_list = ["O=Portcullis test,CN=portcullis", "CN=portcullis,O=Portcullis test"]
CONF
  # Without systemd there is nobody to delegate cgroups, open log pipes or load profiles.
  cat >"$dir/etc/qemu.conf" <<CONF
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
vnc_listen = "127.0.0.1"
remote_display_port_min = $((21000 + RANDOM % 8000))
remote_display_port_max = 32000
CONF
  if [ "$(id -u)" = 0 ]; then
    printf 'user = "root"\ngroup = "root"\n' >>"$dir/etc/qemu.conf"
    mkdir -p /run/libvirt
    begin "$pidfile" "$dir/libvirtd.log" unshare --mount bash -c '
      dir=$1 cache=$2
      mount --bind "$dir/etc" /etc/libvirt && mount --bind "$dir/lib" /var/lib/libvirt &&
        mount --bind "$dir/run" /run/libvirt && mount --bind "$dir/log" /var/log/libvirt &&
        mount --bind "$cache" /var/cache/libvirt &&
        exec libvirtd --listen --config "$dir/libvirtd.conf" --pid-file "$dir/libvirtd.own-pid"' "$mark" "$dir" "$cache"
  else
    cp "$dir/etc/qemu.conf" "$dir/config/libvirt/qemu.conf"
    begin "$pidfile" "$dir/libvirtd.log" libvirtd --listen --config "$dir/libvirtd.conf" --pid-file "$dir/libvirtd.own-pid"
  fi
  await 60 "libvirtd to answer" "$pidfile" "$dir/libvirtd.log" on_it version
  printf '%s\n' "SOCKET=$dir/libvirt-sock" "URI=${uri%%+*}${uri#qemu+unix}" "TLS=localhost:$port" "CA_FILE=$CA_FILE" \
    "CLIENT_CERT=$CLIENT_CERT" "CLIENT_KEY=$CLIENT_KEY" | sed 's/^\(URI=[^?]*\)?.*/\1/'
}

domain() {
  local name=$1 security=password metadata='' disk='' verb=create uuid password=''; shift
  while [ $# -gt 0 ]; do
    case $1 in
      --security) security=$2; shift 2 ;;
      --metadata) metadata=$2; shift 2 ;;
      --disk)
        qemu-img create -q -f qcow2 "$dir/$name.qcow2" 16M
        disk="<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='$dir/$name.qcow2'/><target dev='vda'/></disk>"
        shift ;;
      --define) verb=define; shift ;;
      *) fail "unknown option $1" ;;
    esac
  done
  eval "$("$here/guest.sh" "$here/../../../target/peers/guest")"
  uuid=$(</proc/sys/kernel/random/uuid)
  [ "$security" = none ] || password=$(random_text 8)
  (umask 077 && cat >"$dir/$name.xml") <<XML
<domain type='qemu'>
  <name>$name</name>
  <uuid>$uuid</uuid>
  <metadata>$metadata</metadata>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>$KERNEL</kernel>
    <initrd>$INITRD</initrd>
    <cmdline>console=ttyS0 console=tty1 quiet GUEST=$name</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    $disk
    <serial type='file'><source path='$dir/$name.serial'/></serial>
    <video><model type='vga'/></video>
    <graphics type='vnc' autoport='yes' listen='127.0.0.1'${password:+ passwd='$password'}/>
    <memballoon model='none'/>
  </devices>
</domain>
XML
  on_it "$verb" "$dir/$name.xml" >/dev/null
  printf '%s\n' "NAME=$name" "UUID=$uuid" "PASSWORD=$password"
}

stop() {
  # Domains outlive their libvirtd.
  if runs "$pidfile" "$mark"; then
    on_it list --name | while read -r name; do [ -z "$name" ] || on_it destroy "$name" </dev/null >/dev/null || true; done
  fi
  end "$pidfile" "$mark" 10
}

case $verb in
  start) start ;;
  domain) domain "${@:?libvirt.sh domain DIR NAME}" ;;
  virsh) on_it "$@" ;;
  stop) stop ;;
  *) fail "$usage" ;;
esac
