# SPDX-License-Identifier: Apache-2.0
"""Agents that die, come back, or go away in order: nothing leaks meanwhile, and service resumes."""
import collections
import json
import signal
import threading
import time

import pytest
import servers
from wire import Tls, Wire, request
from world import GATEWAY_IPS, TUNNEL, wait_for

WWW = servers.WWW[0]
SECOND_TUNNEL = "192.0.2.11:15443"


@pytest.fixture(scope="module")
def world(own_world):
    """A world of this module's own: its agents are killed."""
    own_world.start_gateway()
    own_world.start_node(endpoints=[TUNNEL, SECOND_TUNNEL])
    for pod in own_world.pods.values():
        own_world.enroll(pod)
    own_world.wait_gateway_healthy()
    return own_world


@pytest.fixture(autouse=True)
def all_well_again(world):
    """However a test left the agents: the next one finds node and gateway running."""
    yield
    for name in ("gateway", "node"):
        if not world.agents[name].running():
            world.agents[name].start()
    second = world.agents.pop("gateway-2", None)
    if second and second.running():
        second.stop()
    world.wait_gateway_healthy()


class Load:
    """Clients that connect again and again, and hold connections too, while in the block."""

    def __init__(self, world, threads=4):
        self.world = world
        self.results = collections.Counter()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        wait_for(lambda: self.results["ok"] > 20, what="the load runs")
        return self

    def __exit__(self, *exc):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _run(self, i):
        pod = list(self.world.pods.values())[i % 2]
        while not self.stopping.is_set():
            self.results[self._once(pod, tls=i < 2)] += 1

    def _once(self, pod, tls):
        try:
            with Wire(pod.connect(WWW, 443 if tls else 80, timeout=5)) as wire:
                if tls:
                    session = Tls("www.example.com", self.world.ca)
                    wire.send(session.hello())
                    session.handshake(wire).write(wire, request("www.example.com"))
                    return "ok" if b"200 OK" in session.read(wire) else "refused"
                wire.send(request("www.example.com"))
                got = wire.response()
                assert got.status != 200 or got.headers["x-client"] in GATEWAY_IPS, got
                return "ok" if got.status == 200 else "refused"
        except ConnectionRefusedError:
            self.stopping.wait(0.005)
            return "connection refused"
        except (OSError, EOFError):
            return "broken"

    def until_ok(self, n=20, timeout=10):
        """Until that many more have succeeded."""
        before = self.results["ok"]
        wait_for(lambda: self.results["ok"] >= before + n, timeout, f"service resumes: {self.results}")

    def until(self, result, n=20):
        before = self.results[result]
        wait_for(lambda: self.results[result] >= before + n, what=f"{result}: {self.results}")


def pods_known(agent):
    return sorted(f"{p['namespace']}/{p['pod']}" for p in json.loads(agent.ctl("pods", "--json").stdout))


def test_node_agent_killed_under_load(world):
    """Pods get connection refused, never the open internet; the next agent takes them over."""
    node = world.agents["node"]
    before = pods_known(node)
    with world.capture() as capture:
        with Load(world) as load:
            node.kill()
            load.until("connection refused")
            for pod in world.pods.values():
                with pytest.raises(ConnectionRefusedError):
                    pod.connect(WWW, 443)
                with pytest.raises(ConnectionRefusedError):
                    pod.connect("198.51.100.66", 80)
            node.start()
            load.until_ok()
        assert world.leaks(capture) == []
    assert pods_known(node) == before


def test_node_agent_killed_again_and_again(world):
    node = world.agents["node"]
    with world.capture() as capture:
        with Load(world) as load:
            for _ in range(3):
                node.kill()
                node.start()
                load.until_ok()
        assert world.leaks(capture) == []


def test_node_agent_stopped_in_order(world):
    """SIGTERM: rules stay, so it is as closed as after a SIGKILL."""
    node = world.agents["node"]
    with world.capture() as capture:
        with Load(world) as load:
            node.stop()
            load.until("connection refused")
            node.start()
            load.until_ok()
        assert world.leaks(capture) == []


def test_pod_that_went_away_meanwhile(world):
    """Its namespace is gone when the agent comes back: forgotten, said in the log, no trouble."""
    pod = world.add_pod("lab/shortlived")
    world.enroll(pod)
    node = world.agents["node"]
    assert "lab/shortlived" in pods_known(node)
    node.kill()
    pod.remove()
    del world.pods["shortlived"]
    node.start()
    assert "lab/shortlived" not in pods_known(node)
    assert "shortlived" in node.errors()
    assert world.curl(world.pods["pod-a"], "https://www.example.com/", "-4").status == 200


def test_rules_flushed_while_away(world):
    """What somebody took out of the pod is back after a restart."""
    pod, node = world.pods["pod-a"], world.agents["node"]
    node.kill()
    assert pod.run(["nft", "flush", "ruleset"]).returncode == 0
    node.start()
    with world.capture() as capture:
        assert world.curl(pod, "http://unregistered.example.com/", "-4").status == 403
        assert world.curl(pod, "http://www.example.com/", "-4").status == 200
        assert world.leaks(capture) == []


