# SPDX-License-Identifier: Apache-2.0
"""Frames as they are, at the places that decide whether something got out: the internet, the gateway's
side of the node, and the link of another pod. What is usual there is left out; the rest has leaked.
"""
import collections
import contextlib
import ipaddress
import os
import secrets
import socket
import struct

import frames
import servers
from procs import wait_for
from world import GATEWAY_IPS, INTERNET_WAN, NODE_WAN

ETH_P_ALL = 3
MARKER = b"sluice-marker-"
MARKER_PORT = 9
NODE_IP4, NODE_IP6 = "10.244.1.1", "fd00:10:244:1::1"
GATEWAY, NODE_TO_GATEWAY = "192.0.2.10", "192.0.2.1"
TUNNEL_PORT = 15443
PUBLIC = ipaddress.ip_network("203.0.113.0/24")  # the gateway's

Arrived = collections.namedtuple("Arrived", "where what")


class Tap:
    """Frames of a namespace's interfaces from when it is made; `outgoing` ones or those that come in."""

    def __init__(self, ns, ifname=None, outgoing=False):
        self.outgoing = outgoing
        with ns.entered():
            # Without a protocol it hears nothing yet, then of this interface alone.
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0 if ifname else socket.htons(ETH_P_ALL))
            if ifname:
                self.sock.bind((ifname, ETH_P_ALL))
        self.sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.sock.setblocking(False)
        self.seen = []

    def close(self):
        self.sock.close()

    def frames(self):
        while True:
            try:
                data, where = self.sock.recvfrom(1 << 17)
            except BlockingIOError:
                return self.seen
            if (where[2] == socket.PACKET_OUTGOING) == self.outgoing and where[0] != "lo":
                self.seen.append(data)

    def lost(self):
        """Frames that the kernel could not hand us: then nothing is proven."""
        return struct.unpack("II", self.sock.getsockopt(263, 6, 8))[1]  # PACKET_STATISTICS


def describe(frame):
    packet = frames.parse(frame)
    if packet is None:
        return f"ethertype {frame[12:14].hex()}: {frame[14:60].hex()}"
    return f"{packet.src}:{packet.sport} > {packet.dst}:{packet.dport} protocol {packet.proto}"


def is_housekeeping(frame):
    """What a link needs of its own: ARP, neighbour discovery, MLD, IGMP."""
    if frame[12:14] == b"\x08\x06":
        return True
    if frame[12:14] == b"\x86\xdd" and len(frame) > 62:
        kind = frame[54] if frame[20] == 58 else frame[62] if frame[20] == 0 and frame[54] == 58 else 0
        return 130 <= kind <= 143
    return frame[12:14] == b"\x08\x00" and len(frame) > 33 and frame[23] == 2


def is_usual_in_internet(packet):
    if packet.src in GATEWAY_IPS or ipaddress.ip_address(packet.src) in PUBLIC:
        return True
    return packet.src in NODE_WAN and packet.dst == servers.DNS and packet.dport == 53


def is_usual_at_gateway(packet):
    return packet.src == NODE_TO_GATEWAY and packet.proto == frames.TCP and packet.dport == TUNNEL_PORT


@contextlib.contextmanager
def each_processor():
    """Yields a function's worth of pinning: for cpu in ...: pin(cpu)."""
    mine = os.sched_getaffinity(0)
    try:
        yield sorted(mine), lambda cpu: os.sched_setaffinity(0, {cpu})
    finally:
        os.sched_setaffinity(0, mine)


class Watch:
    """Use as a context manager. `canary`: bytes that must not reach the internet in any packet, nor
    `bystander`, where given. `usual`: which packets may arrive, beside what always may."""

    def __init__(self, world, canary=None, bystander=None, usual=None):
        self.world, self.canary = world, canary
        self.usual = usual or (lambda packet: False)
        self.closing = contextlib.ExitStack()
        self.internet = self._tap(world.internet)
        self.gateway = self._tap(world.gateway, "node0")
        self.bystander = self._tap(bystander, "eth0") if bystander else None
        self.marked = self.closing.enter_context(world.node.socket(kind=socket.SOCK_DGRAM))
        self.marked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.marked.bind((NODE_IP4, MARKER_PORT))
        self.marked.settimeout(0.5)

    def _tap(self, *args):
        tap = Tap(*args)
        self.closing.callback(tap.close)
        return tap

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.closing.close()

    # ---- waiting ----

    def settle(self, ns=None, source=None):
        """Returns when all that was sent before the call has come to where it goes: a marker goes the
        same ways behind it, from each processor, because each has a queue of its own. From eth0 of a
        pod's namespace with the pod's address, too, where they are given."""
        token = MARKER + secrets.token_hex(6).encode()
        with each_processor() as (cpus, pin):
            for cpu in cpus if ns else []:
                pin(cpu)
                self._mark_from_pod(ns, source, token)
            for cpu in cpus:
                pin(cpu)
                self._mark(self.world.node, INTERNET_WAN, token)
                self._mark(self.world.node, GATEWAY, token)
            wait_for(lambda: self._marks(self.gateway, token) >= len(cpus), what="the gateway's markers")
            for cpu in cpus:
                pin(cpu)
                self._mark(self.world.gateway, "203.0.113.1", token)
            wait_for(lambda: self._marks(self.internet, token) >= 2 * len(cpus),
                     what="the internet's markers")

    def _mark_from_pod(self, ns, source, token):
        """To the node, which is cluster: built by hand, so that no state of the pod's is in its way."""
        packet = frames.udp_packet(source, NODE_IP4, MARKER_PORT, MARKER_PORT, token)
        with ns.entered():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sock:
            sock.bind(("eth0", 0))
            frame = frames.mac("02:00:00:00:00:01") + sock.getsockname()[4] + b"\x08\x00" + packet
            wait_for(lambda: sock.send(frame) and self._is_marked(token), what="the pod's marker")

    def _is_marked(self, token):
        """Has it come? If not for long, it may have been lost: an interface that comes up drops."""
        with contextlib.suppress(TimeoutError):
            while self.marked.recv(2048) != token:
                pass
            return True
        return False

    @staticmethod
    def _mark(ns, address, token):
        with ns.socket(kind=socket.SOCK_DGRAM) as sock:
            sock.sendto(token, (address, MARKER_PORT))

    @staticmethod
    def _marks(tap, token):
        return sum(token in frame for frame in tap.frames())

    # ---- judging ----

    def arrived(self):
        """All that has come to where it must not be."""
        taps = [t for t in (self.internet, self.gateway, self.bystander) if t]
        found = [Arrived("internet", describe(f)) for f in self.internet.frames()
                 if self._is_leak(f, is_usual_in_internet)]
        found += [Arrived("gateway", describe(f)) for f in self.gateway.frames()
                  if self._is_leak(f, is_usual_at_gateway)]
        if self.bystander:
            found += [Arrived("another pod", describe(f)) for f in self.bystander.frames()
                      if self.canary in f]
        assert sum(tap.lost() for tap in taps) == 0, "frames were lost: this proves nothing"
        return found

    def _is_leak(self, frame, is_usual):
        if self.canary and self.canary in frame:
            return True
        if MARKER in frame or is_housekeeping(frame):
            return False
        packet = frames.parse(frame)
        return packet is None or not (is_usual(packet) or self.usual(packet))
