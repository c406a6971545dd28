# SPDX-License-Identifier: Apache-2.0
"""The way of a user, on three real nodes: install, enforce, register, upgrade, fail, uninstall. The tests are
in the order in which they happen; the last one takes everything away."""
import json
import time

import pytest

import servers
from pods import Pod, last_words
from procs import wait_for
from sluice import ENFORCED, GATEWAYS, NAMESPACE, Sluice, footprint

NODES = ("n1", "n2", "n3")
OUTSIDE = servers.SITES["foreign"][0]
WWW = "https://www.example.com"
UNRECOGNIZED = 35  # curl: the handshake failed; which alert is in its words


class Installed:
    """Sluice, what the nodes were like before, and pods from before."""

    def __init__(self, cluster):
        self.cluster = cluster
        if cluster.get("namespace", NAMESPACE, missing_ok=True):
            Sluice(cluster).uninstall()  # of other tests
        cluster.make_namespace("early", **ENFORCED)
        self.early = {node: cluster.pod(f"early-{node}", node, "early", restartPolicy="Always") for node in NODES}
        for pod in self.early.values():  # kube-proxy has done its part on every node, too
            wait_for(lambda p=pod: p.curl(WWW + "/").status == 200, 20, f"{pod.name} is free")
        self.before = {name: footprint(node) for name, node in cluster.nodes.items()}
        self.sluice = Sluice(cluster).install()


@pytest.fixture(scope="module")
def installed(cluster):
    return Installed(cluster)


@pytest.fixture(scope="module")
def sluice(installed):
    return installed.sluice


@pytest.fixture
def public_ip(cluster):
    return cluster.nodes["n3"].public_ip


@pytest.fixture
def no_leaks(cluster, installed, public_ip):
    """Nothing that happens during the test reaches the internet but by the gateway."""
    with cluster.internet.capture() as capture:
        yield capture
        assert cluster.internet.leaks(capture, gateways=[public_ip]) == []


@pytest.fixture
def enforced(cluster, namespace, installed):
    """A namespace for one test, enforced before its first pod."""
    cluster.kubectl("label", "namespace", namespace, "sluice.io/egress=enforced")
    return namespace


def is_refused(got):
    return got.code == UNRECOGNIZED and "unrecognized name" in got.error


def wait_allowed(pod, url, seen_from, within):
    """Until a request works; every answer came by the gateway."""
    def allowed():
        got = pod.curl(url, timeout=3)
        assert got.seen_from in ("", seen_from), got
        return got.status == 200
    wait_for(allowed, within, f"{pod.name} reaches {url}")


def wait_refused(pod, url, within):
    wait_for(lambda: is_refused(pod.curl(url, timeout=3)), within, f"{pod.name} is refused {url}")


def open_connection(pod, name):
    """An idle one, that has been verified; when it ends, /tmp/ended is there."""
    script = """mkfifo /tmp/stay
        connect() { openssl s_client -quiet -connect "$1:443" -servername "$1" </tmp/stay >/tmp/said 2>&1; }
        (sleep 1000 >/tmp/stay & connect "$1"; touch /tmp/ended) </dev/null >/dev/null 2>&1 &"""
    pod.exec("sh", "-c", script, "sh", name)
    wait_for(lambda: "verify return:1" in pod.exec("cat", "/tmp/said", check=False).stdout, 10,
             f"{pod.name} is connected to {name}")


# ---- what the API server says ----

def test_the_api_server_objects_to_nothing(cluster, sluice):
    """It neither warned of a manifest, nor refused or called deprecated what agents and gateways asked when they
    started; but streaming lists where it has none, and only there were others asked for."""
    assert sluice.warnings == []
    asked = sluice.asked
    assert {one["user"]["username"].split(":")[-1] for one in asked} == {"sluice-node", "sluice-gateway"}
    assert [one for one in asked if one.get("annotations", {}).get("k8s.io/deprecated") == "true"] == []
    streams = [one for one in asked if "sendInitialEvents=true" in one["requestURI"]]
    others = [one for one in asked if one not in streams]
    assert [one for one in others if one["responseStatus"]["code"] >= 400] == []
    has_streams = cluster.version >= (1, 34)
    assert {one["responseStatus"]["code"] for one in streams} == {200 if has_streams else 422}
    assert any(one["verb"] == "list" for one in others) != has_streams


