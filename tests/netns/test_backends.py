# SPDX-License-Identifier: Apache-2.0
"""Back ends and guards as the agent chooses, changes, repairs and removes them."""
import itertools
import json
import os
import re
import signal
from pathlib import Path

import pytest
from agents import AGENT, BUILD, CTL
from attack import Attack, inside, make_careless, nft
from attackers import attacker, newcomer  # noqa: F401
from each_backend import BACKENDS, node_config
from netns import Netns
from procs import wait_for
from servers import WWW
from trying import Trying
from world import GATEWAY_IPS


@pytest.fixture(scope="module")
def world(own_world):
    make_careless(own_world)
    own_world.start_gateway()
    own_world.start_node(node_config("auto"))
    own_world.wait_gateway_healthy()
    return own_world


@pytest.fixture(autouse=True)
def as_it_was(world):
    """However a test left it: the next one finds an agent that chooses for itself."""
    yield
    nft(world.node, "table inet others\ndelete table inet others\n")
    restart(world, "auto")


def restart(world, backend, runner=(), **changes):
    node = world.agents["node"]
    if node.running():
        node.kill()
    node.runner = list(runner)
    node.config["redirect"] = {"backend": backend}
    node.config["guard"] = {"mode": "required", "pinDir": node.config["guard"]["pinDir"]} | changes
    node.start()
    world.wait_gateway_healthy()


def shown(world, pod):
    """What `sluicectl pods` has about it."""
    done = world.agents["node"].ctl("--json", "pods")
    assert done.returncode == 0, done.stderr
    return {p["pod"]: p for p in json.loads(done.stdout)}.get(pod.pod)


def rules_inside(pod):
    """By which back ends, as their own tools see it."""
    found = set()
    if "table inet sluice" in inside(pod, "nft", "list", "tables").stdout:
        found.add("nftables")
    if "SLUICE-" in inside(pod, "sh", "-c", "iptables-save; ip6tables-save; iptables-legacy-save; "
                           "ip6tables-legacy-save").stdout:
        found.add("iptables")
    return found


def is_served(world, pod):
    return world.curl(pod, "http://www.example.com/", timeout=3).status == 200


# ---- which ----

def test_the_first_that_works_is_taken_and_said(world, attacker):
    assert shown(world, attacker)["backend"] == "ebpf"
    assert shown(world, attacker)["guard"] == "tcx"
    table = world.agents["node"].ctl("pods").stdout.splitlines()
    assert re.search(r"BACKEND +GUARD ", table[0]) and any(re.search(r" ebpf +tcx ", line) for line in table)
    log = world.agents["node"].errors(whole=True)
    assert "redirect backend: 'ebpf', the first that works here" in log
    assert "guard: 'tcx', the first that works here" in log
    assert rules_inside(attacker) == set()
    assert is_served(world, attacker)


def test_no_bpf_at_all(world, newcomer):
    """seccomp or lockdown: rules in the pod, and a guard of nf_tables around it."""
    restart(world, "auto", runner=[BUILD / "tests/netns/confined"])
    log = world.agents["node"].errors(whole=True)
    assert "guard by 'tcx' does not work here" in log and "guard: 'nftables'" in log
    assert "redirect backend 'ebpf' does not work here" in log
    world.enroll(newcomer)
    assert (shown(world, newcomer)["backend"], shown(world, newcomer)["guard"]) == ("nftables", "nftables")
    with Attack(world, newcomer) as attack, Trying(attack, undo_rules=True) as trying:
        trying.until(5)
        assert attack.made() > 0
        assert attack.arrived() == []
    wait_for(lambda: is_served(world, newcomer), 10, "the rules are back")


def test_a_way_that_does_not_arrive_is_not_taken(world, newcomer):
    """A CNI that lets pods reach nothing on the node itself: what is steered is swallowed there."""
    nft(world.node, """table inet others { chain input { type filter hook input priority 0;
        iifname cni0 meta l4proto tcp ip daddr != 10.244.1.1 drop
        iifname cni0 meta l4proto tcp ip6 daddr != fd00:10:244:1::1 drop; }; }""")
    world.enroll(newcomer)
    assert shown(world, newcomer)["backend"] == "nftables"
    log = world.agents["node"].errors(whole=True)
    assert re.search(f"{newcomer.ref}.*did not reach the agent.*INPUT.*taking 'nftables'", log), log
    assert is_served(world, newcomer)
    with Attack(world, newcomer) as attack, Trying(attack) as trying:
        trying.until(3)
        assert attack.arrived() == []


