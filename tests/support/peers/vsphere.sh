#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A simulated vCenter (vsphere/main.go, which says how it differs from a real one) on 127.0.0.1 with TLS.
#   vsphere.sh start DIR [-esx] [-screen HOST:PORT] [-thumbprint SHA-1] [-ended FILE] [-only /api|/rest]
#                            prints ADDRESS, CA_FILE, PASSWORD_FILE, PYTHON, CLIENT, GOVC and LOG
#   vsphere.sh stop DIR
#   vsphere.sh install DIR   builds it, and makes a virtual environment with its client, by vsphere/requirements.txt
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='vsphere.sh start|stop|install DIR'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}")
shift 2
wanted=$here/vsphere/requirements.txt sources=("$here"/vsphere/*.go "$here"/vsphere/govc/main.go)
made=${PORTCULLIS_TEST_VSPHERE:-$here/../../../target/peers/vsphere}
pidfile=$dir/vsphere.pid mark=$made/vcsim log=$dir/vsphere.log

case $verb in
  install)
    if ! cmp -s "$wanted" "$dir/.installed"; then
      python3 -m venv --clear "$dir"
      "$dir/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$wanted"
      cp "$wanted" "$dir/.installed"
    fi
    if ! cat "${sources[@]}" | cmp -s - "$dir/.built"; then
      # Debian's library stands in a workspace of the old kind; nothing is fetched.
      build() { GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$dir/cache GOFLAGS=-p=2 go build -o "$@"; }
      build "$dir/vcsim" "$here"/vsphere/*.go
      build "$dir/govc" "$here/vsphere/govc/main.go"
      rm -rf "$dir/cache"
      cat "${sources[@]}" >"$dir/.built"
    fi
    ;;
  start)
    if ! [ -x "$mark" ] || ! [ -x "$made/bin/python" ]; then fail "it is not built: $0 install $made"; fi
    ! runs "$pidfile" "$mark" || fail "one runs already in $dir"
    eval "$("$here/certificates.sh" "$dir/certificates")"
    port=$(free_port) password=$dir/password
    (umask 077 && echo "canary-$(random_text 24)" >"$password")
    begin "$pidfile" "$log" "$mark" -listen "127.0.0.1:$port" -password-file "$password" \
      -cert "$SERVER_CERT" -key "$SERVER_KEY" "$@"
    await 20 "it to answer" "$pidfile" "$log" grep -q ' ready ' "$log"
    printf '%s\n' "ADDRESS=https://localhost:$port" "CA_FILE=$CA_FILE" "PASSWORD_FILE=$password" \
      "PYTHON=$made/bin/python" "CLIENT=$here/vsphere/client.py" "GOVC=$made/govc" "LOG=$log"
    ;;
  stop) end "$pidfile" "$mark" ;;
  *) fail "$usage" ;;
esac
