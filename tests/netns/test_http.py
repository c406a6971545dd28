# SPDX-License-Identifier: Apache-2.0
"""HTTP/1: every request is judged, whatever could be read in two ways is refused, the rest passes."""
import base64
import hashlib
import os
import struct

import pytest
import servers
from peer import WEBSOCKET_GUID
from wire import Wire, request
from world import GATEWAY_IPS

WWW = servers.WWW[0]
GET = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n"


@pytest.fixture
def wire(pod_a):
    with Wire(pod_a.connect(WWW, 80)) as wire:
        yield wire


# the request, and the statuses that may answer it
REFUSED = {
    "CONNECT": (b"CONNECT www.example.com:443 HTTP/1.1\r\nHost: www.example.com:443\r\n\r\n", {403}),
    "absolute form disagrees": (b"GET http://unregistered.example.com/ HTTP/1.1\r\n"
                                b"Host: www.example.com\r\n\r\n", {400}),
    "absolute form disagrees, other way": (b"GET http://www.example.com/ HTTP/1.1\r\n"
                                           b"Host: unregistered.example.com\r\n\r\n", {400}),
    "no Host": (b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", {400}),
    "no Host, HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", {400, 403}),
    "two Hosts": (GET + b"Host: unregistered.example.com\r\n\r\n", {400}),
    "two equal Hosts": (GET + b"Host: www.example.com\r\n\r\n", {400}),
    "two names in Host": (b"GET / HTTP/1.1\r\nHost: www.example.com, x.org\r\n\r\n", {400}),
    "obs-fold": (b"GET / HTTP/1.1\r\nHost: www.example.com\r\n .evil.org\r\n\r\n", {400}),
    "obs-fold elsewhere": (GET + b"X-A: b\r\n\tc\r\n\r\n", {400}),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : www.example.com\r\n\r\n", {400}),
    "space before colon elsewhere": (GET + b"X-A : b\r\n\r\n", {400}),
    "bare CR": (GET + b"X-A: b\rc\r\n\r\n", {400}),
    "NUL": (GET + b"X-A: b\0c\r\n\r\n", {400}),
    "Content-Length and Transfer-Encoding": (
        b"POST / HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "two Content-Lengths": (
        b"POST / HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 4\r\n"
        b"Content-Length: 5\r\n\r\nabcd", {400}),
    "odd Content-Length": (
        b"POST / HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: +4\r\n\r\nabcd", {400}),
    "odd Transfer-Encoding": (
        b"POST / HTTP/1.1\r\nHost: www.example.com\r\nTransfer-Encoding: xchunked\r\n\r\n", {400}),
    "h2c": (GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
            {400, 403}),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 403, 505}),
    "HTTP/0.9": (b"GET /\r\n\r\n", {400, 505}),
    "head too long": (GET + b"X-A: " + b"a" * 70000 + b"\r\n\r\n", {400, 431}),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_refused(world, wire, no_leaks, case):
    data, statuses = case
    served = len(world.nginx_seen())
    tail = world.agents["node"].tail()
    wire.send(data)
    got = wire.response()
    assert got.status in statuses, got
    assert wire.rest() == b"", "the connection ends after the refusal"
    tail.wait(source_pod="pod-a", decision="DENY", response_code=got.status)
    assert len(world.nginx_seen()) == served, "the server saw something"


def test_refused_by_curl(world, pod_a):
    """--http2-prior-knowledge and --proxytunnel as real clients do them."""
    assert world.curl(pod_a, "http://www.example.com/", "-4", "--http2-prior-knowledge").code != 0
    got = world.curl(pod_a, "https://unregistered.example.com/", "-4", "--proxytunnel", "-x",
                     f"http://{WWW}:80")
    assert "403" in got.error, got


def test_one_byte_at_a_time(world, wire):
    wire.send_slowly(request("www.example.com", "/slowly"))
    assert wire.response().status == 200


# ---- several requests on one connection ----

def test_pipelined_requests(world, wire):
    """Answers come in order; each request has its line on both sides."""
    node, gateway = world.tails()
    paths = [f"/pipelined/{i}" for i in range(5)]
    wire.send(b"".join(request("www.example.com", path) for path in paths))
    for path in paths:
        got = wire.response()
        assert got.status == 200 and path.encode() in got.body
    wire.sock.close()
    for path in paths:
        record = node.wait(path=path, response_code=200)
        gateway.wait(request_id=record["request_id"], path={path, None})


def test_second_request_for_another_registered_host(world, wire):
    wire.send(request("www.example.com", "/first"))
    assert wire.response().status == 200
    wire.send(request("api.example.com", "/second"))
    got = wire.response()
    assert got.status == 421
    assert wire.rest() == b""
    assert not world.nginx_seen(uri="/second")


def test_second_request_for_an_unregistered_host(world, wire):
    tail = world.agents["node"].tail()
    wire.send(request("www.example.com", "/one"))
    assert wire.response().status == 200
    wire.send(request("unregistered.example.com", "/two"))
    assert wire.response().status == 403
    assert wire.rest() == b""
    assert not world.nginx_seen(uri="/two")
    tail.wait(path="/two", decision="DENY", reason="host_not_registered", response_code=403)


@pytest.mark.parametrize("host, status", [("api.example.com", 421), ("unregistered.example.com", 403)])
def test_pipelined_request_for_another_host(world, wire, host, status):
    """In the same packet as the first, which is answered first."""
    wire.send(request("www.example.com", "/ok") + request(host, "/smuggled"))
    assert wire.response().status == 200
    assert wire.response().status == status
    assert wire.rest() == b""
    assert not world.nginx_seen(uri="/smuggled")


