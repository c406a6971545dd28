# SPDX-License-Identifier: Apache-2.0
"""The guard by nf_tables on the host end of a pod's interface: hostile packets do not pass, everything
else does. No agent: the pod is free but for this guard. Needs guard_netdev_tool.
"""
import collections
import json
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from node_guard import (BROADCAST, ETH_P_8021AD, ETH_P_8021Q, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, OUTSIDE, Echo,
                        Flood, NetdevGuard, Sniffer, arp, captured, icmp4, icmp6, ip, ipv4, link_local, mac_of,
                        pack, pings, reaches, send_frame, talks, tcp, udp)
from procs import wait_for
from world import World

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
PORT = 9080
ARP, ETHER, OTHER = 252, 253, 255
both = pytest.mark.parametrize("v", [4, 6], ids=["v4", "v6"])
ALL_NODES = bytes.fromhex("333300000001")


def address(pod, v):
    return pod.ip4 if v == 4 else pod.ip6


class Wired:
    def __init__(self, world):
        self.world, self.node, self.internet = world, world.node, world.internet
        self.pod_a, self.pod_b = world.pods["pod-a"], world.pods["pod-b"]
        self.own = [self.pod_a.ip4, self.pod_a.ip6, link_local(self.pod_a)]
        self.mine = (self.pod_a.ip4, self.pod_a.ip6)
        self.guard = None

    def index(self, device="pod-a"):
        with self.node.entered():
            return socket.if_nametoindex(device)

    def open(self, **options):
        self.guard = NetdevGuard(self.node, **options)
        assert self.guard("open") == ["0"]
        return self.guard

    def add(self, *options, own=None):
        """Puts pod-a under guard."""
        answer = self.guard("add", "pod-a", *options, self.mac(), *(own or self.own))
        assert answer == ["0"], answer

    def verify(self, *options):
        return self.guard("verify", "pod-a", *options, self.mac(), *self.own)

    def mac(self):
        return f"mac={mac_of(self.pod_a).hex(':')}"

    def refused(self, why, proto):
        return self.guard.counts(self.index()).get((why, proto), 0)

    def port_of(self, mac):
        """Where the bridge takes a link address to be."""
        done = self.node.run(["bridge", "-j", "fdb", "show", "br", "cni0"])
        return next((e["ifname"] for e in json.loads(done.stdout) if e["mac"] == mac.hex(":")), None)

    def flows(self, name):
        """How many elements a set of pod-a's has."""
        done = self.node.run(["nft", "-j", "list", "set", "netdev", "sluice-node", f"{name}-{self.index()}"])
        return len(json.loads(done.stdout)["nftables"][1]["set"].get("elem", []))


@pytest.fixture(scope="module")
def wired_world():
    with World() as world:
        yield Wired(world)


@pytest.fixture
def opened(wired_world):
    """A guard that is open; no pod is under it."""
    wired_world.open()
    yield wired_world
    wired_world.guard.end()
    wired_world.node.run(["nft", "flush", "ruleset"])


@pytest.fixture
def wired(opened):
    opened.add()
    return opened


# ---- what pods send ----

@both
@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_only_the_cluster_is_reached(opened, v, kind):
    with Echo(opened.internet, OUTSIDE[v], PORT, kind), \
         Echo(opened.pod_b, address(opened.pod_b, v), PORT, kind):
        assert reaches(opened.pod_a, OUTSIDE[v], PORT, kind), "a pod that nobody confines leaks"
        opened.add()
        opened.pod_a.run(["ip", "neigh", "flush", "all"])
        with captured(opened.world) as arrived:
            assert not reaches(opened.pod_a, OUTSIDE[v], PORT, kind, timeout=1)
            assert arrived(*opened.mine) == []
        assert opened.refused("outside", 6 if kind == TCP else 17) > 0
        assert reaches(opened.pod_a, address(opened.pod_b, v), PORT, kind)
        assert reaches(opened.pod_b, OUTSIDE[v], PORT, kind), "one that is not enrolled is left alone"
        assert pings(opened.pod_a, address(opened.pod_b, v))


@both
def test_what_ipv4_and_ipv6_need_on_the_link(wired, v):
    """ARP, neighbour discovery and duplicate detection, from nothing, both ways."""
    pod, other = wired.pod_a, wired.pod_b
    pod.run(["ip", "neigh", "flush", "all"])
    other.run(["ip", "neigh", "flush", "all"])
    assert pings(other, address(pod, v))
    pod.run(["ip", "neigh", "flush", "all"])
    assert pings(pod, address(other, v))
    if v == 6:
        with Sniffer(other) as sniffer:
            pod.ip(f"addr del {pod.ip6}/64 dev eth0")
            pod.sysctl(ipv6__conf__eth0__accept_dad=1)
            pod.ip(f"addr add {pod.ip6}/64 dev eth0")
            asked = bytes(16) + pack("ff02::1:ff00:b")  # from nobody, to whom it may concern
            wait_for(lambda: asked in b"".join(d for _, d in sniffer.frames),
                     what="the question whether the address is taken")
            pod.sysctl(ipv6__conf__eth0__accept_dad=0)
            wait_for(lambda: pings(pod, address(other, v)), what="it has its address again")


