# SPDX-License-Identifier: Apache-2.0
"""One attempt of a root process in a pod: the ways it has of sending, the proof that it sent, and what
became of it. `world`, here, has what a careless node has: routing headers are honoured, a VXLAN device
takes what is sent to it, and services of the cluster lead outside.
"""
import contextlib
import errno
import fcntl
import ipaddress
import json
import secrets
import socket
import struct
import subprocess

import frames
from netns import Netns
from procs import wait_for
from watch import NODE_IP4, NODE_IP6, Tap, Watch
from world import CLUSTER_CIDRS

OUT4, OUT6 = "198.51.100.66", "2001:db8:51::66"  # a web server that nobody registered
OUT = {4: OUT4, 6: OUT6}
NODE_IP = {4: NODE_IP4, 6: NODE_IP6}
NODE_MAC = "02:00:00:00:00:01"
NODE_LINK_LOCAL = "fe80::ff:fe00:1"
BROADCAST = "ff:ff:ff:ff:ff:ff"
NOWHERE4, NOWHERE6 = "10.244.1.250", "fd00:10:244:1::fa"  # of the pods' network, and nobody's
FAR_POD = {4: "10.244.2.77", 6: "fd00:10:244:2::77"}  # of another node
SERVICE = {4: "10.96.7.7", 6: "fd00:10:244:96::7"}        # lead to OUT, by the node's DNAT
EXTERNAL_IP = {4: "100.64.0.77", 6: "2001:db8:100::77"}
NODE_PORT = 30080
VXLAN_PORT, VXLAN_ID = 8472, 1
IPPROTO_SCTP, IPPROTO_UDPLITE, IPPROTO_DCCP = 132, 136, 33
BOTH = (4, 6)

# What a call answers when rules of the pod refused the packet, or the network did.
REFUSED = {errno.EPERM, errno.EACCES, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH,
           errno.ECONNRESET, errno.EINPROGRESS, errno.EAGAIN, errno.ETIMEDOUT, errno.EPIPE, None}

_OUTSIDE4 = "ip daddr != { 10.244.0.0/16, 10.96.0.0/12, 127.0.0.0/8, 224.0.0.0/4 }"
_OUTSIDE6 = "ip6 daddr != { fd00:10:244::/56, ::1, fe80::/10, ff00::/8 }"
WITNESS = f"""
table inet witness {{
	counter made {{ }}
	chain made {{ type filter hook output priority -500; policy accept;
		{_OUTSIDE4} counter name made
		{_OUTSIDE6} counter name made
	}}
	chain passed {{ type filter hook prerouting priority -500; policy accept;
		iifname != {{ "lo", "eth0" }} {_OUTSIDE4} counter name made
		iifname != {{ "lo", "eth0" }} {_OUTSIDE6} counter name made
	}}
}}
"""
SERVICES = "\n".join(f"""
table {family} services {{
	chain services {{ type nat hook prerouting priority dstnat;
		{family} daddr {SERVICE[v]} dnat to {OUT[v]}
		{family} daddr {EXTERNAL_IP[v]} dnat to {OUT[v]}
	}}
}}""" for v, family in ((4, "ip"), (6, "ip6")))


def make_careless(world):
    """Everything that an attempt needs of the node in order to get out, were it not for the guards."""
    node = world.node
    node.sysctl(ipv4__conf__all__accept_source_route=1, ipv4__conf__cni0__accept_source_route=1,
                ipv6__conf__all__accept_source_route=1, ipv6__conf__cni0__accept_source_route=1,
                ipv6__conf__all__seg6_enabled=1, ipv6__conf__cni0__seg6_enabled=1)
    node.ip(f"link add vxlan0 address 02:00:00:00:00:99 type vxlan id {VXLAN_ID} dstport {VXLAN_PORT} "
            "dev cni0 nolearning", "link set vxlan0 up", "addr add 10.244.0.1/32 dev vxlan0")
    nft(node, SERVICES)
    world.gateway.ip("route add 10.244.0.0/16 via 192.0.2.1", "route add fd00:10:244::/56 via 2001:db8:2::1")
    # Nobody waits for a neighbour: a packet that does would be overtaken by what says that all is over.
    wan, gw = hardware_address(world.internet, "node0"), hardware_address(world.gateway, "node0")
    node.ip(*(f"neigh replace {ip} lladdr {wan} dev wan0" for ip in ("100.64.0.1", "2001:db8:100::1")),
            *(f"neigh replace {ip} lladdr {gw} dev gw0" for ip in ("192.0.2.10", "2001:db8:2::10")))


