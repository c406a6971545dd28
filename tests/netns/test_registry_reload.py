# SPDX-License-Identifier: Apache-2.0
"""Files are the registry: a change is in force within a second, a bad one changes nothing."""
import json
import shutil
import time

import pytest
import servers
from wire import Wire, request
from world import entry, wait_for

SECOND = 1.0
FOREIGN = "198.51.100.66"
HOST = "unregistered.example.com"
URL = f"http://{HOST}/"


@pytest.fixture
def registry(world):
    """The folder. What a test adds is taken away again, and both agents have seen that."""
    before = set(world.registry_dir.iterdir())
    yield world.registry_dir
    for file in set(world.registry_dir.iterdir()) - before:
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
    wait_for(lambda: not any(world.knows(a, HOST) for a in world.agents.values()), what="the old registry")
    wait_for(lambda: not any("refused" in a.ready()[1] for a in world.agents.values()),
             what="no complaint left")


def reaches(world, pod):
    return world.curl(pod, URL, "-4").status == 200


def within_a_second(predicate, what):
    """Allows for the time that one look takes."""
    begun = time.monotonic()
    wait_for(predicate, 5, what)
    assert time.monotonic() - begun < SECOND + 0.5, f"{what}: too late"


def test_file_opens_and_closes_a_host(world, pod_a, registry):
    assert not reaches(world, pod_a)
    world.register("new", [HOST], ports=[(80, "HTTP")], loaded=False)
    within_a_second(lambda: reaches(world, pod_a), "the host is open")
    world.deregister("new")
    within_a_second(lambda: not reaches(world, pod_a), "the host is closed")


def test_file_changed_in_place(world, pod_a, registry):
    """Written over, as an editor does that does not rename."""
    file = registry / "inplace.yaml"
    file.write_text(json.dumps(entry("inplace", ["nobody.example.com"], ports=[(80, "HTTP")])))
    wait_for(lambda: world.knows(world.agents["node"], "nobody.example.com"), what="first version")
    file.write_text(json.dumps(entry("inplace", [HOST], ports=[(80, "HTTP")])))
    within_a_second(lambda: reaches(world, pod_a), "the host is open")


def test_folder_swapped_as_a_configmap_is(world, pod_a, registry, tmp_path):
    """Kubernetes mounts a ConfigMap as links through ..data, and swaps that link."""
    for version, host in (("..v1", "nobody.example.com"), ("..v2", HOST)):
        (registry / version).mkdir()
        (registry / version / "cm.json").write_text(json.dumps(entry("cm", [host], ports=[(80, "HTTP")])))
    (registry / "..data").symlink_to("..v1")
    (registry / "cm.json").symlink_to("..data/cm.json")
    wait_for(lambda: world.knows(world.agents["node"], "nobody.example.com"), what="first version")
    (registry / "..new").symlink_to("..v2")
    (registry / "..new").rename(registry / "..data")
    within_a_second(lambda: reaches(world, pod_a), "the host is open")


def test_gateway_decides_again(world, pod_a, registry):
    """What only the node has registered ends at the gateway. (Both read one folder: the gateway is
    told of another for the length of the test.)"""
    narrow = world.folder / "narrow.d"
    narrow.mkdir()
    (narrow / "only.json").write_text(json.dumps(entry("only", ["api.example.com"], ports=[(80, "HTTP")])))
    gateway = world.agents["gateway"]
    config = gateway.config_file.read_text()
    changed = json.loads(config)
    changed["registry"]["files"] = [str(narrow)]
    try:
        gateway.config_file.write_text(json.dumps(changed))
        gateway.hup()
        wait_for(lambda: not world.knows(gateway, "www.example.com"), what="SIGHUP is obeyed")
        tail = gateway.tail()
        assert world.curl(pod_a, "http://api.example.com/").status == 200
        assert world.curl(pod_a, "http://www.example.com/", "-4").status in (403, 404)
        assert world.curl(pod_a, "https://www.example.com/", "-4").code == 35
        refused = [r for r in tail.read() if r["decision"] == "DENY"] or [tail.wait(decision="DENY")]
        assert refused[0]["reason"] == "host_not_registered"
        assert refused[0]["source_pod"] == "pod-a" and refused[0]["source_namespace"] == "shop"
    finally:
        gateway.config_file.write_text(config)
        gateway.hup()
        wait_for(lambda: world.knows(gateway, "www.example.com"), what="the old registry")


def test_live_connection_is_ended(world, pod_a, registry):
    """Of a host that is deregistered, with its reason; others go on."""
    world.register("live", [HOST], ports=[(80, "HTTP")])
    tails = world.tails()
    with Wire(pod_a.connect(FOREIGN, 80)) as live, Wire(pod_a.connect(servers.WWW[0], 80)) as other:
        live.send(request(HOST, "/live"))
        other.send(request("www.example.com", "/other"))
        assert live.response().status == other.response().status == 200
        world.deregister("live")
        within_a_second(lambda: live.ended(), "the connection is ended")
        # Whichever agent reads the files first ends it, and says so.
        wait_for(lambda: any(t.matching(reason="deregistered", source_pod="pod-a") for t in tails),
                 what="a line with the reason")
        other.send(request("www.example.com", "/other2"))
        assert other.response().status == 200


def test_live_stream_is_ended(world, pod_a, registry):
    """In the middle of an answer, and of an opaque protocol."""
    world.register("raw", ["raw.example.com"], ports=[(7, "TCP")], addresses=[FOREIGN],
                   resolution="STATIC", endpoints=[{"address": servers.PEER}])
    with Wire(pod_a.connect(FOREIGN, 7)) as raw:
        raw.send(b"ping")
        assert raw.take(4) == b"ping"
        world.deregister("raw")
        within_a_second(lambda: raw.ended(), "the connection is ended")
    wait_for(lambda: not any(world.knows(agent, "raw.example.com") for agent in world.agents.values()),
             what="all agents know that it is gone")


BAD = {
    "no YAML": "kind: [ServiceEntry\n",
    "unknown field": json.dumps(entry("bad", [HOST], colour="red")),
    "no hosts": json.dumps(entry("bad", [])),
    "everything": json.dumps(entry("bad", ["*"])),
    "wrong port": json.dumps(entry("bad", [HOST], ports=[(70000, "HTTP")])),
    "good and bad": json.dumps(entry("good", [HOST], ports=[(80, "HTTP")])) + "\n---\n" +
                    json.dumps(entry("bad", ["*"])),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_bad_file_changes_nothing(world, pod_a, registry, text):
    """The last good registry stays, whole; the counter, readiness and the log say so."""
    node = world.agents["node"]
    before = node.metrics().value("sluice_registry_rejected_total")
    hosts = node.metrics().value("sluice_registry_hosts")
    (registry / "bad-one.yaml").write_text(text)
    wait_for(lambda: node.metrics().value("sluice_registry_rejected_total") > before, 2, "it is counted")
    wait_for(lambda: "bad-one.yaml" in node.ready()[1], 2, "readiness says so")
    assert "bad-one.yaml" in node.errors()
    assert node.metrics().value("sluice_registry_hosts") == hosts
    assert world.curl(pod_a, "http://www.example.com/", "-4").status == 200
    assert not reaches(world, pod_a)
    (registry / "bad-one.yaml").unlink()
    wait_for(lambda: "bad-one.yaml" not in node.ready()[1], 2, "readiness is glad again")


def test_sighup_reads_again(world, registry):
    """It does no harm, and the agent goes on."""
    node = world.agents["node"]
    node.hup()
    wait_for(lambda: node.ready()[0] == 200 and world.knows(node, "www.example.com"), what="still there")
