# SPDX-License-Identifier: Apache-2.0
"""An agent whose registry comes from the Kubernetes API: how long until it is in force, what the process
then holds, and what it costs when ServiceEntries change all the time. The API server is a scripted one
(tests/netns/kube_api.py), in the same namespace.
"""
import json
import os
import sys
import threading
import time
from pathlib import Path
from statistics import median

import contenders as c
import cpu
import world as w

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "netns"))

ENTRIES = 100000
CHANGES = 200  # a second
SECONDS = 10
CLOCK = os.sysconf("SC_CLK_TCK")


class _Namespace:
    """What kube_api.Api wants of a namespace."""

    def __init__(self, world, ns):
        self.path = world.netns_path(ns)

    def entered(self):
        from netns import Netns  # noqa: PLC0415, only found once the path is set
        return Netns.entered(self)


class _Place:
    def __init__(self, world):
        self.netns, self.procs = _Namespace(world, "gw"), self
        self.folder = Path(world.path("kube"))
        self.folder.mkdir(exist_ok=True)


def _entry(i, host):
    return {"metadata": {"namespace": f"team-{i % 500}", "name": f"entry-{i}"},
            "spec": {"hosts": [host], "resolution": "NONE",
                     "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}]}}


def _spent_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK


def _registered(agent, ctl, world, host):
    """By the answer to a question, which costs the agent little."""
    done = c.w.run(ctl, "--admin", world.path("sluice-kube-1-gateway/admin.sock"), "--json", "check", f"{host}:443",
                   "--pod", "team-1/x")
    return json.loads(done).get("decision") == "ALLOW"


class Kube(c.Sluice):
    """The gateway, with all of its registry from the API."""

    def __init__(self, build, api):
        super().__init__(1, build)
        self.key, self.api = "sluice-kube-1", api

    def start(self, world, processes):
        config = self.config(world, "gateway", role="Gateway",
                             tunnel={"listen": [f"0.0.0.0:{c.GATEWAY_PORT}"]},
                             egress={"sourceIPs": [w.GATEWAY_EGRESS]},
                             registry={"kubernetes": {"enabled": True, "kubeconfig": str(self.api.kubeconfig)}})
        self.start_agent(world, processes, "gateway", "gw", config)

    def knows(self, world, host):
        try:
            return _registered(self.agent, self.ctl, world, host)
        except (OSError, RuntimeError, ValueError):
            return False

    def wait(self, world, host, timeout_s=120):
        start = time.monotonic()
        while not self.knows(world, host):
            if time.monotonic() - start > timeout_s:
                raise RuntimeError(f"{host} is not registered after {timeout_s} s")
            time.sleep(0.01)
        return time.monotonic() - start


def _change_all_the_time(api, until):
    """CHANGES a second, each another entry; how many there were."""
    done, start = 0, time.monotonic()
    while time.monotonic() < until:
        api.put("serviceentries", _entry(done % ENTRIES, f"changed-{done}.example.org"))
        done += 1
        time.sleep(max(0.0, start + done / CHANGES - time.monotonic()))
    return done


def registry(bench, build):
    """Seconds from exec until the last of ENTRIES is in force; then what changes cost."""
    from kube_api import Api  # noqa: PLC0415, only found once the path is set
    world, found = bench.world, {}
    api = Api(_Place(world))
    for i in range(ENTRIES):
        api.put("serviceentries", _entry(i, f"host-{i}.example.org"))
    kube, processes = Kube(build, api), {}
    try:
        kube.start(world, processes)
        pid = processes["gateway"].pid
        found["in_force_s"] = round(kube.wait(world, f"host-{ENTRIES - 1}.example.org"), 2)
        found["start_cpu_s"] = round(_spent_s(pid), 2)
        found["pss_mib"] = round(cpu.memory([pid])["pss"] / 2**20, 1)
        before, until = _spent_s(pid), time.monotonic() + SECONDS
        changer = threading.Thread(target=_change_all_the_time, args=(api, until))
        changer.start()
        delays = []
        for n in range(5):
            time.sleep(SECONDS / 8)
            api.put("serviceentries", _entry(ENTRIES + n, f"new-{n}.example.org"))
            delays.append(kube.wait(world, f"new-{n}.example.org"))
        changer.join()
        found["changes_a_second"] = CHANGES
        found["change_in_force_ms"] = round(median(delays) * 1e3)
        found["cpu_percent"] = round((_spent_s(pid) - before) / SECONDS * 100)
        found["pss_after_mib"] = round(cpu.memory([pid])["pss"] / 2**20, 1)
    finally:
        for process in processes.values():
            world.stop(process)
        api.stop()
    return found
