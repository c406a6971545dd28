# SPDX-License-Identifier: Apache-2.0
"""Sluice on a cluster, by the manifests in deploy/ as users apply them."""
import os

from cluster import BUILD, REPO
from procs import wait_for

ARCHIVE = BUILD / "sluice-image.tar"
DEPLOY = REPO / "deploy"
NAMESPACE = "sluice-system"
AGENTS, GATEWAYS = "app.kubernetes.io/name=sluice-node", "app.kubernetes.io/name=sluice-gateway"
GATEWAY_LABEL = "sluice.io/egress-gateway"
ENFORCED = {"sluice.io/egress": "enforced"}


def entry(name, namespace, hosts, ports=((443, "TLS"),), **spec):
    """A ServiceEntry for its own namespace; each port is (number, protocol)."""
    ports = [{"number": number, "name": f"{protocol.lower()}-{number}", "protocol": protocol}
             for number, protocol in ports]
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"hosts": list(hosts), "ports": ports, "resolution": "NONE", "exportTo": ["."]} | spec}


class Sluice:
    def __init__(self, cluster):
        self.cluster = cluster
        self.warnings = []  # what the API server said of the manifests
        self.asked = []     # what was asked of it until all were ready; see Cluster.asked
        overlay = "labelled-namespaces" if cluster.version >= (1, 21) else "kubernetes-1.20"
        self.overlay = DEPLOY / "overlays" / overlay

    # ---- as in deploy/README.md ----

    def install(self, gateways=("n3",)):
        cluster = self.cluster
        before = len(cluster.asked())
        for node in cluster.nodes.values():
            node.import_image(ARCHIVE)
        for node in gateways:
            cluster.kubectl("label", "node", node, f"{GATEWAY_LABEL}=true", "--overwrite")
        self._apply(DEPLOY / "crds")
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s",
                        "crd/serviceentries.networking.istio.io")
        self._apply(self.overlay)
        self.wait_ready()
        self.asked = cluster.asked()[before:]
        return self

    def _apply(self, folder):
        done = self.cluster.kubectl("apply", "-k", folder, check=False)
        assert done.returncode == 0, done.stderr
        self.warnings += [line for line in done.stderr.splitlines() if line.startswith("Warning:")]

    def wait_ready(self):
        for what in ("daemonset/sluice-node", "deployment/egressgateway"):
            self.cluster.kubectl("-n", NAMESPACE, "rollout", "status", what, "--timeout=120s", timeout=130)
        return self

    def uninstall(self):
        run = self.cluster.kubectl
        run("-n", NAMESPACE, "delete", "daemonset", "sluice-node", "--ignore-not-found")
        run("apply", "-k", DEPLOY / "uninstall")
        run("-n", NAMESPACE, "rollout", "status", "daemonset/sluice-uninstall", "--timeout=120s", timeout=130)
        run("delete", "-k", DEPLOY / "uninstall")
        run("delete", "-k", self.overlay, "--ignore-not-found")
        run("delete", "-k", DEPLOY / "crds", "--ignore-not-found")
        run("label", "node", "--all", f"{GATEWAY_LABEL}-")

    # ---- using it ----

    def enforce(self, namespace):
        self.cluster.kubectl("label", "namespace", namespace, "sluice.io/egress=enforced", "--overwrite")

    def register(self, name, namespace, hosts, **spec):
        self.cluster.apply(entry(name, namespace, hosts, **spec))

    def deregister(self, name, namespace):
        self.cluster.kubectl("-n", namespace, "delete", "serviceentry", name)

    def events(self, namespace, reason):
        """Messages, by the name of the object that they are about."""
        events = self.cluster.list("event", namespace)
        return [(event["involvedObject"]["name"], event["message"]) for event in events
                if event["reason"] == reason]

    # ---- seeing it ----

    def agent_pod(self, node):
        """Name of the node agent's pod there."""
        return next(pod["metadata"]["name"] for pod in self.cluster.list("pod", NAMESPACE, AGENTS)
                    if pod["spec"]["nodeName"] == node and "deletionTimestamp" not in pod["metadata"])

    def ctl(self, node, *args):
        """sluicectl in the node's agent."""
        return self.cluster.kubectl("-n", NAMESPACE, "exec", self.agent_pod(node), "-c", "agent", "--",
                                    "/usr/bin/sluicectl", *args)

    def kubectl_sluice(self, *words):
        """`kubectl sluice`, as whoever administers the cluster runs it; a subprocess.CompletedProcess."""
        cluster = self.cluster
        return cluster.fabric.run([DEPLOY / "kubectl-sluice", f"--kubeconfig={cluster.kubeconfig}", *words],
                                  env=os.environ | {"KUBECTL": str(cluster.programs / "bin/kubectl")}, timeout=60)

    def wait_enrolled(self, pod, node, timeout=20):
        wait_for(lambda: [pod.namespace, pod.name] in
                 [line.split()[:2] for line in self.ctl(node, "pods").splitlines()], timeout,
                 f"{pod.namespace}/{pod.name} is enrolled on {node}", interval=0.2)

    def kill_agent(self, node):
        """SIGKILL; the kubelet starts it again."""
        self.cluster.nodes[node].sh("pkill -KILL -x sluice-agent")


# ---- what an installation leaves ----

FOOTPRINT = {
    "nftables": "nft -s list ruleset",
    "legacy iptables": "iptables-legacy-save | grep -v '^#'; ip6tables-legacy-save | grep -v '^#'",
    "rules": "ip -4 rule; ip -6 rule",
    "routes": "{ ip -4 route show table all; ip -6 route show table all; } | grep -Ev 'fe80|veth'",
    "links": "ip -o link | cut -d: -f2 | cut -d@ -f1 | grep -v veth",
    "queueing disciplines": "tc qdisc show | grep clsact",
    "BPF programs on cgroups": "bpftool cgroup tree /sys/fs/cgroup/unified 2>/dev/null",
    "pins": "find /sys/fs/bpf -mindepth 1 ! -type d",
    "plugins": "cd /opt/cni/bin && sha256sum *",
    "CNI configuration": "cd /etc/cni/net.d && stat -c '%n %a' * && cat *",
    "files": "find /run/sluice /var/lib/sluice ! -type d 2>/dev/null",
}


def _others_rules(ruleset):
    """Each line with its table and chain, in no order: kubelet and kube-proxy make theirs anew, in another order,
    whenever they start. What is in chains of Kubernetes' own is left out."""
    table, chain, found = "", "", set()
    for line in map(str.strip, ruleset.splitlines()):
        if line.startswith("table "):
            table, chain = line, ""
        elif line.startswith(("chain ", "set ", "map ")):
            chain = line
        if line not in ("", "}") and not chain.startswith("chain KUBE-"):
            found.add(f"{table} {chain} {line}")
    return "\n".join(sorted(found))


def footprint(node):
    """What Sluice could leave on a node, apart from empty folders: a text for each kind of thing."""
    found = {what: node.sh(f"{script} || true") for what, script in FOOTPRINT.items()}
    return found | {"nftables": _others_rules(found["nftables"])}
