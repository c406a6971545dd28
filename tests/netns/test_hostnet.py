# SPDX-License-Identifier: Apache-2.0
"""Pods on the host's network: every socket of a cgroup is captured or refused, whoever asks.

Needs root, a cgroup2 mount, and tests/netns/hostnet_tool.
"""
import errno
import json
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import frames  # noqa: E402
from hostnet_world import (CLUSTER, INSIDE, LIMIT, LOOPBACK, NODE, OUTSIDE, PORT, TOOL, Tool,  # noqa: E402
                           World, end_cgroup, serving)
from node_guard import Forward  # noqa: E402
from procs import wait_for  # noqa: E402

families = pytest.mark.parametrize("v", [4, 6], ids=["v4", "v6"])


@pytest.fixture(scope="module")
def world():
    with World() as w:
        yield w


@pytest.fixture
def tool(world):
    t = Tool(world)
    yield t
    t.end()


@pytest.fixture
def cg(world, tool):
    """A captured cgroup; everything is given back afterwards."""
    cgroup = world.cgroup()
    tool.start(cgroup)
    yield cgroup
    if tool.proc.running():
        tool.ok("uninstall")
    end_cgroup(cgroup.folder)


# ---- TCP ----

DIAL = """
s = sock(v)
s.connect((to, port))
result = [greeting(s), s.getpeername()[:2]]
"""


@families
def test_tcp_goes_to_the_listener(world, tool, cg, v):
    with world.nothing_leaves():
        said, peer = world.python(cg, DIAL, v=v, to=OUTSIDE[v], port=443)
    name = f"[{OUTSIDE[6]}]:443" if v == 6 else f"{OUTSIDE[4]}:443"
    assert (said, peer) == (name, [OUTSIDE[v], 443])
    one, = tool.take()
    assert (one["error"], one["cgroup"], one["dst"]) == ("", cg.id, name)
    assert tool.origins() == 0


def test_mapped_addresses_are_ipv4(world, tool, cg):
    to = f"::ffff:{OUTSIDE[4]}"
    with world.nothing_leaves():
        said, peer = world.python(cg, DIAL, v=6, to=to, port=443)
    assert (said, peer) == (f"{OUTSIDE[4]}:443", [to, 443])
    assert tool.take()[0]["dst"] == f"{OUTSIDE[4]}:443"


@families
def test_curl_sees_what_it_dialled(world, tool, cg, v):
    host = f"[{OUTSIDE[6]}]" if v == 6 else OUTSIDE[4]
    done = world.run(cg, ["curl", "-s", "--http0.9", "-m", "10", "--noproxy", "*", "-w",
                          "%{remote_ip} %{remote_port}", f"http://{host}:8080/x"])
    assert done.stdout.split() == [f"{host}:8080", OUTSIDE[v], "8080"], done
    wait_for(lambda: tool.received, what="the request")
    assert tool.received[0]["data"].startswith("GET /x HTTP/1.1")


@families
def test_non_blocking_connect(world, tool, cg, v):
    first, pending, error, again, peer = world.python(cg, """
s = sock(v)
s.setblocking(False)
first = s.connect_ex((to, 443))
select.select([], [s], [], 5)
error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
again = s.connect_ex((to, 443))
third = s.connect_ex((to, 443))
result = [errno.errorcode[first], again, error, errno.errorcode.get(third, third), s.getpeername()[0]]
""", v=v, to=OUTSIDE[v])
    assert (first, error, again, peer) == ("EINPROGRESS", 0, "EISCONN", OUTSIDE[v]), pending
    assert len(tool.take()) == 1


@families
def test_a_port_bound_before(world, tool, cg, v):
    port, _ = world.python(cg, """
s = sock(v)
s.bind(("", 0))
port = s.getsockname()[1]
s.connect((to, 443))
assert s.getsockname()[1] == port
result = [port, greeting(s)]
""", v=v, to=OUTSIDE[v])
    assert tool.take()[0]["peer"].endswith(f":{port}")


@families
def test_an_address_bound_before(world, tool, cg, v):
    with world.nothing_leaves():
        name, _ = world.python(cg, """
s = sock(v)
s.bind((mine, 0))
s.connect((to, 443))
result = [s.getsockname()[0], greeting(s)]
hang_up(s)
""", v=v, mine=NODE[v], to=OUTSIDE[v])
    one, = tool.take()
    assert name == NODE[v] and NODE[v] in one["peer"] and one["error"] == ""


def test_what_is_captured_is_never_sent_elsewhere(world, tool, cg):
    """When the kernel finds another way to ::1 than by lo, as it does now and then for a moment."""
    with world.talking(cg, 's = sock(6); s.bind((mine, 0)); s.connect((to, 443)); greeting(s)',
                       to=OUTSIDE[6], mine=NODE[6]) as ask:
        assert ask("1") == 1
        world.node.ip("route del local ::1 dev lo table local")
        try:
            with world.nothing_leaves():
                assert ask('attempt(s.send, b"hello")') == "ok"
                wait_for(lambda: tool.counts(cg).get(("outside", 6)), what="it was tried")
        finally:
            world.node.ip("route add local ::1 dev lo proto kernel table local")
        # It keeps the way that it has found, until it is asked to look for one: by another mark.
        assert ask("[attempt(s.setsockopt, socket.SOL_SOCKET, socket.SO_MARK, m) for m in (1, 0)]") == ["ok", "ok"]
        ask("hang_up(s)")


def test_what_the_kernel_answers_to_loopback_stays_here(world):
    """For a socket that is closed, by the device of the address that was asked, and with a socket of no cgroup:
    the node's second guard, which an agent has beside the capture."""
    forward = Forward(world.node)
    assert forward("apply", cidrs=CLUSTER) == ["0"], forward.log
    try:
        with world.nothing_leaves(), world.node.socket(socket.AF_INET6) as sock:
            sock.setblocking(False)
            sock.bind((LOOPBACK[6], 0))
            assert sock.connect_ex((NODE[6], 9)) == errno.EINPROGRESS
            wait_for(lambda: forward.dropped() > 0, what="the RST")
    finally:
        assert forward("uninstall") == ["0"]


