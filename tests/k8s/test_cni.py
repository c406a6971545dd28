# SPDX-License-Identifier: Apache-2.0
"""sluice-cni where others than the kubelet call it: cnitool and `ctr run --cni`, on a node that has Sluice, behind
the plugins bridge, portmap, tuning and firewall."""
import json

import pytest

import servers
from images import CLIENT
from pods import Pod
from procs import wait_for
from sluice import ENFORCED, footprint

VERSIONS = ("0.3.1", "0.4.0", "1.0.0")
HOST, ADDRESS = "www.example.com", servers.WWW[0]
OUTSIDE = servers.SITES["foreign"][0]
FOLDER = "/run/lab"  # on the node: networks of these tests alone
BRIDGE = "lab0"


def conflist(version, **sluice):
    """A network; `sluice` is laid over our plugin's entry."""
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipam": {
        "type": "host-local", "ranges": [[{"subnet": "10.244.99.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}},
               {"type": "tuning", "sysctl": {"net.ipv4.conf.all.log_martians": "1"}}]
    if version != "0.3.1":
        plugins.append({"type": "firewall"})  # which is younger
    plugins.append({"type": "sluice-cni"} | sluice)
    return {"cniVersion": version, "name": f"lab-{version}", "plugins": plugins}


class Lab:
    """Node n2 with a network for each version. Pods in the namespace `lab`, which is enforced, exist for the API
    alone: the kubelet waits for what they mount, and makes no sandbox."""

    def __init__(self, cluster, sluice):
        self.cluster, self.node, self.sluice = cluster, cluster.nodes["n2"], sluice
        self.uids = {}  # of the pods that were made, by name
        cluster.make_namespace("lab", **ENFORCED)
        for version in VERSIONS:
            self.write(f"{FOLDER}/{version}.conflist", conflist(version))
        self._make_chains()

    def write(self, path, conf):
        self.node.sh('mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"', path, json.dumps(conf))

    def _make_chains(self):
        """What bridge, portmap and firewall make once and leave. In an excluded namespace ours does nothing."""
        with Sandbox(self, "first", namespace="kube-system") as first:
            for version in VERSIONS:
                first.tool("add", version)
                first.tool("del", version)

    def remove(self):
        self.node.sh('ip link del "$1"; rm -r "$2"', BRIDGE, FOLDER)
        self.cluster.kubectl("delete", "namespace", "lab", "--wait=false")

    def make_pod(self, name):
        """One that is not started, and that the node has heard of."""
        main = {"name": "main", "image": CLIENT, "volumeMounts": [{"name": "never", "mountPath": "/never"}]}
        pod = Pod(self.cluster, name, "lab").make(
            "n2", wait=False, containers=[main], volumes=[{"name": "never", "configMap": {"name": "never"}}])
        wait_for(lambda: pod.get()["status"].get("containerStatuses"), 20, f"the kubelet knows {name}",
                 interval=0.2)
        self.uids[name] = pod.get()["metadata"]["uid"]

    def enrolled(self):
        return [line.split()[1] for line in self.sluice.ctl("n2", "pods").splitlines() if line.startswith("lab ")]

    def records(self):
        """What the agent has on disk of pods."""
        return self.node.sh("ls /var/lib/sluice/pods").split()

    def footprint(self):
        """What a pod could leave on the node. Routes go as the bridge's last interface does, and come again."""
        found = footprint(self.node)
        return {what: found[what] for what in ("nftables", "legacy iptables", "rules", "links", "pins",
                                               "queueing disciplines", "BPF programs on cgroups")}


class Sandbox:
    """A network namespace on the node, for the length of the block, and cnitool for it."""

    def __init__(self, lab, name, namespace="lab", netns=""):
        self.lab, self.name, self.namespace = lab, name, namespace
        self.netns = netns or f"test-{name}"
        self.args = (f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};"
                     f"K8S_POD_UID={lab.uids.get(name, 'u-1')}")

    def __enter__(self):
        self.lab.node.exec(["ip", "netns", "add", self.netns])
        return self

    def __exit__(self, *exc):
        self.lab.node.exec(["ip", "netns", "del", self.netns])

    def tool(self, verb, version, check=True):
        env = [f"NETCONFPATH={FOLDER}", "CNI_PATH=/opt/cni/bin", f"CNI_ARGS={self.args}"]
        return self.lab.node.exec(["env", *env, "cnitool", verb, f"lab-{version}", f"/run/netns/{self.netns}"],
                                  check=check)

    def curl(self):
        """Status and body of the answer, or curl's words."""
        done = self.lab.node.exec(
            ["ip", "netns", "exec", self.netns, "curl", "-q", "-sS", "-m", "3", "--resolve", f"{HOST}:80:{ADDRESS}",
             "-w", "%{http_code} ", "-o", "-", f"http://{HOST}/"], check=False)
        return done.stdout + done.stderr

    def links(self):
        """The guard's attachments to the host end of its interface."""
        found = self.lab.node.sh('ip -o link show master "$1" | cut -d: -f1', BRIDGE).split()
        assert len(found) == 1, found
        version, = self.lab.node.sh("ls /sys/fs/bpf/sluice | grep ^guard-v").split()
        return f"/sys/fs/bpf/sluice/{version}/links/{found[0]}"


@pytest.fixture(scope="module")
def lab(cluster, shared_sluice):
    lab = Lab(cluster, shared_sluice)
    yield lab
    lab.remove()


@pytest.fixture
def no_leaks(cluster, lab):
    with cluster.internet.capture() as capture:
        yield capture
        assert cluster.internet.leaks(capture, gateways=[cluster.nodes["n3"].public_ip]) == []


# ---- cnitool ----

@pytest.mark.parametrize("version", VERSIONS)
def test_cnitool(cluster, lab, no_leaks, version):
    """A pod's whole life: refused, allowed when registered, closed after DEL, and nothing is left."""
    name = "life-" + version.replace(".", "")
    lab.make_pod(name)
    before = lab.footprint()
    with Sandbox(lab, name) as pod:
        result = json.loads(pod.tool("add", version).stdout)
        assert result["cniVersion"] == version and result["ips"][0]["address"].startswith("10.244.99.")
        assert lab.enrolled() == [name]
        assert "host_not_registered" in pod.curl()
        lab.sluice.register(name, "lab", [HOST], ports=[(80, "HTTP")])
        wait_for(lambda: f'"client":"{cluster.nodes["n3"].public_ip}"' in pod.curl(), 5, "it is allowed")
        if version != "0.3.1":
            pod.tool("check", version)
        else:
            assert "does not support the CHECK command" in pod.tool("check", version, check=False).stderr

        for _ in range(2):
            pod.tool("del", version)
            assert lab.enrolled() == []
            assert not pod.curl().startswith("200 ")
    wait_for(lambda: lab.records() == [], 20, "its record goes with its namespace")
    assert lab.footprint() == before
    lab.sluice.deregister(name, "lab")


@pytest.mark.parametrize("end", ("in", "out"))
def test_check_sees_that_the_guard_is_gone(lab, end):
    """Whoever is root on the node takes it away; until the agent has put it back, CHECK fails."""
    name = f"unguarded-{end}"
    lab.make_pod(name)
    with Sandbox(lab, name) as pod:
        pod.tool("add", "1.0.0")
        said = []

        def check_fails():  # unless the agent came first: it looks every ten seconds
            lab.node.exec(["bpftool", "link", "detach", "pinned", f"{pod.links()}-{end}"])
            said.append(pod.tool("check", "1.0.0", check=False))
            return said[-1].returncode != 0
        wait_for(check_fails, 20, "CHECK fails")
        assert "guard is not in force" in said[-1].stderr
        wait_for(lambda: pod.tool("check", "1.0.0", check=False).returncode == 0, 30, "the guard is back")
        pod.tool("del", "1.0.0")


def test_check_sees_another_sandbox(lab):
    """Of the same pod: the older one is not the pod's any more."""
    lab.make_pod("twice")
    with Sandbox(lab, "twice") as old, Sandbox(lab, "twice", netns="test-twice-new") as new:
        old.tool("add", "0.4.0")
        old.tool("check", "0.4.0")
        new.tool("add", "0.4.0")
        new.tool("check", "0.4.0")
        assert "another sandbox of that name" in old.tool("check", "0.4.0", check=False).stderr
        old.tool("del", "0.4.0")
        new.tool("check", "0.4.0")
        new.tool("del", "0.4.0")


def test_add_fails_where_the_api_knows_no_such_pod(lab):
    """In an enforced namespace nobody is taken for a pod because somebody says so."""
    with Sandbox(lab, "nobody") as pod:
        done = pod.tool("add", "1.0.0", check=False)
        assert done.returncode != 0 and "it is not known yet" in done.stderr
        assert lab.enrolled() == []
        pod.tool("del", "1.0.0")


# ---- ctr run --cni ----

class Container:
    """What `ctr run --cni` makes, for the length of the block; ctr leaves what it could not start. It tries the
    internet first of all."""

    def __init__(self, lab, name, conf=None):
        self.lab, self.name = lab, name
        run = ["ctr", "-n", "k8s.io", "run", "--rm", "--cni", CLIENT, name, "first", OUTSIDE, "80"]
        if conf:  # ctr knows one folder alone
            folder = f"{FOLDER}/ctr"
            lab.write(f"{folder}/10-lab.conflist", conf)
            run = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/cni/net.d && exec "$@"', folder, *run]
        self.run = run

    def __enter__(self):
        return self.lab.node.exec(self.run, check=False)

    def __exit__(self, *exc):
        self.lab.node.sh('for what in tasks containers snapshots; do ctr -n k8s.io $what rm $([ $what != tasks ] ||'
                         ' echo -f) "$1"; done', self.name, check=False)


def test_ctr_with_the_nodes_own_network(lab, no_leaks):
    """Nobody says which pod it is: it is not started."""
    with Container(lab, "unnamed") as done:
        assert done.returncode != 0 and "no pod is named" in done.stderr
        assert "first:" not in done.stdout


def test_ctr_in_an_enforced_namespace(lab, no_leaks):
    """Named after its id in the namespace that the network gives: held from its first process on."""
    with Container(lab, "held", conflist("1.0.0", defaultNamespace="lab")) as done:
        assert done.stdout.startswith("first: after") and "200 OK" not in done.stdout, done
        assert lab.enrolled() == []
    wait_for(lambda: lab.records() == [], 20, "nothing of it is left")


def test_ctr_in_a_namespace_that_is_not_enforced(cluster, lab, namespace):
    """It passes, as the node's other containers do."""
    with Container(lab, "free", conflist("1.0.0", defaultNamespace=namespace)) as done:
        assert "200 OK" in done.stdout, done
