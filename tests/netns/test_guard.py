# SPDX-License-Identifier: Apache-2.0
"""The guard on the host end of a pod's interface, from user space: what it attaches, pins, takes up,
notices and takes away; the interfaces of a pod; and what steering needs of the node.

        pod eth0 10.244.1.2 ------ node h0: 10.96.0.10 (cluster) and 198.51.100.7 (outside) on lo

The node itself plays cluster and outside, so that whatever the guard lets through arrives. Needs root
and tests/netns/guard_tool (SLUICE_BUILD says where the build is, default `build`).
"""
import ctypes
import glob
import ipaddress
import json
import os
import queue
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(REPO, os.environ.get("SLUICE_BUILD", "build"))
TOOL = os.path.join(BUILD, "tests/netns/guard_tool")
PREFIX = "slug"
WAIT = 10.0
PORT = 9999
LIBC = ctypes.CDLL(None, use_errno=True)

CLUSTER = "10.96.0.0/16,10.244.0.0/16,fd00:10::/32"
POD = "10.244.1.2 fd00:10:1::2"
INSIDE = {4: "10.96.0.10", 6: "fd00:10::10"}
OUTSIDE = {4: "198.51.100.7", 6: "2001:db8:51::7"}
ways = pytest.mark.parametrize("way", ["tcx", "tc"])
families = pytest.mark.parametrize("v", [4, 6], ids=["v4", "v6"])


# ---- processes and namespaces ----

def run(*args, ok=True):
    done = subprocess.run(args, capture_output=True, text=True, timeout=60)
    assert not ok or done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
    return done


def wait_for(what, true, timeout=WAIT):
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def within(netns, what):
    """Calls what() on a thread that is in the namespace; sockets made there stay there."""
    out = {}

    def body():
        try:
            with open(f"/run/netns/{netns}", encoding="ascii") as f:
                if LIBC.setns(f.fileno(), 0x40000000) < 0:
                    raise OSError(ctypes.get_errno(), "setns")
            out["value"] = what()
        except BaseException as e:  # handed to the caller
            out["error"] = e

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if "error" in out:
        raise out["error"]
    return out["value"]


def is_dead(name):
    pid = int(name.split("-")[1])
    return pid == os.getpid() or not os.path.exists(f"/proc/{pid}")


def remove_leftovers():
    """Also what a killed run left: mounts and namespaces of processes that are gone."""
    for path in glob.glob(f"/run/netns/{PREFIX}-*"):
        if is_dead(os.path.basename(path)):
            run("ip", "netns", "del", os.path.basename(path), ok=False)
    for folder in glob.glob(os.path.join(tempfile.gettempdir(), f"{PREFIX}-*")):
        if is_dead(os.path.basename(folder)):
            run("umount", os.path.join(folder, "bpf"), ok=False)
            shutil.rmtree(folder, ignore_errors=True)


class Tool:
    """A running guard_tool; calling it sends a line and gives (errno, text)."""

    def __init__(self, netns, pins, way, cluster=CLUSTER, *more):
        self.proc = subprocess.Popen(["ip", "netns", "exec", netns, TOOL, pins, way, cluster, *more],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, text=True)
        self.answers, self.events, self.log = queue.Queue(), [], []
        self.threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_log)]
        for thread in self.threads:
            thread.start()

    def _read(self):
        for line in self.proc.stdout:
            if line.startswith("= "):
                self.answers.put(line[2:].strip())
            else:
                self.events.append(line.strip())

    def _read_log(self):
        for line in self.proc.stderr:
            self.log.append(line.strip())

    def __call__(self, line):
        self.proc.stdin.write(line + "\n")
        self.proc.stdin.flush()
        errno, _, text = (self.answers.get(timeout=WAIT) + "  ").split(" ", 2)
        return errno, text.strip()

    def ok(self, line):
        errno, text = self(line)
        assert errno == "0", f"{line}: {errno} {text}\n" + "\n".join(self.log[-20:])
        return text

    def kill(self):
        self.proc.kill()
        self._join()

    def end(self):
        if self.proc.poll() is None:
            self.proc.stdin.close()
            assert self.proc.wait(WAIT) == 0, "\n".join(self.log[-20:])
        self._join()

    def _join(self):
        self.proc.wait(WAIT)
        for thread in self.threads:
            thread.join()
        for pipe in (self.proc.stdin, self.proc.stdout, self.proc.stderr):
            pipe.close()

    def counts(self):
        """{(interface, why, protocol): packets}"""
        out = {}
        for word in self.ok("counts").split():
            key, n = word.split("=")
            ifindex, why, proto = key.split("/")
            out[int(ifindex), why, int(proto)] = int(n)
        return out


