# SPDX-License-Identifier: Apache-2.0
"""The kernel half of the guard: every kind of packet, one at a time, and what became of it."""
import contextlib
import ipaddress
import json
import random
import socket
import struct

import pytest
from frames import (ACK, FIN, ICMP, ICMP6, RST, SYN, TCP, UDP, addr, arp, echo_packet, ext,
                    fragment6, icmp_packet, ip, ip4, ip6, parse, tcp, tcp_packet, udp, udp_packet)
from guard_world import CLUSTER, DHCP, STEER, V4, V6, GuardWorld, Sniffer
from procs import wait_for

AH, ROUTING, HOPOPTS, DSTOPTS, FRAGMENT, NONE6, GRE, SCTP, IGMP = 51, 43, 0, 60, 44, 59, 47, 132, 2
ARP, ETHER, OTHER = 252, 253, 255
ROUTER = "fe80::1"
ALL_NODES, ALL_ROUTERS, ALL_MLD = "ff02::1", "ff02::2", "ff02::16"
both = pytest.mark.parametrize("a", [V4, V6], ids=["v4", "v6"])


@pytest.fixture(scope="module", params=["bridge-tcx", "routed-tc"])
def steering(request):
    """Guard and steer, but there is no agent."""
    with GuardWorld(*request.param.split("-")) as world:
        yield world


@pytest.fixture(scope="module")
def guarding():
    """Guard alone: rules in the pod do the rest."""
    with GuardWorld(steer=False) as world:
        yield world


# ---- what the pod may send ----

def own_fragment(a, offset, more, payload=b"x" * 64):
    if a.v6:
        return ip6(a.mute, a.peer, FRAGMENT, fragment6(UDP, payload, offset, more))
    return ip4(a.mute, a.peer, UDP, payload, frag=more << 13 | offset >> 3)


PASSES = {
    "udp": lambda a: udp_packet(a.mute, a.peer, 1, 2),
    "tcp": lambda a: tcp_packet(a.mute, a.peer, 1, 2),
    "tcp, no flags": lambda a: tcp_packet(a.mute, a.peer, 1, 2, 0),
    "echo": lambda a: echo_packet(a.mute, a.peer, 7),
    "first fragment": lambda a: own_fragment(a, 0, True),
    "later fragment": lambda a: own_fragment(a, 64, False),
    "gre": lambda a: ip(a.mute, a.peer, GRE, bytes(4) + udp_packet(a.mute, a.outside, 1, 2)),
    "ipip": lambda a: ip(a.mute, a.peer, 4, udp_packet(V4.mute, V4.outside, 1, 2)),
    "6in": lambda a: ip(a.mute, a.peer, 41, udp_packet(V6.mute, V6.outside, 1, 2)),
    "vxlan": lambda a: udp_packet(a.mute, a.peer, 1, 4789, bytes(8 + 14)),
    "sctp": lambda a: ip(a.mute, a.peer, SCTP, bytes(12)),
    "icmp error": lambda a: icmp_packet(a.mute, a.peer, 1 if a.v6 else 3, 1, payload=bytes(40)),
}


@both
@pytest.mark.parametrize("what", PASSES)
def test_passes_to_the_cluster(steering, a, what):
    assert steering.verdict(steering.frame(PASSES[what](a))) == ("pass", None)


def routing(left, following=UDP, payload=None):
    payload = udp(V6.mute, V6.peer, 1, 2) if payload is None else payload
    return struct.pack("!BBBBI", following, 0, 0, left, 0) + payload


def many_headers(n, first=DSTOPTS):
    payload, following = udp(V6.mute, V6.peer, 1, 2), UDP
    for _ in range(n):
        payload, following = ext(following, payload), first
    return ip6(V6.mute, V6.peer, following, payload)


def nd(kind, src, dst, target=None, hops=255, code=0, more=b""):
    return icmp_packet(src, dst, kind, code, bytes(4), (addr(target) if target else b"") + more,
                       ttl=hops)


def mld2(src, hops=1):
    body = icmp_packet(src, ALL_MLD, 143, 0, struct.pack("!HH", 0, 1),
                       struct.pack("!BBH16s", 4, 0, 0, addr("ff02::1:ff00:c")))[40:]
    return ip6(src, ALL_MLD, HOPOPTS, ext(ICMP6, body, body=b"\x05\x02\0\0\x01\0"), hops)


LINK_LOCAL = "fe80::c"
PASSES_MORE = {
    "options": ip4(V4.mute, V4.peer, UDP, udp(V4.mute, V4.peer, 1, 2), options=b"\x07\x07\x04\0\0\0\0\0"),
    "router alert": ip4(V4.mute, V4.peer, UDP, udp(V4.mute, V4.peer, 1, 2), options=b"\x94\4\0\0"),
    "end of options": ip4(V4.mute, V4.peer, UDP, udp(V4.mute, V4.peer, 1, 2), options=b"\0\x83\3\4"),
    "padding": udp_packet(V4.mute, V4.peer, 1, 2) + bytes(20),
    "no routers left": ip6(V6.mute, V6.peer, ROUTING, routing(0)),
    "a few headers": many_headers(3),
    "authentication": ip6(V6.mute, V6.peer, AH, struct.pack("!BBHII", UDP, 1, 0, 1, 1) +
                          udp(V6.mute, V6.peer, 1, 2)),
    "no next header": ip6(V6.mute, V6.peer, NONE6),
    "solicitation": nd(135, V6.mute, "ff02::1:ff00:1", V6.gateway),
    "solicitation from the link": nd(135, LINK_LOCAL, "ff02::1:ff00:1", ROUTER),
    "solicitation of one": nd(135, V6.mute, ROUTER, ROUTER),
    "solicitation in the cluster": nd(135, V6.mute, V6.gateway, V6.gateway),
    "duplicate address detection": nd(135, "::", "ff02::1:ff00:c", V6.mute),
    "advertisement": nd(136, V6.mute, ALL_NODES, V6.mute),
    "advertisement to one": nd(136, LINK_LOCAL, ROUTER, LINK_LOCAL),
    "advertisement in the cluster": nd(136, V6.mute, V6.gateway, V6.mute),
    "router solicitation": nd(133, LINK_LOCAL, ALL_ROUTERS),
    "router solicitation, no address": nd(133, "::", ALL_ROUTERS),
    "mld": mld2(LINK_LOCAL),
    "mld, no address": mld2("::"),
}


@pytest.mark.parametrize("what", PASSES_MORE)
def test_passes(steering, what):
    assert steering.verdict(steering.frame(PASSES_MORE[what])) == ("pass", None)


