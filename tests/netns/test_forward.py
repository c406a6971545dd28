# SPDX-License-Identifier: Apache-2.0
"""The node's second guard: what the node forwards for pods, judged after DNAT. Real packets, and no
agent: the pod is free but for this guard. Needs forward_tool.
"""
import socket
import time

import pytest
from node_guard import (ETH_P_IP, NODE_WAN, OUTSIDE, BUILD, Echo, Flood, Forward, captured, icmp6, ip, pack,
                        pings, reaches, send_frame, talks, tcp, udp)
from procs import wait_for
from world import World

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
PORT = 9080
SERVICE_OUT = {4: "10.96.7.7", 6: "fd00:10:244:96::7"}
SERVICE_IN = {4: "10.96.7.8", 6: "fd00:10:244:96::8"}
NODE_ADDR = {4: "10.244.1.1", 6: "fd00:10:244:1::1"}
CLIENT = {4: "198.51.100.77", 6: "2001:db8:51::77"}
both = pytest.mark.parametrize("v", [4, 6], ids=["v4", "v6"])
NAT = """
table {family} services {{
	chain prerouting {{
		type nat hook prerouting priority dstnat
		{family} daddr {service_out} dnat to {outside}
		{family} daddr {service_in} dnat to {pod_b}
		{family} daddr {node} tcp dport 30080 dnat to {pod_a}:9080
		{family} daddr {node} udp dport 30080 dnat to {pod_a}:9080
	}}
}}
"""


def address(pod, v):
    return pod.ip4 if v == 4 else pod.ip6


def nft(ns, rules):
    done = ns.run(["nft", "-f", "-"], input=rules)
    assert done.returncode == 0, done.stderr


class Wired:
    """A world without agents in which the node's nat table stands for kube-proxy's."""

    def __init__(self, world):
        self.world, self.node, self.internet = world, world.node, world.internet
        self.pod_a, self.pod_b = world.pods["pod-a"], world.pods["pod-b"]
        self.forward = Forward(world.node)
        self.mine = (self.pod_a.ip4, self.pod_a.ip6)
        world.internet.ip(*(f"addr add {a} dev lo" for a in CLIENT.values()))

    def nat(self):
        for v in (4, 6):
            a, b = (f"[{address(p, v)}]" if v == 6 else address(p, v) for p in (self.pod_a, self.pod_b))
            nft(self.node, NAT.format(family="ip" if v == 4 else "ip6", service_out=SERVICE_OUT[v],
                                      outside=OUTSIDE[v], service_in=SERVICE_IN[v], node=NODE_WAN[v],
                                      pod_a=a, pod_b=b))

    def guard(self):
        assert self.forward("apply", *self.mine) == ["0"]

    def client(self, v, kind, host, port):
        """A connected socket of the internet with an address of its own."""
        sock = self.internet.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, kind)
        sock.settimeout(2)
        sock.bind((CLIENT[v], 0))
        sock.connect((host, port))
        return sock


@pytest.fixture(scope="module")
def wired_world():
    with World() as world:
        yield Wired(world)


@pytest.fixture
def wired(wired_world):
    """As new: no rules of anybody's in the node's namespace."""
    yield wired_world
    wired_world.node.run(["nft", "flush", "ruleset"])


# ---- what pods send ----

@both
@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_only_the_cluster_is_reached(wired, v, kind):
    with Echo(wired.internet, OUTSIDE[v], PORT, kind), \
         Echo(wired.pod_b, address(wired.pod_b, v), PORT, kind):
        assert reaches(wired.pod_a, OUTSIDE[v], PORT, kind), "a pod that nobody confines leaks"
        wired.guard()
        with captured(wired.world) as arrived:
            assert not reaches(wired.pod_a, OUTSIDE[v], PORT, kind, timeout=1)
            assert arrived(*wired.mine) == []
        assert wired.forward.dropped() > 0
        assert reaches(wired.pod_a, address(wired.pod_b, v), PORT, kind)
        assert reaches(wired.pod_b, OUTSIDE[v], PORT, kind), "one that is not enrolled is left alone"