# ---- pods from before ----

@pytest.mark.parametrize("node", NODES)
def test_a_pod_from_before_the_install_is_held(installed, sluice, no_leaks, node):
    """Found while it runs, and enrolled without a restart."""
    pod = installed.early[node]
    sluice.wait_enrolled(pod, node)
    assert is_refused(pod.curl(WWW + "/")), node
    assert pod.get()["status"]["containerStatuses"][0]["restartCount"] == 0


def test_static_pods(cluster, sluice, namespace, public_ip):
    """Of a node's own files: the API has other uids for them than the kubelet. One from before its namespace
    was enforced is found, one of later is enrolled before it starts."""
    node = cluster.nodes["n1"]

    def start(name):
        node.put_static_pod(name, Pod(cluster, name, namespace).manifest(restartPolicy="Always"))
        pod = Pod(cluster, f"{name}-n1", namespace)
        wait_for(lambda: cluster.get("pod", pod.name, namespace, missing_ok=True), 30, f"{pod.name} is in the API")
        return pod.wait_ready()

    try:
        early = start("early")
        assert early.curl(WWW + "/").seen_from == node.leak_address
        sluice.enforce(namespace)
        wait_refused(early, WWW + "/", within=20)
        with cluster.internet.capture() as capture:
            late = start("late")
            assert is_refused(late.curl(WWW + "/"))
            sluice.register("www", namespace, ["www.example.com"])
            for pod in (early, late):
                wait_allowed(pod, WWW + "/", public_ip, within=5)
            sluice.deregister("www", namespace)  # else the next test's host is one of this namespace
            wait_refused(early, WWW + "/", within=5)
            assert cluster.internet.leaks(capture, gateways=[public_ip]) == []
    finally:
        for name in ("early", "late"):
            node.put_static_pod(name, None)


# ---- the walk ----

def test_the_walk(cluster, sluice, namespace, public_ip):
    """Open at first; enforced: refused, with an Event; registered: by the gateway; deleted: closed again,
    what was open too."""
    pod = cluster.pod("web", "n1", namespace)
    assert pod.curl(WWW + "/").seen_from == cluster.nodes["n1"].leak_address

    sluice.enforce(namespace)
    wait_refused(pod, WWW + "/", within=10)
    with cluster.internet.capture() as capture:
        assert is_refused(pod.curl(WWW + "/refused"))
        wait_for(lambda: [about for about, said in sluice.events(namespace, "EgressDenied")
                          if "www.example.com" in said and "host_not_registered" in said] == ["web"], 10,
                 "the pod has an Event that names host and reason", interval=0.2)

        sluice.register("www", namespace, ["www.example.com"])
        wait_allowed(pod, WWW + "/", public_ip, within=2)

        open_connection(pod, "www.example.com")
        sluice.deregister("www", namespace)
        wait_refused(pod, WWW + "/", within=2)
        wait_for(lambda: pod.exec("ls", "/tmp/ended", check=False).returncode == 0, 5,
                 "the live connection was ended")
        assert cluster.internet.leaks(capture, gateways=[public_ip]) == []


# ---- what a person asks ----

def test_kubectl_sluice(cluster, sluice, enforced, no_leaks):
    """Across the nodes: pods, hosts, open connections, and what would be decided."""
    web = {node: cluster.pod(f"web-{node}", node, enforced) for node in NODES}
    sluice.register("www", enforced, ["www.example.com"])
    wait_allowed(web["n2"], WWW + "/", cluster.nodes["n3"].public_ip, within=5)
    open_connection(web["n2"], "www.example.com")

    def told(*words):
        done = sluice.kubectl_sluice("--json", *words)
        assert done.returncode == 0, done.stderr
        return {line["node"]: line["answer"] for line in map(json.loads, done.stdout.splitlines())}

    pods = told("pods")
    assert {node: [p["pod"] for p in found if p["namespace"] == enforced] for node, found in pods.items()} == \
        {node: [f"web-{node}"] for node in NODES}
    wait_for(lambda: all("www.example.com" in json.dumps(found) for found in told("registry").values()), 5,
             "all agents know it")
    assert list(told("--gateways", "registry")) == ["n3"]
    assert [c["authority"] for c in told("connections")["n2"]] == ["www.example.com"]

    def check(host):
        return sluice.kubectl_sluice("check", host, "--pod", f"{enforced}/web-n2").returncode
    assert (check("www.example.com:443"), check("other.example.com:443")) == (0, 3)
    assert sluice.kubectl_sluice("pods", "--node", "n9").returncode != 0


