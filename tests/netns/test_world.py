# SPDX-License-Identifier: Apache-2.0
"""The world itself, without agents: what the other tests conclude from it has to be true."""
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import servers
from procs import FOLDER, is_alive, start_time, wait_for
from world import CLUSTER_DNS, World

HERE = Path(__file__).resolve().parent
DNS_QUESTION = b"ok\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1"


@pytest.fixture(scope="module")
def bare():
    with World() as world:
        yield world


@pytest.mark.parametrize("url, server, source", [
    ("https://www.example.com/", "www", "10.244.1.11"),
    ("http://api.example.com/", "api", "10.244.1.11"),
    ("https://a.wild.example.org/", "wild", "10.244.1.11"),
    ("https://v6only.example.com/", "v6only", "fd00:10:244:1::b"),
    ("https://peer.example.com/", "peer", "10.244.1.11"),
    ("https://unregistered.example.com/", "foreign", "10.244.1.11"),
])
def test_leak_would_work_and_be_seen(bare, url, server, source):
    """A pod that nobody confines reaches everything, and the capture shows it."""
    family = "-6" if ":" in source else "-4"
    with bare.capture() as capture:
        got = bare.curl(bare.pods["pod-a"], url, family)
        leaks = bare.leaks(capture)
    assert got.code == 0, got
    assert got.json()["server"] == server
    assert got.seen_from == source
    assert source in {p.src for p in leaks}


def test_udp_and_icmp_leaks_are_seen(bare):
    pod = bare.pods["pod-b"]
    with bare.capture() as capture:
        with pod.socket(kind=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"quic", (servers.WWW[0], 443))
        assert pod.run(["ping", "-c1", "-W2", servers.WWW[0]]).returncode == 0
        protos = {p.proto for p in bare.leaks(capture)}
    assert {socket.IPPROTO_UDP, socket.IPPROTO_ICMP} <= protos


def test_names(bare):
    pod = bare.pods["pod-a"]
    looked_up = pod.run(["getent", "ahostsv4", "private.example.com"]).stdout
    assert looked_up.split()[0] == "10.0.0.5"
    assert pod.run(["getent", "ahosts", "missing.example.com"]).returncode == 2
    bare.dns.set("moving.example.com", ["198.51.100.18"])
    assert bare.curl(pod, "http://moving.example.com/").json()["server"] == "moved"
    bare.dns.set("moving.example.com", servers.RECORDS["moving.example.com"])


def test_pods_that_come_cut_nobody_off(bare):
    """The bridge keeps its address when a port with a lower one joins: who knows it still is heard."""
    for number in (0, 3, 2, 1):
        if number:
            bare.node.ip(f"link set pod-b address 00:00:00:00:00:{number:02}")
        with bare.pods["pod-a"].socket(kind=socket.SOCK_DGRAM) as sock:
            sock.settimeout(3)
            sock.sendto(DNS_QUESTION, (CLUSTER_DNS, 53))
            assert sock.recv(512)[:2] == DNS_QUESTION[:2]


def test_postgres(bare):
    bare.start_postgres()
    got = bare.pods["pod-a"].run(["psql", "-h", servers.DB, "-U", "demo", "-d", "postgres", "-Atc",
                                  "select inet_client_addr()"])
    assert got.stdout.strip() == "10.244.1.11", got.stderr


def test_nothing_is_left_behind(bare_world):
    """Closing removes namespaces, folder and processes."""
    pids = [(p.pid, start_time(p.pid)) for p in bare_world.procs.list]
    names = [ns.path for ns in bare_world.namespaces()]
    bare_world.close()
    assert not [pid for pid, started in pids if is_alive(pid, started)]
    assert not [name for name in names if os.path.exists(name)]
    assert not bare_world.folder.exists()


# Not signal.pause(): a signal that comes just before it would be slept through. SIGINT is ignored in what a
# shell runs in the background, and would stay so.
SLEEPER = ("import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler); sys.path.insert(0, sys.argv[1]); from world import World\n"
           "with World() as w:\n"
           "    print(w.procs.id, *(p.pid for p in w.procs.list), flush=True)\n"
           "    while True: time.sleep(0.1)\n")


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_run_is_cleared_away(sig):
    """By itself when it can, else by the next run."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER, str(HERE)], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as run:
        run_id, *pids = run.stdout.readline().split()
        started = {int(pid): start_time(int(pid)) for pid in pids}
        run.send_signal(sig)
        try:
            run.wait(20)
        finally:
            run.kill()
    if sig == signal.SIGKILL:
        assert [pid for pid in started if is_alive(pid, started[pid])], "something outlives a SIGKILL"
        with World():
            pass
    wait_for(lambda: not [pid for pid in started if is_alive(pid, started[pid])],
             what="processes of the killed run are gone")
    assert not [name for name in os.listdir("/run/netns") if name.startswith(f"slu-{run_id}-")]
    assert not Path(f"/tmp/{FOLDER}{run_id}").exists()
