#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A simulated Kubernetes API server with KubeVirt (kubevirt/serve.py, a process of its own) on 127.0.0.1 with TLS.
#   kubevirt.sh start DIR VNC    prints ADDRESS, CA_FILE, TOKEN_FILE, TOKEN, KUBECTL, DEBIANS, PYTHON, CLIENT, DIR and LOG
#   kubevirt.sh stop DIR VNC
#   kubevirt.sh install DIR      a virtual environment with Kubernetes's client for Python, by kubevirt/requirements.txt,
#                                and Debian's kubectl, where the installed one is another
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='kubevirt.sh start|stop|install DIR [VNC]'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}")
venv=${PORTCULLIS_TEST_KUBEVIRT:-$here/../../../target/peers/kubevirt}
pidfile=$dir/kubevirt.pid mark="$here/kubevirt/serve.py" log=$dir/kubevirt.log

# debians FOLDER: Debian's kubectl, installed or in a folder; nothing where there is none.
debians() {
  local installed
  installed=$(command -v kubectl || true)
  if [ -n "$installed" ] && dpkg -S "$(readlink -f "$installed")" 2>/dev/null | grep -q '^kubernetes-client:'; then
    echo "$installed"
  elif [ -x "$1/debian/usr/bin/kubectl" ]; then
    echo "$1/debian/usr/bin/kubectl"
  fi
}

case $verb in
  install)
    install_python "$here/kubevirt/requirements.txt" "$dir"
    if [ -z "$(debians "$dir")" ]; then
      # It is Debian's package by its signed list; nothing of it is installed.
      package=$(mktemp -d)
      (cd "$package" && apt-get -q download kubernetes-client && dpkg -x ./*.deb "$dir/debian")
      rm -r "$package"
    fi
    ;;
  start)
    debians=$(debians "$venv")
    [ -n "$debians" ] || fail "Debian's kubectl is missing: $0 install $venv"
    kubectl=$(command -v kubectl) || fail "kubectl is missing: it is in Debian's kubernetes-client"
    [ -x "$venv/bin/python" ] || fail "its client is missing: $0 install $venv"
    ! runs "$pidfile" "$mark" || fail "one runs already in $dir"
    eval "$("$here/certificates.sh" "$dir/certificates")"
    port=$(free_port) token=$dir/token secret=canary-$(random_text 40)
    (umask 077 && echo "$secret" >"$token")
    mkdir -p "$dir/changes"
    begin "$pidfile" "$log" python3 "$mark" "$port" "$SERVER_CERT" "$SERVER_KEY" "$token" "${3:?$usage}" "$dir/changes"
    await 20 "it to answer" "$pidfile" "$log" grep -q '^ready' "$log"
    printf '%s\n' "ADDRESS=https://localhost:$port" "CA_FILE=$CA_FILE" "TOKEN_FILE=$token" "TOKEN=$secret" \
      "KUBECTL=$kubectl" "DEBIANS=$debians" "PYTHON=$venv/bin/python" "CLIENT=$here/kubevirt/client.py" "DIR=$dir/changes" "LOG=$log"
    ;;
  stop) end "$pidfile" "$mark" ;;
  *) fail "$usage" ;;
esac
