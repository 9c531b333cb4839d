#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A simulated Proxmox VE (fakepve from PyPI, a process of its own) on 127.0.0.1 with TLS.
#   proxmox.sh start DIR     prints ADDRESS, CA_FILE, TOKEN_FILE, TOKEN, PYTHON, CLIENT and LOG
#   proxmox.sh stop DIR
#   proxmox.sh install DIR   a virtual environment with what it needs, by proxmox/requirements.txt
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='proxmox.sh start|stop|install DIR'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}")
venv=${PORTCULLIS_TEST_PYTHON:-$here/../../../target/peers/python}
pidfile=$dir/proxmox.pid mark="$here/proxmox/serve.py" log=$dir/proxmox.log

case $verb in
  install) install_python "$here/proxmox/requirements.txt" "$dir" ;;
  start)
    [ -x "$venv/bin/python" ] || fail "its modules are missing: $0 install $venv"
    ! runs "$pidfile" "$mark" || fail "one runs already in $dir"
    eval "$("$here/certificates.sh" "$dir/certificates")"
    port=$(free_port) token=$dir/token secret=$(random_text 40)
    (umask 077 && echo "gateway@pve!portcullis=$secret" >"$token")
    cat >"$dir/guests.json" <<'GUESTS'
[
  { "vmid": 100, "name": "web-1", "pool": "blue", "status": "running", "config": { "memory": 512, "tags": "web;production" } },
  { "vmid": 101, "name": "dns-1", "pool": "blue", "status": "running", "type": "lxc" },
  { "vmid": 200, "name": "payroll", "pool": "red", "status": "running", "config": { "memory": 512, "tags": "red" } }
]
GUESTS
    begin "$pidfile" "$log" "$venv/bin/python" "$mark" "$port" "$SERVER_CERT" "$SERVER_KEY" "$token" "$dir/guests.json"
    await 20 "it to answer" "$pidfile" "$log" grep -q '^ready' "$log"
    printf '%s\n' "ADDRESS=https://localhost:$port" "CA_FILE=$CA_FILE" "TOKEN_FILE=$token" "TOKEN=$secret" \
      "PYTHON=$venv/bin/python" "CLIENT=$here/proxmox/client.py" "LOG=$log"
    ;;
  stop) end "$pidfile" "$mark" ;;
  *) fail "$usage" ;;
esac