def test_the_only_way_does_not_arrive(world, newcomer):
    """Asked for one back end by name: no other is taken, and the pod is not enrolled."""
    restart(world, "ebpf")
    nft(world.node, """table inet others { chain input { type filter hook input priority 0;
        iifname cni0 meta l4proto tcp ip daddr != 10.244.1.1 drop
        iifname cni0 meta l4proto tcp ip6 daddr != fd00:10:244:1::1 drop; }; }""")
    done = world.enroll(newcomer, check=False)
    assert done.returncode == 1 and "did not reach the agent" in done.stderr
    with Attack(world, newcomer) as attack, Trying(attack) as trying:
        trying.until(3)
        assert attack.made() > 0
        assert attack.arrived() == []


def test_what_failed_is_tried_again_and_kept(world, newcomer):
    """A pod gets another identity while it cannot be captured; when it can, it is that one, after a restart too."""
    restart(world, "ebpf")
    world.enroll(newcomer)
    nft(world.node, """table inet others { chain input { type filter hook input priority 0;
        iifname cni0 meta l4proto tcp ip daddr != 10.244.1.1 drop
        iifname cni0 meta l4proto tcp ip6 daddr != fd00:10:244:1::1 drop; }; }""")
    newcomer.service_account = "another-sa"
    assert world.enroll(newcomer, check=False).returncode == 1
    nft(world.node, "delete table inet others")
    wait_for(lambda: shown(world, newcomer)["state"] == "enrolled", 30, "it is tried again")
    node = world.agents["node"]
    node.kill()
    node.start()
    world.wait_gateway_healthy()
    assert shown(world, newcomer)["service_account"] == "another-sa"
    assert is_served(world, newcomer)


# ---- from one to another ----

@pytest.mark.parametrize("before,after", list(itertools.permutations(BACKENDS, 2)))
def test_a_live_pod_changes_without_a_gap(world, newcomer, before, after):
    restart(world, before)
    world.enroll(newcomer)
    node = world.agents["node"]
    with Attack(world, newcomer) as attack, Trying(attack) as trying:
        node.kill()
        trying.until(2)
        restart(world, after)
        trying.until(2)
        wait_for(lambda: is_served(world, newcomer), 30, "the new one serves it")
        assert attack.made() > 0
        assert attack.arrived() == []
    assert shown(world, newcomer)["backend"] == after
    assert rules_inside(newcomer) == ({after} if after != "ebpf" else set())


# ---- pods that no guard can be put around ----

@pytest.fixture
def macvlan_pod(world):
    """Its interface has no end in the node's namespace."""
    ns = Netns(world.procs.netns_prefix + "macvlan", world.procs, world.folder / "resolv.conf")
    ns.ref, ns.pod, ns.service_account = "shop/macvlan", "macvlan", "macvlan-sa"
    world.node.ip("link add macvlan0 link gw0 type macvlan mode bridge", f"link set macvlan0 netns {ns.name}")
    ns.ip("link set macvlan0 name eth0", "link set eth0 up", "addr add 192.0.2.77/24 dev eth0",
          "route add default via 192.0.2.10")
    yield ns
    inside(ns, "ip", "link", "del", "eth0")
    ns.remove()


def test_a_pod_without_a_host_end_is_refused(world, macvlan_pod):
    done = world.enroll(macvlan_pod, check=False)
    assert done.returncode == 1
    assert re.search(r"'eth0' \(macvlan\).*guard: optional", done.stderr), done.stderr
    assert rules_inside(macvlan_pod) == {"nftables"}, "it is closed all the same"
    assert shown(world, macvlan_pod) is None


def test_a_weaker_guard_has_to_be_asked_for(world, macvlan_pod):
    restart(world, "auto", mode="optional")
    world.enroll(macvlan_pod)
    assert (shown(world, macvlan_pod)["backend"], shown(world, macvlan_pod)["guard"]) == ("nftables", "none")
    for name, status in (("www.example.com", 200), ("unregistered.example.com", 403)):
        assert world.curl(macvlan_pod, f"http://{WWW[0]}/", "-H", f"Host: {name}").status == status


def test_no_interface_and_no_namespace(world):
    empty = Netns(world.procs.netns_prefix + "empty", world.procs)
    empty.ref, empty.service_account = "shop/empty", "sa"
    done = world.enroll(empty, check=False)
    assert done.returncode == 1 and "no interface" in done.stderr, done.stderr
    empty.remove()
    empty.path = "/dev/null"
    done = world.enroll(empty, check=False)
    assert done.returncode == 1 and "network namespace" in done.stderr, done.stderr


# ---- drift of the node's own part ----

