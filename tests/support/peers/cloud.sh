#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A real Keystone, Placement, Glance and Nova from Debian on 127.0.0.1, with SQLite and RabbitMQ. Only the hypervisor is
# none: Nova's own fake driver, with consoles that lead to a real VNC screen without a password; and Neutron, which
# answers that there is nothing. It takes 1.6 GB of memory and a minute.
#   cloud.sh start DIR VNC     prints IDENTITY, COMPUTE, CONSOLE, PASSWORD_FILE, SERVER
#   cloud.sh stop DIR
#   cloud.sh packages          the Debian packages that it needs
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/process.sh"
usage='cloud.sh start DIR VNC | stop DIR | packages'
verb=${1:?$usage}

packages=(keystone nova-api nova-conductor nova-scheduler nova-compute nova-compute-qemu nova-consoleproxy placement-api
  glance-api rabbitmq-server)
if [ "$verb" = packages ]; then
  echo "${packages[*]}"
  exit
fi
dir=$(absolute "${2:?$usage}")
parts=(rabbit keystone placement glance neutron nova-api nova-conductor nova-scheduler nova-compute nova-novncproxy)

# part NAME MARK COMMAND…: one process of it.
part() {
  local name=$1
  shift
  begin "$dir/$name.pid" "$dir/log/$name.log" "$@"
}

# answers NAME URL: waits until somebody speaks HTTP there.
answers() { await 60 "$1 to answer" "$dir/$1.pid" "$dir/log/$1.log" curl -s -o /dev/null "$2"; }

write_configuration() {
  local auth="www_authenticate_uri = http://127.0.0.1:$keystone/v3
auth_url = http://127.0.0.1:$keystone/v3
auth_type = password
username = admin
password = $password
project_name = admin
user_domain_name = Default
project_domain_name = Default
region_name = RegionOne"
  cat >"$dir/keystone.conf" <<CONF
[database]
connection = sqlite:///$dir/keystone.db
[token]
provider = fernet
[fernet_tokens]
key_repository = $dir/fernet
[credential]
key_repository = $dir/credential
CONF
  cat >"$dir/placement.conf" <<CONF
[placement_database]
connection = sqlite:///$dir/placement.db
[api]
auth_strategy = keystone
[keystone_authtoken]
$auth
CONF
  cat >"$dir/glance.conf" <<CONF
[DEFAULT]
bind_host = 127.0.0.1
bind_port = $glance
workers = 0
[database]
connection = sqlite:///$dir/glance.db
[glance_store]
stores = file
default_store = file
filesystem_store_datadir = $dir/images
[paste_deploy]
flavor = keystone
config_file = /etc/glance/glance-api-paste.ini
[keystone_authtoken]
$auth
CONF
  cat >"$dir/nova.conf" <<CONF
[DEFAULT]
my_ip = 127.0.0.1
host = localhost
state_path = $dir/state
instances_path = $dir/instances
transport_url = rabbit://guest:guest@127.0.0.1:$rabbit/
enabled_apis = osapi_compute
osapi_compute_listen = 127.0.0.1
osapi_compute_listen_port = $compute
osapi_compute_workers = 1
compute_driver = shown.ShownDriver
web = /usr/share/novnc
[database]
connection = sqlite:///$dir/nova.db
[api_database]
connection = sqlite:///$dir/nova_api.db
[oslo_concurrency]
lock_path = $dir/locks
[api]
auth_strategy = keystone
[conductor]
workers = 1
[scheduler]
workers = 1
[glance]
api_servers = http://127.0.0.1:$glance
[placement]
$auth
[keystone_authtoken]
$auth
[neutron]
endpoint_override = http://127.0.0.1:$neutron
$auth
[vnc]
enabled = true
server_listen = 127.0.0.1
server_proxyclient_address = 127.0.0.1
novncproxy_host = 127.0.0.1
novncproxy_port = $console
novncproxy_base_url = http://127.0.0.1:$console/vnc_lite.html
[cache]
enabled = false
CONF
}