def test_request_hidden_in_a_body(world, wire):
    """A body is a body: it is not read as a request, and does not hide one."""
    hidden = request("unregistered.example.com", "/hidden")
    wire.send(request("www.example.com", "/carrier", "POST", f"Content-Length: {len(hidden)}", body=hidden)
              + request("unregistered.example.com", "/after"))
    assert wire.response().status in (200, 405)
    assert wire.response().status == 403
    assert not world.nginx_seen(uri="/hidden") and not world.nginx_seen(uri="/after")


def test_malformed_second_request(world, wire):
    wire.send(request("www.example.com", "/fine"))
    assert wire.response().status == 200
    wire.send(b"GET /bad HTTP/1.1\r\nHost: www.example.com\r\nHost: x\r\n\r\n")
    assert wire.response().status == 400
    assert wire.rest() == b""


# ---- bodies and the rarer ways ----

@pytest.fixture
def peer(pod_a):
    with Wire(pod_a.connect(servers.PEER, 80)) as wire:
        yield wire


def test_chunked_response(world, peer):
    for _ in range(2):
        peer.send(request("peer.example.com", "/chunked/200"))
        assert peer.response().body.count(b"chunk ") == 200


def test_until_close_response(peer):
    peer.send(request("peer.example.com", "/until-close"))
    assert peer.response().body == b"until close\n" * 1000


def test_interim_responses(peer):
    peer.send(request("peer.example.com", "/early") + request("peer.example.com", "/next"))
    assert [peer.response().status for _ in range(4)] == [103, 103, 200, 200]


def test_head_and_no_content(peer):
    """Answers without a body, whatever their head says: the next request still is understood."""
    peer.send(request("peer.example.com", "/bytes/100000", "HEAD"))
    got = peer.response(head=True)
    assert (got.status, got.headers["content-length"]) == (200, "100000")
    peer.send(request("peer.example.com", "/no-content"))
    assert peer.response().status == 204
    peer.send(request("unregistered.example.com"))
    assert peer.response().status == 403


def test_expect_100_continue(peer):
    """The body is sent only after the server asked for it."""
    body = os.urandom(100_000)
    peer.send(request("peer.example.com", "/upload", "POST", f"Content-Length: {len(body)}",
                      "Expect: 100-continue"))
    assert peer.response().status == 100
    peer.send(body)
    assert hashlib.sha256(body).hexdigest().encode() in peer.response().body


def test_chunked_upload(peer):
    chunks = [os.urandom(n) for n in (1, 10_000, 70_000, 3)]
    peer.send(request("peer.example.com", "/upload", "POST", "Transfer-Encoding: chunked"))
    for chunk in chunks:
        peer.send(b"%X;a=b\r\n%s\r\n" % (len(chunk), chunk))
    peer.send(b"0\r\nX-Trailer: 1\r\n\r\n")
    assert hashlib.sha256(b"".join(chunks)).hexdigest().encode() in peer.response().body
    peer.send(request("peer.example.com", "/again"))
    assert peer.response().status == 200


def test_malformed_chunk(world, peer):
    peer.send(request("peer.example.com", "/upload", "POST", "Transfer-Encoding: chunked"))
    peer.send(b"5\r\nhello\r\n-1\r\n")
    got = peer.rest()
    assert b" 200 " not in got.split(b"\r\n")[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_upload_and_download_by_curl(world, pod_a, scheme):
    data = os.urandom(3_000_000)
    file = world.folder / "upload.bin"
    file.write_bytes(data)
    got = world.curl(pod_a, f"{scheme}://peer.example.com/upload", "--data-binary", f"@{file}")
    assert got.json()["sha256"] == hashlib.sha256(data).hexdigest(), got
    assert got.seen_from == GATEWAY_IPS[0]
    (world.files / "down.bin").write_bytes(data)
    out = world.folder / "down.out"
    pod_a.run(["curl", "-4sS", "--cacert", world.ca, "-o", out, f"{scheme}://www.example.com/files/down.bin"])
    assert out.read_bytes() == data


def test_websocket(world, peer):
    key = base64.b64encode(os.urandom(16))
    tail = world.agents["node"].tail()
    peer.send(request("peer.example.com", "/ws", "GET", "Upgrade: websocket", "Connection: Upgrade",
                      "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key.decode()}"))
    got = peer.response()
    assert got.status == 101
    assert got.headers["sec-websocket-accept"].encode() == \
        base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())
    # What looks like a request inside of it is none: the stream is the websocket's now.
    for text in (b"hello", request("unregistered.example.com"), os.urandom(40_000)):
        mask = os.urandom(4)
        size = bytes([128 | len(text)]) if len(text) < 126 else struct.pack("!BH", 128 | 126, len(text))
        peer.send(b"\x82" + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text)))
        head = peer.take(2)
        n = struct.unpack("!H", peer.take(2))[0] if head[1] == 126 else head[1]
        assert peer.take(n) == text
    peer.send(b"\x88\x80" + bytes(4))
    assert peer.rest() == b"\x88\x00"
    peer.sock.close()
    tail.wait(path="/ws", response_code=101, decision="ALLOW")


def test_keep_alive_by_curl(world, pod_a):
    """Several requests of one curl share a connection and have a line each."""
    tail = world.agents["node"].tail()
    got = world.curl(pod_a, "http://www.example.com/k[1-4]", "-4")
    assert got.code == 0, got
    records = [tail.wait(path=f"/k{i}") for i in range(1, 5)]
    assert len({r["downstream_remote_address"] for r in records}) == 1
    assert len({r["request_id"] for r in records}) in (1, 4)