def repairs(world):
    return world.metrics("node").value("sluice_redirect_repairs_total")


@pytest.mark.parametrize("lost", ["table", "rule", "route", "rule6", "guard"])
def test_the_nodes_part_is_put_back(world, newcomer, lost):
    restart(world, "ebpf", attach="tc")
    world.enroll(newcomer)
    node, before = world.node, repairs(world)
    take, look = {
        "table": (["nft", "delete", "table", "inet", "sluice-node"],
                  lambda: "sluice-node" in inside(node, "nft", "list", "tables").stdout),
        "rule": (["ip", "rule", "del", "priority", "90"],
                 lambda: "90:" in inside(node, "ip", "rule").stdout),
        "rule6": (["ip", "-6", "rule", "del", "priority", "90"],
                  lambda: "90:" in inside(node, "ip", "-6", "rule").stdout),
        "route": (["ip", "route", "flush", "table", "15001"],
                  lambda: "local default" in inside(node, "ip", "route", "show", "table", "15001").stdout),
        "guard": (["tc", "qdisc", "del", "dev", newcomer.pod, "clsact"],
                  lambda: "sluice" in inside(node, "tc", "filter", "show", "dev", newcomer.pod, "ingress").stdout),
    }[lost]
    assert look()
    with Attack(world, newcomer) as attack:
        assert inside(node, *take).returncode == 0
        wait_for(look, 15, f"the {lost} is back")
        wait_for(lambda: repairs(world) > before, 5, "it is counted")
        attack.all_of("198.51.100.66", "2001:db8:51::66")
        assert attack.arrived() == []
    assert "put back" in world.agents["node"].errors(whole=True)
    wait_for(lambda: is_served(world, newcomer), 10, "it is served")


# ---- taking it all away ----

def everything(world):
    """What the node's namespace holds, as its tools print it."""
    node = world.node
    return {
        "nft": inside(node, "nft", "list", "ruleset").stdout,
        "rules": inside(node, "ip", "rule").stdout + inside(node, "ip", "-6", "rule").stdout,
        "routes": re.sub(r" expires \d+sec", "", inside(node, "ip", "route", "show", "table", "all").stdout),
        "qdiscs": inside(node, "tc", "qdisc").stdout,
        "listening": inside(node, "ss", "-Hltn", "sport", "=", ":15001").stdout,
    }


@pytest.mark.parametrize("backend,attach", [("ebpf", "tcx"), ("ebpf", "tc"), ("nftables", "nftables"),
                                            ("iptables", "tcx")])
def test_uninstall_leaves_nothing(world, newcomer, backend, attach):
    node = world.agents["node"]
    node.stop()
    uninstall = [AGENT, "--config", node.config_file, "--uninstall"]
    assert world.node.run(uninstall).returncode == 0
    # What was held by the agent of pods before goes with their interfaces, some time after them.
    wait_for(lambda: re.findall(r": (m\d+)@", inside(world.node, "ip", "-o", "link").stdout) == [newcomer.pod],
             what="no other attacker's interface is left")
    before, inner = everything(world), inside(newcomer, "nft", "list", "ruleset").stdout
    restart(world, backend, attach=attach)
    world.enroll(newcomer)
    assert everything(world) != before
    done = world.node.run(uninstall)
    assert done.returncode == 1 and "stop it first" in done.stderr, done.stderr
    waiting = world.node.popen([*uninstall, "--wait"], "uninstall")
    wait_for(lambda: "waiting for the agent" in waiting.log.read_text(), 10, "it waits")
    assert everything(world) != before
    node.stop()
    assert waiting.wait(10) == 0, waiting.log.read_text()
    assert everything(world) == before
    assert rules_inside(newcomer) == set()
    if backend != "iptables":  # whose tools leave empty tables of the system's names behind
        assert inside(newcomer, "nft", "list", "ruleset").stdout == inner
    assert not list((node.folder / "state" / "pods").iterdir())
    assert world.curl(newcomer, "http://198.51.100.66/", "-H", "Host: unregistered.example.com").status == 200
    assert world.node.run(uninstall).returncode == 0, "there is nothing left, which is fine"


# ---- pods on the host's network ----

CGROUP2 = next((line.split()[1] for line in open("/proc/mounts", encoding="ascii")
                if line.split()[2] == "cgroup2"), None)


