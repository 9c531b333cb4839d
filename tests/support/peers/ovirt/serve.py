# SPDX-License-Identifier: Apache-2.0
"""serve.py PORT CERT KEY PASSWORD_FILE VNC TICKET_FILE OPERATIONS DIR: a simulated oVirt engine for the tests.

As strict as the real one where a gateway could go wrong: its single sign-on takes one user's form and nothing else; a token
that it did not give, or that is over, is refused with 401; a body that is neither XML nor JSON with 415, one that cannot be
read with 400; an address that the API's description does not have, or an id of nothing, with 404; a machine in the wrong
state with 409. Faults come in the form that was asked for. Answers are packed where the client takes that. XML is read by
Python's own library and not by the gateway's. Machines, clusters and hosts have the secrets and addresses in them that a
real engine tells its administrator.

Known differences: one host; entities hold the fields that tests look at; `search` knows `name=`, `sortby name asc` and
`page`; `follow` inlines tags only; actions end at once; a ticket is the password that the screen has anyway, and does not
run out; everything that it has no code for is noted down and answered with nothing; no roles: the one user is an
administrator.

Files that appear in DIR change it: `expire` ends every token, `types` writes other types into lists, `endless` makes each
page full of new machines, `elsewhere` names another host for screens, `mute` tells no events.

Prints a line for each request: `asked METHOD PATH` (with the body of a change), `tied ID` or `wrong WHAT`.
"""
import gzip
import json
import os
import ssl
import sys
import threading
import time
import urllib.parse
import uuid
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape, quoteattr

PORT, CERT, KEY, PASSWORD_FILE, VNC, TICKET_FILE, OPERATIONS, DIR = sys.argv[1:]
USER = "gateway@internal"
BASE = "/ovirt-engine/api"
with open(PASSWORD_FILE, encoding="utf-8") as file:
    PASSWORD = file.read().strip()
with open(TICKET_FILE, encoding="utf-8") as file:
    TICKET = file.read().strip()
LOCK = threading.RLock()
TOKENS = {}
LIFE = 600.0
EVENTS = []
PATTERNS = []

with open(OPERATIONS, encoding="utf-8") as file:
    for line in file:
        if not line.startswith("#"):
            method, pattern = line.split()
            PATTERNS.append((method, pattern.rstrip("/").split("/")))


def say(*words):
    print(*(str(w).replace("\n", " ") for w in words), flush=True)


def has(name):
    return os.path.exists(os.path.join(DIR, name))


class Failure(Exception):
    """A request that was refused: a status, a reason and a detail."""


def fail(status, detail, reason="Operation Failed"):
    raise Failure(status, reason, detail)


def link(kind, own):
    return {"id": own, "href": f"{BASE}/{kind}/{own}"}


CLUSTERS = {str(uuid.uuid5(uuid.NAMESPACE_DNS, n)): n for n in ("blue", "red")}
CLUSTER = {name: own for own, name in CLUSTERS.items()}
HOST = str(uuid.uuid5(uuid.NAMESPACE_DNS, "kvm1"))
TAGS = {str(uuid.uuid5(uuid.NAMESPACE_DNS, "tag " + n)): n for n in ("web", "production", "pay")}
MACHINES = {}
OWN = str(uuid.uuid5(uuid.NAMESPACE_DNS, USER))
# What the roles of the gateway's account permit.
ROLES = {str(uuid.uuid5(uuid.NAMESPACE_DNS, "role " + name)): permits for name, permits in {
    "UserVmManager": ["login", "run_vm", "stop_vm", "connect_to_vm", "edit_vm_properties", "manipulate_vm_snapshots"],
    "Grants": ["login", "manipulate_permissions", "configure_engine"],
}.items()}


def happened(what, machine):
    with LOCK:
        EVENTS.append({"id": str(len(EVENTS) + 1), "code": "32", "severity": "normal", "description": what,
            "vm": {**link("vms", machine), "name": MACHINES[machine]["name"]}})


def machine(name, cluster, status, tags=()):
    own = str(uuid.uuid5(uuid.NAMESPACE_DNS, "vm " + name))
    MACHINES[own] = {
        "name": name, "status": status, "cluster": cluster, "tags": [t for t, n in TAGS.items() if n in tags],
        "memory": 536870912, "description": 'a < b & "c"', "snapshots": {}, "nics": {},
    }
    happened(f"VM {name} was created", own)
    return own


WEB = machine("web-1", "blue", "up", ["web", "production"])
machine("dns-1", "blue", "down", ["web"])
PAYROLL = machine("payroll", "red", "up", ["pay"])


