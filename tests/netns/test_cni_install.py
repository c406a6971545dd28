# SPDX-License-Identifier: Apache-2.0
"""sluice-install on a folder of CNI configurations that others write to: what it does once, what it keeps
true, and that it leaves nothing."""
import json
import os
import signal
import subprocess
import threading
import time

import pytest
from cni_chain import DEBIAN, INSTALL, PLUGIN, Runtime, pod_args
from cni_agent import FakeAgent
from netns import Netns
from procs import Procs, remove_leftovers, wait_for

LIST = """{
  "cniVersion": "1.0.0",
  "name": "net",
  "plugins": [
    {"type": "ptp", "mtu": 1400.50, "ipam": {"type": "host-local", "subnet": "10.244.9.0/24", "dataDir": "%s"}},
    {"type": "tuning"}
  ]
}
"""
SINGLE = '{"cniVersion": "0.3.1", "name": "net", "type": "ptp"}\n'


class Node:
    """The folders of a host that the installer's container sees."""

    def __init__(self, procs):
        self.procs, self.root = procs, procs.folder / f"host-{procs.count}"
        procs.count += 1
        self.conf, self.bin = self.root / "net.d", self.root / "bin"
        self.ready = self.root / "ready"
        self.socket = self.root / "agent.sock"
        for folder in (self.conf, self.bin):
            folder.mkdir(parents=True)
        (self.bin / "other").write_text("a plugin of somebody else's")
        self.proc = None

    def argv(self, *more):
        return [INSTALL, "--source", PLUGIN, "--bin-dir", self.bin, "--conf-dir", self.conf,
                "--socket", self.socket, "--ready-file", self.ready, *more]

    def run(self, *more):
        return subprocess.run(self.argv(*more), check=False, capture_output=True, text=True, timeout=30)

    def watch(self, *more):
        self.proc = self.procs.start("install", self.argv("--watch", *more))
        return self

    def files(self):
        """Every file's name, mode, owner and content; links as what they say."""
        out = {}
        for path in sorted(self.root.rglob("*")):
            st = path.lstat()
            what = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
            out[str(path.relative_to(self.root))] = (st.st_mode, st.st_uid, st.st_gid, what)
        return out

    def write(self, name, text):
        (self.conf / name).write_text(text)

    def types(self, name):
        """Of a list's plugins; [] while there is none."""
        try:
            return [p["type"] for p in json.loads((self.conf / name).read_text())["plugins"]]
        except (FileNotFoundError, ValueError):
            return []

    def has_ours(self, name):
        return self.types(name)[-1:] == ["sluice-cni"]

    def wait_ours(self, name):
        wait_for(lambda: self.has_ours(name), what=f"sluice-cni is in {name}")

    def wait_ready(self):
        wait_for(self.ready.exists, what="the ready file is there")


@pytest.fixture
def procs():
    assert INSTALL.exists() and PLUGIN.exists(), f"{INSTALL} is not built: run make first"
    remove_leftovers()
    procs = Procs()
    yield procs
    procs.stop_all()
    procs.remove_folder()


@pytest.fixture
def node(procs):
    return Node(procs)


@pytest.mark.parametrize("name, text, becomes", [
    ("10-net.conflist", LIST, "10-net.conflist"), ("10-net.conf", SINGLE, "10-net.conflist"),
    ("10-net.json", SINGLE, "10-net.conflist"),
])
def test_install_and_remove(node, name, text, becomes):
    """What was there before is there again, byte by byte."""
    node.write(name, text)
    node.write("99-other.conflist", LIST)
    os.chmod(node.conf / name, 0o640)
    os.chown(node.conf / name, 1234, 4321)
    before = node.files()

    done = node.run()
    assert done.returncode == 0, done
    st = (node.conf / becomes).stat()
    assert (st.st_mode & 0o7777, st.st_uid, st.st_gid) == (0o640, 1234, 4321)
    assert json.loads((node.conf / becomes).read_text())["plugins"][-1] == {
        "type": "sluice-cni", "agentSocket": str(node.socket), "timeout": "5s"}
    assert (node.bin / "sluice-cni").read_bytes() == PLUGIN.read_bytes()
    assert node.ready.exists() and node.types("99-other.conflist") == ["ptp", "tuning"]

    installed = node.files()
    done = node.run("--once")
    assert (done.returncode, done.stderr, node.files()) == (0, "", installed), "a second time changes something"
    assert node.run("--timeout", "9s").returncode == 0
    assert [p.get("timeout") for p in json.loads((node.conf / becomes).read_text())["plugins"]][1:] in (
        ["9s"], [None, "9s"])

    assert node.run("--remove").returncode == 0
    assert node.files() == before
    assert node.run("--remove").returncode == 0
    assert node.files() == before