@families
@pytest.mark.parametrize("how", ["sendto", "option"])
def test_fast_open(world, tool, cg, v, how):
    with world.nothing_leaves():
        said, peer = world.python(cg, """
s = sock(v)
if how == "option":
    s.setsockopt(socket.IPPROTO_TCP, FASTOPEN_CONNECT, 1)
    s.connect((to, 443))
    s.send(b"hello")
else:
    s.settimeout(None)  # or the first packet comes with EINPROGRESS
    s.sendto(b"hello", FASTOPEN, (to, 443))
result = [greeting(s), s.getpeername()[0]]
""", v=v, how=how, to=OUTSIDE[v])
    assert OUTSIDE[v] in said and peer == OUTSIDE[v]
    wait_for(lambda: tool.received, what="the data")
    assert tool.received[0]["data"] == "hello"


@families
def test_mptcp_does_not_get_out(world, tool, cg, v):
    """The kernel may not ask for these, or ask: they do not leave either way."""
    code = """
s = sock(v, proto=MPTCP)
s.settimeout(1.5)
result = attempt(s.connect, (to, 443))
"""
    with world.capture() as capture:
        world.python(world.cgroup(), code, v=v, to=OUTSIDE[v])
        assert [p for p in capture.settle() if p.dport == 443], "it was tried"
    with world.nothing_leaves():
        result = world.python(cg, code, v=v, to=OUTSIDE[v])
    if result == "ok":
        assert OUTSIDE[v] in tool.take()[0]["dst"]
    else:
        assert tool.counts(cg)["outside", 6] >= 1


def test_again_after_it_was_refused(world, tool, cg):
    """The same socket: connect, end, connect elsewhere."""
    assert world.python(cg, """
s = sock()
s.connect((to, 443))
first = greeting(s)
unspec = struct.pack("H14x", socket.AF_UNSPEC)
import ctypes
assert ctypes.CDLL(None).connect(s.fileno(), unspec, 16) == 0
s.connect((to, 444))
result = [first, greeting(s), s.getpeername()[1]]
""", to=OUTSIDE[4]) == [f"{OUTSIDE[4]}:443", f"{OUTSIDE[4]}:444", 444]
    assert [a["dst"] for a in tool.take(2)] == [f"{OUTSIDE[4]}:443", f"{OUTSIDE[4]}:444"]
    wait_for(lambda: tool.live(cg) == 0, what="the connections have ended")


def test_what_was_captured_before_is_not_later(world, tool, cg):
    """The same socket: captured, ended, then to the cluster; that takes no room."""
    with serving(world.outside, 4, INSIDE[4], 8443), world.talking(cg, """
import ctypes
s = sock()
s.connect((to, 443))
greeting(s)
assert ctypes.CDLL(None).connect(s.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16) == 0
s.connect((inside, 8443))
""", to=OUTSIDE[4], inside=INSIDE[4]) as ask:
        assert ask("[greeting(s), s.getpeername()[0]]") == ["served", INSIDE[4]]
        assert tool.live(cg) == 0


@families
def test_the_cluster_is_reached_as_ever(world, tool, cg, v):
    with serving(world.outside, v, INSIDE[v], 8443):
        result = world.python(cg, """
s = sock(v)
s.connect((to, 8443))
result = [greeting(s), s.getpeername()[0], s.getsockname()[0]]
""", v=v, to=INSIDE[v])
    assert result == ["served", INSIDE[v], NODE[v]]
    assert tool.counts(cg) == {} and not tool.accepted


@families
def test_loopback_is_reached_as_ever(world, tool, cg, v):
    assert world.python(cg, """
served = sock(v)
served.bind(("", 0))
served.listen(8)
port = served.getsockname()[1]
for to in [loopback, "::" if v == 6 else "0.0.0.0"]:
    s = sock(v)
    s.connect((to, port))
    served.accept()
result = "ok"
""", v=v, loopback=LOOPBACK[v]) == "ok"
    assert tool.counts(cg) == {} and not tool.accepted


def test_new_cluster_networks(world, tool, cg):
    dial = 's = sock()\nresult = attempt(s.connect, (to, 8443)) == "ok" and greeting(s)'
    with serving(world.outside, 4, OUTSIDE[4], 8443):
        tool.ok("cluster", "198.51.100.0/24")
        assert world.python(cg, dial, to=OUTSIDE[4]) == "served"
        tool.ok("cluster", CLUSTER)
        assert world.python(cg, dial, to=OUTSIDE[4]) == f"{OUTSIDE[4]}:8443"


# ---- the listener ----

@pytest.mark.parametrize("v,to", [(4, "127.0.0.1"), (4, "0.0.0.0"), (4, "127.9.9.9"), (6, "::1"), (6, "::"),
                                  (6, "::ffff:127.0.0.1")])
def test_nobody_talks_to_the_listener_itself(world, tool, cg, v, to):
    code = "result = attempt(sock(v).connect, (to, 15001))"
    assert world.python(cg, code, v=v, to=to) == "EPERM"
    assert tool.event(proto=6)["cgroup"] == cg.id
    assert tool.counts(cg) == {("listener", 6): 1}
    if to != "127.9.9.9":  # nobody listens there
        assert world.python(world.cgroup(), code, v=v, to=to) == "ok"
        assert tool.take()[0]["error"] == "ENOENT"


# ---- UDP and what else is no TCP ----

OUTWARDS = [(4, OUTSIDE[4]), (6, OUTSIDE[6]), (6, f"::ffff:{OUTSIDE[4]}"), (4, "224.0.0.251"),
            (4, "255.255.255.255"), (4, "192.0.2.255"), (4, "192.0.2.2"), (6, "ff02::fb%out0"),
            (6, "fe80::99%out0")]