def test_who_may_get_around_it_is_named(cluster, sluice, enforced):
    manifest = Pod(cluster, "admin", enforced).manifest("n2")
    manifest["spec"]["containers"][0]["securityContext"] = {"capabilities": {"add": ["NET_ADMIN"]}}
    cluster.apply(manifest, Pod(cluster, "web", enforced).manifest("n2"))
    wait_for(lambda: sluice.events(enforced, "EgressNotConfined"), 30, "there is an Event", interval=0.2)
    assert [about for about, said in sluice.events(enforced, "EgressNotConfined") if "NET_ADMIN" in said] == ["admin"]


# ---- what can be registered ----

def test_a_wildcard(cluster, sluice, enforced, no_leaks, public_ip):
    pod = cluster.pod("web", "n2", enforced)
    sluice.register("wild", enforced, ["*.wild.example.org"])
    wait_allowed(pod, "https://a.wild.example.org/", public_ip, within=5)
    assert pod.curl("https://a.b.wild.example.org/", "-k").status == 200
    assert is_refused(pod.curl("https://wild.example.org/"))


def test_another_namespace_keeps_its_hosts(cluster, sluice, enforced, no_leaks, public_ip):
    """exportTo is one dot: for its own namespace alone."""
    cluster.make_namespace("owner", **ENFORCED)
    owner, stranger = cluster.pod("web", "n1", "owner"), cluster.pod("web", "n1", enforced)
    sluice.register("own", "owner", ["api.example.com"])
    wait_allowed(owner, "https://api.example.com/", public_ip, within=5)
    assert is_refused(stranger.curl("https://api.example.com/"))
    cluster.kubectl("delete", "namespace", "owner", "--wait=false")


def test_plain_http(cluster, sluice, enforced, no_leaks, public_ip):
    """By its Host; what is not registered gets an answer that says so."""
    pod = cluster.pod("web", "n2", enforced)
    sluice.register("plain", enforced, ["plain.example.com"], ports=[(80, "HTTP")])
    wait_allowed(pod, "http://plain.example.com/", public_ip, within=5)
    got = pod.curl("http://unregistered.example.com/")
    assert got.status == 403 and "unregistered.example.com" in got.body, got


def test_a_database_by_address(cluster, sluice, enforced, no_leaks):
    """The server speaks first or not at all: there is no name to read."""
    cluster.internet.start_postgres()
    pod = cluster.pod("web", "n1", enforced)
    ask = ("psql", "-h", servers.DB, "-U", "demo", "-d", "postgres", "-Atc", "select 6*7")
    assert pod.exec(*ask, check=False).returncode != 0
    sluice.register("db", enforced, ["db.example.com"], ports=[(5432, "TCP")],
                    addresses=[servers.DB], resolution="STATIC", endpoints=[{"address": servers.DB}])
    wait_for(lambda: pod.exec(*ask, check=False).stdout == "42\n", 10, "the database answers")


# ---- the first millisecond ----

def test_a_hundred_first_processes(cluster, enforced, no_leaks):
    """Created in a burst on all nodes, each tries the internet before anything else: none gets out."""
    served = cluster.internet.requests(uri="/first")
    cluster.apply(*(Pod(cluster, f"first-{i}", enforced).manifest(NODES[i % 3], cmd=("first", OUTSIDE, 80))
                    for i in range(100)))
    wait_for(lambda: {pod["status"]["phase"] for pod in cluster.list("pod", enforced)} == {"Succeeded"}, 240,
             "all have made their attempt", interval=1)
    said = [last_words(pod) for pod in cluster.list("pod", enforced)]
    assert [text for text in said if not text.startswith("first: after") or "200 OK" in text] == []
    assert cluster.internet.requests(uri="/first") == served


# ---- trouble ----

def test_a_killed_agent(cluster, sluice, enforced, no_leaks, public_ip):
    """While there is none, nothing gets out; when it is back, what is registered does."""
    pod = cluster.pod("web", "n1", enforced)
    sluice.register("www", enforced, ["www.example.com"])
    wait_allowed(pod, WWW + "/", public_ip, within=5)
    sluice.kill_agent("n1")
    for _ in range(5):
        assert pod.curl(f"http://{OUTSIDE}/", timeout=2).seen_from == ""
    sluice.wait_ready()
    wait_allowed(pod, WWW + "/", public_ip, within=20)