# ---- what is refused, and how ----

def first_fragment(a, proto, payload, dst=None):
    dst = dst or a.outside
    if a.v6:
        return ip6(a.mute, dst, FRAGMENT, fragment6(proto, payload, 0, True))
    return ip4(a.mute, dst, proto, payload, frag=0x2000)


def later_fragment(a, proto, offset, more=False):
    if a.v6:
        return ip6(a.mute, a.outside, FRAGMENT, fragment6(proto, b"x" * 16, offset, more))
    return ip4(a.mute, a.outside, proto, b"x" * 16, frag=more << 13 | offset >> 3)


def error_about(a, quoted):
    return icmp_packet(a.mute, a.outside, 1 if a.v6 else 3, 4 if a.v6 else 3, payload=quoted)


def bare(a, proto, payload):
    return ip(a.mute, a.outside, proto, payload)


# What, how it is counted, and what the pod gets for it.
REFUSED = {
    "udp": (lambda a: udp_packet(a.mute, a.outside, 1, 443), "PROTOCOL", UDP, "icmp"),
    "big udp": (lambda a: udp_packet(a.mute, a.outside, 1, 443, bytes(1400)), "PROTOCOL", UDP, "icmp"),
    "vxlan": (lambda a: udp_packet(a.mute, a.outside, 1, 4789, bytes(30)), "PROTOCOL", UDP, "icmp"),
    "ipip": (lambda a: bare(a, 4, udp_packet(V4.mute, V4.peer, 1, 2)), "PROTOCOL", 4, "icmp"),
    "6in": (lambda a: bare(a, 41, udp_packet(V6.mute, V6.peer, 1, 2)), "PROTOCOL", 41, "icmp"),
    "gre": (lambda a: bare(a, GRE, bytes(24)), "PROTOCOL", GRE, "icmp"),
    "sctp": (lambda a: bare(a, SCTP, bytes(12)), "PROTOCOL", SCTP, "icmp"),
    "esp": (lambda a: bare(a, 50, bytes(12)), "PROTOCOL", OTHER, "icmp"),
    "no payload": (lambda a: bare(a, 200, b""), "PROTOCOL", OTHER, "icmp"),
    "echo": (lambda a: echo_packet(a.mute, a.outside, 7), "PROTOCOL", None, "icmp"),
    "unasked echo reply": (lambda a: echo_packet(a.mute, a.outside, 7, True), "PROTOCOL", None, "icmp"),
    "icmp error": (lambda a: error_about(a, udp_packet(a.outside, a.mute, 1, 2)), "PROTOCOL", None, None),
    "icmp error, nothing": (lambda a: error_about(a, b""), "PROTOCOL", None, None),
    "icmp error about echo": (lambda a: error_about(a, echo_packet(a.outside, a.mute, 1)), "PROTOCOL",
                              None, None),
    "first fragment": (lambda a: first_fragment(a, UDP, udp(a.mute, a.outside, 1, 2, bytes(16))),
                       "PROTOCOL", UDP, "icmp"),
    "tiny first fragment": (lambda a: first_fragment(a, UDP, b"\0\1\0\2"), "MALFORMED", UDP, None),
    "later fragment": (lambda a: later_fragment(a, UDP, 1480), "FRAGMENT", UDP, None),
    "overlapping fragment": (lambda a: later_fragment(a, UDP, 8, True), "FRAGMENT", UDP, None),
    "tcp fragment": (lambda a: first_fragment(a, TCP, tcp(a.mute, a.outside, 1, 2, payload=b"x" * 4)),
                     "FRAGMENT", TCP, None),
    "tiny tcp fragment": (lambda a: first_fragment(a, TCP, b"\0\1\0\2\0\0\0\0"), "FRAGMENT", TCP, None),
    "later tcp fragment": (lambda a: later_fragment(a, TCP, 8), "FRAGMENT", TCP, None),
    "syn": (lambda a: tcp_packet(a.mute, a.outside, 1, 2), "NO_LISTENER", TCP, "rst"),
    "syn with data": (lambda a: tcp_packet(a.mute, a.outside, 1, 2, payload=b"x" * 99),
                      "NO_LISTENER", TCP, "rst"),
    "syn with options": (lambda a: tcp_packet(a.mute, a.outside, 1, 2, options=b"\2\4\5\xb4\4\2\1\1"),
                         "NO_LISTENER", TCP, "rst"),
    "syn-ack": (lambda a: tcp_packet(a.mute, a.outside, 1, 2, SYN | ACK, ack=77), "NO_LISTENER", TCP, "rst"),
    "ack": (lambda a: tcp_packet(a.mute, a.outside, 1, 2, ACK, ack=77, payload=b"hello"),
            "NO_LISTENER", TCP, "rst"),
    "fin": (lambda a: tcp_packet(a.mute, a.outside, 1, 2, FIN), "NO_LISTENER", TCP, "rst"),
    "rst": (lambda a: tcp_packet(a.mute, a.outside, 1, 2, RST), "NO_LISTENER", TCP, None),
    "no tcp header": (lambda a: bare(a, TCP, b"x" * 19), "MALFORMED", TCP, None),
    "short tcp header": (lambda a: tcp_packet(a.mute, a.outside, 1, 2, doff=4), "MALFORMED", TCP, None),
    "long tcp header": (lambda a: tcp_packet(a.mute, a.outside, 1, 2, doff=6), "MALFORMED", TCP, None),
    "no udp header": (lambda a: bare(a, UDP, b"x" * 7), "MALFORMED", UDP, None),
    "spoofed": (lambda a: udp_packet(a.pod, a.peer, 1, 2), "SPOOFED", UDP, None),
    "spoofed to the outside": (lambda a: tcp_packet(a.pod, a.outside, 1, 2), "SPOOFED", TCP, None),
    "spoofed by the outside": (lambda a: tcp_packet(a.outside, a.peer, 1, 2), "SPOOFED", TCP, None),
    "spoofed fragment": (lambda a: ip(a.pod, a.peer, FRAGMENT, fragment6(UDP, b"x" * 8, 64)) if a.v6
                         else ip4(a.pod, a.peer, UDP, b"x", frag=8), "SPOOFED", UDP, None),
    "to loopback": (lambda a: tcp_packet(a.mute, a.loopback, 1, 2), "OUTSIDE", TCP, "rst"),
    "to a group": (lambda a: udp_packet(a.mute, "ff02::fb" if a.v6 else "224.0.0.251", 1, 5353), "PROTOCOL",
                   UDP, None),
    "tcp to a group": (lambda a: tcp_packet(a.mute, "ff0e::1" if a.v6 else "239.1.1.1", 1, 2), "OUTSIDE",
                       TCP, None),
}


