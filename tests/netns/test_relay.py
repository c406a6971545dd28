# SPDX-License-Identifier: Apache-2.0
"""Bytes on their way: none lost, none out of order, ends and resets passed on, limits held."""
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pytest

import servers
from stream import DIGEST, HELLO, exactly
from world import wait_for

STREAM = Path(__file__).resolve().parent / "stream.py"
PORT, RAW_PORT = 9000, 9001
GIB = 1 << 30


@pytest.fixture(scope="module")
def relay(own_world):
    """Both agents, one pod, and a TCP address that is registered: no sniffing, any bytes."""
    world = own_world
    world.start()
    server = world.internet.popen([sys.executable, STREAM, "serve", servers.PEER, PORT], name="stream")
    world.wait_port(world.internet, servers.PEER, PORT)
    world.register("relay", ["relay.example.com"], ports=((PORT, "TCP"), (RAW_PORT, "TCP")),
                   addresses=[f"{servers.PEER}/32"], resolution="NONE")
    yield world
    server.stop()


@pytest.fixture
def listener(relay):
    """A listening socket of the test's own in the internet."""
    sock = relay.internet.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((servers.PEER, RAW_PORT))
    sock.listen(4096)
    sock.settimeout(10)
    yield sock
    sock.close()


def pair(world, listener):
    """The two ends of one connection through both agents."""
    client = world.pods["pod-a"].connect(servers.PEER, RAW_PORT)
    server, peer = listener.accept()
    assert peer[0] == "203.0.113.10"
    server.settimeout(10)
    return client, server


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def exchange(world, up, down, timeout=120):
    done = world.pods["pod-a"].run([sys.executable, STREAM, "exchange", servers.PEER, PORT, up, down],
                                   timeout=timeout)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_gibibyte_both_ways_at_once(relay):
    size = GIB // 4 if os.environ.get("SLUICE_BUILD", "").find("san-") >= 0 else GIB
    result = exchange(relay, size, size)
    assert result["up_ok"] and result["down_ok"] and result["end"], result


@pytest.mark.parametrize("up, down", [(0, 1), (1, 0), (0, 0), (65536, 65537), (3_000_001, 17), (17, 3_000_001)])
def test_odd_sizes(relay, up, down):
    result = exchange(relay, up, down)
    assert result["up_ok"] and result["down_ok"] and result["end"], result


def test_bytes_are_counted(relay):
    node, gateway = relay.tails()
    exchange(relay, 100_000, 200_000)
    for tail in (node, gateway):
        tail.wait(upstream_cluster=f"outbound|{PORT}||relay.example.com", decision="ALLOW", reason=None,
                  bytes_received=100_000 + HELLO.size, bytes_sent=200_000 + DIGEST)


def test_2000_connections_at_once(relay, listener):
    """All are open together, each carries its own bytes, each is logged."""
    n = 2000
    node = relay.agents["node"].tail()
    servers_side = {}
    done = threading.Event()

    def serve():
        poll = select.epoll()
        poll.register(listener, select.EPOLLIN)
        while not done.is_set():
            for fd, _ in poll.poll(0.2):
                if fd == listener.fileno():
                    sock = listener.accept()[0]
                    servers_side[sock.fileno()] = sock
                    poll.register(sock, select.EPOLLIN)
                else:
                    data = servers_side[fd].recv(4096)
                    if data:
                        servers_side[fd].sendall(data[::-1])
                    else:
                        poll.unregister(fd)
                        servers_side.pop(fd).close()

    thread = threading.Thread(target=serve)
    thread.start()
    clients = []
    try:
        for _ in range(n):
            clients.append(relay.pods["pod-a"].connect(servers.PEER, RAW_PORT, timeout=20))
        for i, sock in enumerate(clients):
            sock.sendall(b"%08d" % i)
        for i, sock in enumerate(clients):
            assert exactly(sock, 8) == (b"%08d" % i)[::-1]
        assert relay.metrics("node").value("sluice_connections") >= n
        assert relay.metrics("gateway").value("sluice_connections") >= n
    finally:
        for sock in clients:
            sock.close()
        wait_for(lambda: not servers_side, 20, "all server sides saw the end")
        done.set()
        thread.join()
    wait_for(lambda: len(node.matching(upstream_cluster=f"outbound|{RAW_PORT}||relay.example.com")) == n,
             10, f"{n} lines")
    wait_for(lambda: relay.metrics("node").value("sluice_connections") == 0, 10, "all are gone")


