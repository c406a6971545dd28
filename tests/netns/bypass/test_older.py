# SPDX-License-Identifier: Apache-2.0
"""What a pod had begun before it was enrolled ends there; and so does what races with the enrolment."""
import contextlib
import socket
import sys

import pytest
import servers
from attack import Attack
from each_backend import backend, world  # noqa: F401
from attackers import add_pod, newcomer, remove_pod  # noqa: F401
from procs import wait_for

ECHO = (servers.PEER, 7)
SENDER = """
import socket, sys
address = sys.argv[1]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
datagrams = socket.socket(family, socket.SOCK_DGRAM)
while True:
    stream = socket.socket(family)
    stream.setblocking(False)
    for send in (lambda: datagrams.sendto(b"sluice-race", (address, 53)), lambda: stream.connect((address, 80))):
        try:
            send()
        except OSError:
            pass
    stream.close()
"""


@contextlib.contextmanager
def udp_echo(ns, host, port):
    """A socket of the internet whose owner answers by hand."""
    with ns.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(5)
        sock.bind((host, port))
        yield sock


def test_tcp_connection(world, newcomer):
    """Nothing of the pod's gets out on it, not even the acknowledgment of what the server goes on sending."""
    with newcomer.connect(*ECHO) as old:
        old.sendall(b"before")
        assert old.recv(100) == b"before"
        world.enroll(newcomer)
        with Attack(world, newcomer) as attack:
            old.setblocking(False)
            for _ in range(3):
                attack.trying(lambda: old.send(attack.canary))
            assert attack.made() > 0, attack.results
            assert attack.arrived() == []


def test_tcp_connection_on_which_the_server_speaks(world, newcomer):
    host, port = servers.WWW[0], 4444
    with world.internet.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
        listener.settimeout(5)
        with newcomer.connect(host, port) as old, listener.accept()[0] as server:
            old.sendall(b"before")
            assert server.recv(100) == b"before"
            world.enroll(newcomer)
            with Attack(world, newcomer) as attack:
                for _ in range(3):
                    server.sendall(b"are you there")
                attack.trying(lambda: old.send(attack.canary))
                assert attack.made() > 0, attack.results
                assert attack.arrived() == []


def test_datagrams(world, newcomer):
    host, port = servers.WWW[0], 4445
    with udp_echo(world.internet, host, port) as server, \
            newcomer.socket(kind=socket.SOCK_DGRAM) as old:
        old.connect((host, port))
        old.settimeout(5)
        old.send(b"before")
        _, peer = server.recvfrom(100)
        server.sendto(b"answer", peer)
        assert old.recv(100) == b"answer"
        world.enroll(newcomer)
        with Attack(world, newcomer) as attack:
            for _ in range(3):
                server.sendto(b"go on", peer)
                attack.trying(lambda: old.send(attack.canary))
            assert attack.made() > 0, attack.results
            assert attack.arrived() == []
            attack.wait_refused()


@pytest.mark.parametrize("turn", range(3))
def test_enrolment_races_with_the_first_packet(world, turn):
    """A process sends from the moment on that there is a way. Once enrolment has answered, nothing more."""
    pod = add_pod(world)
    try:
        with Attack(world, pod) as free:
            senders = [pod.popen([sys.executable, "-c", SENDER, address], name=f"sender-{turn}")
                       for address in ("198.51.100.66", "2001:db8:51::66")]
            wait_for(lambda: len(free.watch.arrived()) > 20, what="it gets out at first")
            world.enroll(pod)
            free.watch.settle(pod, pod.ip4)
        with Attack(world, pod) as attack:
            wait_for(lambda: attack.made() > 200, what="it goes on trying")
            assert attack.arrived() == []
            attack.wait_refused()
        for sender in senders:
            sender.stop()
    finally:
        remove_pod(world, pod)
