# SPDX-License-Identifier: Apache-2.0
"""client.py HOST:PORT CA USER TOKEN password|application: what an unchanged openstacksdk sees. Prints a line of JSON a step."""
import json
import os
import sys

import openstack
from keystoneauth1 import exceptions as refused
from openstack import exceptions

address, ca, user, token, way = sys.argv[1:]
# One of these would be believed in place of what is named here.
for name in list(os.environ):
    if name.startswith("OS_") or name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        os.environ.pop(name)


def say(step, value):
    print(json.dumps({"step": step, "value": value}, sort_keys=True), flush=True)


def attempt(step, call):
    try:
        say(step, call())
    except (exceptions.SDKException, refused.ClientException) as error:
        say(step, {"status": getattr(error, "status_code", None) or getattr(error, "http_status", None), "words": str(error)})


def connect(secret):
    more = {"app_name": "journey", "region_name": "north", "verify": ca, "cert": None}
    if way == "password":
        auth = {"username": user, "password": secret, "project_name": "service", "user_domain_id": "default", "project_domain_id": "default"}
        return openstack.connect(auth={"auth_url": f"https://{address}/v3", **auth}, **more)
    auth = {"application_credential_id": "any", "application_credential_secret": secret}
    return openstack.connect(auth={"auth_url": f"https://{address}/v3", **auth}, auth_type="v3applicationcredential", **more)


attempt("wrong", lambda: connect("pct_" + "x" * 43).authorize())
cloud = connect(token)
attempt("servers", lambda: sorted(s.name for s in cloud.compute.servers(all_projects=True)))
attempt("tags", lambda: sorted(t for s in cloud.compute.servers() for t in s.tags))
attempt("flavors", lambda: [f.name for f in cloud.compute.flavors()])
web = cloud.compute.find_server("web-1", ignore_missing=False)
attempt("one", lambda: [web.name, web.status, web.user_data, web.admin_password])
attempt("foreign", lambda: str(cloud.compute.find_server("payroll")))
attempt("stop", lambda: cloud.compute.stop_server(web))
attempt("stopped", lambda: cloud.compute.wait_for_server(web, status="SHUTOFF", interval=0.2, wait=10).status)
attempt("start", lambda: cloud.compute.start_server(web))
attempt("started", lambda: cloud.compute.wait_for_server(web, status="ACTIVE", interval=0.2, wait=10).status)
attempt("reboot", lambda: cloud.compute.reboot_server(web, "HARD"))
attempt("console", lambda: cloud.compute.create_console(web, "novnc"))
attempt("delete", lambda: cloud.compute.delete_server(web))
attempt("hosts", lambda: [h.name for h in cloud.compute.hypervisors()])
