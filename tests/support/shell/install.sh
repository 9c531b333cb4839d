# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, and only that. Read by deploy/demo and tests/run.
# shellcheck shell=bash

# missing_packages WHAT=PACKAGE…: prints the packages whose WHAT is not there; WHAT is a command, or a path with `*`.
missing_packages() {
  local entry what
  for entry in "$@"; do
    what=${entry%%=*}
    if [[ $what == /* ]]; then compgen -G "$what" >/dev/null && continue
    elif [ -n "$(PATH=$PATH:/usr/sbin:/sbin type -P "$what")" ]; then continue; fi
    echo "${entry#*=}"
  done
}

# ask_for_root PACKAGES: asks for a password here, where somebody can type it.
ask_for_root() {
  [ "$(id -u)" != 0 ] || return 0
  if ! command -v sudo >/dev/null; then
    echo "These packages are missing, and there is no sudo to install them with. As root: apt-get install $(tr "\n" " " <<<"$1")" >&2
    return 2
  fi
  sudo -v
}

# install_packages PACKAGE…: from Debian, without starting their services, and without removing anything.
install_packages() (
  set -euo pipefail
  command -v apt-get >/dev/null || { echo "This is not Debian. Install these by hand, then try again: $*" >&2; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo --preserve-env=DEBIAN_FRONTEND)
  "${root[@]}" apt-get -q update
  wanted=("$@")
  # A newer package from another archive (backports) can stand in the way of Debian's own. The same package in the
  # version that fits is then installed with the rest; if something would still be removed, a person has to decide.
  for package in $(removed_by "${wanted[@]}"); do
    version=$(fitting_version "$package" "${wanted[@]}")
    [ -z "$version" ] || wanted+=("$package=$version")
  done
  lost=$(removed_by "${wanted[@]}" | tr '\n' ' ')
  if [ -n "$lost" ] && [ "${CI:-}" != true ]; then
    echo "Installing $* would remove: $lost" >&2
    echo "Decide yourself: apt-get install $*" >&2
    exit 1
  fi
  quiet=
  trap '[ -z "$quiet" ] || "${root[@]}" rm -f /usr/sbin/policy-rc.d' EXIT
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    quiet=yes
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee /usr/sbin/policy-rc.d >/dev/null
    "${root[@]}" chmod 755 /usr/sbin/policy-rc.d
  fi
  "${root[@]}" apt-get -q install -y --no-install-recommends --allow-downgrades "${wanted[@]}"
)

# removed_by PACKAGE…: what an installation would remove.
removed_by() { apt-get -q -s install --no-install-recommends --allow-downgrades "$@" | awk '$1 == "Remv" { print $2 }'; }

# fitting_version PACKAGE WANTED…: its version from the same source version as one of the wanted packages.
fitting_version() {
  local package=$1 other version; shift
  for other in "$@"; do
    version=$(apt-cache policy "${other%%=*}" | awk '$1 == "Candidate:" { print $2 }')
    if apt-cache madison "$package" | awk -F' *[|] *' '{ print $2 }' | grep -qxF "$version"; then
      echo "$version"
      return
    fi
  done
}

# install_npm FOLDER: by the lock file; nothing to do when the folder holds exactly that already.
install_npm() {
  if ! cmp -s "$1/package-lock.json" "$1/node_modules/.installed-lock"; then
    npm ci --no-audit --no-fund --prefix "$1" && cp "$1/package-lock.json" "$1/node_modules/.installed-lock"
  fi
}

# install_cargo_tool NAME: a cargo subcommand, from source.
install_cargo_tool() { command -v "cargo-$1" >/dev/null || cargo install --locked "cargo-$1"; }

# require_rust: Rust is the one thing that is expected to be there.
require_rust() {
  if ! command -v cargo >/dev/null; then
    if [ -x "$HOME/.cargo/bin/cargo" ]; then export PATH=$HOME/.cargo/bin:$PATH
    else
      echo "Rust is missing (rust-version in Cargo.toml says which): install it with rustup, then try again." >&2
      return 2
    fi
  fi
}
