# SPDX-License-Identifier: Apache-2.0
"""Who may go where: what real clients see, what the server saw, what the log says."""
import errno
import socket

import pytest
import servers
from wire import (ALERT_UNRECOGNIZED_NAME, Tls, Wire, alert_of, client_hello, request, split_records)
from world import GATEWAY_IPS

FOREIGN = "198.51.100.66"
WWW, WWW6 = servers.WWW
GW4, GW6 = GATEWAY_IPS

# pod, url, curl options, server that must answer, address it must see
ALLOWED = {
    "https": ("pod-a", "https://www.example.com/", ["-4"], "www", GW4),
    "http": ("pod-b", "http://www.example.com/", ["-4"], "www", GW4),
    "wildcard": ("pod-a", "https://a.wild.example.org/", [], "wild", GW4),
    "wildcard, two labels": ("pod-a", "http://a.b.wild.example.org/", [], "wild", GW4),
    "upper case": ("pod-a", "http://WWW.Example.COM/", ["-4"], "www", GW4),
    "upper case SNI": ("pod-a", "https://WWW.Example.COM/", ["-4"], "www", GW4),
    "trailing dot": ("pod-a", "http://www.example.com./", ["-4"], "www", GW4),
    "target port": ("pod-a", "http://plain.example.com/", [], "plain", GW4),
    "own namespace": ("pod-a", "https://shop-only.example.com/", [], "shop-only", GW4),
    "IPv6 only": ("pod-a", "https://v6only.example.com/", [], "v6only", GW6),
    "over IPv6 in the pod": ("pod-b", "http://v6only.example.com/", ["-6"], "v6only", GW6),
    "dual stack": ("pod-a", "https://dual.example.com/", [], "dual", {GW4, GW6}),
    "websocket peer": ("pod-a", "https://peer.example.com/", [], "peer", GW4),
    "spoofed SNI": ("pod-a", "https://www.example.com/",
                    ["--resolve", f"www.example.com:443:{FOREIGN}"], "www", {GW4, GW6}),
    "spoofed SNI, IPv6": ("pod-a", "https://api.example.com/",
                          ["--resolve", "api.example.com:443:[2001:db8:51::66]"], "api", GW4),
    "Host to a foreign address": ("pod-b", f"http://{FOREIGN}/", ["-H", "Host: api.example.com"],
                                  "api", GW4),
}

# pod, url, curl options, reason, what the client sees: "alert", or an HTTP status
DENIED = {
    "https": ("pod-a", "https://unregistered.example.com/", ["-4"], "host_not_registered", "alert"),
    "http": ("pod-b", "http://unregistered.example.com/", ["-4"], "host_not_registered", 403),
    "IPv6 https": ("pod-a", "https://unregistered.example.com/", ["-6"], "host_not_registered", "alert"),
    "IPv6 http": ("pod-b", "http://unregistered.example.com/", ["-6"], "host_not_registered", 403),
    "no label before the suffix": ("pod-a", "https://wild.example.org/", [], "host_not_registered", "alert"),
    "suffix without a dot": ("pod-a", "https://evilwild.example.org/", [], "host_not_registered", "alert"),
    "evilexample.com": ("pod-a", "http://evilexample.com/", [], "host_not_registered", 403),
    "port, https": ("pod-a", "https://www.example.com:8443/", ["-4"], "port_not_registered", "alert"),
    "port, http": ("pod-a", "http://www.example.com:8080/", ["-4"], "port_not_registered", 403),
    "other namespace, https": ("pod-b", "https://shop-only.example.com/", [], "not_exported", "alert"),
    "other namespace, http": ("pod-b", "http://shop-only.example.com/", [], "not_exported", 403),
    "literal IP, https": ("pod-a", f"https://{WWW}/", ["-k"], "no_server_name", "alert"),
    "literal IP, http": ("pod-a", f"http://{WWW}/", [], "host_not_registered", 403),
    "literal IPv6, https": ("pod-a", f"https://[{WWW6}]/", ["-k"], "no_server_name", "alert"),
    "literal IPv6, http": ("pod-a", f"http://[{WWW6}]/", [], "host_not_registered", 403),
    "Host of nobody at a registered address": ("pod-a", f"http://{WWW}/", ["-H", "Host: nobody.example.com"],
                                               "host_not_registered", 403),
    "TLS on an HTTP port": ("pod-a", "https://www.example.com:80/", ["-4"], "protocol_mismatch", "alert"),
    "HTTP on an HTTPS port": ("pod-a", "http://www.example.com:443/", ["-4"], "protocol_mismatch", 403),
}


