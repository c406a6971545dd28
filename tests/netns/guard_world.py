# SPDX-License-Identifier: Apache-2.0
"""A node with pods whose interfaces the kernel half of the guard stands on, and an outside.

        pod  mute  peer             10.244.1.0/24, fd00:10:244:1::/64: inside
          \\   |   /
            node ---------------- outside: 198.51.100.7, 2001:db8:51::7
                 192.0.2.0/24, 2001:db8:2::/64

Pods hang on a bridge, or each on a route of its own, as the CNIs have it. `pod` and `mute` are guarded,
`peer` is not. `mute` has an interface but no address, so that its kernel says nothing by itself: what
is on its link was put there by a test. Whatever passes the guard is counted behind it, by nftables.
"""
import contextlib
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import frames  # noqa: E402
from agents import BUILD  # noqa: E402
from netns import Netns  # noqa: E402
from procs import Procs, remove_leftovers, wait_for  # noqa: E402

PROG = BUILD / "tests/netns/guard_prog"
MARK, TABLE, PORT = 0x51ce0000, 51510, 15001
CLUSTER = ["10.244.0.0/16", "fd00:10:244::/56"]
WHY = ("NONE UNKNOWN_POD MALFORMED ETHERTYPE VLAN SPOOFED SOURCE_ROUTE FRAGMENT OUTSIDE PROTOCOL "
       "NO_LISTENER FLOWS_FULL").split()
STEER, DHCP = 1, 2
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
STATES = "free datagram half open fin closing".split()


class Addresses:
    """Of one family."""

    def __init__(self, family, pod, mute, peer, gateway, outside, elsewhere, loopback):
        self.family, self.pod, self.mute, self.peer = family, pod, mute, peer
        self.gateway, self.outside, self.elsewhere = gateway, outside, elsewhere
        self.loopback = loopback
        self.v6 = family == socket.AF_INET6
        self.any = "::" if self.v6 else "0.0.0.0"


V4 = Addresses(socket.AF_INET, "10.244.1.11", "10.244.1.12", "10.244.1.13", "10.244.1.1",
               "198.51.100.7", "192.0.2.2", "127.0.0.1")
V6 = Addresses(socket.AF_INET6, "fd00:10:244:1::b", "fd00:10:244:1::c", "fd00:10:244:1::d",
               "fd00:10:244:1::1", "2001:db8:51::7", "2001:db8:2::2", "::1")
NODE_LINK4, NODE_LINK6 = "192.0.2.1", "2001:db8:2::1"
NODE_LOCAL = "fe80::1"


class Prog:
    """guard_prog in the node's namespace: one command, one answer."""

    def __init__(self, node):
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(60)
        with theirs:
            self.proc = node.popen([PROG, theirs.fileno()], "guard_prog", pass_fds=[theirs.fileno()])

    def ask(self, *words, fds=()):
        socket.send_fds(self.sock, [" ".join(map(str, words)).encode()], list(fds))
        answer = self.sock.recv(65536).decode().strip()
        if answer.startswith("error") or not (answer or words[0] in ("counts", "events")):
            raise OSError(f"{words[0]}: {answer} {self.proc.output()}")
        return answer

    def close(self):
        self.sock.close()
        self.proc.stop()


class Sniffer:
    """Frames that arrive on an interface of a namespace, from when it is made."""

    def __init__(self, ns, ifname):
        with ns.entered():
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.sock.bind((ifname, 3))
        self.sock.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
        self.sock.setblocking(False)
        self.seen = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def frames(self):
        """All so far; what the namespace itself sends is left out."""
        while True:
            try:
                data, where = self.sock.recvfrom(65536 * 2)
            except BlockingIOError:
                return self.seen
            if where[2] != socket.PACKET_OUTGOING:
                self.seen.append(data)

    def packets(self, keep=lambda p: True):
        return [p for p in map(frames.parse, self.frames()) if p and keep(p)]

    def wait(self, keep, what="a packet", timeout=5):
        return wait_for(lambda: self.packets(keep), timeout, what)[0]