@pytest.mark.parametrize("v,to", OUTWARDS)
@pytest.mark.parametrize("how", ["connect", "sendto"])
def test_udp_is_refused(world, tool, cg, v, to, how):
    code = """
s = sock(v, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
address = socket.getaddrinfo(to, 5353, type=socket.SOCK_DGRAM)[0][4]
if how == "connect":
    result = attempt(s.connect, address)
    if result == "ok":
        s.send(b"x")
else:
    result = attempt(s.sendto, b"x", address)
"""
    assert world.python(world.cgroup(), code, v=v, to=to, how=how) == "ok", "it is possible"
    with world.nothing_leaves():
        assert world.python(cg, code, v=v, to=to, how=how) == "EPERM"
    assert tool.event(proto=17)["dst"].endswith(":5353")
    assert tool.counts(cg) == {("outside", 17): 1}


@pytest.mark.parametrize("to", ["ff0e::1", "fe80::99%out0"])
def test_tcp_to_what_nobody_can_dial_for_it_is_refused(world, tool, cg, to):
    code = "result = attempt(sock(6).connect, socket.getaddrinfo(to, 443)[0][4])"
    assert world.python(cg, code, to=to) == "EPERM"
    assert tool.event(proto=6)["table_full"] is False


@families
@pytest.mark.parametrize("how", ["connect", "sendto"])
def test_names_are_asked_for_in_the_cluster(world, tool, cg, v, how):
    with world.outside.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, socket.SOCK_DGRAM) as dns:
        dns.bind((INSIDE[v], 53))
        dns.settimeout(5)

        def answer():
            data, peer = dns.recvfrom(100)
            dns.sendto(b"answer to " + data, peer)
        thread = threading.Thread(target=answer)
        thread.start()
        assert world.python(cg, """
s = sock(v, socket.SOCK_DGRAM)
if how == "connect":
    s.connect((to, 53))
    s.send(b"query")
else:
    s.sendto(b"query", (to, 53))
result = s.recv(100).decode()
""", v=v, to=INSIDE[v], how=how) == "answer to query"
        thread.join()
    assert tool.counts(cg) == {}


RAW = """
def checksum(data):
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    n = (n & 0xffff) + (n >> 16)
    return ~((n & 0xffff) + (n >> 16)) & 0xffff
def tcp(flags):
    return struct.pack("!HHIIBBHHH", 1234, 443, 1, 1, 5 << 4, flags, 1024, 0, 0)
def ip4(proto, payload, options=b""):
    head = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 1, 0,
                       64, proto, 0, socket.inet_aton(mine), socket.inet_aton(to)) + options
    return head + payload
"""
RAWS = {
    "icmp": (4, 1, 's = sock(4, socket.SOCK_RAW, 1); p = struct.pack("!BBHHH", 8, 0, 0xf7fe, 0, 1)'),
    "ping-socket": (4, 1, 's = sock(4, socket.SOCK_DGRAM, 1); p = struct.pack("!BBHHH", 8, 0, 0, 0, 1)'),
    "icmpv6": (6, 58, 's = sock(6, socket.SOCK_RAW, 58); p = struct.pack("!BBHHH", 128, 0, 0, 0, 1)'),
    "syn": (4, 6, "s = sock(4, socket.SOCK_RAW, 6); p = tcp(2)"),
    "ack": (4, 6, "s = sock(4, socket.SOCK_RAW, 6); p = tcp(16)"),
    "syn-ack": (4, 6, "s = sock(4, socket.SOCK_RAW, 6); p = tcp(18)"),
    "syn6": (6, 6, "s = sock(6, socket.SOCK_RAW, 6); p = tcp(2)"),
    "own-header": (4, 6, "s = sock(4, socket.SOCK_RAW, 255); p = ip4(6, tcp(16))"),
    "udp": (4, 17, 's = sock(4, socket.SOCK_RAW, 17); p = struct.pack("!HHHH", 53, 53, 8, 0)'),
    "sctp": (4, 132, 's = sock(4, socket.SOCK_RAW, 132); p = struct.pack("!HHII", 1, 2, 3, 4)'),
    "gre": (4, 47, 's = sock(4, socket.SOCK_RAW, 47); p = struct.pack("!HH", 0, 0x800) + ip4(6, tcp(2))'),
    "ipip": (4, 4, "s = sock(4, socket.SOCK_RAW, 4); p = ip4(6, tcp(2))"),
    "6in4": (4, 41, "s = sock(4, socket.SOCK_RAW, 41); p = b'`' + bytes(39)"),
}


@pytest.mark.parametrize("name", RAWS)
def test_raw_packets_are_dropped(world, tool, cg, name):
    v, proto, make = RAWS[name]
    code = f"""{RAW}
{make}
result = attempt(s.sendto, p, (to, 0))
"""
    values = {"mine": NODE[4], "to": OUTSIDE[v]}
    with world.capture() as capture:
        assert world.python(world.cgroup(), code, **values) == "ok"
        assert [p for p in capture.settle() if (p.proto, p.dst) == (proto, OUTSIDE[v])], "it arrives"
    with world.nothing_leaves():
        assert world.python(cg, code, **values) == "EPERM"
    counted = proto if proto in (1, 6, 17, 58, 132) else 255
    assert tool.counts(cg) == {("outside", counted): 1}
    assert OUTSIDE[v] in tool.event(proto=proto)["dst"]


@pytest.mark.parametrize("name", ["icmp", "sctp"])
def test_raw_packets_to_the_cluster_pass(world, tool, cg, name):
    _, proto, make = RAWS[name]
    with world.capture() as capture:
        assert world.python(cg, f"{RAW}\n{make}\nresult = attempt(s.sendto, p, (to, 0))", mine=NODE[4],
                            to=INSIDE[4]) == "ok"
        assert [p for p in capture.settle() if (p.proto, p.dst) == (proto, INSIDE[4])]