# Each: what is sent, to which MAC, why it is refused, and as which protocol it is counted. The text
# LEAK is in all of them.
LEAK = b"LEAK in any disguise"


def hostile(w, v):
    me, out, peer = address(w.pod_a, v), OUTSIDE[v], address(w.pod_b, v)
    stranger = "10.244.1.12" if v == 4 else "fd00:10:244:1::c"
    icmp = 1 if v == 4 else 58

    def echo(src, dst):
        body = struct.pack("!HH", 1, 1) + LEAK
        return icmp4(8, body) if v == 4 else icmp6(src, dst, 128, body)

    def error(src, dst):
        quoted = ip(dst, src, 17, udp(dst, src, 53, 53, LEAK))
        return icmp4(3, bytes(4) + quoted, code=3) if v == 4 else icmp6(src, dst, 1, bytes(4) + quoted, code=4)

    cases = {
        "udp": (ip(me, out, 17, udp(me, out, 9, 53, LEAK)), {}, "outside", 17),
        "syn": (ip(me, out, 6, tcp(me, out, 9, 80, 0x02, LEAK)), {}, "outside", 6),
        "syn-ack": (ip(me, out, 6, tcp(me, out, 9, 80, 0x12, LEAK)), {}, "outside", 6),
        "ack": (ip(me, out, 6, tcp(me, out, 9, 80, 0x10, LEAK)), {}, "outside", 6),
        "fin": (ip(me, out, 6, tcp(me, out, 9, 80, 0x11, LEAK)), {}, "outside", 6),
        "rst": (ip(me, out, 6, tcp(me, out, 9, 80, 0x04, LEAK)), {}, "outside", 6),
        "no flags": (ip(me, out, 6, tcp(me, out, 9, 80, 0x00, LEAK)), {}, "outside", 6),
        "echo": (ip(me, out, icmp, echo(me, out)), {}, "outside", icmp),
        "icmp error": (ip(me, out, icmp, error(me, out)), {}, "outside", icmp),
        "gre": (ip(me, out, 47, bytes(4) + LEAK), {}, "outside", OTHER),
        "ip in ip": (ip(me, out, 4, ipv4("10.244.1.11", "10.244.1.12", 17, LEAK)), {}, "outside", OTHER),
        "6in4": (ip(me, out, 41, LEAK), {}, "outside", OTHER),
        "esp": (ip(me, out, 50, LEAK), {}, "outside", OTHER),
        "sctp": (ip(me, out, 132, LEAK), {}, "outside", OTHER),
        "vxlan": (ip(me, out, 17, udp(me, out, 4789, 4789, LEAK)), {}, "outside", 17),
        "spoofed": (ip(stranger, out, 17, udp(stranger, out, 9, 53, LEAK)), {}, "spoofed", OTHER),
        "spoofed inside": (ip(stranger, peer, 17, udp(stranger, peer, 9, 53, LEAK)), {}, "spoofed", OTHER),
        "spoofed inbound": (ip(out, me, 17, udp(out, me, 53, 9, LEAK)), {}, "spoofed", OTHER),
        "802.1q": (ip(me, peer, 17, udp(me, peer, 9, 53, LEAK)), {"tag": ETH_P_8021Q}, "vlan", ETHER),
        "802.1ad": (ip(me, peer, 17, udp(me, peer, 9, 53, LEAK)), {"tag": ETH_P_8021AD}, "vlan", ETHER),
        "wrong version": (ip(me, peer, 17, udp(me, peer, 9, 53, LEAK)),
                          {"kind": ETH_P_IPV6 if v == 4 else ETH_P_IP}, "malformed", OTHER),
        "mpls": (LEAK * 4, {"kind": 0x8847}, "ethertype", ETHER),
        "local experiments": (LEAK * 4, {"kind": 0x88B5}, "ethertype", ETHER),
        "llc": (b"\xaa\xaa\x03\0\0\0\x08\0" + LEAK * 3, {"kind": 68}, "ethertype", ETHER),
        "multicast": (ip(me, "224.0.0.251" if v == 4 else "ff02::fb", 17,
                         udp(me, "224.0.0.251" if v == 4 else "ff02::fb", 5353, 5353, LEAK)),
                      {"to": BROADCAST}, "outside", 17),
    }
    return cases | (hostile4(me, out, peer) if v == 4 else hostile6(me, out, peer))


