#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A QEMU guest with a VNC screen, always under TCG: a /dev/kvm that opens may still hang.
#   qemu.sh start DIR NAME [--security none|password|x509|x509-password] [--screen tcp|unix] [--guest GUESTDIR]
#   qemu.sh stop DIR NAME
# start returns when the guest's shell is on its screen, and prints:
#   NAME PID SERIAL
#   VNC            127.0.0.1:PORT or unix:/path
#   QMP            the socket for the gateway
#   WATCH          a second QMP socket, for those who check (QMP serves one client a socket)
#   PASSWORD_FILE  with --security …password
#   CA_FILE        with --security x509…
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='qemu.sh start|stop DIR NAME [--security none|password|x509|x509-password] [--screen tcp|unix] [--guest GUESTDIR]'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}") name=${3:?$usage}; shift 3
mark="guest=$name,debug-threads=off -pidfile $dir/$name.qemu"
pidfile=$dir/$name.pid

if [ "$verb" = stop ]; then
  end "$pidfile" "$mark" 5
  exit
fi
[ "$verb" = start ] || fail "$usage"
security=none screen=tcp guest=$here/../../../target/peers/guest
while [ $# -gt 0 ]; do
  case $1 in
    --security) security=$2 ;;
    --screen) screen=$2 ;;
    --guest) guest=$2 ;;
    *) fail "unknown option $1; $usage" ;;
  esac
  shift 2
done
! runs "$pidfile" "$mark" || fail "$name runs already in $dir"
# A socket's path has at most 107 bytes.
[ ${#dir} -le 80 ] || fail "$dir is too long for sockets: take a folder with a shorter path"

eval "$("$here/guest.sh" "$guest")"
vnc='' objects=() printed=()
case $security in none | password | x509 | x509-password) ;; *) fail "unknown security $security; $usage" ;; esac
if [[ $security == *password ]]; then
  (umask 077 && random_text 8 >"$dir/$name.password")
  objects+=(-object "secret,id=password0,file=$dir/$name.password")
  vnc+=,password-secret=password0
  printed+=("PASSWORD_FILE=$dir/$name.password")
fi
if [[ $security == x509* ]]; then
  eval "$("$here/certificates.sh" "$dir/certificates")"
  objects+=(-object "tls-creds-x509,id=tls0,dir=$dir/certificates,endpoint=server,verify-peer=off")
  vnc+=,tls-creds=tls0
  printed+=("CA_FILE=$CA_FILE")
fi
rm -f "$dir/$name".{qmp,watch,vnc,serial}
case $screen in
  unix) address=unix:$dir/$name.vnc ;;
  # QEMU takes the first free port from here on, so nothing can come between looking and binding.
  tcp) display=$((14100 + RANDOM % 4000)) && address=127.0.0.1:$display,to=$((display + 400)) ;;
  *) fail "unknown screen $screen; $usage" ;;
esac
begin "$pidfile" "$dir/$name.log" qemu-system-x86_64 \
  -name "guest=$name,debug-threads=off" -pidfile "$dir/$name.qemu" \
  -machine pc,accel=tcg -cpu qemu64 -m 128 -nodefaults -no-user-config -vga std \
  -kernel "$KERNEL" -initrd "$INITRD" -append "console=ttyS0 console=tty1 quiet panic=-1 GUEST=$name" \
  -qmp "unix:$dir/$name.qmp,server=on,wait=off" -qmp "unix:$dir/$name.watch,server=on,wait=off" \
  -serial "file:$dir/$name.serial" "${objects[@]}" -vnc "$address$vnc"

await 60 "the guest $name to boot" "$pidfile" "$dir/$name.log" grep -q CONSOLE-READY "$dir/$name.serial"
if [ "$screen" = tcp ]; then
  port=$(node "$here/qmp.mjs" "$dir/$name.watch" vnc-port)
  address=127.0.0.1:$port
fi
printf '%s\n' "NAME=$name" "PID=$(<"$pidfile")" "VNC=$address" "QMP=$dir/$name.qmp" "WATCH=$dir/$name.watch" \
  "SERIAL=$dir/$name.serial" "${printed[@]}"
