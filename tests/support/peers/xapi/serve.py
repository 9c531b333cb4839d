# SPDX-License-Identifier: Apache-2.0
"""serve.py PORT CERT KEY PASSWORD_FILE VNC OPERATIONS DIR: a simulated XCP-ng pool for the tests.

As strict as the real one where a gateway could go wrong: a session that it did not give, or that is over, is refused; so
are methods that the API's description does not have, parameters too few or too many, references to nothing, and a machine
in the wrong state. Calls come as XML-RPC or JSON-RPC 2.0, read by Python's own library and not by the gateway's.
`event.from` waits and continues from a token. `CONNECT /console` is bridged to a real QEMU's screen.

Known differences: one host, which calls itself 192.0.2.1; records hold the fields that tests look at; tasks end at once;
methods that it has no code for answer with nothing and are noted down; no roles; an export is a text. Files that appear in
DIR change it: `expire` ends every session, `lost` loses all events, `full` lets nobody look at screens any more,
`slave` says that the host whose address it holds is the master, `keep` lets nobody change a password.

Prints a line for each request: `asked METHOD FIRST`, `waits SECONDS`, `beside METHOD PATH`, or `wrong WHAT`.
"""
import json
import os
import socket
import ssl
import sys
import threading
import time
import urllib.parse
import uuid
import xmlrpc.client
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, CERT, KEY, PASSWORD_FILE, VNC, OPERATIONS, DIR = sys.argv[1:]
USER = "gateway"
with open(PASSWORD_FILE, encoding="utf-8") as file:
    PASSWORD = file.read().strip()
NULL = "OpaqueRef:NULL"
LOCK = threading.Condition()
OBJECTS = {}
SESSIONS = set()
EVENTS = []
METHODS = {}


def say(*words):
    print(*words, flush=True)


with open(OPERATIONS, encoding="utf-8") as file:
    for line in file:
        words = line.split()
        if words and "." in words[0] and not line.startswith(("#", "record ")):
            least = max([n + 1 for n, word in enumerate(words[1:]) if not word.endswith("?")], default=0)
            METHODS[words[0]] = (least, len(words) - 1, [w.partition(":")[2].rstrip("?") for w in words[1:]])


class Failure(Exception):
    """A call that was refused: a code and what belongs to it."""


def put(kind, record, ref=None):
    ref = ref or "OpaqueRef:" + str(uuid.uuid4())
    with LOCK:
        operation = "mod" if ref in OBJECTS else "add"
        OBJECTS[ref] = (kind, record)
        EVENTS.append((operation, kind, ref))
        LOCK.notify_all()
    return ref


def drop(ref):
    with LOCK:
        kind, _ = OBJECTS.pop(ref)
        EVENTS.append(("del", kind, ref))
        LOCK.notify_all()


def change(ref, **fields):
    kind, record = OBJECTS[ref]
    put(kind, {**record, **fields}, ref)


def get(ref, kind):
    found = OBJECTS.get(ref)
    if found is None or found[0] != kind:
        raise Failure("HANDLE_INVALID", kind, ref)
    return found[1]


def machine(name, state="Halted", tags=(), **more):
    host = HOST if state == "Running" else NULL
    own = str(uuid.uuid4())
    record = {
        "uuid": own, "name_label": name, "name_description": "", "power_state": state, "resident_on": host,
        "tags": list(tags), "is_a_template": False, "is_default_template": False, "is_a_snapshot": False,
        "is_control_domain": False, "snapshot_of": NULL, "consoles": [], "VBDs": [], "VIFs": [], "snapshots": [],
        "metrics": put("VM_metrics", {"uuid": str(uuid.uuid4())}), "guest_metrics": NULL, "suspend_VDI": NULL,
        "memory_static_max": "536870912", "other_config": {"note": "a < b & \"c\""}, **more,
    }
    vm = put("VM", record)
    disk = put("VDI", {"uuid": str(uuid.uuid4()), "name_label": name + " disk", "VBDs": [], "SR": SR})
    block = put("VBD", {"uuid": str(uuid.uuid4()), "VM": vm, "VDI": disk, "type": "Disk", "device": "xvda"})
    net = put("VIF", {"uuid": str(uuid.uuid4()), "VM": vm, "network": NETWORK, "device": "0"})
    screens = []
    if state == "Running":
        own = str(uuid.uuid4())
        place = f"https://192.0.2.1/console?uuid={own}"
        text = {"uuid": str(uuid.uuid4()), "VM": vm, "protocol": "vt100", "location": place}
        screens = [put("console", text), put("console", {"uuid": own, "VM": vm, "protocol": "rfb", "location": place})]
    change(disk, VBDs=[block])
    change(vm, VBDs=[block], VIFs=[net], consoles=screens)
    return vm


