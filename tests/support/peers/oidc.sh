#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A certified OpenID provider (npm oidc-provider) on 127.0.0.1, plain HTTP, for one gateway.
#   oidc.sh start DIR --port PORT --gateway URL --trust CA.pem [--userinfo-only]    prints ISSUER, SECRET and PEOPLE
#   oidc.sh stop DIR
# People stand in the JSON file that PEOPLE names and are read at each use; any password is taken. The gateway's CA is
# trusted for back-channel logout.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='oidc.sh start|stop DIR [--port PORT --gateway URL --trust CA.pem --userinfo-only]'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}")
shift 2
pidfile=$dir/oidc.pid mark="$here/oidc/op.mjs" log=$dir/oidc.log

case $verb in
  start)
    port='' gateway='' trust='' userinfo=both
    while [ $# -gt 0 ]; do
      case $1 in
        --port) port=$2; shift 2 ;;
        --gateway) gateway=$2; shift 2 ;;
        --trust) trust=$2; shift 2 ;;
        --userinfo-only) userinfo=only; shift ;;
        *) fail "$usage" ;;
      esac
    done
    [ -d "$here/oidc/node_modules" ] || fail "its modules are missing: npm ci --prefix $here/oidc"
    ! runs "$pidfile" "$mark" || fail "a provider runs already in $dir"
    people=$dir/people.json
    cat >"$people" <<'PEOPLE'
{
  "alice": { "name": "Alice Admin", "preferred_username": "alice", "groups": ["vm-admins", "everybody"] },
  "bob": { "name": "Bob User", "preferred_username": "bob", "groups": ["vm-users"] },
  "nina": { "name": "Nina None", "preferred_username": "nina", "groups": ["everybody"] }
}
PEOPLE
    begin "$pidfile" "$log" env PORT="$port" RP="$gateway" PEOPLE="$people" USERINFO="$userinfo" \
      NODE_EXTRA_CA_CERTS="$trust" NODE_NO_WARNINGS=1 node "$mark"
    await 20 "the provider to answer" "$pidfile" "$log" \
      curl -fsS -o /dev/null "http://localhost:$port/.well-known/openid-configuration"
    printf '%s\n' "ISSUER=http://localhost:$port" "SECRET=a-secret-that-only-a-test-knows-0123456789" "PEOPLE=$people"
    ;;
  stop) end "$pidfile" "$mark" ;;
  *) fail "$usage" ;;
esac
