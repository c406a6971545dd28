# SPDX-License-Identifier: Apache-2.0
"""Conversations by hand: raw HTTP over a socket, and TLS whose records the caller cuts and sends."""
import dataclasses
import socket
import ssl

ALERT_UNRECOGNIZED_NAME = 112


@dataclasses.dataclass
class Response:
    status: int
    headers: dict  # names in lower case
    body: bytes


class Wire:
    """A connected socket with the few verbs that tests need. Use as a context manager."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)
        return self

    def send_slowly(self, data, step=1):
        """One segment per `step` bytes."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), step):
            self.sock.sendall(data[at:at + step])
        return self

    def _more(self):
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def take(self, n):
        while len(self.buffer) < n:
            if not self._more():
                raise EOFError(f"{len(self.buffer)} of {n} bytes: {self.buffer[:200]!r}")
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def take_until(self, end):
        while end not in self.buffer:
            if not self._more():
                raise EOFError(f"no {end!r} in {self.buffer[:200]!r}")
        return self.take(self.buffer.index(end) + len(end))

    def rest(self):
        """All that comes until the other side closes; a reset counts as a close."""
        try:
            while self._more():
                pass
        except ConnectionResetError:
            pass
        data, self.buffer = self.buffer, b""
        return data

    def ended(self):
        """How it ended: "fin", "rst", or AssertionError when bytes came instead."""
        try:
            data = self.buffer or self.sock.recv(4096)
        except ConnectionResetError:
            return "rst"
        assert data == b"", f"bytes instead of an end: {data[:200]!r}"
        return "fin"

    def response(self, head=False):
        """One HTTP response, interim ones included."""
        lines = self.take_until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        status = int(lines[0].split()[1])
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return Response(status, headers, self._body(status, headers, head))

    def _body(self, status, headers, head):
        if head or status < 200 or status in (204, 304):
            return b""
        if "content-length" in headers:
            return self.take(int(headers["content-length"]))
        if "chunked" in headers.get("transfer-encoding", ""):
            return self._chunks()
        return self.rest()

    def _chunks(self):
        body = b""
        while (n := int(self.take_until(b"\r\n").split(b";")[0], 16)) > 0:
            body += self.take(n)
            self.take_until(b"\r\n")
        while self.take_until(b"\r\n") != b"\r\n":
            pass
        return body


def request(host, path="/", method="GET", *headers, body=b""):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Tls:
    """A TLS client whose outgoing bytes the caller sends, however it likes."""

    def __init__(self, server_name, ca):
        context = ssl.create_default_context(cafile=str(ca))
        if server_name is None:
            context.check_hostname = False
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=server_name)

    def hello(self):
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    def _flush(self, wire):
        data = self.outgoing.read()
        if data:
            wire.send(data)

    def _feed(self, wire):
        data = wire.sock.recv(65536)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def _do(self, wire, action, *args):
        while True:
            try:
                value = action(*args)
                self._flush(wire)
                return value
            except ssl.SSLWantReadError:
                self._flush(wire)
                self._feed(wire)

    def handshake(self, wire):
        self._do(wire, self.tls.do_handshake)
        return self

    def write(self, wire, data):
        self._do(wire, self.tls.write, data)
        return self

    def read(self, wire, n=65536):
        return self._do(wire, self.tls.read, n)


def client_hello(server_name):
    """The bytes of one ClientHello record, as OpenSSL sends it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=server_name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def split_records(hello, step):
    """The same handshake message in records of at most `step` bytes."""
    head, message = hello[:3], hello[5:]
    out = b""
    for at in range(0, len(message), step):
        piece = message[at:at + step]
        out += head + len(piece).to_bytes(2, "big") + piece
    return out


def alert_of(data):
    """(level, description) of a plaintext TLS alert record, None for anything else."""
    return (data[5], data[6]) if len(data) >= 7 and data[0] == 21 else None