def check_reset(got, sent, payload):
    """RFC 9293, 3.10.7.1."""
    sent_len = len(payload) + bool(sent.flags & SYN) + bool(sent.flags & FIN)
    assert (got.sport, got.dport) == (sent.dport, sent.sport)
    if sent.flags & ACK:
        assert (got.flags, got.seq, got.ack) == (RST, sent.ack, 0)
    else:
        assert (got.flags, got.seq, got.ack) == (RST | ACK, 0, sent.seq + sent_len)


def is_answer(packet):
    """The node speaks to groups now and then, by itself."""
    return not ipaddress.ip_address(packet.dst).is_multicast


def check_answer(sniffer, sent, kind):
    """Exactly the answer, or none: what goes to the pod behind it is the next frame."""
    sent = parse(sent)
    if kind is None:
        assert sniffer.packets(is_answer) == []
        return
    got = sniffer.wait(is_answer, f"an answer to {sent}")
    assert got.good and (got.src, got.dst) == (sent.dst, sent.src)
    assert got.frame[:12] == sent.frame[6:12] + sent.frame[:6]
    if kind == "rst":
        assert got.proto == TCP and got.payload == b""
        check_reset(got, sent, sent.payload)
    else:
        assert (got.proto, got.type, got.code) == ((ICMP6, 1, 1) if ":" in sent.src else (ICMP, 3, 13))
        assert got.payload == sent.frame[14:][:128]


@both
@pytest.mark.parametrize("what", REFUSED)
def test_refused(steering, a, what):
    make, why, proto, answer = REFUSED[what]
    frame = steering.frame(make(a))
    with Sniffer(steering.mute, "eth0") as back, Sniffer(steering.outside, "node0") as out:
        assert steering.verdict(frame) == (why, proto or (ICMP6 if a.v6 else ICMP))
        check_answer(back, frame, answer)
        assert not out.packets(lambda p: p.src in (a.mute, a.pod))


@both
@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_silence(guarding, a, what):
    """Where rules in the pod have answered already: what gets here has gone around them."""
    make, why, proto, _ = REFUSED[what]
    why = "OUTSIDE" if why in ("PROTOCOL", "NO_LISTENER") else why
    frame = guarding.frame(make(a))
    with Sniffer(guarding.mute, "eth0") as back, Sniffer(guarding.outside, "node0") as out:
        assert guarding.verdict(frame) == (why, proto or (ICMP6 if a.v6 else ICMP))
        assert back.packets(is_answer) == []
        assert not out.packets(lambda p: p.src in (a.mute, a.pod))


@both
def test_no_answer_to_a_frame_for_all(steering, a):
    frame = steering.frame(udp_packet(a.mute, a.outside, 1, 443), dst="ff:ff:ff:ff:ff:ff")
    with Sniffer(steering.mute, "eth0") as back:
        assert steering.verdict(frame) == ("PROTOCOL", UDP)
        assert back.packets(is_answer) == []


def source_routed(kind, dst=V4.peer):
    return ip4(V4.mute, dst, UDP, udp(V4.mute, dst, 1, 2),
               options=bytes([1, kind, 7, 4]) + addr(V4.outside))


