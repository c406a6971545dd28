# SPDX-License-Identifier: Apache-2.0
"""The network namespaces of a bench, and the processes in them.

    cli ---------------- gw ---- srv        one hop
    pod ---- node ------ gw ---- srv        two hops

Everything carries the bench's own pid in its name; what a killed run left behind is removed by the
next one.
"""
import ctypes
import glob
import os
import re
import shutil
import signal
import subprocess
import tempfile

import cpu

PREFIX = "slbench-"
NAMESPACES = ("cli", "pod", "node", "gw", "srv")
LINKS = (  # 198.18.0.0/15 is for benchmarks (RFC 2544)
    ("cli", "198.18.1.2", "gw", "198.18.1.1"),
    ("pod", "198.18.2.2", "node", "198.18.2.1"),
    ("node", "198.18.3.2", "gw", "198.18.3.1"),
    ("srv", "198.18.4.2", "gw", "198.18.4.1"),
)
ROUTES = (
    ("cli", "default", "198.18.1.1"),
    ("pod", "default", "198.18.2.1"),
    ("node", "default", "198.18.3.1"),
    ("gw", "198.18.2.0/24", "198.18.3.2"),
)
SYSCTLS = (
    # many short connections between two addresses
    ("net.ipv4.tcp_tw_reuse", "1"),
    ("net.ipv4.ip_local_port_range", "1024 65535"),
)
SERVER = "198.18.4.2"
SERVER_PORT = 443
GATEWAY_FROM_CLIENT = "198.18.1.1"
GATEWAY_FROM_NODE = "198.18.3.1"
GATEWAY_EGRESS = "198.18.4.1"
POD_NETWORK = "198.18.2.0/24"

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1


def run(*argv, text=None):
    """Runs a command; its error output is the message when it fails."""
    done = subprocess.run(argv, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _is_live(name):
    pid = re.match(PREFIX + r"(\d+)", name).group(1)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return int(pid) == os.getpid() or b"bench.py" in f.read()
    except OSError:
        return False


def remove_folder(path):
    """With the bpffs that may be mounted in it."""
    subprocess.run(["umount", os.path.join(path, "bpf")], capture_output=True)
    shutil.rmtree(path, ignore_errors=True)


def remove_leftovers():
    """What runs that were killed have left: processes (by group), namespaces, folders."""
    for top, name in cpu.stale(PREFIX):
        if not _is_live(name):
            cpu.remove(top)
    for path in glob.glob(f"/run/netns/{PREFIX}*"):
        if not _is_live(os.path.basename(path)):
            run("ip", "netns", "delete", os.path.basename(path))
    for path in glob.glob(f"{tempfile.gettempdir()}/{PREFIX}*"):
        if not _is_live(os.path.basename(path)):
            remove_folder(path)


def _enter(netns_path, procs_path):
    """For the child, before exec: its namespace, its group, and to die with the bench."""
    def enter():
        with open(procs_path, "w") as f:
            f.write("0")
        fd = os.open(netns_path, os.O_RDONLY)
        if _libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns " + netns_path)
        os.close(fd)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return enter


class World:
    def __enter__(self):
        remove_leftovers()
        self.name = f"{PREFIX}{os.getpid()}"
        self.processes = []
        self.dir = tempfile.mkdtemp(prefix=self.name + "-")
        os.chmod(self.dir, 0o755)  # nginx's workers may not be root
        try:
            self.cpu = cpu.Cpu(self.name)
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            self.stop(process)
        if hasattr(self, "cpu"):
            self.cpu.close()
        for path in glob.glob(self.netns_path("*")):
            run("ip", "netns", "delete", os.path.basename(path))
        remove_folder(self.dir)

    def netns(self, ns):
        return f"{self.name}-{ns}"

    def netns_path(self, ns):
        return f"/run/netns/{self.netns(ns)}"

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, content):
        """Writes a file (folders too) of the run; returns its path."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb" if isinstance(content, bytes) else "w") as f:
            f.write(content)
        return path

    def add_namespace(self, ns):
        run("ip", "netns", "add", self.netns(ns))
        run("ip", "-n", self.netns(ns), "link", "set", "lo", "up")

    def add_pod(self, ns, number):
        """One more pod of the node's, with an interface."""
        self.add_namespace(ns)
        ip, via = f"198.18.5.{2 * number + 1}", f"198.18.5.{2 * number}"
        run("ip", "link", "add", f"to-{ns}", "netns", self.netns("node"), "type", "veth",
            "peer", "name", "eth0", "netns", self.netns(ns))
        for at, dev, address in (("node", f"to-{ns}", via), (ns, "eth0", ip)):
            run("ip", "-n", self.netns(at), "addr", "add", address + "/31", "dev", dev)
            run("ip", "-n", self.netns(at), "link", "set", dev, "up")
        run("ip", "-n", self.netns(ns), "route", "add", "default", "via", via)

    def mount_bpf(self):
        """A bpffs of this run's own, for what agents pin; twice is once."""
        path = self.path("bpf")
        if not os.path.exists(path):
            os.mkdir(path)
            run("mount", "-t", "bpf", "none", path)
        return path

    def _build(self):
        for ns in NAMESPACES:
            self.add_namespace(ns)
            for key, value in SYSCTLS:
                self.sysctl(ns, key, value)
            self._set_congestion_control(ns)
        for a, a_ip, b, b_ip in LINKS:
            run("ip", "link", "add", f"to-{b}", "netns", self.netns(a), "type", "veth",
                "peer", "name", f"to-{a}", "netns", self.netns(b))
            for ns, peer, ip in ((a, b, a_ip), (b, a, b_ip)):
                run("ip", "-n", self.netns(ns), "addr", "add", ip + "/24", "dev", f"to-{peer}")
                run("ip", "-n", self.netns(ns), "link", "set", f"to-{peer}", "up")
        for ns, to, via in ROUTES:
            run("ip", "-n", self.netns(ns), "route", "add", to, "via", via)

    def _set_congestion_control(self, ns):
        """cubic, Debian's default. With bbr, which some hosts prefer, the kernel paces every socket by
        timers, and the bench would measure those. Where the host reserves cubic, reno is nearest.
        """
        try:
            self.sysctl(ns, "net.ipv4.tcp_congestion_control", "cubic")
        except RuntimeError:
            self.sysctl(ns, "net.ipv4.tcp_congestion_control", "reno")

    def sysctl(self, ns, key, value):
        run("ip", "netns", "exec", self.netns(ns), "sysctl", "-qw", f"{key}={value}")

    def nft(self, ns, text):
        run("ip", "netns", "exec", self.netns(ns), "nft", "-f", "-", text=text)

    def spawn(self, ns, group, argv, **popen):
        """Starts a process in a namespace and a group; stop() ends it, leaving the world does."""
        enter = _enter(self.netns_path(ns), self.cpu.path(group) + "/cgroup.procs")
        process = subprocess.Popen(argv, preexec_fn=enter, **popen)
        self.processes.append(process)
        return process

    def stop(self, process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
        if process in self.processes:
            self.processes.remove(process)
