# SPDX-License-Identifier: Apache-2.0
"""Agents that take registry, pods and gateways from the Kubernetes API, here a scripted one; real
traffic. tests/k8s has the same on a real cluster.
"""
import json
import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from attackers import attacker, newcomer  # noqa: F401
from kube_api import Api
from procs import wait_for
from servers import WWW
from wire import Wire, request
from world import GATEWAY_IPS, TUNNEL

GATEWAY = "egressgateway.sluice-system.svc.cluster.local"
ENFORCED = {"sluice.io/egress": "enforced"}
PORTS = [{"number": 80, "name": "http", "protocol": "HTTP"}, {"number": 443, "name": "tls", "protocol": "TLS"}]
NODE_ADDRESS = "192.0.2.1"


class Place:
    """What Api wants of a place: a namespace, and a folder of its own."""

    def __init__(self, world, name):
        self.netns, self.procs = getattr(world, name), self
        self.folder = world.folder / f"api-{name}"
        self.folder.mkdir()


class Cluster:
    """One API for each agent, since their namespaces do not meet; the same in both."""

    def __init__(self, world):
        self.apis = {name: Api(Place(world, name)) for name in ("node", "gateway")}

    def put(self, kind, obj):
        for api in self.apis.values():
            api.put(kind, obj)

    def delete(self, kind, ns, name):
        for api in self.apis.values():
            api.delete(kind, ns, name)

    def entry(self, name, *hosts, ns="shop", **spec):
        self.put("serviceentries", {"metadata": {"namespace": ns, "name": name},
                                    "spec": {"hosts": list(hosts), "resolution": "NONE", "ports": PORTS} | spec})

    def namespace(self, name, labels=None):
        self.put("namespaces", {"metadata": {"name": name, "labels": labels or {}}})

    def node(self, *addresses, name="node"):
        self.put("nodes", {"metadata": {"name": name}, "spec": {"taints": [
            {"key": "sluice.io/agent-not-ready", "effect": "NoSchedule"}, {"key": "other", "effect": "NoSchedule"}]},
            "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]}})

    def slice(self, *addresses):
        self.put("endpointslices", {
            "metadata": {"namespace": "sluice-system", "name": "egressgateway-1",
                         "labels": {"kubernetes.io/service-name": "egressgateway"}},
            "addressType": "IPv4", "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
            "ports": [{"name": "tunnel", "port": 15443, "protocol": "TCP"}]})

    def pod(self, pod, uid=None, phase="Running", sa=None, **spec):
        status = {"phase": phase, "containerStatuses": [{"state": {"running": {}}}]} if phase == "Running" else \
            {"phase": phase}
        self.put("pods", {"metadata": {"namespace": pod.namespace, "name": pod.pod, "uid": uid or f"uid-{pod.pod}"},
                          "spec": {"nodeName": "node", "serviceAccountName": sa or pod.service_account, **spec},
                          "status": status})

    def stop(self):
        for api in self.apis.values():
            api.stop()


def config(api, **more):
    return {"registry": {"files": [], "kubernetes": {"enabled": True, "kubeconfig": str(api.kubeconfig)}}} | more


@pytest.fixture(scope="module")
def cluster(own_world):
    cluster = Cluster(own_world)
    cluster.slice(TUNNEL.rpartition(":")[0])
    cluster.node(NODE_ADDRESS)
    cluster.namespace("shop", ENFORCED)
    cluster.namespace("lab")
    cluster.namespace("infra", ENFORCED)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def world(own_world, cluster):
    own_world.start_gateway(config(cluster.apis["gateway"], tunnel={"nodesOnly": True}))
    own_world.start_node(config(cluster.apis["node"], gateways=[{"name": GATEWAY}],
                                enrol={"excludedNamespaces": ["infra"], "startupTaint": True}))
    own_world.enroll(own_world.pods["pod-a"])
    own_world.wait_gateway_healthy()
    return own_world


@pytest.fixture
def pod_a(world):
    return world.pods["pod-a"]


def until_known(world, host, known=True):
    wait_for(lambda: all(world.knows(a, host) == known for a in world.agents.values()), 5,
             f"all agents know {host}: {known}")


def http(world, pod, host, path="/"):
    return world.curl(pod, f"http://{host}{path}")


# ---- the registry ----

def test_an_entry_opens_a_host_and_its_end_closes_it(world, cluster, pod_a):
    assert http(world, pod_a, "www.example.com").status == 403
    cluster.entry("www", "www.example.com")
    until_known(world, "www.example.com")
    got = http(world, pod_a, "www.example.com")
    assert got.status == 200 and got.seen_from in GATEWAY_IPS
    with Wire(pod_a.connect(WWW[0], 80)) as wire:
        wire.send(request("www.example.com"))
        assert wire.response().status == 200
        cluster.delete("serviceentries", "shop", "www")
        until_known(world, "www.example.com", False)
        assert wire.rest() in (b"", None), "the live connection ends"
    assert http(world, pod_a, "www.example.com").status == 403


def test_a_changed_entry_is_in_force_within_a_second(world, cluster, pod_a):
    cluster.entry("changing", "api.example.com")
    until_known(world, "api.example.com")
    cluster.entry("changing", "www.example.com", exportTo=["."])
    wait_for(lambda: http(world, pod_a, "www.example.com").status == 200, 1.5, "the new host is open")
    assert http(world, pod_a, "api.example.com").status == 403
    cluster.delete("serviceentries", "shop", "changing")
    until_known(world, "www.example.com", False)


def test_a_bad_entry_is_refused_alone(world, cluster, pod_a):
    cluster.entry("good", "www.example.com")
    cluster.put("serviceentries", {"metadata": {"namespace": "shop", "name": "bad", "uid": "uid-of-bad"},
                                   "spec": {"hosts": ["api.example.com"], "resolution": "SOMEHOW", "ports": PORTS}})
    until_known(world, "www.example.com")
    assert http(world, pod_a, "www.example.com").status == 200
    assert http(world, pod_a, "api.example.com").status == 403

    def event():
        return next((e for e in cluster.apis["node"].written() if e["involvedObject"]["name"] == "bad"), None)
    found = wait_for(event, 10, "an Event on it")
    assert found["involvedObject"]["kind"] == "ServiceEntry" and found["involvedObject"]["uid"] == "uid-of-bad"
    assert found["type"] == "Warning" and "SOMEHOW" in found["message"], found
    wait_for(lambda: world.metrics("node").value("sluice_registry_entries_rejected") == 1, 5, "it is counted")
    status, text = world.agents["node"].ready()
    assert status == 200 and "1 refused" in text and "SOMEHOW" in text
    for name in ("good", "bad"):
        cluster.delete("serviceentries", "shop", name)
    until_known(world, "www.example.com", False)


def test_warnings_cannot_flood_the_log(world, cluster, pod_a):
    """More of them than are remembered, at each of many changes."""
    udp = [{"number": n, "name": f"u{n}", "protocol": "UDP"} for n in range(1001, 1401)]
    cluster.entry("loud", "loud.example.com", ports=PORTS + udp)
    until_known(world, "loud.example.com")

    def said():
        return sum("is never open" in line or "more warnings" in line
                   for line in world.agents["node"].proc.output().splitlines())
    for n in range(20):
        cluster.entry("changing", f"h{n}.example.com")
        until_known(world, f"h{n}.example.com")
    assert 0 < said() <= 60
    for name in ("loud", "changing"):
        cluster.delete("serviceentries", "shop", name)
    until_known(world, "loud.example.com", False)


def test_export_to(world, cluster, pod_a):
    cluster.entry("theirs", "www.example.com", ns="lab", exportTo=["."])
    until_known(world, "www.example.com")
    assert http(world, pod_a, "www.example.com").status == 403
    cluster.delete("serviceentries", "lab", "theirs")
    until_known(world, "www.example.com", False)


# ---- Events ----

def test_what_is_denied_is_seen_on_the_pod(world, cluster, attacker):
    cluster.pod(attacker, uid="uid-of-attacker")
    api = cluster.apis["node"]

    def told(host):
        return [e for e in api.written() if e["involvedObject"]["name"] == attacker.pod and host in e["message"]]
    wait_for(lambda: api.was_asked_for("pods"), what="pods are watched")
    for _ in range(3):
        assert http(world, attacker, "unregistered.example.com").status == 403
    event = wait_for(lambda: told("unregistered.example.com:80"), 10, "an Event")[0]
    assert event["reason"] == "EgressDenied" and "host_not_registered" in event["message"]
    assert event["involvedObject"] | {"kind": "Pod", "namespace": attacker.namespace} == event["involvedObject"]
    wait_for(lambda: told("unregistered")[0]["involvedObject"].get("uid") in ("uid-of-attacker", "", None), 1)
    before = len(api.writes())
    for n in range(200):  # a scanner
        http(world, attacker, "www.example.com", f"/{n}") if n % 20 == 0 else None
        with pytest.raises(OSError), Wire(attacker.connect("198.51.100.66", 1000 + n)) as wire:
            wire.send(b"SSH-2.0-x\r\n")
            if not wire.rest():
                raise ConnectionResetError
    assert len(api.writes()) - before <= 60, "the API is not flooded"
    wait_for(lambda: world.metrics("node").value("sluice_events_dropped_total") > 100, 10, "the rest is counted")


# ---- which pods ----

def ask(world, pod, op="enroll", **more):
    """As the CNI plugin does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock, open(pod.path, encoding="ascii") as netns:
        sock.settimeout(5)
        sock.connect(world.agents["node"].config["enrol"]["socket"])
        question = {"op": op, "pod": pod.ref, "netns": pod.path, "container": f"id-{pod.pod}"} | more
        socket.send_fds(sock, [json.dumps(question).encode()], [netns.fileno()])
        return json.loads(sock.recv(4096))


def shown(world, pod):
    listed = json.loads(world.agents["node"].ctl("--json", "pods").stdout)
    return next((p for p in listed if (p["namespace"], p["pod"]) == (pod.namespace, pod.pod)), None)


@pytest.fixture
def new_pod(world):
    made = []

    def make(ref):
        made.append(world.add_pod(ref))
        return made[-1]
    yield make
    for pod in made:
        pod.remove()
        del world.pods[pod.pod]


def test_a_pod_of_an_enforced_namespace_is_enrolled_as_who_it_is(world, cluster, new_pod):
    pod = new_pod("shop/fresh")
    assert ask(world, pod).get("retry") is True, "its service account is not known yet"
    cluster.pod(pod, phase="Pending", sa="buyer")
    wait_for(lambda: ask(world, pod).get("ok"), 5, "it is known")
    assert shown(world, pod)["service_account"] == "buyer"
    tail = world.agents["node"].tail()
    assert http(world, pod, "unregistered.example.com").status == 403
    assert tail.wait(source_pod="fresh")["source_principal"] == "spiffe://cluster.local/ns/shop/sa/buyer"


def test_a_pod_is_not_the_one_before(world, cluster, new_pod):
    """Its name is another's, whose end the agent has not heard of: it waits, rather than be taken for that one."""
    pod = new_pod("shop/again")
    cluster.pod(pod, uid="first", phase="Pending", sa="seller")
    wait_for(lambda: ask(world, pod, uid="first").get("ok"), 5, "it is known")
    assert shown(world, pod)["service_account"] == "seller"
    assert ask(world, pod, uid="second").get("retry") is True
    cluster.pod(pod, uid="second", phase="Pending", sa="buyer")
    wait_for(lambda: ask(world, pod, uid="second").get("ok"), 5, "the second is known")
    assert shown(world, pod)["service_account"] == "buyer"


def test_news_of_the_one_before_come_late(world, cluster, new_pod):
    """Who it is stays; others are still given the name that the API has for them."""
    pod, other = new_pod("shop/late"), new_pod("shop/other")
    cluster.pod(pod, uid="second", phase="Pending", sa="buyer")
    wait_for(lambda: ask(world, pod, uid="second").get("ok"), 5, "it is known")
    assert ask(world, other, service_account="before") == {"ok": True}
    cluster.pod(pod, uid="first", phase="Pending", sa="seller")
    cluster.pod(other, phase="Pending", sa="after")
    wait_for(lambda: shown(world, other)["service_account"] == "after", 5, "what came behind it is heard")
    assert shown(world, pod)["service_account"] == "buyer"


def test_a_pod_that_may_get_around_it_has_an_event(world, cluster, new_pod):
    pod = new_pod("shop/admin")
    cluster.pod(pod, containers=[{"name": "c", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}])
    api = cluster.apis["node"]
    event = wait_for(lambda: next((e for e in api.written() if e["reason"] == "EgressNotConfined"), None), 10,
                     "an Event")
    assert event["involvedObject"]["name"] == "admin" and event["type"] == "Warning"
    assert "NET_ADMIN" in event["message"]
    assert "pod 'shop/admin': a container with NET_ADMIN" in world.agents["node"].errors(whole=True)


def test_others_pass(world, cluster, new_pod):
    """Not labelled; and excluded by the configuration, whatever its labels."""
    for ref in ("lab/free", "infra/free2"):
        pod = new_pod(ref)
        cluster.pod(pod, phase="Pending")
        assert ask(world, pod) == {"ok": True, "skipped": True}
        assert shown(world, pod) is None
        assert http(world, pod, "unregistered.example.com").status == 200


def test_a_namespace_that_nobody_knows_waits(world, new_pod):
    assert ask(world, new_pod("brand-new/first")).get("retry") is True


class Process:
    """One that a pod would hold: in its namespace, and in a cgroup as the kubelet names them."""

    def __init__(self, world, pod, uid, monitor=None):
        root = Path("/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup")
        self.folders = [root / world.procs.netns_prefix.strip("-")]
        self.folders += [self.folders[0] / f"pod{uid}", self.folders[0] / f"pod{uid}" / "sandbox"]
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
        self.procs = []
        for place, name in ((monitor, "monitor"), (pod, "sandbox")) if monitor else ((pod, "sandbox"),):
            argv = ["sh", "-c", 'echo $$ > "$0" && exec sleep 1000', self.folders[-1] / "cgroup.procs"]
            self.procs.append(place.popen(argv, name=f"{name}-{pod.pod}"))
            wait_for(lambda: str(self.procs[-1].popen.pid) in self.inside(), what=f"{name} is in its cgroup")

    def inside(self):
        return (self.folders[-1] / "cgroup.procs").read_text(encoding="ascii").split()

    def end(self):
        for proc in self.procs:
            proc.signal(signal.SIGKILL)
        wait_for(lambda: not self.inside(), what="it has ended")
        for folder in reversed(self.folders):
            if not any(inside.is_dir() for inside in folder.iterdir()):
                folder.rmdir()


@pytest.fixture
def running(world):
    made = []

    def run(pod, uid, **more):
        made.append(Process(world, pod, uid, **more))
        return made[-1]
    yield run
    for process in made:
        process.end()


def test_a_pod_that_runs_already_is_found(world, cluster, new_pod, running):
    pod, uid = new_pod("late/older"), "2f4d7e70-3a52-4c67-9c7e-1234567890ab"
    cluster.namespace("late")
    cluster.pod(pod, uid=uid, sa="older-sa")
    running(pod, uid)
    assert http(world, pod, "unregistered.example.com").status == 200, "nobody confines it"
    cluster.namespace("late", ENFORCED)
    entry = wait_for(lambda: shown(world, pod), 5, "it is found")
    assert (entry["state"], entry["service_account"]) == ("enrolled", "older-sa")
    assert http(world, pod, "unregistered.example.com").status == 403
    cluster.namespace("late")
    wait_for(lambda: shown(world, pod) is None, 5, "it is let out")
    assert http(world, pod, "unregistered.example.com").status == 200


def test_a_runtimes_monitor_is_not_the_pod(world, cluster, new_pod, running):
    """What watches a container (conmon) is in the pod's cgroup, older than its sandbox, and on the node's network."""
    pod, uid = new_pod("shop/watched"), "5f4d7e70-3a52-4c67-9c7e-1234567890ab"
    running(pod, uid, monitor=world.node)
    cluster.pod(pod, uid=uid, sa="older-sa")
    entry = wait_for(lambda: shown(world, pod), 5, "it is found")
    assert (entry["state"], entry["service_account"]) == ("enrolled", "older-sa")
    assert http(world, pod, "unregistered.example.com").status == 403


def test_the_same_name_again_on_the_hosts_network(world, cluster, running):
    """The one before was deleted by force and is still there: the new one is another, and captured, too."""
    pod = SimpleNamespace(namespace="shop", pod="on-host", service_account="web", popen=world.node.popen)
    for uid in ("6f4d7e70-3a52-4c67-9c7e-1234567890ab", "7f4d7e70-3a52-4c67-9c7e-1234567890ab"):
        running(pod, uid)
        cluster.pod(pod, uid=uid, hostNetwork=True)
        wait_for(lambda want=f"/pod{uid}": (shown(world, pod) or {}).get("netns", "").endswith(want), 5, f"{uid} is held")
        assert shown(world, pod)["state"] == "enrolled"


# ---- gateways ----

def test_gateways_are_found_by_their_service(world, cluster, pod_a):
    cluster.entry("www", "www.example.com")
    until_known(world, "www.example.com")
    assert http(world, pod_a, "www.example.com").status == 200
    cluster.slice()
    wait_for(lambda: http(world, pod_a, "www.example.com").status == 503, 5, "there is none")
    cluster.slice("192.0.2.99", TUNNEL.rpartition(":")[0])
    wait_for(lambda: http(world, pod_a, "www.example.com").status == 200, 5, "there is one again")
    cluster.slice(TUNNEL.rpartition(":")[0])
    cluster.delete("serviceentries", "shop", "www")
    until_known(world, "www.example.com", False)


def test_only_nodes_may_speak_to_a_gateway(world, cluster, pod_a):
    cluster.entry("www", "www.example.com")
    until_known(world, "www.example.com")
    cluster.node("192.0.2.200")
    wait_for(lambda: http(world, pod_a, "www.example.com").status == 503, 10, "this is no node any more")
    line = world.agents["gateway"].tail()
    http(world, pod_a, "www.example.com")
    line = line.wait(reason="tunnel_refused")
    assert line["connection_termination_details"] == "not from a node of the cluster"
    assert line["downstream_remote_address"].startswith(NODE_ADDRESS)
    cluster.node(NODE_ADDRESS)
    wait_for(lambda: http(world, pod_a, "www.example.com").status == 200, 10, "it is one again")
    cluster.delete("serviceentries", "shop", "www")
    until_known(world, "www.example.com", False)


# ---- the API goes away ----

def test_the_taint_goes_when_the_agent_is_ready(world, cluster):
    api = cluster.apis["node"]

    def taints():
        return [t["key"] for t in api.things[("nodes", "", "node")]["spec"]["taints"]]
    cluster.node(NODE_ADDRESS)
    world.agents["node"].kill()
    world.agents["node"].start()
    wait_for(lambda: taints() == ["other"], 10, "the taint is off")


def test_without_the_api_the_last_good_registry_serves(world, cluster, pod_a):
    cluster.entry("kept", "www.example.com")
    until_known(world, "www.example.com")
    node, api = world.agents["node"], cluster.apis["node"]
    cache = node.folder / "state" / "kubernetes" / "kubernetes.cache"
    wait_for(lambda: "www.example.com" in cache.read_text(errors="replace"), 20, "it is on disk")
    api.stop()
    assert http(world, pod_a, "www.example.com").status == 200, "nothing is taken back"
    node.kill()
    node.start()
    wait_for(lambda: http(world, pod_a, "www.example.com").status == 200, 10, "from the cache")
    assert "from the cache" in node.ready()[1]
    assert http(world, pod_a, "unregistered.example.com").status == 403
    cluster.entry("new", "api.example.com")
    api.start()
    wait_for(lambda: world.knows(node, "api.example.com"), 40, "the API is back")
    wait_for(lambda: "from the cache" not in node.ready()[1], 5, "and is believed")
    for name in ("kept", "new"):
        cluster.delete("serviceentries", "shop", name)
    until_known(world, "www.example.com", False)