REFUSED_MORE = {
    "lsrr": (source_routed(131), "SOURCE_ROUTE", UDP),
    "ssrr": (source_routed(137), "SOURCE_ROUTE", UDP),
    "lsrr to the outside": (source_routed(131, V4.outside), "SOURCE_ROUTE", UDP),
    "option of no length": (ip4(V4.mute, V4.peer, UDP, bytes(8), options=b"\x07\0\0\0"), "MALFORMED", UDP),
    "too many options": (ip4(V4.mute, V4.peer, UDP, bytes(8), options=b"\1" * 20 + b"\x83\3\4\0"),
                         "MALFORMED", UDP),
    "short header": (ip4(V4.mute, V4.peer, UDP, bytes(8), ihl=4), "MALFORMED", UDP),
    "header longer than the packet": (ip4(V4.mute, V4.peer, UDP, bytes(8), ihl=15), "MALFORMED", UDP),
    "version": (ip4(V4.mute, V4.peer, UDP, bytes(8), version=5), "MALFORMED", UDP),
    "length 0": (ip4(V4.mute, V4.peer, UDP, bytes(8), length=0), "MALFORMED", UDP),
    "length 19": (ip4(V4.mute, V4.peer, UDP, bytes(8), length=19), "MALFORMED", UDP),
    "longer than the frame": (ip4(V4.mute, V4.peer, UDP, bytes(8), length=1000), "MALFORMED", UDP),
    "truncated": (ip4(V4.mute, V4.peer, UDP)[:19], "MALFORMED", OTHER),
    "igmp": (ip4(V4.mute, "224.0.0.22", IGMP, bytes(8), ttl=1, options=b"\x94\4\0\0"), "PROTOCOL", OTHER),
    "no source": (udp_packet("0.0.0.0", V4.peer, 1, 2), "SPOOFED", UDP),
    "dhcp not allowed": (udp_packet("0.0.0.0", "255.255.255.255", 68, 67), "SPOOFED", UDP),
    "dhcpv6 not allowed": (udp_packet("fe80::77", "ff02::1:2", 546, 547), "SPOOFED", UDP),
    "broadcast": (udp_packet(V4.mute, "255.255.255.255", 1, 2), "PROTOCOL", UDP),
    "version 6": (ip6(V6.mute, V6.peer, UDP, bytes(8), version=4), "MALFORMED", OTHER),
    "longer than the frame 6": (ip6(V6.mute, V6.peer, UDP, bytes(8), length=9), "MALFORMED", OTHER),
    "truncated 6": (ip6(V6.mute, V6.peer, UDP)[:39], "MALFORMED", OTHER),
    "routing header": (ip6(V6.mute, V6.peer, ROUTING, routing(1)), "SOURCE_ROUTE", OTHER),
    "routing header behind others": (
        ip6(V6.mute, V6.peer, HOPOPTS, ext(DSTOPTS, ext(ROUTING, routing(1)))), "SOURCE_ROUTE", OTHER),
    "routing header behind authentication": (
        ip6(V6.mute, V6.peer, AH, struct.pack("!BBHII", ROUTING, 1, 0, 1, 1) + routing(1)),
        "SOURCE_ROUTE", OTHER),
    "routing header in a fragment": (
        ip6(V6.mute, V6.peer, FRAGMENT, fragment6(ROUTING, routing(1), 0, True)), "SOURCE_ROUTE", OTHER),
    "9 headers": (many_headers(9), "MALFORMED", OTHER),
    "40 headers": (many_headers(40), "MALFORMED", OTHER),
    "40 hop-by-hop headers": (many_headers(40, HOPOPTS), "MALFORMED", OTHER),
    "header beyond the packet": (ip6(V6.mute, V6.peer, DSTOPTS, ext(UDP, b"")[:1] + b"\xff" + bytes(6)),
                                 "MALFORMED", OTHER),
    "half a header": (ip6(V6.mute, V6.peer, DSTOPTS, bytes(7)), "MALFORMED", OTHER),
    "two fragment headers": (
        ip6(V6.mute, V6.peer, FRAGMENT, fragment6(FRAGMENT, fragment6(UDP, bytes(8)))), "MALFORMED", OTHER),
    "fragment ends in the headers": (
        ip6(V6.mute, V6.outside, FRAGMENT, fragment6(DSTOPTS, b"", 0, True)), "MALFORMED", OTHER),
    "mapped destination": (udp_packet(V6.mute, "::ffff:10.244.1.13", 1, 2), "MALFORMED", OTHER),
    "mapped source": (udp_packet(f"::ffff:{V4.mute}", V6.peer, 1, 2), "MALFORMED", OTHER),
    "no source 6": (udp_packet("::", V6.peer, 1, 2), "SPOOFED", UDP),
    "ping from nowhere": (echo_packet("::", ALL_NODES, 1), "SPOOFED", ICMP6),
    "router advertisement": (nd(134, LINK_LOCAL, ALL_NODES, more=bytes(8)), "SPOOFED", ICMP6),
    "router advertisement to the cluster": (nd(134, V6.mute, V6.peer, more=bytes(8)), "SPOOFED", ICMP6),
    "redirect": (nd(137, LINK_LOCAL, V6.peer, V6.outside, more=addr(V6.peer)), "SPOOFED", ICMP6),
    "advertisement of another": (nd(136, V6.mute, ALL_NODES, V6.gateway), "SPOOFED", ICMP6),
    "advertisement of another in the cluster": (nd(136, V6.mute, V6.peer, V6.gateway), "SPOOFED", ICMP6),
    "advertisement of nobody": (nd(136, V6.mute, ALL_NODES), "MALFORMED", ICMP6),
    "advertisement from afar": (nd(136, V6.mute, V6.gateway, V6.mute, hops=254), "MALFORMED", ICMP6),
    "solicitation from another": (nd(135, V6.pod, "ff02::1:ff00:1", V6.gateway), "SPOOFED", ICMP6),
    "detection of another's address": (nd(135, "::", "ff02::1:ff00:d", V6.peer), "SPOOFED", ICMP6),
    "detection of nobody's address": (nd(135, "::", "ff02::1:ff00:c"), "MALFORMED", ICMP6),
    "advertisement from nowhere": (nd(136, "::", ALL_NODES, V6.mute), "SPOOFED", ICMP6),
    "solicitation to the outside": (nd(135, V6.mute, V6.outside, V6.outside, more=b"data"), "PROTOCOL",
                                    ICMP6),
    "unasked advertisement to the outside": (nd(136, V6.mute, V6.outside, V6.mute, more=b"data"),
                                             "PROTOCOL", ICMP6),
    "fragmented solicitation": (
        ip6(V6.mute, ROUTER, FRAGMENT, fragment6(ICMP6, nd(135, V6.mute, ROUTER, ROUTER)[40:]), 255),
        "FRAGMENT", ICMP6),
    "listener query": (icmp_packet(LINK_LOCAL, ALL_NODES, 130, payload=bytes(16), ttl=1), "PROTOCOL", ICMP6),
    "mld elsewhere": (icmp_packet(V6.mute, V6.outside, 131, payload=bytes(16), ttl=1), "PROTOCOL", ICMP6),
    "ping to the router's link": (echo_packet(LINK_LOCAL, ROUTER, 1), "PROTOCOL", ICMP6),
    "tcp to the router's link": (tcp_packet(LINK_LOCAL, ROUTER, 1, 22), "OUTSIDE", TCP),
}


@pytest.mark.parametrize("what", REFUSED_MORE)
def test_refused_one_family(steering, what):
    packet, why, proto = REFUSED_MORE[what]
    frame = steering.frame(packet, 0x86DD if what == "version 6" else None)
    with Sniffer(steering.outside, "node0") as out:
        assert steering.verdict(frame) == (why, proto)
        assert out.packets(lambda p: p.src in (V4.mute, V6.mute)) == []


def port_of(world, mac):
    """Where the bridge takes a link address to be."""
    shown = world.node.run(["bridge", "-j", "fdb", "show", "br", "cni0"]).stdout
    return next((e["ifname"] for e in json.loads(shown) if e["mac"] == mac), None)


def test_a_bridge_is_told_no_lies(quiet):
    """It learns from frames whose link address is where; one that is not the pod's is refused."""
    mac = quiet.link(quiet.peer, "eth0")["address"]
    assert quiet.peer.run(["ping", "-c1", V4.gateway]).returncode == 0
    for packet in (udp_packet(V4.mute, V4.gateway, 1, 2), tcp_packet(V6.mute, V6.outside, 1, 2)):
        assert quiet.verdict(quiet.frame(packet, src=mac)) == ("SPOOFED", ETHER)
    assert quiet.verdict(quiet.frame(arp(1, MAC, V4.mute, V4.gateway), 0x0806, src=mac)) == ("SPOOFED", ETHER)
    assert port_of(quiet, mac) == "peer"
    quiet.put("mute", mac="00:00:00:00:00:00")

    def learns_a_lie():
        assert quiet.verdict(quiet.frame(udp_packet(V4.mute, V4.gateway, 1, 2), src=mac)) == ("pass", None)
        return port_of(quiet, mac) == "mute"

    # The peer's own words for its neighbours may come in between, and teach the bridge the truth again.
    wait_for(learns_a_lie, what="what it would learn")


# ---- what is not IP ----

def vlan(payload, ethertype=0x8100, inner=0x0800):
    return ethertype, struct.pack("!HH", 5, inner) + payload


