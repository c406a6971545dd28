# SPDX-License-Identifier: Apache-2.0
"""Named network namespaces: made, entered, used for commands and for plain Python sockets."""
import contextlib
import ctypes
import os
import socket
import subprocess

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd):
    """Moves the calling thread (no other) into the namespace behind fd."""
    if _libc.setns(fd, CLONE_NEWNET) < 0:
        err = ctypes.get_errno()
        raise OSError(err, f"setns: {os.strerror(err)}")


class Netns:
    """One network namespace. Commands see `resolv`, where given, as /etc/resolv.conf."""

    def __init__(self, name, procs, resolv=None):
        self.name = name
        self.path = f"/run/netns/{name}"
        self.procs = procs
        self.resolv = resolv
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.ip("link set lo up")

    def remove(self):
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)

    @contextlib.contextmanager
    def entered(self):
        """The calling thread is inside for the length of the block. Sockets made there stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there)
            try:
                yield self
            finally:
                setns(home)
        finally:
            os.close(there)
            os.close(home)

    # ---- programs ----

    def argv(self, cmd):
        """What to execute so that cmd runs inside. The process keeps its pid all the way."""
        inside = ["nsenter", f"--net={self.path}"]
        if self.resolv:
            # A mount namespace of its own: nothing is left behind in /etc.
            inside += ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                       'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(self.resolv)]
        return inside + [str(arg) for arg in cmd]

    def run(self, cmd, timeout=30, **options):
        """Runs to the end; a subprocess.CompletedProcess with text output, whatever the exit code."""
        options.setdefault("stdin", subprocess.DEVNULL if "input" not in options else None)
        if options["stdin"] is None:
            del options["stdin"]
        options.setdefault("errors", "replace")
        return subprocess.run(self.argv(cmd), timeout=timeout, text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def popen(self, cmd, name=None, **options):
        """Starts and goes on; a procs.Proc, ended with the world at the latest."""
        return self.procs.start(name or str(cmd[0]), self.argv(cmd), **options)

    # ---- sockets of this process ----

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, proto=0):
        with self.entered():
            return socket.socket(family, kind, proto)

    def connect(self, host, port, timeout=10, source_port=0):
        """A connected TCP socket of this namespace. `host` is an IP literal."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = self.socket(family)
        try:
            sock.settimeout(timeout)
            if source_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", source_port))
            sock.connect((host, port))
            return sock
        except BaseException:
            sock.close()
            raise

    # ---- set-up ----

    def ip(self, *commands):
        """`ip` commands, all in one process, all or an exception."""
        done = subprocess.run(["ip", "-n", self.name, "-batch", "-"], input="\n".join(commands),
                              text=True, check=False, capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"ip in {self.name}: {done.stderr.strip()}")

    def sysctl(self, **settings):
        """net.* settings of this namespace, dots as double underscores."""
        with self.entered():
            for key, value in settings.items():
                with open("/proc/sys/net/" + key.replace("__", "/"), "w", encoding="ascii") as f:
                    f.write(str(value))

    def pids(self):
        """Processes that live here."""
        out = subprocess.run(["ip", "netns", "pids", self.name], check=False, capture_output=True,
                             text=True).stdout
        return [int(pid) for pid in out.split()]
