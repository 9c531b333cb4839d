# SPDX-License-Identifier: Apache-2.0
"""client.py URL CA TOKEN: what an unchanged client of Kubernetes for Python sees. Prints one line of JSON a step."""
import json
import sys

from kubernetes import client, watch
from kubernetes.client.rest import ApiException

url, ca, token = sys.argv[1:]
GROUP, VERSION, PLURAL = "kubevirt.io", "v1", "virtualmachines"


def connect(secret):
    configuration = client.Configuration()
    configuration.host, configuration.ssl_ca_cert = url, ca
    configuration.api_key = {"authorization": "Bearer " + secret}
    return client.CustomObjectsApi(client.ApiClient(configuration))


def say(step, value):
    print(json.dumps({"step": step, "value": value}, sort_keys=True), flush=True)


def attempt(step, call):
    try:
        say(step, call())
    except ApiException as error:
        body = json.loads(error.body)
        say(step, {"status": error.status, "kind": body["kind"], "reason": body["reason"]})


def names(listed):
    return sorted(item["metadata"]["name"] for item in listed["items"])


api = connect("pct_" + "x" * 43)
attempt("wrong", lambda: names(api.list_cluster_custom_object(GROUP, VERSION, PLURAL)))
api = connect(token)
listed = api.list_cluster_custom_object(GROUP, VERSION, PLURAL, limit=1)
say("machines", names(listed))
say("list", sorted(listed["metadata"]))
attempt("foreign", lambda: api.get_namespaced_custom_object(GROUP, VERSION, "red", PLURAL, "payroll"))
attempt("absent", lambda: api.get_namespaced_custom_object(GROUP, VERSION, "red", PLURAL, "nobody"))
attempt("secrets", lambda: client.CoreV1Api(api.api_client).list_namespaced_secret("blue"))
attempt("snapshots", lambda: names(api.list_cluster_custom_object("snapshot.kubevirt.io", "v1beta1",
    "virtualmachinesnapshots")))
attempt("foreign snapshot", lambda: api.get_namespaced_custom_object("snapshot.kubevirt.io", "v1beta1", "red",
    "virtualmachinesnapshots", "before-payroll"))


def words(name):
    try:
        return api.get_namespaced_custom_object("snapshot.kubevirt.io", "v1beta1", "red", "virtualmachinesnapshots", name)
    except ApiException as error:
        return json.loads(error.body)["message"]


say("told apart", words("before-payroll") != words("nothing"))
found = api.get_namespaced_custom_object(GROUP, VERSION, "blue", PLURAL, "web-1")
attempt("stale", lambda: api.replace_namespaced_custom_object(GROUP, VERSION, "blue", PLURAL, "web-1", found))
change = {"metadata": {"resourceVersion": "1", "annotations": {"note": "x"}}}
attempt("conflict", lambda: api.patch_namespaced_custom_object(GROUP, VERSION, "blue", PLURAL, "web-1", change))
seen = []
follow = watch.Watch()
for event in follow.stream(api.list_cluster_custom_object, GROUP, VERSION, PLURAL, timeout_seconds=20):
    seen.append([event["type"], event["object"]["metadata"]["name"]])
    break
say("followed", seen)