def test_an_upgrade(cluster, sluice, enforced, no_leaks, public_ip):
    """Agents are replaced while a pod tries to get out all the time."""
    pod = cluster.pod("web", "n2", enforced)
    sluice.register("www", enforced, ["www.example.com"])
    wait_allowed(pod, WWW + "/", public_ip, within=5)
    pod.exec("sh", "-c", f"(while :; do first {OUTSIDE} 80; sleep 0.01; done) >/tmp/tries 2>&1 </dev/null &")
    before = sluice.agent_pod("n2")
    cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "daemonset/sluice-node")
    sluice.wait_ready()
    assert sluice.agent_pod("n2") != before
    tries = pod.exec("cat", "/tmp/tries")
    assert tries.count("first: after") >= 3 and "200 OK" not in tries
    wait_allowed(pod, WWW + "/", public_ip, within=20)


def test_a_node_reboots(cluster, sluice, enforced, no_leaks, public_ip):
    """A pod that the kubelet starts again is held from its first process on."""
    loop = f"first {OUTSIDE} 80 >>/tmp/tries; sleep 1000000"
    pod = cluster.pod("web", "n1", enforced, cmd=("sh", "-c", loop), restartPolicy="Always")
    sluice.register("www", enforced, ["www.example.com"])
    wait_allowed(pod, WWW + "/", public_ip, within=5)
    cluster.nodes["n1"].reboot()
    wait_for(lambda: pod.get()["status"]["containerStatuses"][0]["restartCount"] >= 1, 120,
             "the pod is started again", interval=0.5)
    sluice.wait_ready()
    pod.wait_ready()
    tries = wait_for(lambda: (text := pod.exec("cat", "/tmp/tries", check=False).stdout) and
                     text.endswith("\n") and text, 20, "its first process has tried")
    assert "first: after" in tries and "200 OK" not in tries
    wait_allowed(pod, WWW + "/", public_ip, within=20)


def test_the_runtime_restarts(cluster, sluice, enforced, no_leaks, public_ip):
    """containerd and kubelet, one after the other: what is enrolled stays so, what is new becomes so."""
    pod = cluster.pod("web", "n2", enforced)
    sluice.register("www", enforced, ["www.example.com"])
    wait_allowed(pod, WWW + "/", public_ip, within=5)
    cluster.nodes["n2"].restart("containerd", "KILL")
    cluster.nodes["n2"].restart("kubelet")
    later = cluster.pod("later", "n2", enforced)
    for one in (pod, later):
        assert one.curl("https://api.example.com/").status == 0
        wait_allowed(one, WWW + "/", public_ip, within=20)