LSRR = struct.pack("!BBB4s", 131, 7, 4, socket.inet_aton(OUTSIDE[4])) + b"\0"


@pytest.mark.parametrize("kind,proto", [("SOCK_STREAM", 6), ("SOCK_DGRAM", 17)])
def test_a_route_of_its_own_to_the_cluster_is_refused(world, tool, cg, kind, proto):
    """By way of an outside host; and the other way round by hand, by way of the cluster."""
    code = """
s = sock(4, getattr(socket, kind))
s.settimeout(1)
s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
result = attempt(s.connect, (to, 443))
if result == "ok":
    result = attempt(s.send, b"x")
"""
    values = {"kind": kind, "options": LSRR, "to": INSIDE[4]}
    with world.capture() as capture:
        world.python(world.cgroup(), code, **values)
        assert [p for p in capture.settle() if p.proto == proto], "it is possible"
    with world.nothing_leaves():
        assert world.python(cg, code, **values) != "ok"
    assert tool.counts(cg)["malformed", proto] >= 1


def test_options_by_hand_to_the_cluster_are_refused(world, tool, cg):
    code = f"""{RAW}
result = attempt(sock(4, socket.SOCK_RAW, 255).sendto, ip4(17, bytes(8), options), (to, 0))
"""
    values = {"mine": NODE[4], "to": INSIDE[4], "options": LSRR}
    assert world.python(world.cgroup(), code, **values) == "ok"
    with world.nothing_leaves():
        assert world.python(cg, code, **values) == "EPERM"


@pytest.mark.parametrize("header", [0, 43, 44, 60])
def test_extension_headers_are_refused(world, tool, cg, header):
    code = """
s = sock(6, socket.SOCK_RAW, 255)
p = struct.pack("!IHBB16s16s", 6 << 28, 16, header, 64, socket.inet_pton(socket.AF_INET6, mine),
                socket.inet_pton(socket.AF_INET6, to)) + bytes([17]) + bytes(15)
result = attempt(s.sendto, p, (to, 0))
"""
    values = {"mine": NODE[6], "to": INSIDE[6], "header": header}
    assert world.python(world.cgroup(), code, **values) == "ok"
    with world.nothing_leaves():
        assert world.python(cg, code, **values) == "EPERM"
    assert sum(tool.counts(cg).values()) == 1


def test_the_length_of_a_large_segment_passes(world, tool, cg):
    """What the kernel puts before TCP of more than 64 KiB, and that alone."""
    code = """
s = sock(6, socket.SOCK_RAW, 255)
length = struct.pack("!BBBBI", proto, 0, 0xc2, 4, 100)
p = struct.pack("!IHBB16s16s", 6 << 28, 28, 0, 64, socket.inet_pton(socket.AF_INET6, mine),
                socket.inet_pton(socket.AF_INET6, to)) + length + bytes(20)
result = attempt(s.sendto, p, (to, 0))
"""
    values = {"mine": NODE[6], "to": INSIDE[6]}
    assert world.python(cg, code, proto=6, **values) == "ok"
    with world.nothing_leaves():
        for proto in (17, 43):
            assert world.python(cg, code, proto=proto, **values) == "EPERM"


@pytest.mark.parametrize("kind,to,port", [("SOCK_DGRAM", "127.0.0.1", 5353), ("SOCK_STREAM", "127.0.0.1", 5353),
                                          ("SOCK_STREAM", OUTSIDE[4], 443)])
def test_loopback_by_way_of_an_interface_is_refused(world, tool, cg, kind, to, port):
    """A socket bound to the interface has 127.0.0.1 go out there; what is captured, too."""
    code = """
s = sock(4, getattr(socket, kind))
s.settimeout(0.5)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"out0")
result = attempt(s.sendto, b"x", (to, port)) if kind == "SOCK_DGRAM" else attempt(s.connect, (to, port))
"""
    with world.capture() as capture:
        world.python(world.cgroup(), code, kind=kind, to=to, port=port)
        assert [p for p in capture.settle() if p.dport == port], "it arrives"
    with world.nothing_leaves():
        assert world.python(cg, code, kind=kind, to=to, port=port) != "ok"
    assert tool.counts(cg)["outside", 17 if kind == "SOCK_DGRAM" else 6] >= 1


# ---- by way of the node ----

OVERLAY_MAC = "02:00:00:00:00:99"


@pytest.fixture
def overlay(world):
    """The node has the network of some CNIs: a device that unpacks what comes to its port."""
    world.node.sysctl(ipv4__ip_forward=1)
    world.node.ip(f"link add vxlan0 address {OVERLAY_MAC} type vxlan id 1 dstport 8472 dev out0 nolearning",
                  "link set vxlan0 up", "addr add 10.244.0.0/32 dev vxlan0",
                  "route add 10.244.9.0/24 dev vxlan0")
    yield b"\x08\0\0\0\0\0\1\0" + frames.mac(OVERLAY_MAC) + frames.mac("02:00:00:00:00:98") + b"\x08\0" + \
        frames.udp_packet("10.244.9.9", OUTSIDE[4], 4444, 53, b"as if of another node")
    world.node.ip("link del vxlan0")
    world.node.sysctl(ipv4__ip_forward=0)