def fill(sock):
    """Sends until nobody takes any more for a while; how much went out."""
    sock.settimeout(1.0)
    sent = 0
    try:
        while True:
            sent += sock.send(bytes(65536))
    except TimeoutError:
        return sent


@pytest.mark.parametrize("reader", ["server", "client"])
def test_a_slow_reader_holds_the_writer_and_nothing_piles_up(relay, listener, reader):
    client, server = pair(relay, listener)
    slow, writer = (server, client) if reader == "server" else (client, server)
    before = rss(relay)
    sent = fill(writer)
    assert sent < kernel_buffers(relay), "somebody in between takes whatever comes"
    assert rss(relay) - before < 8 << 20, "the agents hold what nobody reads"
    writer.settimeout(10)
    writer.shutdown(socket.SHUT_WR)
    got = 0
    while data := slow.recv(1 << 20):
        got += len(data)
    assert got == sent
    client.close()
    server.close()


def kernel_buffers(world):
    """What the sockets of three hops may hold at most, and the agents' pipes."""
    with world.node.entered():
        most = [int(Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text(encoding="ascii").split()[2])
                for way in "rw"]
    return 3 * sum(most) + (4 << 20)


def rss(world):
    total = 0
    for agent in world.agents.values():
        for line in Path(f"/proc/{agent.proc.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon"):
                total += int(line.split()[1]) * 1024
    return total


def test_a_slow_writer(relay, listener):
    """One byte at a time, seen by the other side as it comes."""
    client, server = pair(relay, listener)
    for i in range(200):
        client.sendall(bytes([i]))
        assert server.recv(16) == bytes([i])
        server.sendall(bytes([i ^ 255]))
        assert client.recv(16) == bytes([i ^ 255])
    client.close()
    assert server.recv(1) == b""
    server.close()


@pytest.mark.parametrize("first", ["client", "server"])
def test_half_close(relay, listener, first):
    """One direction ends; the other goes on for as long as it likes."""
    client, server = pair(relay, listener)
    one, other = (client, server) if first == "client" else (server, client)
    one.sendall(b"last words")
    one.shutdown(socket.SHUT_WR)
    assert exactly(other, 10) == b"last words"
    assert other.recv(1) == b""
    for _ in range(50):
        other.sendall(b"x" * 10_000)
        assert exactly(one, 10_000) == b"x" * 10_000
    other.shutdown(socket.SHUT_WR)
    assert one.recv(1) == b""
    client.close()
    server.close()


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_reset_arrives_as_a_reset(relay, listener, first):
    client, server = pair(relay, listener)
    client.sendall(b"hello")
    assert exactly(server, 5) == b"hello"
    one, other = (client, server) if first == "client" else (server, client)
    reset(one)
    with pytest.raises(ConnectionResetError):
        while other.recv(4096):
            pass
    other.close()


@pytest.mark.parametrize("first", ["client", "server"])
def test_what_was_sent_before_a_close_arrives(relay, listener, first):
    client, server = pair(relay, listener)
    one, other = (client, server) if first == "client" else (server, client)
    sender = threading.Thread(target=lambda: (one.sendall(b"z" * 5_000_000), one.close()))
    sender.start()
    got = 0
    while data := other.recv(1 << 16):
        got += len(data)
    sender.join()
    assert got == 5_000_000
    other.close()


def test_a_server_that_refuses(relay):
    """Nobody listens: the client sees a reset, never silence, and the log says whose fault it was."""
    _, gateway = relay.tails()
    with pytest.raises(ConnectionResetError):
        client = relay.pods["pod-a"].connect(servers.PEER, RAW_PORT)
        client.recv(1)
    gateway.wait(decision="DENY", reason="upstream_failed")


# ---- limits and time-outs: agents of their own ----

FEW = {"connections": 20, "connectionsPerPod": 12}
SHORT = {"idleTimeout": "1s", "helloTimeout": "1s"}