class GuardWorld:
    """Use as a context manager."""

    def __init__(self, topology="bridge", attach="tcx", steer=True, buckets=64):
        self.topology, self.attach = topology, attach
        self.flags = STEER if steer else 0
        self.buckets = buckets
        self.macs = {}  # by pod: its router's, its own
        self.closing = contextlib.ExitStack()

    def __enter__(self):
        remove_leftovers()
        with contextlib.ExitStack() as undo:
            self.procs = Procs()
            undo.callback(self.procs.remove_folder)
            self.spaces = {}
            for name in ("node", "outside", "pod", "mute", "peer"):
                self.spaces[name] = Netns(self.procs.netns_prefix + name, self.procs)
                undo.callback(self.spaces[name].remove)
                setattr(self, name, self.spaces[name])
            undo.callback(self.procs.stop_all)
            self._sysctls()
            self._wire()
            self._guard()
            undo.callback(self.prog.close)
            self.closing = undo.pop_all()
        return self

    def __exit__(self, *exc):
        self.closing.close()

    # ---- the net ----

    def _sysctls(self):
        for ns in self.spaces.values():
            ns.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0,
                      ipv6__conf__default__accept_dad=0, ipv6__conf__default__accept_ra=0,
                      ipv6__conf__default__router_solicitations=0, ipv4__icmp_ratelimit=0,
                      ipv6__icmp__ratelimit=0)
        self.node.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        self.mute.sysctl(ipv6__conf__default__disable_ipv6=1)

    def _wire(self):
        node = self.node
        if self.topology == "bridge":
            # Every packet on the bridge goes through the rules of IP, too, as Kubernetes wants it.
            node.ip("link add cni0 address 02:00:00:00:00:01 type bridge forward_delay 0",
                    "link set cni0 up", f"addr add {V4.gateway}/24 dev cni0",
                    f"addr add {V6.gateway}/64 dev cni0 nodad",
                    f"addr add {NODE_LOCAL}/64 dev cni0 nodad")
            node.sysctl(**{"bridge__bridge-nf-call-iptables": 1, "bridge__bridge-nf-call-ip6tables": 1})
            self.nft(node, "add table inet tracked; add chain inet tracked pre { type filter hook "
                     "prerouting priority 0; }; add rule inet tracked pre ct state new counter")
        self.hosts = {name: self._wire_pod(name) for name in ("pod", "mute", "peer")}
        node.ip(f"link add out0 type veth peer name node0 netns {self.outside.name}",
                "link set out0 up", f"addr add {NODE_LINK4}/24 dev out0",
                f"addr add {NODE_LINK6}/64 dev out0 nodad")
        self.outside.ip("link set node0 up", f"addr add {V4.elsewhere}/24 dev node0",
                        f"addr add {V6.elsewhere}/64 dev node0 nodad",
                        f"addr add {V4.outside}/32 dev lo", f"addr add {V6.outside}/128 dev lo nodad",
                        f"route add 10.244.0.0/16 via {NODE_LINK4} src {V4.outside}",
                        f"route add fd00:10:244::/56 via {NODE_LINK6} src {V6.outside}")
        # The outside's kernel does not meddle with what a test makes up in the mute pod's name.
        self.nft(self.outside, "add table inet deaf; add chain inet deaf input { type filter hook input "
                 f"priority 0; }}; add rule inet deaf input ip saddr {V4.mute} drop; add rule inet deaf "
                 f"input ip6 saddr {V6.mute} drop")
        node.ip(f"route add default via {V4.elsewhere}", f"route add default via {V6.elsewhere}")
        self.steer_rules("add")

    @staticmethod
    def nft(ns, commands):
        subprocess.run(ns.argv(["nft", commands]), check=True)

    def _wire_pod(self, name):
        """Returns the interface index and MAC of its host end."""
        node, ns = self.node, self.spaces[name]
        ip4, ip6 = getattr(V4, name), getattr(V6, name)
        node.ip(f"link add {name} type veth peer name eth0 netns {ns.name}")
        ns.ip("link set eth0 up")
        if self.topology == "bridge":
            node.ip(f"link set {name} master cni0 up")
            addresses = (f"addr add {ip4}/24 dev eth0", f"addr add {ip6}/64 dev eth0 nodad",
                         f"route add default via {V4.gateway}", f"route add default via {V6.gateway}")
        else:
            node.ip(f"link set {name} up", f"addr add {NODE_LOCAL}/64 dev {name} nodad",
                    f"route add {ip4}/32 dev {name}", f"route add {ip6}/128 dev {name}")
            # Without the delay of up to 0.8 s, behind which a SYN might come twice.
            node.sysctl(**{f"ipv4__conf__{name}__proxy_arp": 1, f"ipv4__neigh__{name}__proxy_delay": 0})
            addresses = (f"addr add {ip4}/32 dev eth0", f"addr add {ip6}/128 dev eth0 nodad",
                         "route add 169.254.1.1 dev eth0 scope link",
                         "route add default via 169.254.1.1",
                         f"route add default via {NODE_LOCAL} dev eth0")
        if name != "mute":
            ns.ip(*addresses)
        else:
            macs = [json.loads(subprocess.run(["ip", "-n", ns.name, "-j", "link", "show", "eth0"],
                                              check=True, capture_output=True).stdout)[0]["address"]]
            node.ip(f"neigh add {ip4} lladdr {macs[0]} dev {self.router_of(name)}",
                    f"neigh add {ip6} lladdr {macs[0]} dev {self.router_of(name)}")
        link = self.link(node, name)
        return link["ifindex"], link["address"]

    def router_of(self, name):
        """The node's interface that the pod takes for its router."""
        return "cni0" if self.topology == "bridge" else name

    @staticmethod
    def link(ns, ifname):
        shown = subprocess.run(["ip", "-n", ns.name, "-j", "link", "show", ifname], check=True,
                               capture_output=True).stdout
        return json.loads(shown)[0]

    def steer_rules(self, verb):
        """What delivers steered packets to the node itself."""
        for family in ("-4", "-6"):
            for what in (["rule", verb, "fwmark", f"{MARK}/{MARK}", "lookup", str(TABLE)],
                         ["route", verb, "local", "default", "dev", "lo", "table", str(TABLE)]):
                subprocess.run(["ip", "-n", self.node.name, family, *what], check=True)

    # ---- the guard ----

    def _guard(self):
        self.prog = Prog(self.node)
        self.prog.ask("load", MARK, PORT)
        for net in CLUSTER:
            self.prog.ask("net", net, 1)
        self.link_local = {"mute": "fe80::c", "pod": "fe80::" + frames.eui64(
            self.link(self.pod, "eth0")["address"])}
        self.put("pod")
        self.put("mute")
        for name in ("pod", "mute"):
            self.prog.ask("attach", self.hosts[name][0], self.attach)
            # The hook of nftables comes right after those of tcx and tc.
            self.nft(self.node, f"add table netdev passed; add counter netdev passed {name}; add chain "
                     f"netdev passed {name} {{ type filter hook ingress device {name} priority 0; }}; "
                     f"add rule netdev passed {name} counter name {name}")

    def put(self, name, flags=None, buckets=None, upper=None, mac=None):
        """Under guard, or with other settings."""
        ifindex, host_mac = self.hosts[name]
        router = self.link(self.node, self.router_of(name))
        self.prog.ask("pod", ifindex, self.flags if flags is None else flags,
                      buckets or self.buckets, host_mac, router["ifindex"] if upper is None else upper,
                      router["address"], mac or self.link(self.spaces[name], "eth0")["address"],
                      getattr(V4, name), getattr(V6, name), self.link_local[name])

    def passed(self, name):
        """Packets of the pod that the guard has let through."""
        out = self.node.run(["nft", "-j", "list", "counter", "netdev", "passed", name]).stdout
        return json.loads(out)["nftables"][1]["counter"]["packets"]

    def counts(self, name):
        """{(protocol, why): packets}"""
        lines = (line.split() for line in self.prog.ask("counts").splitlines())
        return {(int(proto), WHY[int(why)]): int(packets)
                for ifindex, proto, why, packets, _ in lines if int(ifindex) == self.hosts[name][0]}

    def refused(self, name):
        return sum(self.counts(name).values())

    def events(self, name):
        """New ones: (protocol, why, suppressed, src, sport, dst, dport)."""
        found = []
        for line in self.prog.ask("events").splitlines():
            ifindex, proto, why, suppressed, src, sport, dst, dport = line.split()
            if int(ifindex) == self.hosts[name][0]:
                found.append((int(proto), WHY[int(why)], int(suppressed), src.removeprefix("::ffff:"),
                              int(sport), dst.removeprefix("::ffff:"), int(dport)))
        return found

    def flows(self, name):
        numbers = map(int, self.prog.ask("flows", self.hosts[name][0]).split())
        return {state: n for state, n in zip(STATES, numbers) if n and state != "free"}

    def ages(self, name):
        """When each flow was last renewed, in the table's own units, sorted."""
        return self.prog.ask("ages", self.hosts[name][0]).split()

    def listen(self, family=socket.AF_INET, backlog=512, prepare=None, known=True):
        """The agent's listener."""
        sock = self.node.socket(family)
        self.closing.callback(sock.close)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        if prepare:
            prepare(sock)
        sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", PORT))
        sock.listen(backlog)
        sock.settimeout(10)
        if known:
            self.prog.ask("listener", fds=[sock.fileno()])
        return sock

    # ---- packets of the mute pod ----

    def frame(self, payload, ethertype=None, dst=None, src=None, name="mute"):
        """A frame of a pod to its router around an IP packet."""
        if ethertype is None:
            ethertype = 0x86DD if payload[0] >> 4 == 6 else 0x0800
        if name not in self.macs:
            self.macs[name] = (self.link(self.node, self.router_of(name))["address"],
                               self.link(self.spaces[name], "eth0")["address"])
        dst, src = dst or self.macs[name][0], src or self.macs[name][1]
        return frames.mac(dst) + frames.mac(src) + struct.pack("!H", ethertype) + payload

    def inject(self, frame, name="mute"):
        with self.spaces[name].entered():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sock:
            sock.bind(("eth0", 0))
            sock.send(frame)

    def verdict(self, frame, name="mute"):
        """Sends a frame of the pod and says what became of it: "pass", or why it was refused, and as
        which protocol."""
        before, passed = self.counts(name), self.passed(name)
        self.inject(frame, name)
        wait_for(lambda: self.refused(name) + self.passed(name) > sum(before.values()) + passed,
                 what="the guard has seen the frame")
        after = self.counts(name)
        new = [key for key in after if after[key] != before.get(key, 0)]
        assert len(new) + self.passed(name) - passed == 1, (new, self.passed(name) - passed)
        return (new[0][1], new[0][0]) if new else ("pass", None)
