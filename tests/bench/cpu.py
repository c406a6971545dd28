# SPDX-License-Identifier: Apache-2.0
"""CPU time and memory of groups of processes, as the kernel counts them.

A softirq is charged to whichever task it interrupted. Packets of a veth pair are mostly dealt with
in the sender's own context, so only the sum over all groups tells what a work cost; what ksoftirqd
took over is added to it.
"""
import glob
import os
import signal
import time

GROUPS = ("client", "proxy", "server")


def _mounts(kind, option=None):
    with open("/proc/mounts") as f:
        for line in f:
            _, where, fstype, options = line.split()[:4]
            if fstype == kind and (option is None or option in options.split(",")):
                yield where


def _read_v2(path):
    with open(path + "/cpu.stat") as f:
        stat = dict(line.split() for line in f)
    return {"total": int(stat["usage_usec"]) / 1e6, "user": int(stat["user_usec"]) / 1e6,
            "system": int(stat["system_usec"]) / 1e6}


def _read_v1(path):
    def seconds(name):
        with open(path + "/cpuacct." + name) as f:
            return int(f.read()) / 1e9
    return {"total": seconds("usage"), "user": seconds("usage_user"),
            "system": seconds("usage_sys")}


def _hierarchies():
    """Where a cgroup can be made, and how its time is read there. v1 says nanoseconds."""
    for where in _mounts("cgroup", "cpuacct"):
        yield where, _read_v1
    for where in _mounts("cgroup2"):
        yield where, _read_v2


def pids_in(path):
    try:
        with open(path + "/cgroup.procs") as f:
            return [int(line) for line in f]
    except FileNotFoundError:
        return []


def _kill_all_in(path):
    """These groups are ours alone, so every pid in them is a process that a bench started."""
    deadline = time.monotonic() + 10
    while pids_in(path) and time.monotonic() < deadline:
        for pid in pids_in(path):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)


def remove(top):
    """Ends what still runs in the groups under `top`, then removes them. Fine when not there."""
    for group in GROUPS:
        path = f"{top}/{group}"
        _kill_all_in(path)
        if os.path.isdir(path):
            os.rmdir(path)
    if os.path.isdir(top):
        os.rmdir(top)


def stale(prefix):
    """(top folder, name) of all groups whose name starts so, in any hierarchy."""
    for where, _ in _hierarchies():
        for top in glob.glob(f"{where}/{prefix}*"):
            yield top, os.path.basename(top)


def _ksoftirqd():
    pids = []
    for comm in glob.glob("/proc/[0-9]*/comm"):
        try:
            with open(comm) as f:
                if f.read().startswith("ksoftirqd/"):
                    pids.append(int(comm.split("/")[2]))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return pids


class Cpu:
    """One group each for client, proxy and server."""

    def __init__(self, name):
        self.softirq_pids = _ksoftirqd()
        for where, self._read in _hierarchies():
            self.top = f"{where}/{name}"
            try:
                for group in GROUPS:
                    os.makedirs(f"{self.top}/{group}")
                self._read(self.path("proxy"))
                self.kind = "cgroup v1 cpuacct" if self._read is _read_v1 else "cgroup v2 cpu.stat"
                return
            except OSError:
                remove(self.top)
        raise SystemExit("bench: no cgroup can be made (neither v1 cpuacct nor v2)")

    def path(self, group):
        return f"{self.top}/{group}"

    def read(self):
        """Seconds since the groups were made: {group: {total, user, system}}, and ksoftirqd's."""
        now = {group: self._read(self.path(group)) for group in GROUPS}
        softirq = 0.0
        for pid in self.softirq_pids:
            try:
                with open(f"/proc/{pid}/schedstat") as f:
                    softirq += int(f.read().split()[0]) / 1e9
            except FileNotFoundError:
                pass
        now["ksoftirqd"] = {"total": softirq}
        return now

    def settle(self):
        """Waits until what was set off is done: no group has used 0.2 ms in the last 20."""
        used = self._used()
        for _ in range(100):
            time.sleep(0.02)
            before, used = used, self._used()
            if used - before < 0.0002:
                return

    def _used(self):
        return sum(self._read(self.path(group))["total"] for group in GROUPS)

    def close(self):
        remove(self.top)


def spent(before, after):
    """What was used between two read()s, `total` being the sum of everybody's."""
    cost = {group: after[group]["total"] - before[group]["total"] for group in after}
    cost["total"] = sum(cost.values())
    for kind in ("user", "system"):
        cost["proxy_" + kind] = after["proxy"][kind] - before["proxy"][kind]
    return cost


def memory(pids):
    """Bytes: proportional set size of these processes, the anonymous part of it, and open fds."""
    total = {"pss": 0, "pss_anon": 0, "fds": 0}
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            fields = dict(line.split()[:2] for line in f.readlines()[1:])
        total["pss"] += int(fields["Pss:"]) * 1024
        total["pss_anon"] += int(fields["Pss_Anon:"]) * 1024
        total["fds"] += len(os.listdir(f"/proc/{pid}/fd"))
    return total


def descendants(pid):
    """The pid and all below it."""
    found = [pid]
    for task in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(task) as f:
            for child in f.read().split():
                found += descendants(int(child))
    return found