class World:
    def __init__(self):
        self.node, self.pod = f"{PREFIX}-{os.getpid()}-node", f"{PREFIX}-{os.getpid()}-pod"
        self.folder = os.path.join(tempfile.gettempdir(), f"{PREFIX}-{os.getpid()}")
        self.bpffs = os.path.join(self.folder, "bpf")
        self.pins = os.path.join(self.bpffs, "sluice")
        self.tools, self.sockets = [], []

    def make(self):
        os.makedirs(self.bpffs)
        run("mount", "-t", "bpf", "none", self.bpffs)
        for ns in (self.node, self.pod):
            run("ip", "netns", "add", ns)
            run("ip", "-n", ns, "link", "set", "lo", "up")
            for key in ("accept_dad", "accept_ra"):
                run("ip", "netns", "exec", ns, "sysctl", "-qw", f"net.ipv6.conf.default.{key}=0")
        for v in (4, 6):
            for ip in (INSIDE[v], OUTSIDE[v]):
                run("ip", "-n", self.node, "addr", "add", f"{ip}/{32 if v == 4 else 128}", "dev", "lo",
                    *(["nodad"] if v == 6 else []))
        self.plug()

    def plug(self, index=None):
        """The pod's interface, perhaps under a number that was another's."""
        number = ("index", str(index)) if index else ()
        run("ip", "-n", self.node, "link", "add", "h0", *number, "type", "veth", "peer", "name", "eth0",
            "netns", self.pod)
        run("ip", "-n", self.node, "addr", "add", "10.244.1.1/24", "dev", "h0")
        run("ip", "-n", self.node, "addr", "add", "fd00:10:1::1/64", "dev", "h0", "nodad")
        run("ip", "-n", self.node, "link", "set", "h0", "up")
        run("ip", "-n", self.pod, "link", "set", "eth0", "up")
        run("ip", "-n", self.pod, "addr", "add", "10.244.1.2/24", "dev", "eth0")
        run("ip", "-n", self.pod, "addr", "add", "fd00:10:1::2/64", "dev", "eth0", "nodad")
        run("ip", "-n", self.pod, "route", "add", "default", "via", "10.244.1.1")
        run("ip", "-n", self.pod, "route", "add", "default", "via", "fd00:10:1::1")
        self.ifindex = json.loads(run("ip", "-n", self.node, "-j", "link", "show", "h0").stdout)[0]["ifindex"]

    def bridge(self):
        """The node's addresses move to a bridge, of which the host end becomes a port."""
        run("ip", "-n", self.node, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.node, "addr", "flush", "dev", "h0")
        run("ip", "-n", self.node, "link", "set", "h0", "master", "br0")
        run("ip", "-n", self.node, "addr", "add", "10.244.1.1/24", "dev", "br0")
        run("ip", "-n", self.node, "addr", "add", "fd00:10:1::1/64", "dev", "br0", "nodad")
        run("ip", "-n", self.node, "link", "set", "br0", "up")
        wait_for("the bridge", lambda: "state forwarding" in run("bridge", "-n", self.node, "link").stdout)

    def unplug(self):
        run("ip", "-n", self.node, "link", "del", "h0")

    def remove(self):
        for tool in self.tools:
            if tool.proc.poll() is None:
                tool.kill()
        for sock in self.sockets:
            sock.close()
        remove_leftovers()

    def tool(self, way="tcx", *more, cluster=CLUSTER, pins=None):
        self.tools.append(Tool(self.node, pins or self.pins, way, cluster, *more))
        return self.tools[-1]

    def opened(self, way="tcx", *more, cluster=CLUSTER):
        tool = self.tool(way, *more, cluster=cluster)
        tool.ok("open")
        return tool

    def socket(self, netns, family, kind, bind=None):
        sock = within(netns, lambda: socket.socket(family, kind))
        self.sockets.append(sock)
        sock.settimeout(WAIT)
        if bind:
            sock.bind(bind)
        return sock

    def pinned(self):
        return {name for name in os.listdir(f"{self.pins}/guard-v2/links")}

    def wait_linked(self):
        """With tcx, links follow the filters that are first in force."""
        wait_for("tcx links", lambda: self.pinned() == {f"{self.ifindex}-in", f"{self.ifindex}-out"}
                 and not self.filters())

    def filters(self, dev="h0"):
        """Our tc filters, as iproute2 sees them."""
        lines = ""
        for hook in ("ingress", "egress"):
            lines += run("ip", "netns", "exec", self.node, "tc", "filter", "show", "dev", dev, hook).stdout
        return re.findall(r"handle (\S+) (sluice_\w+)", lines)


@pytest.fixture
def world():
    assert os.path.exists(TOOL), f"{TOOL} is not built: run make check-root"
    remove_leftovers()
    w = World()
    try:
        w.make()
        yield w
    except BaseException:
        w.remove()
        raise
    for tool in w.tools:
        if tool.proc.poll() is None:
            tool.end()
    w.remove()


# ---- packets ----

def family(v):
    return socket.AF_INET if v == 4 else socket.AF_INET6


class Wire:
    """Sends datagrams from the pod, and says which of them arrive inside and outside the cluster."""

    def __init__(self, world, v=4):
        self.v = v
        self.sinks = {ip: world.socket(world.node, family(v), socket.SOCK_DGRAM, (ip, PORT))
                      for ip in (INSIDE[v], OUTSIDE[v])}
        self.source = world.socket(world.pod, family(v), socket.SOCK_DGRAM)
        self.n = 0

    def send(self, ip):
        self.n += 1
        try:
            self.source.sendto(struct.pack("!I", self.n), (ip, PORT))
        except OSError:  # an ICMP error for one before
            self.source.sendto(struct.pack("!I", self.n), (ip, PORT))

    def received(self, ip):
        sock, got = self.sinks[ip], []
        sock.setblocking(False)
        while True:
            try:
                got.append(struct.unpack("!I", sock.recv(64))[0])
            except BlockingIOError:
                return got

    def outside_passes(self):
        """Whether what goes outside arrives. One wire keeps its order: once the last, which may pass,
        has arrived, the others have too, or never will."""
        inside, outside = INSIDE[self.v], OUTSIDE[self.v]
        before = self.n
        for _ in range(5):
            self.send(outside)
        self.send(inside)
        self.sinks[inside].settimeout(WAIT)
        last = self.n
        while struct.unpack("!I", self.sinks[inside].recv(64))[0] != last:
            pass
        return any(n > before for n in self.received(outside))

    def wait_open(self):
        wait_for("an open way", lambda: (self.send(OUTSIDE[self.v]), self.received(OUTSIDE[self.v]))[1])


