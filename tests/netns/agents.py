# SPDX-License-Identifier: Apache-2.0
"""A running sluice-agent: its configuration, logs, metrics and admin socket."""
import http.client
import json
import os
import re
import signal
import socket
from pathlib import Path

from procs import wait_for

REPO = Path(__file__).resolve().parents[2]
BUILD = REPO / os.environ.get("SLUICE_BUILD", "build")
AGENT, CTL = BUILD / "sluice-agent", BUILD / "sluicectl"
LINE_MAX = 64 << 10  # of an access log
SANITIZER = re.compile(r"ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer")


def merge(base, changes):
    """base with changes laid over it, mappings merged, everything else replaced."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merge(out[key], value) if both else value
    return out


class Metrics:
    """Prometheus' text format, read."""

    SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$')
    LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"(?:,|$)')

    def __init__(self, text):
        self.text = text
        self.samples = []
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            found = self.SAMPLE.match(line)
            if not found:
                raise ValueError(f"no sample: {line!r}")
            labels = dict(self.LABEL.findall(found[2] or ""))
            self.samples.append((found[1], labels, float(found[3])))

    def value(self, name, **labels):
        """The sum of all samples of that name that have these labels; 0 where there is none."""
        return sum(value for have, of, value in self.samples
                   if have == name and all(of.get(k) == v for k, v in labels.items()))

    def names(self):
        return {name for name, _, _ in self.samples}

    def labels(self, name):
        return [labels for have, labels, _ in self.samples if have == name]


class LogTail:
    """The lines of an access log from now on."""

    def __init__(self, path):
        self.path = path
        self.at = self._end() if path.exists() else 0
        self.records = []

    def _end(self):
        """Behind the last whole line: of a write that is going on, the size may tell a part."""
        with open(self.path, "rb") as f:
            end = f.seek(0, os.SEEK_END)
            f.seek(max(0, end - LINE_MAX))
            tail = f.read(end - f.tell())
        return end - len(tail) + tail.rfind(b"\n") + 1

    def read(self):
        """All records since the tail was made; each line must be JSON."""
        if self.path.exists():
            with open(self.path, "rb") as f:
                f.seek(self.at)
                data = f.read()
            whole = data.rpartition(b"\n")[0]
            if whole:
                self.at += len(whole) + 1
                self.records += [json.loads(line) for line in whole.split(b"\n")]
        return self.records

    def matching(self, **fields):
        return [r for r in self.read() if all(matches(r.get(k), v) for k, v in fields.items())]

    def wait(self, timeout=10, **fields):
        """The first record with these fields; a set means one of, a function is asked."""
        try:
            return wait_for(lambda: self.matching(**fields), timeout)[0]
        except TimeoutError:
            seen = "\n".join(without_nulls(json.dumps(r)) for r in self.records[-10:])
            raise AssertionError(f"no line with {fields} in {self.path.name}; there are:\n{seen}") from None


def matches(have, want):
    if callable(want):
        return want(have)
    return have in want if isinstance(want, (set, frozenset, tuple)) else have == want


def without_nulls(line):
    try:
        return json.dumps({k: v for k, v in json.loads(line).items() if v is not None})
    except ValueError:
        return line


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, make_socket):
        super().__init__("localhost", timeout=10)
        self.make_socket = make_socket

    def connect(self):
        self.sock = self.make_socket()


class Agent:
    """sluice-agent with a configuration of its own in a namespace. Nothing runs before start()."""

    def __init__(self, world, name, ns, config, health_port=15021, metrics_port=15020):
        self.world, self.name, self.ns, self.config = world, name, ns, config
        self.folder = world.folder / name
        self.folder.mkdir(exist_ok=True)
        self.health_port, self.metrics_port = health_port, metrics_port
        self.config_file = self.folder / "agent.yaml"
        self.access_log = Path(config["accessLog"]["file"])
        self.stderr = self.folder / "stderr.log"
        self.runner = []  # a program that starts it
        self.proc = None
        self.killed = False

    def start(self, wait=True):
        """Writes the configuration (JSON is YAML) and starts; by default until it is ready."""
        self.config_file.write_text(json.dumps(self.config, indent=1), encoding="utf-8")
        env = os.environ | {"ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
        self.proc = self.ns.popen([*self.runner, AGENT, "--config", self.config_file], name=self.name, env=env,
                                  log=self.stderr, cwd=self.folder)
        self.killed = False
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=15):
        def ready():
            if not self.proc.running():
                raise AssertionError(f"{self.name} ended with {self.proc.popen.returncode}:\n{self.errors()}")
            return self.ready()[0] == 200
        try:
            wait_for(ready, timeout, f"{self.name} is ready")
        except TimeoutError as e:
            raise AssertionError(f"{e}: {self.ready()}\n{self.errors()}") from None

    def running(self):
        return self.proc is not None and self.proc.running()

    def stop(self, timeout=15):
        """SIGTERM. It must end by itself, with 0, and with nothing for a sanitizer to say."""
        if not self.running() and self.killed:
            return
        code = self.proc.stop(timeout)
        assert code == 0, f"{self.name} ended with {code} on SIGTERM:\n{self.errors()}"
        self.check_sanitizers()
        self.killed = True

    def kill(self):
        """SIGKILL."""
        self.proc.kill()
        self.killed = True

    def check_sanitizers(self):
        assert not SANITIZER.search(self.errors(whole=True)), self.errors(whole=True)

    def errors(self, whole=False):
        """Its own log, or the end of it."""
        text = self.stderr.read_text(errors="replace") if self.stderr.exists() else ""
        return text if whole else "\n".join(text.splitlines()[-30:])

    def last_records(self, n=4):
        """The end of its access log, for people: without what is null."""
        lines = self.access_log.read_text(errors="replace").splitlines() if self.access_log.exists() else []
        return "\n".join(without_nulls(line) for line in lines[-n:])

    # ---- looking in ----

    def tail(self):
        return LogTail(self.access_log)

    def _get(self, connection, path, method="GET"):
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def http(self, port, path):
        """GET from a port of its namespace: (status, body)."""
        return self._get(UnixHTTP(lambda: self.ns.connect("127.0.0.1", port)), path)

    def admin(self, path, method="GET"):
        """A request to the admin socket: (status, body)."""
        def dial():
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(10)
            sock.connect(self.config["admin"]["socket"])
            return sock
        return self._get(UnixHTTP(dial), path, method)

    def ready(self):
        """(status, body) of /healthz/ready; (0, error) while nobody answers."""
        try:
            return self.http(self.health_port, "/healthz/ready")
        except (OSError, http.client.HTTPException) as e:
            return 0, str(e)

    def metrics(self):
        status, body = self.http(self.metrics_port, "/stats/prometheus")
        assert status == 200, (status, body)
        return Metrics(body)

    def ctl(self, *args, timeout=15):
        """sluicectl on this agent's admin socket; a CompletedProcess."""
        return self.ns.run([CTL, "--admin", self.config["admin"]["socket"], *args], timeout=timeout)

    def hup(self):
        self.proc.signal(signal.SIGHUP)