INNER = udp_packet(V4.mute, V4.peer, 1, 2)
MAC = "02:00:00:00:00:99"
LINK = {
    "arp request": (0x0806, arp(1, MAC, V4.mute, V4.gateway), ("pass", None)),
    "arp reply": (0x0806, arp(2, MAC, V4.mute, V4.gateway), ("pass", None)),
    "gratuitous arp": (0x0806, arp(1, MAC, V4.mute, V4.mute), ("pass", None)),
    "arp probe": (0x0806, arp(1, MAC, "0.0.0.0", V4.mute), ("pass", None)),
    "arp probe of another's": (0x0806, arp(1, MAC, "0.0.0.0", V4.peer), ("SPOOFED", ARP)),
    "arp reply from nowhere": (0x0806, arp(2, MAC, "0.0.0.0", V4.gateway), ("SPOOFED", ARP)),
    "arp of the router": (0x0806, arp(2, MAC, V4.gateway, V4.peer), ("SPOOFED", ARP)),
    "arp of another pod": (0x0806, arp(1, MAC, V4.pod, V4.peer), ("SPOOFED", ARP)),
    "truncated arp": (0x0806, arp(1, MAC, V4.mute, V4.peer)[:27], ("MALFORMED", ARP)),
    "arp for something else": (0x0806, b"\0\6" + arp(1, MAC, V4.mute, V4.peer)[2:], ("MALFORMED", ARP)),
    "vlan": (*vlan(INNER), ("VLAN", ETHER)),
    "priority tag": (0x8100, struct.pack("!HH", 0x2000, 0x0800) + INNER, ("VLAN", ETHER)),
    "provider vlan": (*vlan(INNER, 0x88A8), ("VLAN", ETHER)),
    "two tags": (*vlan(struct.pack("!HH", 5, 0x0800) + INNER, 0x88A8, 0x8100), ("VLAN", ETHER)),
    "802.3 llc": (len(INNER) + 8, b"\xaa\xaa\3\0\0\0\x08\0" + INNER, ("ETHERTYPE", ETHER)),
    "pppoe": (0x8864, b"\x11\0\0\1\0\x20\0\x21" + INNER, ("ETHERTYPE", ETHER)),
    "mpls": (0x8847, struct.pack("!I", 0x1140) + INNER, ("ETHERTYPE", ETHER)),
    "lldp": (0x88CC, bytes(40), ("ETHERTYPE", ETHER)),
    "ipx": (0x8137, bytes(40), ("ETHERTYPE", ETHER)),
}


@pytest.mark.parametrize("what", LINK)
def test_link_layer(steering, what):
    ethertype, payload, verdict = LINK[what]
    assert steering.verdict(steering.frame(payload, ethertype)) == verdict


def test_protocol_numbers_are_not_taken_for_ours(steering):
    for proto in (ARP, ETHER, OTHER):
        assert steering.verdict(steering.frame(ip4(V4.mute, V4.outside, proto))) == ("PROTOCOL", OTHER)


def test_dhcp(steering):
    """A pod that may ask for an address may do that, and nothing more."""
    def seen(packet):
        return steering.verdict(steering.frame(packet))[0]
    steering.put("mute", flags=STEER | DHCP)
    try:
        assert seen(udp_packet("0.0.0.0", "255.255.255.255", 68, 67)) == "pass"
        assert seen(udp_packet("0.0.0.0", V4.gateway, 68, 67)) == "pass"
        assert seen(udp_packet(V4.mute, V4.gateway, 68, 67)) == "pass"
        assert seen(udp_packet("fe80::77", "ff02::1:2", 546, 547)) == "pass"
        assert seen(udp_packet("0.0.0.0", V4.outside, 68, 67)) == "SPOOFED"
        assert seen(udp_packet("0.0.0.0", "255.255.255.255", 68, 53)) == "SPOOFED"
        assert seen(udp_packet("0.0.0.0", "255.255.255.255", 1068, 67)) == "SPOOFED"
        assert seen(udp_packet(V4.pod, V4.gateway, 68, 67)) == "SPOOFED"
        assert seen(udp_packet(V4.mute, V4.outside, 68, 67)) == "PROTOCOL"
        assert seen(udp_packet(V4.mute, "255.255.255.255", 68, 67)) == "PROTOCOL"
        assert seen(udp_packet("fe80::77", "ff0e::1:2", 546, 547)) == "SPOOFED"
        assert seen(udp_packet("fe80::77", V6.outside, 546, 547)) == "SPOOFED"
        assert seen(udp_packet("2001:db8::1", "ff02::1:2", 546, 547)) == "SPOOFED"
        assert seen(ip4("0.0.0.0", "255.255.255.255", UDP, udp("0.0.0.0", "255.255.255.255", 68, 67),
                        frag=0x2000)) == "SPOOFED"
    finally:
        steering.put("mute")


def test_networks_cut_out(steering):
    """The longest prefix decides, whichever way, and a change is in force with the next packet."""
    inside = [udp_packet(a.mute, a.peer, 1, 2) for a in (V4, V6)]
    cut = [f"{V4.peer}/32", f"{V6.peer}/128"]
    for net in cut:
        steering.prog.ask("net", net, 0)
    try:
        for packet in inside:
            assert steering.verdict(steering.frame(packet)) == ("PROTOCOL", UDP)
    finally:
        for net in cut:
            steering.prog.ask("net", net, 1)
    for packet in inside:
        assert steering.verdict(steering.frame(packet)) == ("pass", None)


@both
def test_unknown_pod_has_no_way(steering, a):
    steering.prog.ask("forget", steering.hosts["mute"][0])
    try:
        for payload, ethertype in ((udp_packet(a.mute, a.peer, 1, 2), None),
                                   (arp(1, MAC, V4.mute, V4.gateway), 0x0806)):
            assert steering.verdict(steering.frame(payload, ethertype)) == ("UNKNOWN_POD", ETHER)
    finally:
        steering.put("mute")


# ---- what was opened from outside ----

class Inbound:
    """Packets from the outside for the mute pod, put on the wire by hand."""

    def __init__(self, world, a):
        self.world, self.a = world, a

    def bring(self, packet):
        """To the pod; returns when it is there."""
        with Sniffer(self.world.mute, "eth0") as pod:
            self.send(packet)
            pod.wait(lambda p: p.src == self.a.outside, "the packet is in the pod")

    def send(self, packet):
        """By the node, whose router sends it; as if it had just been forwarded."""
        mac = self.world.link(self.world.mute, "eth0")["address"]
        frame = self.world.frame(packet, dst=mac, src="02:00:00:00:00:01")
        with self.world.node.entered():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sock:
            sock.bind(("mute", 0))
            sock.send(frame)

    def answer(self, packet):
        return self.world.verdict(self.world.frame(packet))[0]


@pytest.fixture
def quiet(request):
    """A guard that has seen nothing yet, and no agent."""
    with GuardWorld() as world:
        yield world