class Stream:
    """Datagrams without a pause, to the outside and to the cluster, from the pod until the end."""

    def __init__(self, wire):
        self.wire, self.stopping, self.sent = wire, False, 0
        self.inside, self.outside = INSIDE[wire.v], OUTSIDE[wire.v]
        self.arrived = {self.inside: 0, self.outside: 0}

    def __enter__(self):
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stopping = True
        self.thread.join()

    def _run(self):
        while not self.stopping:
            for _ in range(20):
                self.wire.send(self.outside)
                self.wire.send(self.inside)
                self.sent += 1
            for ip in (self.inside, self.outside):
                self.arrived[ip] += len(self.wire.received(ip))

    def more(self, n=400):
        """Until that many more were sent."""
        end = self.sent + n
        wait_for("the stream", lambda: self.sent >= end or not self.thread.is_alive())


# ---- standing guard ----

@ways
@families
def test_only_the_cluster_is_reached(world, way, v):
    wire = Wire(world, v)
    assert wire.outside_passes(), "the world itself works"
    tool = world.opened(way)
    tool.ok(f"add h0 {POD}")
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()
    wait_for("an event", lambda: any(
        e.split() == ["event", str(world.ifindex), "outside", "17",
                      "10.244.1.2" if v == 4 else "fd00:10:1::2", OUTSIDE[v]] for e in tool.events))
    assert tool.counts()[world.ifindex, "outside", 17] >= 5
    if way == "tcx":
        world.wait_linked()
        assert not wire.outside_passes()
        tool.ok(f"verify h0 {POD}")
    tool.ok("remove h0")
    wire.wait_open()
    assert world.filters() == [] and world.pinned() == set()
    assert all(key[0] != world.ifindex or key[1] == "unknown_pod" for key in tool.counts())


@ways
def test_it_stands_when_the_agent_is_killed(world, way):
    wire = Wire(world)
    tool = world.opened(way)
    tool.ok(f"add h0 {POD}")
    if way == "tcx":
        world.wait_linked()
    tool.kill()
    assert not wire.outside_passes()
    tool = world.opened(way)
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()


def test_it_stands_when_the_agent_is_killed_before_its_links_are_made(world):
    wire = Wire(world)
    tool = world.opened("tcx")
    tool.proc.stdin.write(f"add h0 {POD}\n")
    tool.proc.stdin.flush()
    tool.answers.get(timeout=WAIT)
    tool.kill()
    assert not wire.outside_passes()
    tool = world.opened("tcx")
    tool.ok(f"verify h0 {POD}")
    world.wait_linked()
    assert not wire.outside_passes()


@pytest.mark.parametrize("before,after", [("tcx", "tcx"), ("tc", "tc"), ("tcx", "tc"), ("tc", "tcx"),
                                          ("nftables", "tcx"), ("tcx", "nftables")])
def test_nothing_passes_while_agents_change(world, before, after):
    wire = Wire(world)
    tool = world.opened(before)
    tool.ok(f"add h0 {POD}")
    if before == "tcx":
        world.wait_linked()
    assert not wire.outside_passes()
    wire.received(INSIDE[4])
    with Stream(wire) as stream:
        stream.more()
        tool.kill()
        stream.more()
        tool = world.opened(after)
        if before in ("tcx", "tc") and after in ("tcx", "tc"):
            tool.ok(f"verify h0 {POD}")  # taken up by itself
        tool.ok(f"add h0 {POD}")
        tool.ok(f"keep {world.ifindex}")
        tool.ok(f"verify h0 {POD}")
        if after == "tcx":
            world.wait_linked()
        stream.more()
        tool.kill()
        stream.more()
    assert stream.arrived[OUTSIDE[4]] == 0
    wait_for("the rest of the stream", lambda: stream.arrived.__setitem__(
        INSIDE[4], stream.arrived[INSIDE[4]] + len(wire.received(INSIDE[4])))
        or stream.arrived[INSIDE[4]] >= stream.sent * 0.99)
    if after == "nftables":
        assert not os.path.exists(world.pins)
    if before == "nftables":
        assert "sluice" not in run("ip", "netns", "exec", world.node, "nft", "list", "tables").stdout
    world.opened(after).ok("uninstall")


@ways
def test_adding_again_changes_what_is_in_force(world, way):
    wire = Wire(world)
    tool = world.opened(way)
    tool.ok(f"add h0 {POD}")
    tool.ok(f"add h0 {POD}")
    assert not wire.outside_passes()
    tool.ok("add h0 10.244.1.3 fd00:10:1::2")
    assert tool(f"verify h0 {POD}")[0] == "ESTALE"
    tool.ok("verify h0 10.244.1.3 fd00:10:1::2")
    wire.send(INSIDE[4])
    wait_for("a spoofed packet", lambda: tool.counts().get((world.ifindex, "spoofed", 17)))
    tool.ok(f"add h0 {POD}")
    assert not wire.outside_passes()
    assert tool(f"verify h0 {POD} steer")[0] == "ESTALE"
    assert tool(f"verify h0 {POD} dhcp")[0] == "ESTALE"
    tool.ok(f"add h0 {POD} steer dhcp")
    tool.ok(f"verify h0 {POD} steer dhcp")


