# SPDX-License-Identifier: Apache-2.0
"""What really arrived on a namespace's interfaces: a packet socket and a thread that reads it."""
import collections
import ipaddress
import socket
import struct
import threading
import time

from procs import wait_for

ETH_P_ALL = 3
ETH_P_IP = 0x0800
ETH_P_IPV6 = 0x86DD
PACKET_OUTGOING = 4
MARKER_PORT = 9  # discard: what settle() sends
ICMPV6_HOUSEKEEPING = range(130, 144)  # MLD, router and neighbour discovery

Packet = collections.namedtuple("Packet", "src dst proto sport dport")


def _ports(proto, payload):
    if proto in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) and len(payload) >= 4:
        return struct.unpack("!HH", payload[:4])
    if proto == socket.IPPROTO_ICMPV6 and payload:
        return payload[0], 0
    return 0, 0


def parse(ethertype, data):
    """A Packet from the bytes of an IP packet, or None for what is neither IPv4 nor IPv6."""
    if ethertype == ETH_P_IP and len(data) >= 20:
        proto = data[9]
        payload = data[(data[0] & 15) * 4:]
        src, dst = ipaddress.ip_address(data[12:16]), ipaddress.ip_address(data[16:20])
    elif ethertype == ETH_P_IPV6 and len(data) >= 40:
        proto, payload = data[6], data[40:]
        if proto == 0 and len(payload) >= 8:  # hop-by-hop options, as MLD has them
            proto, payload = payload[0], payload[(payload[1] + 1) * 8:]
        src, dst = ipaddress.ip_address(data[8:24]), ipaddress.ip_address(data[24:40])
    else:
        return None
    return Packet(str(src), str(dst), proto, *_ports(proto, payload))


def is_housekeeping(packet):
    return packet.proto == socket.IPPROTO_IGMP or (
        packet.proto == socket.IPPROTO_ICMPV6 and packet.sport in ICMPV6_HOUSEKEEPING)


class Capture:
    """Counts incoming packets of `ns` by Packet while in the block."""

    def __init__(self, ns, senders=()):
        self.ns = ns
        self.senders = senders  # (namespace, address here that is reached over its link)
        self.counts = collections.Counter()
        self.first = {}  # of each packet: when it came first, and its bytes
        self.markers = 0
        self.markers_seen = set()

    def __enter__(self):
        with self.ns.entered():
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
        self.sock.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
        self.sock.settimeout(0.2)
        self.stopping = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stopping = True
        self.thread.join()
        self.sock.close()

    def _read(self):
        while not self.stopping:
            try:
                data, (ifname, ethertype, kind, _, _) = self.sock.recvfrom(128)
            except TimeoutError:
                continue
            if kind == PACKET_OUTGOING or ifname == "lo":
                continue
            packet = parse(ethertype, data)
            if packet is None or is_housekeeping(packet):
                continue
            if packet.proto == socket.IPPROTO_UDP and packet.dport == MARKER_PORT:
                self.markers_seen.add(packet.sport)
                continue
            self.counts[packet] += 1
            self.first.setdefault(packet, (time.monotonic(), ifname, data))

    def settle(self):
        """Returns when every packet that was sent before the call has been counted: a marker goes
        the same ways behind them."""
        for ns, address in self.senders:
            self.markers += 1
            with ns.socket(kind=socket.SOCK_DGRAM) as sock:
                sock.bind(("0.0.0.0", 0))
                port = sock.getsockname()[1]
                self.markers_seen.discard(port)
                sock.sendto(b"marker", (address, MARKER_PORT))
                wait_for(lambda port=port: port in self.markers_seen, what="the capture's marker")
        return self

    def packets(self, **fields):
        """Those seen so far whose fields are as given."""
        return [p for p in list(self.counts) if all(getattr(p, k) == v for k, v in fields.items())]

    def describe(self, packets):
        """For who wants to know why they are there."""
        lines = []
        for packet in packets:
            at, ifname, data = self.first[packet]
            lines.append(f"{self.counts[packet]} x {packet}, first {time.monotonic() - at:.3f} s ago on {ifname}: {data.hex()}")
        return "\n".join(lines)

    def dropped(self):
        """Packets that the kernel could not hand us: then nothing is proven."""
        raw = self.sock.getsockopt(263, 6, 8)  # SOL_PACKET, PACKET_STATISTICS; reading resets it
        return struct.unpack("II", raw)[1]