@pytest.mark.parametrize("how", ["sendto", "connect"])
def test_the_overlay_unpacks_nothing_of_theirs(world, tool, cg, overlay, how):
    """On loopback, too, where the node's own device listens."""
    code = """
s = sock(4, socket.SOCK_DGRAM)
data = data.encode("latin1")
if how == "connect":
    result = attempt(s.connect, (to, 8472))
    if result == "ok":
        result = attempt(s.send, data)
else:
    result = attempt(s.sendto, data, (to, 8472))
"""
    values = {"data": overlay.decode("latin1"), "how": how}
    with world.capture() as capture:
        assert world.python(world.cgroup(), code, to="127.0.0.1", **values) == "ok"
        assert [p for p in capture.settle() if p.src == "10.244.9.9"], "it is possible"
    with world.nothing_leaves():
        for to in (LOOPBACK[4], NODE[4], INSIDE[4]):
            assert world.python(cg, code, to=to, **values) == "EPERM"
    assert tool.counts(cg) == {("outside", 17): 3}


def test_the_overlay_and_sockets_from_before(world, tool, overlay):
    cgroup = world.cgroup()
    with world.talking(cgroup, 's = sock(4, socket.SOCK_DGRAM); s.connect(("127.0.0.1", 8472))') as ask:
        assert ask("1") == 1
        tool.start(cgroup)
        with world.nothing_leaves():
            assert ask(f'attempt(s.send, {overlay.decode("latin1")!r}.encode("latin1"))') == "EPERM"
    tool.ok("uninstall")


@pytest.mark.parametrize("proto", [4, 41, 47])
def test_no_tunnel_into_the_cluster(world, tool, cg, proto):
    code = f"result = attempt(sock(4, socket.SOCK_RAW, {proto}).sendto, bytes(40), (to, 0))"
    assert world.python(world.cgroup(), code, to=INSIDE[4]) == "ok"
    with world.nothing_leaves():
        for to in (LOOPBACK[4], INSIDE[4]):
            assert world.python(cg, code, to=to) == "EPERM"


def test_a_route_of_its_own_by_way_of_loopback_is_refused(world, tool, cg):
    """Where a careless node honours it: first to the node itself, from there to the outside."""
    world.node.sysctl(ipv4__conf__all__accept_source_route=1, ipv4__conf__lo__accept_source_route=1,
                      ipv4__conf__lo__accept_local=1, ipv4__ip_forward=1, ipv6__conf__all__seg6_enabled=1,
                      ipv6__conf__lo__seg6_enabled=1, ipv6__conf__all__forwarding=1)
    code = """
s = sock(v, socket.SOCK_DGRAM)
if v == 4:
    s.setsockopt(0, socket.IP_OPTIONS, struct.pack("!BBB4s4sx", 131, 11, 4, socket.inet_aton(node),
                                                   socket.inet_aton(out)))
else:
    hops = [socket.inet_pton(socket.AF_INET6, a) for a in (to, out, node)]
    s.setsockopt(41, socket.IPV6_RTHDR, struct.pack("!BBBBBxxx16s16s16s", 0, 6, 4, 2, 2, *hops))
result = attempt(s.sendto, b"x", (to, 53))
"""
    for v in (4, 6):
        values = {"v": v, "node": NODE[v], "out": OUTSIDE[v], "to": LOOPBACK[v]}
        with world.capture() as capture:
            assert world.python(world.cgroup(), code, **values) == "ok"
            assert [p for p in capture.settle() if p.dst == OUTSIDE[v]], "it is possible"
        with world.nothing_leaves():
            assert world.python(cg, code, **values) == "EPERM"


# In the name of the outside, to somebody of the cluster, who may answer what the outside has opened.
FOREIGN = """
s = sock(v, getattr(socket, kind))
s.setblocking(False)
result = [attempt(s.setsockopt, level, option, 1), attempt(s.bind, (mine, 4444)), attempt(s.connect, (to, 80))]
if result[-1] == "ok":
    attempt(s.send, b"x")
"""


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_STREAM"])
@pytest.mark.parametrize("level,option", [(41, 78), (0, 15), (41, 75), (0, 19)],
                         ids=["freebind", "v4 freebind", "transparent", "v4 transparent"])
def test_nobody_has_an_address_of_the_outside(world, tool, cg, kind, level, option):
    values = {"v": 6, "kind": kind, "level": level, "option": option, "mine": OUTSIDE[6], "to": INSIDE[6]}
    with world.capture() as capture:
        world.python(world.cgroup(), FOREIGN, **values)
        assert [p for p in capture.settle() if p.src == OUTSIDE[6]], "it is possible"
    with world.capture() as capture:
        assert world.python(cg, FOREIGN, **values)[:2] == ["EPERM", "EADDRNOTAVAIL"]
        assert {p.src for p in capture.settle()} <= {NODE[6]}
    assert sum(tool.counts(cg).values()) == 1


def test_the_kernel_sees_to_that_in_ipv4(world, tool, cg):
    values = {"v": 4, "kind": "SOCK_DGRAM", "level": 0, "option": 15, "mine": OUTSIDE[4], "to": INSIDE[4]}
    with world.nothing_leaves():
        assert world.python(cg, FOREIGN, **values)[-1] not in ("ok", "EINPROGRESS")


def test_other_options_are_set_as_ever(world, tool, cg):
    """Those of more than a page, too, of which the program is not shown all."""
    code = """
s = sock(v, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 54321)
# IP_MSFILTER: a group, an interface, to exclude, how many, and who
group = struct.pack("=4s4sII", socket.inet_aton("224.1.2.3"), bytes(4), 0, 2000) + b"".join(
    struct.pack("!I", 0x0a000000 + i) for i in range(2000))
m = sock(4, socket.SOCK_DGRAM)
m.setsockopt(0, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.1.2.3") + socket.inet_aton(mine))
result = [s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), attempt(m.setsockopt, 0, 41, group)]
"""
    world.node.sysctl(ipv4__igmp_max_msf=4096)
    for v in (4, 6):
        assert world.python(cg, code, v=v, mine=NODE[4]) == world.python(world.cgroup(), code, v=v, mine=NODE[4])
        assert world.python(cg, code, v=v, mine=NODE[4]) == [2 * 54321, "ok"]


# ---- who ----