def hostile4(me, out, peer):
    data = udp(me, out, 9, 53, LEAK)
    lsrr = bytes([131, 7, 4]) + pack(out) + b"\0"
    ssrr = bytes([137, 7, 4]) + pack(out) + b"\0"
    return {
        "first fragment": (ipv4(me, out, 17, data, fragment=0x2000), {}, "fragment", OTHER),
        "later fragment": (ipv4(me, out, 17, data, fragment=0x0002), {}, "fragment", OTHER),
        "tiny fragment": (ipv4(me, out, 6, LEAK[:4], fragment=0x2000), {}, "fragment", OTHER),
        "loose route": (ipv4(me, peer, 17, data, options=lsrr), {}, "source_route", OTHER),
        "strict route": (ipv4(me, peer, 17, data, options=ssrr), {}, "source_route", OTHER),
        "late route": (ipv4(me, peer, 17, data, options=b"\x01" * 4 + lsrr), {}, "source_route", OTHER),
        "short header": (ipv4(me, peer, 17, data, ihl=4), {}, "malformed", OTHER),
        "longer than it is": (ipv4(me, peer, 17, data)[:-12], {}, "malformed", OTHER),
        "dhcp unasked": (ipv4("0.0.0.0", "255.255.255.255", 17,
                              udp("0.0.0.0", "255.255.255.255", 68, 67, LEAK)), {"to": BROADCAST},
                         "spoofed", OTHER),
        "no source": (ipv4("0.0.0.0", out, 17, data), {}, "spoofed", OTHER),
        "loopback source": (ipv4("127.0.0.1", out, 17, data), {}, "spoofed", OTHER),
    }


def hostile6(me, out, peer):
    def behind(proto, header, dst, inner=17):
        return ip(me, dst, proto, bytes([inner]) + header + udp(me, dst, 9, 53, LEAK))
    options = bytes([0]) + bytes([1, 4, 0, 0, 0, 0])
    route = bytes([2, 0, 1, 0, 0, 0, 0]) + pack(out)
    used_up = bytes([2, 4, 0, 0, 0, 0, 0]) + pack(out)
    ra = icmp6("fe80::1", "ff02::1", 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0) + LEAK)
    redirect = icmp6(me, peer, 137, bytes(4) + pack(me) + pack(out) + LEAK)
    na = icmp6(me, "ff02::1", 136, b"\x20\0\0\0" + pack("fd00:10:244:1::1") + LEAK)
    solicitation = icmp6(me, out, 135, bytes(4) + pack(out) + LEAK)
    unspecified = icmp6("::", out, 135, bytes(4) + pack(out) + LEAK)
    taken = icmp6("::", "ff02::1:ff00:1", 135, bytes(4) + pack("fd00:10:244:1::1") + LEAK)
    linked = icmp6(me, "fe80::1", 128, LEAK)
    return {
        "first fragment": (behind(44, bytes([0, 0, 1, 0, 0, 0, 1]), out), {}, "fragment", OTHER),
        "later fragment": (behind(44, bytes([0, 0, 16, 0, 0, 0, 1]), out), {}, "fragment", OTHER),
        "behind options": (behind(60, options, out), {}, "outside", 17),
        "behind hop-by-hop": (behind(0, options, out), {}, "outside", 17),
        "routing header": (behind(43, route, peer), {}, "source_route", OTHER),
        "two of them": (ip(me, peer, 43, bytes([43]) + used_up + bytes([17]) + route +
                           udp(me, peer, 9, 53, LEAK)), {}, "source_route", OTHER),
        "router advertisement": (ip(me, "ff02::1", 58, ra, hops=255), {"to": ALL_NODES}, "spoofed", 58),
        "redirect": (ip(me, peer, 58, redirect, hops=255), {}, "spoofed", 58),
        "neighbour's advertisement": (ip(me, "ff02::1", 58, na, hops=255), {"to": ALL_NODES}, "spoofed", 58),
        "discovery outside": (ip(me, out, 58, solicitation, hops=255), {}, "outside", 58),
        "unspecified outside": (ip("::", out, 58, unspecified, hops=255), {}, "spoofed", OTHER),
        "another's address": (ip("::", "ff02::1:ff00:1", 58, taken, hops=255), {"to": ALL_NODES}, "spoofed",
                              OTHER),
        "echo on the link": (ip(me, "fe80::1", 58, linked), {}, "outside", 58),
        "longer than it is": (ip(me, peer, 44, b"\x11")[:-1], {}, "malformed", OTHER),
        "dhcp unasked": (ip(me, "ff02::1:2", 17, udp(me, "ff02::1:2", 546, 547, LEAK)), {"to": ALL_NODES},
                         "outside", 17),
    }


def names(v):
    class Nobody:
        ip4, ip6 = "10.244.1.11", "fd00:10:244:1::b"

    class Fake:
        pod_a = pod_b = Nobody
    return list(hostile(Fake, v))


@pytest.mark.parametrize("v, name", [(v, name) for v in (4, 6) for name in names(v)],
                         ids=[f"v{v}-{name}" for v in (4, 6) for name in names(v)])
