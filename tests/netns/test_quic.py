# SPDX-License-Identifier: Apache-2.0
"""HTTP/3 and every other UDP: refused so that clients go on with TCP at once, counted, logged once."""
import os
import socket
import time

import pytest
import servers
from attack import OUT4, Attack
from attackers import attacker, newcomer  # noqa: F401
from each_backend import backend, world as enrolled_world  # noqa: F401
from procs import wait_for

WWW4, WWW6 = servers.WWW
LOST_AT_MOST = 0.05  # seconds
URL = "https://www.example.com/"


@pytest.fixture(scope="module")
def world(enrolled_world):
    """With HTTP/3 on the addresses of www.example.com."""
    world = enrolled_world
    world.files.mkdir(exist_ok=True)
    (world.files / "index.html").write_text("over HTTP/3\n", encoding="ascii")
    for address in servers.WWW:
        world.internet.popen(["gtlsserver", "-q", "-d", world.files, address, "443",
                              world.folder / "server.key", world.folder / "server.crt"], name="http3")
    wait_for(lambda: all(quic(world.internet, a)[0] for a in servers.WWW), what="HTTP/3 is served")
    return world


def unknown_version():
    """A QUIC packet (RFC 8999) of a version that nobody has: each server answers which it has."""
    version, destination, source = b"\x1a\x2a\x3a\x4a", os.urandom(8), os.urandom(8)
    head = b"\xc0" + version + b"\x08" + destination + b"\x08" + source
    return head + bytes(1200 - len(head))


def quic(ns, address, timeout=3):
    """What a client with a connected socket sees, as those of browsers and of curl are: (whether QUIC is
    spoken there, seconds that it took to know)."""
    with ns.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        begin = time.monotonic()
        try:
            sock.connect((address, 443))
            sock.send(unknown_version())
            answer = sock.recv(2048)
        except OSError as e:
            assert not isinstance(e, TimeoutError), "refused without a word"
            return False, time.monotonic() - begin
    return answer[1:5] == b"\0\0\0\0", time.monotonic() - begin


def http3(pod, address, *options):
    """ngtcp2's client: (whether it got the page, seconds)."""
    begin = time.monotonic()
    done = pod.run(["gtlsclient", "-q", "--exit-on-all-streams-close", "--sni=www.example.com",
                    "--initial-rtt=20ms", *options, address, "443", URL])
    took = time.monotonic() - begin
    return done.returncode == 0 and "ERR_" not in done.stderr, took


@pytest.mark.parametrize("address", [WWW4, WWW6])
def test_it_works_when_nobody_confines_the_pod(world, newcomer, address):
    assert http3(newcomer, address)[0]
    assert quic(newcomer, address)[0]


@pytest.mark.parametrize("address", [WWW4, WWW6])
def test_a_client_falls_back_at_once(world, attacker, address):
    """HTTP/3 first, then TCP: what the first attempt costs."""
    with Attack(world, attacker) as attack:
        lost = []
        for _ in range(5):
            spoken, seconds = quic(attacker, address)
            assert not spoken
            lost.append(seconds)
            got = world.curl(attacker, URL, "--resolve", f"www.example.com:443:{address}")
            assert got.status == 200 and got.json()["server"] == "www"
        assert attack.made() >= 5
        assert attack.arrived() == []
    print(f"lost to {address}: {max(lost) * 1e3:.2f} ms at most")
    assert max(lost) < LOST_AT_MOST, lost


def test_ngtcp2_is_refused(world, attacker, backend):
    """Its socket is not connected, so that it hears of an ICMP error nothing; but where rules in the pod
    refuse, sending fails, and it gives up at once."""
    with Attack(world, attacker) as attack:
        if backend == "ebpf":
            assert not http3(attacker, WWW4, "--handshake-timeout=200ms")[0]
        else:
            results = [http3(attacker, WWW4) for _ in range(5)]
            assert not any(got for got, _ in results)
            starting = [http3(attacker, WWW4, "--help")[1] for _ in range(5)]
            assert min(took for _, took in results) - min(starting) < LOST_AT_MOST, (results, starting)
        assert attack.made() > 0
        assert attack.arrived() == []
    assert world.curl(attacker, URL).status == 200


def denied(world, pod, reason="protocol_refused"):
    return world.metrics("node").value("sluice_denied_total", reason=reason, namespace=pod.namespace)


def test_logged_once_and_counted(world, attacker):
    """Each datagram counts; each destination has its line once a minute."""
    tail = world.agents["node"].tail()
    for _ in range(20):
        quic(attacker, WWW4)
    line = tail.wait(source_pod=attacker.pod, reason="protocol_refused")
    assert (line["decision"], line["protocol"]) == ("DENY", "QUIC")
    assert line["source_namespace"] == attacker.namespace
    assert line["downstream_local_address"] == f"{WWW4}:443"
    assert line["downstream_remote_address"].rpartition(":")[0] == attacker.ip4
    # Of other destinations; behind them is all that would have been written of the first one. Who sends
    # much is not heard each time.
    for host, address in ((OUT4, f"{OUT4}:443"), (WWW6, f"[{WWW6}]:443")):
        wait_for(lambda host=host, address=address: quic(attacker, host) and tail.matching(
            source_pod=attacker.pod, protocol="QUIC", downstream_local_address=address),
            what=f"a line of {address}")
    assert len(tail.matching(source_pod=attacker.pod)) == 3
    wait_for(lambda: denied(world, attacker) >= 22, what="each one is counted")


def test_no_udp_leaves_but_lookups_in_the_cluster(world, attacker):
    """Whatever the port, to registered hosts too."""
    ports = (53, 67, 123, 161, 443, 500, 514, 853, 1194, 3478, 4500, 4789, 5060, 5353, 8443, 15001, 33434, 51820)
    with Attack(world, attacker) as attack:
        for address in (WWW4, WWW6, OUT4, servers.DNS, "192.0.2.10", "169.254.169.254"):
            for port in ports:
                attack.datagram(address, port)
        assert attack.made() >= 6 * len(ports)
        assert attack.arrived() == []
        attack.wait_refused()
        found = attacker.run(["getent", "ahostsv4", "www.example.com"]).stdout
    assert found.split()[0] == WWW4, "the cluster's resolver answers"
