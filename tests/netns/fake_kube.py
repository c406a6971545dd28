# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes API server that does as it is told: one kind of objects, lists in chunks, watches, and
any fault, per request. On loopback, with TLS by an authority of its own.

    with FakeKube(folder) as kube:
        kube.put("a")
        kube.fault("watch", error_event(410))     # the next watch gets that, later ones are normal

Each request that came is in `kube.requests`: kind (group, kinds, list, watch, other), path, query, headers.
"""
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections import defaultdict, deque
from urllib.parse import parse_qs, urlsplit

GROUP = "networking.istio.io"
RESOURCE = "serviceentries"
END_OF_LIST = {"k8s.io/initial-events-end": "true"}


# ---- certificates ----

def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


def make_ca(folder, name="ca", subject="ca"):
    """NAME.key and NAME.crt of an authority."""
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2,
            "-subj", f"/CN={subject}", "-addext", "keyUsage=critical,keyCertSign", "-keyout", folder / f"{name}.key",
            "-out", folder / f"{name}.crt")


def make_certificate(folder, name, names, ca="ca"):
    """NAME.key and NAME.crt, for `names` ("IP:127.0.0.1", "DNS:x"), signed by that authority."""
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")
    (folder / f"{name}.ext").write_text(f"subjectAltName={','.join(names)}\n", encoding="ascii")
    openssl("x509", "-req", "-in", folder / f"{name}.csr", "-CA", folder / f"{ca}.crt", "-CAkey",
            folder / f"{ca}.key", "-CAcreateserial", "-days", 2, "-extfile", folder / f"{name}.ext",
            "-out", folder / f"{name}.crt")


# ---- what is asked ----

class Request:
    def __init__(self, handler):
        parts = urlsplit(handler.path)
        self.method, self.path = handler.command, parts.path
        self.query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.headers = handler.headers
        self.peer = handler.client_address
        self.at = time.monotonic()
        length = int(handler.headers.get("Content-Length", 0))
        self.body = handler.rfile.read(length) if length else b""
        self.kind = self.find_kind()

    def find_kind(self):
        words = self.path.strip("/").split("/")
        if words[:1] == ["apis"] and len(words) == 2:
            return "group"
        if words[:1] == ["apis"] and len(words) == 3:
            return "kinds"
        if self.method == "GET" and words[-1] == RESOURCE:
            return "watch" if "watch" in self.query else "list"
        return "other"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    kube = None

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (OSError, ValueError):  # the client is gone, or the server has cut it off
            self.close_connection = True

    def do_any(self):
        request = Request(self)
        self.kube.answer(self, request)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any

    def log_message(self, format, *args):
        pass

    def send(self, status, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, message="fault", **headers):
        self.send(status, {"kind": "Status", "status": "Failure", "code": status, "message": message}, **headers)

    def open_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def write(self, data):
        """A piece of a stream."""
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, kind, obj):
        self.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    def end_stream(self):
        self.wfile.write(b"0\r\n\r\n")

    def cut(self):
        self.close_connection = True
        self.connection.close()


# ---- faults: what is done instead of answering ----

def status(code, message="fault", **headers):
    return lambda handler, request: handler.fail(code, message, **headers)


def answer(body, code=200, **headers):
    return lambda handler, request: handler.send(code, body, **headers)


def lines(*parts, cut=False):
    """A stream of these (bytes, or events), then its end, or a cut."""
    def act(handler, request):
        handler.open_stream()
        for part in parts:
            handler.write(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n")
        handler.cut() if cut else handler.end_stream()
    return act


def error_event(code, reason="", message="fault", **details):
    return lines({"type": "ERROR", "object": {"kind": "Status", "code": code, "reason": reason, "message": message,
                                              "details": details}})


def cut(handler, request):
    handler.cut()


def silent(handler, request):
    """A stream that says nothing until the server is stopped, or its client goes."""
    handler.open_stream()
    while handler.kube.listening and handler.connection.fileno() >= 0:
        handler.connection.settimeout(0.05)
        try:
            if handler.connection.recv(1) == b"":
                return
        except TimeoutError:
            pass


# ---- the server ----

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    kube = None

    def get_request(self):
        connection, peer = super().get_request()
        # Not a handshake here: one client must not hold up the others.
        connection = self.kube.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.kube.connections.add(connection)
        return connection, peer

    def shutdown_request(self, request):
        self.kube.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        pass


class ServerV6(Server):
    address_family = socket.AF_INET6


class FakeKube:
    def __init__(self, folder, names=("IP:127.0.0.1", "IP:::1"), address="127.0.0.1", client_ca=None):
        self.folder, self.address = folder, address
        if not (folder / "ca.crt").exists():
            make_ca(folder)
        own = "server-" + "-".join(names).replace(":", ".")
        if not (folder / f"{own}.crt").exists():
            make_certificate(folder, own, names)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(folder / f"{own}.crt", folder / f"{own}.key")
        if client_ca:
            self.tls.load_verify_locations(client_ca)
            self.tls.verify_mode = ssl.CERT_REQUIRED
        self.lock = threading.Condition()
        self.token = "secret"
        self.versions, self.preferred = ["v1", "v1beta1"], "v1"
        self.kinds = {"v1": [RESOURCE], "v1beta1": [RESOURCE]}
        self.served = True
        self.streaming = "refused"   # or "yes", or "ignored" as by old servers
        self.objects, self.events = {}, []
        self.rv, self.ends, self.oldest = 1000, 0, 0
        self.snapshots = {}
        self.requests = []
        self.faults = defaultdict(deque)
        self.connections = set()
        self.port, self.server, self.listening = 0, None, False

    # -- life --

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def start(self):
        """Listens; after stop() on the same port again."""
        handler = type("BoundHandler", (Handler,), {"kube": self})
        kind = ServerV6 if ":" in self.address else Server
        self.server = kind((self.address, self.port), handler)
        self.server.kube = self
        self.port = self.server.server_address[1]
        self.listening = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """As if it had been killed: nobody listens, and all connections are gone."""
        with self.lock:
            self.listening = False
            self.lock.notify_all()
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @property
    def url(self):
        return f"https://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"

    # -- objects --

    def make(self, name, ns="default", **more):
        return {"apiVersion": f"{GROUP}/v1", "kind": "ServiceEntry",
                "metadata": {"name": name, "namespace": ns, "uid": f"uid-{ns}-{name}",
                             "resourceVersion": str(self.rv), **more.pop("metadata", {})}, **more}

    def put(self, name, ns="default", told=True, **more):
        """Makes or changes; told=False: no watch is told."""
        with self.lock:
            self.rv += 1
            kind = "MODIFIED" if (ns, name) in self.objects else "ADDED"
            self.objects[ns, name] = self.make(name, ns, **more)
            if told:
                self.events.append((self.rv, kind, self.objects[ns, name]))
            self.lock.notify_all()

    def delete(self, name, ns="default", told=True):
        with self.lock:
            self.rv += 1
            old = self.objects.pop((ns, name))
            gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.rv)}}
            if told:
                self.events.append((self.rv, "DELETED", gone))
            self.lock.notify_all()

    def bookmark(self):
        """Moves on, and tells the watches so."""
        with self.lock:
            self.rv += 100
            obj = {"kind": "ServiceEntry", "apiVersion": f"{GROUP}/v1", "metadata": {"resourceVersion": str(self.rv)}}
            self.events.append((self.rv, "BOOKMARK", obj))
            self.lock.notify_all()

    def end_watches(self):
        """In good order, as when their time is over."""
        with self.lock:
            self.ends += 1
            self.lock.notify_all()

    def fault(self, kind, *faults):
        with self.lock:
            self.faults[kind].extend(faults)

    def asked(self, kind=None):
        with self.lock:
            return [r for r in self.requests if kind in (None, r.kind)]

    # -- answers --

    def answer(self, handler, request):
        with self.lock:
            self.requests.append(request)
            request.ends = self.ends  # an end that is told from here on is this one's, however far it is
            queue = self.faults[request.kind]
            fault = queue.popleft() if queue else None
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            handler.fail(401, "Unauthorized")
        elif fault:
            fault(handler, request)
        else:
            getattr(self, f"do_{request.kind}")(handler, request)

    def do_group(self, handler, request):
        if not self.served or request.path != f"/apis/{GROUP}":
            handler.send(404, b"404 page not found\n")
            return
        handler.send(200, {"kind": "APIGroup", "name": GROUP, "preferredVersion": {"version": self.preferred},
                           "versions": [{"version": v} for v in self.versions]})

    def do_kinds(self, handler, request):
        version = request.path.rpartition("/")[2]
        if not self.served or version not in self.kinds:
            handler.send(404, b"404 page not found\n")
            return
        handler.send(200, {"kind": "APIResourceList", "resources": [{"name": k} for k in self.kinds[version]]})

    def do_list(self, handler, request):
        if not self.served:
            handler.send(404, b"404 page not found\n")
            return
        limit, start = int(request.query.get("limit", 1 << 30)), 0
        with self.lock:
            if "continue" in request.query:
                rv, start = map(int, request.query["continue"].split("/")[1:])
            else:
                rv = self.rv
                self.snapshots[rv] = [self.objects[key] for key in sorted(self.objects)]
            items = self.snapshots[rv]
        meta = {"resourceVersion": str(rv)}
        if start + limit < len(items):
            meta["continue"] = f"a b&c/{rv}/{start + limit}"
        handler.send(200, {"kind": "List", "metadata": meta, "items": items[start:start + limit]})

    def do_watch(self, handler, request):
        query = request.query
        initial = "sendInitialEvents" in query
        if not self.served:
            handler.send(404, b"404 page not found\n")
        elif initial and self.streaming == "refused":
            handler.fail(422, "resourceVersionMatch is forbidden for watch")
        elif not initial and int(query["resourceVersion"]) < self.oldest:
            error_event(410, "Expired", "too old resource version")(handler, request)
        else:
            self.stream(handler, request, initial)

    def send_initial(self, handler):
        with self.lock:
            rv, items = self.rv, list(self.objects.values())
        for obj in items:
            handler.event("ADDED", obj)
        if self.streaming == "yes":
            handler.event("BOOKMARK", {"metadata": {"resourceVersion": str(rv), "annotations": END_OF_LIST}})
        return rv

    def stream(self, handler, request, initial):
        handler.open_stream()
        rv = self.send_initial(handler) if initial else int(request.query["resourceVersion"])
        deadline = time.monotonic() + int(request.query.get("timeoutSeconds", 1800))
        while True:
            with self.lock:
                self.lock.wait_for(lambda: self.ends != request.ends or not self.listening or
                                   (self.events and self.events[-1][0] > rv), deadline - time.monotonic())
                if not self.listening:
                    return
                over = self.ends != request.ends or time.monotonic() >= deadline
                new = [e for e in self.events if e[0] > rv]
            for rv, kind, obj in new:
                handler.event(kind, obj)
            if over:
                handler.end_stream()
                return

    def do_other(self, handler, request):
        handler.send(201 if request.method == "POST" else 200,
                     {"method": request.method, "path": request.path, "type": request.headers.get("Content-Type"),
                      "body": request.body.decode()})
