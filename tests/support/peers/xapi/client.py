# SPDX-License-Identifier: Apache-2.0
"""client.py URL CA USER TOKEN UUID VM VDI VDI TASK: what an unchanged XenAPI sees; the last ones are not its user's. Prints one line of JSON a step."""
import json
import os
import sys

os.environ["SSL_CERT_FILE"] = sys.argv[2]

import XenAPI  # noqa: E402 (the certificate file has to be named first)

url, _, user, token, *others = sys.argv[1:]
others = iter(others)
NULL = "OpaqueRef:NULL"


def say(step, value):
    print(json.dumps({"step": step, "value": value}, sort_keys=True), flush=True)


def attempt(step, call):
    try:
        say(step, call())
    except XenAPI.Failure as failure:
        say(step, {"failure": failure.details})


def names(kind):
    return sorted(r["name_label"] for r in getattr(session.xenapi, kind).get_all_records().values())


def follow(token):
    batch = getattr(session.xenapi.event, "from")(["VM", "VBD", "pool", "host", "session"], token, 5.0)
    return batch["token"], batch["events"], batch["valid_ref_counts"]


wrong = XenAPI.Session(url)
attempt("wrong", lambda: wrong.login_with_password(user, "pct_" + "x" * 43, "2.21", "tests"))

session = XenAPI.Session(url)
session.login_with_password(user, token, "2.21", "tests")
say("handle", session.handle)
attempt("version", lambda: session.API_version)
attempt("machines", lambda: names("VM"))
attempt("disks", lambda: names("VDI"))
attempt("hosts", lambda: sorted(session.xenapi.host.get_all_records().values(), key=str))
attempt("pools", lambda: sorted(session.xenapi.pool.get_all_records().values(), key=str))
attempt("networks", lambda: names("network"))
attempt("named", lambda: len(session.xenapi.VM.get_by_name_label("payroll")))
web = session.xenapi.VM.get_by_name_label("web-1")[0]
record = session.xenapi.VM.get_record(web)
say("record", [record["name_label"], record["tags"], record["other_config"]])
attempt("foreign uuid", lambda: session.xenapi.VM.get_by_uuid(next(others)))
foreign = next(others)
attempt("foreign", lambda: session.xenapi.VM.get_record(foreign))
attempt("foreign power", lambda: session.xenapi.VM.hard_shutdown(foreign))
attempt("absent", lambda: session.xenapi.VM.get_record("OpaqueRef:00000000-0000-0000-0000-000000000001"))
attempt("no reference", lambda: session.xenapi.VM.get_record("web-1"))
attempt("foreign disk", lambda: session.xenapi.VDI.destroy(next(others)))
attempt("attach", lambda: session.xenapi.VBD.create({"VM": web, "VDI": next(others), "userdevice": "1"}))
attempt("wrong state", lambda: session.xenapi.VM.start(web, False, False))
attempt("arity", lambda: session.xenapi.VM.start(web))
attempt("unknown", lambda: session.xenapi.VM.unheard_of(web))
attempt("denied", lambda: session.xenapi.secret.get_all_records())
attempt("settings", lambda: session.xenapi.VM.set_name_description(web, "a"))
attempt("screen", lambda: session.xenapi.console.get_record(session.xenapi.VM.get_consoles(web)[1])["protocol"])
since, first, counts = follow("")
say("events", sorted({e["snapshot"].get("name_label", e["class"]) for e in first}))
say("counts", counts)
attempt("stop", lambda: session.xenapi.VM.clean_shutdown(web))
since, changed, _ = follow(since)
say("followed", sorted({(e["class"], e["snapshot"].get("power_state", "")) for e in changed}))


def task():
    begun = session.xenapi.Async.VM.start(web, False, False)
    state = session.xenapi.task.get_record(begun)
    listed = begun in session.xenapi.task.get_all()
    session.xenapi.task.destroy(begun)
    return [state["name_label"], state["status"], listed]


attempt("start", task)
attempt("foreign task", lambda: session.xenapi.task.get_status(next(others)))
attempt("absent task", lambda: session.xenapi.task.get_status("OpaqueRef:00000000-0000-0000-0000-000000000001"))
session.xenapi.session.logout()
say("after", session.handle)