def test_hostile_packets(wired, v, name):
    """Never seen by the internet, the node's other interfaces, or another pod; counted as what they are."""
    packet, how, why, proto = hostile(wired, v)[name]
    kind = how.get("kind")
    tags = struct.pack("!HH", how["tag"], 5) if "tag" in how else b""
    before = wired.refused(why, proto)
    with captured(wired.world) as arrived, Sniffer(wired.pod_b) as pod_b, Sniffer(wired.node, "cni0") as node:
        for to in (how.get("to"), mac_of(wired.pod_b)):
            if to is None:
                to = bytes.fromhex("020000000001")
            send_frame(wired.pod_a, packet, kind=kind, to=to, tags=tags)
        wait_for(lambda: wired.refused(why, proto) >= before + 2, timeout=3, what=f"{why}, counted twice: "
                 f"{wired.guard.counts(wired.index())}")
        assert arrived(*wired.mine, "10.244.1.12", "0.0.0.0", "127.0.0.1", "fd00:10:244:1::c") == []
        # Behind them, so that they would have been seen.
        marker = b"behind the hostile ones"
        with wired.pod_a.socket(kind=UDP) as sock:
            sock.sendto(marker, (wired.pod_b.ip4, 9999))
            sock.sendto(marker, ("10.244.1.1", 9999))
        wait_for(lambda: pod_b.saw(marker) and node.saw(marker), what="the marker")
        assert not pod_b.saw(LEAK[:4]) and not node.saw(LEAK[:4])
    assert wired.flows("flows") == wired.flows("brief") == 0, "a pod cannot open a flow for itself"


@pytest.mark.parametrize("name", ["spoofed", "probe as reply", "probe of another's", "of another kind", "reverse"])
def test_hostile_arp(wired, name):
    pod, mac = wired.pod_a, mac_of(wired.pod_a)
    frame, why = {
        "spoofed": (arp(2, mac, "10.244.1.1", wired.pod_b.ip4), "spoofed"),
        "probe as reply": (arp(2, mac, "0.0.0.0", wired.pod_b.ip4), "spoofed"),
        "probe of another's": (arp(1, mac, "0.0.0.0", wired.pod_b.ip4), "spoofed"),
        "of another kind": (arp(1, mac, pod.ip4, wired.pod_b.ip4, bytes.fromhex("000686dd0604")), "malformed"),
        "reverse": (arp(3, mac, pod.ip4, wired.pod_b.ip4), "spoofed"),
    }[name]
    with Sniffer(wired.pod_b) as sniffer:
        send_frame(pod, frame, kind=ETH_P_ARP, to=BROADCAST)
        good = arp(1, mac, pod.ip4, wired.pod_b.ip4)
        send_frame(pod, good, kind=ETH_P_ARP, to=BROADCAST)
        probe = arp(1, mac, "0.0.0.0", pod.ip4)
        send_frame(pod, probe, kind=ETH_P_ARP, to=BROADCAST)
        wait_for(lambda: sniffer.saw(good) and sniffer.saw(probe), what="good ones")
        assert not sniffer.saw(frame)
    assert wired.refused(why, ARP) == 1


def test_a_bridge_is_told_no_lies(opened):
    """It learns from frames whose link address is where; one that is not the pod's is refused."""
    other = mac_of(opened.pod_b)
    packet = ip(opened.pod_a.ip4, "10.244.1.1", 17, udp(opened.pod_a.ip4, "10.244.1.1", 1, 2, b"x"))

    def lie_is_believed():
        assert pings(opened.pod_b, "10.244.1.1")
        send_frame(opened.pod_a, packet, src=other)
        return opened.port_of(other) == "pod-a"
    # Again, if need be: a word of the other's own in between makes it true again.
    wait_for(lie_is_believed, what="nobody confines it")
    opened.add()
    assert not lie_is_believed()
    assert opened.refused("spoofed", ETHER) == 1
    assert opened.verify() == ["0"]
    assert opened.guard("verify", "pod-a", *opened.own) == ["ESTALE"], "with any link address"
    assert opened.guard("add", "pod-a", *opened.own) == ["0"]
    wait_for(lie_is_believed, what="an agent of before did not note it")
    assert pings(opened.pod_b, "10.244.1.1")
    assert opened.port_of(other) == "pod-b", "it has spoken since"


@both
def test_fragments_within_the_cluster(wired, v):
    with Echo(wired.pod_b, address(wired.pod_b, v), PORT, UDP) as echo:
        with wired.pod_a.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, UDP) as sock:
            sock.sendto(bytes(4000), (address(wired.pod_b, v), PORT))
            wait_for(lambda: echo.seen, what="a datagram of three fragments")