SR = put("SR", {"uuid": str(uuid.uuid4()), "name_label": "local storage"})
NETWORK = put("network", {"uuid": str(uuid.uuid4()), "name_label": "eth0"})
HOST = put("host", {"uuid": str(uuid.uuid4()), "name_label": "xs1", "hostname": "xs1", "address": "192.0.2.1",
    "API_version_major": "2", "API_version_minor": "21", "enabled": True, "license_params": {"serial": "host-licence"}})
POOL = put("pool", {"uuid": str(uuid.uuid4()), "name_label": "lab", "master": HOST, "other_config": {}})
machine("Control domain on host: xs1", "Running", is_control_domain=True)
machine("Debian Bookworm 12", is_a_template=True, is_default_template=True)
machine("our template", is_a_template=True)
WEB = machine("web-1", "Running", ["web", "production"])
machine("dns-1", "Halted", ["web"])
machine("payroll", "Running", ["red"])
put("VDI", {"uuid": str(uuid.uuid4()), "name_label": "free disk", "VBDs": [], "SR": SR})


def power(ref, wanted, state):
    have = get(ref, "VM")["power_state"]
    if have not in wanted:
        raise Failure("VM_BAD_POWER_STATE", ref, wanted[0].lower(), have.lower())
    change(ref, power_state=state, resident_on=HOST if state == "Running" else NULL)
    return ""


def snapshot(vm, name, *_):
    record = {**get(vm, "VM"), "uuid": str(uuid.uuid4()), "name_label": name, "is_a_snapshot": True,
        "is_a_template": True, "snapshot_of": vm, "power_state": "Halted", "consoles": [], "VBDs": [], "VIFs": [],
        "metrics": put("VM_metrics", {"uuid": str(uuid.uuid4())})}
    made = put("VM", record)
    change(vm, snapshots=get(vm, "VM")["snapshots"] + [made])
    return made


def clone(vm, name, *_):
    get(vm, "VM")
    return machine(name, "Halted", [])


def plug(args):
    get(args["VM"], "VM"), get(args["VDI"], "VDI")
    return put("VBD", {"uuid": str(uuid.uuid4()), **args})


def events(classes, token, timeout):
    classes = {c.lower() for c in classes}
    if os.path.exists(os.path.join(DIR, "lost")) and token:
        os.remove(os.path.join(DIR, "lost"))
        raise Failure("EVENTS_LOST")
    seen = int(token.split(",")[1]) if token else 0
    end = time.monotonic() + float(timeout)

    def fits(event):
        return "*" in classes or event[1].lower() in classes

    with LOCK:
        while not any(fits(e) for e in EVENTS[seen:]):
            left = end - time.monotonic()
            if left <= 0:
                break
            LOCK.wait(left)
        told, last = [], {}
        for number, event in enumerate(EVENTS[seen:]):
            if fits(event):
                last[event[2]] = (seen + number, event)
        for number, (operation, kind, ref) in sorted(last.values()):
            event = {"id": str(number), "timestamp": "0.0", "class": kind.lower(), "operation": operation, "ref": ref}
            if operation != "del" and ref in OBJECTS:
                event["operation"] = "add" if not token else operation
                event["snapshot"] = OBJECTS[ref][1]
            elif operation != "del":
                continue
            told.append(event)
        counts = {}
        for kind, _ in OBJECTS.values():
            counts[kind.lower()] = counts.get(kind.lower(), 0) + 1
        return {"events": told, "valid_ref_counts": counts, "token": f"token,{len(EVENTS)}"}