@both
@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_a_service_that_leads_outside(wired, v, kind):
    """Judged is where the packet goes after DNAT, not what the pod asked for."""
    wired.nat()
    with Echo(wired.internet, OUTSIDE[v], PORT, kind), \
         Echo(wired.pod_b, address(wired.pod_b, v), PORT, kind):
        assert reaches(wired.pod_a, SERVICE_OUT[v], PORT, kind), "a pod that nobody confines leaks"
        wired.guard()
        with captured(wired.world) as arrived:
            assert not reaches(wired.pod_a, SERVICE_OUT[v], PORT, kind, timeout=1)
            assert arrived(*wired.mine) == []
        assert reaches(wired.pod_a, SERVICE_IN[v], PORT, kind)


NOBODY = {4: "10.244.1.250", 6: "fd00:10:244:1::250"}  # of the pods' network
TRANSPARENT = {4: (socket.IPPROTO_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}  # IP_TRANSPARENT, IPV6_TRANSPARENT
RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}  # IP_RECVERR, IPV6_RECVERR


def answer_in_the_name_of(wired, v, client, pod):
    """As the agent does, whose listener is on the node; to a pod that is not there any more. Until the node
    has given up to ask for its link address."""
    with wired.node.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, UDP) as sock:
        sock.setsockopt(*TRANSPARENT[v], 1)
        sock.bind((client, 443))
        sock.sendto(b"answer", (pod, 40000))
        wait_for(lambda: "FAILED" in wired.node.run(["ip", "neigh", "show", pod]).stdout, 10, "nobody has it")


@both
def test_nobody_outside_is_told_that_a_pod_is_gone(wired, v):
    """Whom a captured connection was meant for would be, by ICMP: in its name the pod was answered."""
    told = {4: 1, 6: 58}[v]
    with captured(wired.world) as arrived:
        answer_in_the_name_of(wired, v, CLIENT[v], NOBODY[v])
        wait_for(lambda: [p for p in arrived(NODE_WAN[v]) if p.proto == told and p.dst == CLIENT[v]], 5,
                 "without the guard it is told")
    wired.node.ip(f"neigh flush to {NOBODY[v]}")
    wired.guard()
    before = wired.forward.dropped()
    with captured(wired.world) as arrived:
        answer_in_the_name_of(wired, v, CLIENT[v], NOBODY[v])
        wait_for(lambda: wired.forward.dropped() > before, 5, "the node's word is dropped")
        assert [p for p in arrived(NODE_WAN[v]) if p.dst == CLIENT[v]] == []
    with wired.node.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, UDP) as sock:  # who is of the cluster is
        sock.settimeout(10)
        sock.setsockopt(*RECVERR[v], 1)
        sock.connect((NOBODY[v].replace("250", "251"), 40000))
        sock.send(b"question")
        with pytest.raises(OSError, match="No route to host"):
            sock.recv(100)


def test_masqueraded_pods_are_known_by_their_own_address(wired):
    nft(wired.node, "table ip masq { chain post { type nat hook postrouting priority srcnat; "
                    "oifname wan0 masquerade; }; }")
    with Echo(wired.internet, OUTSIDE[4], PORT):
        assert reaches(wired.pod_a, OUTSIDE[4], PORT)
        wired.guard()
        with captured(wired.world) as arrived:
            assert not reaches(wired.pod_a, OUTSIDE[4], PORT, timeout=1)
            assert [p for p in arrived(NODE_WAN[4]) if p.dst == OUTSIDE[4]] == []


