# SPDX-License-Identifier: Apache-2.0
"""An HTTP/1.1 server for the rarer ways of the protocol, an SMTP banner and a TCP echo.

peer.py FOLDER ADDRESS MAIL_ADDRESS: HTTP on ADDRESS:80, HTTPS on :443 (FOLDER/server.crt), echo on :7,
SMTP on MAIL_ADDRESS:25.
"""
import base64
import hashlib
import http.server
import json
import socket
import socketserver
import ssl
import struct
import sys
import threading

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def pattern(n, start=0):
    """n bytes that tell where in the stream they belong."""
    block = b"".join(struct.pack("!I", i) for i in range(start // 4, (start + n) // 4 + 2))
    return block[start % 4:][:n]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, value, status=200, **headers):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Server", "peer")
        self.send_header("X-Client", self.client_address[0])
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hello(self):
        return {"server": "peer", "client": self.client_address[0], "uri": self.path,
                "host": self.headers.get("Host", ""), "method": self.command}

    def do_GET(self):
        path = self.path.strip("/").split("/")
        way = getattr(self, "get_" + path[0].replace("-", "_"), None)
        if way:
            way(*path[1:])
        else:
            self.answer(self.hello())

    do_HEAD = do_GET

    def get_chunked(self, n="3"):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(int(n)):
            data = f"chunk {i}\n".encode()
            self.wfile.write(b"%x;ext=1\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\nX-Trailer: yes\r\n\r\n")

    def get_until_close(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"until close\n" * 1000)
        self.close_connection = True

    def get_early(self):
        for _ in range(2):
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        self.answer(self.hello())

    def get_no_content(self):
        self.send_response(204)
        self.end_headers()

    def get_bytes(self, n):
        self.send_response(200)
        self.send_header("Content-Length", n)
        self.end_headers()
        if self.command != "HEAD":
            for at in range(0, int(n), 1 << 20):
                self.wfile.write(pattern(min(1 << 20, int(n) - at), at))

    def get_stream(self):
        """A line a tenth of a second, until somebody ends it."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while not done.wait(0.1):
            self.wfile.write(b"5\r\ntick\n\r\n")

    def read_body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while (n := int(self.rfile.readline().split(b";")[0], 16)) > 0:
                yield self.rfile.read(n)
                self.rfile.readline()
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            return
        left = int(self.headers.get("Content-Length", 0))
        while left > 0:
            data = self.rfile.read(min(left, 1 << 16))
            if not data:
                return
            left -= len(data)
            yield data

    def do_POST(self):
        digest, n = hashlib.sha256(), 0
        for data in self.read_body():
            digest.update(data)
            n += len(data)
        self.answer(self.hello() | {"length": n, "sha256": digest.hexdigest(),
                                    "expect": self.headers.get("Expect", "")})

    do_PUT = do_POST

    # ---- websocket: echoes text and binary frames until a close frame ----

    def get_ws(self):
        key = self.headers.get("Sec-WebSocket-Key", "").encode()
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        while self.echo_frame():
            pass
        self.close_connection = True

    def echo_frame(self):
        head = self.rfile.read(2)
        if len(head) < 2:
            return False
        n = head[1] & 127
        if n == 126:
            n = struct.unpack("!H", self.rfile.read(2))[0]
        elif n == 127:
            n = struct.unpack("!Q", self.rfile.read(8))[0]
        mask = self.rfile.read(4) if head[1] & 128 else bytes(4)
        data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(n)))
        size = struct.pack("!BH", 126, n) if n > 125 else bytes([n])
        self.wfile.write(head[:1] + size + data)
        return head[0] & 15 != 8


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024
    tls = None

    def get_request(self):
        sock, addr = super().get_request()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            sock = self.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, addr

    def handle_error(self, request, client_address):
        pass  # a peer that goes away is what tests are about


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


class Smtp(socketserver.StreamRequestHandler):
    """Server first: nothing is expected of the client before the banner."""

    def handle(self):
        self.wfile.write(b"220 mail.example.com ESMTP " + self.client_address[0].encode() + b"\r\n")
        for line in self.rfile:
            verb = line.split()[0].upper() if line.split() else b""
            if verb == b"QUIT":
                self.wfile.write(b"221 Bye\r\n")
                return
            self.wfile.write(b"250 mail.example.com\r\n" if verb in (b"EHLO", b"HELO", b"NOOP")
                             else b"502 Command not implemented\r\n")


done = threading.Event()


def main(folder, address, mail):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(f"{folder}/server.crt", f"{folder}/server.key")
    servers = [Server((address, 80), Handler), Server((address, 443), Handler),
               Server((address, 7), Echo), Server((mail, 25), Smtp)]
    servers[1].tls = tls
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
