# SPDX-License-Identifier: Apache-2.0
"""The agent is killed, stopped, started again while a pod tries everything: nothing leaves."""
import signal
import socket

import pytest
from attack import OUT4, OUT6, Attack, know_neighbours, make_careless
from each_backend import backend, world as enrolled_world  # noqa: F401
from attackers import attacker, newcomer  # noqa: F401
from procs import wait_for
from trying import Trying


@pytest.fixture(scope="module")
def world(enrolled_world):
    make_careless(enrolled_world)
    return enrolled_world


@pytest.fixture(autouse=True)
def agent_is_well_again(world):
    yield
    node = world.agents["node"]
    if not node.running():
        node.start()
    node.proc.signal(signal.SIGCONT)
    node.wait_ready()
    world.wait_gateway_healthy()


def is_served(world, pod):
    return world.curl(pod, "http://www.example.com/", timeout=2).status == 200


def is_refused(pod):
    """At once, not after a time-out."""
    with pod.socket() as sock:
        sock.settimeout(3)
        with pytest.raises((ConnectionRefusedError, ConnectionResetError, PermissionError)):
            sock.connect((OUT4, 80))
    return True


def test_killed_and_started_again(world, attacker):
    node = world.agents["node"]
    with Attack(world, attacker) as attack, Trying(attack) as trying:
        node.kill()
        trying.until(5)
        assert is_refused(attacker)
        assert attack.arrived() == []
        node.start()
        trying.until(5)
        wait_for(lambda: is_served(world, attacker), 30, "the next agent takes over")
        assert attack.arrived() == []


def test_killed_and_the_rules_undone(world, attacker):
    """Nobody is there to put them back: the guards hold alone."""
    node = world.agents["node"]
    with Attack(world, attacker) as attack, Trying(attack, undo_rules=True) as trying:
        node.kill()
        trying.until(10)
        assert attack.made() > 0
        assert attack.arrived() == []
        node.start()
        trying.until(5)
        assert attack.arrived() == []
    wait_for(lambda: is_served(world, attacker), 30, "the next agent takes over")


def test_stopped(world, attacker):
    """It is there and does nothing: SIGSTOP."""
    node = world.agents["node"]
    with Attack(world, attacker) as attack, Trying(attack, undo_rules=True) as trying:
        node.proc.signal(signal.SIGSTOP)
        trying.until(10)
        assert attack.made() > 0
        assert attack.arrived() == []
        node.proc.signal(signal.SIGCONT)
        trying.until(5)
        assert attack.arrived() == []
    wait_for(lambda: is_served(world, attacker), 30, "it goes on")


def test_restarted_again_and_again(world, attacker):
    node = world.agents["node"]
    with Attack(world, attacker) as attack, Trying(attack, undo_rules=True) as trying:
        for end in (node.stop, node.kill, node.stop):
            end()
            trying.until(2)
            node.start()
            trying.until(2)
        assert attack.made() > 0
        assert attack.arrived() == []
    wait_for(lambda: is_served(world, attacker), 30, "the last agent takes over")


def test_enrolled_while_the_agent_starts(world, newcomer):
    """No agent: no enrolment, and who enrolled the pod hears of it; with the agent there is one."""
    node = world.agents["node"]
    node.kill()
    assert world.enroll(newcomer, check=False).returncode != 0
    node.start()
    world.enroll(newcomer)
    know_neighbours(newcomer, world)
    with Attack(world, newcomer) as attack:
        attack.all_of(OUT4, OUT6)
        with newcomer.socket(kind=socket.SOCK_DGRAM) as sock:
            attack.trying(lambda: sock.sendto(attack.canary, (OUT4, 443)))
        assert attack.made() > 0
        assert attack.arrived() == []
