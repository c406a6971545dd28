# SPDX-License-Identifier: Apache-2.0
"""A pod that opens connections without end has its limit; its neighbour does not notice."""
import contextlib
import json
import statistics
import sys
import time

import pytest
import servers
from attack import Attack
from conftest import make_world
from each_backend import backend, node_config  # noqa: F401
from attackers import attacker, newcomer  # noqa: F401
from procs import wait_for
from wire import Wire, request

LIMIT = 64
WWW = servers.WWW[0]
FLOOD = """
import socket, sys
held = []
while True:
    s = socket.socket()
    s.settimeout(1)
    try:
        s.connect((sys.argv[1], 80))
        held.append(s)
    except OSError:
        s.close()
    if len(held) > 400:
        held.pop(0).close()
"""
SYNS = """
import socket, sys
while True:
    many = [socket.socket() for _ in range(200)]
    for s in many:
        s.setblocking(False)
        s.connect_ex((sys.argv[1], 80))
    for s in many:
        s.close()
"""


@pytest.fixture(scope="module")
def world(built, backend):
    for world in make_world():
        yield world.start(node=node_config(backend, limits={"connectionsPerPod": LIMIT}))


def connections(world, pod):
    pods = json.loads(world.agents["node"].ctl("pods", "--json").stdout)
    return next(p["connections"] for p in pods if p["pod"] == pod.pod)


def once(pod):
    """Seconds for one request on a connection of its own."""
    begin = time.monotonic()
    with Wire(pod.connect(WWW, 80, timeout=5)) as wire:
        wire.send(request("www.example.com"))
        assert wire.response().status == 200
    return time.monotonic() - begin


def median(pod, n=60):
    return statistics.median(once(pod) for _ in range(n))


def say(quiet, during):
    """The neighbour shares the processors with the flood, and nothing else."""
    print(f"a request of the neighbour: {quiet * 1e3:.2f} ms, during the flood {during * 1e3:.2f} ms")
    assert during < 10 * quiet + 0.02, (quiet, during)


@contextlib.contextmanager
def flooding(pod, program, processes):
    procs = [pod.popen([sys.executable, "-c", program, WWW], name="flood") for _ in range(processes)]
    try:
        yield
        assert all(p.running() for p in procs)
    finally:
        for proc in procs:
            proc.kill()


def test_connections_that_are_held(world, attacker):
    """At most its limit at once; the rest is refused, counted and logged. The neighbour's requests take
    no more than the processors, which it shares, explain."""
    other = world.pods["pod-b"]
    quiet = median(other)
    tail = world.agents["node"].tail()
    with flooding(attacker, FLOOD, 1):
        tail.wait(source_pod=attacker.pod, reason="limit_exceeded")
        seen, during = [], []
        for _ in range(60):
            during.append(once(other))
            if len(during) % 10 == 0:
                seen.append(connections(world, attacker))
    assert max(seen) <= LIMIT and max(seen) >= LIMIT - 8, seen
    assert world.metrics("node").value("sluice_denied_total", reason="limit_exceeded",
                                       namespace=attacker.namespace) > 0
    say(quiet, statistics.median(during))
    wait_for(lambda: connections(world, attacker) == 0, what="its connections are gone with it")
    assert once(attacker) < 5


def test_connections_that_are_dropped_at_once(world, attacker):
    """As many SYNs as a process can send: the neighbour still gets its answers, and nothing leaks."""
    other = world.pods["pod-b"]
    quiet = median(other)
    with Attack(world, attacker) as attack, flooding(attacker, SYNS, 1):
        wait_for(lambda: attack.seen_by_rules() > 2000, what="the flood runs")
        during = median(other)
        assert attack.arrived() == []
    say(quiet, during)
    assert once(attacker) < 5
