# SPDX-License-Identifier: Apache-2.0
"""What is opened towards a pod keeps working, before it is enrolled and after, and is no way out."""
import contextlib
import hashlib
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import frames
import pytest
from attack import OUT, OUT4, OUT6, Attack, make_careless, nft
from attackers import attacker, newcomer  # noqa: F401
from each_backend import backend, world as enrolled_world  # noqa: F401
from node_guard import Echo, pings, talks
from procs import wait_for
from world import NODE_WAN

PORT, OTHER_PORT, NODE_PORT = 8080, 8081, 30080
CLIENT = {4: OUT4, 6: OUT6}  # of the internet, with its own address
NODE = dict(zip((4, 6), NODE_WAN))
BRIDGE = {4: "10.244.1.1", 6: "fd00:10:244:1::1"}
BOTH = pytest.mark.parametrize("v", [4, 6], ids=["v4", "v6"])
KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
RATE, SECONDS, PROCESSES = 1000, 3, 8

# A server of the pod's that says a word and closes, as fast as it can.
CLOSER = """
import socket, sys
s = socket.create_server((sys.argv[1], int(sys.argv[2])), family=socket.AF_INET6 if ":" in sys.argv[1]
                         else socket.AF_INET, backlog=1024)
while True:
    c, _ = s.accept()
    c.sendall(b"hi")
    c.close()
"""
# Its clients: so many connections, evenly spread over so many seconds; says how many were answered.
CLIENTS = """
import socket, sys, time
source, host, port, rate, seconds = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
n, ok, begin = int(rate) * int(seconds), 0, time.monotonic()
for i in range(n):
    ahead = begin + i / int(rate) - time.monotonic()
    if ahead > 0:
        time.sleep(ahead)
    s = socket.socket(family)
    s.settimeout(5)
    try:
        s.bind((source, 0))
        s.connect((host, int(port)))
        data = s.recv(10)
        while data and len(data) < 2:
            data += s.recv(10)
        ok += data == b"hi"
    except OSError:
        pass
    s.close()
print(ok, time.monotonic() - begin)
"""


@pytest.fixture(scope="module")
def world(enrolled_world):
    make_careless(enrolled_world)
    return enrolled_world


def address(pod, v):
    return pod.ip6 if v == 6 else pod.ip4


def family(v):
    return socket.AF_INET6 if v == 6 else socket.AF_INET


@pytest.fixture
def node_port(world, newcomer):
    """The node's port leads to the pod's, as kube-proxy has it. The pod is not enrolled yet."""
    rules = "\n".join(f"""
        table {name} nodeport {{ chain in {{ type nat hook prerouting priority dstnat;
            {name} daddr {NODE[v]} meta l4proto {{ tcp, udp }} th dport {NODE_PORT} dnat to {to}:{PORT}
            }}
        }}""" for v, name, to in ((4, "ip", newcomer.ip4), (6, "ip6", f"[{newcomer.ip6}]")))
    nft(world.node, rules)
    yield newcomer
    nft(world.node, "delete table ip nodeport; delete table ip6 nodeport;")