@pytest.mark.parametrize("case", ALLOWED.values(), ids=ALLOWED.keys())
def test_allowed(world, no_leaks, case):
    pod, url, options, server, source = case
    node, gateway = world.tails()
    got = world.curl(world.pods[pod], url, *options)
    assert got.code == 0, got
    assert got.status == 200
    assert got.json()["server"] == server
    assert got.seen_from in ({source} if isinstance(source, str) else source)

    at_node = node.wait(source_pod=pod)
    assert (at_node["decision"], at_node["reason"] or "") == ("ALLOW", "")
    at_gateway = gateway.wait(request_id=at_node["request_id"])
    assert (at_gateway["decision"], at_gateway["reporter"]) == ("ALLOW", "destination")


@pytest.mark.parametrize("case", DENIED.values(), ids=DENIED.keys())
def test_denied(world, no_leaks, case):
    pod, url, options, reason, sees = case
    node, gateway = world.tails()
    served = len(world.nginx_seen())
    got = world.curl(world.pods[pod], url, *options)
    if sees == "alert":
        assert got.code == 35, got
        assert "unrecognized name" in got.error
    else:
        assert got.status == sees, got
        assert reason in got.body
    record = node.wait(source_pod=pod)
    assert (record["decision"], record["reason"]) == ("DENY", reason)
    assert record["source_namespace"] == world.pods[pod].namespace
    assert len(world.nginx_seen()) == served, "a server was reached"
    assert gateway.read() == [], "the gateway was bothered"


def test_refusal_names_the_host(world, pod_a):
    got = world.curl(pod_a, "http://unregistered.example.com/some/path", "-4")
    assert got.headers["content-type"].startswith("text/plain")
    assert "unregistered.example.com" in got.body and "host_not_registered" in got.body


# ---- TLS ----

def test_alert_in_openssl(world, pod_a):
    """What another client than curl makes of it."""
    done = pod_a.run(["openssl", "s_client", "-connect", f"{FOREIGN}:443", "-servername",
                      "unregistered.example.com"], input="")
    assert done.returncode != 0
    assert "unrecognized name" in done.stderr and "alert number 112" in done.stderr


def test_alert_on_the_wire(world, pod_a):
    with Wire(pod_a.connect(FOREIGN, 443)) as wire:
        wire.send(client_hello("unregistered.example.com"))
        assert alert_of(wire.rest()) == (2, ALERT_UNRECOGNIZED_NAME)


def test_no_server_name(world, pod_a):
    tail = world.agents["node"].tail()
    with Wire(pod_a.connect(WWW, 443)) as wire:
        wire.send(client_hello(None))
        assert alert_of(wire.rest()) == (2, ALERT_UNRECOGNIZED_NAME)
    tail.wait(source_pod="pod-a", reason="no_server_name", decision="DENY")


