# SPDX-License-Identifier: Apache-2.0
"""A pod lies to its neighbours about who has which address."""
import json
import struct

import frames
import pytest
from attack import BROADCAST, NODE_IP4, NODE_IP6, NODE_MAC, Attack, hardware_address
from each_backend import backend, world  # noqa: F401
from attackers import add_pod, attacker, newcomer, remove_pod  # noqa: F401
from procs import wait_for
from watch import Tap
from world import World

ROUNDS = 20


def neighbours(ns, ifname):
    """{address: link address}"""
    out = ns.run(["ip", "-j", "neigh", "show", "dev", ifname]).stdout
    return {n["dst"]: n.get("lladdr") for n in json.loads(out or "[]")}


def lie_by_arp(attack, victim_ip, victim_mac, whose):
    """`victim` is told that the attacker has the address `whose`: as a request, an answer, unasked."""
    for operation in (1, 2):
        for target_ip, target_mac, to in ((victim_ip, victim_mac, victim_mac), (whose, BROADCAST, BROADCAST)):
            attack.frame(frames.arp(operation, attack.mac, whose, target_ip, target_mac), dst=to,
                         ethertype=b"\x08\x06")


def lie_by_nd(attack, victim_ip, victim_mac, whose):
    """The same by neighbour advertisement: override, solicited and not."""
    option = b"\x02\x01" + frames.mac(attack.mac)
    for flags in (0x20000000, 0x60000000):
        for src in (whose, attack.ip[6]):
            body = frames.addr(whose) + option
            packet = frames.icmp_packet(src, victim_ip, 136, 0, struct.pack("!I", flags), body, 255)
            attack.frame(packet, dst=victim_mac)


def lie_by_solicitation(attack, victim_ip, victim_mac, whose):
    option = b"\x01\x01" + frames.mac(attack.mac)
    packet = frames.icmp_packet(whose, victim_ip, 135, 0, b"\0" * 4, frames.addr(victim_ip) + option, 255)
    attack.frame(packet, dst=victim_mac)


def lie_as_router(attack, victim_ip, victim_mac, whose):
    """A router advertisement and a redirect."""
    del whose
    own = "fe80::" + frames.eui64(attack.mac)
    advertisement = frames.icmp_packet(own, "ff02::1", 134, 0, struct.pack("!BBH", 64, 0, 1800),
                                       struct.pack("!II", 0, 0) + b"\x01\x01" + frames.mac(attack.mac), 255)
    attack.frame(advertisement, dst="33:33:00:00:00:01")
    redirect = frames.icmp_packet("fe80::ff:fe00:1", victim_ip, 137, 0, b"\0" * 4,
                                  frames.addr(own) + frames.addr("2001:db8:51::66"), 255)
    attack.frame(redirect, dst=victim_mac)


def lie_to_the_bridge(attack, other_mac):
    """Whatever is for the other pod is for this port."""
    for packet in (frames.udp_packet(attack.ip[4], NODE_IP4, 1, 2), frames.udp_packet(attack.ip[6], NODE_IP6, 1, 2)):
        attack.frame(packet, src=other_mac)
    attack.frame(frames.arp(1, attack.mac, attack.ip[4], NODE_IP4), dst=BROADCAST, src=other_mac,
                 ethertype=b"\x08\x06")


def port_of(world, mac):
    """Where the bridge takes a link address to be."""
    shown = json.loads(world.node.run(["bridge", "-j", "fdb", "show", "br", "cni0"]).stdout)
    return next((e["ifname"] for e in shown if e["mac"] == mac), None)


def know_each_other(world, pod):
    """Each entry is there, as it should be, and may change."""
    other = world.pods["pod-b"]
    for address in (NODE_IP4, NODE_IP6):
        for ns in (other, pod):
            assert ns.run(["ping", "-c1", "-W2", address]).returncode == 0
    return hardware_address(other, "eth0")


