# SPDX-License-Identifier: Apache-2.0
"""Whatever a root process in a pod tries, nothing of it leaves the cluster: with each back end."""
import socket

import frames
import pytest
from attack import NOWHERE4, NOWHERE6, OUT, Attack, make_careless
from attempts import ATTEMPTS, MSG_FASTOPEN
from each_backend import backend, world as enrolled_world  # noqa: F401
from attackers import add_pod, attacker, newcomer, remove_pod  # noqa: F401
from servers import WWW
from wire import Wire, request
from world import GATEWAY_IPS, NODE_WAN, World

each_attempt = pytest.mark.parametrize("attempt", ATTEMPTS, ids=[a.name for a in ATTEMPTS])


@pytest.fixture(scope="module")
def world(enrolled_world):
    make_careless(enrolled_world)
    return enrolled_world


@pytest.fixture(scope="module")
def free_world(built):
    """Nobody is enrolled here; the gateway serves whoever comes."""
    with World() as world:
        world.start_gateway()
        make_careless(world)
        yield world
        world.stop_agents()


@pytest.fixture
def free_pod(free_world):
    pod = add_pod(free_world)
    yield pod
    remove_pod(free_world, pod)


def in_log(address):
    return f"[{address}]" if ":" in address else address


@each_attempt
def test_nothing_leaves(world, attacker, attempt):
    with Attack(world, attacker) as attack:
        attempt.run(attack)
        assert attack.made() > 0, attack.results
        assert attack.arrived() == []
        if attempt.counted:
            attack.wait_refused()


def is_about_nobody(packet):
    """The node's word for a neighbour that it does not find: of an answer to an attempt before, with a
    forged source. It is given again whenever the server sends that answer again, for half a minute."""
    return packet.src in NODE_WAN and (packet.proto, packet.type) in ((frames.ICMP, 3), (frames.ICMP6, 1))


@each_attempt
def test_it_would_leave(free_world, free_pod, attempt):
    """What the test above sees nothing of is there to be seen when nobody confines the pod."""
    with Attack(free_world, free_pod, usual=is_about_nobody) as attack:
        attempt.run(attack)
        assert attack.made() > 0, attack.results
        assert bool(attack.arrived()) == attempt.leaves


@pytest.mark.parametrize("v", [4, 6], ids=["v4", "v6"])
def test_what_the_guard_stops_is_logged(world, attacker, backend, v):
    """With the pod and both addresses, as the packet had them; and counted by pod, protocol, why."""
    tail = world.agents["node"].tail()
    forged = {4: NOWHERE4, 6: NOWHERE6}[v]
    with Attack(world, attacker) as attack:
        attack.frame(attack.tcp_packet(v, forged))
        line = tail.wait(source_pod=attacker.pod, protocol="TCP")
        assert (line["decision"], line["reason"]) == ("DENY", "bypass_attempt")
        assert line["source_namespace"] == attacker.namespace
        assert line["downstream_remote_address"].rpartition(":")[0] == in_log(forged)
        assert line["downstream_local_address"].rpartition(":")[0] == in_log(OUT[v])
        attack.frame(attack.udp_packet(v))
        line = tail.wait(source_pod=attacker.pod, protocol="UDP")
        # Where the guard steers, it is the one who says what does not leave at all.
        assert line["reason"] == ("protocol_refused" if backend == "ebpf" else "bypass_attempt")
        assert line["downstream_remote_address"] == f"{in_log(attack.ip[v])}:40000"
        assert line["downstream_local_address"] == f"{in_log(OUT[v])}:53"
    metrics, mine = world.metrics("node"), {"namespace": attacker.namespace, "pod": attacker.pod}
    assert metrics.value("sluice_guard_dropped_total", protocol="TCP", why="spoofed", **mine) == 1
    assert metrics.value("sluice_guard_dropped_total", protocol="UDP", **mine) == 1
    assert metrics.value("sluice_denied_total", reason="bypass_attempt", namespace=attacker.namespace) >= 1


@pytest.mark.parametrize("address", [WWW[0], "198.51.100.14", "2001:db8:51::14"])
def test_fast_open_is_captured_like_any_other(world, attacker, address):
    """Data in the SYN: a registered host is reached by the gateway, and nothing of it is lost."""
    name = "www.example.com" if address == WWW[0] else "dual.example.com"
    attacker.sysctl(ipv4__tcp_fastopen=0x5)
    with Attack(world, attacker) as attack:
        sock = attack.socket(socket.SOCK_STREAM, address)
        sock.sendto(request(name, "/fast"), MSG_FASTOPEN, (address, 80))
        got = Wire(sock).response()
        assert got.status == 200 and got.headers["x-client"] in GATEWAY_IPS
        assert attack.arrived() == []
