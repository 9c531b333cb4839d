#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A simulated XCP-ng pool (xapi/serve.py, a process of its own) on 127.0.0.1 with TLS, and its clients: XenAPI from PyPI, and
# Xen Orchestra's xen-api from npm (npm ci --prefix xapi).
#   xapi.sh start DIR VNC    prints ADDRESS, CA_FILE, PASSWORD_FILE, PASSWORD, PYTHON, CLIENT, NODE, ORCHESTRA, DIR and LOG
#   xapi.sh stop DIR VNC
#   xapi.sh install DIR      a virtual environment with the client, by xapi/requirements.txt
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='xapi.sh start|stop|install DIR [VNC]'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}")
wanted=$here/xapi/requirements.txt
venv=${PORTCULLIS_TEST_XAPI:-$here/../../../target/peers/xapi}
pidfile=$dir/xapi.pid mark="$here/xapi/serve.py" log=$dir/xapi.log

case $verb in
  install)
    if ! cmp -s "$wanted" "$dir/.installed"; then
      python3 -m venv --clear "$dir"
      "$dir/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$wanted"
      cp "$wanted" "$dir/.installed"
    fi
    ;;
  start)
    [ -x "$venv/bin/python" ] || fail "its client is missing: $0 install $venv"
    [ -d "$here/xapi/node_modules" ] || fail "its other client is missing: npm ci --prefix $here/xapi"
    ! runs "$pidfile" "$mark" || fail "one runs already in $dir"
    eval "$("$here/certificates.sh" "$dir/certificates")"
    port=$(free_port) password=$dir/password secret=$(random_text 40)
    (umask 077 && echo "$secret" >"$password")
    mkdir -p "$dir/changes"
    begin "$pidfile" "$log" "$venv/bin/python" "$mark" "$port" "$SERVER_CERT" "$SERVER_KEY" "$password" "${3:?$usage}" \
      "$here/../../../policies/classify/xapi-operations.txt" "$dir/changes"
    await 20 "it to answer" "$pidfile" "$log" grep -q '^ready' "$log"
    printf '%s\n' "ADDRESS=https://localhost:$port" "CA_FILE=$CA_FILE" "PASSWORD_FILE=$password" "PASSWORD=$secret" \
      "PYTHON=$venv/bin/python" "CLIENT=$here/xapi/client.py" "NODE=$(command -v node)" \
      "ORCHESTRA=$here/xapi/client.mjs" "DIR=$dir/changes" "LOG=$log"
    ;;
  stop) end "$pidfile" "$mark" ;;
  *) fail "$usage" ;;
esac