def test_dhcp_where_it_is_configured(wired):
    wired.add("dhcp")
    me, lo = wired.pod_a.ip4, wired.own[2]
    good = [ipv4(src, "255.255.255.255", 17, udp(src, "255.255.255.255", 68, 67, b"DISCOVER" + bytes([i])))
            for i, src in enumerate(("0.0.0.0", me))]
    good.append(ip(lo, "ff02::1:2", 17, udp(lo, "ff02::1:2", 546, 547, b"SOLICIT")))
    bad = [ipv4("0.0.0.0", "255.255.255.255", 17, udp("0.0.0.0", "255.255.255.255", 68, 53, LEAK)),
           ipv4("0.0.0.0", OUTSIDE[4], 17, udp("0.0.0.0", OUTSIDE[4], 68, 67, LEAK)),
           ipv4("10.244.1.12", "255.255.255.255", 17, udp("0.0.0.0", "255.255.255.255", 68, 67, LEAK)),
           ip(lo, OUTSIDE[6], 17, udp(lo, OUTSIDE[6], 546, 547, LEAK))]
    with Sniffer(wired.pod_b) as sniffer:
        for packet in bad + good:
            send_frame(wired.pod_a, packet, to=BROADCAST if packet[0] >> 4 == 4 else ALL_NODES)
        wait_for(lambda: all(sniffer.saw(p) for p in good), what="what asks for an address")
        assert not sniffer.saw(LEAK)
    assert wired.verify("dhcp") == ["0"]
    assert wired.verify() == ["ESTALE"]


# ---- what is opened towards pods ----

@both
@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("who", ["internet", "node", "pod_b"])
def test_inbound(wired, v, kind, who):
    with Echo(wired.pod_a, address(wired.pod_a, v), PORT, kind):
        for _ in range(3):
            assert reaches(getattr(wired, who), address(wired.pod_a, v), PORT, kind)


@both
def test_inbound_echo_and_errors(wired, v):
    assert pings(wired.internet, address(wired.pod_a, v))
    with wired.internet.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, UDP) as sock:
        sock.settimeout(2)
        sock.connect((address(wired.pod_a, v), 9999))
        sock.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(10)
    with pytest.raises(ConnectionRefusedError):
        wired.internet.connect(address(wired.pod_a, v), 9999, timeout=2)


@both
def test_fragments_towards_the_pod(wired, v):
    """Arrive, and can be answered by what fits into one packet."""
    with wired.pod_a.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, UDP) as server, \
         wired.internet.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, UDP) as client:
        server.bind((address(wired.pod_a, v), PORT))
        server.settimeout(2)
        client.settimeout(2)
        for _ in range(2):
            client.sendto(bytes(4000), (address(wired.pod_a, v), PORT))
            data, peer = server.recvfrom(5000)
            assert len(data) == 4000
            server.sendto(b"got it", peer)
            assert client.recv(100) == b"got it"


@both
def test_a_large_answer(wired, v):
    """Many segments, GSO among them, and the client says nothing but ACK."""
    with wired.pod_a.socket(socket.AF_INET6 if v == 6 else socket.AF_INET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address(wired.pod_a, v), PORT))
        server.listen()
        with wired.internet.connect(address(wired.pod_a, v), PORT) as client:
            conn, _ = server.accept()
            client.shutdown(socket.SHUT_WR)  # half closed: the pod still answers
            assert conn.recv(10) == b""
            wait_for(lambda: wired.flows("flows") == 0 and wired.flows("brief") == 1, what="moved on")
            thread = threading.Thread(target=lambda: (conn.sendall(bytes(5_000_000)), conn.close()))
            thread.start()
            left = 5_000_000
            while data := client.recv(1 << 16):
                left -= len(data)
            thread.join()
            assert left == 0


@both
def test_an_inbound_flow_is_no_way_out(wired, v):
    """Not to another port, address or protocol, and not for a connection of the pod's own."""
    me, kind = address(wired.pod_a, v), socket.AF_INET6 if v == 6 else socket.AF_INET
    with Echo(wired.pod_a, me, PORT), Echo(wired.pod_a, me, PORT, UDP), \
         wired.internet.socket(kind, TCP) as stream, wired.internet.socket(kind, UDP) as datagram:
        for sock in (stream, datagram):
            sock.connect((me, PORT))
            assert talks(sock)
        to, port = stream.getsockname()[:2]
        to_udp, port_udp = datagram.getsockname()[:2]
        with captured(wired.world) as arrived:
            for dst, sport, dport in ((to, PORT, port + 1), (to, PORT + 1, port), (OUTSIDE[v], PORT, port)):
                for flags in (0x02, 0x10, 0x11, 0x12, 0x04):
                    send_frame(wired.pod_a, ip(me, dst, 6, tcp(me, dst, sport, dport, flags, LEAK)))
            send_frame(wired.pod_a, ip(me, to, 6, tcp(me, to, PORT, port, 0x02, LEAK)))
            for dst, sport, dport in ((to_udp, PORT, port_udp + 1), (to_udp, PORT + 1, port_udp),
                                      (OUTSIDE[v], PORT, port_udp), (to, PORT, port)):
                if (dst, dport) != (to_udp, port_udp):
                    send_frame(wired.pod_a, ip(me, dst, 17, udp(me, dst, sport, dport, LEAK)))
            assert arrived(me) == []
        assert talks(stream) and talks(datagram), "none of it ended what is there"


