# SPDX-License-Identifier: Apache-2.0
"""What an agent learns from the Kubernetes API and what it tells it, against a scripted API server:
entries, enforcement, gateways, nodes, the cache for a start without the server, Events.
"""
import json
import subprocess
import threading

import pytest

from agents import BUILD
from kube_api import Api
from netns import Netns
from procs import Procs, wait_for

TOOL = BUILD / "tests/netns/kube_stores_tool"
GATEWAY = "egress.sluice-system.svc.cluster.local"
ENFORCED = {"sluice.io/egress": "enforced"}


class Stores:
    """tests/netns/kube_stores_tool.c at work: what its hooks said, in order."""

    def __init__(self, place, api, **options):
        argv = [TOOL, "--kubeconfig", api.kubeconfig]
        for name, value in options.items():
            for one in value if isinstance(value, list) else [value]:
                argv += [f"--{name}"] if one is True else [f"--{name}", one]
        self.said = []
        self.answers = []
        self.lock = threading.Lock()
        self.proc = place.netns.popen(argv, "stores", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.proc.popen.stdout:
            said = json.loads(line)
            with self.lock:
                (self.said if "on" in said else self.answers).append(said)

    def hooks(self, name, since=0):
        with self.lock:
            return [said for said in self.said[since:] if said["on"] == name]

    def mark(self):
        with self.lock:
            return len(self.said)

    def wait_hook(self, name, predicate=lambda said: True, since=0, timeout=20):
        """The first call of a hook since a mark that the predicate likes."""
        return wait_for(lambda: next((said for said in self.hooks(name, since) if predicate(said)), None),
                        timeout, f"{name}: {self.hooks(name)}")

    def ask(self, line):
        with self.lock:
            n = len(self.answers)
        self.proc.popen.stdin.write(line + "\n")
        self.proc.popen.stdin.flush()
        wait_for(lambda: len(self.answers) > n, what=line)
        return self.answers[n]

    def status(self):
        return self.ask("status")

    def wait_status(self, timeout=20, **want):
        return wait_for(lambda: want.items() <= self.status().items(), timeout, f"{want} {self.status()}")

    def entries(self):
        return self.ask("entries")["entries"]

    def wait_entries(self, want, since=0):
        """Until the hook says so; returns what it said."""
        return self.wait_hook("entries", lambda said: said["entries"] == want, since)

    def end(self):
        """By the end of its input: what it knows is written, and it finds no fault with itself."""
        self.proc.popen.stdin.close()
        assert self.proc.wait(20) == 0, self.proc.output()
        self.reader.join(5)


class Place:
    """A namespace, and what runs in it."""

    def __init__(self):
        self.procs = Procs()
        self.netns = Netns(self.procs.netns_prefix + "kube", self.procs)
        self.cache = self.procs.folder / "cache"
        self.open = []

    def api(self, **options):
        api = Api(self, **options)
        self.open.append(api)
        return api

    def stores(self, api, **options):
        return Stores(self, api, **options)

    def remove(self):
        self.procs.stop_all()
        for api in self.open:
            api.stop()
        self.netns.remove()
        self.procs.remove_folder()


@pytest.fixture
def place():
    place = Place()
    try:
        yield place
    finally:
        place.remove()


def entry(name, *hosts, ns="shop"):
    return {"metadata": {"namespace": ns, "name": name},
            "spec": {"hosts": list(hosts), "resolution": "NONE",
                     "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}]}}


def namespace(name, labels=None):
    return {"metadata": {"name": name, "labels": labels or {}}}


def pod(name, ns="shop", node="node-1", uid=None, phase="Pending", **spec):
    return {"metadata": {"namespace": ns, "name": name, "uid": uid or f"uid-of-{name}"},
            "spec": {"nodeName": node, "serviceAccountName": "web", **spec}, "status": {"phase": phase}}


def endpoint_slice(name, *addresses, port=15443, service="egress", not_ready=()):
    endpoints = [{"addresses": [a], "conditions": {"ready": a not in not_ready}} for a in addresses]
    return {"metadata": {"namespace": "sluice-system", "name": name,
                         "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv6" if ":" in addresses[0] else "IPv4", "endpoints": endpoints,
            "ports": [{"name": "tunnel", "port": port, "protocol": "TCP"}]}


def is_pod(name, **facts):
    return lambda said: said["name"] == name and facts.items() <= said.items()


# ---- entries ----

def test_entries_come_and_go(place):
    api = place.api()
    api.put("serviceentries", entry("a", "a.example"))
    stores = place.stores(api)
    stores.wait_entries({"shop/a": ["a.example"]})
    api.put("serviceentries", entry("b", "b.example", "*.b.example"))
    stores.wait_entries({"shop/a": ["a.example"], "shop/b": ["b.example", "*.b.example"]})
    api.put("serviceentries", entry("b", "c.example"))
    stores.wait_entries({"shop/a": ["a.example"], "shop/b": ["c.example"]})
    api.delete("serviceentries", "shop", "a")
    stores.wait_entries({"shop/b": ["c.example"]})
    stores.wait_status(connected=True, from_cache=False, entries=1, rejected=0)
    stores.end()


def test_none_is_an_answer(place):
    api = place.api()
    stores = place.stores(api)
    stores.wait_entries({})
    assert stores.entries() == {}
    stores.end()


def test_half_a_list_is_nothing(place):
    api = place.api()
    for i in range(600):
        api.put("serviceentries", entry(f"e{i}", f"h{i}.example"))
    api.put("endpointslices", endpoint_slice("egress-1", "192.0.2.7"))
    api.slow.add("serviceentries")
    stores = place.stores(api, gateway=GATEWAY, cache=place.cache)
    wait_for(lambda: any("continue" in request.query for request in api.asked()), what="the second chunk")
    since = stores.mark()
    api.put("endpointslices", endpoint_slice("egress-1", "192.0.2.8"))
    stores.wait_hook("gateway", lambda said: said["endpoints"] == ["192.0.2.8:15443"], since)
    assert stores.entries() is None
    assert not stores.hooks("entries")
    api.hurry()
    assert len(stores.wait_hook("entries")["entries"]) == 600
    stores.end()


def test_nothing_is_known_without_the_server(place):
    api = place.api()
    api.stop()
    stores = place.stores(api, cache=place.cache, node="node-1", gateway=GATEWAY)
    wait_for(lambda: stores.status()["errors"] > 0, what="a failed request")
    assert stores.entries() is None
    assert stores.mark() == 0
    assert not stores.status()["connected"]
    assert stores.status()["last_error"]
    stores.end()
    assert not place.cache.exists(), "nothing is worth keeping"


def test_bad_entries_are_refused_alone(place):
    api = place.api()
    api.put("serviceentries", entry("good", "good.example"))
    api.put("serviceentries", entry("bad", "-.example"))
    stores = place.stores(api)
    stores.wait_entries({"shop/good": ["good.example"]})
    stores.wait_status(rejected=1, entries=1)
    assert "ServiceEntry shop/bad: spec.hosts[0]: '-.example'" in stores.status()["last_rejected"]

    # What was good and is not any more is not served as it was.
    api.put("serviceentries", entry("good", "bad_.example", "b..example"))
    stores.wait_entries({})
    stores.wait_status(rejected=2, entries=0)
    wait_for(lambda: len(api.written()) == 2, what="two Events")
    said = {e["involvedObject"]["name"]: e for e in api.written()}
    assert said["bad"]["type"] == "Warning"
    assert said["bad"]["reason"] == "InvalidServiceEntry"
    assert said["bad"]["involvedObject"]["kind"] == "ServiceEntry"
    assert said["bad"]["involvedObject"]["namespace"] == said["bad"]["metadata"]["namespace"] == "shop"
    assert "spec.hosts[0]" in said["good"]["message"] and "(and 1 more)" in said["good"]["message"]

    api.put("serviceentries", entry("good", "mended.example"))
    api.delete("serviceentries", "shop", "bad")
    stores.wait_entries({"shop/good": ["mended.example"]})
    stores.wait_status(rejected=0, entries=1, last_rejected="")
    stores.end()


def test_many_changes_are_few_calls(place):
    api = place.api()
    stores = place.stores(api)
    stores.wait_entries({})
    since = stores.mark()
    for i in range(300):
        api.put("serviceentries", entry(f"e{i % 50}", f"h{i}.example"))
    want = {f"shop/e{i % 50}": [f"h{i}.example"] for i in range(250, 300)}
    stores.wait_entries(want, since)
    calls = [said["entries"] for said in stores.hooks("entries", since)]
    assert len(calls) <= 300
    assert all(before != after for before, after in zip(calls, calls[1:])), "a call without a change"
    stores.end()


# ---- the cache ----

def settled(place, api):
    """Everything there is, learnt and written down."""
    api.put("serviceentries", entry("a", "a.example"))
    api.put("serviceentries", entry("b", "b.example"))
    api.put("namespaces", namespace("shop", ENFORCED))
    api.put("namespaces", namespace("other"))
    api.put("endpointslices", endpoint_slice("egress-1", "192.0.2.7", "192.0.2.8"))
    api.put("nodes", {"metadata": {"name": "node-1"},
                      "status": {"addresses": [{"type": "InternalIP", "address": "2001:db8::1"}]}})
    stores = place.stores(api, cache=place.cache, node="node-1", gateway=GATEWAY, nodes=True)
    stores.wait_entries({"shop/a": ["a.example"], "shop/b": ["b.example"]})
    stores.wait_hook("gateway")
    stores.wait_hook("nodes")
    stores.wait_hook("pods_synced")
    stores.end()


def test_starts_from_the_cache(place):
    api = place.api()
    settled(place, api)
    assert (place.cache / "kubernetes.cache").stat().st_mode & 0o777 == 0o600
    api.stop()

    stores = place.stores(api, cache=place.cache, node="node-1", gateway=GATEWAY, nodes=True)
    stores.wait_entries({"shop/a": ["a.example"], "shop/b": ["b.example"]})
    assert stores.wait_hook("gateway")["endpoints"] == ["192.0.2.7:15443", "192.0.2.8:15443"]
    assert stores.wait_hook("nodes")["addrs"] == ["[2001:db8::1]:0"]
    assert stores.status()["from_cache"]
    assert stores.ask("enforced shop") == {"enforced": 1}
    assert stores.ask("enforced other") == {"enforced": -11}, "a label may have been put on meanwhile"
    assert stores.ask("enforced unheard-of") == {"enforced": -11}
    assert not stores.hooks("pods_synced")

    # While it was away one went and another changed: both are found out.
    api.delete("serviceentries", "shop", "a")
    api.put("serviceentries", entry("b", "changed.example"))
    api.put("namespaces", namespace("shop"))
    api.delete("namespaces", "", "other")
    since = stores.mark()
    api.start()
    stores.wait_entries({"shop/b": ["changed.example"]}, since)
    stores.wait_hook("pods_synced")
    stores.wait_status(from_cache=False, connected=True)
    wait_for(lambda: stores.ask("enforced shop") == {"enforced": 0}, what="the watch is open")
    assert stores.ask("enforced other") == {"enforced": -11}
    assert not stores.hooks("gateway", since), "nothing new about it"
    stores.end()


def test_an_old_no_is_no_answer(place):
    """A namespace that was not enforced when the cache was written may be by now: until the API has said, its
    pods neither pass nor are let out.
    """
    api = place.api()
    for i in range(500):  # a chunk of them before that one
        api.put("namespaces", namespace(f"n{i}"))
    api.put("namespaces", namespace("shop"))
    api.put("pods", pod("web"))
    stores = place.stores(api, cache=place.cache, node="node-1")
    stores.wait_hook("pods_synced")
    wait_for(lambda: stores.ask("enforced shop") == {"enforced": 0}, what="the watch is open")
    stores.end()

    api.put("namespaces", namespace("shop", ENFORCED))
    api.slow.add("namespaces")
    stores = place.stores(api, cache=place.cache, node="node-1")
    wait_for(lambda: stores.ask("account shop web") == {"account": "web"}, what="the pod")
    assert stores.ask("enforced shop") == {"enforced": -11}
    assert not stores.hooks("pod")
    api.hurry()
    stores.wait_hook("pods_synced")
    assert [said["enforced"] for said in stores.hooks("pod")] == [True]
    stores.end()


def test_a_no_is_one_of_now(place):
    """While the watch is not open a label may be put on that the agent has not heard of: it asks, and nobody
    passes before it has its answer, or there is nobody to give one.
    """
    api = place.api()
    for name in ("shop", "other"):
        api.put("namespaces", namespace(name))
    stores = place.stores(api, node="node-1", exclude=["kube-system"])
    stores.wait_hook("pods_synced")
    wait_for(lambda: stores.ask("enforced shop") == {"enforced": 0}, what="the watch is open")

    def refused():
        return sum("watch" in r.query and r.path.endswith("/namespaces") for r in api.asked())
    before = refused()
    api.be_busy("namespaces")
    wait_for(lambda: refused() > before, what="the next watch is refused")
    api.put("namespaces", namespace("shop", ENFORCED))
    assert stores.ask("enforced shop") == {"enforced": -11}
    assert stores.ask("enforced kube-system") == {"enforced": 0}
    api.be_busy()
    wait_for(lambda: stores.ask("enforced shop") == {"enforced": 1}, 10, "it does not take the minute")
    wait_for(lambda: stores.ask("enforced other") == {"enforced": 0}, what="the watch is open")

    api.stop()
    wait_for(lambda: not stores.status()["connected"], what="the loss")
    wait_for(lambda: stores.ask("enforced other") == {"enforced": 0}, 5, "nobody can have put on a label")
    api.put("namespaces", namespace("other", ENFORCED))
    api.start()
    wait_for(lambda: stores.ask("enforced other") != {"enforced": 0}, 10, "it is asked again")
    wait_for(lambda: stores.ask("enforced other") == {"enforced": 1}, 10, "it is heard")
    stores.end()


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_a_damaged_cache_is_none(place, damage):
    api = place.api()
    settled(place, api)
    api.stop()
    file = place.cache / "kubernetes.cache"
    good = file.read_bytes()
    file.write_bytes({"cut": good[:-70], "flipped": good.replace(b"a.example", b"z.example"),
                      "text": b"ServiceEntry\n", "empty": b""}[damage])
    stores = place.stores(api, cache=place.cache)
    wait_for(lambda: stores.status()["errors"] > 0, what="a failed request")
    assert stores.entries() is None
    assert not stores.status()["from_cache"]
    assert "is not used: its sum is wrong" in stores.proc.output()
    api.start()
    stores.wait_entries({"shop/a": ["a.example"], "shop/b": ["b.example"]})
    stores.end()
    assert b"a.example" in file.read_bytes()


def test_the_cache_follows(place):
    """Not only at the end: an agent may be killed."""
    api = place.api()
    stores = place.stores(api, cache=place.cache)
    stores.wait_entries({})
    api.put("serviceentries", entry("a", "a.example"))
    stores.wait_entries({"shop/a": ["a.example"]})
    file = place.cache / "kubernetes.cache"
    wait_for(lambda: file.exists() and b"a.example" in file.read_bytes(), 20, "the cache")
    stores.proc.kill()


# ---- pods and namespaces ----

def test_pods_of_this_node(place):
    api = place.api()
    api.put("namespaces", namespace("shop", ENFORCED))
    api.put("namespaces", namespace("other"))
    api.put("pods", pod("web"))
    api.put("pods", pod("host", hostNetwork=True, ns="other"))
    api.put("pods", pod("done", phase="Succeeded"))
    api.put("pods", pod("elsewhere", node="node-2"))
    stores = place.stores(api, node="node-1")
    stores.wait_hook("pods_synced")
    pods = {said["name"]: said for said in stores.hooks("pod")}
    assert set(pods) == {"web", "host", "done"}
    assert pods["web"] == {"on": "pod", "ns": "shop", "name": "web", "uid": "uid-of-web", "account": "web",
                           "host_network": False, "enforced": True, "ended": False, "unconfined": False, "ready": False}
    assert pods["host"]["host_network"] and not pods["host"]["enforced"]
    assert pods["done"]["ended"]
    assert stores.ask("account shop web") == {"account": "web"}
    assert stores.ask("account shop elsewhere") == {"account": None}

    since = stores.mark()
    running = pod("web", phase="Running")
    running["status"]["containerStatuses"] = [{"name": "c", "state": {"running": {}}}]
    api.put("pods", running)
    stores.wait_hook("pod", is_pod("web", ready=True, ended=False), since)
    api.delete("pods", "shop", "web")
    stores.wait_hook("pod", is_pod("web", ended=True), since)
    assert stores.ask("account shop web") == {"account": None}
    assert len(stores.hooks("pods_synced")) == 1
    stores.end()


@pytest.mark.parametrize("seen", [True, False], ids=["watched", "missed"])
def test_the_same_name_again(place, seen):
    """Whether the watch saw the first one go, or was away at the time."""
    api = place.api()
    api.put("namespaces", namespace("shop", ENFORCED))
    api.put("pods", pod("db-0", uid="first"))
    stores = place.stores(api, node="node-1")
    stores.wait_hook("pods_synced")
    since = stores.mark()
    if seen:
        api.delete("pods", "shop", "db-0")
    api.put("pods", pod("db-0", uid="second"))
    stores.wait_hook("pod", is_pod("db-0", uid="second"), since)
    assert [(said["uid"], said["ended"]) for said in stores.hooks("pod", since)] == \
        [("first", True), ("second", False)]
    stores.end()


def test_an_account_is_that_of_one_pod(place):
    """A pod whose name was another's until now is not taken for that one. What the kubelet makes of files has a
    uid of its own.
    """
    api = place.api()
    api.put("namespaces", namespace("shop", ENFORCED))
    api.put("pods", pod("db-0", uid="first", serviceAccountName="old"))
    mirror = pod("static-node-1", uid="mirror")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "hash"}
    api.put("pods", mirror)
    stores = place.stores(api, node="node-1")
    stores.wait_hook("pods_synced")
    assert stores.ask("account shop db-0 first") == stores.ask("account shop db-0") == {"account": "old"}
    assert stores.ask("account shop db-0 second") == {"account": None}
    assert stores.ask("account shop static-node-1 hash") == {"account": "web"}
    assert [said["uid"] for said in stores.hooks("pod") if said["name"] == "static-node-1"] == ["hash"]
    api.put("pods", pod("db-0", uid="second", serviceAccountName="new"))
    wait_for(lambda: stores.ask("account shop db-0 second") == {"account": "new"}, what="the second")
    assert stores.ask("account shop db-0 first") == {"account": None}
    stores.end()


def container(*capabilities, **context):
    return {"name": "c", "securityContext": {"capabilities": {"add": list(capabilities)}, **context}}


RIGHTS = [  # what is in a pod's spec, and whether it may get around being enforced
    ({"containers": [container()]}, False),
    ({"containers": [container("NET_RAW", "NET_BIND_SERVICE")]}, False),
    ({"containers": [container(), container("NET_RAW", "NET_ADMIN")]}, True),
    ({"containers": [container("cap_sys_admin")]}, True),
    ({"containers": [container("ALL")]}, True),
    ({"containers": [container(privileged=True)]}, True),
    ({"containers": [container("NET_ADMIN")], "hostUsers": False}, False),
    ({"containers": [container()], "initContainers": [container("NET_ADMIN")]}, False),
    ({"containers": [container()], "initContainers": [container("NET_ADMIN") | {"restartPolicy": "Always"}]}, True),
    ({"containers": [container()], "ephemeralContainers": [container("NET_ADMIN")]}, True),
    ({"containers": [{"name": "c", "securityContext": {"capabilities": "ALL"}}, 7, None]}, False),
]


def test_who_may_get_around_it_is_told(place):
    """Once; of enforced pods only."""
    api = place.api()
    api.put("namespaces", namespace("shop"))
    for n, (spec, _) in enumerate(RIGHTS):
        api.put("pods", pod(f"p{n}", **spec))
    stores = place.stores(api, node="node-1")
    stores.wait_hook("pods_synced")
    assert not any(said["unconfined"] for said in stores.hooks("pod"))
    since = stores.mark()
    api.put("namespaces", namespace("shop", ENFORCED))
    for n in range(len(RIGHTS)):
        stores.wait_hook("pod", is_pod(f"p{n}", enforced=True), since)
    assert [next(said["unconfined"] for said in stores.hooks("pod", since) if said["name"] == f"p{n}")
            for n in range(len(RIGHTS))] == [want for _, want in RIGHTS]
    since = stores.mark()
    api.put("pods", pod("p2", phase="Succeeded", **RIGHTS[2][0]))
    api.put("pods", pod("p0", ephemeralContainers=[container("NET_ADMIN")], **RIGHTS[0][0]))  # kubectl debug
    stores.wait_hook("pod", is_pod("p0", unconfined=True), since)
    assert not stores.wait_hook("pod", is_pod("p2", ended=True), since)["unconfined"]
    stores.end()


def test_a_label_flips(place):
    """A namespace becomes enforced, and is not any more: its pods are told of each time, no others."""
    api = place.api()
    api.put("namespaces", namespace("shop"))
    api.put("namespaces", namespace("other", ENFORCED))
    for name in "ab":
        api.put("pods", pod(name))
    api.put("pods", pod("c", ns="other"))
    stores = place.stores(api, node="node-1")
    stores.wait_hook("pods_synced")
    for labels in (ENFORCED, {}, {**ENFORCED, "x": "y"}, {"sluice.io/egress": "off"}):
        since = stores.mark()
        enforced = labels.get("sluice.io/egress") == "enforced"
        api.put("namespaces", namespace("shop", labels))
        for name in "ab":
            stores.wait_hook("pod", is_pod(name, enforced=enforced), since)
        assert len(stores.hooks("pod", since)) == 2
        wait_for(lambda want=int(enforced): stores.ask("enforced shop") == {"enforced": want}, what=str(labels))
    since = stores.mark()
    api.put("namespaces", namespace("shop", {"sluice.io/egress": "off", "team": "x"}))
    api.put("namespaces", namespace("another", ENFORCED))
    wait_for(lambda: stores.ask("enforced another") == {"enforced": 1}, what="a later namespace")
    assert not stores.hooks("pod", since)
    stores.end()


def test_all_but_the_excluded(place):
    api = place.api()
    api.put("namespaces", namespace("shop"))
    api.put("namespaces", namespace("kube-system", ENFORCED))
    api.put("pods", pod("web"))
    api.put("pods", pod("dns", ns="kube-system"))
    stores = place.stores(api, node="node-1", all=True, exclude=["kube-system", "sluice-system"])
    stores.wait_hook("pods_synced")
    assert {said["name"]: said["enforced"] for said in stores.hooks("pod")} == {"web": True, "dns": False}
    assert stores.ask("enforced shop") == {"enforced": 1}
    assert stores.ask("enforced unheard-of") == {"enforced": 1}
    assert stores.ask("enforced sluice-system") == {"enforced": 0}
    stores.end()


def test_a_pod_waits_for_its_namespace(place):
    """What is not known is not told, and nobody hears that all were told before that."""
    api = place.api()
    api.put("namespaces", namespace("other"))
    api.put("pods", pod("early"))
    api.put("pods", pod("plain", ns="other"))
    stores = place.stores(api, node="node-1")
    stores.wait_hook("pod", is_pod("plain"))
    stores.wait_status(connected=True)
    assert stores.ask("enforced shop") == {"enforced": -11}
    assert [said["name"] for said in stores.hooks("pod")] == ["plain"]
    assert not stores.hooks("pods_synced")
    api.put("namespaces", namespace("shop", ENFORCED))
    stores.wait_hook("pod", is_pod("early", enforced=True))
    stores.wait_hook("pods_synced")
    stores.end()


# ---- gateways and nodes ----

def test_endpoints_of_a_gateway(place):
    api = place.api()
    api.put("endpointslices", endpoint_slice("egress-1", "192.0.2.8", "192.0.2.7", "192.0.2.9",
                                             not_ready=("192.0.2.9",)))
    api.put("endpointslices", endpoint_slice("egress-6", "2001:db8::7"))
    api.put("endpointslices", endpoint_slice("else-1", "192.0.2.66", service="else"))
    stores = place.stores(api, gateway=[GATEWAY, "none.sluice-system"])
    first = stores.wait_hook("gateway", lambda said: said["name"] == GATEWAY)
    assert first["endpoints"] == ["192.0.2.7:15443", "192.0.2.8:15443", "[2001:db8::7]:15443"]
    assert stores.wait_hook("gateway", lambda said: said["name"] == "none.sluice-system")["endpoints"] == []

    since = stores.mark()
    api.put("endpointslices", endpoint_slice("egress-1", "192.0.2.7", "192.0.2.8"))
    api.put("endpointslices", endpoint_slice("egress-1", "192.0.2.7", "192.0.2.8", not_ready=("192.0.2.7",)))
    said = stores.wait_hook("gateway", since=since)
    assert said["endpoints"] == ["192.0.2.8:15443", "[2001:db8::7]:15443"]
    since = stores.mark()
    api.delete("endpointslices", "sluice-system", "egress-6")
    assert stores.wait_hook("gateway", since=since)["endpoints"] == ["192.0.2.8:15443"]
    since = stores.mark()
    api.delete("endpointslices", "sluice-system", "egress-1")
    assert stores.wait_hook("gateway", since=since)["endpoints"] == []
    assert not api.was_asked_for("endpoints"), "slices are enough"
    stores.end()


def test_old_servers_have_endpoints(place):
    api = place.api(absent=["endpointslices"])
    ports = [{"name": "metrics", "port": 15020}, {"name": "tunnel", "port": 15443}]
    api.put("endpoints", {"metadata": {"namespace": "sluice-system", "name": "egress"}, "subsets": [
        {"addresses": [{"ip": "192.0.2.7"}], "notReadyAddresses": [{"ip": "192.0.2.8"}], "ports": ports}]})
    api.put("endpoints", {"metadata": {"namespace": "sluice-system", "name": "else"}, "subsets": [
        {"addresses": [{"ip": "192.0.2.66"}], "ports": ports}]})
    stores = place.stores(api, gateway=GATEWAY)
    assert stores.wait_hook("gateway", timeout=40)["endpoints"] == ["192.0.2.7:15443"]
    since = stores.mark()
    api.put("endpoints", {"metadata": {"namespace": "sluice-system", "name": "egress"}, "subsets": [
        {"addresses": [{"ip": "192.0.2.7"}, {"ip": "192.0.2.8"}], "ports": ports}]})
    assert stores.wait_hook("gateway", since=since)["endpoints"] == ["192.0.2.7:15443", "192.0.2.8:15443"]
    stores.end()


def test_nodes(place):
    def node(name, *addresses):
        return {"metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]}}

    api = place.api()
    api.put("nodes", node("node-1", "192.0.2.1", "2001:db8::1"))
    api.put("nodes", node("node-2", "192.0.2.2"))
    stores = place.stores(api, nodes=True)
    assert stores.wait_hook("nodes")["addrs"] == ["192.0.2.1:0", "192.0.2.2:0", "[2001:db8::1]:0"]
    since = stores.mark()
    api.put("nodes", node("node-2", "192.0.2.2"))
    api.delete("nodes", "", "node-1")
    assert stores.wait_hook("nodes", since=since)["addrs"] == ["192.0.2.2:0"]
    assert len(stores.hooks("nodes", since)) == 1
    assert not api.was_asked_for("pods"), "a gateway has no business with pods"
    stores.end()


# ---- Events ----

def test_a_scanner_cannot_flood(place):
    """A thousand different denials at once are its budget, a thousand equal ones are one Event."""
    api = place.api()
    stores = place.stores(api)
    stores.wait_entries({})
    assert stores.ask("events shop scanner 1000 1000") == {"posted": 1000}
    wait_for(lambda: len(api.written()) == 25, what="the budget")
    assert stores.ask("events shop loud 1000 1") == {"posted": 1000}
    wait_for(lambda: len(api.written()) == 26, what="one more")
    stores.wait_status(sent=26, dropped=975)

    seen = len(api.writes())
    assert stores.ask("events shop scanner 1000 1000") == {"posted": 1000}
    stores.wait_status(sent=26, dropped=1950)  # the 25 are told of as more of the same, later
    assert len(api.writes()) == seen

    event = next(e for e in api.written() if e["involvedObject"]["name"] == "loud")
    assert event["reason"] == "EgressDenied"
    assert event["message"] == "host-0.example\N{REPLACEMENT CHARACTER}: host_not_registered"
    assert event["reportingComponent"] == "sluice.io/agent"
    assert event["reportingInstance"] == "node-1"
    stores.end()


def test_a_series_is_counted_on(place):
    api = place.api()
    stores = place.stores(api)
    stores.wait_entries({})
    stores.ask("events shop web 1 1")
    wait_for(lambda: len(api.written()) == 1, what="an Event")
    stores.ask("events shop web 41 1")
    event = wait_for(lambda: [e for e in api.written() if e["count"] == 42], 20, "the count")[0]
    assert event["lastTimestamp"] >= event["firstTimestamp"]
    assert api.writes() == ["POST", "PATCH"]
    assert len(api.written()) == 1
    stores.end()


def test_events_are_about_one_pod(place):
    """kubectl describe finds them by the uid, which the worker that refused something does not know."""
    api = place.api()
    api.put("namespaces", namespace("shop", ENFORCED))
    api.put("pods", pod("web"))
    stores = place.stores(api, node="node-1")
    stores.wait_hook("pods_synced")
    stores.ask("events shop web 1 1")
    stores.ask("events shop elsewhere 1 1")
    wait_for(lambda: len(api.written()) == 2, what="two Events")
    assert {event["involvedObject"]["name"]: event["involvedObject"]["uid"] for event in api.written()} == \
        {"web": "uid-of-web", "elsewhere": ""}
    stores.end()


def test_events_wait_for_the_server(place):
    api = place.api()
    stores = place.stores(api)
    stores.wait_entries({})
    api.stop()
    wait_for(lambda: not stores.status()["connected"], 20, "the loss")
    stores.ask("events shop web 3 1")
    api.start()
    event = wait_for(lambda: api.written(), 30, "the Event")[0]
    assert event["count"] == 3
    stores.wait_status(sent=1, dropped=0)
    stores.end()
