# SPDX-License-Identifier: Apache-2.0
"""The kernel half of the guard with real sockets: what it steers to the agent, what it refuses, and
what goes on coming in from outside.
"""
import array
import errno
import fcntl
import select
import socket
import struct
import threading
import time

import pytest
from frames import ACK, FIN, RST, SYN, TCP, echo_packet, tcp_packet, udp_packet
from guard_world import NODE_LINK4, V4, V6, GuardWorld, Sniffer
from procs import wait_for

both = pytest.mark.parametrize("a", [V4, V6], ids=["v4", "v6"])
TCP_FASTOPEN, UDP_SEGMENT = 23, 103
MB = 1 << 20


@pytest.fixture(scope="module", params=["bridge-tcx", "bridge-tc", "routed-tcx", "routed-tc"])
def any_world(request):
    with GuardWorld(*request.param.split("-")) as world:
        yield world


@pytest.fixture(params=["bridge", "routed"])
def fresh(request):
    with GuardWorld(request.param) as world:
        yield world


@pytest.fixture
def bridged():
    with GuardWorld() as world:
        yield world


def dial(world, a, host=None, port=443, source=0):
    return world.pod.connect(host or a.outside, port, source_port=source)


def accept(listener):
    sock, peer = listener.accept()
    sock.settimeout(10)
    return sock, peer


