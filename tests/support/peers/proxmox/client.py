# SPDX-License-Identifier: Apache-2.0
"""client.py HOST:PORT CA USER TOKEN token|ticket: what an unchanged proxmoxer sees. Prints one line of JSON a step."""
import json
import os
import sys

from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException

host, ca, user, token, way = sys.argv[1:]
# One of these would be believed in place of the CA that is named here.
for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(name, None)


def say(step, value):
    print(json.dumps({"step": step, "value": value}, sort_keys=True), flush=True)


def attempt(step, call):
    try:
        say(step, call())
    except ResourceException as error:
        say(step, {"status": error.status_code, "content": error.content, "errors": error.errors})


def connect(secret):
    if way == "token":
        return ProxmoxAPI(host, user=user, token_name="tool", token_value=secret, verify_ssl=ca)
    return ProxmoxAPI(host, user=user, password=secret, verify_ssl=ca)


try:
    wrong = connect("pct_" + "x" * 43)
    wrong.version.get()
    say("wrong", "taken")
except (AuthenticationError, ResourceException) as error:
    say("wrong", type(error).__name__)

pve = connect(token)
attempt("version", lambda: pve.version.get()["version"])
attempt("nodes", lambda: sorted(n["node"] for n in pve.nodes.get()))
attempt("resources", lambda: sorted(r["vmid"] for r in pve.cluster.resources.get(type="vm")))
attempt("qemu", lambda: sorted(m["vmid"] for m in pve.nodes("pve1").qemu.get()))
attempt("pools", lambda: sorted(p["poolid"] for p in pve.pools.get()))
attempt("config", lambda: pve.nodes("pve1").qemu(100).config.get()["name"])
attempt("foreign", lambda: pve.nodes("pve1").qemu(200).config.get())
attempt("absent", lambda: pve.nodes("pve1").qemu(999).config.get())
attempt("foreign power", lambda: pve.nodes("pve1").qemu(200).status.stop.post())
attempt("screen", lambda: pve.nodes("pve1").qemu(100).vncproxy.post(websocket=1))


def power(word):
    task = pve.nodes("pve1").qemu(100).status(word).post()
    state = pve.nodes("pve1").tasks(task).status.get()
    return [task.split(":")[5:7], state["type"]]


attempt("stop", lambda: power("stop"))
attempt("start", lambda: power("start"))
attempt("settings", lambda: pve.nodes("pve1").qemu(100).config.put(description="two\nlines & more"))
attempt("bulk", lambda: pve.nodes("pve1").startall.post(vms="100,200"))
attempt("all", lambda: pve.nodes("pve1").stopall.post())
