#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sluice beside HAProxy, nginx and the kernel alone: CPU time, memory, set-up. See README.md."""
import argparse
import json
import os
import platform
import re
import resource
import select
import signal
import ssl
import subprocess
import sys
import time

import agent
import contenders as c
import cpu
import report
import world as w


def setting(name, default):
    return type(default)(os.environ.get(name, default))


ROUNDS = setting("BENCH_ROUNDS", 3)
BULK_GB = setting("BENCH_BULK_GB", 2.0)
ROUND_TRIPS = setting("BENCH_ROUND_TRIPS", 64000)
ROUND_TRIP_CONNECTIONS = setting("BENCH_ROUND_TRIP_CONNECTIONS", 16)
CONNECTIONS = setting("BENCH_CONNECTIONS", 4000)
CONCURRENCY = setting("BENCH_CONCURRENCY", 16)
IDLE = setting("BENCH_IDLE", 2000)
ONLY = [k for k in setting("BENCH_ONLY", "").split(",") if k]
STRACE = setting("BENCH_STRACE", 0)
MESSAGE = 256
ANSWER = 64
TIMEOUT_S = 300  # of one run of the load; a contender that hangs has failed

WORKS = {
    # One connection: half of the bytes up, then the other half down.
    "bulk": ["--up", int(BULK_GB * 5e8), "--down", int(BULK_GB * 5e8)],
    "round_trips": ["--rounds", ROUND_TRIPS // ROUND_TRIP_CONNECTIONS, "--up", MESSAGE, "--down",
                    MESSAGE, "--connections", ROUND_TRIP_CONNECTIONS, "--concurrency",
                    ROUND_TRIP_CONNECTIONS],
    "connections": ["--down", ANSWER, "--connections", CONNECTIONS, "--concurrency", CONCURRENCY],
}
WARM_UP = ["--rounds", 4, "--up", MESSAGE, "--down", MESSAGE, "--connections", 64,
           "--concurrency", 16]
HOLD = ["--down", ANSWER, "--connections", IDLE, "--concurrency", CONCURRENCY, "--hold"]
TITLES = {
    "bulk": f"bulk, {BULK_GB:g} GB",
    "round_trips": f"{ROUND_TRIPS} round trips of {MESSAGE} bytes",
    "connections": f"{CONNECTIONS} new connections",
}


class LoadFailed(Exception):
    pass


class Load:
    """The client of tests/bench/load.c, started and waiting for its line."""

    def __init__(self, world, binary, contender, args):
        argv = [binary, "run", contender.target, "--hello", world.path("hello")]
        if contender.head:
            argv += ["--head", world.write(f"{contender.key}.head", contender.head)]
        self.world = world
        self.process = world.spawn(contender.client, "client", argv + [str(a) for a in args],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, bufsize=1)
        self.line()

    def line(self):
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_S)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            raise LoadFailed(self.process.stderr.read().strip() or "the load hangs")
        return line

    def go(self):
        """Starts the work; returns what it says when done: {wall_ns, connections}."""
        self.process.stdin.write("\n")
        return json.loads(self.line())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdin = None
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        self.world.stop(self.process)


def client_hello():
    """A real one, made by OpenSSL; the server treats it as opaque bytes."""
    bio_in, bio_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(bio_in, bio_out, server_hostname=c.NAME)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return bio_out.read()