def test_children_are_captured_and_others_are_not(world, tool, cg):
    child, other = cg.child("container"), world.cgroup()
    assert world.python(child, DIAL, v=4, to=OUTSIDE[4], port=443)[0] == f"{OUTSIDE[4]}:443"
    assert tool.take()[0]["cgroup"] == cg.id
    with serving(world.outside, 4, OUTSIDE[4], 443):
        assert world.python(other, DIAL, v=4, to=OUTSIDE[4], port=443)[0] == "served"
    assert world.python(child, "result = attempt(sock(4, socket.SOCK_DGRAM).connect, (to, 53))",
                        to=OUTSIDE[4]) == "EPERM"
    assert not tool.accepted


def test_the_innermost_captured_one_counts(world, tool, cg):
    child = cg.child("inner")
    tool.ok("add", child.folder)
    for v in (4, 6):
        _, peer = world.python(child, DIAL, v=v, to=OUTSIDE[v], port=443)
        assert peer[0] == OUTSIDE[v] and tool.take()[0]["cgroup"] == child.id
    assert world.python(cg, DIAL, v=4, to=OUTSIDE[4], port=443)[1] == [OUTSIDE[4], 443]
    assert tool.take()[0]["cgroup"] == cg.id
    assert world.python(child, "result = attempt(sock().connect, ('127.0.0.1', 15001))") == "EPERM"
    wait_for(lambda: tool.live(cg) == tool.live(child) == 0, what="all have ended")
    assert tool.origins() == 0


@families
def test_it_goes_on_as_a_server(world, tool, cg, v):
    with world.talking(cg, """
served = sock(v)
served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
served.bind((mine, 7777))
served.listen(8)
def serve():
    conn, peer = served.accept()
    data = conn.recv(100000)
    conn.sendall(data.upper())
    name = conn.getpeername()
    conn.close()
    return [peer[0], name[0]]
""", v=v, mine=NODE[v]) as ask:
        assert ask("1") == 1
        with world.outside.socket(socket.AF_INET6 if v == 6 else socket.AF_INET) as client:
            client.settimeout(5)
            client.bind((OUTSIDE[v], 0))
            client.connect((NODE[v], 7777))
            client.sendall(b"ping")
            assert ask("serve()") == [OUTSIDE[v], OUTSIDE[v]]
            assert client.recv(100) == b"PING"
            assert client.recv(100) == b""
    assert tool.counts(cg) == {}


def test_sockets_from_before(world, tool, cg):
    """What was made before the capture: a UDP socket says nothing more; TCP that is open stays open,
    and opens nothing new."""
    late = world.cgroup()
    with world.outside.socket(kind=socket.SOCK_DGRAM) as dns, \
            serving(world.outside, 4, OUTSIDE[4], 443), world.talking(late, """
u = sock(4, socket.SOCK_DGRAM)
t = sock()
t.connect((to, 443))
n = sock()
""", to=OUTSIDE[4]) as ask:
        dns.bind((OUTSIDE[4], 53))
        dns.settimeout(5)
        assert ask("[u.connect((to, 53)), u.send(b'x')][1]") == 1 and dns.recv(10) == b"x"
        tool.ok("add", late.folder)
        with world.nothing_leaves(but=lambda p: p.dport == 443):
            assert ask("attempt(u.send, b'x')") == "EPERM"
            assert ask("greeting(t)") == "served"
            assert ask("[n.connect((to, 443)), greeting(n)][1]") == f"{OUTSIDE[4]}:443"
    assert tool.take()[0]["cgroup"] == late.id


# ---- limits ----

def test_a_full_table_refuses_and_says_so(world, tool, cg):
    other = world.cgroup()
    tool.ok("add", other.folder)
    with world.talking(cg, """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (limit + 200, limit + 200))
held = []
def fill():
    while True:
        s = sock()
        result = attempt(s.connect, (to, 443))
        if result != "ok":
            return [len(held), result]
        held.append(s)
def end(n):
    for s in held[:n]:
        s.close()
    del held[:n]
    return n
""", to=OUTSIDE[4], limit=LIMIT) as ask:
        assert ask("fill()") == [LIMIT, "EPERM"]
        assert tool.event(table_full=True)["cgroup"] == cg.id
        assert tool.counts(cg) == {("full", 6): 1}
        assert world.python(other, DIAL, v=4, to=OUTSIDE[4], port=443)[1][0] == OUTSIDE[4]
        ask("end(100)")
        wait_for(lambda: tool.live(cg) == LIMIT - 100, what="room for a hundred")
        assert ask("fill()") == [LIMIT, "EPERM"]
    wait_for(lambda: tool.live(cg) == 0 and tool.origins() == 0, what="all have ended")


def test_what_never_comes_about_takes_no_room(world, tool, cg):
    """Refused by the listener's kernel, cut off, or given up."""
    tool.end()
    tool = Tool(world)
    tool.ok("open")  # nobody listens
    assert world.python(cg, """
import collections
seen = collections.Counter(attempt(sock().connect, (to, 443)) for _ in range(300))
result = dict(seen)
""", to=OUTSIDE[4]) == {"ECONNREFUSED": 300}
    assert (tool.live(cg), tool.origins()) == (0, 0)
    tool.ok("uninstall")
    tool.end()


def test_events_have_a_rate(world, tool, cg):
    n = 500
    assert world.python(cg, """
s = sock(4, socket.SOCK_DGRAM)
result = [attempt(s.sendto, b"x", (to, 53)) for _ in range(n)].count("EPERM")
""", to=OUTSIDE[4], n=n) == n
    assert tool.counts(cg) == {("outside", 17): n}
    wait_for(lambda: len(tool.events) >= 20, what="events")
    assert len(tool.events) < 60
    # What had none is told with the next one.
    wait_for(lambda: world.python(cg, "result = attempt(sock(4, socket.SOCK_DGRAM).connect, (to, 53))",
                                  to=OUTSIDE[4]) == "EPERM" and
             sum(1 + e["suppressed"] for e in tool.events) >= n, what="the rest is accounted for")


