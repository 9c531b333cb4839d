#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A simulated Kubernetes API server with KubeVirt (kubevirt/serve.py, a process of its own) on 127.0.0.1 with TLS.
#   kubevirt.sh start DIR VNC    prints ADDRESS, CA_FILE, TOKEN_FILE, TOKEN, KUBECTL, PYTHON, CLIENT, DIR and LOG
#   kubevirt.sh stop DIR VNC
#   kubevirt.sh install DIR      a virtual environment with Kubernetes's client for Python, by kubevirt/requirements.txt
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='kubevirt.sh start|stop|install DIR [VNC]'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}")
venv=${PORTCULLIS_TEST_KUBEVIRT:-$here/../../../target/peers/kubevirt}
pidfile=$dir/kubevirt.pid mark="$here/kubevirt/serve.py" log=$dir/kubevirt.log

case $verb in
  install) install_python "$here/kubevirt/requirements.txt" "$dir" ;;
  start)
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
      "KUBECTL=$kubectl" "PYTHON=$venv/bin/python" "CLIENT=$here/kubevirt/client.py" "DIR=$dir/changes" "LOG=$log"
    ;;
  stop) end "$pidfile" "$mark" ;;
  *) fail "$usage" ;;
esac
