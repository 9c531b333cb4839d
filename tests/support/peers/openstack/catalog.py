# SPDX-License-Identifier: Apache-2.0
"""catalog.py PASSWORD_FILE KEYSTONE COMPUTE PLACEMENT GLANCE NEUTRON services|server: registers the services at these
ports of loopback, or makes a server and prints its id once it runs."""
import json
import sys
import time
import urllib.error
import urllib.request

file, keystone, compute, placement, glance, neutron, what = sys.argv[1:]
password = open(file).read().strip()
place = {name: f"http://127.0.0.1:{port}" for name, port in (("keystone", keystone), ("nova", compute), ("placement", placement), ("glance", glance), ("neutron", neutron))}
token = None


def call(method, url, body=None, kind="application/json"):
    """What is answered; asked again while a database is locked."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    headers = {"content-type": kind, "openstack-api-version": "compute 2.52"}
    if token:
        headers["x-auth-token"] = token
    for attempt in range(40):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
                text = answer.read()
                return answer.headers, json.loads(text) if text.startswith((b"{", b"[")) else None
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == 39:
                sys.exit(f"{method} {url}: {error.code} {error.read().decode()[:500]}")
        except urllib.error.URLError as error:
            if attempt == 39:
                sys.exit(f"{method} {url}: {error}")
        time.sleep(0.5)


domain = {"id": "default"}
user = {"name": "admin", "domain": domain, "password": password}
auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": {"name": "admin", "domain": domain}}}
token = call("POST", f"{place['keystone']}/v3/auth/tokens", {"auth": auth})[0]["x-subject-token"]

if what == "services":
    for kind, name, path in (("compute", "nova", "/v2.1"), ("placement", "placement", ""), ("image", "glance", ""), ("network", "neutron", "")):
        service = call("POST", f"{place['keystone']}/v3/services", {"service": {"type": kind, "name": name}})[1]["service"]["id"]
        for interface in ("public", "internal"):
            endpoint = {"service_id": service, "interface": interface, "url": place[name] + path, "region_id": "RegionOne"}
            call("POST", f"{place['keystone']}/v3/endpoints", {"endpoint": endpoint})
    call("POST", f"{place['keystone']}/v3/roles", {"role": {"name": "service"}})
else:
    nova = place["nova"] + "/v2.1"
    call("POST", f"{nova}/flavors", {"flavor": {"name": "tiny", "ram": 64, "vcpus": 1, "disk": 0, "id": "1"}})
    image = call("POST", f"{place['glance']}/v2/images", {"name": "tiny", "disk_format": "raw", "container_format": "bare"})[1]["id"]
    call("PUT", f"{place['glance']}/v2/images/{image}/file", bytes(512), "application/octet-stream")
    server = {"name": "web-1", "flavorRef": "1", "imageRef": image, "networks": "none", "tags": ["web"]}
    made = call("POST", f"{nova}/servers", {"server": server})[1]["server"]["id"]
    for _ in range(120):
        status = call("GET", f"{nova}/servers/{made}")[1]["server"]["status"]
        if status in ("ACTIVE", "ERROR"):
            break
        time.sleep(0.5)
    if status != "ACTIVE":
        sys.exit(f"the server is {status}")
    print(made)
