# SPDX-License-Identifier: Apache-2.0
"""client.py URL CA USER TOKEN MACHINE FOREIGN: what an unchanged ovirtsdk4 sees; FOREIGN is not its user's. Prints one line of JSON a step."""
import json
import sys

import ovirtsdk4 as sdk
from ovirtsdk4 import types

url, ca, user, token, machine, foreign = sys.argv[1:]


def say(step, value):
    print(json.dumps({"step": step, "value": value}, sort_keys=True), flush=True)


def attempt(step, call):
    try:
        say(step, call())
    except sdk.Error as error:
        fault = error.fault and [error.fault.reason, error.fault.detail]
        say(step, {"status": error.code, "fault": fault, "said": str(error)})


def connect(password):
    return sdk.Connection(url=url + "/ovirt-engine/api", username=user + "@internal", password=password, ca_file=ca)


wrong = connect("pct_" + "x" * 43)
attempt("wrong", lambda: wrong.system_service().get().product_info.name)

connection = connect(token)
system = connection.system_service()
vms = system.vms_service()
vm = vms.vm_service(machine)


def names(service, **query):
    return sorted(one.name for one in service.list(**query))


def whole():
    own = vm.get(all_content=True, follow="tags")
    start = own.initialization
    return [own.name, str(own.status), own.description, sorted(t.name for t in own.tags), own.display.address,
        start.host_name, start.root_password, start.authorized_ssh_keys, start.custom_script, start.configuration is None]


def state():
    return str(vm.get().status)


attempt("product", lambda: system.get().product_info.name)
attempt("test", connection.test)
attempt("machines", lambda: names(vms))
attempt("searched", lambda: names(vms, search="name=payroll"))
attempt("page", lambda: names(vms, search="sortby name asc page 1", max=2))
attempt("clusters", lambda: names(system.clusters_service()))
attempt("hosts", lambda: [[h.name, h.address] for h in system.hosts_service().list()])
attempt("events", lambda: sorted({e.vm.id == machine for e in system.events_service().list(search="")}))
attempt("tags", lambda: names(system.tags_service()))
attempt("whole", whole)
attempt("foreign", lambda: vms.vm_service(foreign).get().name)
attempt("foreign stop", lambda: vms.vm_service(foreign).stop())
attempt("absent", lambda: vms.vm_service("00000000-0000-0000-0000-000000000001").get().name)
attempt("wrong state", lambda: vm.start())
attempt("stop", lambda: [vm.stop(), state()])
attempt("start", lambda: [vm.start(), state()])
attempt("shutdown", lambda: [vm.shutdown(), state()])
attempt("again", lambda: [vm.start(pause=False), state()])
attempt("cloud-init", lambda: vm.start(use_cloud_init=True, vm=types.Vm(initialization=types.Initialization(root_password="x"))))
attempt("settings", lambda: vm.update(types.Vm(memory=1 << 30)).memory)
attempt("move", lambda: vm.update(types.Vm(cluster=types.Cluster(name="red"))).name)
attempt("tag", lambda: vm.tags_service().add(types.Tag(name="pay")).name)
attempt("create", lambda: vms.add(types.Vm(name="new", cluster=types.Cluster(name="blue"), template=types.Template(name="Blank"))).name)
attempt("remove", lambda: vm.remove())
attempt("permissions", lambda: len(vm.permissions_service().list()))
attempt("users", lambda: len(system.users_service().list()))
attempt("transfers", lambda: len(system.image_transfers_service().list()))
consoles = vm.graphics_consoles_service()
attempt("consoles", lambda: [[c.protocol.value, c.address, c.port] for c in consoles.list(current=True)])
first = consoles.list(current=True)[0]
attempt("ticket", lambda: consoles.console_service(first.id).ticket().value)
attempt("viewer", lambda: consoles.console_service(first.id).remote_viewer_connection_file())
attempt("own ticket", lambda: vm.ticket())
attempt("snapshot", lambda: vm.snapshots_service().add(types.Snapshot(description="before")).description)
say("token", connection.authenticate())
attempt("close", lambda: connection.close(logout=True))
