# SPDX-License-Identifier: Apache-2.0
"""What operators see: access logs, metrics, sluicectl."""
import json
import re
import uuid

import pytest
import servers
from agents import CTL
from wire import Wire, client_hello
from world import GATEWAY_IPS, wait_for

WWW = servers.WWW[0]
FIELDS = {
    "start_time", "protocol", "method", "path", "authority", "requested_server_name", "response_code",
    "response_flags", "connection_termination_details", "bytes_received", "bytes_sent", "duration",
    "downstream_remote_address", "downstream_local_address", "upstream_host", "upstream_local_address",
    "upstream_cluster", "route_name", "request_id", "reporter", "decision", "reason", "source_namespace",
    "source_pod", "source_principal", "gateway",
}


def ip_of(address):
    return address.rpartition(":")[0].strip("[]")


def both_lines(world, pod, url, *options):
    node, gateway = world.tails()
    got = world.curl(pod, url, *options)
    assert got.status == 200, got
    at_node = node.wait(source_pod=pod.pod)
    return got, at_node, gateway.wait(request_id=at_node["request_id"])


def test_fields_of_a_tls_connection(world, pod_a):
    got, node, gateway = both_lines(world, pod_a, "https://www.example.com/", "-4")
    assert FIELDS <= set(node) and FIELDS <= set(gateway)
    assert uuid.UUID(node["request_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", node["start_time"])
    for record, reporter in ((node, "source"), (gateway, "destination")):
        assert record["reporter"] == reporter
        assert record["requested_server_name"] in ("www.example.com", None)
        assert record["source_principal"] == "spiffe://cluster.local/ns/shop/sa/pod-a-sa"
        assert (record["source_namespace"], record["source_pod"]) == ("shop", "pod-a")
        assert record["upstream_cluster"] == "outbound|443||www.example.com"
        assert record["bytes_received"] > 500 and record["bytes_sent"] > 500
    assert node["requested_server_name"] == "www.example.com"
    # The pod's address; its port is another one where conntrack had to make the redirect unique.
    assert ip_of(node["downstream_remote_address"]) == ip_of(got.local) == pod_a.ip4
    assert gateway["downstream_remote_address"] == node["downstream_remote_address"]
    assert node["downstream_local_address"] == f"{WWW}:443"
    assert node["upstream_host"] == "192.0.2.10:15443"
    assert node["gateway"] == "egressgateway.istio-system.svc.cluster.local"
    assert gateway["upstream_host"] in (f"{WWW}:443", f"[{servers.WWW[1]}]:443")
    assert ip_of(gateway["upstream_local_address"]) in GATEWAY_IPS


def test_fields_of_an_http_request(world, pod_b):
    _, node, gateway = both_lines(world, pod_b, "http://www.example.com/a/path?x=1", "-4", "-X", "PUT",
                                  "-d", "12345")
    assert (node["method"], node["path"], node["authority"]) == ("PUT", "/a/path?x=1", "www.example.com")
    assert (node["response_code"], node["protocol"]) == (200, "HTTP/1.1")
    assert node["source_namespace"] == gateway["source_namespace"] == "lab"


def test_one_line_per_connection(world, pod_a):
    node, gateway = world.tails()
    for _ in range(5):
        world.curl(pod_a, "https://www.example.com/", "-4")
    wait_for(lambda: len(node.read()) >= 5 and len(gateway.read()) >= 5, what="five lines")
    assert len(node.read()) == 5 and len(gateway.read()) == 5
    assert {r["request_id"] for r in node.records} == {r["request_id"] for r in gateway.records}
    assert len({r["request_id"] for r in node.records}) == 5


HOSTILE = [b'"', b'\\', b'\x01', b'\x7f', b'\xff\xfe', b'\xc3\x28', b'\xed\xa0\x80', b'\xf4\x90\x80\x80',
           b"\xe2\x80\xa8", b"\x1b[31m", b'"}\\n{"decision":"ALLOW"', b"%s%n", b"\t"]


@pytest.mark.parametrize("nasty", HOSTILE, ids=[h.hex() for h in HOSTILE])
def test_hostile_http_bytes(world, pod_a, nasty):
    """In Host, path and user agent: the line is JSON and one line."""
    tail = world.agents["node"].tail()
    with Wire(pod_a.connect(WWW, 80)) as wire:
        wire.send(b"GET /" + nasty + b" HTTP/1.1\r\nHost: h" + nasty + b".example.com\r\nUser-Agent: " +
                  nasty + b"\r\n\r\n")
        wire.rest()
    record = tail.wait(source_pod="pod-a")  # each line is parsed, strictly UTF-8
    assert record["decision"] == "DENY"
    assert len(tail.read()) == 1


@pytest.mark.parametrize("nasty", HOSTILE, ids=[h.hex() for h in HOSTILE])
def test_hostile_server_name_bytes(world, pod_a, nasty):
    tail = world.agents["node"].tail()
    plain = b"x" * len(nasty) + b"yyyy.example.com"
    with Wire(pod_a.connect(WWW, 443)) as wire:
        wire.send(client_hello(plain.decode()).replace(plain, nasty + plain[len(nasty):]))
        wire.rest()
    assert tail.wait(source_pod="pod-a")["decision"] == "DENY"
    assert len(tail.read()) == 1


def test_log_reopens_after_rotation(world, pod_a):
    """Moved away and SIGHUP: the next line is in a new file."""
    node = world.agents["node"]
    old = node.access_log.with_suffix(".1")
    node.access_log.rename(old)
    node.hup()
    wait_for(node.access_log.exists, what="the new file")
    tail = node.tail()
    world.curl(pod_a, "http://www.example.com/rotated", "-4")
    tail.wait(path="/rotated")


# ---- metrics ----

ISTIO_LABELS = {"reporter", "source_workload", "source_workload_namespace", "source_principal",
                "destination_service", "destination_service_name", "destination_service_namespace",
                "request_protocol", "response_flags", "connection_security_policy"}


def test_metric_names(world, pod_a):
    world.curl(pod_a, "https://www.example.com/", "-4")
    world.curl(pod_a, "http://www.example.com/", "-4")
    common = {"istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total",
              "istio_tcp_connections_failed_total", "istio_tcp_sent_bytes_total",
              "istio_tcp_received_bytes_total", "istio_build", "sluice_registry_hosts", "sluice_registry_rejected_total"}
    node, gateway = world.metrics("node"), world.metrics("gateway")
    assert common | {"istio_requests_total", "sluice_pods_enrolled", "sluice_gateway_healthy"} <= \
        node.names()
    assert common | {"sluice_egress_ports_in_use"} <= gateway.names()


def test_tcp_series(world, pod_a):
    labels = {"source_workload_namespace": "shop", "destination_service": "www.example.com"}
    world.curl(pod_a, "https://www.example.com/", "-4")

    def at_rest(name):
        """Its metrics, when nothing of these labels is open: what was opened has been closed, too."""
        metrics = world.metrics(name)
        opened, closed = (metrics.value(f"istio_tcp_connections_{what}_total", **labels)
                          for what in ("opened", "closed"))
        return metrics if opened == closed else None
    before = {name: wait_for(lambda name=name: at_rest(name), what=f"{name} is at rest")
              for name in ("node", "gateway")}
    world.curl(pod_a, "https://www.example.com/", "-4")
    for name, reporter in (("node", "source"), ("gateway", "destination")):
        def grown(metric, name=name, reporter=reporter):
            return (world.metrics(name).value(metric, reporter=reporter, **labels) -
                    before[name].value(metric, reporter=reporter, **labels))
        wait_for(lambda grown=grown: grown("istio_tcp_connections_closed_total") == 1, what=f"{name} counts")
        assert grown("istio_tcp_connections_opened_total") == 1
        assert grown("istio_tcp_sent_bytes_total") > 500
        assert grown("istio_tcp_received_bytes_total") > 500
        for series in world.metrics(name).labels("istio_tcp_connections_opened_total"):
            assert ISTIO_LABELS <= set(series)


def test_request_series(world, pod_b):
    def count():
        return world.metrics("node").value("istio_requests_total", reporter="source", response_code="200",
                                           destination_service="api.example.com",
                                           source_workload_namespace="lab")
    before = count()
    world.curl(pod_b, "http://api.example.com/m[1-3]")
    wait_for(lambda: count() == before + 3, what="three requests are counted")


def test_denied_series(world, pod_b):
    def count():
        return world.metrics("node").value("sluice_denied_total", reason="not_exported", namespace="lab")
    before = count()
    world.curl(pod_b, "http://shop-only.example.com/")
    wait_for(lambda: count() == before + 1, what="the refusal is counted")


def test_gauges(world):
    metrics = world.metrics("node")
    assert metrics.value("sluice_pods_enrolled") == sum(p.enrolled for p in world.pods.values())
    assert metrics.labels("sluice_gateway_healthy") == [
        {"gateway": "egressgateway.istio-system.svc.cluster.local", "endpoint": "192.0.2.10:15443"}]
    world.wait_gateway_healthy()
    assert {s["source_ip"] for s in world.metrics("gateway").labels("sluice_egress_ports_in_use")} == \
        set(GATEWAY_IPS)


def test_ports_in_use_come_back(world, pod_a):
    """Counted while a connection lives, given back afterwards."""
    def in_use():
        return world.metrics("gateway").value("sluice_egress_ports_in_use")
    wait_for(lambda: in_use() == 0, what="no port in use")
    with Wire(pod_a.connect(servers.PEER, 7)) as wire:
        wire.send(b"x")
        wire.take(1)
        assert in_use() == 1
    wait_for(lambda: in_use() == 0, what="the port is given back")


# ---- readiness and sluicectl ----

@pytest.mark.parametrize("name", ["node", "gateway"])
def test_ready(world, name):
    assert world.agents[name].ready()[0] == 200


@pytest.mark.parametrize("target, pod, code, words", [
    ("www.example.com:443", "shop/pod-a", 0, ["ALLOW"]),
    ("WWW.example.com:80", "lab/pod-b", 0, ["ALLOW"]),
    ("a.wild.example.org:443", "shop/pod-a", 0, ["ALLOW", "istio-system/wildcard"]),
    ("198.51.100.32:5432", "shop/pod-a", 0, ["ALLOW", "istio-system/database"]),
    ("unregistered.example.com:443", "shop/pod-a", 3, ["DENY", "host_not_registered"]),
    ("www.example.com:8443", "shop/pod-a", 3, ["DENY", "port_not_registered"]),
    ("shop-only.example.com:443", "lab/pod-b", 3, ["DENY", "not_exported"]),
    ("shop-only.example.com:443", "shop/pod-a", 0, ["ALLOW"]),
    ("198.51.100.66:443", "shop/pod-a", 3, ["DENY"]),
])
def test_sluicectl_check(world, target, pod, code, words):
    done = world.agents["node"].ctl("check", target, "--pod", pod)
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stdout
    done = world.agents["node"].ctl("--json", "check", target, "--pod", pod)
    assert json.loads(done.stdout)["decision"] == words[0]


def test_sluicectl_pods(world):
    node = world.agents["node"]
    text = node.ctl("pods").stdout
    assert "pod-a" in text and "lab" in text
    pods = {(p["namespace"], p["pod"]): p for p in json.loads(node.ctl("pods", "--json").stdout)}
    pod = pods["shop", "pod-a"]
    assert pod["state"] == "enrolled" and pod["service_account"] == "pod-a-sa"
    assert pod["netns"] == world.pods["pod-a"].path


def test_sluicectl_registry(world):
    for agent in world.agents.values():
        assert "*.wild.example.org" in agent.ctl("registry").stdout
        hosts = {s["host"] for s in json.loads(agent.ctl("registry", "--json").stdout)}
        assert {"www.example.com", "*.wild.example.org", "db.example.com"} <= hosts


def test_sluicectl_connections(world, pod_a):
    with Wire(pod_a.connect(servers.PEER, 7)) as wire:
        wire.send(b"x")
        wire.take(1)
        for agent in world.agents.values():
            rows = json.loads(agent.ctl("connections", "--json").stdout)
            assert [r for r in rows if "shop/pod-a" in str(r["source"])], rows
            assert "pod-a" in agent.ctl("connections").stdout


def test_sluicectl_config(world):
    config = json.loads(world.agents["gateway"].ctl("config", "--json").stdout)
    assert config["role"] == "Gateway"
    assert config["egress"]["sourceIPs"] == GATEWAY_IPS
    assert config["limits"]["helloBytes"] == 65536, "defaults are filled in"


@pytest.mark.parametrize("args", [["pods", "extra"], ["nonsense"], ["check", "www.example.com:443"], []])
def test_sluicectl_wrong_usage(world, args):
    done = world.agents["node"].ctl(*args)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


def test_sluicectl_without_an_agent(world):
    done = world.node.run([CTL, "--admin", "/nowhere/admin.sock", "pods"])
    assert done.returncode != 0 and len(done.stderr.splitlines()) == 1
    assert "/nowhere/admin.sock" in done.stderr


# ---- enrolment ----

def test_enroll_twice_is_once(world, pod_a):
    before = len(json.loads(world.agents["node"].ctl("pods", "--json").stdout))
    assert world.enroll(pod_a).returncode == 0
    assert len(json.loads(world.agents["node"].ctl("pods", "--json").stdout)) == before
    assert world.curl(pod_a, "https://www.example.com/", "-4").status == 200


def test_unenroll_gives_the_pod_back(world):
    """Rules and listeners are gone; twice is once."""
    pod = world.add_pod("lab/passing")
    socket_option = ["--socket", world.agents["node"].config["enrol"]["socket"]]
    world.enroll(pod)
    assert world.curl(pod, "http://unregistered.example.com/", "-4").status == 403
    for _ in range(2):
        done = world.agents["node"].ctl("unenroll", "--pod", pod.ref, *socket_option)
        assert done.returncode == 0, done.stderr
        pod.enrolled = False
    assert "sluice" not in pod.run(["nft", "list", "tables"]).stdout
    assert world.curl(pod, "http://unregistered.example.com/", "-4").seen_from == pod.ip4
    assert "passing" not in world.agents["node"].ctl("pods").stdout


def test_enroll_what_is_no_namespace(world):
    done = world.agents["node"].ctl("enroll", "--netns", "/dev/null", "--pod", "shop/nobody",
                                    "--service-account", "sa", "--socket",
                                    world.agents["node"].config["enrol"]["socket"])
    assert done.returncode != 0 and len(done.stderr.splitlines()) == 1
    assert "nobody" not in world.agents["node"].ctl("pods").stdout