@both
def test_answers_to_udp(quiet, a):
    wire = Inbound(quiet, a)
    answer = udp_packet(a.mute, a.outside, 53, 4000)
    assert wire.answer(answer) == "PROTOCOL"
    assert quiet.flows("mute") == {}
    wire.bring(udp_packet(a.outside, a.mute, 4000, 53))
    assert quiet.flows("mute") == {"datagram": 1}
    assert wire.answer(answer) == "pass"
    # Nobody else, and nothing else.
    assert wire.answer(udp_packet(a.mute, a.elsewhere, 53, 4000)) == "PROTOCOL"
    assert wire.answer(udp_packet(a.mute, a.outside, 53, 4001)) == "PROTOCOL"
    assert wire.answer(udp_packet(a.mute, a.outside, 54, 4000)) == "PROTOCOL"
    assert wire.answer(tcp_packet(a.mute, a.outside, 53, 4000)) == "NO_LISTENER"
    assert wire.answer(echo_packet(a.mute, a.outside, 53, True)) == "PROTOCOL"
    wire.bring(udp_packet(a.outside, a.mute, 4000, 53))
    assert quiet.flows("mute") == {"datagram": 1}


@both
def test_answers_to_echo(quiet, a):
    wire = Inbound(quiet, a)
    wire.bring(echo_packet(a.outside, a.mute, 99))
    assert wire.answer(echo_packet(a.mute, a.outside, 99, True)) == "pass"
    assert wire.answer(echo_packet(a.mute, a.outside, 98, True)) == "PROTOCOL"
    assert wire.answer(echo_packet(a.mute, a.outside, 99)) == "PROTOCOL"
    assert quiet.flows("mute") == {"datagram": 1}


@both
def test_fragments_of_an_answer(quiet, a):
    wire = Inbound(quiet, a)

    def piece(offset, more, ident=5, proto=UDP):
        data = udp(a.mute, a.outside, 53, 4000, bytes(2000))
        data = data[offset:offset + 1000] if more else data[offset:]
        if a.v6:
            return ip6(a.mute, a.outside, FRAGMENT, fragment6(proto, data, offset, more, ident))
        return ip4(a.mute, a.outside, proto, data, ident=ident, frag=more << 13 | offset >> 3)

    assert wire.answer(piece(0, True)) == "PROTOCOL"
    assert wire.answer(piece(1000, False)) == "FRAGMENT"
    wire.bring(udp_packet(a.outside, a.mute, 4000, 53))
    assert wire.answer(piece(1000, False)) == "FRAGMENT"
    assert wire.answer(piece(0, True)) == "pass"
    assert wire.answer(piece(1000, False)) == "pass"
    assert wire.answer(piece(1000, False, ident=6)) == "FRAGMENT"
    assert wire.answer(piece(1000, False, proto=SCTP)) == "FRAGMENT"


@both
def test_a_handshake_from_outside(quiet, a):
    """From SYN to the last acknowledgment, with what the table makes of it."""
    wire = Inbound(quiet, a)

    def came(flags, seq, ack=0):
        wire.bring(tcp_packet(a.outside, a.mute, 4000, 80, flags, seq=seq, ack=ack))

    def went(flags, seq, ack=0, payload=b""):
        return wire.answer(tcp_packet(a.mute, a.outside, 80, 4000, flags, seq=seq, ack=ack,
                                      payload=payload))

    assert went(SYN | ACK, 500, 101) == "NO_LISTENER"
    assert quiet.flows("mute") == {}
    came(SYN, 100)
    assert quiet.flows("mute") == {"half": 1}
    came(ACK, 101, 501)
    assert quiet.flows("mute") == {"half": 1}, "the pod has not answered yet"
    assert went(SYN | ACK, 500, 101) == "pass"
    came(ACK, 101, 70000)
    assert quiet.flows("mute") == {"half": 1}, "not what the pod has sent"
    came(ACK, 101, 501)
    assert quiet.flows("mute") == {"open": 1}
    assert went(ACK, 501, 101, b"hello") == "pass"
    came(RST, 0x40000000)
    assert quiet.flows("mute") == {"open": 1}, "nowhere near the window: forged"
    came(SYN, 9999)
    assert quiet.flows("mute") == {"open": 1}
    came(FIN | ACK, 101, 506)
    assert quiet.flows("mute") == {"fin": 1}
    assert went(ACK, 506, 102, b"and more") == "pass"
    assert went(FIN | ACK, 514, 102) == "pass"
    assert quiet.flows("mute") == {"closing": 1}
    came(ACK, 102, 515)
    assert went(ACK, 515, 102) == "pass", "the last acknowledgment may have to be repeated"
    came(SYN, 7000)
    assert quiet.flows("mute") == {"half": 1}, "the same ports again"
    came(SYN | ACK, 7000, 501)
    assert went(SYN, 500) == "NO_LISTENER", "that opens a connection to the outside"
    assert went(RST | ACK, 0, 7001) == "pass"
    assert quiet.flows("mute") == {"closing": 1}


@both
def test_the_remote_resets(quiet, a):
    wire = Inbound(quiet, a)
    wire.bring(tcp_packet(a.outside, a.mute, 4000, 80, seq=100))
    wire.answer(tcp_packet(a.mute, a.outside, 80, 4000, SYN | ACK, seq=500, ack=101))
    wire.bring(tcp_packet(a.outside, a.mute, 4000, 80, ACK, seq=101, ack=501))
    wire.bring(tcp_packet(a.outside, a.mute, 4000, 80, RST, seq=101))
    assert quiet.flows("mute") == {"closing": 1}


@both
def test_only_openers_open(quiet, a):
    wire = Inbound(quiet, a)
    for flags in (SYN | ACK, ACK, FIN, RST, FIN | ACK, RST | ACK, SYN | RST, 0):
        wire.bring(tcp_packet(a.outside, a.mute, 4000, 80, flags, ack=1))
        assert wire.answer(tcp_packet(a.mute, a.outside, 80, 4000, ACK, ack=1)) == "NO_LISTENER"
    wire.bring(icmp_packet(a.outside, a.mute, 1 if a.v6 else 3, 1,
                           payload=udp_packet(a.mute, a.outside, 53, 4000)))
    wire.bring(echo_packet(a.outside, a.mute, 3, True))
    wire.bring(later_fragment_to(a))
    assert quiet.flows("mute") == {}
    assert wire.answer(udp_packet(a.mute, a.outside, 53, 4000)) == "PROTOCOL"


def later_fragment_to(a):
    if a.v6:
        return ip6(a.outside, a.mute, FRAGMENT, fragment6(UDP, bytes(16), 64))
    return ip4(a.outside, a.mute, UDP, bytes(16), frag=8)


