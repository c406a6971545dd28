# SPDX-License-Identifier: Apache-2.0
"""The overlays of deploy/, one after the other on a cluster that has Sluice: what each of them promises."""
import os

import pytest
import yaml

import servers
from nodes import cni_conflist
from pods import Pod
from procs import wait_for
from sluice import AGENTS, DEPLOY, GATEWAYS, NAMESPACE

NODES = ("n1", "n2", "n3")
OUTSIDE = servers.SITES["foreign"][0]
WWW = "https://www.example.com/"
TAINT = "sluice.io/agent-not-ready"
OLD_SERVERS = DEPLOY / "overlays/kubernetes-1.20"


class Overlays:
    """Puts overlays of our own on those of deploy/, as users do."""

    def __init__(self, cluster, sluice, folder):
        self.cluster, self.sluice, self.folder = cluster, sluice, folder

    def apply(self, *bases, node=None):
        """`node`: what replaces the node agents' configuration. Agents of all nodes are replaced at a time, to be
        quick."""
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "bases": [os.path.relpath(DEPLOY / base, self.folder) for base in bases],
            "patchesStrategicMerge": ["all-at-a-time.yaml"]}
        if self.cluster.version < (1, 21):
            kustomization["patchesJson6902"] = [{"path": "policy-beta.yaml", "target": {
                "group": "policy", "version": "v1", "kind": "PodDisruptionBudget", "name": "egressgateway",
                "namespace": NAMESPACE}}]
            (self.folder / "policy-beta.yaml").write_bytes((OLD_SERVERS / "policy-beta.yaml").read_bytes())
        if node:
            kustomization["configMapGenerator"] = [{"name": "sluice-node", "namespace": NAMESPACE,
                                                    "behavior": "replace", "files": ["agent.yaml=node.yaml"]}]
            (self.folder / "node.yaml").write_text(yaml.safe_dump(node), "ascii")
        (self.folder / "all-at-a-time.yaml").write_text(yaml.safe_dump({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "sluice-node", "namespace": NAMESPACE},
            "spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}}}}), "ascii")
        (self.folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "ascii")
        self.cluster.kubectl("apply", "-k", self.folder)
        self.sluice.wait_ready()


@pytest.fixture(scope="module")
def overlays(cluster, shared_sluice, tmp_path_factory):
    yield Overlays(cluster, shared_sluice, tmp_path_factory.mktemp("overlay"))
    cluster.kubectl("apply", "-k", shared_sluice.overlay)  # is rolled out while others go on
    cluster.kubectl("delete", "-k", DEPLOY / "startup-taint", "--ignore-not-found")


def sources(pod, count):
    """What the server saw of so many requests; "" of one that failed."""
    return [pod.curl(WWW, timeout=3).seen_from for _ in range(count)]


# ---- several-gateways ----

@pytest.fixture
def labelled(cluster):
    """All three nodes may carry a gateway."""
    cluster.kubectl("label", "node", *NODES, "sluice.io/egress-gateway=true", "--overwrite")
    yield
    cluster.kubectl("label", "node", "n1", "n2", "sluice.io/egress-gateway-")
    remove_gateways(cluster, "n1", "n2")


def remove_gateways(cluster, *nodes):
    for pod in cluster.list("pod", NAMESPACE, GATEWAYS):
        if pod["spec"].get("nodeName") in nodes:
            cluster.kubectl("-n", NAMESPACE, "delete", "pod", pod["metadata"]["name"], "--wait=false")


def test_several_gateways(cluster, overlays, namespace, labelled):
    """One on each node; the address of each is seen; when one goes for good, the others do."""
    cluster.kubectl("label", "namespace", namespace, "sluice.io/egress=enforced")
    overlays.apply("overlays/several-gateways")
    assert sorted(pod["spec"]["nodeName"] for pod in cluster.list("pod", NAMESPACE, GATEWAYS)) == list(NODES)
    public = {name: node.public_ip for name, node in cluster.nodes.items()}
    pod = cluster.pod("web", "n1", namespace)
    overlays.sluice.register("www", namespace, ["www.example.com"])
    with cluster.internet.capture() as capture:
        wait_for(lambda: set(sources(pod, 9)) == set(public.values()), 30, "each gateway is used")
        cluster.kubectl("label", "node", "n2", "sluice.io/egress-gateway-")
        remove_gateways(cluster, "n2")
        wait_for(lambda: set(sources(pod, 9)) == {public["n1"], public["n3"]}, 30, "the others are used alone")
        assert cluster.internet.leaks(capture, gateways=public.values()) == []


# ---- startup-taint ----

class NewNode:
    """n2 as if it had just been bought: its kubelet registers it with the taint, and there is no CNI yet. While that
    is missing, no agent becomes ready."""

    def __init__(self, cluster):
        self.cluster, self.node = cluster, cluster.nodes["n2"]

    def __enter__(self):
        disk = self.node.state / "fs/upper"
        self.node.power_off()
        self.cluster.kubectl("delete", "node", "n2")
        for path in (self.node.CONFLIST, "/opt/cni/bin/sluice-cni"):
            (disk / path.lstrip("/")).unlink()
        self.node.kubelet_flags = f"--register-with-taints={TAINT}=true:NoSchedule"
        self.node.power_on()
        return self

    def __exit__(self, *exc):
        self.node.kubelet_flags = ""
        self.start_cni()
        self.node.wait_ready()

    def start_cni(self):
        """The primary CNI has come."""
        self.node.sh('printf %s "$2" >"$1.new" && mv "$1.new" "$1"', self.node.CONFLIST, cni_conflist(2))

    def is_tainted(self):
        node = self.cluster.get("node", "n2", missing_ok=True) or {"spec": {}}
        return TAINT in [taint["key"] for taint in node["spec"].get("taints", [])]

    def agent_waits(self):
        """Its pod is there, and its first container runs."""
        pods = [pod for pod in self.cluster.list("pod", NAMESPACE, AGENTS)
                if pod["spec"].get("nodeName") == "n2" and "deletionTimestamp" not in pod["metadata"]]
        states = [status["state"] for pod in pods for status in pod["status"].get("initContainerStatuses", [])]
        return any("running" in state for state in states)

    def agent_is_ready(self):
        healthz = ["curl", "-fsS", "-m", "2", "http://127.0.0.1:15021/healthz/ready"]
        return self.node.exec(healthz, check=False).returncode == 0


def test_startup_taint(cluster, overlays, namespace):
    """A new node loses it when its agent is ready, and not before; a pod that waited for the node is held."""
    cluster.kubectl("label", "namespace", namespace, "sluice.io/egress=enforced")
    config = yaml.safe_load((DEPLOY / "overlays/labelled-namespaces/node.yaml").read_text("ascii"))
    config["enrol"]["startupTaint"] = True
    overlays.apply("overlays/labelled-namespaces", "startup-taint", node=config)
    with NewNode(cluster) as new:
        wait_for(new.is_tainted, 60, "the node has registered", interval=0.2)
        pod = Pod(cluster, "early", namespace).make(wait=False, cmd=("first", OUTSIDE, 80),
                                                    nodeSelector={"kubernetes.io/hostname": "n2"})
        wait_for(new.agent_waits, 60, "the agent waits for a CNI", interval=0.2)
        assert new.is_tainted() and not new.agent_is_ready()
        new.start_cni()

        def is_free():
            tainted = new.is_tainted()
            assert tainted or new.agent_is_ready(), "the taint went too early"
            return not tainted
        wait_for(is_free, 60, "the taint goes", interval=0.1)
        wait_for(pod.last_words, 60, "the pod has made its attempt", interval=0.2)
        assert pod.last_words().startswith("first: after") and "200 OK" not in pod.last_words()


# ---- all-namespaces ----

def test_all_namespaces(cluster, overlays, namespace):
    """Whatever has no label is refused what is not registered, new or old; kube-system is left alone."""
    old = cluster.pod("old", "n1", namespace)
    system = cluster.pod("all-namespaces", "n1", "kube-system")
    leak = cluster.nodes["n1"].leak_address
    assert sources(old, 1) == [leak]
    overlays.apply("overlays/all-namespaces")
    new = cluster.pod("new", "n1", namespace)
    with cluster.internet.capture() as capture:
        for pod in (new, old):
            wait_for(lambda pod=pod: "unrecognized name" in pod.curl(WWW).error, 20, f"{pod.name} is refused")
        overlays.sluice.register("www", namespace, ["www.example.com"])
        gateway = cluster.nodes["n3"].public_ip
        for pod in (new, old):
            wait_for(lambda pod=pod: sources(pod, 1) == [gateway], 10, f"{pod.name} is allowed")
        assert cluster.internet.leaks(capture, gateways=[gateway]) == []
    assert sources(system, 1) == [leak]
    assert sources(cluster.pod("all-namespaces-new", "n1", "kube-system"), 1) == [leak]
    for name in ("all-namespaces", "all-namespaces-new"):
        Pod(cluster, name, "kube-system").delete()