@both
def test_other_protocols(wired, v):
    """ICMP, GRE, IP in IP, SCTP; invalid for conntrack or not."""
    wired.guard()
    src = address(wired.pod_a, v)
    before = wired.forward.dropped()
    with captured(wired.world) as arrived:
        assert not pings(wired.pod_a, OUTSIDE[v], timeout=1)
        for proto in (4, 41, 47, 50, 132, 253):
            send_frame(wired.pod_a, ip(src, OUTSIDE[v], proto, b"payload of some length"))
        send_frame(wired.pod_a, ip(src, OUTSIDE[v], 6, tcp(src, OUTSIDE[v], 1, 2, 0x10, b"x")))
        send_frame(wired.pod_a, ip(src, OUTSIDE[v], 6, tcp(src, OUTSIDE[v], 1, 2, 0x3f, b"x")))
        assert arrived(src) == []
    wait_for(lambda: wired.forward.dropped() >= before + 9, what="all are counted")


@both
def test_nothing_into_the_nodes_tunnels(wired, v):
    """An overlay network of the node's would unpack it, and believe whatever is inside. To the node
    itself, and to another one by way of it."""
    wired.guard()
    src, inner = address(wired.pod_a, v), b"payload of some length"
    for dst in (address(wired.pod_b, v), NODE_ADDR[v]):
        for port in (8472, 4789, 6081, 6784, 8285):
            before = wired.forward.dropped()
            send_frame(wired.pod_a, ip(src, dst, 17, udp(src, dst, 40000, port - 1, inner)))
            send_frame(wired.pod_a, ip(src, dst, 17, udp(src, dst, 40000, port, inner)))
            send_frame(wired.pod_a, ip(src, dst, 17, udp(src, dst, port, 40000, inner)))
            wait_for(lambda n=before: wired.forward.dropped() > n, what=f"port {port} is refused")
            assert wired.forward.dropped() == before + 1
        before = wired.forward.dropped()
        for proto in (4, 41, 47):
            send_frame(wired.pod_a, ip(src, dst, proto, inner))
        wait_for(lambda n=before: wired.forward.dropped() == n + 3, what="all are refused")


def test_untracked_packets(wired):
    """Somebody's notrack rule takes the state away: then only the cluster is left."""
    nft(wired.node, "table inet raw { chain pre { type filter hook prerouting priority raw; "
                    "notrack; }; }")
    wired.guard()
    with Echo(wired.internet, OUTSIDE[4], PORT, UDP), Echo(wired.pod_b, wired.pod_b.ip4, PORT, UDP):
        with captured(wired.world) as arrived:
            assert not reaches(wired.pod_a, OUTSIDE[4], PORT, UDP, timeout=1)
            assert arrived(*wired.mine) == []
        assert reaches(wired.pod_a, wired.pod_b.ip4, PORT, UDP)


@both
def test_sent_by_the_node_with_a_pods_address(wired, v):
    """IPVS sends a pod's packet on from the output hook; so do transparent proxies."""
    src = address(wired.pod_a, v)
    packet = ip(src, OUTSIDE[v], 17, udp(src, OUTSIDE[v], 5, 6))

    def send():
        with wired.node.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, socket.SOCK_RAW,
                               socket.IPPROTO_RAW) as sock:
            sock.sendto(packet, (OUTSIDE[v], 0))
    with captured(wired.world) as arrived:
        send()
        assert len(arrived(src)) == 1
    wired.guard()
    with captured(wired.world) as arrived:
        try:
            send()
        except PermissionError:
            pass
        assert arrived(src) == []
    wait_for(lambda: wired.forward.dropped() >= 1, what="it is counted")


# ---- what is opened towards pods ----

@both
@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_inbound_through_a_node_port(wired, v, kind):
    """With the client's own address; before and after."""
    wired.nat()
    with Echo(wired.pod_a, address(wired.pod_a, v), PORT, kind) as echo:
        with wired.client(v, kind, NODE_WAN[v], 30080) as before:
            assert talks(before)
            wired.guard()
            assert talks(before), "a connection towards the pod goes on"
            with wired.client(v, kind, NODE_WAN[v], 30080) as after:
                assert talks(after)
        assert {peer for _, peer in echo.seen} == {CLIENT[v]}


