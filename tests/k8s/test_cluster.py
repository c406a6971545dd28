# SPDX-License-Identifier: Apache-2.0
"""What all other tests here rely on: a real cluster, from which a pod's packet can leave by every node and is
seen in the internet, and whose parts can fail one by one."""
import socket

import pytest

import servers
from internet import WWW
from procs import wait_for

NODES = ("n1", "n2", "n3")
# Not registered anywhere; nginx answers on it by address.
OUTSIDE = servers.SITES["foreign"][0]
# Where it is about something else than the cluster's DNS, which is a pod like others.
BY_ADDRESS = ("--resolve", f"www.example.com:443:{WWW}")


@pytest.fixture(scope="module")
def pods(cluster):
    """One pod a node, in a namespace of their own."""
    cluster.make_namespace("harness")
    made = {node: cluster.pod(f"on-{node}", node, "harness", wait=False) for node in NODES}
    for pod in made.values():
        pod.wait_ready()
    yield made
    cluster.kubectl("delete", "namespace", "harness", "--wait=false")


def test_all_nodes_are_ready(cluster):
    nodes = {node["metadata"]["name"]: node["status"] for node in cluster.list("node")}
    assert sorted(nodes) == list(NODES)
    for name, status in nodes.items():
        ready = [c["status"] for c in status["conditions"] if c["type"] == "Ready"]
        assert ready == ["True"], name
        assert {"type": "InternalIP", "address": cluster.nodes[name].address} in status["addresses"]


@pytest.mark.parametrize("node", NODES)
def test_a_leak_from_every_node_works_and_is_seen(cluster, pods, node):
    """By name, over https: DNS, trust, routes and translation are all there."""
    leaks_from = cluster.nodes[node].leak_address
    with cluster.internet.capture() as capture:
        got = pods[node].curl(f"https://www.example.com/from-{node}")
        assert (got.status, got.seen_from) == (200, leaks_from), got
        leaked = cluster.internet.leaks(capture, gateways=[cluster.nodes["n3"].public_ip])
    assert {(packet.src, packet.dst, packet.dport) for packet in leaked} == {(leaks_from, WWW, 443)}
    assert [seen["client"] for seen in cluster.internet.requests(uri=f"/from-{node}")] == [leaks_from]


def test_a_leak_over_ipv6_is_seen(cluster, pods):
    got = pods["n1"].curl("https://v6only.example.com/")
    assert (got.status, got.seen_from) == (200, "2001:db8:113::11"), got


def test_a_datagram_is_seen(cluster, pods):
    with cluster.internet.capture() as capture:
        pods["n2"].exec("first", OUTSIDE, 5000)
        leaked = cluster.internet.leaks(capture, gateways=())
    assert (cluster.nodes["n2"].leak_address, OUTSIDE, socket.IPPROTO_UDP, 5000) in \
        {(packet.src, packet.dst, packet.proto, packet.dport) for packet in leaked}


def test_the_public_node_sends_from_the_public_ip(cluster):
    """Not from the address that its pods leak from."""
    node = cluster.nodes["n3"]
    # The server closes first: what its FIN is answered by has left when curl ends.
    said = node.exec(["curl", "-sS", "-H", "Host: www.example.com", "-H", "Connection: close", f"http://{WWW}/"]).stdout
    assert f'"client":"{node.public_ip}"' in said and node.public_ip != node.leak_address


def test_the_nodes_resolver_is_no_leak(cluster, pods):
    """Names are asked of the cluster's DNS; what arrives is the resolver's."""
    with cluster.internet.capture() as capture:
        assert WWW in pods["n1"].exec("nslookup", "www.example.com")
        assert cluster.internet.leaks(capture, gateways=()) == []
        assert capture.packets(dport=53), "no look-up arrived at all"


@pytest.mark.parametrize("node", NODES)
def test_a_pod_reaches_pods_of_all_nodes(cluster, pods, node):
    """By address; the other side sees the pod's own."""
    pods[node].exec("sh", "-c", "echo hello >/tmp/index.html && httpd -p 8080 -h /tmp")
    ip = pods[node].ip
    for other in NODES:
        assert pods[other].exec("curl", "-sS", f"http://{ip}:8080/") == "hello\n", other


