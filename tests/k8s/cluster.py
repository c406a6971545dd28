#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes of up to three nodes on this machine, and an internet around it. As root, after build.sh:

    tests/k8s/cluster.py up [N]              until it is taken down; N nodes (3)
    tests/k8s/cluster.py kubectl ARGS...     as administrator
    tests/k8s/cluster.py on NODE CMD...      as root of a node (1, 2, 3)
    tests/k8s/cluster.py internet CMD...     in the internet
    tests/k8s/cluster.py folder              where its logs and certificates are
    tests/k8s/cluster.py down

                  fabric: etcd, API server 172.30.0.1, resolver
                    |  switch lan: 172.30.0.0/24
        +-----------+-----------+
        n1          n2          n3          pods 10.244.N.0/24, fd00:10:244:N::/64
        +-----------+-----------+
                    |  switch wan: 203.0.113.0/24, 2001:db8:113::/64
                 internet 203.0.113.1: 198.51.100.0/24, 2001:db8:51::/64

Every node has a default route to the internet and translates its pods to 203.0.113.1N: whatever leaks, works,
and is seen with its node's address. Nodes themselves send from 203.0.113.101, .102, and n3 from 203.0.113.10.
"""
import argparse
import atexit
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import run as runs  # first: it puts tests/netns on the path
import images
import pki
from control import ControlPlane, Fabric
from internet import Internet
from nodes import Node, enter_node
from pods import Pod
from procs import wait_for

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
BUILD = REPO / os.environ.get("SLUICE_BUILD", "build")
PROGRAMS = Path(os.environ.get("SLUICE_K8S_CACHE", REPO / "build/k8s")).resolve()
FIRST = BUILD / "tests/k8s/first"


def _version_of(program):
    """What it says of itself, as (major, minor)."""
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    major, minor = re.match(r"Kubernetes v(\d+)\.(\d+)\.", said).groups()
    return int(major), int(minor)


class Cluster:
    """Use as a context manager: everything is there inside the block and gone after it. With keep it stays,
    for a shell."""

    def __init__(self, nodes=3, keep=False):
        self.numbers = range(1, nodes + 1)
        self.keep = keep
        self.programs = PROGRAMS
        self.version = None  # of Kubernetes: (1, 36)
        self.shared = [BUILD]
        self.nodes = {}
        self.images = []
        self.run = None

    def __enter__(self):
        if not (self.programs / "ready").exists():
            raise RuntimeError(f"no Kubernetes in {self.programs}: run tests/k8s/build.sh first")
        self.version = _version_of(self.programs / "bin/kubelet")
        runs.remove_leftovers()
        self.run = runs.Run(self.keep)
        atexit.register(self.close)
        self._take_signals()
        try:
            self._up()
        except BaseException:
            self.keep = False
            self.close()
            raise
        return self

    def __exit__(self, *exc):
        self.close()

    def _take_signals(self):
        """SIGTERM and SIGHUP become an exception that ends a session, so that each `finally` has its turn."""
        if threading.current_thread() is threading.main_thread():
            for sig in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(sig) == signal.SIG_DFL:
                    signal.signal(sig, signal.default_int_handler)

    def close(self):
        """Ends and removes everything; twice is once. Not to be interrupted half-way."""
        atexit.unregister(self.close)
        if self.keep or not self.run:
            return
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        try:
            self.run.remove()
            self.run = None
        finally:
            if main:
                signal.signal(signal.SIGINT, before)

    def _up(self):
        pki.make(self.run.folder / "pki", [f"n{i}" for i in self.numbers])
        self.fabric = Fabric(self.run)
        self.control = ControlPlane(self.fabric, self.run, self.programs)
        self.control.start_etcd()
        self.control.start_api()
        self.internet = Internet(self)
        self._make_images()
        for i in self.numbers:
            self.nodes[f"n{i}"] = Node(self, i)
        # They load their images while the API server starts.
        for node in self.nodes.values():
            node.boot()
        self.internet.start()
        self.fabric.start_resolver()
        self.control.wait_api()
        self.control.start_controllers()
        for node in self.nodes.values():
            node.wait_ready()
        if self.nodes:
            self.kubectl("apply", "-f", HERE / "dns.yaml")
            self.kubectl("-n", "kube-system", "rollout", "status", "deployment/dns", "--timeout=60s")

    def _make_images(self):
        folder = self.run.folder / "images"
        folder.mkdir()
        self.images = [images.make_pause(folder, self.programs),
                       images.make_client(folder, self.programs, FIRST, self.internet.ca),
                       images.make_dns(folder)]

    # ---- the API ----

    @property
    def kubeconfig(self):
        """The administrator's."""
        return self.run.folder / "pki/admin.kubeconfig"

    def kubectl(self, *args, check=True, timeout=120, **options):
        """As administrator. Returns what it printed; without check a subprocess.CompletedProcess."""
        cmd = [self.programs / "bin/kubectl", f"--kubeconfig={self.kubeconfig}",
               f"--cache-dir={self.run.folder}/kubectl", *args]
        done = self.fabric.run(cmd, timeout=timeout, **options)
        if not check:
            return done
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(str(arg) for arg in args)}: {done.stderr}{done.stdout}")
        return done.stdout

    def apply(self, *objects):
        """Objects as mappings."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        return self.kubectl("apply", "-f", "-", input=text)

    def get(self, kind, name, namespace="default", missing_ok=False):
        """One object as a mapping; None when there is none and that is fine."""
        text = self.kubectl("-n", namespace, "get", kind, name, "-o", "json",
                            *(["--ignore-not-found"] if missing_ok else []))
        return json.loads(text) if text else None

    def list(self, kind, namespace=None, selector=""):
        """Objects of a namespace, or of all."""
        where = ["-n", namespace] if namespace else ["--all-namespaces"]
        return json.loads(self.kubectl("get", kind, *where, "-l", selector, "-o", "json"))["items"]

    def make_namespace(self, name, **labels):
        """And waits for what every pod in it needs: controllers that lost the API try again after half a minute."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        wait_for(lambda: self.get("serviceaccount", "default", name, missing_ok=True), 120,
                 f"namespace {name} has its service account", interval=0.1)

    def pod(self, name, node=None, namespace="default", **options):
        """A pod of the client image that sleeps, made and running; see pods.Pod."""
        return Pod(self, name, namespace).make(node, **options)

    def asked(self):
        """What Sluice has asked of the API so far: audit events, one for each request that is answered and for
        each watch that has begun."""
        log = self.run.folder / "audit.log"
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]  # the last may be half there

    # ---- faults ----

    def stop_api(self):
        self.control.stop_api()

    def start_api(self):
        self.control.start_api()
        self.control.wait_api()

    def logs(self):
        """All logs of the cluster, those of pods too, by their names in its folder."""
        top = self.run.folder
        paths = [*top.glob("*.log"), *top.glob("n*/log/*.log"), *top.glob("n*/disk/var/log/pods/**/*.log")]
        return {str(path.relative_to(top)): path for path in paths}


