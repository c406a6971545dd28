# SPDX-License-Identifier: Apache-2.0
"""outboundTrafficPolicy ALLOW_ANY: what nobody registered goes through the gateway too, and says so."""
import pytest
import servers
from wire import Wire
from world import GATEWAY_IPS

ANY = {"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}}


@pytest.fixture(scope="module")
def world(own_world):
    return own_world.start(node=ANY, gateway=ANY)


@pytest.mark.parametrize("url, options, source", [
    ("https://unregistered.example.com/", ["-4"], GATEWAY_IPS[0]),
    ("http://unregistered.example.com/", ["-4"], GATEWAY_IPS[0]),
    ("https://198.51.100.66/", ["-k"], GATEWAY_IPS[0]),
    ("http://198.51.100.66/", [], GATEWAY_IPS[0]),
    ("http://[2001:db8:51::66]/", [], GATEWAY_IPS[1]),
    ("http://unregistered.example.com:8080/", ["-4"], GATEWAY_IPS[0]),
])
def test_not_registered_is_allowed(world, pod_a, no_leaks, url, options, source):
    node, gateway = world.tails()
    got = world.curl(pod_a, url, *options)
    assert got.status == 200, got
    assert got.json()["server"] == "foreign"
    assert got.seen_from in (source, *GATEWAY_IPS)
    record = node.wait(source_pod="pod-a")
    assert (record["decision"], record["reason"]) == ("ALLOW", "not_registered")
    gateway.wait(request_id=record["request_id"], decision="ALLOW", reason="not_registered")


def test_registered_has_no_reason(world, pod_a):
    tail = world.agents["node"].tail()
    assert world.curl(pod_a, "https://www.example.com/", "-4").status == 200
    assert not tail.wait(source_pod="pod-a", decision="ALLOW")["reason"]


@pytest.mark.parametrize("address", ["10.0.0.5", "169.254.169.254", "[fd00:ffff::5]"])
def test_private_is_still_refused(world, pod_a, no_leaks, address):
    served = len(world.nginx_seen())
    got = world.curl(pod_a, f"http://{address}/")
    assert got.status == 403, got
    assert "private_destination" in got.body
    assert len(world.nginx_seen()) == served


def test_private_name_is_still_refused(world, pod_a):
    world.dns.set("sneaky.example.com", ["10.0.0.5"])
    got = world.curl(pod_a, "http://sneaky.example.com/", "--resolve", "sneaky.example.com:80:198.51.100.66")
    assert got.status == 403, got


def test_client_first_protocol_by_address(world, pod_a):
    """No name anywhere: the client's own address is dialled, by the gateway."""
    with Wire(pod_a.connect(servers.PEER, 7)) as wire:
        wire.send(b"SSH-2.0-x\r\n")
        assert wire.take(11) == b"SSH-2.0-x\r\n"


def test_no_way_back_in_through_the_tunnel(world, pod_a, no_leaks):
    """Who may go anywhere could go to the gateway's own tunnel and claim to be somebody else."""
    gateway = world.agents["gateway"].tail()
    with Wire(pod_a.connect("192.0.2.10", 15443)) as wire:
        wire.send(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0")
        assert wire.rest() == b""
    gateway.wait(decision="DENY", reason="private_destination", source_pod="pod-a")
