#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A mail server (aiosmtpd from PyPI, a process of its own) on 127.0.0.1.
#   smtp.sh start DIR MODE [open]  MODE is implicit, starttls or none; open: without a name and a password.
#                                  Prints PORT, CA_FILE, USER, PASSWORD_FILE, MAILBOX and LOG; a second start keeps them
#   smtp.sh stop DIR MODE
#   smtp.sh install DIR            a virtual environment with what it needs, by smtp/requirements.txt
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='smtp.sh start|stop|install DIR [implicit|starttls|none] [open]'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}")
venv=${PORTCULLIS_TEST_SMTP:-$here/../../../target/peers/smtp}
pidfile=$dir/smtp.pid mark="$here/smtp/serve.py" log=$dir/smtp.log

case $verb in
  install) install_python "$here/smtp/requirements.txt" "$dir" ;;
  start)
    mode=${3:?$usage} login=()
    [ -x "$venv/bin/python" ] || fail "its modules are missing: $0 install $venv"
    ! runs "$pidfile" "$mark" || fail "one runs already in $dir"
    eval "$("$here/certificates.sh" "$dir/certificates")"
    [ -s "$dir/port" ] || free_port >"$dir/port"
    [ -s "$dir/password" ] || (umask 077 && random_text 40 >"$dir/password")
    [ "${4:-}" = open ] || login=(gateway "$(<"$dir/password")")
    begin "$pidfile" "$log" "$venv/bin/python" "$mark" "$(<"$dir/port")" "$mode" "$SERVER_CERT" "$SERVER_KEY" \
      "$dir/mailbox" "${login[@]}"
    await 20 "it to answer" "$pidfile" "$log" grep -q '^ready' "$log"
    printf '%s\n' "PORT=$(<"$dir/port")" "CA_FILE=$CA_FILE" USER=gateway "PASSWORD_FILE=$dir/password" \
      "MAILBOX=$dir/mailbox" "LOG=$log"
    ;;
  stop) end "$pidfile" "$mark" ;;
  *) fail "$usage" ;;
esac