# ---- whose connection ----

def test_who_closes_before_being_accepted(world, tool, cg):
    """In good order: what it sent still goes where it was meant to."""
    tool.ok("pause")
    assert world.python(cg, """
s = sock()
s.connect((to, 443))
s.sendall(b"farewell")
leave(s)
result = 0
""", to=OUTSIDE[4]) == 0
    wait_for(lambda: tool.live(cg) == 0, what="the client's socket is gone")
    tool.ok("resume")
    one, = tool.take()
    assert (one["error"], one["dst"]) == ("", f"{OUTSIDE[4]}:443")
    wait_for(lambda: tool.received, what="its data")
    assert tool.received[0]["data"] == "farewell" and tool.origins() == 0


ABORT = """
s = sock()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", port))
s.connect((to, 443))
s.sendall(b"mine")
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
s.close()
result = 0
"""
STAY = """
t = sock()
t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
t.bind(("127.0.0.1", port))
t.connect((to, to_port))
"""


def test_a_port_has_no_past(world, tool, cg):
    """A connection is reset while it waits; the same port comes again, from another cgroup: the dead
    one gets nothing of the new one's, and somebody of the node nothing of either."""
    other = world.cgroup()
    tool.ok("add", other.folder)
    tool.ok("pause")
    world.python(cg, ABORT, port=40001, to=OUTSIDE[4])
    assert tool.origins() == 0
    with world.talking(other, STAY, port=40001, to="203.0.113.9", to_port=444) as ask:
        assert ask("1") == 1
        tool.ok("resume")
        dead, alive = tool.take(2)
    assert dead["error"] == "ENOENT" and dead["peer"] == alive["peer"] == "127.0.0.1:40001"
    assert (alive["error"], alive["cgroup"], alive["dst"]) == ("", other.id, "203.0.113.9:444")
    # Nobody's.
    tool.ok("pause")
    world.python(cg, ABORT, port=40002, to=OUTSIDE[4])
    with world.talking(world.cgroup(), STAY, port=40002, to="127.0.0.1", to_port=PORT) as ask:
        assert ask("1") == 1
        tool.ok("resume")
        assert [a["error"] for a in tool.take(2)] == ["ENOENT", "ENOENT"]


def test_another_source_address_is_another_peer(world, tool, cg):
    """Somebody of the node takes the port of a captured connection, on another address."""
    tool.ok("pause")
    with world.talking(cg, STAY, port=40003, to=OUTSIDE[4], to_port=443) as ask:
        assert ask("1") == 1
        world.python(world.cgroup(), """
s = sock()
s.bind(("127.0.0.2", 40003))
s.connect(("127.0.0.1", 15001))
result = 0
""")
        tool.ok("resume")
        taken = {a["peer"]: a["error"] for a in tool.take(2)}
    assert taken == {"127.0.0.1:40003": "", "127.0.0.2:40003": "ENOENT"}


def test_what_was_closed_is_for_nobody_who_is_open(world, tool, cg):
    """It waited for a listener that went; the same port comes again, from somebody of the node."""
    tool.ok("pause")
    port = world.python(cg, """
s = sock()
s.connect((to, 443))
result = s.getsockname()[1]
leave(s)
""", to=OUTSIDE[4])
    wait_for(lambda: tool.live(cg) == 0, what="the client's socket is gone")
    tool.ok("unlisten")
    assert tool.origins() == 1
    tool.ok("listen")
    with world.talking(world.cgroup(), STAY, port=port, to="127.0.0.1", to_port=PORT) as ask:
        assert ask("1") == 1
        assert tool.take()[0]["error"] == "ENOENT"
    assert tool.origins() == 0


def test_closed_ones_of_a_former_agent_are_forgotten(world, tool, cg):
    tool.ok("pause")
    world.python(cg, "s = sock()\ns.connect((to, 443))\nleave(s)\nresult = 0", to=OUTSIDE[4])
    wait_for(lambda: tool.live(cg) == 0, what="the client's socket is gone")
    assert tool.origins() == 1
    tool.kill()
    tool = Tool(world)
    tool.ok("open")
    assert tool.origins() == 0
    tool.ok("uninstall")
    tool.end()


# ---- life ----

def test_it_stays_when_the_agent_dies(world, tool, cg):
    tool.kill()
    dial = "result = attempt(sock(v).connect, (to, 443))"
    with world.nothing_leaves():
        for v in (4, 6):
            assert world.python(cg, dial, v=v, to=OUTSIDE[v]) == "ECONNREFUSED"
        assert world.python(cg, "result = attempt(sock(4, socket.SOCK_DGRAM).connect, (to, 53))",
                            to=OUTSIDE[4]) == "EPERM"
    again = Tool(world, port=15002)
    again.ok("open")
    assert again("verify", cg.folder) == ("0", "")
    again.ok("listen")
    said, _ = world.python(cg, DIAL, v=4, to=OUTSIDE[4], port=443)
    assert said == f"{OUTSIDE[4]}:443" and again.take()[0]["cgroup"] == cg.id
    assert again.ok("add", cg.folder) == str(cg.id)
    again.ok("uninstall")
    again.end()


def test_removing_gives_everything_back(world, tool, cg):
    dial = "s = sock(v)\ns.connect((to, 443))\nresult = greeting(s)"
    assert tool("verify", cg.folder)[0] == "0"
    world.python(cg, "result = attempt(sock(4, socket.SOCK_DGRAM).connect, (to, 53))", to=OUTSIDE[4])
    tool.ok("pause")
    with world.talking(cg, "s = sock()\ns.connect((to, 443))", to=OUTSIDE[4]) as ask:
        assert ask("1") == 1 and tool.origins() == 1
        tool.ok("remove", cg.id)
        assert tool.origins() == 0
    tool.ok("resume")
    assert tool.take()[0]["error"] == "ENOENT"
    tool.ok("remove", cg.id)
    assert tool("verify", cg.folder)[0] == "ESTALE"
    assert tool.counts(cg) == {}
    for v in (4, 6):
        with serving(world.outside, v, OUTSIDE[v], 443):
            assert world.python(cg, dial, v=v, to=OUTSIDE[v]) == "served"
    tool.ok("add", cg.folder)
    assert tool("verify", cg.folder)[0] == "0"
    assert world.python(cg, dial, v=4, to=OUTSIDE[4]) == f"{OUTSIDE[4]}:443"