# ---- what is gone ----

@ways
@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
def test_a_new_interface_inherits_nothing(world, way, alive):
    wire = Wire(world)
    tool = world.opened(way)
    tool.ok(f"add h0 {POD}")
    assert not wire.outside_passes()
    index = world.ifindex
    if way == "tcx":
        world.wait_linked()
    if not alive:
        tool.kill()
    world.unplug()
    if not alive:
        tool = world.opened(way)  # finds that the interface is gone
        assert world.pinned() == set()
    world.plug(index)
    wire = Wire(world, 6)
    wire.wait_open()  # nobody's yet
    assert tool(f"verify h0 {POD}")[0] == "ESTALE"
    tool.ok("add h0 fd00:10:1::2")
    tool.ok("verify h0 fd00:10:1::2")
    assert not wire.outside_passes()
    wire4 = world.socket(world.pod, socket.AF_INET, socket.SOCK_DGRAM)
    wire4.sendto(b"x", (INSIDE[4], PORT))
    # Its address is nobody's now: not even ARP for it is let through.
    wait_for("a packet of the former pod's", lambda: any(
        k[:2] == (index, "spoofed") for k in tool.counts()))
    tool.ok("remove h0")
    tool.ok("remove h0")


@ways
def test_what_is_not_kept_goes(world, way):
    wire = Wire(world)
    tool = world.opened(way)
    tool.ok(f"add h0 {POD}")
    tool.kill()
    tool = world.opened(way)
    tool.ok(f"keep {world.ifindex}")
    tool.ok(f"verify h0 {POD}")
    tool.ok("keep 4711")
    wire.wait_open()
    assert world.filters() == [] and world.pinned() == set()
    tool.end()
    assert any("took the guard off interface" in line for line in tool.log)


@ways
def test_an_interface_that_is_gone_is_said_to_be(world, way):
    tool = world.opened(way)
    errno, text = tool(f"add 4711 {POD}")
    assert errno == "ENODEV" and text
    tool.ok(f"add h0 {POD}")
    world.unplug()
    assert tool(f"verify {world.ifindex} {POD}")[0] == "ESTALE"
    tool.ok(f"remove {world.ifindex}")
    assert world.pinned() == set()


def flows(world):
    """(interface, bucket) of every entry."""
    dump = bpftool("map", "dump", "pinned", f"{world.pins}/guard-v2/sluice_flows")
    return {struct.unpack("=II", bytes(int(b, 16) for b in e["key"])) for e in dump}


@ways
def test_flows_of_nobody_are_swept(world, way):
    """What an agent left that was killed while it removed a pod; those of pods stay."""
    tool = world.opened(way)
    tool.ok(f"add h0 {POD}")
    path = f"{world.pins}/guard-v2/sluice_flows"
    size = bpftool("map", "show", "pinned", path)["bytes_value"]
    for ifindex in (world.ifindex, 4711, 4712):
        for bucket in range(600 if ifindex == 4711 else 2):
            run("bpftool", "map", "update", "pinned", path, "key",
                *key_bytes(struct.pack("=II", ifindex, bucket)), "value", *["0"] * size)
    assert len(flows(world)) == 604
    tool.kill()
    tool = world.opened(way)
    assert flows(world) == {(world.ifindex, 0), (world.ifindex, 1)}
    tool.ok("remove h0")
    assert flows(world) == set()


# ---- drift ----

def bpftool(*args):
    return json.loads(run("bpftool", "-j", *args).stdout or "null")


def key_bytes(data):
    return [f"{b:#04x}" for b in data]


@ways
@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_detached_program_is_noticed(world, way, direction):
    wire = Wire(world)
    tool = world.opened(way)
    tool.ok(f"add h0 {POD}")
    if way == "tcx":
        world.wait_linked()
        os.unlink(f"{world.pins}/guard-v2/links/{world.ifindex}-{direction}")
    else:
        run("ip", "netns", "exec", world.node, "tc", "filter", "del", "dev", "h0",
            "ingress" if direction == "in" else "egress")
    wait_for("drift", lambda: tool(f"verify h0 {POD}")[0] == "ESTALE")
    tool.ok(f"add h0 {POD}")
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()
    if way == "tcx":
        world.wait_linked()
        tool.ok(f"verify h0 {POD}")
        assert not wire.outside_passes()


def test_a_link_that_goes_late(world):
    """Somebody has it still, when the new one is to be made: filters guard meanwhile, and not for ever."""
    wire = Wire(world)
    tool = world.opened("tcx")
    tool.ok(f"add h0 {POD}")
    world.wait_linked()
    pin, held = (f"{world.pins}/guard-v2/links/{world.ifindex}-in", f"{world.pins}/held")
    os.link(pin, held)
    os.unlink(pin)
    wait_for("drift", lambda: tool(f"verify h0 {POD}")[0] == "ESTALE")
    tool.ok(f"add h0 {POD}")
    tool.ok(f"verify h0 {POD}")
    time.sleep(0.8)  # longer than is tried in a row
    assert world.filters() and not wire.outside_passes()
    os.unlink(held)
    world.wait_linked()
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()


@ways
def test_the_whole_clsact_is_taken_away(world, way):
    """As some CNI plugins do when they clean up: tcx links are not touched, filters are put back."""
    wire = Wire(world)
    tool = world.opened(way)
    tool.ok(f"add h0 {POD}")
    if way == "tcx":
        world.wait_linked()
    run("ip", "netns", "exec", world.node, "tc", "qdisc", "del", "dev", "h0", "clsact")
    assert tool(f"verify h0 {POD}")[0] == ("0" if way == "tcx" else "ESTALE")
    tool.ok(f"add h0 {POD}")
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()