def inject(kind, ref):
    put(kind, get(ref, kind), ref)
    return f"token,{len(EVENTS)}"


def change_password(old, new):
    global PASSWORD
    if old != PASSWORD:
        raise Failure("SESSION_AUTHENTICATION_FAILED", "Authentication failure")
    if os.path.exists(os.path.join(DIR, "keep")):
        raise Failure("CHANGE_PASSWORD_REJECTED", "policy")
    PASSWORD = new
    return ""


CODE = {
    "session.change_password": change_password,
    "session.get_is_local_superuser": lambda session: True,
    "session.get_rbac_permissions": lambda session: ["vm.start", "vm.destroy"],
    "VM.start": lambda vm, *_: power(vm, ["Halted"], "Running"),
    "VM.clean_shutdown": lambda vm: power(vm, ["Running"], "Halted"),
    "VM.hard_shutdown": lambda vm: power(vm, ["Running", "Paused"], "Halted"),
    "VM.hard_reboot": lambda vm: power(vm, ["Running"], "Running"),
    "VM.pause": lambda vm: power(vm, ["Running"], "Paused"),
    "VM.unpause": lambda vm: power(vm, ["Paused"], "Running"),
    "VM.snapshot": snapshot,
    "VM.clone": clone,
    "VM.destroy": lambda vm: drop(vm) or "",
    "VBD.create": plug,
    "VDI.destroy": lambda vdi: drop(vdi) or "",
    "task.create": lambda label, *_: put("task", {"uuid": str(uuid.uuid4()), "name_label": label, "status": "pending",
        "result": "", "error_info": []}),
    "task.destroy": lambda task: drop(task) or "",
    "event.inject": inject,
    "event.from": events,
}


def call(method, args):
    asynchronous = method.startswith("Async.")
    name = method.removeprefix("Async.")
    if name not in METHODS or asynchronous and name.split(".")[1].startswith(("get_", "set_")):
        raise Failure("MESSAGE_METHOD_UNKNOWN", method)
    least, most, kinds = METHODS[name]
    kind, message = name.split(".")
    slave = os.path.join(DIR, "slave")
    if os.path.exists(slave):
        with open(slave, encoding="utf-8") as file:
            raise Failure("HOST_IS_SLAVE", file.read())
    if name == "session.login_with_password":
        if not least <= len(args) <= most:
            raise Failure("MESSAGE_PARAMETER_COUNT_MISMATCH", name, str(most), str(len(args)))
        if args[:2] != [USER, PASSWORD]:
            raise Failure("SESSION_AUTHENTICATION_FAILED", str(args[0]), "Authentication failure")
        session = "OpaqueRef:ca9a41e5-" + str(uuid.uuid4())[9:]
        SESSIONS.add(session)
        put("session", {"uuid": str(uuid.uuid4())}, session)
        # What a careless plugin would write down.
        change(POOL, other_config={"last": session})
        return session
    session, args = (args[0] if args else ""), args[1:]
    if os.path.exists(os.path.join(DIR, "expire")):
        os.remove(os.path.join(DIR, "expire"))
        SESSIONS.clear()
    if session not in SESSIONS:
        say("wrong", "session", method, session)
        raise Failure("SESSION_INVALID", session)
    if not least <= len(args) <= most:
        say("wrong", "arity", method)
        raise Failure("MESSAGE_PARAMETER_COUNT_MISMATCH", name, str(most), str(len(args)))
    for word, value in zip(kinds, args):
        if word.isidentifier() and value != NULL:
            get(value, word)
    if name == "session.logout":
        SESSIONS.discard(session)
        return ""
    if asynchronous:
        task = put("task", {"uuid": str(uuid.uuid4()), "name_label": method, "status": "pending", "result": "",
            "error_info": []})
        try:
            result = run(kind, message, args)
            change(task, status="success", result=f"<value>{result}</value>" if result else "")
        except Failure as failure:
            change(task, status="failure", error_info=list(failure.args))
        return task
    return run(kind, message, args)