@both
def test_inbound_without_translation(wired, v):
    wired.guard()
    with Echo(wired.pod_a, address(wired.pod_a, v), PORT):
        assert reaches(wired.internet, address(wired.pod_a, v), PORT)
        assert reaches(wired.node, address(wired.pod_a, v), PORT)
    assert pings(wired.internet, address(wired.pod_a, v))
    # Nobody listens: the pod's answer to UDP is an ICMP error, "related" to the question.
    with wired.client(v, UDP, address(wired.pod_a, v), 9999) as sock:
        sock.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(10)


@both
def test_an_inbound_connection_is_no_way_out(wired, v):
    """The address and port that a client used do not serve for a connection of the pod's own."""
    wired.guard()
    src, to = address(wired.pod_a, v), CLIENT[v]
    with Echo(wired.pod_a, src, PORT), wired.client(v, TCP, src, PORT) as sock:
        assert talks(sock)
        port = sock.getsockname()[1]
        with captured(wired.world) as arrived:
            for sport, dport, dst in ((PORT, port + 1, to), (PORT + 1, port, to), (PORT, port, OUTSIDE[v])):
                send_frame(wired.pod_a, ip(src, dst, 6, tcp(src, dst, sport, dport, 0x12)))
                send_frame(wired.pod_a, ip(src, dst, 17, udp(src, dst, sport, dport)))
            assert arrived(src) == []
        assert talks(sock)


# ---- what is older than the guard ----

@both
@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "untracked"])
def test_tcp_opened_by_the_pod_before(wired, v, tracked):
    """Ends, whoever speaks first afterwards; conntrack may have begun only with the guard."""
    if tracked:
        nft(wired.node, "table inet track { chain f { type filter hook forward priority 0; "
                        "ct state established counter; }; }")
    with Echo(wired.internet, OUTSIDE[v], PORT) as echo:
        with wired.pod_a.connect(OUTSIDE[v], PORT) as sock:
            assert talks(sock)
            wired.guard()
            with captured(wired.world) as arrived:
                echo.conns[0].send(b"anybody there?")
                assert not talks(sock, b"secret", timeout=1)
                echo.conns[0].send(b"say something")
                assert not talks(sock, b"secret", timeout=1)
                assert arrived(*wired.mine) == []


@both
def test_udp_sent_before(wired, v):
    nft(wired.node, "table inet track { chain f { type filter hook forward priority 0; "
                    "ct state established counter; }; }")
    with Echo(wired.internet, OUTSIDE[v], PORT, UDP) as echo, \
         wired.pod_a.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, UDP) as sock:
        sock.connect((OUTSIDE[v], PORT))
        assert talks(sock)
        wired.guard()
        with captured(wired.world) as arrived:
            assert not talks(sock, b"more", timeout=0.3)
            echo.sock.sendto(b"from outside", (address(wired.pod_a, v), sock.getsockname()[1]))
            assert not talks(sock, b"and more", timeout=0.3)
            assert arrived(*wired.mine) == []


# ---- bridged packets, where br_netfilter hands them to these hooks ----

@pytest.fixture
def bridged(wired):
    wired.node.sysctl(**{"bridge__bridge-nf-call-iptables": 1, "bridge__bridge-nf-call-ip6tables": 1})
    yield wired
    wired.node.sysctl(**{"bridge__bridge-nf-call-iptables": 0, "bridge__bridge-nf-call-ip6tables": 0})


@both
def test_bridged_between_pods(bridged, v):
    bridged.guard()
    for pod in (bridged.pod_a, bridged.pod_b):
        pod.run(["ip", "neigh", "flush", "all"])
    with Echo(bridged.pod_b, address(bridged.pod_b, v), PORT):
        assert reaches(bridged.pod_a, address(bridged.pod_b, v), PORT), "ND and TCP pass the bridge"