def know_neighbours(ns, world, ifname="eth0"):
    """The same for a pod's interface."""
    other = world.pods["pod-b"]
    mac = hardware_address(other, "eth0")
    ns.ip(*(f"neigh replace {ip} lladdr {NODE_MAC} dev {ifname}"
            for ip in (*NODE_IP.values(), NODE_LINK_LOCAL)),
          *(f"neigh replace {ip} lladdr {mac} dev {ifname}" for ip in (other.ip4, other.ip6)))


def inside(ns, *cmd, stdin=""):
    """A program that needs of the namespace the network only."""
    return subprocess.run(["nsenter", f"--net={ns.path}", *cmd], input=stdin, text=True, check=False,
                          capture_output=True, timeout=10)


def nft(ns, rules):
    done = inside(ns, "nft", "-f", "-", stdin=rules)
    assert done.returncode == 0, done.stderr


def nft_json(ns, *args):
    """What nft lists, or []. It prints half of a document and another when rules change meanwhile."""
    for _ in range(20):
        try:
            return json.loads(inside(ns, "nft", "-j", *args).stdout or "{}").get("nftables", [])
        except ValueError:
            continue
    raise AssertionError(f"nft {args}: no listing in 20 tries")


def tables(ns):
    """All tables of nf_tables, as (family, name). In words: as JSON, nft 1.0.6 cannot say all flags."""
    words = {tuple(line.split()) for line in inside(ns, "nft", "list", "tables").stdout.splitlines()}
    return sorted((family, name) for _, family, name in words)


def version(address):
    return ipaddress.ip_address(address).version


def family(address):
    return socket.AF_INET6 if version(address) == 6 else socket.AF_INET


def is_outside(address):
    ip = ipaddress.ip_address(address)
    if ip.is_multicast or ip.is_loopback or ip.is_link_local:
        return False
    return not any(ip in net for net in map(ipaddress.ip_network, CLUSTER_CIDRS) if net.version == ip.version)


def hardware_address(ns, ifname):
    with ns.socket(kind=socket.SOCK_DGRAM) as sock:
        got = fcntl.ioctl(sock, 0x8927, struct.pack("256s", ifname.encode()))  # SIOCGIFHWADDR
    return ":".join(f"{b:02x}" for b in got[18:24])