@both
def test_a_connection_opened_by_the_pod_before(opened, v):
    with Echo(opened.internet, OUTSIDE[v], PORT) as echo, opened.pod_a.connect(OUTSIDE[v], PORT) as sock:
        assert talks(sock)
        opened.add()
        with captured(opened.world) as arrived:
            echo.conns[0].send(b"anybody there?")
            assert not talks(sock, b"secret", timeout=1)
            assert arrived(*opened.mine) == []


def test_flows_are_bounded(wired_world):
    """The 5th connection finds no room and says so; the four others live, and one more can come when one
    has gone. Others' packets take none of it."""
    w = wired_world
    w.open(flows=2)  # twice that, as long as none has just gone
    try:
        w.add()
        with Echo(w.pod_a, w.pod_a.ip4, PORT):
            socks = [w.internet.connect(w.pod_a.ip4, PORT) for _ in range(4)]
            assert all(talks(s) for s in socks)
            assert not reaches(w.internet, w.pod_a.ip4, PORT, timeout=1)
            assert w.refused("flows_full", 6) > 0
            assert reaches(w.pod_b, w.pod_a.ip4, PORT), "the cluster needs no flow"
            assert all(talks(s) for s in socks)
            socks.pop().close()
            wait_for(lambda: w.flows("flows") == 3, what="the closed one has left")
            wait_for(lambda: reaches(w.internet, w.pod_a.ip4, PORT), what="its room is free")
            for sock in socks:
                sock.close()
        assert w.flows("brief") <= 16
        with w.internet.socket(kind=UDP) as sock:
            sock.connect((w.pod_a.ip4, PORT))
        with Echo(w.pod_a, w.pod_a.ip4, PORT, UDP) as echo:
            for _ in range(40):
                with w.internet.socket(kind=UDP) as sock:
                    sock.sendto(b"x", (w.pod_a.ip4, PORT))
            wait_for(lambda: w.refused("flows_full", 17) > 0, what="no room for another one")
            wait_for(lambda: echo.seen, what="some have come")
            assert len(echo.seen) <= 16
    finally:
        w.guard.end()
        w.node.run(["nft", "flush", "ruleset"])


LOAD = """
import multiprocessing, socket, sys, time
host, port, rate, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
def run(part):
    start, n, done, failed = time.monotonic(), 0, 0, 0
    while n < rate * seconds // 4:
        if n > (time.monotonic() - start) * rate / 4:
            time.sleep(0.001)
            continue
        n += 1
        try:
            with socket.create_connection((host, port), 5) as s:
                s.sendall(b"question")
                if n % 2: s.shutdown(socket.SHUT_WR)
                got = s.recv(100)
                ok = got == b"question"
        except OSError as e:
            ok = False
        done += ok
        failed += not ok
    return done, failed, time.monotonic() - start
with multiprocessing.get_context("fork").Pool(4) as pool:
    done, failed, took = zip(*pool.map(run, range(4), 1))
print(sum(done), sum(failed), max(took))
"""
SERVER = """
import socket, sys, threading
s = socket.create_server((sys.argv[1], int(sys.argv[2])), family=socket.AF_INET6 if ":" in sys.argv[1] else
                         socket.AF_INET, backlog=1024)
print("ready", flush=True)
def run():
    while True:
        c, _ = s.accept()
        try:
            c.sendall(c.recv(100))
        except OSError:
            pass
        c.close()
[threading.Thread(target=run).start() for _ in range(3)]
"""


@both
def test_a_thousand_short_connections_a_second(wired, v):
    """From outside the cluster; whoever closes first. Not one fails, nor is the table ever full."""
    me, seconds, rate = address(wired.pod_a, v), 8, 1100
    server = wired.world.procs.start("server", wired.pod_a.argv([sys.executable, "-c", SERVER, me, PORT]))
    try:
        wait_for(lambda: "ready" in server.output(), what="the server")
        load = wired.internet.run([sys.executable, "-c", LOAD, me, PORT, rate, seconds], timeout=60)
        done, failed, took = (float(word) for word in load.stdout.split())
        print(f"{done / took:.0f} connections a second, {failed:.0f} failed; flows {wired.flows('flows')}, "
              f"brief {wired.flows('brief')}")
        assert failed == 0 and done / took >= 1000
        assert wired.refused("flows_full", 6) == 0
        wait_for(lambda: wired.flows("flows") == 0, what="all have left")
    finally:
        server.stop()


# ---- the table ----