@both
def test_what_another_was_sent_opens_nothing(quiet, a):
    """A bridge that does not know where a pod is sends to every port."""
    wire = Inbound(quiet, a)
    opener = udp_packet(a.outside, a.peer, 4000, 53)
    quiet.node.ip(f"neigh replace {a.peer} lladdr 02:00:00:00:77:77 dev cni0")
    with Sniffer(quiet.mute, "eth0") as pod, quiet.outside.socket(a.family, socket.SOCK_DGRAM) as sock:
        sock.bind((a.outside, 4000))
        sock.sendto(b"for another", (a.peer, 53))
        pod.wait(lambda p: (p.src, p.dst) == (a.outside, a.peer), "the bridge floods it")
    for packet in (opener, tcp_packet(a.outside, a.peer, 4000, 80), echo_packet(a.outside, a.peer, 9)):
        wire.bring(packet)
    assert quiet.flows("mute") == {}
    assert wire.answer(udp_packet(a.mute, a.outside, 53, 4000)) == "PROTOCOL"
    assert wire.answer(echo_packet(a.mute, a.outside, 9, True)) == "PROTOCOL"
    wire.bring(udp_packet(a.outside, a.mute, 4000, 53))
    assert wire.answer(udp_packet(a.mute, a.outside, 53, 4000)) == "pass"


@both
def test_the_cluster_opens_nothing(quiet, a):
    """What comes from inside needs no entry: the answer goes there anyway."""
    with Sniffer(quiet.mute, "eth0") as pod:
        Inbound(quiet, a).send(udp_packet(a.peer, a.mute, 4000, 53))
        pod.wait(lambda p: p.src == a.peer)
    assert quiet.flows("mute") == {}


@both
def test_icmp_errors_about_what_came(quiet, a):
    wire = Inbound(quiet, a)
    kinds = ((1, 4), (2, 0), (3, 0), (4, 0)) if a.v6 else ((3, 3), (3, 4), (11, 0), (12, 0))

    def about(quoted, dst=None, kind=kinds[0]):
        return wire.answer(icmp_packet(a.mute, dst or a.outside, *kind, payload=quoted))

    udp_in = udp_packet(a.outside, a.mute, 4000, 53)
    tcp_in = tcp_packet(a.outside, a.mute, 4000, 80)
    echo_in = echo_packet(a.outside, a.mute, 9)
    for packet in (udp_in, tcp_in, echo_in):
        assert about(packet) == "PROTOCOL"
        wire.bring(packet)
        for kind in kinds:
            assert about(packet, kind=kind) == "pass"
    assert about(udp_in, dst=a.elsewhere) == "PROTOCOL", "goes elsewhere"
    assert about(udp_packet(a.elsewhere, a.mute, 4000, 53)) == "PROTOCOL", "is about another"
    assert about(udp_packet(a.outside, a.mute, 4001, 53)) == "PROTOCOL"
    assert about(udp_in[:24]) == "PROTOCOL", "no ports left"
    assert about(udp_in, kind=(137, 0) if a.v6 else (5, 0)) in ("PROTOCOL", "SPOOFED"), "redirects"


def test_solicitation_by_the_node(quiet):
    """The node asks with an address that is none of the cluster's; only the link may do that."""
    wire = Inbound(quiet, V6)
    answer = nd(136, V6.mute, V6.outside, V6.mute)
    wire.bring(nd(135, V6.outside, V6.mute, V6.mute, hops=254))
    assert wire.answer(answer) == "PROTOCOL"
    wire.bring(nd(135, V6.outside, V6.mute, V6.mute))
    assert wire.answer(answer) == "pass"
    assert wire.answer(nd(136, V6.mute, V6.elsewhere, V6.mute)) == "PROTOCOL"
    assert wire.answer(echo_packet(V6.mute, V6.outside, 0, True)) == "PROTOCOL"


def test_expiry_and_renewal_are_the_remotes(quiet):
    """What the pod sends does not keep a datagram's entry young, nor a half-open connection's."""
    wire = Inbound(quiet, V4)
    wire.bring(udp_packet(V4.outside, V4.mute, 4000, 53))
    wire.bring(tcp_packet(V4.outside, V4.mute, 4000, 80))
    before = quiet.ages("mute")
    for _ in range(5):
        wire.answer(udp_packet(V4.mute, V4.outside, 53, 4000))
        wire.answer(tcp_packet(V4.mute, V4.outside, 80, 4000, SYN | ACK))
    assert quiet.ages("mute") == before
    wire.answer(tcp_packet(V4.mute, V4.outside, 80, 4000, RST))
    before = quiet.ages("mute")
    for flags in (SYN, SYN | FIN, ACK, RST, FIN):  # and the resets that the guard gives for some
        wire.answer(tcp_packet(V4.mute, V4.outside, 80, 4000, flags))
    assert quiet.ages("mute") == before
    wire.bring(tcp_packet(V4.outside, V4.mute, 4000, 80))
    quiet.prog.ask("age", quiet.hosts["mute"][0], 11)
    assert wire.answer(tcp_packet(V4.mute, V4.outside, 80, 4000, SYN | ACK)) == "NO_LISTENER"
    assert wire.answer(udp_packet(V4.mute, V4.outside, 53, 4000)) == "pass"
    quiet.prog.ask("age", quiet.hosts["mute"][0], 50)
    assert wire.answer(udp_packet(V4.mute, V4.outside, 53, 4000)) == "PROTOCOL"
    wire.bring(udp_packet(V4.outside, V4.mute, 4000, 53))
    assert wire.answer(udp_packet(V4.mute, V4.outside, 53, 4000)) == "pass"


def test_an_entry_from_another_cpus_future_is_alive(quiet):
    """Two CPUs work on one bucket, and the second has waited for the first with a time of before."""
    wire = Inbound(quiet, V4)
    wire.bring(udp_packet(V4.outside, V4.mute, 4000, 53))
    quiet.prog.ask("age", quiet.hosts["mute"][0], -1)
    assert wire.answer(udp_packet(V4.mute, V4.outside, 53, 4000)) == "pass"


# ---- counters and events ----

def test_events_are_few_and_say_how_many_there_were(quiet):
    sent = 300
    frame = quiet.frame(udp_packet(V4.mute, V4.outside, 1111, 443))
    for _ in range(sent):
        quiet.inject(frame)
    wait_for(lambda: quiet.refused("mute") == sent)
    events = quiet.events("mute")
    assert 20 <= len(events) < 100
    assert events[0] == (UDP, "PROTOCOL", 0, V4.mute, 1111, V4.outside, 443)

    def told():
        quiet.inject(frame)
        events.extend(quiet.events("mute"))
        return events[-1][2] > 0
    wait_for(told, what="an event that counts those before it")
    refused = quiet.refused("mute")
    assert len(events) + sum(e[2] for e in events) <= refused


