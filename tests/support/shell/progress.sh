# SPDX-License-Identifier: Apache-2.0
# Long steps that show that they live. Read by deploy/demo and tests/run.
# shellcheck shell=bash

logs=         # a folder, named by who reads this
job=          # process group of the step that runs now
steps=0
tick=10       # seconds between two signs of life where there is no terminal
[ -t 1 ] && tick=1

# step TITLE COMMAND…: runs it with its output in a log; on failure shows the end of the log and returns its code.
step() {
  local title=$1 log began=$SECONDS last=$SECONDS code=0 line; shift
  steps=$((steps + 1))
  log=$(printf '%s/%02d-%s.log' "$logs" "$steps" "$(tr -cs 'a-zA-Z0-9\n' - <<<"${title:0:60}" | tr 'A-Z' 'a-z')")
  # A process group of its own, so that stopping stops all of it, and Ctrl-C reaches only us.
  set -m
  ("$@") >"$log" 2>&1 </dev/null &
  job=$!
  set +m
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - last)) -ge "$tick" ]; then
      last=$SECONDS
      line=$(tail -n 1 "$log" 2>/dev/null | tr -d '\r' | sed 's/^ *//' || true)
      if [ -t 1 ]; then
        line="… $title  $(elapsed "$began")  $line"
        printf '\r\033[K%s' "${line:0:$(($(width) - 1))}"
      else
        [ $((SECONDS - began)) -ge $((2 * tick)) ] || printf '… %s\n' "$title"
        printf '    %s  %s\n' "$(elapsed "$began")" "${line:0:120}"
      fi
    fi
  done
  wait "$job" || code=$?
  job=
  [ -t 1 ] && printf '\r\033[K'
  if [ "$code" = 0 ]; then
    printf '✓ %s  %s\n' "$title" "$(elapsed "$began")"
  else
    printf '✗ %s  %s\n' "$title" "$(elapsed "$began")"
    tail -n "${tail_lines:-40}" "$log" | sed 's/^/    /'
    printf '    (the whole log: %s)\n' "$log"
  fi
  return "$code"
}

# stop_step: ends the step that runs, with everything that it started.
stop_step() {
  [ -n "$job" ] || return 0
  kill -TERM -- "-$job" 2>/dev/null || true
  wait "$job" 2>/dev/null || true
  job=
}

elapsed() {
  local seconds=$((SECONDS - $1))
  if [ "$seconds" -lt 60 ]; then echo "$seconds s"; else echo "$((seconds / 60)) min $((seconds % 60)) s"; fi
}

width() { local w; w=$(stty size <&1 2>/dev/null | cut -d' ' -f2) || true; [ "${w:-0}" -ge 20 ] || w=100; echo "$w"; }