def test_link_addresses_are_looked_after(world):
    tool = world.opened("tc")
    tool.ok(f"add h0 {POD} steer")
    for change in (lambda: run("ip", "-n", world.node, "link", "set", "h0", "address", "02:00:00:00:00:77"),
                   world.bridge,
                   lambda: run("ip", "-n", world.node, "link", "set", "br0", "address", "02:00:00:00:00:99")):
        change()
        assert tool(f"verify h0 {POD} steer")[0] == "ESTALE"
        tool.ok(f"add h0 {POD} steer")
        tool.ok(f"verify h0 {POD} steer")


@ways
@pytest.mark.parametrize("change", ["pod", "no-pod", "own", "no-own"])
def test_a_changed_entry_is_noticed(world, way, change):
    wire = Wire(world)
    tool = world.opened(way)
    tool.ok(f"add h0 {POD}")
    index = struct.pack("=I", world.ifindex)
    pods, own = (f"{world.pins}/guard-v2/sluice_{n}" for n in ("pods", "own"))
    mapped = index + b"\0" * 10 + b"\xff\xff"
    if change == "pod":
        run("bpftool", "map", "update", "pinned", pods, "key", *key_bytes(index),
            "value", *key_bytes(struct.pack("=III20s", 0, 512, 0, b"")))
    elif change == "no-pod":
        run("bpftool", "map", "delete", "pinned", pods, "key", *key_bytes(index))
    elif change == "own":  # another pod's address
        run("bpftool", "map", "update", "pinned", own, "key",
            *key_bytes(mapped + socket.inet_aton("10.244.1.99")), "value", "1")
    else:
        run("bpftool", "map", "delete", "pinned", own, "key",
            *key_bytes(mapped + socket.inet_aton("10.244.1.2")))
    assert tool(f"verify h0 {POD}")[0] == "ESTALE"
    tool.ok(f"add h0 {POD}")
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()


def test_a_program_that_came_before_ours_by_tcx(world):
    wire = Wire(world)
    tool = world.opened("tcx")
    tool.ok(f"add h0 {POD}")
    world.wait_linked()
    tool.ok("foreign h0")
    assert wire.outside_passes(), "the other program has the last word"
    assert tool(f"verify h0 {POD}")[0] == "ESTALE"
    tool.ok(f"add h0 {POD}")
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()


def test_first_where_others_were_before(world):
    wire = Wire(world)
    tool = world.opened("tcx")
    tool.ok("foreign h0")
    tool.ok(f"add h0 {POD}")
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()
    tool.end()
    # A filter would never be asked there.
    tool = world.opened("tc")
    tool.ok("remove h0")
    tool.ok("foreign h0")
    errno, text = tool(f"add h0 {POD}")
    assert errno == "EBUSY" and "tcx" in text


def test_a_filter_that_came_before_ours(world):
    """Of the same priority, where the newest comes first."""
    wire = Wire(world)
    tool = world.opened("tc")
    tool.ok(f"add h0 {POD}")
    tool.ok("foreign-tc h0")
    assert wire.outside_passes(), "the other filter has the last word"
    assert tool(f"verify h0 {POD}")[0] == "ESTALE"
    tool.ok(f"add h0 {POD}")
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()
    tool.ok(f"add h0 {POD}")
    assert len(world.filters()) == 2, "one in each direction"
    tool.ok("remove h0")
    assert "0x7" in run("ip", "netns", "exec", world.node, "tc", "filter", "show", "dev", "h0", "ingress").stdout


def test_a_priority_that_is_somebody_elses(world):
    tool = world.opened("tc")
    run("ip", "netns", "exec", world.node, "tc", "qdisc", "add", "dev", "h0", "clsact")
    run("ip", "netns", "exec", world.node, "tc", "filter", "add", "dev", "h0", "egress", "protocol", "ip",
        "prio", "1", "bpf", "bytecode", "1,6 0 0 0", "classid", "1:1")
    errno, text = tool(f"add h0 {POD}")
    assert errno != "0" and "tc filter" in text and "priority 1" in text
    assert world.filters() == [], "all or nothing"


# ---- cluster networks ----

def test_cluster_networks_change_in_place(world):
    wire = Wire(world)
    tool = world.opened("tcx")
    tool.ok(f"add h0 {POD}")
    wire.outside_passes()
    wire.received(INSIDE[4])
    lists = ["10.96.0.0/16,10.244.0.0/16", "10.96.0.0/12,10.244.0.0/16", "10.96.0.8/29,10.244.1.0/24",
             "0.0.0.0/1,169.254.0.0/16,fd00::/8"]
    first = wire.n
    with Stream(wire) as stream:
        for i in range(400):
            tool.ok(f"cluster {lists[i % len(lists)]}")
        stream.more(100)
    stream.arrived[stream.inside] += len(wire.received(stream.inside))
    assert wire.n - first == 2 * stream.sent
    assert stream.arrived[stream.outside] == 0
    assert stream.arrived[stream.inside] == stream.sent
    tool.ok("cluster 10.97.0.0/16")
    refused = tool.counts()[world.ifindex, "outside", 17]
    wire.send(INSIDE[4])
    wait_for("a refused packet", lambda: tool.counts()[world.ifindex, "outside", 17] == refused + 1)
    assert wire.received(INSIDE[4]) == []


