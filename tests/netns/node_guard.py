# SPDX-License-Identifier: Apache-2.0
"""What tests of the guards in the node's namespace share: servers, packets made by hand, the tools."""
import contextlib
import ipaddress
import os
import socket
import struct
import subprocess
import threading
from pathlib import Path

from capture import Capture
from procs import wait_for
from world import CLUSTER_CIDRS, INTERNET_WAN

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / os.environ.get("SLUICE_BUILD", "build") / "tests/netns"
CIDRS = ",".join(CLUSTER_CIDRS)
OUTSIDE = {4: "198.51.100.10", 6: "2001:db8:51::10"}
NODE_WAN = {4: "100.64.0.2", 6: "2001:db8:100::2"}
GATEWAY_MAC = bytes.fromhex("020000000001")  # of the node's bridge
BROADCAST = b"\xff" * 6
ETH_P_IP, ETH_P_IPV6, ETH_P_ARP, ETH_P_8021Q, ETH_P_8021AD = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8


def family(ip):
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


# ---- servers: threads of this process with sockets of a namespace ----

class Echo:
    """Answers what it is sent, by TCP or UDP, until the block ends."""

    def __init__(self, ns, ip, port, kind=socket.SOCK_STREAM):
        self.kind = kind
        self.sock = ns.socket(family(ip), kind)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((ip, port))
        self.sock.settimeout(0.1)
        self.conns, self.seen, self.stopping = [], [], False
        if kind == socket.SOCK_STREAM:
            self.sock.listen(128)

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        """With nothing left of it that the kernel would send again: resets, and those who wait are woken."""
        self.stopping = True
        self.thread.join()
        self.sock.close()
        for conn in self.conns:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RD)
            conn.close()

    def _run(self):
        while not self.stopping:
            try:
                if self.kind == socket.SOCK_DGRAM:
                    data, peer = self.sock.recvfrom(2048)
                    self.seen.append((data, peer[0]))
                    self.sock.sendto(data, peer)
                else:
                    conn, peer = self.sock.accept()
                    self.conns.append(conn)
                    self.seen.append((b"", peer[0]))
                    threading.Thread(target=self._serve, args=(conn,), daemon=True).start()
            except OSError:
                continue

    @staticmethod
    def _serve(conn):
        with contextlib.suppress(OSError):
            while data := conn.recv(2048):
                conn.sendall(data)
            conn.shutdown(socket.SHUT_WR)


def talks(sock, text=b"hello", timeout=5.0):
    """Does the other end of a TCP or connected UDP socket echo? Where it must not, a second is enough to ask."""
    sock.settimeout(timeout)
    try:
        sock.send(text)
        return sock.recv(2048) == text
    except OSError:
        return False


def reaches(ns, ip, port, kind=socket.SOCK_STREAM, timeout=5.0):
    """Does an echo there answer a client in ns?"""
    with ns.socket(family(ip), kind) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect((ip, port))
        except OSError:
            return False
        return talks(sock, timeout=timeout)


def pings(ns, ip, timeout=5):
    return ns.run(["ping", "-c1", f"-W{timeout}", ip]).returncode == 0


@contextlib.contextmanager
def captured(world):
    """A capture of what arrives in the internet, and a function that gives all of it from these
    addresses."""
    with Capture(world.internet, [(world.node, INTERNET_WAN)]) as capture:
        def arrived(*sources):
            capture.settle()
            assert capture.dropped() == 0, "the capture lost packets and proves nothing"
            return [p for p in capture.packets() if p.src in sources]
        yield arrived


# ---- packets made by hand ----

def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pack(ip):
    return ipaddress.ip_address(ip).packed


def ipv4(src, dst, proto, payload, *, fragment=0, options=b"", ttl=64, version=4, ihl=None, ident=7):
    ihl = 5 + len(options) // 4 if ihl is None else ihl
    head = struct.pack("!BBHHHBBH4s4s", version << 4 | ihl, 0, 20 + len(options) + len(payload), ident,
                       fragment, ttl, proto, 0, pack(src), pack(dst)) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(src, dst, proto, payload, *, hops=64):
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), proto, hops, pack(src), pack(dst)) + payload


def pseudo(src, dst, proto, length):
    if ":" in src:
        return pack(src) + pack(dst) + struct.pack("!II", length, proto)
    return pack(src) + pack(dst) + struct.pack("!HH", proto, length)


def tcp(src, dst, sport, dport, flags, payload=b"", seq=1, ack=0):
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 65535, 0, 0)
    total = checksum(pseudo(src, dst, 6, len(head) + len(payload)) + head + payload)
    return head[:16] + struct.pack("!H", total) + head[18:] + payload


def udp(src, dst, sport, dport, payload=b"x"):
    head = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0)
    total = checksum(pseudo(src, dst, 17, len(head) + len(payload)) + head + payload)
    return head[:6] + struct.pack("!H", total) + payload