def limits(limits):
    return pytest.mark.parametrize("strict", [limits], indirect=True, ids=["-".join(limits)])


@pytest.fixture
def strict(bare_world, request):
    world = bare_world
    world.start(node={"limits": request.param})
    world.register("relay", ["relay.example.com"], ports=((RAW_PORT, "TCP"),),
                   addresses=[f"{servers.PEER}/32"], resolution="NONE")
    sock = world.internet.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((servers.PEER, RAW_PORT))
    sock.listen(64)
    sock.settimeout(10)
    world.listener = sock
    yield world
    sock.close()


def is_reset(pod):
    """Whether a new connection is reset before a byte has come."""
    try:
        with pod.connect(servers.PEER, RAW_PORT) as sock:
            return sock.recv(1) is None
    except ConnectionResetError:
        return True


def alive(sock):
    """Whether the connection still stands."""
    sock.setblocking(False)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


@limits(FEW)
def test_limits_refuse_new_connections_and_leave_old_ones_alone(strict):
    node = strict.agents["node"].tail()
    a = [strict.pods["pod-a"].connect(servers.PEER, RAW_PORT) for _ in range(12)]
    wait_for(lambda: strict.metrics("node").value("sluice_connections") == 12, what="12 are open")

    assert is_reset(strict.pods["pod-a"])
    line = node.wait(reason="limit_exceeded")
    assert line["decision"] == "DENY" and line["source_pod"] == "pod-a", line

    b = [strict.pods["pod-b"].connect(servers.PEER, RAW_PORT) for _ in range(8)]
    wait_for(lambda: strict.metrics("node").value("sluice_connections") == 20, what="20 are open")
    assert is_reset(strict.pods["pod-b"])
    wait_for(lambda: len(node.matching(reason="limit_exceeded")) == 2, what="the second refusal")
    assert all(alive(sock) for sock in a + b), "old connections live"
    assert strict.metrics("node").value("sluice_denied_total", reason="limit_exceeded") == 2

    for sock in [*a, *b]:
        sock.close()
        strict.listener.accept()[0].close()
    wait_for(lambda: strict.metrics("node").value("sluice_connections") == 0, what="all are gone")
    sock = strict.pods["pod-a"].connect(servers.PEER, RAW_PORT)
    wait_for(lambda: strict.metrics("node").value("sluice_connections") == 1, what="room again")
    sock.close()


@limits(SHORT)
def test_idle_connections_end(strict):
    node = strict.agents["node"].tail()
    start = time.monotonic()
    sock = strict.pods["pod-a"].connect(servers.PEER, RAW_PORT)
    assert sock.recv(1) == b""
    assert 0.9 < time.monotonic() - start < 3
    assert node.wait(connection_termination_details="idle_timeout")["decision"] == "ALLOW"
    sock.close()


@limits(SHORT)
def test_a_client_that_never_speaks_is_ended(strict):
    """A port that is not decided by address waits for the first bytes, and not for ever."""
    node = strict.agents["node"].tail()
    sock = strict.pods["pod-a"].connect(servers.WWW[0], 443)
    try:
        assert sock.recv(100) == b""
    except ConnectionResetError:
        pass
    line = node.wait(reason="hello_timeout")
    assert line["decision"] == "DENY" and line["duration"] >= 900, line
    sock.close()


def test_out_of_descriptors(bare_world):
    """RLIMIT_NOFILE is small and cannot be raised: the limit follows from it, and is said."""
    world = bare_world
    world.start_gateway()
    node = world.start_node(wait=False)
    node.proc.stop()
    import resource
    node.proc = world.node.popen(
        [node_binary(), "--config", node.config_file], name="node", log=node.stderr, cwd=node.folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1200, 1200)))
    node.wait_ready()
    assert "RLIMIT_NOFILE is 1200" in node.errors(whole=True)
    limit = node.metrics().value("sluice_connections_limit")
    assert 100 < limit < 600
    for pod in world.pods.values():
        world.enroll(pod)
    world.wait_gateway_healthy()
    assert world.curl(world.pods["pod-a"], "https://www.example.com/").status == 200


def node_binary():
    from agents import AGENT
    return AGENT
