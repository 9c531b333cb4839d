# SPDX-License-Identifier: Apache-2.0
"""serve.py PORT CERT KEY TOKEN_FILE VNC DIR: a simulated Kubernetes API server with KubeVirt, for the tests.

As strict as the real one where a gateway could go wrong: another token is 401, and what the service account may not do 403,
each with a Status object; bodies and patches of a wrong media type are 415; a resourceVersion that is not the object's is
409; a list goes on only from its own `continue`, and a watch from a version that is not forgotten (410); bookmarks come only
to those who ask for them; what is asked for as a table is one. A WebSocket without `plain.kubevirt.io` is refused, and so is
one that brings a second token. `vnc` is bridged to a real QEMU's screen, `console` answers with what it is sent.

Known differences: nothing runs, so machines change their state at once; of schemas, defaults, webhooks and roles there is
only what tests look at; label selectors are of the form a=b; bookmarks come each half second and not each minute; applied
configurations are JSON, merged without managed fields; a second session of a screen that is to be preserved is 409.
Files that appear in DIR change it: `expire` forgets every version, `loop` lets lists never end, `odd` puts rows of wrong
shapes into lists, `nothing` answers lists with something else, `closed` refuses everything with 403, `token` holds the only
token that counts from then on beside those that were asked for, `slow` gives each page of a list one object and lets each
but the first wait for a while, `burst` sends a watch with timeoutSeconds=77 an event of a machine that is in no list and
fifty of web-1, all at once, `strict` lets nobody make a token. A token that is bound to a secret (its claims say so; nobody
signs anything here) counts as long as the secret is there. Secrets can be made and deleted, and never read.

Prints a line for each request: `asked METHOD TARGET`, and `wrong WHAT` for what no careful client does.
"""
import base64
import copy
import hashlib
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, CERT, KEY, TOKEN_FILE, VNC, DIR = sys.argv[1:]
with open(TOKEN_FILE, encoding="utf-8") as file:
    TOKEN = file.read().strip()
CHANGE = threading.Condition()
VERSION = 1000
FORGOTTEN = 0
STORE = {}
EVENTS = []
SCREENS = {}
# Secrets by namespace and name, with their uid; tokens that were asked for; secrets that were deleted.
SECRETS = {}
TOKENS = set()
GONE = set()
KV = "kubevirt.io"
# group, version, plural, kind, short names, namespaced
RESOURCES = [
    (KV, "v1", "virtualmachines", "VirtualMachine", ["vm", "vms"], True),
    (KV, "v1", "virtualmachineinstances", "VirtualMachineInstance", ["vmi", "vmis"], True),
    (KV, "v1", "virtualmachineinstancemigrations", "VirtualMachineInstanceMigration", ["vmim", "vmims"], True),
    (KV, "v1", "kubevirts", "KubeVirt", ["kv", "kvs"], True),
    ("snapshot.kubevirt.io", "v1beta1", "virtualmachinesnapshots", "VirtualMachineSnapshot", ["vmsnapshot"], True),
    ("snapshot.kubevirt.io", "v1beta1", "virtualmachinerestores", "VirtualMachineRestore", ["vmrestore"], True),
    ("instancetype.kubevirt.io", "v1beta1", "virtualmachineclusterinstancetypes", "VirtualMachineClusterInstancetype",
        [], False),
    ("apps", "v1", "deployments", "Deployment", ["deploy"], True),
    ("cdi.kubevirt.io", "v1beta1", "datavolumes", "DataVolume", ["dv"], True),
]
SUBRESOURCES = ("subresources.kubevirt.io", "v1")
PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")


def say(*words):
    print(*words, flush=True)


def flag(name):
    return os.path.exists(os.path.join(DIR, name))


