# SPDX-License-Identifier: Apache-2.0
"""The gateway resolves the name itself, refuses what is not the internet, and uses its own addresses."""
import json
import time

import pytest
import servers
from agents import AGENT, merge
from procs import wait_for
from wire import Wire, request
from world import GATEWAY_IPS

GW4, GW6 = GATEWAY_IPS


@pytest.mark.parametrize("url", [
    "http://private.example.com/", "http://ula.example.com/", "http://metadata.example.com/",
    "http://mapped.example.com/", "http://cluster.example.com/", "http://nat64.example.com/",
    "http://loopback.example.com:15020/",
])
def test_private_destination(world, pod_a, no_leaks, url):
    """Registered, and there is a server (the gateway itself for loopback): still refused."""
    name = url.split("/")[2].split(":")[0]
    port = url.split(":")[2].rstrip("/") if url.count(":") == 2 else "80"
    served = len(world.nginx_seen())
    tail = world.agents["gateway"].tail()
    got = world.curl(pod_a, url, "--resolve", f"{name}:{port}:198.51.100.66")
    assert got.status == 403, got
    assert "private_destination" in got.body
    record = tail.wait(decision="DENY", reason="private_destination")
    assert record["source_pod"] == "pod-a"
    assert len(world.nginx_seen()) == served


def test_missing_name(world, pod_a):
    tail = world.agents["gateway"].tail()
    got = world.curl(pod_a, "http://missing.example.com/", "--resolve", "missing.example.com:80:198.51.100.66")
    assert got.status == 503, got
    tail.wait(decision="DENY", reason="resolve_failed")


def test_dead_server(world, pod_a):
    """Nobody answers at the only address: told within connectTimeout (3 s), and not as a 502."""
    tail = world.agents["gateway"].tail()
    got = world.curl(pod_a, "http://dead.example.com/")
    assert got.status == 503, got
    assert got.info["time_total"] < 5
    tail.wait(reason="upstream_failed")


def test_refusing_server(world, pod_a):
    """Its port is closed: refused at once."""
    world.register("closed", ["closed.example.com"], ports=[{"number": 80, "name": "http", "protocol": "HTTP",
                                                             "targetPort": 81}],
                   resolution="STATIC", endpoints=[{"address": servers.WWW[0]}])
    try:
        got = world.curl(pod_a, "http://closed.example.com/", "--resolve", "closed.example.com:80:198.51.100.66")
        assert got.status == 503, got
    finally:
        world.deregister("closed")


@pytest.mark.parametrize("name", ["deadv6.example.com", "deadv4.example.com"])
def test_one_family_dead(world, pod_a, name):
    """Both are tried without waiting for the first to time out."""
    got = world.curl(pod_a, f"http://{name}/", "--resolve", f"{name}:80:198.51.100.66")
    assert got.status == 200, got
    assert got.info["time_total"] < 1.5
    assert got.json()["server"] == "dual"


def test_record_changes(world, pod_a):
    """The old address for as long as the TTL allows, then the new one, without a restart."""
    try:
        assert world.curl(pod_a, "http://moving.example.com/").json()["server"] == "moving"
        world.dns.set("moving.example.com", ["198.51.100.18"])
        begun = time.monotonic()
        wait_for(lambda: world.curl(pod_a, "http://moving.example.com/", "--resolve",
                                    "moving.example.com:80:198.51.100.66").json()["server"] == "moved",
                 timeout=servers.DNS_TTL + 5, what="the new address is used")
        assert time.monotonic() - begun < servers.DNS_TTL + 2
    finally:
        world.dns.set("moving.example.com", servers.RECORDS["moving.example.com"])


def test_answers_are_remembered(world, pod_a):
    """As long as their TTL: fifty connections do not make a hundred queries."""
    before = world.dns.queries("api.example.com")
    got = world.curl(pod_a, "http://api.example.com/q[1-50]", "-H", "Connection: close", "--resolve",
                     "api.example.com:80:198.51.100.66")
    assert got.code == 0, got
    assert world.dns.queries("api.example.com") - before <= 10


def test_source_address_by_family(world, pod_a):
    assert world.curl(pod_a, "http://v6only.example.com/").seen_from == GW6
    assert world.curl(pod_a, "http://api.example.com/").seen_from == GW4