def test_state_file_is_damaged(world):
    """An agent that cannot read its state does not open anything: it says so, or enrols anew."""
    node = world.agents["node"]
    state = list((node.folder / "state").rglob("*"))
    kept = {f: f.read_bytes() for f in state if f.is_file()}
    assert kept, "the state is on disk"
    node.kill()
    try:
        for file in kept:
            file.write_bytes(b'{"pods": [')
        with world.capture() as capture:
            node.start(wait=False)
            wait_for(lambda: not node.running() or node.ready()[0], what="it starts or gives up")
            with pytest.raises(OSError):
                with Wire(world.pods["pod-a"].connect("198.51.100.66", 22)) as wire:
                    wire.send(b"SSH-2.0-x\r\n")
                    if not wire.rest():
                        raise ConnectionResetError
            assert world.leaks(capture) == []
        wait_for(lambda: "state" in node.errors(), what="it says so")
    finally:
        if node.running():
            node.kill()
        for file, data in kept.items():
            file.write_bytes(data)


def test_gateway_killed_under_load(world):
    """Refused and said so, never direct; the node agent finds the new one by itself."""
    gateway, node = world.agents["gateway"], world.agents["node"]
    with world.capture() as capture:
        with Load(world) as load:
            gateway.kill()
            load.until("refused")
            tail = node.tail()
            got = world.curl(world.pods["pod-a"], "http://www.example.com/", "-4")
            assert got.status == 503 and "gateway_unavailable" in got.body
            assert world.curl(world.pods["pod-a"], "https://www.example.com/", "-4").code == 35
            tail.wait(decision="DENY", reason="gateway_unavailable")
            gateway.start()
            load.until_ok()
        assert world.leaks(capture) == []


def test_no_gateway_from_the_start(world):
    """The node agent starts, and refuses."""
    gateway, node = world.agents["gateway"], world.agents["node"]
    gateway.stop()
    node.stop()
    node.start(wait=False)
    wait_for(lambda: node.ready()[0], what="it answers")
    tail = node.tail()
    with world.capture() as capture:
        wait_for(lambda: world.curl(world.pods["pod-b"], "http://www.example.com/", "-4").status == 503,
                 what="a refusal")
        assert world.leaks(capture) == []
    tail.wait(reason="gateway_unavailable", source_pod="pod-b")


def test_gateway_drains(world):
    """SIGTERM: what lives may end by itself, nothing new is taken, and then it is gone."""
    gateway, pod = world.agents["gateway"], world.pods["pod-a"]
    with Wire(pod.connect(servers.PEER, 7)) as wire:
        wire.send(b"before")
        assert wire.take(6) == b"before"
        gateway.proc.signal(signal.SIGTERM)
        wait_for(lambda: not accepts(world, "192.0.2.10"), what="nothing new is taken")
        wire.send(b"during")
        assert wire.take(6) == b"during"
        assert gateway.running()
    assert gateway.proc.wait(5) == 0
    gateway.check_sanitizers()
    gateway.killed = True


def test_drain_has_an_end(world):
    """drainTimeout (2 s here) ends what does not end by itself."""
    gateway, pod = world.agents["gateway"], world.pods["pod-a"]
    with Wire(pod.connect(servers.PEER, 7)) as wire:
        wire.send(b"x")
        wire.take(1)
        begun = time.monotonic()
        gateway.stop(timeout=8)
        assert 1.5 < time.monotonic() - begun < 6
        wire.ended()


def accepts(world, ip):
    try:
        world.node.connect(ip, 15443, timeout=1).close()
        return True
    except OSError:
        return False


def start_second(world):
    second = world.start_gateway(name="gateway-2", ip="192.0.2.11", port_offset=10,
                                 source_ips=["203.0.113.11"])
    world.wait_gateway_healthy(2)
    return second


def seen_from(world, n=12):
    pod = world.pods["pod-a"]
    answers = [world.curl(pod, "http://api.example.com/") for _ in range(n)]
    assert {a.status for a in answers} == {200}, answers
    return {a.seen_from for a in answers}


def test_endpoints_take_turns(world):
    start_second(world)
    assert seen_from(world) == {"203.0.113.10", "203.0.113.11"}


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_endpoints_fail_over(world, how):
    """One of two goes away: no new connection fails, then both serve again."""
    second = start_second(world)
    getattr(second, how)()
    assert seen_from(world) == {"203.0.113.10"}
    second.start()
    world.wait_gateway_healthy(2)
    wait_for(lambda: "203.0.113.11" in seen_from(world, 4), what="the second serves again")


def test_endpoint_that_swallows_packets(world):
    """No answer at all, not even a refusal: the other one is taken after half a second at most."""
    start_second(world)
    world.gateway.ip("addr del 192.0.2.11/24 dev node0")
    try:
        begun = time.monotonic()
        assert seen_from(world, 4) == {"203.0.113.10"}
        assert time.monotonic() - begun < 4
        wait_for(lambda: world.metrics("node").value("sluice_gateway_healthy", endpoint=SECOND_TUNNEL) == 0,
                 what="it is ejected")
    finally:
        world.gateway.ip("addr add 192.0.2.11/24 dev node0")