def bound(token):
    """The secret that a token is bound to."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["kubernetes.io"]
        return claims["namespace"], claims["secret"]["name"]
    except (IndexError, KeyError, TypeError, ValueError):
        return None


class Refusal(Exception):
    """A refusal: code, reason, message."""


def resource(group, version, plural):
    for entry in RESOURCES:
        if entry[:3] == (group, version, plural):
            return entry
    raise Refusal(404, "NotFound", "the server could not find the requested resource")


def put(group, plural, item, kind="MODIFIED"):
    global VERSION
    with CHANGE:
        VERSION += 1
        meta = item["metadata"]
        meta["resourceVersion"] = str(VERSION)
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        key = (group, plural, meta.get("namespace", ""), meta["name"])
        before = STORE.get(key)
        if kind == "DELETED":
            STORE.pop(key, None)
        else:
            STORE[key] = item
            kind = "MODIFIED" if before else "ADDED"
        EVENTS.append((VERSION, key, kind, copy.deepcopy(item), copy.deepcopy(before)))
        CHANGE.notify_all()
    return item


def drop(group, plural, namespace, name):
    item = copy.deepcopy(STORE.get((group, plural, namespace, name)))
    if item:
        put(group, plural, item, "DELETED")
        if plural == "virtualmachines":
            drop(group, "virtualmachineinstances", namespace, name)
    return item


def get(group, plural, namespace, name):
    found = STORE.get((group, plural, namespace, name))
    if found is None:
        raise Refusal(404, "NotFound", f'{plural}.{group} "{name}" not found')
    return copy.deepcopy(found)


def machine(namespace, name, labels, running, volumes=(), annotations=None):
    template = {"metadata": {"labels": {"kubevirt.io/domain": name}}, "spec": {
        "domain": {"devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]}, "resources": {}},
        "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": name}}, *volumes],
    }}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    if annotations:
        meta["annotations"] = annotations
    put(KV, "virtualmachines", {"apiVersion": KV + "/v1", "kind": "VirtualMachine", "metadata": meta,
        "spec": {"runStrategy": "Manual", "template": template}, "status": {"printableStatus": "Stopped"}})
    if running:
        begin(namespace, name)


def begin(namespace, name):
    vm = get(KV, "virtualmachines", namespace, name)
    template = vm["spec"]["template"]
    put(KV, "virtualmachineinstances", {"apiVersion": KV + "/v1", "kind": "VirtualMachineInstance", "metadata": {
        "name": name, "namespace": namespace, "labels": dict(template["metadata"].get("labels", {})),
        "ownerReferences": [{"apiVersion": KV + "/v1", "kind": "VirtualMachine", "name": name,
            "uid": vm["metadata"]["uid"], "controller": True}]},
        "spec": copy.deepcopy(template["spec"]), "status": {"phase": "Running", "nodeName": "node01", "conditions": []}})
    vm["status"] = {"printableStatus": "Running", "ready": True}
    put(KV, "virtualmachines", vm)


def finish(namespace, name):
    drop(KV, "virtualmachineinstances", namespace, name)
    vm = get(KV, "virtualmachines", namespace, name)
    vm["status"] = {"printableStatus": "Stopped"}
    put(KV, "virtualmachines", vm)


CLOUD_INIT = {"name": "init", "cloudInitNoCloud": {"userData": "#cloud-config\npassword: canary-user-data\n"}}
machine("blue", "web-1", {"tag.portcullis/web": "", "app": "web"}, True, [CLOUD_INIT], {
    "kubectl.kubernetes.io/last-applied-configuration": json.dumps({"spec": {"template": {"spec": {"volumes": [
        {"name": "init", "cloudInitNoCloud": {"userDataBase64": "canary-last-applied"}}]}}}})})
machine("blue", "dns-1", {"tag.portcullis/web": "true"}, False)
machine("red", "payroll", {"tag.portcullis/red": ""}, True, [CLOUD_INIT])
put(KV, "virtualmachineinstances", {"apiVersion": KV + "/v1", "kind": "VirtualMachineInstance", "metadata": {
    "name": "alone", "namespace": "red", "labels": {"tag.portcullis/red": ""}}, "spec": {"domain": {"devices": {}}},
    "status": {"phase": "Running", "nodeName": "node02"}})
put(KV, "kubevirts", {"apiVersion": KV + "/v1", "kind": "KubeVirt", "metadata": {"name": "kubevirt",
    "namespace": "kubevirt"}, "spec": {"customizeComponents": {}}})
for namespace, name in (("blue", "web-1"), ("red", "payroll")):
    put("snapshot.kubevirt.io", "virtualmachinesnapshots", {"apiVersion": "snapshot.kubevirt.io/v1beta1",
        "kind": "VirtualMachineSnapshot", "metadata": {"name": "before-" + name, "namespace": namespace},
        "spec": {"source": {"apiGroup": KV, "kind": "VirtualMachine", "name": name}}, "status": {"readyToUse": True}})


def fits(item, query):
    meta = item["metadata"]
    for part in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = part.partition("=")
        if meta.get("labels", {}).get(key) != value.lstrip("="):
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        key, _, value = part.partition("=")
        if key not in ("metadata.name", "metadata.namespace"):
            raise Refusal(400, "BadRequest", f"field label not supported: {key}")
        if meta.get(key.removeprefix("metadata.")) != value.lstrip("="):
            return False
    return True


COLUMNS = [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
    {"name": "Age", "type": "date", "format": "", "description": "", "priority": 0},
    {"name": "Status", "type": "string", "format": "", "description": "", "priority": 0}]


def row(item, query):
    status = item.get("status", {})
    cells = [item["metadata"]["name"], "5m", status.get("printableStatus") or status.get("phase") or ""]
    include = query.get("includeObject", "Metadata")
    found = {"cells": cells}
    if include == "Object":
        found["object"] = item
    elif include == "Metadata":
        found["object"] = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}
    return found


def table(items, query, meta, columns=True):
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
        "columnDefinitions": COLUMNS if columns else [], "rows": [row(i, query) for i in items]}


def merge(target, patch):
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = merge(target.get(key), value)
    return target


def step(item, change):
    parts = [p.replace("~1", "/").replace("~0", "~") for p in change["path"].split("/")[1:]]
    place = item
    for part in parts[:-1]:
        place = place[int(part)] if isinstance(place, list) else place.get(part)
        if place is None:
            raise Refusal(422, "Invalid", "the server rejected our request due to an error in our request")
    last, op = parts[-1], change["op"]
    if isinstance(place, list):
        at = len(place) if last == "-" else int(last)
        if op == "add":
            place.insert(at, change["value"])
        elif op == "replace":
            place[at] = change["value"]
        elif op == "remove":
            place.pop(at)
        return
    if op in ("replace", "remove", "test") and last not in place or op == "test" and place[last] != change["value"]:
        raise Refusal(422, "Invalid", "the server rejected our request due to an error in our request")
    if op == "remove":
        place.pop(last)
    elif op != "test":
        place[last] = change["value"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "kubernetes"

    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="application/json"):
        data = body if isinstance(body, bytes) else (json.dumps(body) + "\n").encode() if body is not None else b""
        self.send_response(status)
        self.send_header("Audit-Id", str(uuid.uuid4()))
        if data:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, code, reason, message):
        self.answer(code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code})

    def handle_one(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else b""
        path, _, query = self.path.partition("?")
        if len(set(k for k, _ in urllib.parse.parse_qsl(query, True))) != len(urllib.parse.parse_qsl(query, True)):
            say("wrong", "a key twice", self.path)
        self.query = dict(urllib.parse.parse_qsl(query, True))
        say("asked", self.command, self.path)
        for name in self.headers:
            if name.lower().startswith(("impersonate-", "x-remote-", "cookie")):
                say("wrong", "header", name)
        try:
            counts = TOKEN
            if flag("token"):
                with open(os.path.join(DIR, "token"), encoding="utf-8") as file:
                    counts = file.read().strip()
            shown = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if shown != counts and shown not in TOKENS or bound(shown) in GONE:
                say("wrong", "token")
                raise Refusal(401, "Unauthorized", "Unauthorized")
            if flag("closed"):
                raise Refusal(403, "Forbidden", 'virtualmachines is forbidden: User "gateway" cannot list resource')
            self.route(path.rstrip("/"))
        except Refusal as refusal:
            self.refuse(*refusal.args)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def route(self, path):
        if path in ("/version", "/api", "/apis", "/openapi/v2", "/openapi/v3") or re.fullmatch(r"/apis/[^/]+(/[^/]+)?", path):
            return self.discover(path)
        if path.startswith("/openapi/v3/apis/"):
            return self.answer(200, {"openapi": "3.0.0", "info": {"title": "Kubernetes"}, "paths": {}})
        parts = path.split("/")[1:]
        if self.command in ("POST", "DELETE") and parts[:3] == ["api", "v1", "namespaces"] and len(parts) > 4:
            return self.core(parts[3], parts[4:])
        if self.command == "POST" and parts[-1] in ("selfsubjectreviews", "selfsubjectrulesreviews"):
            return self.review(parts)
        if parts[0] != "apis" or len(parts) < 4:
            say("wrong", "core", path)
            raise Refusal(403, "Forbidden", f'User "gateway" cannot {self.command} path "{path}"')
        group, version, rest = parts[1], parts[2], parts[3:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        if group == SUBRESOURCES[0]:
            if version not in ("v1", "v1alpha3") or len(rest) < 3:
                raise Refusal(404, "NotFound", "the server could not find the requested resource")
            return self.subresource(namespace, rest[0], rest[1], "/".join(rest[2:]))
        entry = resource(group, version, rest[0])
        if len(rest) > 2 or entry[5] and len(rest) > 1 and not namespace:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        if not group.endswith("kubevirt.io") or group == "cdi.kubevirt.io":
            say("wrong", "group", group)
            raise Refusal(403, "Forbidden", f'{rest[0]}.{group} is forbidden: User "gateway" cannot do that')
        if len(rest) == 1:
            return self.collection(entry, namespace)
        return self.single(entry, namespace, rest[1])

    # The service account's own.

    def said(self):
        if self.headers.get("Content-Type") != "application/json":
            raise Refusal(415, "UnsupportedMediaType", "the body is no JSON")
        return json.loads(self.body)

    def core(self, namespace, rest):
        if rest[0] == "secrets" and self.command == "DELETE" and len(rest) == 2:
            if (namespace, rest[1]) in GONE:
                raise Refusal(404, "NotFound", f'secrets "{rest[1]}" not found')
            GONE.add((namespace, rest[1]))
            SECRETS.pop((namespace, rest[1]), None)
            say("deleted", namespace, rest[1])
            return self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        if rest == ["secrets"] and self.command == "POST":
            said = self.said()
            name = said["metadata"]["name"]
            if said.get("data") or said.get("stringData") or said["type"] != "Opaque":
                raise Refusal(403, "Forbidden", "secrets is forbidden: only empty ones here")
            if (namespace, name) in SECRETS:
                raise Refusal(409, "AlreadyExists", f'secrets "{name}" already exists')
            said["metadata"]["uid"] = SECRETS[namespace, name] = str(uuid.uuid4())
            return self.answer(201, said)
        if len(rest) == 3 and rest[0] == "serviceaccounts" and rest[2] == "token" and self.command == "POST":
            if flag("strict"):
                raise Refusal(403, "Forbidden", f'serviceaccounts "{rest[1]}" is forbidden: cannot create resource "token"')
            spec = self.said()["spec"]
            of = spec["boundObjectRef"]
            if of["kind"] != "Secret" or SECRETS.get((namespace, of["name"])) != of["uid"]:
                raise Refusal(409, "Conflict", "the UID in the bound object reference does not match")
            claims = {"sub": f"system:serviceaccount:{namespace}:{rest[1]}", "exp": int(time.time()) + 3600 * 24 * 7,
                "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": rest[1]},
                    "secret": {"name": of["name"], "uid": of["uid"]}}}
            payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
            token = f"e30.{payload}.canary-made-{len(TOKENS)}"
            TOKENS.add(token)
            return self.answer(201, {"kind": "TokenRequest", "status": {"token": token,
                "expirationTimestamp": "2026-12-31T00:00:00Z"}})
        raise Refusal(403, "Forbidden", f'User "gateway" cannot {self.command} {"/".join(rest)}')

    def review(self, parts):
        said = self.said()
        if parts == ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"]:
            said["status"] = {"userInfo": {"username": "system:serviceaccount:infra:gateway"}}
        elif parts == ["apis", "authorization.k8s.io", "v1", "selfsubjectrulesreviews"]:
            rules = [
                {"verbs": ["get", "list", "watch"], "apiGroups": [KV], "resources": ["virtualmachines"]},
                {"verbs": ["update"], "apiGroups": [SUBRESOURCES[0]], "resources": ["virtualmachines/start"]},
                {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews"]},
            ]
            if said["spec"]["namespace"] == "red":
                rules.append({"verbs": ["create"], "apiGroups": [""], "resources": ["pods/exec"]})
            said["status"] = {"resourceRules": rules, "nonResourceRules": [], "incomplete": False}
        else:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return self.answer(201, said)

    # What there is.

    def wants(self, text):
        return any(text in part and part.strip().startswith("application/json")
            for part in (self.headers.get("Accept") or "").split(","))

    def discover(self, path):
        groups = {}
        for group, version, *_ in RESOURCES + [SUBRESOURCES]:
            groups.setdefault(group, {"name": group, "versions": [{"groupVersion": f"{group}/{version}",
                "version": version}], "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version}})
        entries = [{"name": plural, "singularName": kind.lower(), "namespaced": spaced, "kind": kind, "shortNames": short,
            "group": group, "version": version, "verbs": ["delete", "deletecollection", "get", "list", "patch", "create",
            "update", "watch"]} for group, version, plural, kind, short, spaced in RESOURCES]
        if path == "/version":
            return self.answer(200, {"major": "1", "minor": "32", "gitVersion": "v1.32.4", "platform": "linux/amd64"})
        if path in ("/api", "/apis") and self.wants("as=APIGroupDiscoveryList"):
            items = []
            for name, group in groups.items() if path == "/apis" else [("", None)]:
                of = [{"resource": e["name"], "responseKind": {"group": name, "version": e["version"], "kind": e["kind"]},
                    "scope": "Namespaced" if e["namespaced"] else "Cluster", "singularResource": e["singularName"],
                    "verbs": e["verbs"], "shortNames": e["shortNames"]} for e in entries if e["group"] == name]
                version = group["preferredVersion"]["version"] if group else "v1"
                if path == "/api":
                    of = [{"resource": "secrets", "responseKind": {"group": "", "version": "v1", "kind": "Secret"},
                        "scope": "Namespaced", "singularResource": "secret", "verbs": ["list"]}]
                items.append({"metadata": {"name": name}, "versions": [{"version": version, "resources": of}]})
            return self.answer(200, {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
                "metadata": {}, "items": items}, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
        if path == "/api":
            return self.answer(200, {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [
                {"clientCIDR": "0.0.0.0/0", "serverAddress": "192.0.2.1:6443"}]})
        if path == "/apis":
            return self.answer(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": list(groups.values())})
        if path == "/openapi/v2":
            of = lambda kind: {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/" + kind}}}}}
            return self.answer(200, {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.32"}, "paths": {
                "/apis/kubevirt.io/v1/virtualmachines": of("VirtualMachineList"), "/api/v1/secrets": of("Secret")},
                "definitions": {"VirtualMachineList": {"properties": {"items": {"$ref": "#/definitions/VirtualMachine"}}},
                    "VirtualMachine": {"type": "object"}, "Secret": {"type": "object"}}})
        if path == "/openapi/v3":
            return self.answer(200, {"paths": {f"apis/{g}/{v}": {"serverRelativeURL": f"/openapi/v3/apis/{g}/{v}?hash=1"}
                for g, v in [(KV, "v1"), ("apps", "v1"), SUBRESOURCES]} | {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"}}})
        name, _, version = path.removeprefix("/apis/").partition("/")
        if name not in groups:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        if not version:
            return self.answer(200, {"kind": "APIGroup", "apiVersion": "v1", **groups[name]})
        of = [{k: v for k, v in e.items() if k not in ("group", "version")} for e in entries
            if (e["group"], e["version"]) == (name, version)]
        return self.answer(200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{name}/{version}",
            "resources": of})

    # Objects.

    def collection(self, entry, namespace):
        group, version, plural, kind, _, spaced = entry
        if self.command == "POST":
            if spaced and not namespace:
                raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            item = self.read(entry, namespace)
            meta = item["metadata"]
            if "generateName" in meta and "name" not in meta:
                meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
            if (group, plural, namespace, meta.get("name")) in STORE:
                raise Refusal(409, "AlreadyExists", f'{plural}.{group} "{meta["name"]}" already exists')
            if plural == "virtualmachines":
                item["status"] = {"printableStatus": "Stopped"}
            return self.answer(201, item if "dryRun" in self.query else put(group, plural, item))
        if self.command == "DELETE":
            with CHANGE:
                gone = [drop(*key) for key, item in list(STORE.items()) if key[:2] == (group, plural)
                    and key[2] == namespace and fits(item, self.query)]
            return self.answer(200, {"kind": kind + "List", "apiVersion": f"{group}/{version}", "metadata": {}, "items": gone})
        if self.command != "GET":
            raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        watch = self.query.get("watch")
        if watch is not None and watch.lower() not in ("false", "0"):
            return self.watch(entry, namespace)
        return self.list(entry, namespace)

    def list(self, entry, namespace):
        global FORGOTTEN
        group, version, plural, kind, *_ = entry
        if flag("nothing"):
            return self.answer(200, {"kind": kind + "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"},
                "items": {"a": "table"}})
        with CHANGE:
            at, start = VERSION, ""
            if self.query.get("continue"):
                try:
                    place = json.loads(base64.b64decode(self.query["continue"]))
                    at, start = place["rv"], place["start"]
                except (ValueError, KeyError):
                    raise Refusal(400, "BadRequest", "continue key is not valid") from None
                if at < FORGOTTEN:
                    raise Refusal(410, "Expired", "The provided continue parameter is too old")
            items = [copy.deepcopy(i) for k, i in sorted(STORE.items(), key=lambda e: e[0]) if k[:2] == (group, plural)
                and (not namespace or k[2] == namespace) and f"{k[2]}/{k[3]}" > start and fits(i, self.query)]
        meta = {"resourceVersion": str(at)}
        limit = int(self.query.get("limit") or 0)
        if flag("slow"):
            limit = 1
            time.sleep(2 if start else 0)
        if flag("loop"):
            meta["continue"] = base64.b64encode(json.dumps({"v": "meta.k8s.io/v1", "rv": at, "start": "",
                "n": uuid.uuid4().hex}).encode()).decode()
        elif limit and len(items) > limit:
            meta["remainingItemCount"] = len(items) - limit
            items = items[:limit]
            last = items[-1]["metadata"]
            meta["continue"] = base64.b64encode(json.dumps({"v": "meta.k8s.io/v1", "rv": at,
                "start": f"{last.get('namespace', '')}/{last['name']}"}).encode()).decode()
        if flag("odd"):
            items += ["text", None, {"metadata": {"name": 7, "namespace": "blue"}}, {"metadata": "secret-project"},
                {"metadata": {"name": "../x", "namespace": "blue", "uid": "1"}}, {"spec": "secret-project"}]
        if self.wants("as=Table"):
            return self.answer(200, table(items, self.query, meta))
        return self.answer(200, {"kind": kind + "List", "apiVersion": f"{group}/{version}", "metadata": meta, "items": items})

    def watch(self, entry, namespace):
        group, version, plural, kind, *_ = entry
        since = self.query.get("resourceVersion", "")
        as_table, first = self.wants("as=Table"), True
        marks = self.query.get("allowWatchBookmarks") == "true"
        end = time.monotonic() + int(self.query.get("timeoutSeconds") or 1800)
        with CHANGE:
            at = int(since) if since not in ("", "0") else VERSION
            if at < FORGOTTEN:
                raise Refusal(410, "Expired", f"too old resource version: {since} ({VERSION})")
            events = [] if since not in ("", "0") else [("ADDED", copy.deepcopy(i)) for k, i in sorted(STORE.items(),
                key=lambda e: e[0]) if k[:2] == (group, plural)]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(event):
            data = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        marked = time.monotonic()
        while True:
            for change, item in events:
                if namespace and item["metadata"].get("namespace") != namespace or not fits(item, self.query):
                    continue
                shown = table([item], self.query, {"resourceVersion": item["metadata"]["resourceVersion"]}, first)
                send({"type": change, "object": shown if as_table else item})
                first = False
            if flag("burst") and self.query.get("timeoutSeconds") == "77":
                os.remove(os.path.join(DIR, "burst"))
                web = get(group, plural, "blue", "web-1")
                ghost = copy.deepcopy(web)
                ghost["metadata"].update(name="ghost", uid=str(uuid.uuid4()), labels={"tag.portcullis/red": ""})
                lines = [{"type": "ADDED", "object": ghost}] + [{"type": "MODIFIED", "object": web}] * 50
                data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                say("burst")
            with CHANGE:
                forgotten = at < FORGOTTEN
                fresh = [e for e in EVENTS if e[0] > at]
                if not fresh and not forgotten:
                    CHANGE.wait(0.25)
                    fresh = [e for e in EVENTS if e[0] > at]
            if flag("expire"):
                forget()
            if forgotten:
                send({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "message": "too old resource version", "reason": "Expired", "code": 410}})
                break
            events = [(kind_, item) for _, key, kind_, item, _ in fresh if key[:2] == (group, plural)]
            at = max([at] + [e[0] for e in fresh])
            if marks and time.monotonic() - marked > 0.5:
                marked = time.monotonic()
                mark = {"kind": kind, "apiVersion": f"{group}/{version}", "metadata": {"resourceVersion": str(at)}}
                send({"type": "BOOKMARK", "object": table([], self.query, mark["metadata"]) if as_table else mark})
            if time.monotonic() > end:
                break
        self.wfile.write(b"0\r\n\r\n")

    def single(self, entry, namespace, name):
        group, version, plural, kind, *_ = entry
        item = STORE.get((group, plural, namespace, name))
        if self.command == "GET":
            item = get(group, plural, namespace, name)
            return self.answer(200, table([item], self.query, {}) if self.wants("as=Table") else item)
        if self.command == "DELETE":
            get(group, plural, namespace, name)
            if "dryRun" not in self.query:
                drop(group, plural, namespace, name)
            return self.answer(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {"name": name, "group": group, "kind": plural, "uid": item["metadata"]["uid"]}})
        if self.command == "PUT":
            item = get(group, plural, namespace, name)
            new = self.read(entry, namespace)
            if not new["metadata"].get("resourceVersion"):
                raise Refusal(422, "Invalid", "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update")
            self.check(item, new)
            return self.answer(200, new if "dryRun" in self.query else put(group, plural, new))
        if self.command == "PATCH":
            return self.patch(entry, namespace, name, item)
        raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def check(self, item, new):
        said = new["metadata"].get("resourceVersion")
        if said and said != item["metadata"]["resourceVersion"]:
            raise Refusal(409, "Conflict", "the object has been modified; please apply your changes to the latest version")
        for key in ("uid", "creationTimestamp", "name", "namespace"):
            if key in item["metadata"]:
                new["metadata"].setdefault(key, item["metadata"][key])
        if new["metadata"]["uid"] != item["metadata"]["uid"] or new["metadata"]["name"] != item["metadata"]["name"]:
            raise Refusal(409, "Conflict", "Precondition failed: UID in precondition")
        if "status" in item:
            new["status"] = item["status"]

    def patch(self, entry, namespace, name, item):
        group, _, plural, *_ = entry
        media = (self.headers.get("Content-Type") or "").partition(";")[0].strip()
        if media not in PATCHES:
            raise Refusal(415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media "
                "types include: " + ", ".join(PATCHES))
        try:
            said = json.loads(self.body)
        except ValueError:
            raise Refusal(400, "BadRequest", "error decoding patch") from None
        if media == PATCHES[2]:
            if not self.query.get("fieldManager"):
                raise Refusal(400, "BadRequest", "fieldManager is required for apply patch")
            item = item or {"metadata": {"name": name, "namespace": namespace}}
        elif item is None:
            get(group, plural, namespace, name)
        new = copy.deepcopy(item)
        if media == PATCHES[0]:
            for change in said:
                step(new, change)
        else:
            new = merge(new, said)
        if item.get("metadata", {}).get("uid"):
            self.check(item, new)
        return self.answer(200, new if "dryRun" in self.query else put(group, plural, new))

    def read(self, entry, namespace):
        group, version, _, kind, *_ = entry
        media = (self.headers.get("Content-Type") or "application/json").partition(";")[0].strip()
        if media != "application/json":
            say("wrong", "media type", media)
            raise Refusal(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        try:
            item = json.loads(self.body)
        except ValueError:
            raise Refusal(400, "BadRequest", "the object provided is unrecognized") from None
        if item.get("kind") != kind or item.get("apiVersion") != f"{group}/{version}" or "metadata" not in item:
            raise Refusal(400, "BadRequest", "the API version in the data does not match the expected API version")
        if namespace and item["metadata"].setdefault("namespace", namespace) != namespace:
            raise Refusal(400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request")
        return item

    # What is done to a machine.

    def subresource(self, namespace, plural, name, verb):
        vmi = STORE.get((KV, "virtualmachineinstances", namespace, name))
        body = json.loads(self.body) if self.body else {}
        conflict = lambda why: Refusal(409, "Conflict", f'Operation cannot be fulfilled on {plural}.{KV} "{name}": {why}')
        if plural == "virtualmachines":
            get(KV, plural, namespace, name)
            if self.command != "PUT":
                raise Refusal(405, "MethodNotAllowed", "405: Method Not Allowed")
            if verb == "start":
                if vmi:
                    raise conflict("VM is already running")
                begin(namespace, name)
            elif verb == "stop":
                if not vmi:
                    raise conflict("VM is not running")
                finish(namespace, name)
            elif verb == "restart":
                if not vmi:
                    raise conflict("VM is not running")
                finish(namespace, name)
                begin(namespace, name)
            elif verb != "migrate" or set(body) - {"dryRun", "addedNodeSelector"}:
                raise Refusal(404, "NotFound", "404: Page Not Found")
            return self.answer(202, None)
        if vmi is None:
            raise Refusal(404, "NotFound", f'virtualmachineinstances.{KV} "{name}" not found')
        if verb in ("vnc", "console"):
            return self.stream(namespace, name, verb)
        if verb in ("pause", "unpause"):
            paused = any(c["type"] == "Paused" for c in vmi["status"]["conditions"])
            if paused == (verb == "pause"):
                raise conflict("VMI is already paused" if paused else "VMI is not paused")
            vmi = copy.deepcopy(vmi)
            vmi["status"]["conditions"] = [{"type": "Paused", "status": "True"}] if verb == "pause" else []
            put(KV, "virtualmachineinstances", vmi)
        elif verb == "guestosinfo":
            return self.answer(200, {"guestAgentVersion": "7.2", "hostname": name, "os": {"id": "debian"}})
        elif verb == "vnc/screenshot":
            return self.answer(200, b"\x89PNG\r\n\x1a\n", "image/png")
        elif verb not in ("reset", "softreboot"):
            raise Refusal(404, "NotFound", "404: Page Not Found")
        return self.answer(200 if verb == "reset" else 202, None)

    def stream(self, namespace, name, verb):
        names = [p.strip() for p in (self.headers.get("Sec-WebSocket-Protocol") or "").split(",") if p.strip()]
        if any(p.startswith("base64url.bearer") for p in names):
            say("wrong", "a second token")
            raise Refusal(401, "Unauthorized", "Unauthorized")
        if self.headers.get("Upgrade", "").lower() != "websocket" or "plain.kubevirt.io" not in names:
            say("wrong", "subprotocol", names)
            raise Refusal(400, "BadRequest", "no plain.kubevirt.io in Sec-WebSocket-Protocol")
        place = (namespace, name, verb)
        if place in SCREENS and self.query.get("preserveSession") == "true":
            raise Refusal(409, "Conflict", "Active VNC connection. Request denied.")
        if place in SCREENS:
            say("taken", *place)
            shut(SCREENS.pop(place))
        SCREENS[place] = self.connection
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.connection.sendall(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: plain.kubevirt.io\r\n\r\n").encode())
        self.close_connection = True
        try:
            if verb == "console":
                self.frame(b"login: ")
                while (part := self.read_frame()) is not None:
                    self.frame(part)
                return
            if VNC.startswith("unix:"):
                screen = socket.socket(socket.AF_UNIX)
                screen.connect(VNC[5:])
            else:
                host, _, port = VNC.rpartition(":")
                screen = socket.create_connection((host, int(port)))

            def down():
                try:
                    while part := screen.recv(65536):
                        self.frame(part)
                except OSError:
                    pass
                shut(self.connection)

            threading.Thread(target=down, daemon=True).start()
            try:
                while (part := self.read_frame()) is not None:
                    screen.sendall(part)
            finally:
                shut(screen)
        except OSError:
            pass
        finally:
            if SCREENS.get(place) is self.connection:
                SCREENS.pop(place)

    def frame(self, data):
        head = struct.pack("!BBH", 0x82, 126, len(data)) if 125 < len(data) < 65536 else (
            struct.pack("!BB", 0x82, len(data)) if len(data) < 126 else struct.pack("!BBQ", 0x82, 127, len(data)))
        self.connection.sendall(head + data)

    def read_frame(self):
        while True:
            head = self.rfile.read(2)
            if len(head) < 2 or not head[1] & 0x80 or head[0] & 0x70:
                return None
            length = head[1] & 0x7f
            if length == 126:
                length = struct.unpack("!H", self.rfile.read(2))[0]
            elif length == 127:
                length = struct.unpack("!Q", self.rfile.read(8))[0]
            mask = self.rfile.read(4)
            data = bytes(b ^ mask[n % 4] for n, b in enumerate(self.rfile.read(length)))
            if head[0] & 15 == 8:
                return None
            if head[0] & 15 == 2:
                return data


def shut(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def forget():
    """Every version until now is forgotten."""
    global FORGOTTEN, VERSION
    with CHANGE:
        try:
            os.remove(os.path.join(DIR, "expire"))
        except FileNotFoundError:
            return
        VERSION += 1
        FORGOTTEN = VERSION
        EVENTS.clear()
        CHANGE.notify_all()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            say("wrong", "inside", repr(error))

    def finish_request(self, request, client_address):
        # The handshake happens here, in the connection's own thread.
        request.do_handshake()
        super().finish_request(request, client_address)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERT, KEY)
server = Server(("127.0.0.1", int(PORT)), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
say("ready")
server.serve_forever()
