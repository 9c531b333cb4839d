#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A simulated oVirt engine (ovirt/serve.py, a process of its own) on 127.0.0.1 with TLS, and its SDK from PyPI.
#   ovirt.sh start DIR VNC TICKET_FILE   prints ADDRESS, CA_FILE, PASSWORD_FILE, PASSWORD, PYTHON, CLIENT, DIR and LOG
#   ovirt.sh stop DIR VNC TICKET_FILE
#   ovirt.sh install DIR                 a virtual environment with the SDK, by ovirt/requirements.txt
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='ovirt.sh start|stop|install DIR [VNC TICKET_FILE]'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}")
venv=${PORTCULLIS_TEST_OVIRT:-$here/../../../target/peers/ovirt}
pidfile=$dir/ovirt.pid mark="$here/ovirt/serve.py" log=$dir/ovirt.log

case $verb in
  install)
    # Debian's Python, because pycurl is Debian's, too.
    if ! cmp -s "$here/ovirt/requirements.txt" "$dir/.installed"; then
      /usr/bin/python3 -m venv --clear --system-site-packages "$dir"
      "$dir/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/ovirt/requirements.txt"
      cp "$here/ovirt/requirements.txt" "$dir/.installed"
    fi
    ;;
  start)
    [ -x "$venv/bin/python" ] || fail "its client is missing: $0 install $venv"
    ! runs "$pidfile" "$mark" || fail "one runs already in $dir"
    eval "$("$here/certificates.sh" "$dir/certificates")"
    port=$(free_port) password=$dir/password secret=$(random_text 40)
    (umask 077 && echo "$secret" >"$password")
    mkdir -p "$dir/changes"
    begin "$pidfile" "$log" "$venv/bin/python" "$mark" "$port" "$SERVER_CERT" "$SERVER_KEY" "$password" "${3:?$usage}" \
      "${4:?$usage}" "$here/../../../policies/classify/ovirt-operations.txt" "$dir/changes"
    await 20 "it to answer" "$pidfile" "$log" grep -q '^ready' "$log"
    printf '%s\n' "ADDRESS=https://localhost:$port" "CA_FILE=$CA_FILE" "PASSWORD_FILE=$password" "PASSWORD=$secret" \
      "PYTHON=$venv/bin/python" "CLIENT=$here/ovirt/client.py" "DIR=$dir/changes" "LOG=$log"
    ;;
  stop) end "$pidfile" "$mark" ;;
  *) fail "$usage" ;;
esac