def lie(attack, other, other_mac):
    for _ in range(ROUNDS):
        lie_by_arp(attack, other.ip4, other_mac, NODE_IP4)
        lie_by_arp(attack, NODE_IP4, NODE_MAC, other.ip4)
        for tell in (lie_by_nd, lie_by_solicitation, lie_as_router):
            tell(attack, other.ip6, other_mac, NODE_IP6)
            tell(attack, NODE_IP6, NODE_MAC, other.ip6)


def believed(world, attack, other):
    """Who took the attacker's link address for another's."""
    found = []
    for name, ns, ifname in (("pod-b", other, "eth0"), ("node", world.node, "cni0")):
        for address, mac in neighbours(ns, ifname).items():
            if mac == attack.mac and address in (NODE_IP4, NODE_IP6, other.ip4, other.ip6):
                found.append((name, address))
    if any(r.get("gateway", "").startswith("fe80") for r in
           json.loads(other.run(["ip", "-6", "-j", "route"]).stdout)):
        found.append(("pod-b", "route"))
    return found


def test_nobody_believes_it(world, attacker):
    other = world.pods["pod-b"]
    mac = know_each_other(world, attacker)
    with Attack(world, attacker) as attack:
        tap = Tap(attacker, "eth0")
        try:
            lie(attack, other, mac)
            assert len(attack.tap.frames()) >= 10 * ROUNDS
            assert attack.arrived() == []
            assert believed(world, attack, other) == []
            for url in ("http://www.example.com/", "https://www.example.com/"):
                got = world.curl(other, url)
                assert got.status == 200 and got.seen_from in ("203.0.113.10", "2001:db8:113::10")
            theirs = [f for f in tap.frames() if frames.parse(f) and
                      frames.parse(f).src in (other.ip4, other.ip6) and frames.parse(f).proto == frames.TCP]
            assert theirs == [], "the other pod's traffic came to the liar"
            attack.wait_refused()
        finally:
            tap.close()


def test_it_would_be_believed(built):
    """When nobody confines the pod."""
    with World() as free:
        pod = add_pod(free)
        other = free.pods["pod-b"]
        mac = know_each_other(free, pod)
        with Attack(free, pod) as attack:
            # Again each time: a word of the other's own in between makes it true again.
            wait_for(lambda: lie(attack, other, mac) or {("pod-b", NODE_IP4), ("node", other.ip4)} <=
                     set(believed(free, attack, other)), what="they believe it")
        remove_pod(free, pod)


def test_nobody_gets_what_is_for_another(world, attacker):
    """By the other pod's link address on frames of its own; also after it has taken that address."""
    other = world.pods["pod-b"]
    mac = know_each_other(world, attacker)
    port = port_of(world, mac)
    with Attack(world, attacker) as attack:
        for _ in range(ROUNDS):
            lie_to_the_bridge(attack, mac)
        attacker.ip(f"link set eth0 address {mac}")
        attacker.run(["ping", "-c1", "-W1", NODE_IP4])
        lie_to_the_bridge(attack, mac)
        attacker.ip(f"link set eth0 address {attack.mac}")
        assert attack.arrived() == []
        assert port_of(world, mac) == port
        attack.wait_refused()


def test_the_bridge_would_believe_it(built):
    with World() as free:
        pod = add_pod(free)
        mac = know_each_other(free, pod)
        port = port_of(free, mac)
        with Attack(free, pod) as attack:
            wait_for(lambda: lie_to_the_bridge(attack, mac) or port_of(free, mac) != port,
                     what="the bridge believes it")
        remove_pod(free, pod)


@pytest.mark.parametrize("address", ["10.244.1.1", "fd00:10:244:1::1"])
def test_taking_anothers_address_is_no_use(world, attacker, address):
    """The pod calls itself the node; who looks for the node still finds it."""
    other = world.pods["pod-b"]
    know_each_other(world, attacker)
    attacker.ip(f"addr add {address}/{128 if ':' in address else 32} dev eth0" +
                (" nodad" if ":" in address else ""))
    with Attack(world, attacker) as attack:
        other.ip(f"neigh flush dev eth0")
        assert other.run(["ping", "-c1", "-W2", address]).returncode == 0
        assert neighbours(other, "eth0")[address] == NODE_MAC
        assert attack.arrived() == []