# ---- from a shell ----

def _kept():
    folders = runs.kept()
    if not folders:
        sys.exit("no cluster is up: tests/k8s/cluster.py up")
    return folders[0]


def _netns(folder, name):
    return f"--net=/run/netns/{runs.NETNS}{folder.name[len(runs.FOLDER):]}-{name}"


def up(args):
    for folder in runs.kept():
        runs.remove_run(folder)
    with Cluster(int(args[0]) if args else 3, keep=True) as cluster:
        print(cluster.kubectl("get", "nodes", "-o", "wide"), end="")


def down(_args):
    for folder in runs.kept():
        runs.remove_run(folder)


def kubectl(args):
    folder = _kept()
    os.execvp("nsenter", ["nsenter", _netns(folder, "fabric"), str(PROGRAMS / "bin/kubectl"),
                          f"--kubeconfig={folder}/pki/admin.kubeconfig", *args])


def on(args):
    """The newest process of that name is the node's."""
    where = _kept()
    lines = (where / "processes").read_text(encoding="ascii").splitlines()
    outer = [line.split()[0] for line in lines if line.split()[2] == f"n{args[0]}"]
    if not outer:
        sys.exit(f"no node {args[0]}")
    children = Path(f"/proc/{outer[-1]}/task/{outer[-1]}/children").read_text(encoding="ascii")
    name = f"{runs.NETNS}{where.name[len(runs.FOLDER):]}-n{args[0]}"
    cmd = enter_node(PROGRAMS, name, children.split()[0], args[1:])
    os.execvp(cmd[0], cmd)


def internet(args):
    os.execvp("nsenter", ["nsenter", _netns(_kept(), "internet"), *args])


def print_folder(_args):
    print(_kept())


COMMANDS = {"up": up, "down": down, "kubectl": kubectl, "on": on, "internet": internet,
            "folder": print_folder}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("args", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("cluster.py needs root")
    try:
        COMMANDS[args.command](args.args)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        sys.exit(f"cluster.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
