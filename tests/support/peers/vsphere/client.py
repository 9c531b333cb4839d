# SPDX-License-Identifier: Apache-2.0
"""client.py HOST PORT CA USER TOKEN VERB: what an unchanged pyvmomi sees. Prints one line of JSON a step.

all:ID    what an operator of some machines gets, ID being a machine of somebody else
admin     what an administrator of everything gets
off:ID    switches one machine off
end       ends every other session
names     signs in and lists
watch     waits for updates until it is cut, and says how
"""
import json
import os
import ssl
import sys
import time

from pyVim.connect import Disconnect, SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

host, port, ca, user, token, verb = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)


def say(step, value):
    print(json.dumps({"step": step, "value": value}, sort_keys=True), flush=True)


def attempt(step, call):
    try:
        say(step, call())
    except vmodl.MethodFault as error:
        say(step, {"fault": type(error).__name__.rsplit(".", 1)[-1], "message": error.msg})


def connect(secret):
    return SmartConnect(host=host, port=int(port), user=user, pwd=secret, sslContext=context)


def collect(si, of, properties):
    """The usual way to list: a view, and its objects' properties in pages of two."""
    content = si.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [of], True)
    query = vmodl.query.PropertyCollector
    through = query.TraversalSpec(name="all", path="view", skip=False, type=vim.view.ContainerView)
    wanted = query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=view, skip=True, selectSet=[through])],
        propSet=[query.PropertySpec(type=of, pathSet=properties, all=False)],
    )
    result = content.propertyCollector.RetrievePropertiesEx([wanted], query.RetrieveOptions(maxObjects=2))
    found = []
    while result:
        found += result.objects
        result = content.propertyCollector.ContinueRetrievePropertiesEx(result.token) if result.token else None
    view.Destroy()
    return found


def names(si, of=vim.VirtualMachine):
    return sorted(p.val for o in collect(si, of, ["name"]) for p in o.propSet)


def reference(si, kind, moid):
    return kind(moid, si._stub)


def everything(si):
    content = si.RetrieveContent()
    say("about", content.about.apiType)
    attempt("names", lambda: names(si))
    attempt("folders", lambda: names(si, vim.Folder))
    attempt("pools", lambda: names(si, vim.ResourcePool))
    attempt("hosts", lambda: len(names(si, vim.HostSystem)))
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    seen = {vm.name: vm for vm in view.view}
    say("view", sorted(seen))
    say("view id", view._moId)
    web = seen["web-1"]
    say("settings", [web.config.name, web.parent.name, web.resourcePool.name, web.runtime.powerState])
    say("siblings", sorted(vm.name for vm in web.resourcePool.vm))
    attempt("by name", lambda: content.searchIndex.FindByInventoryPath("DC0/vm/blue/web-1")._moId == web._moId)
    attempt("by hidden name", lambda: str(content.searchIndex.FindByInventoryPath("DC0/vm/red/payroll")))
    attempt("off", lambda: WaitForTask(web.PowerOff()))
    attempt("is off", lambda: web.runtime.powerState)
    attempt("on", lambda: WaitForTask(web.PowerOn()))
    attempt("screen", lambda: web.AcquireTicket("webmks").ticket)
    attempt("rename", lambda: WaitForTask(web.Rename("other")))
    attempt("snapshot", lambda: WaitForTask(web.CreateSnapshot("s", "", False, False)))
    attempt("exec", lambda: content.guestOperationsManager and content.guestOperationsManager.processManager)
    attempt("events", lambda: len(content.eventManager.QueryEvents(vim.event.EventFilterSpec())))
    attempt("sessions", lambda: [s.key for s in content.sessionManager.sessionList])
    attempt("mob", lambda: content.accountManager)


def hidden(si, moid):
    """One machine that may not be seen, and one that does not exist."""
    for step, id in [("hidden", moid), ("absent", "vm-99999")]:
        vm = reference(si, vim.VirtualMachine, id)
        attempt(f"{step} name", lambda: vm.name)
        attempt(f"{step} off", lambda: str(vm.PowerOff()))
        attempt(f"{step} as folder", lambda: str(reference(si, vim.Folder, id).Destroy()))