def test_static_endpoints_take_turns(world, pod_a):
    """By weight, whatever the name would lead to."""
    world.register("static", ["static.example.com"], ports=[(80, "HTTP")], resolution="STATIC",
                   endpoints=[{"address": "198.51.100.11", "weight": 3},
                              {"address": "198.51.100.12", "weight": 1}])
    try:
        got = world.curl(pod_a, "http://static.example.com/turn[1-200]", "-H", "Connection: close", "--resolve",
                         "static.example.com:80:198.51.100.66")
        assert got.code == 0, got
        seen = [r["server"] for r in world.nginx_seen(host="static.example.com")]
        assert set(seen) == {"api", "wild"} and len(seen) == 200
        assert seen.count("api") > seen.count("wild")  # three of four, by chance: 8 standard deviations
    finally:
        world.deregister("static")


def test_static_endpoint_may_be_private(world, pod_a):
    """Somebody registered the very address: that is asking for it."""
    world.register("inside", ["inside.example.com"], ports=[(80, "HTTP")], resolution="STATIC",
                   endpoints=[{"address": "10.0.0.5"}])
    try:
        got = world.curl(pod_a, "http://inside.example.com/", "--resolve", "inside.example.com:80:198.51.100.66")
        assert got.json()["server"] == "private", got
    finally:
        world.deregister("inside")


# ---- gateways of their own configuration ----

@pytest.fixture
def second(world):
    """Starts another gateway beside the usual one, on 192.0.2.11, with changed settings."""
    def start(changes=None, **options):
        options.setdefault("source_ips", ["203.0.113.11"])
        return world.start_gateway(changes, name="gateway-2", ip="192.0.2.11", port_offset=10, **options)
    yield start
    agent = world.agents.pop("gateway-2", None)
    if agent and agent.running():
        agent.stop()


def through(world, host, dst="198.51.100.66"):
    """One HTTP request straight into a gateway's tunnel, as a node agent would send it (PROXY v2)."""
    source, target = b"\x0a\xf4\x01\x63", bytes(int(x) for x in dst.split("."))
    tlvs = b"\x02" + len(host).to_bytes(2, "big") + host.encode()
    body = source + target + (40000).to_bytes(2, "big") + (80).to_bytes(2, "big") + tlvs
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + len(body).to_bytes(2, "big") + body
    with Wire(world.node.connect("192.0.2.11", 15443)) as wire:
        wire.send(header + request(host, "/", "GET", "Connection: close"))
        return wire.response()


def test_allowed_private_cidrs(world, second):
    second({"egress": {"allowedPrivateCIDRs": ["10.0.0.0/24", "fd00:ffff::/64"]}},
           source_ips=["203.0.113.11", GW6])
    for name in ("private.example.com", "ula.example.com"):
        got = through(world, name)
        assert got.status == 200 and b'"server":"private"' in got.body
    for name in ("metadata.example.com", "cluster.example.com"):
        assert through(world, name).status == 403


def test_source_addresses_take_turns(world, second):
    second(source_ips=["203.0.113.10", "203.0.113.11"])
    seen = [through(world, "api.example.com").headers["x-client"] for _ in range(8)]
    assert set(seen) == {"203.0.113.10", "203.0.113.11"}


def test_tunnel_needs_a_header(world, pod_a):
    """Without a PROXY header nothing is forwarded; a pod may connect, and gets nothing."""
    tail = world.agents["gateway"].tail()
    served = len(world.nginx_seen())
    with Wire(world.node.connect("192.0.2.10", 15443)) as wire:
        wire.send(request("www.example.com"))
        assert b"200" not in wire.rest()
    tail.wait(decision="DENY", reason="tunnel_refused")
    assert len(world.nginx_seen()) == served


@pytest.mark.parametrize("changes, complaint", [
    ({"egress": {"sourceIPs": ["203.0.113.99"]}}, "203.0.113.99"),
    ({"egress": {"sourceIPs": ["203.0.113.10", "2001:db8:113::99"]}}, "2001:db8:113::99"),
    ({"egress": {"colour": "red"}}, "colour"),
    ({"tunnel": {"mode": "MUTUAL"}}, "MUTUAL"),
    ({"limits": {"helloBytes": 17}}, "helloBytes"),
    ({"role": "Spectator"}, "role"),
])
def test_refuses_to_start(world, second, changes, complaint):
    agent = second(changes, wait=False)
    assert agent.proc.wait(10) != 0
    assert complaint in agent.errors()
    agent.check_sanitizers()


@pytest.mark.parametrize("changes, code", [({}, 0), ({"egress": {"colour": "red"}}, 1),
                                           ({"clusterCIDRs": ["10.0.0.0/33"]}, 1)])
def test_check_option(world, changes, code):
    """--check validates and starts nothing."""
    file = world.folder / "checked.yaml"
    file.write_text(json.dumps(merge(world.agents["gateway"].config, changes)))
    done = world.gateway.run([AGENT, "--config", file, "--check"])
    assert done.returncode == code, done.stderr
    assert code == 0 or done.stderr.strip()
