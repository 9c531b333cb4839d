#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A PostgreSQL server of our own, on 127.0.0.1, its data thrown away with its folder.
#   postgres.sh start DIR    prints URL (user postgres, no password)
#   postgres.sh stop DIR
# PostgreSQL refuses to run as root: then it runs as nobody, who must be able to reach DIR.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/process.sh"
usage='postgres.sh start|stop DIR'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}")
pidfile=$dir/postgres.pid mark="-D $dir/data"
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
[ -x "$bin/postgres" ] || bin=$(dirname "$(command -v postgres || fail "PostgreSQL is missing: apt-get install postgresql")")
as_server=()
if [ "$(id -u)" = 0 ]; then
  as_server=(setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME=/tmp)
fi

case $verb in
  start)
    ! runs "$pidfile" "$mark" || fail "a PostgreSQL runs already in $dir"
    if [ "$(id -u)" = 0 ]; then chown nobody:nogroup "$dir"; fi
    cd /
    if [ ! -s "$dir/data/PG_VERSION" ]; then
      "${as_server[@]}" "$bin/initdb" -D "$dir/data" -U postgres --auth=trust -E UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 ||
        { cat "$dir/initdb.log" >&2; fail "initdb failed: can nobody reach $dir?"; }
    fi
    port=$(free_port)
    # Tests make many short-lived schemas: durability of a folder that is thrown away would only cost time.
    begin "$pidfile" "$dir/postgres.log" "${as_server[@]}" "$bin/postgres" -D "$dir/data" -p "$port" -h 127.0.0.1 -k '' \
      -c fsync=off -c full_page_writes=off -c max_connections=300
    await 30 "PostgreSQL to answer" "$pidfile" "$dir/postgres.log" "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -U postgres
    printf '%s\n' "URL=postgres://postgres@127.0.0.1:$port/postgres"
    ;;
  stop)
    # Fast shutdown is SIGINT; a smart one (SIGTERM) would wait for clients.
    if runs "$pidfile" "$mark"; then signal INT "$(<"$pidfile")"; sleep 0.2; fi
    end "$pidfile" "$mark" 10
    ;;
  *) fail "$usage" ;;
esac
