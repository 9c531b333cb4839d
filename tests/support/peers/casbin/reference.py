#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Casbin's own Python library as a second reference: reads cases from standard input, one JSON object a line
({"model": …, "policy": CSV, "asks": [[who, right, on, at], …]}), and prints a line of 0 and 1 for each. The two functions
of the model are written here anew, from policies/README.md."""

import csv
import datetime
import ipaddress
import json
import sys
import zoneinfo

import casbin

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def covers(on, facts):
    kind, _, value = on.partition(":")
    what, *rest = facts.split("\n")
    if kind == "everything":
        return value == ""
    if kind == "hypervisor":
        return what in ("machine", "hypervisor") and rest[0] == value
    if what != "machine":
        return False
    hypervisor, machine, _, pool, *tags = rest
    if kind == "pool":
        return pool != "" and value == hypervisor + "/" + pool
    if kind == "tag":
        return value in tags
    if kind == "machine":
        return value == hypervisor + "/" + machine
    if kind == "pattern":
        first, _, tail = value.partition("/")
        middle, _, last = tail.rpartition("/")
        pairs = [(first, hypervisor), (middle, pool), (last, machine)]
        return all(pattern == "*" or (name and pattern == name) for pattern, name in pairs)
    return False


def instant(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def minutes(clock):
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


def in_hours(text, now):
    days, span, zone = text.split(" ")
    chosen = set()
    for run in days.split(","):
        first, _, last = run.partition("-")
        first, last = DAYS.index(first), DAYS.index(last or first)
        chosen |= {(first + step) % 7 for step in range((last - first) % 7 + 1)}
    begin, end = (minutes(clock) for clock in span.split("-"))
    local = now.astimezone(zoneinfo.ZoneInfo(zone))
    day, minute = local.weekday(), local.hour * 60 + local.minute
    if begin < end:
        return day in chosen and begin <= minute < end
    return (day in chosen and minute >= begin) or ((day - 1) % 7 in chosen and minute < end)


def holds(when, effect, facts, at):
    forbids = effect == "deny"
    stamp, address, passkey = at.split("\n")
    now = datetime.datetime.fromtimestamp(0, datetime.timezone.utc) + datetime.timedelta(microseconds=int(stamp))
    what = facts.split("\n")
    for part in filter(None, when.split(";")):
        name, _, value = part.partition("=")
        if name == "since" and now < instant(value):
            return False
        if name == "until" and now >= instant(value):
            return False
        if name == "hours" and not in_hours(value, now):
            return False
        if name == "kinds" and (what[0] != "machine" or what[3] not in value.split(",")):
            return False
        if name == "passkey" and not forbids and passkey != "passkey":
            return False
        if name == "from":
            if not address:
                if not forbids:
                    return False
                continue
            ip = ipaddress.ip_address(address)
            ip = getattr(ip, "ipv4_mapped", None) or ip
            if not any(ip in ipaddress.ip_network(net) for net in value.split(",")):
                return False
    return True


def enforcer(model, policy):
    parsed = casbin.Model()
    parsed.load_model_from_text(model)
    made = casbin.Enforcer(parsed)
    made.add_function("covers", covers)
    made.add_function("holds", holds)
    rows = {"p": [], "g": [], "g2": []}
    lines = (line for line in policy.splitlines() if line and not line.startswith("#"))
    for kind, *columns in csv.reader(lines, skipinitialspace=True):
        rows[kind].append(columns)
    for kind in ("g", "g2"):
        if rows[kind]:
            assert made.add_named_grouping_policies(kind, rows[kind]), kind
    assert not rows["p"] or made.add_policies(rows["p"])
    return made


for line in sys.stdin:
    case = json.loads(line)
    made = enforcer(case["model"], case["policy"])
    print("".join("1" if made.enforce(*ask) else "0" for ask in case["asks"]), flush=True)
