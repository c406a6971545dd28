# SPDX-License-Identifier: Apache-2.0
"""Both ends of byte streams that can be checked: what is sent tells where in the stream it belongs.

stream.py serve ADDRESS PORT     for each connection: sends as many bytes as the client asks for, while it
                                 takes as many as the client announces, then says what it got
stream.py exchange ADDRESS PORT UP DOWN     the client of it; one JSON line says how it went
"""
import hashlib
import json
import socket
import socketserver
import struct
import sys
import threading
import time

BLOCK = 1 << 20
HELLO = struct.Struct("!4sQQ")  # magic, bytes to come, bytes wanted
DIGEST = hashlib.sha1().digest_size


def blocks(n, seed):
    """n bytes in blocks, each with its number, none like another."""
    base = bytearray(hashlib.shake_128(seed).digest(BLOCK))
    for i in range(0, n, BLOCK):
        struct.pack_into("!Q", base, 0, i)
        yield memoryview(base)[:min(BLOCK, n - i)]


def expected(n, seed):
    digest = hashlib.sha1()
    for block in blocks(n, seed):
        digest.update(block)
    return digest.digest()


def send(sock, n, seed):
    for block in blocks(n, seed):
        sock.sendall(block)


def receive(sock, n):
    """The digest of the next n bytes; EOFError when there are fewer."""
    digest, buf, left = hashlib.sha1(), bytearray(1 << 18), n
    while left:
        got = sock.recv_into(buf, min(left, len(buf)))
        if not got:
            raise EOFError(f"{left} of {n} bytes are missing")
        digest.update(memoryview(buf)[:got])
        left -= got
    return digest.digest()


def exactly(sock, n):
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            raise EOFError(f"{len(data)} of {n} bytes, then the end")
        data += more
    return data


class Both(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            _, coming, wanted = HELLO.unpack(exactly(self.request, HELLO.size))
            sender = threading.Thread(target=send, args=(self.request, wanted, b"down"))
            sender.start()
            digest = receive(self.request, coming)
            sender.join()
            self.request.sendall(digest)
            self.request.shutdown(socket.SHUT_WR)
            self.request.recv(1)
        except OSError:
            pass  # clients that vanish are part of the tests


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 4096


def exchange(host, port, up, down):
    start = time.monotonic()
    with socket.create_connection((host, port), timeout=60) as sock:
        sock.sendall(HELLO.pack(b"both", up, down))
        sender = threading.Thread(target=send, args=(sock, up, b"up"))
        sender.start()
        got = receive(sock, down)
        sender.join()
        echoed = exactly(sock, DIGEST)
        sock.shutdown(socket.SHUT_WR)
        end = sock.recv(1)
    return {"up_ok": echoed == expected(up, b"up"), "down_ok": got == expected(down, b"down"),
            "end": end == b"", "seconds": time.monotonic() - start}


if __name__ == "__main__":
    mode, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if mode == "serve":
        Server((address, port), Both).serve_forever()
    else:
        print(json.dumps(exchange(address, port, int(sys.argv[4]), int(sys.argv[5]))))