def place():
    host, _, port = VNC.rpartition(":")
    return ("evil.example" if has("elsewhere") else host), int(port)


def shown_machine(own, follow=()):
    vm = MACHINES[own]
    host, port = place()
    row = {
        **link("vms", own), "name": vm["name"], "status": vm["status"], "description": vm["description"],
        "memory": vm["memory"], "type": "server", "cluster": link("clusters", CLUSTER[vm["cluster"]]),
        "template": link("templates", "00000000-0000-0000-0000-000000000000"),
        "display": {"type": "vnc", "address": host, "port": port, "certificate": {"content": "canary-certificate"}},
        "initialization": {"host_name": vm["name"], "root_password": "canary-root", "authorized_ssh_keys": "canary-key",
            "custom_script": "canary-script", "configuration": {"type": "ovf", "data": "canary-ovf"}},
        "actions": {"link": [{"href": f"{BASE}/vms/{own}/{verb}", "rel": verb} for verb in ("start", "stop")]},
        "link": [{"href": f"{BASE}/vms/{own}/{sub}", "rel": sub} for sub in ("nics", "graphicsconsoles")],
    }
    if vm["status"] not in ("down", "suspended"):
        row["host"] = link("hosts", HOST)
    if "tags" in follow:
        row["tags"] = {"tag": [{**link("tags", t), "name": TAGS[t]} for t in vm["tags"]]}
    if has("types"):
        row["name"], row["status"], row["tags"] = {"deep": [1]}, 7, "web"
    return row


def page(query):
    words = query.get("search", "").split()
    all_of_it = sorted(MACHINES, key=lambda own: MACHINES[own]["name"])
    for word in words:
        if word.startswith("name="):
            all_of_it = [own for own in all_of_it if MACHINES[own]["name"] == word[5:].strip('"')]
    most = int(query.get("max", 1000))
    number = int(words[words.index("page") + 1]) if "page" in words else 1
    follow = query.get("follow", "").split(",")
    if has("endless") and "page" in words:
        return [{"id": str(uuid.uuid4()), "name": f"endless-{number}-{n}", "status": "down"} for n in range(most)]
    chosen = all_of_it[most * (number - 1):most * number]
    return [shown_machine(own, follow) for own in chosen]


def power(own, wanted, state, what):
    vm = MACHINES[own]
    if vm["status"] not in wanted:
        fail(409, f"[Cannot {what} VM. VM is {vm['status']}.]")
    vm["status"] = state
    happened(f"VM {vm['name']} did {what}", own)
    return {"status": "complete"}


ACTIONS = {
    "start": (["down", "suspended", "paused"], "up"), "stop": (["up", "suspended", "paused"], "down"), "shutdown": (["up"], "down"),
    "reboot": (["up"], "up"), "reset": (["up"], "up"), "suspend": (["up"], "suspended"), "migrate": (["up"], "up"),
}


def changed(own, body):
    vm = MACHINES[own]
    for name in ("name", "description"):
        if name in body:
            vm[name] = str(body[name])
    if "memory" in body:
        vm["memory"] = int(body["memory"])
    if "cluster" in body:
        vm["cluster"] = CLUSTERS.get(body["cluster"].get("id"), vm["cluster"])
    happened(f"VM {vm['name']} was changed", own)
    return shown_machine(own)