def nets(world, name):
    """What the table holds, as prefix lengths and addresses."""
    out = set()
    for e in bpftool("map", "dump", "pinned", f"{world.pins}/guard-v2/{name}"):
        raw = bytes(int(b, 16) for b in e["key"])
        length, ip = struct.unpack("=I", raw[:4])[0], raw[4:]
        out.add(f"{socket.inet_ntop(socket.AF_INET if len(ip) == 4 else socket.AF_INET6, ip)}/{length}")
    return out


def without(net, *addrs):
    """The fewest networks that make `net` without these addresses, by other means than ours."""
    out = [ipaddress.ip_network(net)]
    for addr in map(ipaddress.ip_network, addrs):
        hit, = (n for n in out if addr.subnet_of(n))
        out.remove(hit)
        out += hit.address_exclude(addr)
    return {str(n) for n in out}


def test_cluster_tables_hold_the_plan_and_no_more(world):
    tool = world.opened("tc", cluster="10.0.0.0/8,169.254.0.0/16,fd00::/8")
    assert nets(world, "sluice_net4") == {"10.0.0.0/8"} | without("169.254.0.0/16", "169.254.169.254")
    assert nets(world, "sluice_net6") == without("fd00::/8", "fd00:ec2::254", "fd20:ce::254")
    tool.kill()
    tool = world.opened("tc", cluster="192.0.2.1/32,192.0.2.2/31")
    assert nets(world, "sluice_net4") == {"192.0.2.1/32", "192.0.2.2/31"}
    assert nets(world, "sluice_net6") == set()
    many = ",".join(f"10.{i}.{j}.0/24" for i in range(16) for j in range(0, 60, 2))
    tool.ok(f"cluster {many}")
    assert len(nets(world, "sluice_net4")) == 480


# ---- what is refused ----

@pytest.mark.parametrize("confined,word", [("no-bpf", "seccomp"), ("no-caps", "CAP_BPF")])
def test_bpf_is_refused(world, confined, word):
    for way in ("tcx", "tc"):
        tool = world.tool(way, "1024", confined)
        errno, _ = tool("open")
        assert errno == "EOPNOTSUPP"
        tool.end()
        assert any(word in line and f"'{way}'" in line for line in tool.log), tool.log


def test_auto_says_which_and_why(world):
    tool = world.tool("auto")
    assert tool.ok("open") == "tcx"
    tool.end()
    assert any("guard: 'tcx', the first that works here" in line for line in tool.log)
    tool = world.tool("auto", "1024", "no-bpf")
    assert tool.ok("open") == "nftables"
    tool.end()
    assert [w for line in tool.log for w in re.findall(r"guard by '(\w+)' does not work here", line)] == ["tcx", "tc"]
    assert any("guard: 'nftables'" in line for line in tool.log)


def test_pins_need_a_bpf_file_system(world):
    tool = world.tool("tcx", pins=os.path.join(world.folder, "elsewhere"))
    assert tool("open")[0] == "EOPNOTSUPP"
    tool.end()
    assert any("mount -t bpf" in line for line in tool.log), tool.log
    assert not os.path.exists(os.path.join(world.folder, "elsewhere"))


@ways
def test_full(world, way):
    wire = Wire(world)
    tool = world.opened(way)
    assert tool("fill 2000")[0] == "E2BIG"
    errno, text = tool(f"add h0 {POD}")
    assert errno == "ENOSPC" and "1024" in text
    assert world.filters() == [] and world.pinned() == set()
    wire.wait_open()
    tool.ok("keep")  # there is room again
    tool.ok(f"add h0 {POD}")
    assert not wire.outside_passes()


def test_tables_of_another_layout_give_way(world):
    """Those of an older agent: its programs stay in force, on its tables, until each pod is added."""
    wire = Wire(world)
    tool = world.opened("tcx")
    tool.ok(f"add h0 {POD}")
    world.wait_linked()
    tool.kill()
    path = f"{world.pins}/guard-v2/sluice_own"
    os.unlink(path)
    run("bpftool", "map", "create", path, "type", "hash", "key", "20", "value", "8", "entries", "64",
        "name", "sluice_own")
    with Stream(wire) as stream:
        stream.more()
        tool = world.opened("tcx")
        stream.more()
        tool.ok(f"add h0 {POD}")
        tool.ok(f"verify h0 {POD}")
        tool.ok(f"keep {world.ifindex}")
        stream.more()
    assert stream.arrived[OUTSIDE[4]] == 0
    stream.arrived[stream.inside] += len(wire.received(stream.inside))
    assert stream.arrived[stream.inside] >= stream.sent * 0.99


def test_pins_of_another_version_go(world):
    wire = Wire(world)
    tool = world.opened("tcx")
    tool.ok(f"add h0 {POD}")
    world.wait_linked()
    tool.kill()
    os.rename(f"{world.pins}/guard-v2", f"{world.pins}/guard-v0")
    assert not wire.outside_passes()
    tool = world.opened("tcx")
    assert not wire.outside_passes()
    tool.ok(f"add h0 {POD}")
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()
    tool.ok(f"keep {world.ifindex}")
    assert os.listdir(world.pins) == ["guard-v2"]
    tool.ok(f"verify h0 {POD}")
    assert not wire.outside_passes()


# ---- uninstalling ----

