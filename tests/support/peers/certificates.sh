#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# certificates.sh DIR: a CA, a server certificate for localhost and a client certificate, under the file names that
# QEMU looks for. Prints CA_FILE, SERVER_CERT, SERVER_KEY, CLIENT_CERT and CLIENT_KEY. What is there already is kept.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/process.sh"
dir=$(absolute "${1:?certificates.sh DIR}")
umask 077

# leaf NAME COMMON-NAME PURPOSE
leaf() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Portcullis test/CN=$2" \
    -keyout "$1-key.pem" -out "$1.csr" 2>>openssl.log
  openssl x509 -req -in "$1.csr" -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 825 -out "$1-cert.pem" \
    -extfile <(printf '%s\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature,keyEncipherment \
      "extendedKeyUsage=$3" subjectAltName=DNS:localhost,IP:127.0.0.1) 2>>openssl.log
  rm "$1.csr"
}

cd "$dir"
if [ ! -s complete ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=Portcullis test CA' \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout ca-key.pem -out ca-cert.pem 2>openssl.log || { cat openssl.log >&2; exit 1; }
  leaf server localhost serverAuth || { cat openssl.log >&2; exit 1; }
  leaf client portcullis clientAuth || { cat openssl.log >&2; exit 1; }
  date >complete
fi
printf '%s\n' "CA_FILE=$dir/ca-cert.pem" "SERVER_CERT=$dir/server-cert.pem" "SERVER_KEY=$dir/server-key.pem" \
  "CLIENT_CERT=$dir/client-cert.pem" "CLIENT_KEY=$dir/client-key.pem"
