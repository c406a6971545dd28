# SPDX-License-Identifier: Apache-2.0
"""The tunnel: our ends against each other, against a real HAProxy, and against headers that lie."""
import json
import socket
import struct

import pytest

import servers
from agents import REPO
from wire import Wire, client_hello, request, alert_of
from world import wait_for

TUNNEL_PORT = 15443
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CORPUS = REPO / "tests/corpus/proxy_v2"
AUTHORITY, CRC32C, UNIQUE_ID, PRINCIPAL, POD = 0x02, 0x03, 0x05, 0xE0, 0xE1


@pytest.fixture(scope="module")
def tunnel(own_world):
    own_world.start()
    return own_world


# ---- headers by hand ----

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def tlv(kind, value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("!BH", kind, len(value)) + value


def header(*tlvs, dst="198.51.100.10", port=443, crc=True, command=0x21):
    addresses = socket.inet_aton("10.244.1.99") + socket.inet_aton(dst) + struct.pack("!HH", 40000, port)
    body = addresses + b"".join(tlvs) + (tlv(CRC32C, b"\0" * 4) if crc else b"")
    whole = SIGNATURE + bytes([command, 0x11]) + struct.pack("!H", len(body)) + body
    return whole[:-4] + struct.pack("!I", crc32c(whole)) if crc else whole


def from_node(world, host="192.0.2.10", port=TUNNEL_PORT):
    """A connection from the node to the tunnel's port, as an agent would make it."""
    return Wire(world.node.connect(host, port))


def told(name, pod="shop/pod-a"):
    return header(tlv(AUTHORITY, name), tlv(UNIQUE_ID, bytes(range(16))), tlv(POD, pod),
                  tlv(PRINCIPAL, "spiffe://cluster.local/ns/shop/sa/x"))


def test_a_header_by_hand_is_served(tunnel):
    gateway = tunnel.agents["gateway"].tail()
    with from_node(tunnel) as wire:
        wire.send(told("www.example.com") + client_hello("www.example.com"))
        assert wire.take(1) == b"\x16", "the server's handshake"
    line = gateway.wait(decision="ALLOW", source_pod="pod-a")
    assert line["source_namespace"] == "shop"
    assert line["source_principal"] == "spiffe://cluster.local/ns/shop/sa/x"
    assert line["request_id"].replace("-", "") == bytes(range(16)).hex()
    assert line["downstream_remote_address"] == "10.244.1.99:40000"


def test_the_gateway_decides_again(tunnel):
    """A name that the gateway's registry does not hold is refused, whatever the agent thought."""
    gateway = tunnel.agents["gateway"].tail()
    with from_node(tunnel) as wire:
        wire.send(told("unregistered.example.com") + client_hello("unregistered.example.com"))
        assert alert_of(wire.rest()) == (2, 112)
    assert gateway.wait(decision="DENY")["reason"] == "host_not_registered"


def test_the_gateway_checks_the_namespace_it_is_told(tunnel):
    with from_node(tunnel) as wire:
        wire.send(told("shop-only.example.com", pod="lab/other") + client_hello("shop-only.example.com"))
        assert alert_of(wire.rest()) == (2, 112)


def test_without_a_name_the_gateway_reads_the_first_bytes_itself(tunnel):
    with from_node(tunnel) as wire:
        wire.send(header(dst="198.51.100.66") + client_hello("www.example.com"))
        assert wire.take(1) == b"\x16"
    with from_node(tunnel) as wire:
        wire.send(header(dst="198.51.100.66") + client_hello("unregistered.example.com"))
        assert alert_of(wire.rest()) == (2, 112)


def test_a_header_in_single_bytes(tunnel):
    with from_node(tunnel) as wire:
        wire.send_slowly(told("www.example.com"))
        wire.send(client_hello("www.example.com"))
        assert wire.take(1) == b"\x16"


def flip_last(data):
    return data[:-1] + bytes([data[-1] ^ 0x55])


BAD = {
    "bad crc": lambda: flip_last(header(tlv(AUTHORITY, "www.example.com"))),
    "two authorities": lambda: header(tlv(AUTHORITY, "www.example.com"), tlv(AUTHORITY, "api.example.com")),
    "the same authority twice": lambda: header(*[tlv(AUTHORITY, "www.example.com")] * 2),
    "NUL in the name": lambda: header(tlv(AUTHORITY, "www.example.com\0.evil.com")),
    "a name that is an address": lambda: header(tlv(AUTHORITY, "198.51.100.10")),
    "TLV overruns": lambda: header(b"\x02\xff\xff" + b"x", crc=False),
    "cut TLV": lambda: header(b"\x02", crc=False),
    "short addresses": lambda: SIGNATURE + b"\x21\x11\0\x04" + b"abcd",
    "UDP": lambda: header(command=0x21).replace(b"\x21\x11", b"\x21\x12", 1),
    "unknown command": lambda: header(command=0x22, crc=False),
    "version 1 nibble": lambda: header(command=0x11, crc=False),
    "too long": lambda: SIGNATURE + b"\x21\x11\xff\xff",
    "version 1 text": lambda: b"PROXY TCP4 10.0.0.1 198.51.100.10 4000 443\r\n",
    "no header": lambda: client_hello("www.example.com"),
    "HTTP": lambda: request("www.example.com"),
    "unspec with addresses missing": lambda: SIGNATURE + b"\x21\x00\0\0",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_headers_are_refused_and_counted(tunnel, case):
    gateway = tunnel.agents["gateway"]
    before = gateway.metrics().value("sluice_tunnel_header_refused_total")
    tail = gateway.tail()
    with from_node(tunnel) as wire:
        wire.send(BAD[case]() + client_hello("www.example.com"))
        assert wire.rest() == b"", "not a byte comes back"
    line = tail.wait(decision="DENY", reason="tunnel_refused")
    assert line["connection_termination_details"], line
    assert gateway.metrics().value("sluice_tunnel_header_refused_total") == before + 1


@pytest.mark.parametrize("case", [c for c in json.loads((CORPUS / "manifest.json").read_text())
                                  if "abort" in c["expect"]], ids=lambda c: c["name"])
def test_bad_headers_of_the_corpus(tunnel, case):
    with from_node(tunnel) as wire:
        wire.send((CORPUS / case["file"]).read_bytes())
        try:
            wire.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has been reset already
        assert wire.rest() == b""


def test_a_header_that_does_not_come_in_time(tunnel):
    tail = tunnel.agents["gateway"].tail()
    with from_node(tunnel) as wire:
        wire.send(told("www.example.com")[:40])
        assert wire.rest() == b""
    tail.wait(reason="tunnel_refused", connection_termination_details="no PROXY header in time")


@pytest.mark.parametrize("extra", [b"", tlv(0x04, b"noop")], ids=["plain", "with TLV"])
def test_local_is_a_health_probe(tunnel, extra):
    """Answered by an orderly end, and not a line in the log."""
    tail = tunnel.agents["gateway"].tail()
    with from_node(tunnel) as wire:
        wire.send(SIGNATURE + b"\x20\x00" + struct.pack("!H", len(extra)) + extra)
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.ended() == "fin"
    assert not [r for r in tail.read() if r["source_pod"] is None]


# ---- HAProxy ----

def haproxy(world, ns, name, lines):
    """A real HAProxy in `ns`, ended with the test."""
    conf = world.folder / f"{name}.cfg"
    log = world.folder / f"{name}.out"
    conf.write_text("global\n    nbthread 1\n    maxconn 500\ndefaults\n    mode tcp\n"
                    "    timeout connect 3s\n    timeout client 30s\n    timeout server 30s\n" +
                    "".join(f"{line}\n" for line in lines), encoding="ascii")
    return ns.popen(["haproxy", "-f", conf], name=name, log=log)


@pytest.fixture
def haproxy_before_our_gateway(tunnel):
    """On the node: takes anything on 7443 and sends it to our gateway with send-proxy-v2."""
    proc = haproxy(tunnel, tunnel.node, "haproxy-node", [
        "frontend in", "    bind 192.0.2.1:7443", "    bind 192.0.2.1:7444 accept-proxy",
        "    default_backend gateway", "backend gateway",
        "    server gw 192.0.2.10:15443 send-proxy-v2 proxy-v2-options crc32c,authority,unique-id"])
    tunnel.wait_port(tunnel.node, "192.0.2.1", 7443)
    yield
    proc.stop()


def test_haproxy_into_our_gateway(tunnel, haproxy_before_our_gateway):
    """HAProxy says where it was called, no name: the gateway reads the SNI itself."""
    gateway = tunnel.agents["gateway"].tail()
    ok = tunnel.node.run(["curl", "-sS", "--cacert", tunnel.ca, "--max-time", "10", "--connect-to",
                          "www.example.com:7443:192.0.2.1:7443", "https://www.example.com:7443/"])
    assert ok.returncode != 0, "the port that HAProxy was called on is not registered"
    gateway.wait(decision="DENY", requested_server_name="www.example.com", reason="port_not_registered")

    tunnel.register("by-haproxy", ["www.example.com"], ports=((7443, "TLS"),), resolution="DNS",
                    endpoints=[{"address": "www.example.com", "ports": {"tls-7443": 443}}],
                    loaded=False)
    wait_for(lambda: tunnel.agents["gateway"].admin(
        "/check?target=www.example.com:7443&pod=x/y")[1].find('"ALLOW"') >= 0, what="7443 is registered")
    ok = tunnel.node.run(["curl", "-sS", "--cacert", tunnel.ca, "--max-time", "10", "--connect-to",
                          "www.example.com:7443:192.0.2.1:7443", "https://www.example.com:7443/"])
    assert ok.returncode == 0, ok.stderr
    assert json.loads(ok.stdout)["client"] == "203.0.113.10"
    tunnel.deregister("by-haproxy")


def test_our_header_through_haproxy_into_our_gateway(tunnel, haproxy_before_our_gateway):
    """What we write, HAProxy reads; what HAProxy passes on (destination, authority), we read."""
    gateway = tunnel.agents["gateway"].tail()
    with from_node(tunnel, "192.0.2.1", 7444) as wire:
        wire.send(told("www.example.com") + client_hello("www.example.com"))
        assert wire.take(1) == b"\x16"
    line = gateway.wait(decision="ALLOW", downstream_remote_address="10.244.1.99:40000")
    assert line["requested_server_name"] == "www.example.com"


@pytest.fixture
def haproxy_as_gateway(bare_world):
    """HAProxy with accept-proxy in the gateway's place, going by the SNI."""
    world = bare_world
    proc = haproxy(world, world.gateway, "haproxy-gateway", [
        "frontend in", "    bind 192.0.2.10:15443 accept-proxy",
        "    tcp-request inspect-delay 5s", "    tcp-request content accept if { req.ssl_hello_type 1 }",
        "    log-format %ci:%cp,%[dst]:%[dst_port],%[fc_pp_authority]",
        "    use_backend www if { req.ssl_sni www.example.com }",
        "backend www", "    server www 198.51.100.10:443 source 203.0.113.10"])
    world.wait_port(world.gateway, "192.0.2.10", 15443)
    world.start_node()
    for pod in world.pods.values():
        world.enroll(pod)
    yield world
    proc.stop()


def test_our_node_into_haproxy(haproxy_as_gateway):
    world = haproxy_as_gateway
    world.wait_gateway_healthy()
    got = world.curl(world.pods["pod-a"], "https://www.example.com/")
    assert got.status == 200 and got.seen_from == "203.0.113.10", got


# ---- several endpoints ----

def test_round_robin_over_endpoints(bare_world):
    world = bare_world
    world.start_gateway()
    world.start_gateway(name="gateway2", ip="192.0.2.11", source_ips=["203.0.113.11"], port_offset=10)
    world.start_node(endpoints=("192.0.2.10:15443", "192.0.2.11:15443"))
    world.enroll(world.pods["pod-a"])
    world.wait_gateway_healthy(2)
    seen = [world.curl(world.pods["pod-a"], "https://www.example.com/").seen_from for _ in range(8)]
    assert seen.count("203.0.113.10") == 4 and seen.count("203.0.113.11") == 4, seen


def test_an_endpoint_that_swallows_costs_half_a_second_once(bare_world):
    """Nobody answers at the first endpoint, not even with a reset: the next one is tried after 500 ms,
    before a byte of payload was sent; afterwards the dead one is known.
    """
    world = bare_world
    world.start_gateway()
    world.gateway.ip("addr add 192.0.2.77/24 dev node0")
    world.gateway.run(["nft", "add table inet hole; add chain inet hole in { type filter hook input "
                       "priority 0; }; add rule inet hole in ip daddr 192.0.2.77 drop"])
    world.start_node(endpoints=("192.0.2.77:15443", "192.0.2.10:15443"))
    pod = world.pods["pod-a"]
    world.enroll(pod)
    for _ in range(4):
        got = world.curl(pod, "https://www.example.com/")
        assert got.status == 200, got
        assert got.info["time_appconnect"] < 1.5, got.info
    wait_for(lambda: world.metrics("node").value("sluice_gateway_healthy", endpoint="192.0.2.77:15443") == 0
             and world.metrics("node").value("sluice_gateway_healthy", endpoint="192.0.2.10:15443") == 1,
             what="the prober knows which one is dead")
    for _ in range(4):
        assert world.curl(pod, "https://www.example.com/").info["time_appconnect"] < 0.45
