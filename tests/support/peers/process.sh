# SPDX-License-Identifier: Apache-2.0
# Read by the scripts beside it: processes that are started in a session of their own, known by a pid file, and stopped
# by that pid only. A pid that now belongs to somebody else is recognised by its command line and left alone.
# shellcheck shell=bash

PATH=$PATH:/usr/sbin:/sbin

fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# absolute DIR: makes the folder and prints its full path.
absolute() { mkdir -p "$1" && (cd "$1" && pwd); }

# as_root COMMAND…: for the peers that only root may run.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo -n "$@"
  else fail "$1 needs root: run this as root, or as somebody who may use sudo without a password"; fi
}

# install_python LIST DIR: a virtual environment with the packages of a list, each by its version.
install_python() {
  cmp -s "$1" "$2/.installed" && return
  python3 -m venv --clear "$2"
  "$2/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$1"
  cp "$1" "$2/.installed"
}

# begin PIDFILE LOG COMMAND…: the pid file is there before the command has done anything.
begin() {
  local pidfile=$1 log=$2; shift 2
  trap '' INT TERM
  # A daemon must not inherit that a signal is ignored, nor descriptor 9, which holds a lock in some scripts.
  (trap - INT TERM && exec setsid "$@") >"$log" 2>&1 </dev/null 9>&- &
  echo $! >"$pidfile"
  disown
  trap - INT TERM
}

# runs PIDFILE MARK: whether the process of a pid file runs, and is the one whose command line holds MARK.
runs() {
  local pid line
  [ -s "$1" ] && pid=$(<"$1") && [ -r "/proc/$pid/cmdline" ] || return 1
  line=$({ tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null)
  [[ $line == *"$2"* ]]
}

# end PIDFILE MARK [SECONDS]: asks it to stop, insists after some time. Not an error when it is gone already.
end() {
  local pid tries=$((${3:-5} * 20))
  if runs "$1" "$2"; then
    pid=$(<"$1")
    signal TERM "$pid"
    while runs "$1" "$2" && [ "$tries" -gt 0 ]; do sleep 0.05; tries=$((tries - 1)); done
    if runs "$1" "$2"; then signal KILL "$pid"; fi
  fi
  rm -f "$1"
}

signal() { kill "-$1" "$2" 2>/dev/null || as_root kill "-$1" "$2" 2>/dev/null || true; }

# await SECONDS WHAT PIDFILE LOG COMMAND…: until the command succeeds. When the time is over or the process has ended,
# shows the end of the log and says what was waited for.
await() {
  local until=$((SECONDS + $1)) what=$2 pidfile=$3 log=$4 why=; shift 4
  until "$@" >/dev/null 2>&1; do
    if [ ! -d "/proc/$(<"$pidfile")" ]; then why="it ended while we waited for"
    elif [ "$SECONDS" -ge "$until" ]; then why="waited in vain for"; fi
    if [ -n "$why" ]; then
      tail -n 15 "$log" >&2 || true
      fail "$why $what (its log: $log)"
    fi
    sleep 0.05
  done
}

# free_port: a port on 127.0.0.1 that nobody listens on, and that no other call gives within two minutes: until then
# whoever asked for it listens there. The kernel gives none of these to a connection that goes out.
free_port() {
  local held port=$((20000 + RANDOM % 9000)) tries=200
  held=${TMPDIR:-/tmp}/portcullis-ports-$(id -u)
  mkdir -p "$held"
  find "$held" -mindepth 1 -maxdepth 1 -mmin +2 -exec rmdir {} + 2>/dev/null || true
  until mkdir "$held/$port" 2>/dev/null && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    port=$((port + 1)) tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "found no free port"
  done
  echo "$port"
}

# random_text LENGTH: letters and digits.
random_text() { head -c 4096 /dev/urandom | LC_ALL=C tr -dc 'a-z0-9' | cut -c "1-$1" | tr -d '\n'; }