def test_usual_packets_are_counted_without_an_event(quiet):
    igmp = ip4(V4.mute, "224.0.0.22", IGMP, bytes(8), ttl=1)
    assert quiet.verdict(quiet.frame(igmp)) == ("PROTOCOL", OTHER)
    assert quiet.events("mute") == []
    assert quiet.verdict(quiet.frame(ip6(V6.mute, V6.outside, IGMP))) == ("PROTOCOL", OTHER)
    assert quiet.events("mute") == [(IGMP, "PROTOCOL", 1, V6.mute, 0, V6.outside, 0)]


def test_full_counters_open_nothing(quiet):
    quiet.prog.ask("fill", "counts")
    with Sniffer(quiet.mute, "eth0") as back:
        quiet.inject(quiet.frame(udp_packet(V4.mute, V4.outside, 1, 2)))
        assert back.wait(lambda p: p.src == V4.outside).proto == ICMP
    assert quiet.passed("mute") == 0 and quiet.counts("mute") == {}
    assert len(quiet.events("mute")) == 1


def test_full_table_refuses_new_flows_alone(quiet):
    quiet.prog.ask("fill", "flows")
    wire = Inbound(quiet, V4)
    with Sniffer(quiet.mute, "eth0") as pod:
        with pytest.raises(OSError, match="No buffer space"):  # how a sender on the node is told
            wire.send(tcp_packet(V4.outside, V4.mute, 4000, 80))
        wire.send(udp_packet(V4.peer, V4.mute, 4000, 80))
        pod.wait(lambda p: p.src == V4.peer)
        assert pod.packets(lambda p: p.src == V4.outside) == []
    assert quiet.counts("mute") == {(TCP, "FLOWS_FULL"): 1}
    assert quiet.events("mute") == [(TCP, "FLOWS_FULL", 0, V4.outside, 4000, V4.mute, 80)]
    assert wire.answer(tcp_packet(V4.mute, V4.outside, 80, 4000, SYN | ACK)) == "NO_LISTENER"


# ---- anything at all ----

SOL_PACKET, PACKET_VNET_HDR = 263, 15
SEEDS = [make(a) for a in (V4, V6) for make, *_ in REFUSED.values()] + \
    [make(a) for a in (V4, V6) for make in PASSES.values()] + \
    [packet for packet, *_ in REFUSED_MORE.values()] + list(PASSES_MORE.values())


def mutate(dice, frame):
    frame = bytearray(frame)
    for _ in range(dice.randrange(4)):
        frame[dice.randrange(12, min(len(frame), 80))] = dice.choice((0, 1, 4, 6, 17, 44, 58, 127, 255,
                                                                     dice.randrange(256)))
    if dice.randrange(4) == 0:
        del frame[max(14, dice.randrange(len(frame))):]
    return bytes(frame)


def offloads(dice, frame):
    """A header for the device (struct virtio_net_hdr): what it is to sum up and cut, true or not."""
    if dice.randrange(2):
        return bytes(10)
    checked, start = dice.randrange(2), dice.choice((34, 54, dice.randrange(len(frame))))
    kind = dice.choice((0, 0, 1, 3, 4, 5))  # none, TCPv4, UDP, TCPv6, UDP_L4
    return struct.pack("<BBHHHH", checked, kind, dice.randrange(len(frame)), dice.randrange(1, 1500), start,
                       dice.choice((6, 16, dice.randrange(64))))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_pod_makes_up(steering, seed):
    """Every packet passes, is the agent's, or is counted, and what gets to the outside's link is for the
    cluster. Every second time there is an agent."""
    with contextlib.ExitStack() as agent:
        for a in (V4, V6) if seed % 2 else ():
            agent.enter_context(steering.listen(a.family))
        make_up(steering, random.Random(seed), least=0.5 if seed % 2 else 0.9)


def make_up(steering, dice, least):
    sent = 0
    before = steering.refused("mute") + steering.passed("mute")
    inside = [ipaddress.ip_network(net) for net in CLUSTER]
    with steering.mute.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.bind(("eth0", 0))
    with sock, Sniffer(steering.outside, "node0") as out:
        for _ in range(3000):
            frame = mutate(dice, steering.frame(dice.choice(SEEDS)))
            try:
                sock.send(offloads(dice, frame) + frame)
                sent += 1
            except OSError:
                pass  # the pod's own kernel finds the header for the device impossible
        assert sent > 1000
        wait_for(lambda: steering.refused("mute") + steering.passed("mute") >= before + sent * least)
        for packet in out.packets(lambda p: not p.src.startswith(("192.0.2.1", "2001:db8:2::1", "fe80"))):
            assert any(ipaddress.ip_address(packet.dst) in net for net in inside), packet
    assert steering.refused("mute") > 100 and steering.passed("mute") > 100


def test_cost(quiet):
    """Nanoseconds for each packet of the paths that most packets take; printed with -s."""
    ifindex = quiet.hosts["mute"][0]
    quiet.prog.ask("net", f"{V4.gateway}/32", 1)
    paths = {
        "from a pod to the cluster": ("from", udp_packet(V4.mute, V4.peer, 1, 2)),
        "from a pod to the cluster, v6": ("from", udp_packet(V6.mute, V6.peer, 1, 2)),
        "from a pod, an answer": ("from", udp_packet(V4.mute, V4.outside, 53, 4000)),
        "from a pod, an answer, v6": ("from", udp_packet(V6.mute, V6.outside, 53, 4000)),
        "to a pod from the cluster": ("to", udp_packet(V4.peer, V4.mute, 1, 2)),
        "to a pod, renews a flow": ("to", udp_packet(V4.outside, V4.mute, 4000, 53)),
        "to a pod, of no flow": ("to", tcp_packet(V4.outside, V4.mute, 443, 5, ACK)),
    }
    Inbound(quiet, V4).bring(udp_packet(V4.outside, V4.mute, 4000, 53))
    Inbound(quiet, V6).bring(udp_packet(V6.outside, V6.mute, 4000, 53))
    for name, (way, packet) in paths.items():
        verdict, ns = quiet.prog.ask("run", way, ifindex, 200000, quiet.frame(packet).hex()).split()
        print(f"{name}: {ns} ns")
        assert verdict == "-1", name
        assert int(ns) < 20000