def client(ns, v, kind, source, host, port):
    sock = ns.socket(family(v), kind)
    try:
        sock.settimeout(3)
        sock.bind((source, 0))
        sock.connect((host, port))
        return sock
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def echoes(pod):
    """TCP and UDP on PORT, both families."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Echo(pod, address(pod, v), PORT, kind))
               for v in (4, 6) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]


def ways_in(world, pod, v):
    """(who, namespace, source address, address and port to connect to)"""
    other = world.pods["pod-b"]
    return [("kubelet, by the node's cluster address", world.node, BRIDGE[v], address(pod, v), PORT),
            ("kubelet, by the node's own address", world.node, NODE[v], address(pod, v), PORT),
            ("another pod", other, address(other, v), address(pod, v), PORT),
            ("the gateway's network", world.gateway, "192.0.2.10" if v == 4 else "2001:db8:2::10",
             address(pod, v), PORT),
            ("outside, by the pod's address", world.internet, CLIENT[v], address(pod, v), PORT),
            ("outside, by the node's port", world.internet, CLIENT[v], NODE[v], NODE_PORT)]


def who_is_served(world, pod, v, kind):
    served = []
    for who, ns, source, host, port in ways_in(world, pod, v):
        with contextlib.suppress(OSError), client(ns, v, kind, source, host, port) as sock:
            if all(talks(sock, f"{who} {i}".encode()) for i in range(3)):
                served.append(who)
    return served


@BOTH
@KINDS
def test_connections(world, node_port, v, kind):
    everybody = [way[0] for way in ways_in(world, node_port, v)]
    with echoes(node_port) as servers:
        assert who_is_served(world, node_port, v, kind) == everybody, "before"
        world.enroll(node_port)
        assert who_is_served(world, node_port, v, kind) == everybody, "after"
        assert CLIENT[v] in {peer for server in servers for _, peer in server.seen}, "clients keep their address"


@BOTH
def test_echo(world, newcomer, v):
    """ping, from everywhere, also what comes in fragments."""
    def answered():
        return [who for who, ns, source, host, _ in ways_in(world, newcomer, v)[:-1]
                if ns.run(["ping", "-c1", "-W2", "-I", source, host]).returncode == 0 and
                ns.run(["ping", "-c1", "-W2", "-s", "3000", "-I", source, host]).returncode == 0]
    everybody = [way[0] for way in ways_in(world, newcomer, v)[:-1]]
    assert answered() == everybody, "before"
    world.enroll(newcomer)
    assert answered() == everybody, "after"
    assert not pings(newcomer, OUT[v], timeout=1), "the other way round it does not"


def test_connections_of_the_cluster_survive_enrolment(world, newcomer):
    """Those from outside do not: nobody can tell any more who opened them."""
    other = world.pods["pod-b"]
    with echoes(newcomer), client(other, 4, socket.SOCK_STREAM, other.ip4, newcomer.ip4, PORT) as sock:
        assert talks(sock, b"before")
        world.enroll(newcomer)
        assert talks(sock, b"after")


def many_clients(ns, source, host):
    """By several processes, so that none of them waits for another's answer: (answered, seconds)."""
    argv = [sys.executable, "-c", CLIENTS, source, host, str(OTHER_PORT), str(RATE // PROCESSES), str(SECONDS)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        done = list(pool.map(lambda _: ns.run(argv, timeout=60), range(PROCESSES)))
    ok, took = zip(*(map(float, d.stdout.split()) for d in done))
    return int(sum(ok)), max(took)


@BOTH
def test_an_idle_connection_among_many_short_ones(world, node_port, v):
    """1,000 a second through the node's port; the idle one is still there afterwards, and nothing of what
    was opened fails."""
    world.enroll(node_port)
    pod = address(node_port, v)
    server = node_port.popen([sys.executable, "-c", CLOSER, pod, str(OTHER_PORT)], name="closer")
    with echoes(node_port):
        world.wait_port(world.node, pod, OTHER_PORT)
        with client(world.internet, v, socket.SOCK_STREAM, CLIENT[v], NODE[v], NODE_PORT) as idle:
            assert talks(idle, b"first")
            ok, took = many_clients(world.internet, CLIENT[v], pod)
            print(f"IPv{v}: {ok} connections in {took:.2f} s")
            assert ok == RATE * SECONDS
            assert ok / took > 0.7 * RATE  # what a busy machine may do to the clients
            assert talks(idle, b"still there")
    server.stop()


def digest(sock, n):
    """Of the next n bytes."""
    got, left = hashlib.sha256(), n
    while left:
        data = sock.recv(min(left, 1 << 18))
        assert data, f"{left} of {n} bytes are missing"
        got.update(data)
        left -= len(data)
    return got.hexdigest()


def send_and_tell(sock, data, tell):
    sock.sendall(data)
    tell.append(len(data))


@BOTH
def test_large_transfers_both_ways(world, node_port, v):
    """At the same time, on one connection."""
    world.enroll(node_port)
    there, back = os.urandom(1 << 20) * 32, os.urandom(1 << 20) * 32
    with node_port.socket(family(v)) as listener:
        listener.bind((address(node_port, v), PORT))
        listener.listen()
        listener.settimeout(5)
        with client(world.internet, v, socket.SOCK_STREAM, CLIENT[v], NODE[v], NODE_PORT) as outer, \
                listener.accept()[0] as inner:
            sent, begin = [], time.monotonic()
            threads = [threading.Thread(target=send_and_tell, args=args) for args in
                       ((outer, there, sent), (inner, back, sent))]
            results = {}
            threads += [threading.Thread(target=lambda name=name, sock=sock, data=data:
                                         results.update({name: digest(sock, len(data))}))
                        for name, sock, data in (("inner", inner, there), ("outer", outer, back))]
            for sock in (outer, inner):
                sock.settimeout(30)
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.monotonic() - begin
    assert results == {"inner": hashlib.sha256(there).hexdigest(), "outer": hashlib.sha256(back).hexdigest()}
    print(f"IPv{v}: 64 MiB in {took:.2f} s")


# ---- no way out ----

def packets_beside(attack, v, kind, remote_port):
    """Almost answers of a flow between CLIENT:remote_port and the pod's PORT: another port or address at
    either end, another protocol."""
    make = frames.tcp_packet if kind == socket.SOCK_STREAM else frames.udp_packet
    other = frames.udp_packet if kind == socket.SOCK_STREAM else frames.tcp_packet
    pod, elsewhere = attack.ip[v], {4: "198.51.100.10", 6: "2001:db8:51::10"}[v]

    def packet(how, dst, sport, dport, flags=frames.ACK | frames.PSH):
        if how is frames.tcp_packet:
            return how(pod, dst, sport, dport, flags, payload=attack.canary, ack=1)
        return how(pod, dst, sport, dport, attack.canary)
    found = [packet(how, dst, sport, dport) for how, dst, sport, dport in (
        (make, CLIENT[v], PORT, remote_port + 1), (make, CLIENT[v], OTHER_PORT, remote_port),
        (make, elsewhere, PORT, remote_port), (other, CLIENT[v], PORT, remote_port),
        (make, CLIENT[v], PORT, 443), (other, CLIENT[v], PORT, 443))]
    if kind == socket.SOCK_STREAM:
        found.append(packet(make, CLIENT[v], OTHER_PORT, remote_port, frames.SYN))
    return found + [attack.echo_packet(v), attack.echo_packet(v, reply=True)]


@BOTH
@KINDS
@pytest.mark.parametrize("by", ["node-port", "pod-address"])
def test_a_flow_is_good_for_nothing_else(world, node_port, v, kind, by):
    """While it is open and used, the pod sends to other ports and addresses beside it."""
    pod = node_port
    world.enroll(pod)
    host, port = (NODE[v], NODE_PORT) if by == "node-port" else (address(pod, v), PORT)

    def is_the_flow(packet):
        return (packet.src, packet.sport) == (host, port) and (packet.dst, packet.dport) == (CLIENT[v], mine)
    with echoes(pod), client(world.internet, v, kind, CLIENT[v], host, port) as sock:
        mine = sock.getsockname()[1]
        assert talks(sock, b"first")
        with Attack(world, pod, usual=is_the_flow) as attack:
            for _ in range(3):
                for packet in packets_beside(attack, v, kind, mine):
                    attack.frame(packet)
                    attack.raw(packet)
            attack.all_of(OUT[v])
            assert talks(sock, b"second")
            assert attack.made() > 20
            assert attack.arrived() == []
            attack.wait_refused()
        assert talks(sock, b"third")


def test_an_answer_may_not_come_first(world, node_port):
    """Datagrams from the port that is served, to a client that has not said anything."""
    world.enroll(node_port)
    with Attack(world, node_port) as attack, node_port.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.bind((node_port.ip4, PORT))
        for port in (40000, 53, 443):
            attack.trying(lambda port=port: sock.sendto(attack.canary, (OUT4, port)))
        assert attack.made() >= 3
        assert attack.arrived() == []
    # What comes after it from there opens a flow of its own, as ever.
    with echoes(node_port), client(world.internet, 4, socket.SOCK_DGRAM, OUT4, NODE[4], NODE_PORT) as late:
        wait_for(lambda: talks(late, b"hello"), what="the client is served")