class HostPod:
    """Processes on the node's own network, in a cgroup of theirs."""

    namespace, pod, service_account = "infra", "on-the-host", "agent-sa"
    ref = f"{namespace}/{pod}"

    def __init__(self, world):
        self.world = world
        self.cgroup = Path(CGROUP2) / f"{world.procs.netns_prefix}host-pod"
        self.cgroup.mkdir()

    def run(self, *cmd):
        return self.world.node.run(["sh", "-c", 'echo $$ > "$0"/cgroup.procs && exec "$@"', self.cgroup, *cmd])

    def curl(self, *args):
        """Status and body."""
        done = self.run("curl", "-q", "-sS", "--max-time", "5", "-w", "\\n%{http_code}", *args)
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body, done.stderr

    def enroll(self, op="enroll"):
        more = ["--cgroup", self.cgroup, "--service-account", self.service_account] if op == "enroll" else []
        return self.world.node.run([CTL, op, "--pod", self.ref, *more, "--socket",
                                    self.world.agents["node"].config["enrol"]["socket"]])

    def remove(self):
        for pid in (self.cgroup / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not (self.cgroup / "cgroup.procs").read_text(), what="the cgroup is empty")
        self.cgroup.rmdir()


@pytest.fixture
def host_pod(world):
    pod = HostPod(world)
    yield pod
    pod.remove()
    wait_for(lambda: shown(world, pod) is None, 10, "it is forgotten with its cgroup")


WWW_HERE = ["-H", "Host: www.example.com", f"http://{WWW[0]}/"]
FOREIGN_HERE = ["-H", "Host: unregistered.example.com", "http://198.51.100.66/"]


@pytest.mark.parametrize("backend", ["auto", "nftables"])
def test_a_pod_on_the_hosts_network(world, host_pod, backend):
    """Captured by its cgroup, whatever captures the others; who is not in it is left alone."""
    restart(world, backend)
    assert host_pod.curl(*FOREIGN_HERE)[0] == 200, "nobody confines it"
    done = host_pod.enroll()
    assert done.returncode == 0, done.stderr
    entry = shown(world, host_pod)
    assert (entry["backend"], entry["guard"], entry["state"]) == ("ebpf", "cgroup", "enrolled")
    tail = world.agents["node"].tail()
    status, body, _ = host_pod.curl(*WWW_HERE)
    assert status == 200 and json.loads(body)["client"] in GATEWAY_IPS
    line = tail.wait(source_pod=host_pod.pod, decision="ALLOW")
    assert line["downstream_local_address"] == f"{WWW[0]}:80"
    assert line["source_principal"] == "spiffe://cluster.local/ns/infra/sa/agent-sa"
    assert host_pod.curl(*FOREIGN_HERE)[0] == 403
    tail.wait(source_pod=host_pod.pod, decision="DENY", reason="host_not_registered")
    done = host_pod.run("python3", "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
                        ".sendto(b'x', ('198.51.100.66', 53))")
    assert "PermissionError" in done.stderr, done.stderr
    tail.wait(source_pod=host_pod.pod, decision="DENY", reason="protocol_refused", protocol="UDP")
    outside = world.node.run(["curl", "-q", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *FOREIGN_HERE])
    assert outside.stdout == "200", "another process of the node's"


def test_it_stays_captured_without_an_agent(world, host_pod):
    assert host_pod.enroll().returncode == 0
    node = world.agents["node"]
    node.kill()
    try:
        status, _, error = host_pod.curl(*WWW_HERE)
    finally:
        node.start()
    assert status == 0 and "Couldn't connect" in error, "closed, and at once"
    world.wait_gateway_healthy()
    assert host_pod.curl(*WWW_HERE)[0] == 200
    assert host_pod.curl(*FOREIGN_HERE)[0] == 403
    assert host_pod.enroll("unenroll").returncode == 0
    assert host_pod.curl(*FOREIGN_HERE)[0] == 200


def test_what_captures_it_is_put_back(world, host_pod):
    assert host_pod.enroll().returncode == 0
    before = repairs(world)
    pins = Path(world.agents["node"].config["guard"]["pinDir"])
    links = [p for p in pins.rglob("*") if str(host_pod.cgroup.stat().st_ino) in p.parts and p.is_file()]
    assert links, "its links are pinned"
    for link in links:
        link.unlink()
    wait_for(lambda: host_pod.curl(*FOREIGN_HERE)[0] == 200 or repairs(world) > before, 5, "it was all that held")
    wait_for(lambda: repairs(world) > before, 15, "it is put back and counted")
    assert host_pod.curl(*FOREIGN_HERE)[0] == 403


def test_no_cgroup(world, host_pod):
    host_pod.cgroup, real = Path("/tmp"), host_pod.cgroup
    done = host_pod.enroll()
    host_pod.cgroup = real
    assert done.returncode == 1 and "cgroup" in done.stderr, done.stderr