@ways
def test_nothing_is_left(world, way):
    wire = Wire(world)
    tool = world.opened(way)
    tool.ok(f"add h0 {POD}")
    if way == "tcx":
        world.wait_linked()
    maps = {bpftool("map", "show", "pinned", path)["id"] for path in glob.glob(f"{world.pins}/guard-v2/sluice_*")}
    progs = {p["id"] for p in bpftool("prog", "list") if maps & set(p.get("map_ids", []))}
    assert len(maps) >= 7 and len(progs) >= 2
    tool.end()
    assert not wire.outside_passes()
    tool = world.tool(way)
    tool.ok("uninstall")
    tool.ok("uninstall")
    wire.wait_open()
    assert not os.path.exists(world.pins)
    assert world.filters() == []
    assert "clsact" not in run("ip", "netns", "exec", world.node, "tc", "qdisc", "show", "dev", "h0").stdout
    wait_for("maps to go", lambda: not maps & {m["id"] for m in bpftool("map", "list")})
    wait_for("programs to go", lambda: not progs & {p["id"] for p in bpftool("prog", "list")})
    assert not [link for link in bpftool("link", "list") if link.get("prog_id") in progs]


def test_nothing_to_take_away(world):
    run("umount", world.bpffs)
    world.tool("auto").ok("uninstall")
    run("mount", "-t", "bpf", "none", world.bpffs)


# ---- the interfaces of a pod ----

def links(tool, netns):
    errno, text = tool(f"links /run/netns/{netns}")
    words = text.split() if errno == "0" else []
    found = {}
    for word in words:
        if "/" in word:
            name, kind, ifindex = word.split("/")
            found[name] = (kind, int(ifindex))
    return errno, found, [w for w in words if "/" not in w], text


@pytest.fixture
def third(world):
    name = f"{PREFIX}-{os.getpid()}-third"
    run("ip", "netns", "add", name)
    return name


def index_of(netns, dev):
    return json.loads(run("ip", "-n", netns, "-j", "link", "show", dev).stdout)[0]["ifindex"]


def test_a_veth_and_its_addresses(world):
    tool = world.tool()
    errno, found, addrs, _ = links(tool, world.pod)
    assert errno == "0" and found == {"eth0": ("veth", world.ifindex)}
    assert set(POD.split()) < set(addrs)
    assert [a for a in addrs if a.startswith("fe80::")] and "127.0.0.1" not in addrs


def test_several_interfaces_bridged_and_not(world):
    tool = world.tool()
    run("ip", "-n", world.node, "link", "add", "br0", "type", "bridge")
    run("ip", "-n", world.node, "link", "add", "h1", "type", "veth", "peer", "name", "net1", "netns", world.pod)
    run("ip", "-n", world.node, "link", "set", "h1", "master", "br0")
    run("ip", "-n", world.pod, "addr", "add", "192.0.2.9", "peer", "192.0.2.10/32", "dev", "net1")
    _, found, addrs, _ = links(tool, world.pod)
    assert found == {"eth0": ("veth", world.ifindex), "net1": ("veth", index_of(world.node, "h1"))}
    assert "192.0.2.9" in addrs and "192.0.2.10" not in addrs


def test_what_stays_inside_is_not_counted(world):
    tool = world.tool()
    for words in (["type", "bridge"], ["type", "veth", "peer", "name", "b0"],
                  ["type", "vxlan", "id", "7", "dstport", "4789"]):
        run("ip", "-n", world.pod, "link", "add", "a0", *words)
        run("ip", "-n", world.pod, "addr", "add", "198.18.0.1/24", "dev", "a0")
        _, found, addrs, _ = links(tool, world.pod)
        assert list(found) == ["eth0"] and "198.18.0.1" not in addrs
        run("ip", "-n", world.pod, "link", "del", "a0")


def test_interfaces_without_a_peer_here(world, third):
    tool = world.tool()
    run("ip", "-n", world.node, "link", "add", "mv0", "link", "h0", "type", "macvlan", "mode", "bridge")
    run("ip", "-n", world.node, "link", "set", "mv0", "netns", third)
    _, found, _, _ = links(tool, third)
    assert found == {"mv0": ("macvlan", 0)}
    # A peer in a third namespace, with a number that an interface here has too.
    run("ip", "-n", third, "link", "add", "t0", "index", str(world.ifindex), "type", "veth",
        "peer", "name", "net1", "netns", world.pod)
    _, found, _, _ = links(tool, world.pod)
    assert found == {"eth0": ("veth", world.ifindex), "net1": ("veth", 0)}


def test_no_way_out(world, third):
    tool = world.tool()
    errno, _, _, text = links(tool, third)
    assert errno == "ENODEV" and "'lo'" in text
    errno, text = tool("links /etc/hostname")
    assert errno == "EINVAL" and "network namespace" in text


def test_more_than_there_may_be(world):
    tool = world.tool()
    for i in range(40):
        run("ip", "-n", world.pod, "addr", "add", f"10.9.{i}.1/24", "dev", "eth0")
        if i == 20:
            assert links(tool, world.pod)[0] == "0"
    errno, _, _, text = links(tool, world.pod)
    assert errno == "E2BIG" and "32" in text


# ---- steering ----

MARK, TABLE, PRIORITY = 16, 15001, 99
NUMBERS = f"{MARK:#x} {TABLE} {PRIORITY}"


def ip_rules(world, v):
    return [r for r in json.loads(run("ip", f"-{v}", "-n", world.node, "-j", "rule").stdout)
            if r["priority"] not in (0, 32766, 32767)]