def answer(method, parts, query, body):
    """What one request comes to: a status, the name of what it is, and what it says."""
    head, rest = (parts + [None])[0], parts[1:]
    if head is None:
        return 200, "api", {"product_info": {"name": "oVirt Engine", "version": {"major": 4, "minor": 5}},
            "summary": {"vms": {"total": len(MACHINES)}}, "link": [{"href": f"{BASE}/vms", "rel": "vms"}],
            "authenticated_user": link("users", OWN)}
    if parts == ["users", OWN, "permissions"]:
        return 200, "permissions", {"permission": [{"id": f"p{n}", "role": link("roles", role), "user": link("users", OWN)}
            for n, role in enumerate([*ROLES, *ROLES])]}
    if head == "roles" and rest[1:] == ["permits"] and rest[0] in ROLES:
        return 200, "permits", {"permit": [{"id": str(n), "name": name, "administrative": "false",
            "role": link("roles", rest[0])} for n, name in enumerate(ROLES[rest[0]])]}
    if head == "vms" and not rest:
        if method == "POST":
            if "name" not in body or "cluster" not in body:
                fail(400, "Vm [name, cluster] required for add", "Incomplete parameters")
            named = body["cluster"].get("name") or CLUSTERS.get(body["cluster"].get("id"))
            if named not in CLUSTER:
                fail(404, "Entity not found: Cluster")
            return 201, "vm", shown_machine(machine(body["name"], named, "down"))
        return 200, "vms", {"vm": page(query)}
    if head == "vms":
        own, rest = rest[0], rest[1:]
        if own not in MACHINES:
            fail(404, f"Entity not found: {own}")
        if not rest:
            if method == "PUT":
                return 200, "vm", changed(own, body)
            if method == "DELETE":
                if MACHINES[own]["status"] != "down":
                    fail(409, "[Cannot remove VM. VM is running.]")
                happened(f"VM {MACHINES[own]['name']} was removed", own)
                del MACHINES[own]
                return 200, "action", {"status": "complete"}
            return 200, "vm", shown_machine(own, query.get("follow", "").split(","))
        if len(rest) == 1 and rest[0] in ACTIONS:
            return 200, "action", power(own, *ACTIONS[rest[0]], rest[0])
        if rest[0] == "tags":
            tags = MACHINES[own]["tags"]
            if method == "POST":
                found = [t for t, n in TAGS.items() if n == body.get("name") or t == body.get("id")]
                if not found:
                    fail(404, "Entity not found: Tag")
                tags.append(found[0])
                happened("a tag was assigned", own)
                return 201, "tag", {**link("tags", found[0]), "name": TAGS[found[0]]}
            return 200, "tags", {"tag": [{**link("tags", t), "name": TAGS[t]} for t in tags]}
        if rest[0] == "snapshots":
            shots = MACHINES[own]["snapshots"]
            if method == "POST":
                shot = str(uuid.uuid4())
                shots[shot] = body.get("description", "")
                happened("a snapshot was taken", own)
                return 201, "snapshot", {"id": shot, "description": shots[shot]}
            return 200, "snapshots", {"snapshot": [{"id": s, "description": d} for s, d in shots.items()]}
        if rest[0] == "graphicsconsoles":
            console = "766e63"
            host, port = place()
            row = {"id": console, "href": f"{BASE}/vms/{own}/graphicsconsoles/{console}", "protocol": "vnc"}
            if query.get("current") == "true" and MACHINES[own]["status"] == "up":
                row |= {"address": host, "port": port}
            if rest[1:] == []:
                return 200, "graphics_consoles", {"graphics_console": [row]}
            if rest[1] != console:
                fail(404, "Entity not found: GraphicsConsole")
            if rest[2:] == ["ticket"]:
                if MACHINES[own]["status"] != "up":
                    fail(409, "[Cannot set VM ticket. VM is not running.]")
                say("ticket", own)
                expiry = (body.get("ticket") or {}).get("expiry", 7200)
                return 200, "action", {"status": "complete", "ticket": {"value": TICKET, "expiry": str(expiry)}}
            return 200, "graphics_console", row
    if head == "clusters" and not rest:
        return 200, "clusters", {"cluster": [{**link("clusters", c), "name": n, "cpu": {"type": "canary-cpu"}}
            for c, n in CLUSTERS.items()]}
    if head == "hosts" and not rest:
        return 200, "hosts", {"host": [{**link("hosts", HOST), "name": "kvm1", "status": "up", "address": "canary-address",
            "power_management": {"password": "canary-fence"}}]}
    if head == "tags" and not rest:
        return 200, "tags", {"tag": [{**link("tags", t), "name": n} for t, n in TAGS.items()]}
    if head == "events" and not rest:
        if has("mute"):
            fail(403, "not you", "Forbidden")
        since = int(query.get("from", 0))
        found = [e for e in EVENTS if int(e["id"]) > since]
        return 200, "events", {"event": found[::-1][:int(query.get("max", 1000))]}
    say("wrong", "no code for", method, "/".join(parts))
    return 200, "action", {}


def is_known(method, parts):
    def fits(pattern):
        pattern = [p for p in pattern if p]
        return len(pattern) == len(parts) and all(p == q or p.startswith("{") for p, q in zip(pattern, parts))

    return any(m == method and fits(pattern) for m, pattern in PATTERNS)


def to_xml(name, value):
    if isinstance(value, list):
        return "".join(to_xml(name, one) for one in value)
    if not isinstance(value, dict):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return f"<{name}>{escape(text)}</{name}>"
    attributes = "".join(f" {k}={quoteattr(str(value[k]))}" for k in ("id", "href", "rel") if k in value)
    inner = "".join(to_xml(k, v) for k, v in value.items() if k not in ("id", "href", "rel"))
    return f"<{name}{attributes}>\n{inner}</{name}>" if inner else f"<{name}{attributes}/>"


