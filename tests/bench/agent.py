# SPDX-License-Identifier: Apache-2.0
"""What concerns our agent alone: a large registry, and how long it takes to enrol a pod."""
import array
import json
import socket
import subprocess
import time
from statistics import median

import contenders as c
import cpu
import kube

HOSTS = 100000
HOSTS_PER_ENTRY = 10
ENROLMENTS = 30


def _program(path, *argv):
    """The JSON that a bench program prints."""
    done = subprocess.run([path, *argv], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{path}: {done.stderr.strip() or done.returncode}")
    return json.loads(done.stdout)


def _large_registry(address):
    items = [c.service_entry(f"entry-{i}", [f"host-{k}.example.org" for k in
                                            range(i, i + HOSTS_PER_ENTRY)], address)
             for i in range(0, HOSTS, HOSTS_PER_ENTRY)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


class Large(c.Sluice):
    """The gateway with many more hosts than the bench asks for."""

    def __init__(self, build):
        super().__init__(1, build)
        self.key = "sluice-large-1"

    def start(self, world, processes):
        world.write(f"{self.key}-gateway/registry.d/large.json", _large_registry("192.0.2.1"))
        super().start(world, processes)


def large_registry(bench, build):
    """From exec to the first connection through it, and what the process then holds."""
    large, found = Large(build), {}

    def what(processes):
        found["start_s"] = bench.works_after_s
        memory = cpu.memory([processes["gateway"].pid])
        found["pss_mib"] = round(memory["pss"] / 2**20, 1)

    bench.attempt(large, what)
    return found


def _ask(path, request, netns=None):
    """One request as sluicectl would make it, without a process for it. Seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(10)
        s.connect(path)
        fds = [netns.fileno()] if netns else []
        start = time.monotonic()
        s.sendmsg([json.dumps(request).encode()],
                  [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
        answer = json.loads(s.recv(65536))
        took = time.monotonic() - start
    if not answer.get("ok"):
        raise RuntimeError(f"enrolment: {answer.get('error')}")
    return took


def _enroll_directly(world, path, ns):
    with open(world.netns_path(ns), "rb") as netns:
        return _ask(path, {"op": "enroll", "pod": f"bench/{ns}", "service_account": "default",
                           "netns": world.netns_path(ns)}, netns)


def _enroll_by_command(world, two_hops, ns):
    start = time.monotonic()
    two_hops.enroll(world, ns)
    return time.monotonic() - start


def enrolment(bench, build, backend):
    """Medians; each pod is a fresh namespace, as at a pod's start, and is guarded, too."""
    two_hops, world, found = c.Sluice(2, build, backend), bench.world, {}
    fresh = [f"{backend[:1]}{i}" for i in range(2 * ENROLMENTS)]
    first = 0 if backend == "ebpf" else len(fresh)

    def what(_):
        for i, ns in enumerate(fresh):
            world.add_pod(ns, first + i)
        commands = [_enroll_by_command(world, two_hops, ns) for ns in fresh[::2]]
        inside = [_enroll_directly(world, two_hops.enrol_socket(world), ns) for ns in fresh[1::2]]
        found["sluicectl_enroll_ms"] = round(median(commands) * 1e3, 2)
        found["request_to_answer_ms"] = round(median(inside) * 1e3, 2)

    bench.attempt(two_hops, what)
    return found


def measure_all(bench, build):
    """{title: {what: number}}; what fails stands in bench.failed."""
    measured = {}
    for title, measure in (
            (f"registry of {HOSTS} hosts, load",
             lambda: _program(f"{build}/tests/bench/load_bench", str(HOSTS))),
            (f"registry of {HOSTS} hosts, lookup",
             lambda: _program(f"{build}/tests/bench/registry_bench", str(HOSTS))),
            (f"gateway with {HOSTS} hosts", lambda: large_registry(bench, build)),
            (f"{kube.ENTRIES} ServiceEntries from the Kubernetes API", lambda: kube.registry(bench, build)),
            (f"enrolment of a pod (ebpf), median of {ENROLMENTS}",
             lambda: enrolment(bench, build, "ebpf")),
            (f"enrolment of a pod (nftables), median of {ENROLMENTS}",
             lambda: enrolment(bench, build, "nftables"))):
        try:
            measured[title] = measure()
        except (OSError, RuntimeError, ValueError) as e:
            bench.failed[f"sluice: {title}"] = str(e)
    return measured