def pump(sender, receiver, total):
    """Sends and receives that many bytes; the receiver has got exactly these."""
    block = bytes(range(256)) * (MB // 256)

    def send():
        for _ in range(total // MB):
            sender.sendall(block)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    got = 0
    while got < total:
        data = receiver.recv(MB)
        assert data, f"ended after {got} bytes"
        assert data[0] == got % 256 and data[-1] == (got + len(data) - 1) % 256
        got += len(data)
    thread.join()


def nothing_outside(world, out, a):
    """That nothing of a pod has got there: a packet that may is behind whatever was before it."""
    with world.node.socket(a.family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"marker", (a.elsewhere, 9))
    out.wait(lambda p: p.dport == 9 and p.payload == b"marker", "the marker")
    assert out.packets(lambda p: p.src in (V4.pod, V6.pod, V4.mute, V6.mute)) == []


def offloads_off(ns, device):
    """Neither checksums nor segmentation are left to the device."""
    with ns.socket() as sock:
        for command in (0x15, 0x17, 0x1F, 0x24, 0x2C):  # ETHTOOL_SRXCSUM, STXCSUM, STSO, SGSO, SGRO
            value = array.array("I", [command, 0])
            request = struct.pack("16sP", device.encode(), value.buffer_info()[0])
            fcntl.ioctl(sock, 0x8946, request)  # SIOCETHTOOL


# ---- steered ----

@both
def test_the_agent_gets_it_with_its_destination(any_world, a):
    with Sniffer(any_world.outside, "node0") as out, any_world.listen(a.family) as listener, \
            dial(any_world, a, port=8443) as client:
        server, peer = accept(listener)
        with server:
            assert server.getsockname()[:2] == (a.outside, 8443)
            assert peer[:2] == client.getsockname()[:2] and peer[0] == a.pod
            assert client.getpeername()[:2] == (a.outside, 8443)
            client.sendall(b"ping")
            assert server.recv(9) == b"ping"
            server.sendall(b"pong")
            assert client.recv(9) == b"pong"
            client.shutdown(socket.SHUT_WR)
            assert server.recv(9) == b""
            server.sendall(b"after")
            server.shutdown(socket.SHUT_WR)
            assert client.recv(9) == b"after" and client.recv(9) == b""
        nothing_outside(any_world, out, a)
    assert any_world.flows("pod") == {}


@both
def test_bulk_both_ways(any_world, a):
    """Segments of up to 64 KiB with their checksum left to the device, as veths have it."""
    with any_world.listen(a.family) as listener, dial(any_world, a) as client:
        server, _ = accept(listener)
        with server:
            pump(client, server, 200 * MB)
            pump(server, client, 200 * MB)


@both
def test_bulk_without_offloads(fresh, a):
    offloads_off(fresh.pod, "eth0")
    offloads_off(fresh.node, "pod")
    with fresh.listen(a.family) as listener, dial(fresh, a) as client:
        server, _ = accept(listener)
        with server:
            pump(client, server, 20 * MB)
            pump(server, client, 20 * MB)
    with pytest.raises(ConnectionRefusedError):
        dial(fresh, a)


def test_many_at_once(bridged):
    listener = bridged.listen()
    clients = [dial(bridged, V4, port=1000 + i) for i in range(300)]
    seen = set()
    for _ in clients:
        server, _ = accept(listener)
        seen.add(server.getsockname()[1])
        server.close()
    for client in clients:
        client.close()
    assert seen == set(range(1000, 1300))


@both
def test_the_nodes_own_sockets_are_not_the_agents(fresh, a):
    """Somebody on the node listens on the port that is dialled, on every address."""
    with fresh.node.socket(a.family) as own, fresh.listen(a.family) as listener:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind((a.any, 2222))
        own.listen()
        for host in (a.outside, NODE_LINK4 if a is V4 else "2001:db8:2::1"):
            with dial(fresh, a, host, 2222):
                server, _ = accept(listener)
                assert server.getsockname()[:2] == (host, 2222)
                server.close()
        own.setblocking(False)
        with pytest.raises(BlockingIOError):
            own.accept()


def test_a_connection_to_the_node_from_before(bridged):
    """It was allowed once; its socket is the node's, so it ends."""
    with bridged.node.socket() as own:
        own.bind((NODE_LINK4, 2222))
        own.listen()
        bridged.prog.ask("net", f"{NODE_LINK4}/32", 1)
        with dial(bridged, V4, NODE_LINK4, 2222) as client, bridged.listen():
            server, _ = accept(own)
            bridged.prog.ask("net", f"{NODE_LINK4}/32", 0)
            client.sendall(b"still there?")
            with pytest.raises(ConnectionResetError):
                client.recv(9)
            server.settimeout(0.2)
            with server, pytest.raises(TimeoutError):
                server.recv(99)


@both
def test_only_a_listener_that_is_known(fresh, a):
    with fresh.listen(a.family, known=False):
        with pytest.raises(ConnectionRefusedError):
            dial(fresh, a)
    assert fresh.counts("pod")[TCP, "NO_LISTENER"] == 1


def dial_again_and_again(world, a, listener):
    """From the same port, while the agent, which closes first, still waits."""
    for _ in range(4):
        with dial(world, a, port=4430, source=40000):
            server, peer = accept(listener)
            assert peer[1] == 40000
            server.close()
        # Until the pod may use its port again.
        wait_for(lambda: not world.pod.run(["ss", "-Htan", "sport", "=", ":40000"]).stdout.strip())


@both
def test_the_same_ports_again(fresh, a):
    with fresh.listen(a.family) as listener:
        dial_again_and_again(fresh, a, listener)
    assert fresh.refused("pod") == 0


@both
def test_the_same_ports_again_and_a_listener_of_the_nodes(fresh, a):
    """Who listens on the port that was dialled gets nothing of it, either."""
    with fresh.node.socket(a.family) as own, fresh.listen(a.family) as listener:
        own.bind((a.any, 4430))
        own.listen()
        own.setblocking(False)
        if a is V4:
            dial_again_and_again(fresh, a, listener)
        else:
            with pytest.raises(ConnectionRefusedError):
                dial_again_and_again(fresh, a, listener)
            assert fresh.counts("pod") == {(TCP, "NO_LISTENER"): 1}
        with pytest.raises(BlockingIOError):
            own.accept()


def fastopen_server(sock):
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)


@both
@pytest.mark.parametrize("server_mode", [0x202, 0x0], ids=["taken", "declined"])
def test_fast_open(fresh, a, server_mode):
    """Data in the SYN, whether the agent's listener takes it or has it sent again."""
    fresh.node.sysctl(ipv4__tcp_fastopen=server_mode)
    fresh.pod.sysctl(ipv4__tcp_fastopen=0x5)  # client, without having got a cookie
    with Sniffer(fresh.outside, "node0") as out, \
            fresh.listen(a.family, prepare=fastopen_server if server_mode else None) as listener, \
            fresh.pod.socket(a.family) as client:
        client.settimeout(10)
        client.sendto(b"hello", socket.MSG_FASTOPEN, (a.outside, 443))
        server, _ = accept(listener)
        assert server.recv(9) == b"hello" and server.getsockname()[0] == a.outside
        info = server.getsockopt(socket.IPPROTO_TCP, 11, 8)  # TCP_INFO
        assert bool(info[5] & 32) == bool(server_mode)  # TCPI_OPT_SYN_DATA
        server.sendall(b"hi")
        assert client.recv(9) == b"hi"
        server.close()
        nothing_outside(fresh, out, a)


@both
def test_options_on_the_way(bridged, a):
    """IPv4 options and IPv6 extension headers that mean no harm."""
    with bridged.listen(a.family) as listener, bridged.pod.socket(a.family) as client:
        client.settimeout(10)
        if a.v6:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
        else:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x07\x07\x04\0\0\0\0\0")
        client.connect((a.outside, 443))
        server, _ = accept(listener)
        with server:
            pump(client, server, 5 * MB)


@both
def test_a_flood_of_syns(bridged, a):
    """The listener's queue is full of connections that will never be; the kernel goes on with cookies,
    whose last step is for the listener, too."""
    listener = bridged.listen(a.family, backlog=8)
    frames = [bridged.frame(tcp_packet(a.mute, a.outside, 1024 + i, 443, SYN)) for i in range(2000)]
    with bridged.mute.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.bind(("eth0", 0))
        for frame in frames:
            sock.send(frame)
    with dial(bridged, a) as client:
        server, peer = accept(listener)
        assert peer[0] == a.pod
        pump(client, server, 5 * MB)
        server.close()
    sent = bridged.node.run(["nstat", "-asz", "TcpExtSyncookiesSent"]).stdout
    received = bridged.node.run(["nstat", "-asz", "TcpExtSyncookiesRecv"]).stdout
    assert int(sent.split()[-2]) > 100 and int(received.split()[-2]) >= 1


@both
def test_old_connections_are_reset(bridged, a):
    """Of which the agent knows nothing: it was started anew, or they are older than the guard."""
    with bridged.listen(a.family), Sniffer(bridged.mute, "eth0") as back:
        bridged.inject(bridged.frame(tcp_packet(a.mute, a.outside, 5, 443, ACK, seq=9, ack=77,
                                                payload=b"data")))
        got = back.wait(lambda p: p.src == a.outside)
        assert (got.flags, got.seq) == (RST, 77)
        bridged.inject(bridged.frame(tcp_packet(a.mute, a.outside, 6, 443, SYN | ACK, seq=9, ack=78)))
        got = back.wait(lambda p: p.src == a.outside and p.dport == 6)
        assert (got.flags, got.seq) == (RST, 78)
    assert bridged.refused("mute") == 0


# ---- nothing but the agent ----

@both
def test_nothing_leaves_when_the_rule_is_missing(fresh, a):
    """Of new and of open connections, however much is sent, also where nothing but the rule leads a
    packet to its socket."""
    fresh.node.sysctl(ipv4__tcp_early_demux=0, ipv4__ip_early_demux=0)
    with fresh.listen(a.family) as listener, dial(fresh, a) as client:
        server, _ = accept(listener)
        with server, Sniffer(fresh.outside, "node0") as out:
            fresh.steer_rules("del")
            try:
                client.setblocking(False)
                client.send(b"x" * 65536)
                with fresh.pod.socket(a.family) as another:
                    another.settimeout(1.5)
                    with pytest.raises(OSError):
                        another.connect((a.outside, 443))
                nothing_outside(fresh, out, a)
            finally:
                fresh.steer_rules("add")
            client.setblocking(True)
            client.settimeout(10)
            got = 0
            while got < 65536:
                got += len(server.recv(65536))
        with dial(fresh, a):
            accept(listener)[0].close()


@both
def test_wherever_the_frame_is_addressed(fresh, a):
    """A neighbour on the bridge is no way around the agent, nor what a bridge does not know."""
    peer_mac = fresh.link(fresh.peer, "eth0")["address"]
    node_mac = fresh.link(fresh.node, "out0")["address"]
    with fresh.listen(a.family), Sniffer(fresh.peer, "eth0") as peer, Sniffer(fresh.mute, "eth0") as back, \
            Sniffer(fresh.outside, "node0") as out:
        for port, mac in enumerate((peer_mac, node_mac, "02:ff:ff:ff:ff:01", "ff:ff:ff:ff:ff:ff",
                                    "33:33:00:00:00:01", "01:80:c2:00:00:00"), 100):
            fresh.inject(fresh.frame(tcp_packet(a.mute, a.outside, port, 443), dst=mac))
            got = back.wait(lambda p, port=port: p.dport == port, f"an answer to a frame for {mac}")
            assert got.flags == SYN | ACK
            # The last step, and what goes on after it, are for sockets that bridges lose sight of.
            for payload in (b"", b"data"):
                fresh.inject(fresh.frame(tcp_packet(a.mute, a.outside, port, 443, ACK, seq=1001,
                                                    ack=got.seq + 1, payload=payload), dst=mac))
            back.wait(lambda p, port=port: p.dport == port and p.flags == ACK and p.ack == 1005,
                      "the data is acknowledged")
        nothing_outside(fresh, out, a)
        assert peer.packets(lambda p: p.src == a.mute) == []


@both
def test_without_the_addresses_of_the_node_nothing_is_steered(fresh, a):
    with fresh.listen(a.family):
        fresh.put("pod", upper=0)
        with pytest.raises(ConnectionRefusedError):
            dial(fresh, a)
        fresh.put("pod")
        dial(fresh, a).close()


# ---- refused at once ----

def elapsed(action):
    began = time.monotonic()
    action()
    return time.monotonic() - began


@both
def test_refused_at_once(fresh, a):
    """What applications see, from their own sockets."""
    def tcp():
        with pytest.raises(ConnectionRefusedError):
            dial(fresh, a)

    def udp():
        with fresh.pod.socket(a.family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((a.outside, 443))
            sock.send(b"x" * 1200)
            with pytest.raises(OSError) as told:
                sock.recv(9)
        assert told.value.errno == (errno.EACCES if a.v6 else errno.EHOSTUNREACH)

    def echo():
        proto = socket.IPPROTO_ICMPV6 if a.v6 else socket.IPPROTO_ICMP
        with fresh.pod.socket(a.family, socket.SOCK_RAW, proto) as sock:
            sock.settimeout(5)
            if not a.v6:
                sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, 25, 1)
            sock.connect((a.outside, 0))
            sock.send(echo_packet(a.pod, a.outside, 1)[40 if a.v6 else 20:])
            with pytest.raises(OSError) as told:
                sock.recv(9)
        assert told.value.errno == (errno.EACCES if a.v6 else errno.EHOSTUNREACH)

    with Sniffer(fresh.outside, "node0") as out:
        for action in (tcp, udp, echo):
            action()  # once for the neighbours
            assert elapsed(action) < 0.2
        nothing_outside(fresh, out, a)


@both
def test_packets_to_be_segmented_are_refused_as_one(fresh, a):
    """UDP and TCP that the device was to cut up."""
    with fresh.pod.socket(a.family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        sock.settimeout(5)
        sock.connect((a.outside, 443))
        sock.send(b"x" * 30000)
        with pytest.raises(OSError) as told:
            sock.recv(9)
        assert told.value.errno == (errno.EACCES if a.v6 else errno.EHOSTUNREACH)
    with fresh.listen(a.family) as listener, dial(fresh, a) as client:
        server, _ = accept(listener)
        pump(client, server, 10 * MB)  # opens the window
        fresh.put("pod", upper=0)
        with server, pytest.raises(ConnectionResetError):
            for _ in range(100):
                client.sendall(b"x" * MB)


# ---- from outside ----

class EchoServer:
    """In the pod: answers each connection, or datagram, with what came."""

    def __init__(self, world, a, port=80, kind=socket.SOCK_STREAM):
        self.sock = world.pod.socket(a.family, kind)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((a.any, port))
        self.kind = kind
        if kind == socket.SOCK_STREAM:
            self.sock.listen(1024)
        self.ready = {self.sock}
        self.wake, self.end = socket.socketpair()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.wake.close()
        self.thread.join()
        for sock in self.ready:
            sock.close()
        self.end.close()

    def _serve(self):
        poll = select.epoll()
        by_fd = {s.fileno(): s for s in (self.sock, self.end)}
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
        while True:
            for fd, _ in poll.poll():
                sock = by_fd[fd]
                if sock is self.end:
                    poll.close()
                    return
                if sock is self.sock and self.kind == socket.SOCK_STREAM:
                    client, _ = sock.accept()
                    by_fd[client.fileno()] = client
                    self.ready.add(client)
                    poll.register(client.fileno(), select.EPOLLIN)
                else:
                    self._answer(sock, by_fd, poll)

    def _answer(self, sock, by_fd, poll):
        if self.kind == socket.SOCK_DGRAM:
            data, peer = sock.recvfrom(65536)
            sock.sendto(data, peer)
            return
        try:
            data = sock.recv(65536)
            if data:
                sock.sendall(data)
                return
        except OSError:
            pass
        poll.unregister(sock.fileno())
        del by_fd[sock.fileno()]
        self.ready.discard(sock)
        sock.close()


def echoes(sock, text=b"hello"):
    sock.sendall(text)
    return sock.recv(len(text)) == text


@both
def test_clients_from_outside(any_world, a):
    with EchoServer(any_world, a, 8080), any_world.listen(a.family):
        with any_world.outside.connect(a.pod, 8080) as client:
            assert echoes(client)
            assert any_world.flows("pod").get("open") == 1
            client.shutdown(socket.SHUT_WR)
            assert client.recv(9) == b""
        wait_for(lambda: "open" not in any_world.flows("pod"))
        with pytest.raises(ConnectionRefusedError):
            any_world.outside.connect(a.pod, 8081)
    assert any_world.refused("pod") == 0


@both
def test_bulk_from_outside(any_world, a):
    with any_world.pod.socket(a.family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((a.any, 8082))
        listener.listen()
        with any_world.outside.connect(a.pod, 8082) as client:
            server, _ = listener.accept()
            with server:
                pump(client, server, 50 * MB)
                pump(server, client, 50 * MB)


@both
def test_datagrams_from_outside(any_world, a):
    with EchoServer(any_world, a, 5353, socket.SOCK_DGRAM), \
            any_world.outside.socket(a.family, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((a.pod, 5353))
        for size in (10, 1400, 5000, 30000):  # the last two in fragments
            client.send(b"x" * size)
            assert client.recv(65536) == b"x" * size
        client.connect((a.pod, 5354))
        client.send(b"nobody there")
        with pytest.raises(ConnectionRefusedError):
            client.recv(9)
    assert any_world.refused("pod") == 0


@both
def test_ping_from_outside(any_world, a):
    for size in ("56", "5000"):
        done = any_world.outside.run(["ping", "-c1", "-W5", "-s", size, a.pod])
        assert done.returncode == 0, done.stdout
    assert any_world.refused("pod") == 0


def test_a_pod_cannot_feed_its_table(bridged):
    """It speaks first, in every way that an answer could look."""
    for a in (V4, V6):
        for packet in (udp_packet(a.mute, a.outside, 53, 4000),
                       tcp_packet(a.mute, a.outside, 80, 4000, SYN | ACK),
                       tcp_packet(a.mute, a.outside, 80, 4000, ACK),
                       tcp_packet(a.mute, a.outside, 80, 4000, FIN),
                       echo_packet(a.mute, a.outside, 5, True)):
            for _ in range(20):
                assert bridged.verdict(bridged.frame(packet))[0] in ("PROTOCOL", "NO_LISTENER")
    with bridged.pod.socket(kind=socket.SOCK_DGRAM) as sock:
        for _ in range(200):
            try:
                sock.sendto(b"x", (V4.outside, 53))
            except OSError:
                pass
    assert bridged.flows("mute") == {} and bridged.flows("pod") == {}


def test_simultaneous_open(bridged):
    """Pod and outside dial each other, with the same ports: what the pod dials is the agent's."""
    with Sniffer(bridged.outside, "node0") as out, bridged.listen():
        with Sniffer(bridged.mute, "eth0") as back:
            with bridged.outside.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
                raw.sendto(tcp_packet(V4.outside, V4.mute, 4000, 80), (V4.mute, 0))
            back.wait(lambda p: p.flags == SYN and p.dport == 80)
            bridged.inject(bridged.frame(tcp_packet(V4.mute, V4.outside, 80, 4000, SYN, seq=77)))
            got = back.wait(lambda p: p.flags == SYN | ACK)
            assert got.ack == 78
        nothing_outside(bridged, out, V4)


# ---- under load ----

def test_an_idle_connection_survives_many_short_ones(bridged):
    """1,000 others a second, in a table that has room for 512."""
    rate, times, took = 1000, 4, []
    with EchoServer(bridged, V4):
        idle = bridged.outside.connect(V4.pod, 80)
        assert echoes(idle)
        for _ in range(times):
            began = time.monotonic()
            with bridged.outside.entered():
                for i in range(rate):
                    with socket.create_connection((V4.pod, 80), 10) as sock:
                        assert echoes(sock, b"%04d" % i)
            took.append(time.monotonic() - began)
        print(f"{rate} connections in {min(took):.2f} to {max(took):.2f} s")
        assert sum(took) < times, took
        assert sum(bridged.flows("pod").values()) <= 512
        with idle:
            assert echoes(idle)
    assert bridged.refused("pod") == 0


def syns(world, a, n, port):
    """SYNs from n addresses and ports that nobody has, by the outside."""
    with world.outside.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for i in range(n):
            source = f"203.0.{113 + i % 7}.{1 + i % 250}"
            raw.sendto(tcp_packet(source, a.mute, 1024 + i % 60000, port), (a.mute, 0))


def test_a_flood_from_outside_is_bounded(bridged):
    """Open connections stay, new ones get in, and the table does not grow."""
    with EchoServer(bridged, V4, 81):
        idle = bridged.outside.connect(V4.pod, 81)
        with bridged.outside.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for i in range(20000):
                source = f"203.0.{113 + i % 7}.{1 + i % 250}"
                raw.sendto(tcp_packet(source, V4.pod, 1024 + i % 60000, 81), (V4.pod, 0))
                if i % 500 == 0:
                    with bridged.outside.connect(V4.pod, 81) as sock:
                        assert echoes(sock)
        with idle:
            assert echoes(idle)
    flows = bridged.flows("pod")
    assert sum(flows.values()) <= 512 and flows["half"] > 300
    assert (TCP, "FLOWS_FULL") not in bridged.counts("pod")


def test_open_connections_are_never_pushed_out(bridged):
    """A pod with room for 8: the ninth is refused, until one of them ends."""
    bridged.put("pod", buckets=1)
    with EchoServer(bridged, V4, 82):
        clients = [bridged.outside.connect(V4.pod, 82) for _ in range(8)]
        assert all(echoes(c) for c in clients)
        assert bridged.flows("pod") == {"open": 8}
        with pytest.raises(TimeoutError):
            bridged.outside.connect(V4.pod, 82, timeout=0.5)
        assert bridged.counts("pod")[TCP, "FLOWS_FULL"] >= 1
        assert bridged.events("pod")[0][:2] == (TCP, "FLOWS_FULL")
        # Forged segments do not end one.
        with bridged.outside.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            port = clients[0].getsockname()[1]
            for seq in range(0, 1 << 32, 1 << 29):
                raw.sendto(tcp_packet(V4.outside, V4.pod, port, 82, RST, seq=seq | 5), (V4.pod, 0))
        assert all(echoes(c) for c in clients)
        clients.pop().close()
        with bridged.outside.connect(V4.pod, 82) as ninth:
            assert echoes(ninth)
        # What another pod has is its own.
        with Sniffer(bridged.mute, "eth0") as mute:
            syns(bridged, V4, 1, 80)
            mute.wait(lambda p: p.dport == 80)
        for client in clients:
            client.close()