@pytest.mark.parametrize("size", [512, 1500])
def test_openssl_small_fragments(world, pod_a, size):
    """openssl s_client in small records; the hello of 1,500 bytes of ALPN spans several of them."""
    alpn = ",".join(f"protocol-{i:03}" for i in range(100))
    done = pod_a.run(["openssl", "s_client", "-connect", f"{WWW}:443", "-servername", "www.example.com",
                      "-CAfile", world.ca, "-verify_return_error", "-max_send_frag", str(size),
                      "-split_send_frag", str(min(size, 512)), "-alpn", alpn + ",http/1.1", "-quiet"],
                     input="GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
    assert '"server":"www"' in done.stdout, done.stderr


@pytest.mark.parametrize("step", [1, 7, 300])
def test_hello_in_many_packets(world, pod_a, step):
    with Wire(pod_a.connect(WWW, 443)) as wire:
        tls = Tls("www.example.com", world.ca)
        wire.send_slowly(tls.hello(), step)
        tls.handshake(wire).write(wire, request("www.example.com", "/", "GET", "Connection: close"))
        assert b"200 OK" in tls.read(wire)


@pytest.mark.parametrize("step", [1, 50])
def test_hello_in_many_records(world, pod_a, step):
    """The server name is found across records (nginx may dislike so many: an answer is enough)."""
    gateway = world.agents["gateway"].tail()
    with Wire(pod_a.connect(WWW, 443)) as wire:
        wire.send(split_records(client_hello("www.example.com"), step))
        assert wire.take(1) in (b"\x16", b"\x15")
    gateway.wait(decision="ALLOW", requested_server_name={"www.example.com", None})


@pytest.mark.parametrize("step", [1, 50])
def test_refused_hello_in_many_records(world, pod_a, step):
    tail = world.agents["node"].tail()
    with Wire(pod_a.connect(FOREIGN, 443)) as wire:
        wire.send_slowly(split_records(client_hello("unregistered.example.com"), step), 97)
        assert alert_of(wire.rest()) == (2, ALERT_UNRECOGNIZED_NAME)
    tail.wait(reason="host_not_registered", requested_server_name="unregistered.example.com")


BAD_NAMES = {
    "NUL": b"www.example.com\0.evil.org",
    "quote": b'www.exa"mple.com/////////',
    "not ASCII": b"www.exampl\xc3\xa9.com////////",
    "empty label": b"www..example.com/////////",
    "newline": b"www.example.com\nHost: evil",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_hostile_server_name(world, pod_a, name):
    name = name[:24].replace(b"/", b"a")
    hello = client_hello("x" * len(name)).replace(b"x" * len(name), name)
    tail = world.agents["node"].tail()
    with Wire(pod_a.connect(WWW, 443)) as wire:
        wire.send(hello)
        alert = alert_of(wire.rest())
    assert alert is not None and alert[0] == 2
    tail.wait(source_pod="pod-a", decision="DENY", reason="malformed_hello")


def test_length_that_claims_too_much(world, pod_a):
    """Refused at once, not when the time is over."""
    tail = world.agents["node"].tail()
    with Wire(pod_a.connect(WWW, 443)) as wire:
        wire.send(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff")
        wire.rest()
    assert tail.wait(source_pod="pod-a", reason="malformed_hello")["duration"] < 1500


def test_silent_client(world, pod_a):
    """Who says nothing on a port that needs a name is refused when helloTimeout is over."""
    tail = world.agents["node"].tail()
    with Wire(pod_a.connect(WWW, 443)) as wire:
        assert wire.rest() == b""
    tail.wait(source_pod="pod-a", decision="DENY", reason="hello_timeout")


def test_other_protocol_is_reset(world, pod_a):
    tail = world.agents["node"].tail()
    with Wire(pod_a.connect(FOREIGN, 22)) as wire:
        wire.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        assert wire.ended() == "rst"
    tail.wait(source_pod="pod-a", decision="DENY", reason="host_not_registered")


# ---- not TCP ----

@pytest.mark.parametrize("host", [WWW, WWW6])
def test_udp_443(world, pod_a, no_leaks, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with pod_a.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        with pytest.raises(OSError) as refused:
            sock.connect((host, 443))
            sock.send(b"\xc0" + bytes(1199))
            sock.recv(1)
    assert not isinstance(refused.value, TimeoutError), "dropped without a word"
    assert refused.value.errno in (errno.EPERM, errno.EACCES, errno.EHOSTUNREACH, errno.ECONNREFUSED)


@pytest.mark.parametrize("host", [WWW, WWW6])
def test_icmp(world, pod_a, no_leaks, host):
    assert pod_a.run(["ping", "-n", "-c1", "-W1", host]).returncode != 0


@pytest.mark.parametrize("proto", [socket.IPPROTO_SCTP, socket.IPPROTO_GRE, 253])
def test_other_transport(world, pod_a, no_leaks, proto):
    with pod_a.socket(socket.AF_INET, socket.SOCK_RAW, proto) as sock:
        try:
            sock.sendto(bytes(64), (WWW, 0))
        except OSError as e:
            assert e.errno in (errno.EPERM, errno.EACCES, errno.EHOSTUNREACH)


def test_cluster_stays_reachable(world, pod_a, pod_b):
    """Pods, node and cluster DNS: TCP, UDP and ping."""
    assert pod_a.run(["ping", "-n", "-c1", "-W2", pod_b.ip4]).returncode == 0
    assert pod_a.run(["ping", "-n", "-c1", "-W2", pod_b.ip6]).returncode == 0
    assert pod_a.run(["getent", "ahostsv4", "www.example.com"]).stdout.startswith(WWW)
    with pod_b.socket() as listener:
        listener.bind((pod_b.ip4, 8000))
        listener.listen()
        with pod_a.connect(pod_b.ip4, 8000) as client:
            accepted, address = listener.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
                assert address[0] == pod_a.ip4


def test_inbound_stays_possible(world, pod_a):
    """A client from outside the cluster networks that reaches into the pod gets its replies."""
    with pod_a.socket() as listener:
        listener.bind((pod_a.ip4, 8001))
        listener.listen()
        with world.internet.connect(pod_a.ip4, 8001) as client:
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"reply")
                assert client.recv(5) == b"reply"


# ---- ways around ----

def test_connection_from_before_enrolment(world):
    """It worked until the rules were in; after that no packet of it leaves."""
    pod = world.add_pod("shop/latecomer")
    with Wire(pod.connect(FOREIGN, 80)) as wire:
        wire.send(request("unregistered.example.com"))
        assert wire.response().headers["x-client"] == pod.ip4
        world.enroll(pod)
        with world.capture() as capture:
            wire.sock.settimeout(1)
            with pytest.raises(OSError):
                wire.send(request("unregistered.example.com", "/second"))
                wire.take(1)
            assert world.leaks(capture) == []
    assert not world.nginx_seen(uri="/second")
    assert world.curl(pod, "http://unregistered.example.com/", "-4").status == 403
    assert world.curl(pod, "https://www.example.com/", "-4").seen_from == GW4