def test_adding_and_removing(opened):
    guard, index = opened.guard, opened.index()
    assert guard("list") == ["0"]
    assert opened.verify() == ["ESTALE"]
    assert guard("remove", index) == ["0"], "there is none"
    opened.add()
    opened.add()
    assert opened.verify() == ["0"]
    assert guard("list") == ["0", str(index)]
    assert guard("add", "pod-b", opened.pod_b.ip4) == ["0"]
    assert sorted(guard("list")[1:]) == sorted([str(index), str(opened.index("pod-b"))])
    assert opened.verify() == ["0"]
    assert guard("remove", index) == guard("remove", index) == ["0"]
    assert opened.verify() == ["ESTALE"]
    assert guard("list") == ["0", str(opened.index("pod-b"))]
    assert pings(opened.pod_a, OUTSIDE[4]) and not pings(opened.pod_b, OUTSIDE[4], timeout=1)
    assert guard("uninstall") == guard("uninstall") == ["0"]
    assert "sluice" not in opened.node.run(["nft", "list", "ruleset"]).stdout
    assert guard("list") == ["0"]
    assert guard("counts") == ["0"]
    assert guard("add", "none-such", "10.0.0.1")[0] == "ENODEV"
    assert guard("add", "pod-a", "steer", "10.0.0.1")[0] == "EOPNOTSUPP"


@pytest.mark.parametrize("change", [
    "flush set netdev sluice-node own4-{i}",
    "add element netdev sluice-node own4-{i} {{ 10.244.1.12 }}",
    "add element netdev sluice-node own6-{i} {{ fd00:10:244:1::c }}",
    "add element netdev sluice-node cluster4 {{ 198.51.100.0/24 }}",
    "flush set netdev sluice-node cluster6",
    "flush chain netdev sluice-node in-{i}",
    "insert rule netdev sluice-node in-{i} accept",
    "flush chain netdev sluice-node out-{i}",
    "delete chain netdev sluice-node in-{i}",
    "delete chain netdev sluice-node out-{i}",
    "delete table netdev sluice-node",
    "flush ruleset",
    "add table netdev sluice-node {{ flags dormant; }}",
])
def test_verify_notices(wired, change):
    assert wired.guard("add", "pod-b", wired.pod_b.ip4) == ["0"]
    rules = change.format(i=wired.index())
    done = wired.node.run(["nft", rules])
    assert done.returncode == 0, done.stderr
    assert wired.verify() == ["ESTALE"]
    wired.add()
    assert wired.verify() == ["0"]
    assert not pings(wired.pod_a, OUTSIDE[4], timeout=1)


def test_nothing_of_others_disturbs(wired):
    wired.node.run(["nft", "-f", "-"], input="table netdev other { chain in-7 { counter; }; }\n"
                                             "table inet sluice-node { chain in-9 { counter; }; }\n"
                                             "add chain netdev sluice-node more\n"
                                             "add rule netdev sluice-node more counter drop comment \"x y\"")
    assert wired.verify() == ["0"]
    assert wired.guard("list") == ["0", str(wired.index())]
    assert wired.guard("counts")[0] == "0"


def test_live_connections_survive_a_change(wired):
    """Of addresses, of rules (an agent of another version), and of everything but the flows."""
    with Echo(wired.pod_a, wired.pod_a.ip4, PORT), wired.internet.connect(wired.pod_a.ip4, PORT) as sock:
        assert talks(sock)
        wired.add(own=[*wired.own, "10.244.1.200"])
        assert talks(sock)
        wired.add("dhcp")
        assert talks(sock)
        wired.node.run(["nft", f"delete chain netdev sluice-node in-{wired.index()}"])
        wired.add("dhcp")
        assert talks(sock)
        assert wired.guard("cluster", "10.244.0.0/16") == ["0"]
        assert talks(sock)


def test_new_cluster_networks(wired):
    """In place, and all pods at once; no packet meets half of it."""
    with Echo(wired.internet, OUTSIDE[4], PORT), Echo(wired.pod_b, wired.pod_b.ip4, PORT):
        assert wired.guard("cluster", "10.244.0.0/16,198.51.100.10/32") == ["0"]
        assert wired.verify() == ["0"]
        assert reaches(wired.pod_a, OUTSIDE[4], PORT)
        assert wired.guard("cluster", "10.244.0.0/16") == ["0"]
        assert wired.verify() == ["0"]
        assert not reaches(wired.pod_a, OUTSIDE[4], PORT, timeout=0.5)
        src = wired.pod_a.ip4
        leak = ip(src, OUTSIDE[4], 17, udp(src, OUTSIDE[4], 1, 2))
        with captured(wired.world) as arrived, wired.pod_a.connect(wired.pod_b.ip4, PORT) as sock:
            with Flood(wired.pod_a, leak) as flood:
                for i in range(20):
                    nets = ["10.244.0.0/16", "10.0.0.0/8,192.0.2.0/24", "10.128.0.0/9,fd00::/8"][i % 3]
                    assert wired.guard("cluster", nets) == ["0"]
                    assert wired.verify() == ["0"]
                    assert talks(sock)
                    flood.goes_on()
            assert flood.sent > 1000
            assert arrived(src) == []


def test_no_moment_without(wired):
    """Replaced again and again under a pod that sends all the time."""
    src = wired.pod_a.ip4
    with captured(wired.world) as arrived:
        with Flood(wired.pod_a, ip(src, OUTSIDE[4], 17, udp(src, OUTSIDE[4], 1, 2))) as flood:
            for options in [["dhcp"], []] * 10:
                wired.add(*options)
                flood.goes_on()
        assert flood.sent > 1000
        assert arrived(src) == []