def test_uninstalling_leaves_nothing(world, tool, cg):
    assert (world.pins / "hostnet").exists()
    tool.ok("close")
    tool.ok("uninstall")
    assert not (world.pins / "hostnet").exists()
    with serving(world.outside, 4, OUTSIDE[4], 443):
        assert world.python(cg, "s = sock()\ns.connect((to, 443))\nresult = greeting(s)",
                            to=OUTSIDE[4]) == "served"
    tool.ok("uninstall")


def test_what_was_taken_away_is_noticed_and_put_back(world, tool, cg):
    links = world.pins / "hostnet/v1" / str(cg.id)
    assert sorted(p.name for p in links.iterdir()) == sorted(
        "connect4 connect6 egress peername4 peername6 sendmsg4 sendmsg6 setsockopt sockops".split())
    for name in ("connect6", "egress"):
        (links / name).unlink()
        assert tool("verify", cg.folder)[0] == "ESTALE"
        tool.ok("add", cg.folder)
        assert tool("verify", cg.folder)[0] == "0"


def test_keeping_only_some(world, tool, cg):
    other, gone = world.cgroup(), world.cgroup()
    tool.ok("add", other.folder)
    tool.ok("add", gone.folder)
    gone.folder.rmdir()
    old = world.pins / "hostnet/v0/77"
    old.mkdir(parents=True)
    tool.ok("keep", other.id)
    assert tool("verify", other.folder)[0] == "0"
    assert tool("verify", cg.folder)[0] == "ESTALE"
    assert tool("verify", gone.folder)[0] == "ENOENT"
    assert [p.name for p in (world.pins / "hostnet/v1").iterdir() if p.is_dir()] == [str(other.id)]
    assert not old.parent.exists()


def test_a_cgroup_that_is_gone_is_swept(world, tool, cg):
    gone = world.cgroup()
    tool.ok("add", gone.folder)
    tool.ok("close")
    gone.folder.rmdir()
    folder = world.pins / "hostnet/v1" / str(gone.id)
    assert folder.exists()

    def opened():
        tool.ok("open")
        if folder.exists():
            tool.ok("close")
        return not folder.exists()
    wait_for(opened, what="the kernel has released the cgroup")
    assert tool("verify", cg.folder)[0] == "0"


def test_maps_of_another_layout_give_way(world, tool, cg):
    """The old programs stay until the cgroup is added again, and let nothing out."""
    other = world.cgroup()
    tool.ok("add", other.folder)
    tool.ok("close")
    (world.pins / "hostnet/v1/sluice_cgroups").unlink()
    tool.ok("open")
    assert tool("verify", cg.folder)[0] == "ESTALE"
    folder = world.pins / "hostnet"
    assert sorted(p.name for p in folder.iterdir()) == ["v1", "v1-old0"]
    other_left = folder / "v1-old0" / str(other.id)
    assert other_left.exists()
    tool.ok("remove", other.id)
    assert not other_left.exists()
    dial = "result = attempt(sock().connect, (to, 443))"
    with world.nothing_leaves():
        assert world.python(cg, dial, to=OUTSIDE[4]) == "ok"
        assert tool.take()[0]["error"] == "ENOENT"
    tool.ok("add", cg.folder)
    assert tool("verify", cg.folder)[0] == "0"
    assert world.python(cg, dial, to=OUTSIDE[4]) == "ok"
    assert tool.take()[0]["cgroup"] == cg.id
    assert not (folder / "v1-old0" / str(cg.id)).exists()
    tool.ok("keep", cg.id)
    assert [p.name for p in folder.iterdir()] == ["v1"]
    assert tool("verify", cg.folder)[0] == "0"


# ---- what cannot be ----

def test_bad_paths(world, tool, cg):
    for path, errno, word in ((world.procs.folder, "ENOTDIR", "cgroup2"),
                              (cg.folder / "cgroup.procs", "ENOTDIR", "cgroup2"),
                              (cg.folder / "none", "ENOENT", "cgroup2"),
                              (world.root, "EBUSY", "agent itself")):
        got, text = tool("add", path)
        assert got == errno and word in text, (path, got, text)


def test_more_cgroups_than_there_can_be(world, tool, cg):
    for _ in range(63):
        tool.ok("add", world.cgroup().folder)
    errno, text = tool("add", world.cgroup().folder)
    assert errno == "ENOSPC" and "64" in text
    assert tool.ok("add", cg.folder) == str(cg.id)


def refused_at_once(world, argv):
    """(errno, log) of a tool that is told to open."""
    tool = world.procs.start("tool", world.node.argv(argv), stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    out, _ = tool.popen.communicate("open\n", timeout=20)
    return json.loads(out)["answer"], tool.output()


def test_no_bpf_file_system(world):
    errno, log = refused_at_once(world, [TOOL, world.procs.folder / "plain", PORT, CLUSTER])
    assert errno == "EOPNOTSUPP" and "BPF file system" in log


def test_no_capability(world):
    without = "-bpf,-sys_admin"
    errno, log = refused_at_once(world, ["setpriv", "--bounding-set", without, "--inh-caps", without, TOOL,
                                         world.pins, PORT, CLUSTER])
    assert errno == "EOPNOTSUPP" and "CAP_BPF is missing" in log