def of_xml(element):
    if len(element) == 0 and not element.attrib:
        return element.text or ""
    own = dict(element.attrib)
    for child in element:
        own[child.tag] = of_xml(child)
    return own


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "engine"

    def log_message(self, *_):
        pass

    def send(self, status, body, media, headers=()):
        body = body.encode()
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)
            headers = [*headers, ("Content-Encoding", "gzip")]
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def tell(self, status, name, value, headers=()):
        if "json" in self.headers.get("Accept", ""):
            return self.send(status, json.dumps(value), "application/json", headers)
        head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
        self.send(status, head + to_xml(name, value), "application/xml;charset=UTF-8", headers)

    def sign_in(self, path, body):
        def no(status, code, why):
            self.send(status, json.dumps({"error_code": code, "error": why}), "application/json")

        if self.headers.get("Content-Type", "").partition(";")[0] != "application/x-www-form-urlencoded":
            return no(400, "invalid_request", "a form is wanted")
        form = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
        if path.endswith("sso-logout"):
            TOKENS.pop(form.get("token"), None)
            return self.send(200, "{}", "application/json")
        if form.get("grant_type") != "password" or form.get("scope") != "ovirt-app-api":
            return no(400, "invalid_grant", "the grant or its scope is not known")
        if (form.get("username"), form.get("password")) != (USER, PASSWORD):
            return no(401, "access_denied", f"Cannot authenticate user '{form.get('username')}': The user name or password is incorrect.")
        token = "canary-token-" + uuid.uuid4().hex + uuid.uuid4().hex
        TOKENS[token] = time.monotonic() + LIFE
        say("signed in")
        self.send(200, json.dumps({"access_token": token, "scope": "ovirt-app-api", "exp": "9223372036854775807",
            "token_type": "bearer"}), "application/json")

    def body(self):
        length = self.headers.get("Content-Length")
        if self.headers.get("Transfer-Encoding"):
            say("wrong", "chunks")
        return self.rfile.read(int(length)) if length else b""

    def read(self, body):
        if not body:
            return {}
        media = self.headers.get("Content-Type", "").partition(";")[0]
        try:
            if media == "application/xml":
                if b"<!DOCTYPE" in body:
                    say("wrong", "a document type came")
                read = of_xml(ET.fromstring(body))
                return read if isinstance(read, dict) else {}
            if media == "application/json":
                read = json.loads(body)
                if not isinstance(read, dict):
                    raise ValueError
                return read
        except (ValueError, ET.ParseError):
            fail(400, "the body cannot be read", "Bad Request")
        return fail(415, media, "Unsupported Media Type")

    def handle_request(self):
        path, _, query = self.path.partition("?")
        body = self.body()
        if self.command == "POST" and path in ("/ovirt-engine/sso/oauth/token", "/ovirt-engine/services/sso-logout"):
            return self.sign_in(path, body)
        if not path.startswith(BASE):
            say("wrong", "beside the API", path)
            return self.send(404, "<html/>", "text/html")
        if has("expire"):
            os.remove(os.path.join(DIR, "expire"))
            TOKENS.clear()
        for never in ("Cookie", "Filter", "All-Content", "Prefer"):
            if never in self.headers:
                say("wrong", "header", never)
        shown = self.headers.get_all("Authorization") or []
        token = shown[0].removeprefix("Bearer ") if len(shown) == 1 else ""
        if TOKENS.get(token, 0) < time.monotonic():
            return self.send(401, "<html>canary-401</html>", "text/html", [("WWW-Authenticate", 'Basic realm="RESTAPI"')])
        if ";" in path:
            say("wrong", "matrix parameters", path)
        parts = [urllib.parse.unquote(p) for p in path[len(BASE):].split("/") if p]
        if self.command != "GET" or "Correlation-Id" in self.headers:
            say("asked", self.command, self.path[len(BASE):], body.decode(errors="replace"))
        if "Correlation-Id" in self.headers:
            say("tied", *self.headers.get_all("Correlation-Id"))
        try:
            if not is_known(self.command, parts):
                fail(404, f"{self.command} {path}", "Not Found")
            query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
            with LOCK:
                status, name, value = answer(self.command, parts, query, self.read(body))
            self.tell(status, name, value)
        except Failure as failure:
            status, reason, detail = failure.args
            self.tell(status, "fault", {"reason": reason, "detail": detail})

    do_GET = do_POST = do_PUT = do_DELETE = handle_request


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERT, KEY)
server = Server(("127.0.0.1", int(PORT)), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
say("ready")
server.serve_forever()