def icmp6(src, dst, kind, body, code=0):
    data = struct.pack("!BBH", kind, code, 0) + body
    total = checksum(pseudo(src, dst, 58, len(data)) + data)
    return data[:2] + struct.pack("!H", total) + data[4:]


def icmp4(kind, body, code=0):
    data = struct.pack("!BBH", kind, code, 0) + body
    return data[:2] + struct.pack("!H", checksum(data)) + data[4:]


def ip(src, dst, proto, payload, **options):
    return (ipv6 if ":" in src else ipv4)(src, dst, proto, payload, **options)


def arp(op, sender_mac, sender_ip, target_ip, header=bytes.fromhex("000108000604")):
    return header + struct.pack("!H6s4s6s4s", op, sender_mac, pack(sender_ip), bytes(6), pack(target_ip))


def mac_of(ns, device="eth0"):
    with ns.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((device, 0))
        return sock.getsockname()[4]


def ethertype(packet):
    return ETH_P_IPV6 if packet[0] >> 4 == 6 else ETH_P_IP


def send_frame(ns, payload, kind=None, to=GATEWAY_MAC, tags=b"", device="eth0", src=None):
    """One Ethernet frame out of a pod, to the node's bridge unless said otherwise."""
    kind = ethertype(payload) if kind is None else kind
    with ns.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((device, 0))
        sock.send(to + (src or sock.getsockname()[4]) + tags + struct.pack("!H", kind) + payload)


class Flood:
    """Sends one IPv4 packet out of a pod, again and again, while in the block."""

    def __init__(self, ns, packet, device="eth0"):
        self.ns, self.packet, self.device = ns, packet, device
        self.sent, self.stopping = 0, False

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stopping = True
        self.thread.join()

    def _run(self):
        with self.ns.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
            while not self.stopping:
                sock.sendto(self.packet, (self.device, ETH_P_IP, 0, 0, GATEWAY_MAC))
                self.sent += 1

    def goes_on(self, n=50):
        """Returns when so many more have been sent: what was done since the last time was done under it."""
        before = self.sent
        wait_for(lambda: self.sent > before + n, what="the flood")


class Sniffer:
    """Frames that arrive on an interface of ns while in the block: [ethertype, bytes behind it]."""

    def __init__(self, ns, device="eth0"):
        self.ns, self.device = ns, device
        self.frames, self.stopping = [], False

    def __enter__(self):
        with self.ns.entered():
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)  # hears nothing until it is bound
        self.sock.bind((self.device, 3))
        self.sock.settimeout(0.1)
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
                data, (_, _, kind, _, _) = self.sock.recvfrom(2048)
            except TimeoutError:
                continue
            if kind != 4:  # PACKET_OUTGOING
                self.frames.append((struct.unpack("!H", data[12:14])[0], data[14:]))

    def saw(self, text):
        return any(text in data for _, data in self.frames)


# ---- the tools ----

def link_local(ns, device="eth0"):
    """The address fe80::... of an interface; waits until it is there."""
    def look():
        out = ns.run(["ip", "-6", "-o", "addr", "show", "dev", device, "scope", "link"]).stdout.split()
        return out[out.index("inet6") + 1].split("/")[0] if "inet6" in out else None
    return wait_for(look, what=f"a link-local address on {device}")


class Forward:
    """forward_tool in the node's namespace; each verb gives the words of its answer."""

    def __init__(self, node):
        self.node = node

    def __call__(self, verb, *addrs, cidrs=CIDRS):
        done = subprocess.run([BUILD / "forward_tool", verb, self.node.path, cidrs, *addrs],
                              check=False, capture_output=True, text=True, timeout=30)
        self.log = done.stderr
        return done.stdout.split()

    def dropped(self):
        return int(self("counts")[1])


class NetdevGuard:
    """A guard_netdev_tool that runs: an agent's guard, without the agent."""

    TOOL = BUILD / "guard_netdev_tool"

    def __init__(self, node, flows=2048, cidrs=CIDRS):
        self.proc = subprocess.Popen([self.TOOL, node.path, cidrs, str(flows)],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, text=True, bufsize=1)

    def __call__(self, *words):
        self.proc.stdin.write(" ".join(map(str, words)) + "\n")
        return self.proc.stdout.readline().split()

    def end(self, kill=False):
        if kill:
            self.proc.kill()
        self.log = self.proc.communicate()[1]

    def counts(self, ifindex):
        """{(reason, protocol): packets} of one interface."""
        found = {}
        for word in self("counts")[1:]:
            key, packets = word.split("=")
            index, why, proto = key.split("/")
            if int(index) == ifindex:
                found[why, int(proto)] = int(packets)
        return found