def ip_routes(world, v, table=TABLE):
    """As text: iproute2 begins its JSON and does not end it when there is no such table."""
    return run("ip", f"-{v}", "-n", world.node, "route", "show", "table", str(table), ok=False).stdout.splitlines()


def test_rule_and_route_come_and_go(world):
    tool = world.tool()
    assert tool(f"steer-verify {NUMBERS}")[0] == "ESTALE"
    assert tool.ok(f"steer-apply {NUMBERS}") == "changed"
    assert tool.ok(f"steer-apply {NUMBERS}") == ""
    tool.ok(f"steer-verify {NUMBERS}")
    for v in (4, 6):
        rule, = ip_rules(world, v)
        assert (rule["priority"], rule["table"], rule["fwmark"], rule["fwmask"]) == (
            PRIORITY, str(TABLE), hex(MARK), hex(MARK))
        route, = ip_routes(world, v)
        assert route.startswith("local default dev lo ")
    tool.ok(f"steer-remove {NUMBERS}")
    tool.ok(f"steer-remove {NUMBERS}")
    assert not any(ip_rules(world, v) + ip_routes(world, v) for v in (4, 6))


@pytest.mark.parametrize("lost", ["rule", "route"])
@families
def test_what_was_removed_is_put_back(world, lost, v):
    tool = world.tool()
    tool.ok(f"steer-apply {NUMBERS}")
    if lost == "rule":
        run("ip", f"-{v}", "-n", world.node, "rule", "del", "pref", str(PRIORITY))
    else:
        run("ip", f"-{v}", "-n", world.node, "route", "flush", "table", str(TABLE))
    assert tool(f"steer-verify {NUMBERS}")[0] == "ESTALE"
    assert tool.ok(f"steer-apply {NUMBERS}") == "changed"
    tool.ok(f"steer-verify {NUMBERS}")


@pytest.mark.parametrize("taken", [
    ["rule", "add", "pref", str(PRIORITY), "from", "192.0.2.0/24", "lookup", "77"],
    ["rule", "add", "pref", "50", "lookup", str(TABLE)],
    ["rule", "add", "pref", "50", "fwmark", hex(MARK), "lookup", "77"],
    ["rule", "add", "pref", "50", "fwmark", "0x10/0xf0", "lookup", "77"],
    ["rule", "add", "pref", str(PRIORITY), "fwmark", f"{MARK:#x}/{MARK:#x}", "lookup", str(TABLE)],
    ["route", "add", "192.0.2.0/24", "dev", "lo", "table", str(TABLE)],
], ids=["priority", "table", "mark", "part-of-the-mark", "same-but-not-ours", "route"])
def test_what_is_somebody_elses_stays(world, taken):
    tool = world.tool()
    run("ip", "-n", world.node, *taken)
    before = ip_rules(world, 4), ip_routes(world, 4)
    assert tool(f"steer-apply {NUMBERS}")[0] == "EEXIST"
    tool.ok(f"steer-remove {NUMBERS}")
    assert (ip_rules(world, 4), ip_routes(world, 4)) == before


def test_others_are_left_alone(world):
    tool = world.tool()
    run("ip", "-n", world.node, "rule", "add", "pref", "50", "fwmark", "0x4000/0x4000", "lookup", "77")
    before = ip_rules(world, 4)
    tool.ok(f"steer-apply {NUMBERS}")
    tool.ok(f"steer-remove {NUMBERS}")
    assert ip_rules(world, 4) == before


def test_numbers_that_will_not_do(world):
    tool = world.tool()
    for numbers in ("0 100 99", "1 0 99", "1 254 99", "1 255 99", "1 253 99", "1 100 0"):
        assert tool(f"steer-apply {numbers}")[0] == "EINVAL", numbers
    for table in (77, 252, 256, 4294967295):
        tool.ok(f"steer-apply 1 {table} 99")
        tool.ok(f"steer-verify 1 {table} 99")
        tool.ok(f"steer-remove 1 {table} 99")
    assert not any(ip_rules(world, v) for v in (4, 6))


def test_without_ipv6(world):
    run("ip", "netns", "exec", world.node, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    tool = world.tool()
    assert tool.ok("listen 15001").split()[1] == "-1"
    assert tool.ok(f"steer-apply {NUMBERS}") == "changed"
    tool.ok(f"steer-verify {NUMBERS}")
    tool.ok(f"steer-remove {NUMBERS}")


@ways
@families
@pytest.mark.parametrize("bridged", [False, True], ids=["plain", "bridged"])
def test_a_pods_connection_is_steered(world, way, v, bridged):
    """To an address that exists nowhere: only the listener can have answered."""
    if bridged:
        world.bridge()
    tool = world.opened(way)
    tool.ok("listen 15001")
    tool.ok(f"steer-apply {NUMBERS}")
    tool.ok(f"add h0 {POD} steer")
    sock = world.socket(world.pod, family(v), socket.SOCK_STREAM)
    sock.connect(("203.0.113.77" if v == 4 else "2001:db8:77::7", 443))
    assert not Wire(world, v).outside_passes()
    # A new agent's listener is another socket, and has to be named again.
    tool.kill()
    sock = world.socket(world.pod, family(v), socket.SOCK_STREAM)
    with pytest.raises(OSError):
        sock.connect(("203.0.113.77" if v == 4 else "2001:db8:77::7", 443))
    tool = world.opened(way)
    tool.ok("listen 15001")
    sock = world.socket(world.pod, family(v), socket.SOCK_STREAM)
    sock.connect(("203.0.113.77" if v == 4 else "2001:db8:77::7", 443))
