#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Unchanged clients of OpenStack (openstacksdk and python-openstackclient from PyPI).
#   openstack.sh start DIR     prints PYTHON, CLIENT and OPENSTACK
#   openstack.sh stop DIR
#   openstack.sh install DIR   a virtual environment with what they need, by openstack/requirements.txt
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='openstack.sh start|stop|install DIR'
verb=${1:?$usage} dir=$(absolute "${2:?$usage}")
venv=${PORTCULLIS_TEST_OPENSTACK:-$here/../../../target/peers/openstack}

case $verb in
  install) install_python "$here/openstack/requirements.txt" "$dir" ;;
  start)
    [ -x "$venv/bin/openstack" ] || fail "its modules are missing: $0 install $venv"
    printf '%s\n' "PYTHON=$venv/bin/python" "CLIENT=$here/openstack/client.py" "OPENSTACK=$venv/bin/openstack"
    ;;
  stop) ;;
  *) fail "$usage" ;;
esac