def admin(si):
    content = si.RetrieveContent()
    attempt("names", lambda: names(si))
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    web = {vm.name: vm for vm in view.view}["web-1"]
    attempt("snapshot", lambda: WaitForTask(web.CreateSnapshot("first", "", False, False)))
    deadline = time.time() + 10

    def finish(task):
        # The simulator says that this task is about a snapshot, which pyvmomi takes for an error: read its state alone.
        query = vmodl.query.PropertyCollector
        wanted = query.FilterSpec(
            objectSet=[query.ObjectSpec(obj=task)],
            propSet=[query.PropertySpec(type=vim.Task, pathSet=["info.state"], all=False)],
        )
        while True:
            state = content.propertyCollector.RetrieveContents([wanted])[0].propSet[0].val
            if state != "running" and state != "queued":
                return state
            time.sleep(0.1)

    def remove():
        # The gateway has to have heard of it, too.
        while True:
            try:
                return finish(web.snapshot.rootSnapshotList[0].snapshot.Remove(False))
            except vmodl.fault.ManagedObjectNotFound:
                if time.time() > deadline:
                    raise
                time.sleep(0.1)

    attempt("remove snapshot", remove)
    spec = vim.vm.ConfigSpec
    option = vim.option.OptionValue
    attempt("annotate", lambda: WaitForTask(web.ReconfigVM_Task(spec(annotation="a <b> & session[portcullis]"))))
    attempt("annotation", lambda: web.config.annotation)
    secret = [option(key="guestinfo.db.password", value="canary-guest-secret")]
    attempt("option", lambda: WaitForTask(web.ReconfigVM_Task(spec(extraConfig=secret))))
    attempt("options", lambda: [o.key for o in web.config.extraConfig if "password" in o.key])
    disk = [d for d in web.config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)][0]
    change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=disk)
    attempt("disk", lambda: WaitForTask(web.ReconfigVM_Task(spec(deviceChange=[change]))))
    where = vim.vm.RelocateSpec(pool=web.resourcePool)
    copy = vim.vm.CloneSpec(location=where, powerOn=False, template=False)
    attempt("clone", lambda: WaitForTask(web.Clone(folder=web.parent, name="copy", spec=copy)))
    attempt("names after", lambda: names(si))
    attempt("sessions", lambda: [s.key for s in content.sessionManager.sessionList])
    attempt("events", lambda: len(content.eventManager.QueryEvents(vim.event.EventFilterSpec())) > 0)
    attempt("ticket", lambda: content.sessionManager.AcquireCloneTicket())
    attempt("screen", lambda: web.AcquireTicket("mks").ticket)
    attempt("export", lambda: str(web.ExportVm()))


def watch(si):
    content = si.RetrieveContent()
    query = vmodl.query.PropertyCollector
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    through = query.TraversalSpec(name="all", path="view", skip=False, type=vim.view.ContainerView)
    spec = query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=view, skip=True, selectSet=[through])],
        propSet=[query.PropertySpec(type=vim.VirtualMachine, pathSet=["name", "runtime.powerState"], all=False)],
    )
    content.propertyCollector.CreateFilter(spec, True)
    version = ""
    while True:
        update = content.propertyCollector.WaitForUpdatesEx(version, query.WaitOptions(maxWaitSeconds=60))
        if update is None:
            continue
        version = update.version
        changed = [
            [o.obj._moId, o.kind, {c.name: str(c.val) for c in o.changeSet}]
            for f in update.filterSet
            for o in f.objectSet
        ]
        say("update", changed)


if verb.startswith("all:"):
    try:
        connect("pct_" + "x" * 43)
        say("wrong", "taken")
    except vim.fault.InvalidLogin as error:
        say("wrong", type(error).__name__)
    si = connect(token)
    everything(si)
    hidden(si, verb[4:])
    Disconnect(si)
    attempt("after", lambda: si.CurrentTime() and "answered")
elif verb == "names":
    try:
        say("names", names(connect(token)))
    except vmodl.MethodFault as error:
        say("names", type(error).__name__)
elif verb == "end":
    manager = connect(token).RetrieveContent().sessionManager
    others = [s.key for s in manager.sessionList if s.key != manager.currentSession.key]
    manager.TerminateSession(others)
    say("ended", len(others))
elif verb == "admin":
    admin(connect(token))
elif verb.startswith("off:"):
    attempt("off", lambda: WaitForTask(reference(connect(token), vim.VirtualMachine, verb[4:]).PowerOff()))
elif verb == "watch":
    si = connect(token)
    try:
        watch(si)
    except (vmodl.MethodFault, OSError) as error:
        say("cut", type(error).__name__)