# ---- agents and interfaces that come and go ----

def test_it_stays_when_the_agent_dies(wired):
    with Echo(wired.pod_a, wired.pod_a.ip4, PORT), wired.internet.connect(wired.pod_a.ip4, PORT) as sock:
        wired.guard.end(kill=True)
        assert not pings(wired.pod_a, OUTSIDE[4], timeout=1)
        assert talks(sock)
        wired.open()
        assert wired.guard("list") == ["0", str(wired.index())]
        assert wired.verify() == ["0"]
        wired.add()
        assert talks(sock)
        wired.guard.end()
        wired.open(flows=64)  # another size: it is as if it were new
        assert wired.verify() == ["ESTALE"]
        wired.add()
        assert wired.verify() == ["0"]
        assert not pings(wired.pod_a, OUTSIDE[4], timeout=1)


def test_an_interface_that_is_renamed(wired):
    """On newer kernels the chains stand at a name."""
    node, index = wired.node, wired.index()
    node.ip("link set pod-a down", "link set pod-a name renamed", "link set renamed up")
    try:
        old = wired.guard("verify", "renamed", *wired.own)
        if old == ["0"]:  # the kernel takes the chains along
            assert not pings(wired.pod_a, OUTSIDE[4], timeout=1)
        assert wired.guard("add", "renamed", *wired.own) == ["0"]
        assert wired.guard("verify", "renamed", *wired.own) == ["0"]
        assert wired.guard("list") == ["0", str(index)]
        assert not pings(wired.pod_a, OUTSIDE[4], timeout=1)
        assert pings(wired.pod_a, wired.pod_b.ip4)
    finally:
        node.ip("link set renamed down", "link set renamed name pod-a", "link set pod-a up")


def test_an_interface_that_goes(wired_world):
    """Nothing of it is left after remove(), and its name may be another pod's at once."""
    w = wired_world
    w.open()
    pod = w.world.add_pod("shop/shortlived")
    try:
        own = [pod.ip4, pod.ip6]
        old = w.index("shortlived")
        assert w.guard("add", "shortlived", *own) == ["0"]
        assert not pings(pod, OUTSIDE[4], timeout=1)
        w.node.ip("link del shortlived")
        assert w.guard("list") == ["0", str(old)], "its sets, at least"
        pod.remove()
        del w.world.pods["shortlived"]
        pod = w.world.add_pod("shop/shortlived")
        new, own = w.index("shortlived"), [pod.ip4, pod.ip6]
        assert new != old
        assert w.guard("verify", "shortlived", *own) == ["ESTALE"]
        assert w.guard("add", "shortlived", *own) == ["0"]
        assert w.guard("verify", "shortlived", *own) == ["0"]
        assert pings(pod, w.pod_b.ip4), "the old one's chains do not refuse the new one's address"
        assert not pings(pod, OUTSIDE[4], timeout=1)
        w.node.ip("link del shortlived")
        for index in (old, new):
            assert w.guard("remove", index) == ["0"]
        assert w.guard("list") == ["0"]
        left = w.node.run(["nft", "list", "table", "netdev", "sluice-node"]).stdout
        assert f"-{old}" not in left and f"-{new}" not in left
    finally:
        w.guard.end()
        pod.remove()
        w.world.pods.pop("shortlived", None)
        w.node.run(["nft", "flush", "ruleset"])


def test_where_it_cannot_be(wired_world):
    """Without the right to it: EOPNOTSUPP with a reason, and nothing is touched."""
    with wired_world.node.entered():
        done = subprocess.run(["setpriv", "--bounding-set=-all", "--inh-caps=-all", NetdevGuard.TOOL, "-",
                               "10.0.0.0/8"], input="open\n", text=True, check=False, capture_output=True,
                              timeout=30)
    assert done.stdout.startswith("EOPNOTSUPP nf_tables has no netdev ingress chains here"), done
    assert "Operation not permitted" in done.stdout
    assert "sluice" not in wired_world.node.run(["nft", "list", "ruleset"]).stdout


def test_cost(wired):
    """Of adding, verifying and removing; printed for whoever looks."""
    took = collections.defaultdict(list)
    for _ in range(5):
        for verb in ("remove", "add", "verify"):
            arg = wired.index() if verb == "remove" else "pod-a"
            start = time.monotonic()
            assert wired.guard(verb, arg, *([] if verb == "remove" else wired.own)) == ["0"]
            took[verb].append((time.monotonic() - start) * 1000)
            if verb == "remove":
                wired.guard("list")  # which waits for the kernel to have done with what was removed
    print(", ".join(f"{verb} {min(ms):.1f} to {max(ms):.1f} ms" for verb, ms in took.items()))
    assert min(took["add"]) < 100 and min(took["verify"]) < 100