def test_the_api_server_is_away(cluster, sluice, enforced, no_leaks, public_ip):
    """For a minute: what is registered goes on, what is not stays out, and a pod that is started anew meanwhile,
    again and again, in a new network namespace each time, is held from its first process on."""
    node = cluster.nodes["n1"]
    pod = cluster.pod("web", "n1", enforced, restartPolicy="Always",
                      cmd=("sh", "-c", f"first {OUTSIDE} 80 >/tmp/tries; sleep 1000000"))
    sluice.register("www", enforced, ["www.example.com"])
    wait_allowed(pod, WWW + "/", public_ip, within=5)
    cluster.stop_api()
    until, starts = time.monotonic() + 60, 0
    try:
        assert f'"client":"{public_ip}"' in pod.exec_on(node, "curl", "-sS", "-m", "3", WWW + "/")
        while time.monotonic() < until or starts == 0:
            before = pod.ids_on(node, "container")
            node.exec(["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "KILL", *pod.ids_on(node, "sandbox")])
            wait_for(lambda old=before: "first: after" in pod.exec_on(node, "cat", "/tmp/tries", other_than=old),
                     120, "the pod is started anew")
            assert "200 OK" not in pod.exec_on(node, "cat", "/tmp/tries", other_than=before)
            assert f'"client":"{public_ip}"' in \
                pod.exec_on(node, "curl", "-sS", "-m", "3", WWW + "/", other_than=before)
            starts += 1
    finally:
        cluster.start_api()
    wait_allowed(pod, WWW + "/", public_ip, within=20)


@pytest.fixture
def two_gateways(cluster, sluice):
    """The second one on n2. Returns the addresses of both."""
    cluster.kubectl("label", "node", "n2", "sluice.io/egress-gateway=true")
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment/egressgateway", "--replicas=2")
    sluice.wait_ready()
    yield {cluster.nodes[node].public_ip for node in ("n2", "n3")}
    # The one on n3 stays: a pod on a node that is no gateway's any more is not wanted.
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment/egressgateway", "--replicas=1")
    cluster.kubectl("label", "node", "n2", "sluice.io/egress-gateway-")
    for pod in cluster.list("pod", NAMESPACE, GATEWAYS):
        if pod["spec"].get("nodeName") == "n2":
            cluster.kubectl("-n", NAMESPACE, "delete", "pod", pod["metadata"]["name"], "--ignore-not-found")
    sluice.wait_ready()


def test_a_gateway_goes(cluster, sluice, enforced, two_gateways):
    """One of two is deleted: new connections work again within a second."""
    pod = cluster.pod("web", "n1", enforced)
    sluice.register("www", enforced, ["www.example.com"])
    with cluster.internet.capture() as capture:
        wait_for(lambda: {pod.curl(WWW + "/").seen_from for _ in range(8)} == two_gateways, 30,
                 "both gateways are used")
        script = (f"for i in $(seq 100); do at=$(cut -d' ' -f1 /proc/uptime);"
                  f" curl -sS -m 1 -o /dev/null {WWW}/ >/dev/null 2>&1; echo $? $at; sleep 0.05; done >/tmp/gaps")
        pod.exec("sh", "-c", f"({script}) </dev/null >/dev/null 2>&1 &")
        victim = cluster.list("pod", NAMESPACE, GATEWAYS)[0]["metadata"]["name"]
        cluster.kubectl("-n", NAMESPACE, "delete", "pod", victim, "--wait=false")
        wait_for(lambda: pod.exec("sh", "-c", "wc -l </tmp/gaps", check=False).stdout.strip() == "100", 120,
                 "all attempts are made", interval=0.5)
        assert longest_gap(pod.exec("cat", "/tmp/gaps")) < 1
        assert cluster.internet.leaks(capture, gateways=two_gateways) == []


def longest_gap(lines):
    """Of "exit-code uptime-at-its-beginning" lines: seconds from the first failure of a row to the last."""
    longest, failed_at = 0.0, None
    for code, at in (line.split() for line in lines.splitlines()):
        if code == "0":
            failed_at = None
            continue
        if failed_at is None:
            failed_at = float(at)
        longest = max(longest, float(at) - failed_at)
    assert failed_at is None, "the last attempts failed"
    return longest


def test_the_primary_cni_rewrites_its_file(cluster, installed, sluice, enforced, no_leaks):
    """Our entry comes back, and the next pod is held."""
    node = cluster.nodes["n2"]
    assert "sluice-cni" in node.sh(f"cat {node.CONFLIST}")
    original = installed.before["n2"]["CNI configuration"].partition("\n")[2]
    node.sh(f'printf %s "$1" >{node.CONFLIST}.new && mv {node.CONFLIST}.new {node.CONFLIST}', original)
    wait_for(lambda: "sluice-cni" in node.sh(f"cat {node.CONFLIST}"), 10, "our entry is back")
    assert is_refused(cluster.pod("web", "n2", enforced).curl(WWW + "/"))


# ---- the end ----

def test_uninstall_leaves_the_nodes_as_they_were(cluster, installed, sluice):
    """And pods are free again, those from before too."""
    sluice.uninstall()
    for name, node in cluster.nodes.items():
        after = footprint(node)
        for what, text in installed.before[name].items():
            assert after[what] == text, f"{name}: {what}"
    for name, pod in installed.early.items():
        seen = []

        def is_free(pod=pod, want=cluster.nodes[name].leak_address, seen=seen):
            seen.append(pod.curl(WWW + "/"))
            return seen[-1].seen_from == want
        try:
            wait_for(is_free, 30)
        except TimeoutError:
            raise AssertionError(f"{pod.name} is not free again: {seen[-1]}") from None
    cluster.kubectl("delete", "namespace", "early", "--wait=false")
