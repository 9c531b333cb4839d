# SPDX-License-Identifier: Apache-2.0
"""serve.py PORT CERT KEY TOKEN_FILE GUESTS: a simulated Proxmox VE (fakepve) for the tests, known by one API token.

Two tenants: pool blue with machines 100 and 101 (a container), pool red with machine 200. Prints each request.
"""
import asyncio
import json
import sys

from fakepve.server import FakePve


async def serve(port, cert, key, token_file, guests):
    pve = FakePve(user="root@pam", password="a-password-that-nobody-uses", host="127.0.0.1", port=int(port))
    with open(token_file, encoding="utf-8") as file:
        name, _, secret = file.read().strip().partition("=")
    pve.apitokens[name] = secret
    with open(guests, encoding="utf-8") as file:
        for guest in json.load(file):
            add = pve.add_ct if guest.pop("type", "qemu") == "lxc" else pve.add_vm
            pool = guest.pop("pool")
            made = add(guest.pop("vmid"), guest.pop("name"), **guest)
            pve.pools.setdefault(pool, set()).add(made.vmid)
            made.pool = pool
            made.rfb = True
    await pve.start(cert, key)
    print("ready", flush=True)
    seen = 0
    while True:
        await asyncio.sleep(0.05)
        for method, path, body in list(pve.requests)[seen:]:
            seen += 1
            print("asked", method, path, json.dumps(body, default=str), flush=True)


asyncio.run(serve(*sys.argv[1:]))