make_databases() {
  local manage=(keystone-manage --config-file "$dir/keystone.conf")
  "${manage[@]}" db_sync
  "${manage[@]}" fernet_setup --keystone-user root --keystone-group root
  "${manage[@]}" credential_setup --keystone-user root --keystone-group root
  "${manage[@]}" bootstrap --bootstrap-password "$password" --bootstrap-region-id RegionOne \
    --bootstrap-admin-url "http://127.0.0.1:$keystone/v3" --bootstrap-internal-url "http://127.0.0.1:$keystone/v3" \
    --bootstrap-public-url "http://127.0.0.1:$keystone/v3"
  placement-manage --config-file "$dir/placement.conf" db sync
  glance-manage --config-file "$dir/glance.conf" db_sync
  manage=(nova-manage --config-file "$dir/nova.conf")
  "${manage[@]}" api_db sync
  "${manage[@]}" cell_v2 map_cell0 --database_connection "sqlite:///$dir/nova_cell0.db"
  "${manage[@]}" cell_v2 create_cell --name cell1
  "${manage[@]}" db sync
  # Several services write to one file: without this they find it locked.
  local file
  for file in "$dir"/*.db; do
    python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("pragma journal_mode = wal")' "$file"
  done
}

case $verb in
  start)
    vnc=${3:?$usage}
    command -v nova-novncproxy >/dev/null || fail "its packages are missing: ${packages[*]}"
    mkdir -p "$dir"/{log,images,locks,state,fernet,credential,rabbitmq,instances}
    keystone=$(free_port) compute=$(free_port) placement=$(free_port) glance=$(free_port) console=$(free_port)
    neutron=$(free_port) rabbit=$(free_port) distribution=$(free_port) mapper=$(free_port)
    password=$(random_text 24)
    (umask 077 && echo "$password" >"$dir/password")
    write_configuration
    export RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$rabbit RABBITMQ_DIST_PORT=$distribution \
      RABBITMQ_NODENAME="portcullis$rabbit@localhost" RABBITMQ_MNESIA_BASE=$dir/rabbitmq RABBITMQ_LOG_BASE=$dir/log \
      ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$mapper HOME=$dir
    echo "$mapper" >"$dir/mapper"
    part rabbit /usr/lib/rabbitmq/bin/rabbitmq-server
    make_databases >"$dir/log/databases.log" 2>&1 || fail "no databases: $(tail -5 "$dir/log/databases.log")"
    export OS_KEYSTONE_CONFIG_FILES=$dir/keystone.conf OS_PLACEMENT_CONFIG_DIR=$dir
    part keystone keystone-wsgi-public --host 127.0.0.1 --port "$keystone" -- --config-file "$dir/keystone.conf"
    part placement placement-api --host 127.0.0.1 --port "$placement"
    part neutron /usr/bin/python3 "$here/openstack/nothing.py" "$neutron"
    answers keystone "http://127.0.0.1:$keystone/v3"
    answers placement "http://127.0.0.1:$placement/"
    catalog=(/usr/bin/python3 "$here/openstack/catalog.py" "$dir/password" "$keystone" "$compute" "$placement" "$glance" "$neutron")
    "${catalog[@]}" services
    part glance glance-api --config-file "$dir/glance.conf"
    await 60 "RabbitMQ" "$dir/rabbit.pid" "$dir/log/rabbit.log" bash -c "exec 3<>/dev/tcp/127.0.0.1/$rabbit"
    for name in nova-api nova-conductor nova-scheduler nova-novncproxy; do
      part "$name" "$name" --config-file "$dir/nova.conf"
    done
    SHOWN_VNC=$vnc part nova-compute /usr/bin/python3 "$here/openstack/shown.py" --config-file "$dir/nova.conf"
    answers glance "http://127.0.0.1:$glance/"
    answers nova-api "http://127.0.0.1:$compute/"
    # A compute service counts once it is mapped to its cell, and can be mapped once it has spoken.
    map() {
      nova-manage --config-file "$dir/nova.conf" cell_v2 discover_hosts >/dev/null 2>&1
      nova-manage --config-file "$dir/nova.conf" cell_v2 list_hosts 2>/dev/null | grep -q localhost
    }
    await 60 "nova-compute" "$dir/nova-compute.pid" "$dir/log/nova-compute.log" map
    printf '%s\n' "IDENTITY=http://127.0.0.1:$keystone/v3" "COMPUTE=http://127.0.0.1:$compute/v2.1" \
      "CONSOLE=http://127.0.0.1:$console" "PASSWORD_FILE=$dir/password" "SERVER=$("${catalog[@]}" server)"
    ;;
  stop)
    # Each part is a group of processes; what its command line holds tells it from a stranger with its number.
    for round in TERM KILL; do
      for name in "${parts[@]}"; do
        mark=$name
        [ "$name" != neutron ] || mark=nothing.py
        [ "$name" != nova-compute ] || mark=shown.py
        if runs "$dir/$name.pid" "$mark"; then kill "-$round" -- "-$(<"$dir/$name.pid")" 2>/dev/null || true; fi
      done
      [ "$round" = KILL ] || sleep 3
    done
    if [ -s "$dir/mapper" ]; then ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$(<"$dir/mapper") epmd -kill >/dev/null 2>&1 || true; fi
    ;;
  *) fail "$usage" ;;
esac
