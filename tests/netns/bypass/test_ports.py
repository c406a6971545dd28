# SPDX-License-Identifier: Apache-2.0
"""The agent's own doors, seen from a pod: its listeners, the node's ports, the socket for enrolment."""
import sys

import packets
import pytest
from agents import CTL
from attack import NODE_IP4, NODE_IP6, Attack, make_careless
from each_backend import backend, world as enrolled_world  # noqa: F401
from attackers import attacker, newcomer  # noqa: F401
from wire import Wire, request
from world import NODE_WAN

REGISTERED = request("www.example.com", "/")
NODE_ADDRESSES = [NODE_IP4, NODE_IP6, "192.0.2.1", "2001:db8:2::1", *NODE_WAN]


@pytest.fixture(scope="module")
def world(enrolled_world):
    make_careless(enrolled_world)
    return enrolled_world


def talk(pod, address, port, data):
    """What comes back: bytes, or why none did. Refusals have to come at once."""
    try:
        with Wire(pod.connect(address, port, timeout=3)) as wire:
            try:
                wire.send(data)
            except OSError:
                pass
            return wire.rest()
    except (ConnectionRefusedError, ConnectionResetError, PermissionError) as e:
        return type(e).__name__


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("what", ["http", "proxy"])
def test_the_listener_itself_is_nobodys(world, attacker, address, what):
    """A connection that nobody redirected leads nowhere, whatever it says; a PROXY header is no more
    than strange bytes."""
    header = packets.proxy_header("www.example.com", "shop/pod-a", port=80)
    served = len(world.nginx_seen())
    with Attack(world, attacker) as attack:
        got = talk(attacker, address, 15001, (header if what == "proxy" else b"") + REGISTERED)
        assert b"200 OK" not in got if isinstance(got, bytes) else got
        assert attack.arrived() == []
    assert len(world.nginx_seen()) == served


@pytest.mark.parametrize("port", [15000, 15001, 15443])
def test_the_nodes_ports(world, attacker, port):
    """Nobody listens there for pods."""
    header = packets.proxy_header("www.example.com", "shop/pod-a", port=80)
    served = len(world.nginx_seen())
    with Attack(world, attacker) as attack:
        for address in NODE_ADDRESSES:
            got = talk(attacker, address, port, header + REGISTERED)
            assert got == b"" or isinstance(got, str) or got.startswith(b"HTTP/1.1 4"), (address, got)
        assert attack.arrived() == []
    assert len(world.nginx_seen()) == served


@pytest.mark.parametrize("line", ["GET http://www.example.com/ HTTP/1.1", "CONNECT www.example.com:80 HTTP/1.1"])
def test_metrics_are_no_proxy(world, attacker, line):
    served = len(world.nginx_seen())
    with Attack(world, attacker) as attack:
        got = talk(attacker, NODE_IP4, 15020, f"{line}\r\nHost: www.example.com\r\n\r\n".encode() + REGISTERED)
        assert not isinstance(got, bytes) or b'"server"' not in got
        assert attack.arrived() == []
    assert len(world.nginx_seen()) == served


@pytest.mark.parametrize("address", ["192.0.2.10", "203.0.113.10", "2001:db8:2::10"])
def test_a_forged_header_at_the_gateways_port(world, attacker, address):
    """The gateway would believe it: the pod does not come to speak to it."""
    header = packets.proxy_header("www.example.com", "shop/pod-a", port=80)
    served = len(world.nginx_seen())
    gateway = world.agents["gateway"].tail()
    with Attack(world, attacker) as attack:
        got = talk(attacker, address, 15443, header + REGISTERED)
        assert not isinstance(got, bytes) or b"200 OK" not in got
        assert attack.made() > 0
        assert attack.arrived() == []
        attack.wait_refused()
    assert len(world.nginx_seen()) == served
    assert gateway.matching(source_pod="pod-a") == []


# ---- the socket for enrolment ----

ASK = """
import json, socket, sys
path = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(3)
try:
    s.connect(path)
    s.send(json.dumps({"op": "unenroll", "pod": sys.stdin.read()}).encode())
    print("answer", s.recv(4096).decode())
except OSError as e:
    print("error", e.errno)
"""


def ask(world, pod, path, *around):
    """Asks for the pod to be let go, from within, by the way of `around`."""
    return pod.run([*around, sys.executable, "-c", ASK, path], input=pod.ref).stdout


def socket_of(world, name="enrol"):
    return world.agents["node"].config[name]["socket"]


def is_enrolled(world, pod):
    return f'"{pod.pod}"' in world.agents["node"].ctl("pods", "--json").stdout


def test_another_mount_namespace_has_no_such_path(world, attacker):
    """As a container: root, and the folder is not there."""
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /tmp && exec "$@"', "sh"]
    for name in ("enrol", "admin"):
        assert ask(world, attacker, socket_of(world, name), *hide).split() == ["error", "2"]
    assert is_enrolled(world, attacker)


def test_only_root_is_listened_to(world, attacker):
    user = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
    assert ask(world, attacker, socket_of(world), *user).split() == ["error", "13"]
    assert is_enrolled(world, attacker)


def test_root_of_another_pod_cannot_by_name(world, attacker):
    """By TCP, UDP or an abstract name there is no way in: only the path, which a pod does not have."""
    listening = attacker.run(["ss", "-xl"]).stdout + attacker.run(["ss", "-tlnH"]).stdout
    assert "agent.sock" not in listening and "admin.sock" not in listening
    done = attacker.run(["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /tmp && exec "$@"', "sh",
                         str(CTL.resolve()), "--socket", socket_of(world), "unenroll", "--pod", attacker.ref])
    assert done.returncode != 0
    assert is_enrolled(world, attacker)