def test_nothing_to_join(node):
    done = node.run("--once")
    assert done.returncode == 1 and "no configuration" in done.stderr and not node.ready.exists()
    node.write("10-net.conflist", "{")
    assert node.run("--once").returncode == 1
    (node.bin / "sluice-cni").unlink()
    node.bin.rename(node.root / "elsewhere")
    node.write("10-net.conflist", LIST)
    done = node.run("--once")
    assert done.returncode == 1 and "cannot open the folder" in done.stderr
    assert (node.conf / "10-net.conflist").read_text() == LIST, "an entry without its binary"
    assert node.run("--socket", "x").returncode == 2


def test_installed_list_works(node, procs):
    """A real chain, by what the installer wrote."""
    host, sandbox = (Netns(procs.netns_prefix + name, procs) for name in ("host", "sandbox"))
    try:
        node.write("10-net.conflist", LIST % (node.root / "ipam"))
        assert node.run().returncode == 0
        conf = json.loads((node.conf / "10-net.conflist").read_text())
        conf["plugins"][0]["mtu"] = 1400
        runtime = Runtime(host, conf, [node.bin, DEBIAN])
        with FakeAgent(node.socket) as agent:
            pod = runtime.add("c-1", sandbox.path, pod_args("shop/web"))
            pod.check()
            pod.delete()
        assert [r["op"] for r in agent.requests] == ["enroll", "check", "delete"]
    finally:
        sandbox.remove()
        host.remove()


def test_once_waits_where_it_is_told_to(node):
    """As an init container does on a node whose CNI is not there yet."""
    proc = node.procs.start("install", node.argv("--once", "--wait"))
    wait_for(lambda: "waiting for one" in proc.output(), what="it waits")
    assert proc.running()
    node.write("10-net.conflist", LIST)
    assert proc.wait(10) == 0, proc.output()
    assert node.has_ours("10-net.conflist") and node.ready.exists()


def test_remove_stays_where_it_is_told_to(node):
    """As a container has to that is to be seen to be done."""
    node.write("10-net.conflist", LIST)
    before = node.files()
    assert node.run().returncode == 0
    proc = node.procs.start("install", node.argv("--remove", "--stay"))
    wait_for(lambda: node.files() == before, what="all is as it was")
    assert proc.running()
    assert proc.stop(5) == 0, proc.output()


# ---- watching ----

def test_watch_waits_for_a_configuration(node):
    node.watch()
    wait_for(lambda: "waiting for one" in node.proc.output(), what="it says that it waits")
    assert not node.ready.exists()
    node.write("10-net.conf.new", SINGLE)
    (node.conf / "10-net.conf.new").rename(node.conf / "10-net.conf")
    node.wait_ours("10-net.conflist")
    node.wait_ready()
    assert node.proc.output().count("waiting for one") == 1