@both
def test_bridged_to_an_outside_address(bridged, v):
    """A host on the same wire that is not the cluster's."""
    outside = "198.18.0.9" if v == 4 else "2001:db8:18::9"
    bridged.pod_b.ip(f"addr add {outside}/32 dev eth0" if v == 4 else f"addr add {outside}/128 dev eth0 nodad")
    bridged.pod_a.ip(f"route add {outside} dev eth0")
    try:
        with Echo(bridged.pod_b, outside, PORT):
            assert reaches(bridged.pod_a, outside, PORT)
            bridged.guard()
            assert not reaches(bridged.pod_a, outside, PORT, timeout=1)
            assert bridged.forward.dropped() > 0
    finally:
        bridged.pod_a.ip(f"route del {outside} dev eth0")
        bridged.pod_b.ip(f"addr del {outside}/{32 if v == 4 else 128} dev eth0")


def test_routed_neighbour_discovery_is_no_way_out(wired):
    """Only what no router has had passes as such, and this node is one."""
    wired.guard()
    src = wired.pod_a.ip6
    with captured(wired.world) as arrived:
        for hops in (64, 255):
            body = icmp6(src, OUTSIDE[6], 135, bytes(4) + pack(OUTSIDE[6]) + b"data")
            send_frame(wired.pod_a, ip(src, OUTSIDE[6], 58, body, hops=hops))
        assert arrived(src) == []
    wait_for(lambda: wired.forward.dropped() >= 2, what="both are counted")


# ---- the table ----

def test_adding_and_removing(wired):
    forward, pods = wired.forward, [wired.pod_a.ip4, wired.pod_a.ip6]
    assert forward("add", *pods) == ["ENOENT"]
    assert forward("remove", *pods) == ["ENOENT"]
    assert forward("counts") == ["ENOENT"]
    assert forward("verify") == ["ESTALE"]
    assert forward("uninstall") == ["0"]
    assert forward("apply") == ["0"]
    with Echo(wired.internet, OUTSIDE[4], PORT):
        assert reaches(wired.pod_a, OUTSIDE[4], PORT)
        assert forward("add", *pods) == forward("add", *pods) == ["0"]
        assert forward("verify", *pods) == ["0"]
        assert not reaches(wired.pod_a, OUTSIDE[4], PORT, timeout=1)
        # One that is there and one that is not.
        assert forward("add", pods[0], "10.244.1.99") == ["0"]
        assert forward("verify", *pods, "10.244.1.99") == ["0"]
        assert forward("remove", "10.244.1.98", "10.244.1.99") == ["0"]
        assert forward("verify", *pods) == ["0"]
        assert forward("remove", *pods) == forward("remove", *pods) == ["0"]
        assert forward("verify") == ["0"]
        assert reaches(wired.pod_a, OUTSIDE[4], PORT)
    assert forward("add") == forward("remove") == ["0"]
    assert forward("add", *pods, *pods) == ["0"]
    assert forward("verify", *pods, *pods) == ["0"]
    assert forward("apply", *pods, *pods) == ["0"]
    assert forward("verify", *pods) == ["0"]
    assert forward("remove", *pods, *pods) == ["0"]
    assert forward("apply", *pods) == forward("apply", *pods) == ["0"]
    assert forward("verify", *pods) == ["0"]
    assert forward("uninstall") == forward("uninstall") == ["0"]
    assert "sluice" not in wired.node.run(["nft", "list", "ruleset"]).stdout


@pytest.mark.parametrize("change", [
    "flush set inet sluice-node pods4",
    "delete element inet sluice-node pods4 { 10.244.1.11 }",
    "add element inet sluice-node pods4 { 10.244.1.12 }",
    "flush set inet sluice-node pods6",
    "add element inet sluice-node cluster4 { 198.51.100.0/24 }",
    "delete element inet sluice-node cluster4 { 10.244.0.0/16 }",
    "flush chain inet sluice-node from-pod",
    "insert rule inet sluice-node forward accept",
    "add rule inet sluice-node to-pod accept",
    "flush chain inet sluice-node output",
    "add chain inet sluice-node more",
    "delete table inet sluice-node",
    "add table inet sluice-node { flags dormant; }",
])
def test_verify_notices(wired, change):
    wired.guard()
    assert wired.forward("verify", *wired.mine) == ["0"]
    nft(wired.node, change)
    assert wired.forward("verify", *wired.mine) == ["ESTALE"], wired.forward.log
    wired.guard()
    assert wired.forward("verify", *wired.mine) == ["0"]


