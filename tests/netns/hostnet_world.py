# SPDX-License-Identifier: Apache-2.0
"""A node whose cgroups are captured, and an outside.

        node 192.0.2.1 ------ outside 192.0.2.2, 198.51.100.7; and, further inside, the cluster's 10.96.0.10

Clients are processes in cgroups made for a test; the agent's part is played by hostnet_tool. Whatever
gets past the capture arrives outside, where it is counted.
"""
import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import procs as procs_module  # noqa: E402
from agents import BUILD  # noqa: E402
from capture import Capture  # noqa: E402
from netns import Netns  # noqa: E402
from procs import Procs, remove_leftovers, wait_for  # noqa: E402

TOOL = BUILD / "tests/netns/hostnet_tool"
PORT = 15001
LIMIT = 2048  # HOSTNET_MAX_LIVE
CLUSTER = "10.96.0.0/16,fd00:10::/32"
NODE = {4: "192.0.2.1", 6: "2001:db8:2::1"}
OUTSIDE = {4: "198.51.100.7", 6: "2001:db8:51::7"}
INSIDE = {4: "10.96.0.10", 6: "fd00:10::10"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
WHY = "none outside listener full malformed".split()


# ---- cgroups ----

def cgroup_mount():
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        if line.split()[2] == "cgroup2":
            return Path(line.split()[1])
    raise FileNotFoundError("no cgroup2 file system is mounted")


def end_cgroup(folder):
    """Ends what runs in a cgroup of ours, in its children too, and removes it."""
    for child in [c for c in folder.iterdir() if c.is_dir()] if folder.exists() else []:
        end_cgroup(child)

    def gone():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for pid in (folder / "cgroup.procs").read_text(encoding="ascii").split():
                os.kill(int(pid), signal.SIGKILL)
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True
    wait_for(gone, what=f"{folder} is empty")


def remove_leftover_cgroups():
    for folder in cgroup_mount().glob("slu-*"):
        owner = re.match(r"slu-(\d+)-", folder.name)
        if owner and procs_module.start_time(int(owner[1])) is None:
            end_cgroup(folder)


class Cgroup:
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.id = folder.stat().st_ino

    def child(self, name):
        return Cgroup(self.folder / name)


# ---- the tool ----

class Tool:
    """A running hostnet_tool; calling it gives (errno, text)."""

    def __init__(self, world, port=PORT, cluster=CLUSTER):
        self.proc = world.node.popen([TOOL, world.pins, port, cluster], "hostnet_tool",
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answers, self.events, self.accepted, self.received = queue.Queue(), [], [], []
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        for line in self.proc.popen.stdout:
            said = json.loads(line)
            if "answer" in said:
                self.answers.put((said["answer"], said["text"]))
            for kind in ("event", "accepted", "received"):
                if kind in said:
                    getattr(self, kind + "s" if kind == "event" else kind).append(said[kind])

    def __call__(self, *words):
        self.proc.popen.stdin.write(" ".join(map(str, words)) + "\n")
        self.proc.popen.stdin.flush()
        return self.answers.get(timeout=20)

    def ok(self, *words):
        errno, text = self(*words)
        assert errno == "0", f"{words}: {errno} {text}\n{self.proc.output()[-3000:]}"
        return text

    def start(self, *cgroups):
        self.ok("open")
        self.ok("listen")
        for cgroup in cgroups:
            assert self.ok("add", cgroup.folder) == str(cgroup.id)

    def counts(self, cgroup):
        """{(why, protocol): n}"""
        found = {}
        for word in self.ok("counts", cgroup.id).split():
            why, proto, n = re.fullmatch(r"(\d+)/(\d+)=(\d+)", word).groups()
            found[WHY[int(why)], int(proto)] = int(n)
        return found

    def live(self, cgroup):
        return int(self.ok("state", cgroup.id).split()[1])

    def origins(self):
        return int(self.ok("origins"))

    def take(self, n=1):
        """What was accepted since the last time, n connections at least."""
        wait_for(lambda: len(self.accepted) >= n, what=f"{n} connections")
        taken, self.accepted[:] = list(self.accepted), []
        return taken

    def event(self, **want):
        """Waits for an event with these fields."""
        def found():
            return [e for e in self.events if want.items() <= e.items()]
        wait_for(found, what=f"an event {want}, there are {self.events}")
        return found()[0]

    def kill(self):
        self.proc.kill()
        self.thread.join()

    def end(self):
        if self.proc.running():
            self.proc.popen.stdin.close()
            assert self.proc.wait(20) == 0, self.proc.output()[-3000:]
        self.thread.join()


# ---- the world ----

PRELUDE = """
import contextlib, errno, json, os, select, socket, struct, sys, time
MPTCP, FASTOPEN, FASTOPEN_CONNECT = 262, 0x20000000, 30
def sock(v=4, kind=socket.SOCK_STREAM, proto=0):
    s = socket.socket(socket.AF_INET6 if v == 6 else socket.AF_INET, kind, proto)
    s.settimeout(5)
    return s
def attempt(call, *args):
    try:
        value = call(*args)
        return "ok" if value is None or isinstance(value, int) else value
    except TimeoutError:
        return "timeout"
    except OSError as e:
        return errno.errorcode[e.errno]
def leave(s):
    # In two steps: whose FIN is acknowledged in the middle of close() keeps its socket for a minute.
    s.shutdown(socket.SHUT_WR)
    while s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\\5":  # TCP_FIN_WAIT2
        time.sleep(0.005)
    s.close()
def hang_up(s):
    # While there is a socket to acknowledge the listener's end: later the kernel does, and not by lo. And to have
    # its own acknowledged: later it is sent again, when no program of the cgroup is there to see it.
    s.shutdown(socket.SHUT_WR)
    while s.recv(100):
        pass
    while s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\\7":  # TCP_CLOSE
        time.sleep(0.005)
def greeting(s):
    data = b""
    while not data.endswith(b"\\n"):
        more = s.recv(100)
        if not more:
            break
        data += more
    return data.decode().strip()
"""


class World:
    def __enter__(self):
        remove_leftovers()
        remove_leftover_cgroups()
        with contextlib.ExitStack() as undo:
            self.procs = Procs()
            undo.callback(self.procs.remove_folder)
            self.node, self.outside = (Netns(self.procs.netns_prefix + name, self.procs)
                                       for name in ("node", "outside"))
            undo.callback(self.node.remove)
            undo.callback(self.outside.remove)
            self.root = cgroup_mount()
            self.prefix = self.procs.netns_prefix
            undo.callback(self.end_cgroups)
            undo.callback(self.procs.stop_all)
            self._wire()
            self.bpffs = self.procs.mount_bpf()
            self.pins = self.bpffs / "sluice"
            self.n = 0
            self.closing = undo.pop_all()
        return self

    def __exit__(self, *exc):
        self.closing.close()

    def _wire(self):
        for ns in (self.node, self.outside):
            ns.sysctl(ipv6__conf__default__accept_dad=0, ipv6__conf__default__accept_ra=0,
                      ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0)
        self.node.sysctl(ipv4__ping_group_range="0 0")
        self.node.ip(f"link add out0 type veth peer name node0 netns {self.outside.name}",
                     "link set out0 up", f"addr add {NODE[4]}/24 dev out0",
                     f"addr add {NODE[6]}/64 dev out0 nodad")
        self.outside.ip("link set node0 up", "addr add 192.0.2.2/24 dev node0",
                        "addr add 2001:db8:2::2/64 dev node0 nodad",
                        *(f"addr add {a[4]}/32 dev lo" for a in (OUTSIDE, INSIDE)),
                        *(f"addr add {a[6]}/128 dev lo nodad" for a in (OUTSIDE, INSIDE)))
        self.node.ip("route add default via 192.0.2.2", "route add default via 2001:db8:2::2")

    def cgroup(self):
        self.n += 1
        return Cgroup(self.root / f"{self.prefix}{self.n}")

    def end_cgroups(self):
        for folder in self.root.glob(self.prefix + "*"):
            end_cgroup(folder)

    def within(self, cgroup, cmd):
        """What to execute so that cmd runs in the cgroup from its first socket on."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', cgroup.folder / "cgroup.procs", *cmd]

    def run(self, cgroup, cmd, **options):
        return self.node.run(self.within(cgroup, cmd), **options)

    def python(self, cgroup, code, **values):
        """Runs the code in the cgroup, with these values, and gives what it says is the `result`."""
        given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        program = f"{PRELUDE}\n{given}\n{code}\nprint(json.dumps(result))"
        done = self.run(cgroup, [sys.executable, "-c", program], timeout=60)
        assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def talking(self, cgroup, code, **values):
        """As python(), with the process still there: ask("expression") gives its value."""
        given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        program = (f"{PRELUDE}\n{given}\n{code}\nfor line in sys.stdin:\n"
                   "    print(json.dumps(eval(line)), flush=True)")
        proc = self.node.popen(self.within(cgroup, [sys.executable, "-c", program]), "client",
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def ask(expression):
            proc.popen.stdin.write(expression + "\n")
            proc.popen.stdin.flush()
            line = proc.popen.stdout.readline()
            assert line, proc.output()
            return json.loads(line)
        ask.proc = proc
        try:
            yield ask
        finally:
            proc.kill()

    @contextlib.contextmanager
    def nothing_leaves(self, but=lambda p: False):
        """Nothing arrives outside from the node meanwhile."""
        with self.capture() as capture:
            yield capture
            left = [p for p in capture.settle() if not but(p)]
            assert not left, (f"it left:\n{capture.describe(left)}\n" + self.node.run(
                ["sh", "-c", "ip rule; ip -6 rule; ip -6 route show table all; ip a; ss -tanpie"]).stdout)

    def capture(self):
        return Arrivals(self.outside, [(self.node, "192.0.2.2")])


class Arrivals(Capture):
    """What the node sent that is no housekeeping."""

    def settle(self):
        super().settle()
        return self.packets()


@contextlib.contextmanager
def serving(ns, v, address, port, within=None):
    """A TCP server that says "served" to whoever comes."""
    sock = ns.socket(socket.AF_INET6 if v == 6 else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(16)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                with sock.accept()[0] as conn:
                    conn.sendall(b"served\n")
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        sock.close()