def test_watch_puts_back_what_is_undone(node):
    node.write("20-net.conflist", LIST)
    node.watch().wait_ready()

    node.write("20-net.conflist", LIST)  # the primary plugin, in place
    node.wait_ours("20-net.conflist")
    node.write("new", LIST)  # and by rename
    (node.conf / "new").rename(node.conf / "20-net.conflist")
    node.wait_ours("20-net.conflist")

    (node.bin / "sluice-cni").unlink()
    wait_for((node.bin / "sluice-cni").exists, what="the binary is back")
    (node.bin / "sluice-cni").write_text("broken")
    wait_for(lambda: (node.bin / "sluice-cni").read_bytes() == PLUGIN.read_bytes(), what="the binary is ours")

    node.write("10-first.conflist", LIST)
    node.wait_ours("10-first.conflist")
    node.write("05-single.conf", SINGLE)
    node.wait_ours("05-single.conflist")
    node.write("05-single.conf", SINGLE.replace("ptp", "bridge"))  # made anew
    wait_for(lambda: node.types("05-single.conflist") == ["bridge", "sluice-cni"], what="it is converted again")

    (node.conf / "05-single.conflist").unlink()
    (node.conf / "10-first.conflist").unlink()
    (node.conf / "20-net.conflist").unlink()
    wait_for(lambda: not node.ready.exists(), what="it is not ready without a configuration")
    node.write("20-net.conflist", LIST)
    node.wait_ours("20-net.conflist")
    node.wait_ready()


def test_watch_follows_folders_that_come_anew(node):
    node.write("10-net.conflist", LIST)
    node.watch().wait_ready()
    node.conf.rename(node.root / "old")
    node.conf.mkdir()
    node.write("10-net.conflist", LIST)
    node.wait_ours("10-net.conflist")
    node.write("10-net.conflist", LIST)
    node.wait_ours("10-net.conflist")


def test_sigterm_leaves_everything(node):
    """An upgrade of the DaemonSet must not open a gap."""
    node.write("10-net.conflist", LIST)
    node.watch().wait_ready()
    node.proc.signal(signal.SIGTERM)
    assert node.proc.wait() == 0
    assert node.has_ours("10-net.conflist") and (node.bin / "sluice-cni").exists()
    assert not node.ready.exists(), "nobody watches any more"
    node.watch("--timeout", "8s").wait_ready()
    assert json.loads((node.conf / "10-net.conflist").read_text())["plugins"][-1]["timeout"] == "8s"


def test_remove_waits_for_who_watches(node):
    """It would put everything back."""
    node.write("10-net.conflist", LIST)
    before = node.files()
    node.watch().wait_ready()
    proc = node.procs.start("remove", node.argv("--remove"))
    wait_for(lambda: "waiting for the end of whoever watches" in proc.output(), what="it waits")
    assert node.has_ours("10-net.conflist")
    node.proc.signal(signal.SIGTERM)
    assert node.proc.wait() == 0
    assert proc.wait(10) == 0
    assert node.files() == before


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_no_endless_fight(node):
    """Somebody takes the entry out whenever it comes: the answer comes more and more slowly, and is ours in the end."""
    node.write("10-net.conflist", LIST)
    node.watch().wait_ready()
    stop, undone = threading.Event(), []

    def undo():
        while not stop.is_set():
            if node.has_ours("10-net.conflist"):
                node.write("new", LIST)
                (node.conf / "new").rename(node.conf / "10-net.conflist")
                undone.append(time.monotonic())
            time.sleep(0.001)
    thread = threading.Thread(target=undo)
    thread.start()
    try:
        wait_for(lambda: "the next time in 800 ms" in node.proc.output(), timeout=30, what="it is put back slowly")
        calls = len(undone)
        wait_for(lambda: len(undone) > calls, what="it is put back once more")
    finally:
        stop.set()
        thread.join()
    for wait in (100, 200, 400, 800):
        assert f"somebody undid what is installed, and it is put back; the next time in {wait} ms" in node.proc.output()
    assert undone[calls] - undone[calls - 1] > 0.25, undone
    node.wait_ours("10-net.conflist")
    assert cpu_seconds(node.proc.pid) < 1


def test_failing_writes_are_no_loop(node):
    """What fails leaves events of its own in the folder."""
    node.write("10-net.conflist", LIST)
    node.write("10-net.conf", SINGLE)  # which would have to be named like the other
    node.watch()
    wait_for(lambda: "remove one of them" in node.proc.output(), what="it says so")
    used = cpu_seconds(node.proc.pid)
    for i in range(20):
        node.write("noise", str(i))
    (node.conf / "10-net.conf").unlink()
    node.wait_ours("10-net.conflist")
    node.wait_ready()
    assert node.proc.output().count("remove one of them") == 1
    assert cpu_seconds(node.proc.pid) - used < 0.5