def test_verify_is_not_disturbed_by_others(wired):
    wired.guard()
    nft(wired.node, "table inet other { chain c { type filter hook forward priority 0; accept; }; }\n"
                    "table netdev sluice-node { chain c { counter; }; }")
    assert wired.forward("verify", *wired.mine) == ["0"]
    assert wired.forward("verify", *wired.mine, cidrs="10.0.0.0/8") == ["ESTALE"]
    assert wired.forward("apply", *wired.mine, cidrs="10.0.0.0/8") == ["0"]
    assert wired.forward("verify", *wired.mine, cidrs="10.0.0.0/8") == ["0"]


def test_counts(wired):
    """Of one that has no past: what is sent again for a connection of before counts, too."""
    src = "10.244.1.77"
    assert wired.forward("apply", src) == ["0"]
    for _ in range(5):
        send_frame(wired.pod_a, ip(src, OUTSIDE[4], 17, udp(src, OUTSIDE[4], 1, 2, b"x" * 72)))
    assert wait_for(lambda: wired.forward("counts") == ["0", "5", "500"], what="five packets of 100")


def test_no_moment_without(wired):
    """Replaced again and again under a pod that sends all the time."""
    wired.guard()
    src = wired.pod_a.ip4
    with captured(wired.world) as arrived:
        with Flood(wired.pod_a, ip(src, OUTSIDE[4], 17, udp(src, OUTSIDE[4], 1, 2))) as flood:
            for _ in range(30):
                wired.guard()
                flood.goes_on()
        assert flood.sent > 1000
        assert arrived(src) == []


# ---- reports ----

@pytest.fixture
def reports(wired):
    """A listener to the guard's NFLOG group: gives the lines so far."""
    proc = wired.world.procs.start("nflog", [BUILD / "forward_tool", "listen", wired.node.path, "15001"])
    wait_for(lambda: "ready" in proc.output(), what="the NFLOG group is bound")
    yield lambda: proc.output().splitlines()[1:]
    proc.stop()


@both
def test_a_refusal_is_reported(wired, reports, v):
    wired.guard()
    src = address(wired.pod_a, v)
    send_frame(wired.pod_a, ip(src, OUTSIDE[v], 17, udp(src, OUTSIDE[v], 1, 2)))
    wait_for(lambda: f"forward 17 {src} {OUTSIDE[v]}" in reports(), what="a report")


def test_reports_are_bounded(wired, reports):
    wired.guard()
    src = wired.pod_a.ip4
    packet = ip(src, OUTSIDE[4], 17, udp(src, OUTSIDE[4], 1, 2))
    start = time.monotonic()
    with wired.pod_a.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
        # In pieces: a busy machine drops what it has no room for.
        while wired.forward.dropped() < 5000:
            for _ in range(500):
                sock.sendto(packet, ("eth0", ETH_P_IP, 0, 0, bytes.fromhex("020000000001")))
    took = time.monotonic() - start
    wait_for(lambda: len(reports()) >= 20, what="the burst is reported")
    assert len(reports()) <= 21 + 10 * took + 10


# ---- cost ----

def test_single_pods_are_cheap(wired):
    """No RCU grace period (10 ms and more) for a pod that comes or goes."""
    wired.guard()
    assert wired.forward("churn", "10.244.1.77", "fd00:10:244:1::77") == ["0"]
    add, remove = (int(word) for word in wired.forward.log.splitlines()[0].split() if word.isdigit())
    print(f"add {add} us, remove {remove} us")
    assert add < 2000 and remove < 2000
    assert wired.forward("verify", *wired.mine) == ["0"]