class Attack:
    """Use as a context manager around one attempt from `pod`."""

    def __init__(self, world, pod, usual=None):
        """`usual`: of the packets that arrive, those that may, beside what always does."""
        self.world, self.pod = world, pod
        self.link = pod  # where eth0 is
        self.wire = None  # a packet socket there
        self.usual = usual
        self.canary = secrets.token_hex(8).encode()
        self.mac = hardware_address(pod, "eth0")
        self.ip = {4: pod.ip4, 6: pod.ip6}
        self.results, self.sockets = [], []
        self.closing = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as undo:
            nft(self.pod, WITNESS)
            know_neighbours(self.pod, self.world)
            self.tap = Tap(self.pod, "eth0", outgoing=True)
            undo.callback(self.tap.close)
            self.refused_before = self.refusals()
            self.watch = undo.enter_context(Watch(self.world, self.canary, self.world.pods["pod-b"], self.usual))
            self.closing = undo.pop_all()
        return self

    def __exit__(self, *exc):
        self.close_sockets()
        self.closing.close()

    # ---- ways of sending; what the kernel says is kept, not raised ----

    def trying(self, action):
        """What it gives, None when it is refused."""
        try:
            result = action()
        except OSError as e:
            assert e.errno in REFUSED or isinstance(e, TimeoutError), e
            self.results.append(e.errno)
            return None
        self.results.append(0)
        return result

    def keep(self, sock):
        """Open until the attempt has been judged: an early close would look like a refusal."""
        self.sockets.append(sock)
        return sock

    def close_sockets(self):
        """Those that are open for no reason any more."""
        while self.sockets:
            self.sockets.pop().close()
        self.wire = None

    def socket(self, kind, address, proto=0, prepare=None, ns=None):
        sock = self.keep((ns or self.pod).socket(family(address), kind, proto))
        sock.settimeout(2)
        if prepare:
            prepare(sock)
        return sock

    def datagram(self, address, port, prepare=None, payload=None, ns=None):
        sock = self.socket(socket.SOCK_DGRAM, address, 0, prepare, ns)
        self.trying(lambda: sock.sendto(payload or self.canary, (address, port)))
        return sock

    def syn(self, address, port=80, prepare=None, ns=None):
        """Starts a connection; who answers is not waited for."""
        sock = self.socket(socket.SOCK_STREAM, address, 0, prepare, ns)
        sock.setblocking(False)
        self.trying(lambda: sock.connect((address, port)))
        return sock

    def echo(self, address, prepare=None, ns=None):
        v6 = version(address) == 6
        sock = self.socket(socket.SOCK_RAW, address, frames.icmp_proto(address), prepare, ns)
        packet = frames.icmp(self.ip[6 if v6 else 4], address, 128 if v6 else 8, 0,
                             struct.pack("!HH", 7, 1), self.canary)
        self.trying(lambda: sock.sendto(packet, (address, 0)))

    def all_of(self, *addresses, prepare=None, ns=None):
        """TCP, UDP and ICMP to each."""
        for address in addresses:
            self.syn(address, 80, prepare, ns)
            self.datagram(address, 53, prepare, None, ns)
            self.echo(address, prepare, ns)

    def raw(self, packet):
        """An IP packet with a header of one's own, through the IP stack."""
        v6 = packet[0] >> 4 == 6
        dst = socket.inet_ntop(socket.AF_INET6, packet[24:40]) if v6 else socket.inet_ntoa(packet[16:20])
        sock = self.socket(socket.SOCK_RAW, dst, socket.IPPROTO_RAW)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, 36, 1)  # IPV6_HDRINCL
        self.trying(lambda: sock.sendto(packet, (dst, 0)))

    def _packet_socket(self):
        """On eth0, wherever that is."""
        with self.link.entered():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind(("eth0", 0))
        return self.keep(sock)

    def frame(self, payload, dst=NODE_MAC, src=None, ethertype=None):
        """A frame on eth0, past everything that the pod has of IP."""
        if ethertype is None:
            ethertype = b"\x86\xdd" if payload[0] >> 4 == 6 else b"\x08\x00"
        self.wire = self.wire or self._packet_socket()
        self.wire.send(frames.mac(dst) + frames.mac(src or self.mac) + ethertype + payload)
        self.results.append(0)

    def run(self, *cmd, ns=None):
        """A program in the pod; whether it succeeded is for what it did to say."""
        return (ns or self.pod).run(cmd, timeout=10)

    def nested(self, *commands):
        """A namespace of the pod's own, which goes with the attempt. `ip` commands in the pod: NEST
        stands for its name."""
        ns = Netns(f"{self.pod.name}-nest", self.world.procs)
        self.closing.callback(ns.remove)
        self.pod.ip(*(c.replace("NEST", ns.name) for c in commands))
        return ns

    def ip6(self, *commands):
        """`ip -6`, where addresses do not say so."""
        for command in commands:
            done = inside(self.pod, "ip", "-6", *command.split())
            assert done.returncode == 0, (command, done.stderr)

    def moved_to(self, ns):
        """The pod's interface is in another namespace from now on."""
        self.pod.wait_forwarding()
        self.tap.close()
        self.tap = Tap(ns, "eth0", outgoing=True)
        self.closing.callback(self.tap.close)
        self.link, self.wire = ns, None

    # ---- packets ----

    def tcp_packet(self, v=4, src=None, dst=None, dport=80, flags=frames.SYN, **more):
        return frames.tcp_packet(src or self.ip[v], dst or OUT[v], 40000, dport, flags,
                                 payload=more.pop("payload", self.canary), **more)

    def udp_packet(self, v=4, src=None, dst=None, sport=40000, dport=53):
        return frames.udp_packet(src or self.ip[v], dst or OUT[v], sport, dport, self.canary)

    def echo_packet(self, v=4, src=None, dst=None, reply=False):
        return frames.echo_packet(src or self.ip[v], dst or OUT[v], 7, reply, self.canary)

    # ---- judging ----

    def seen_by_rules(self):
        listed = nft_json(self.pod, "list", "counter", "inet", "witness", "made")
        return sum(item["counter"]["packets"] for item in listed if "counter" in item)

    def _is_attempt(self, frame):
        packet = frames.parse(frame)
        if self.canary in frame:
            return True
        return is_outside(packet.dst) if packet else frame[12:14] != b"\x08\x06"

    def made(self):
        """How many packets of the attempt its own kernel has seen, before any rule or on the wire."""
        return self.seen_by_rules() + sum(self._is_attempt(f) for f in self.tap.frames())

    def arrived(self):
        """What has come to where nothing of it may be, all of it."""
        self.watch.settle(self.link, self.pod.ip4)
        return self.watch.arrived()

    def refusals(self):
        """Counted so far: connections and packets of this pod's namespace, and what the node's second
        guard has dropped."""
        if "node" not in self.world.agents:
            return 0
        metrics = self.world.metrics("node")
        own = {"namespace": self.pod.namespace}
        return (metrics.value("sluice_denied_total", **own) + metrics.value("sluice_guard_dropped_total", **own) +
                metrics.value("sluice_forward_dropped_total"))

    def wait_refused(self):
        wait_for(lambda: self.refusals() > self.refused_before, what="the refusal is counted")