class Bench:
    def __init__(self, world, build, contenders):
        self.world, self.contenders = world, contenders
        self.load = f"{build}/tests/bench/load"
        self.raw = {contender.key: {} for contender in contenders}
        self.memory = {}
        self.syscalls = {}
        self.failed = {}
        self.works_after_s = 0.0  # the latest one's first connection succeeded

    def start_server(self):
        self.world.write("hello", client_hello())
        server = self.world.spawn("srv", "server", [self.load, "serve", c.SERVER],
                                  stdout=subprocess.PIPE, text=True)
        if server.stdout.readline() != "ready\n":
            raise SystemExit("bench: the server does not start")

    def run_load(self, contender, args):
        with Load(self.world, self.load, contender, args) as load:
            return load.go()

    def wait_until_works(self, contender, processes, timeout_s=15):
        """One connection through it must succeed; then a little of everything to warm it up."""
        start = time.monotonic()
        while True:
            dead = [name for name, p in processes.items() if p.poll() is not None]
            if dead:
                raise LoadFailed(f"{dead[0]} exited with status {processes[dead[0]].returncode}")
            try:
                self.run_load(contender, ["--down", ANSWER])
                break
            except LoadFailed as e:
                if time.monotonic() > start + timeout_s:
                    raise LoadFailed(f"no connection in {timeout_s} s: {e}") from e
                time.sleep(0.02)
        self.works_after_s = round(time.monotonic() - start, 2)
        self.run_load(contender, WARM_UP)
        self.world.cpu.settle()

    def attempt(self, contender, what):
        """Runs what(processes) with the contender up; one that fails takes no further part."""
        try:
            with contender.running(self.world) as processes:
                self.wait_until_works(contender, processes)
                what(processes)
        except (LoadFailed, OSError, RuntimeError) as e:
            self.failed[contender.key] = self.explain(contender, e)
            print(f"bench: {contender.key} failed: {self.failed[contender.key]}", file=sys.stderr)

    def explain(self, contender, error):
        text = str(error)
        for name in sorted(os.listdir(self.world.dir)):
            if name.startswith(contender.key) and name.endswith(".log"):
                with open(self.world.path(name), errors="replace") as f:
                    tail = f.read()[-600:].strip()
                text += f"\n  {name}: ...{tail}" if tail else ""
        return text

    def measure(self, contender, work, number):
        def what(_):
            with Load(self.world, self.load, contender, WORKS[work]) as load:
                before = self.world.cpu.read()
                done = load.go()
                self.world.cpu.settle()
                cost = cpu.spent(before, self.world.cpu.read())
            cost.update(wall=done["wall_ns"] / 1e9, round=number)
            self.raw[contender.key].setdefault(work, []).append(cost)
        self.attempt(contender, what)

    def measure_memory(self, contender):
        def look(processes):
            return {name: cpu.memory(cpu.descendants(p.pid)) for name, p in processes.items()}

        def what(processes):
            before = look(processes)
            with Load(self.world, self.load, contender, HOLD) as load:
                load.go()
                self.world.cpu.settle()
                after = look(processes)
            grown = {name: (after[name]["pss"] - before[name]["pss"]) / IDLE for name in before}
            fds = sum(after[name]["fds"] - before[name]["fds"] for name in before)
            self.memory.setdefault(contender.key, []).append({
                "base": sum(m["pss"] for m in before.values()),
                "base_anon": sum(m["pss_anon"] for m in before.values()),
                "per_connection": sum(grown.values()), "processes": grown,
                "fds_per_connection": fds / IDLE})
        self.attempt(contender, what)

    def count_syscalls(self, contender, n=500):
        def what(processes):
            pids = [pid for p in processes.values() for pid in cpu.descendants(p.pid)]
            out = self.world.path(f"{contender.key}.strace")
            argv = ["strace", "-f", "-c", "-U", "calls,name", "-o", out]
            with subprocess.Popen(argv + [f"-p{pid}" for pid in pids], stderr=subprocess.PIPE,
                                  text=True) as tracer:
                for _ in pids:
                    tracer.stderr.readline()  # "Process ... attached"
                self.run_load(contender, ["--down", ANSWER, "--connections", n, "--concurrency",
                                          CONCURRENCY])
                self.world.cpu.settle()
                tracer.send_signal(signal.SIGINT)
                tracer.communicate()
            with open(out) as f:
                found = re.findall(r"^\s*(\d+)\s+(\w+)$", f.read(), re.M)
            calls = {name: int(count) / n for count, name in found if name != "total"}
            self.syscalls[contender.key] = {
                "total": sum(calls.values()),
                "calls": dict(sorted(calls.items(), key=lambda kv: -kv[1]))}
        self.attempt(contender, what)

    def taking_part(self, work):
        return [x for x in self.contenders if work in x.works and x.key not in self.failed]

    def run(self):
        self.start_server()
        for number in range(ROUNDS):
            for work in WORKS:
                for contender in self.taking_part(work):
                    self.measure(contender, work, number)
            for contender in self.taking_part("memory"):
                self.measure_memory(contender)
            print(f"bench: round {number + 1} of {ROUNDS} done", file=sys.stderr)
        if STRACE:
            for contender in self.taking_part("syscalls"):
                self.count_syscalls(contender)


def all_contenders(build):
    """In the order of the table; a competitor that is not installed is said and left out."""
    def make():
        for hops in (1, 2):
            yield lambda: c.Kernel(hops)
            yield lambda: c.Nginx(hops)
            yield lambda: c.Haproxy(hops, "haproxy")
            yield lambda: c.HaproxyTuned(hops, "haproxy")
            if os.environ.get("HAPROXY"):
                yield lambda: c.Haproxy(hops, os.environ["HAPROXY"], "haproxy_other")
            yield lambda: c.Sluice(hops, build)
            if hops == 2:
                yield lambda: c.Sluice(hops, build, "nftables")

    found = []
    for maker in make():
        try:
            contender = maker()
        except (OSError, RuntimeError) as e:
            print(f"bench: left out: {e}", file=sys.stderr)
            continue
        if not ONLY or contender.kind in ONLY:
            found.append(contender)
    return found


def raise_limits():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 4 * IDLE + 1000:
        raise SystemExit(f"bench: at most {hard} open files here, BENCH_IDLE={IDLE} needs more")


def collect(bench, contenders, extra):
    works = report.summarise(WORKS, bench.raw)
    memory = report.median_memory(bench.memory)
    return {
        "kernel": platform.release(), "cpus": os.cpu_count(), "accounting": bench.world.cpu.kind,
        "versions": {x.key: x.version for x in contenders},
        "settings": {"rounds": ROUNDS, "bulk_gb": BULK_GB, "round_trips": ROUND_TRIPS,
                     "round_trip_connections": ROUND_TRIP_CONNECTIONS,
                     "connections": CONNECTIONS, "concurrency": CONCURRENCY, "idle": IDLE},
        "works": works, "memory": memory, "syscalls": bench.syscalls, "extra": extra,
        "goals": report.goals(works, memory), "failed": bench.failed,
        "raw": {"works": bench.raw, "memory": bench.memory},
    }


def stop_on_signal(signum, _):
    raise SystemExit(128 + signum)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", help="where the programs are")
    build = parser.parse_args().build
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root (network namespaces, cgroups)")
    signal.signal(signal.SIGTERM, stop_on_signal)
    signal.signal(signal.SIGHUP, stop_on_signal)
    raise_limits()
    contenders = all_contenders(build)
    with w.World() as world:
        bench = Bench(world, build, contenders)
        bench.run()
        extra = {}
        if not ONLY or "sluice" in ONLY:
            extra = agent.measure_all(bench, build)
    result = collect(bench, contenders, extra)
    report.print_report(result, contenders, TITLES)
    path = f"{build}/bench.json"
    with open(path, "w") as f:
        json.dump(result, f, indent=2)
    print(f"\nall numbers: {path}")
    return 1 if any(key.startswith("sluice") for key in bench.failed) else 0


if __name__ == "__main__":
    sys.exit(main())
