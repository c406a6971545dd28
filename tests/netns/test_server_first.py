# SPDX-License-Identifier: Apache-2.0
"""Protocols in which the server speaks first: the registered address decides, nothing is waited for."""
import smtplib
import time

import pytest
import servers
from wire import Wire
from world import GATEWAY_IPS


@pytest.fixture(scope="module")
def db(world):
    world.start_postgres()
    return ["psql", "-h", servers.DB, "-U", "demo", "-d", "postgres", "-At"]


def test_psql(world, pod_a, db, no_leaks):
    node, gateway = world.tails()
    got = pod_a.run([*db, "-c", "select inet_client_addr()", "-c", "select sum(i) from generate_series(1,1000) i"])
    assert got.stdout.split() == [GATEWAY_IPS[0], "500500"], got.stderr
    record = node.wait(source_pod="pod-a", decision="ALLOW", protocol="TCP")
    assert record["downstream_local_address"] == f"{servers.DB}:5432"
    at_gateway = gateway.wait(request_id=record["request_id"])
    assert at_gateway["upstream_host"] == f"{servers.DB}:5432"
    assert at_gateway["upstream_local_address"].startswith(GATEWAY_IPS[0] + ":")


def test_psql_by_name(world, pod_b, db):
    got = pod_b.run(["psql", "-h", "db.example.com", "-U", "demo", "-d", "postgres", "-Atc", "select 1"])
    assert got.stdout == "1\n", got.stderr


def test_psql_bulk(world, pod_a, db):
    got = pod_a.run([*db, "-c", "copy (select i, repeat('x', 100) from generate_series(1,50000) i) to stdout"])
    assert len(got.stdout.splitlines()) == 50_000, got.stderr


def test_many_sessions(world, pod_a, db):
    """Twenty at a time, each a conversation of its own."""
    runs = [pod_a.popen([*db, "-c", f"select {i}, pg_sleep(0.2)"], name=f"psql{i}") for i in range(20)]
    for i, run in enumerate(runs):
        assert run.wait(20) == 0, run.output()
        assert run.output() == f"{i}|\n"


def test_smtp(world, pod_a, no_leaks):
    """The banner comes before the client says a word, and at once."""
    begun = time.monotonic()
    with Wire(pod_a.connect(servers.MAIL, 25)) as wire:
        banner = wire.take_until(b"\r\n")
    assert time.monotonic() - begun < 1.5, "somebody waited for the client"
    assert banner.startswith(b"220 mail.example.com") and GATEWAY_IPS[0].encode() in banner


def test_smtp_dialogue(world, pod_b):
    with smtplib.SMTP() as smtp:
        smtp.sock = pod_b.connect(servers.MAIL, 25)
        smtp.file = smtp.sock.makefile("rb")
        assert smtp.getreply()[0] == 220
        assert smtp.ehlo()[0] == 250


def test_tcp_half_close(world, pod_a):
    """The echo's answer still comes after the client closed its half."""
    with Wire(pod_a.connect(servers.PEER, 7)) as wire:
        wire.send(b"once " * 1000)
        wire.sock.shutdown(1)
        assert wire.rest() == b"once " * 1000


def test_unregistered_port_of_a_registered_address(world, pod_a):
    tail = world.agents["node"].tail()
    with Wire(pod_a.connect(servers.DB, 5433)) as wire:
        wire.send(b"\0\0\0\x08\x04\xd2\x16\x2f")  # PostgreSQL's SSLRequest
        assert wire.ended() == "rst"
    tail.wait(source_pod="pod-a", decision="DENY", reason={"port_not_registered", "host_not_registered"})