def test_a_service_reaches_its_pods(cluster, pods):
    """kube-proxy translates a ClusterIP, from every node."""
    pods["n2"].exec("sh", "-c", "echo service >/tmp/service; httpd -p 8081 -h /tmp")
    cluster.apply({"apiVersion": "v1", "kind": "Service",
                   "metadata": {"name": "web", "namespace": "harness"},
                   "spec": {"selector": {"app": "on-n2"}, "ports": [{"port": 80, "targetPort": 8081}]}})
    ip = cluster.get("service", "web", "harness")["spec"]["clusterIP"]
    for node in NODES:
        wait_for(lambda n=node: pods[n].exec("curl", "-sS", "-m", "2", f"http://{ip}/service",
                                             check=False).stdout == "service\n", 20,
                 f"{node} reaches the Service")


def test_the_first_process_of_a_pod_gets_out(cluster, namespace):
    """It tries within its first milliseconds, and says what came back."""
    pod = cluster.pod("first", "n1", namespace, cmd=("first", OUTSIDE, 80), wait=False)
    wait_for(lambda: pod.get()["status"]["phase"] == "Succeeded", 30, "the pod ends", interval=0.2)
    said = pod.last_words()
    assert "connect: 0 (Success), answer: HTTP/1.1 200 OK" in said
    assert int(said.split()[2]) < 10000, said
    assert [seen["client"] for seen in cluster.internet.requests(uri="/first")] == \
        [cluster.nodes["n1"].leak_address]


def test_the_api_server_stops_and_starts(cluster, pods):
    """Pods go on without it, and the cluster goes on after it."""
    cluster.stop_api()
    try:
        assert cluster.kubectl("get", "nodes", check=False, timeout=30).returncode != 0
        node = cluster.nodes["n1"]
        assert node.exec(["ctr", "-n", "k8s.io", "tasks", "ls"]).stdout.count("RUNNING") >= 2
    finally:
        cluster.start_api()
    cluster.pod("after-the-api-server", "n1", "harness").delete()
    assert pods["n1"].curl("https://www.example.com/", *BY_ADDRESS).status == 200


@pytest.mark.parametrize("service, sig", (("containerd", "KILL"), ("kubelet", "TERM"),
                                          ("kube-proxy", "TERM")))
def test_a_service_of_a_node_starts_again(cluster, pods, service, sig):
    """Pods that run go on, new ones start."""
    cluster.nodes["n1"].restart(service, sig)
    cluster.pod(f"after-{service}", "n1", "harness").delete()
    assert pods["n1"].curl("https://www.example.com/", *BY_ADDRESS).status == 200


def test_a_node_reboots(cluster, namespace):
    """Everything in memory is gone, the disk is kept; the other nodes do not notice."""
    node = cluster.nodes["n2"]
    witness = cluster.pod("witness", "n1", namespace)
    pod = cluster.pod("survivor", "n2", namespace)
    before = pod.get()["metadata"]["uid"]
    node.sh("touch /var/lib/kept /run/lost; nft add table inet lost; ip link add lost type bridge;"
            "mkdir /sys/fs/bpf/lost")

    node.reboot()

    assert node.sh("ls /var/lib/kept; ls -d /run/lost /sys/fs/bpf/lost 2>/dev/null || true").split() == \
        ["/var/lib/kept"]
    assert "lost" not in node.sh("nft list tables; ip link")
    wait_for(lambda: pod.get()["status"]["phase"] in ("Succeeded", "Failed"), 60,
             "the pod is known to have ended", interval=0.2)
    assert pod.get()["metadata"]["uid"] == before
    got = cluster.pod("later", "n2", namespace).curl("https://www.example.com/")
    assert got.seen_from == node.leak_address, got
    assert witness.curl("https://www.example.com/").status == 200


def test_a_node_starts_its_pods_again(cluster, namespace):
    """What is to be restarted is, in a new network namespace with routes that work."""
    pod = cluster.pod("again", "n3", namespace, restartPolicy="Always")
    cluster.nodes["n3"].reboot()
    wait_for(lambda: pod.get()["status"]["containerStatuses"][0]["restartCount"] >= 1, 60,
             "the pod is started again", interval=0.2)
    pod.wait_ready()
    got = pod.curl("https://www.example.com/")
    assert got.seen_from == cluster.nodes["n3"].leak_address, got


def test_nothing_of_a_node_reaches_the_machine(cluster):
    """Its disk and its cgroups are its own."""
    node = cluster.nodes["n1"]
    node.sh("touch /etc/of-the-node /opt/cni/bin/of-the-node /usr/lib/of-the-node")
    for path in ("/etc/of-the-node", "/opt/cni/bin/of-the-node", "/usr/lib/of-the-node"):
        assert (node.root / path.lstrip("/")).exists()
        assert node.sh(f"rm {path}; ls {path} 2>/dev/null || true") == ""
    cgroups = node.sh("cat /proc/1/cgroup").splitlines()
    assert cgroups and all(line.endswith(":/") for line in cgroups)