def run(kind, message, args):
    code = CODE.get(f"{kind}.{message}")
    if code:
        return code(*args)
    with LOCK:
        own = {ref: record for ref, (k, record) in OBJECTS.items() if k == kind}
    if message == "get_all":
        return list(own)
    if message in ("get_all_records", "get_all_records_where"):
        return own
    if message == "get_by_name_label":
        return [ref for ref, record in own.items() if record.get("name_label") == args[0]]
    if message == "get_by_uuid":
        found = [ref for ref, record in own.items() if record["uuid"] == args[0]]
        if not found:
            raise Failure("UUID_INVALID", kind, args[0])
        return found[0]
    if message == "get_record":
        return get(args[0], kind)
    if message.startswith("get_"):
        record = get(args[0], kind)
        if message[4:] not in record:
            return ""
        return record[message[4:]]
    if message.startswith("set_"):
        change(args[0], **{message[4:]: args[1]})
        return ""
    say("wrong", "no code for", f"{kind}.{message}")
    return ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "xapi"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        if "Content-Length" not in self.headers:
            say("wrong", "no length")
            return self.answer(411)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Cookie") or self.headers.get("Authorization"):
            say("wrong", "a credential beside the call")
        if self.path in ("/", "/RPC2"):
            args, method = xmlrpc.client.loads(body)
            reply = self.called(method, list(args))
            reply = ({"Status": "Success", "Value": reply[1]} if reply[0] else
                {"Status": "Failure", "ErrorDescription": list(reply[1])})
            text = xmlrpc.client.dumps((reply,), methodresponse=True).encode()
            return self.answer(200, text, "text/xml")
        if self.path == "/jsonrpc":
            asked = json.loads(body)
            if asked.get("jsonrpc") != "2.0" or set(asked) != {"jsonrpc", "method", "params", "id"}:
                say("wrong", "JSON-RPC", asked.keys())
                return self.answer(400)
            reply = self.called(asked["method"], asked["params"])
            told = {"jsonrpc": "2.0", "id": asked["id"]}
            if reply[0]:
                told["result"] = reply[1]
            else:
                told["error"] = {"code": 1, "message": reply[1][0], "data": list(reply[1][1:])}
            return self.answer(200, json.dumps(told).encode(), "application/json")
        return self.answer(404)

    def called(self, method, args):
        shown = json.dumps(args[1:], default=str) if not method.startswith("session.") else ""
        if method == "event.from":
            say("waits", *args[3:])
        else:
            say("asked", method, shown)
        try:
            return True, call(method, args)
        except Failure as failure:
            return False, failure.args
        except TypeError:
            return False, ("FIELD_TYPE_ERROR", method)

    def session(self, query):
        cookies = dict(c.strip().split("=", 1) for c in self.headers.get("Cookie", "").split(";") if "=" in c)
        if cookies.get("session_id") not in SESSIONS or "session_id" in query:
            say("wrong", "session beside a call")
            return False
        return True

    def do_GET(self):
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        say("beside", "GET", self.path)
        if not self.session(query):
            return self.answer(401)
        if path == "/export":
            if "task_id" in query:
                get(query["task_id"], "task")
                change(query["task_id"], status="success")
            return self.answer(200, f"machine {query.get('uuid') or query.get('ref')}".encode())
        return self.answer(404)

    def do_CONNECT(self):
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        say("beside", "CONNECT", path)
        self.close_connection = True
        if path != "/console" or not self.session(query):
            return self.answer(401)
        if os.path.exists(os.path.join(DIR, "full")):
            return self.answer(503)
        kind, record = OBJECTS.get(query.get("ref"), ("", {}))
        if kind != "console" or record["protocol"] != "rfb" or record["VM"] != WEB:
            return self.answer(404)
        if VNC.startswith("unix:"):
            screen = socket.socket(socket.AF_UNIX)
            screen.connect(VNC[5:])
        else:
            host, _, port = VNC.rpartition(":")
            screen = socket.create_connection((host, int(port)))
        # The head and the first bytes of the screen may come together.
        first = screen.recv(4096)
        self.connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n" + first)

        def copy(source, sink):
            try:
                while part := source.recv(65536):
                    sink.sendall(part)
            except OSError:
                pass
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

        back = threading.Thread(target=copy, args=(screen, self.connection), daemon=True)
        back.start()
        copy(self.connection, screen)
        back.join()


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
