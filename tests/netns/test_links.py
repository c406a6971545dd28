# SPDX-License-Identifier: Apache-2.0
"""What a pod's interfaces are is known from its enrolment: what its processes add is not its own, and what
the node adds later is guarded like the first."""
import contextlib
import json
import socket
import subprocess
import time

import frames
import pytest
from attack import BROADCAST, FAR_POD, OUT4, Attack, inside, make_careless
from attackers import add_pod, attacker, newcomer, remove_pod  # noqa: F401
from conftest import make_world
from each_backend import backend, node_config  # noqa: F401
from procs import wait_for
from servers import WWW
from trying import Trying
from watch import NODE_IP4, NODE_IP6

OWN = "10.244.1.99"  # of the pods' network, and nobody's


@pytest.fixture(scope="module")
def world(built, backend):
    for world in make_world():
        make_careless(world)
        world.backend = backend
        yield world.start(node=node_config(backend))


def status(world, pod, *curl):
    return world.curl(pod, f"http://{WWW[0]}/", "-H", "Host: www.example.com", *curl, timeout=3).status


def passes(pod, source):
    """Within the cluster, where every pod's rules let it go: only the guard asks who says so."""
    return pod.run(["ping", "-c1", "-W1", "-I", source, NODE_IP6 if ":" in source else NODE_IP4]).returncode == 0


def take_address(pod):
    """As root in the pod; the node's neighbours answer for it."""
    pod.ip(f"addr add {OWN}/24 dev eth0")


# ---- addresses that a process in the pod adds ----

def another_service_account(world, pod):
    pod.service_account = "other-sa"
    world.enroll(pod)


def enrolled_again(world, pod):
    world.enroll(pod)


def with_an_interface_of_its_own(world, pod):
    """On top of its own, and one that leads to a process."""
    inside(pod, "ip", "link", "add", "mv0", "link", "eth0", "type", "macvlan", "mode", "bridge")
    inside(pod, "ip", "tuntap", "add", "tun9", "mode", "tun")
    pod.ip("link set tun9 up", f"addr add {OWN}/32 dev tun9")
    done = world.enroll(pod, check=False)
    if world.backend == "ebpf":  # and no other allowed
        assert done.returncode == 1 and "rules inside are needed" in done.stderr
        inside(pod, "ip", "link", "del", "tun9")
        done = world.enroll(pod, check=False)
    assert done.returncode == 0, done.stderr


def the_agent_starts_again(world, pod):
    world.agents["node"].kill()
    world.agents["node"].start()
    world.wait_gateway_healthy()


CHANGES = [another_service_account, enrolled_again, with_an_interface_of_its_own, the_agent_starts_again]


@pytest.mark.parametrize("change", CHANGES)
def test_an_address_of_its_own_making_stays_a_forged_one(world, attacker, change):
    take_address(attacker)
    assert not passes(attacker, OWN)
    change(world, attacker)
    assert not passes(attacker, OWN)
    wait_for(lambda: status(world, attacker) == 200, 10, "its own is served")


def test_an_address_from_before_is_its_own(world, newcomer):
    take_address(newcomer)
    world.enroll(newcomer)
    assert passes(newcomer, OWN)
    enrolled_again(world, newcomer)
    another_service_account(world, newcomer)
    assert passes(newcomer, OWN)


def test_no_name_of_an_interface_is_too_strange(world, newcomer):
    """A process in a pod that runs already has named it so that nobody can write it down."""
    name = b"\xff\x1b[2J\xc3"

    def ip(*words):
        subprocess.run([b"ip", b"-n", newcomer.name.encode(), *words], check=True)

    ip(b"link", b"set", b"eth0", b"down")
    ip(b"link", b"set", b"eth0", b"name", name)
    ip(b"link", b"set", name, b"up")
    ip(b"route", b"add", b"default", b"via", b"10.244.1.1")
    world.enroll(newcomer)
    assert status(world, newcomer) == 200
    ip(b"addr", b"add", OWN.encode() + b"/24", b"dev", name)
    the_agent_starts_again(world, newcomer)
    assert not passes(newcomer, OWN)
    assert status(world, newcomer) == 200


# ---- another interface, while it lives ----

NET1, NET1_NODE = "10.245.1.2", "10.245.1.1"
LINK_DONE_S = 0.6  # after its first address


@contextlib.contextmanager
def with_net1(world, pod):
    """As Multus adds one: its other end is in the node's namespace."""
    other_end = pod.pod + "-1"
    world.node.ip(f"link add {other_end} type veth peer name net1 netns {pod.name}",
                  f"link set {other_end} up", f"addr add {NET1_NODE}/24 dev {other_end}")
    pod.ip("link set net1 up")
    yield
    # Before the pod goes: what still waits in it for a neighbour would be taken for the next one's.
    world.node.ip(f"link del {other_end}")


@pytest.fixture(name="bare_net1")
def add_net1(world, attacker):
    with with_net1(world, attacker):
        yield


def configure_net1(pod):
    pod.ip(f"addr add {NET1}/24 dev net1", f"route add default via {NET1_NODE} dev net1 table 77",
           f"rule add from {NET1} lookup 77")


@pytest.fixture(name="net1")
def add_configured_net1(attacker, bare_net1):
    configure_net1(attacker)


@pytest.fixture(name="newcomer_of")
def add_newcomers():
    """More pods, when they are wanted."""
    added = []

    def add(world):
        added.append((world, add_pod(world)))
        return added[-1][1]

    yield add
    for world, pod in added:
        remove_pod(world, pod)


def leaves(world, pod, configured=True):
    with Attack(world, pod) as attack:
        if configured:
            attack.all_of(OUT4, prepare=lambda sock: sock.bind((NET1, 0)))
        attack.all_of(OUT4, prepare=lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"net1"))
        assert attack.made() > 0
        return attack.arrived()


@pytest.mark.usefixtures("net1")
def test_it_is_guarded_and_served_like_the_first(world, attacker):
    """Before it is used where the plugin is in the other network's chain."""
    enrolled_again(world, attacker)
    assert not leaves(world, attacker)
    wait_for(lambda: status(world, attacker, "--interface", NET1) == 200, 5, "it is served")
    assert status(world, attacker) == 200
    the_agent_starts_again(world, attacker)
    assert not leaves(world, attacker)
    wait_for(lambda: status(world, attacker, "--interface", NET1) == 200, 10, "it is served after a restart")


@pytest.mark.usefixtures("net1")
def test_it_is_heard_of(world, attacker):
    log = world.agents["node"].errors
    wait_for(lambda: f"pod '{attacker.ref}' has another interface" in log(whole=True), 2, "it is heard of")
    assert not leaves(world, attacker)


def many_addresses(pod):
    pod.ip(*(f"addr add 10.244.77.{n}/32 dev eth0" for n in range(1, 60)))


def many_links(pod):
    pod.ip(*(f"link add a{n} type veth peer name b{n}" for n in range(150)))


def many_that_lead_out(pod):
    pod.ip(*(f"tuntap add tun{n} mode tun" for n in range(9)))


@pytest.mark.parametrize("crowd", [many_addresses, many_links, many_that_lead_out])
def test_a_crowd_does_not_hide_it(world, attacker, crowd, request):
    """What is too much to read is the pod's own doing."""
    crowd(attacker)
    request.getfixturevalue("net1")
    world.enroll(attacker, check=False)
    assert not leaves(world, attacker)
    the_agent_starts_again(world, attacker)
    assert not leaves(world, attacker)
    assert status(world, attacker) == 200


def test_its_addresses_may_come_later(world, attacker, request):
    """From a CNI plugin or by DHCP, when it has been there for a while. What a process adds after that is
    not its own."""
    request.getfixturevalue("bare_net1")
    log = world.agents["node"].errors
    wait_for(lambda: f"pod '{attacker.ref}' has another interface" in log(whole=True), 2, "it is heard of")
    assert not leaves(world, attacker, configured=False)
    configure_net1(attacker)
    wait_for(lambda: f"pod '{attacker.ref}' has another address by now: {NET1}\n" in log(whole=True), 2,
             "its address is")
    done = time.monotonic() + LINK_DONE_S
    assert status(world, attacker, "--interface", NET1) == 200
    wait_for(lambda: time.monotonic() > done, what="nobody else configures it")
    attacker.ip(f"addr add {OWN}/32 dev net1")
    enrolled_again(world, attacker)
    assert not passes(attacker, OWN)
    the_agent_starts_again(world, attacker)
    assert not passes(attacker, OWN)
    assert status(world, attacker, "--interface", NET1) == 200
    assert not leaves(world, attacker)


def test_what_it_is_left_with_half_way_is_gone_on_with(world, attacker, request):
    """The agent starts again while a network is still at it."""
    request.getfixturevalue("bare_net1")
    enrolled_again(world, attacker)
    the_agent_starts_again(world, attacker)
    configure_net1(attacker)
    wait_for(lambda: status(world, attacker, "--interface", NET1) == 200, 10, "it is served")


def test_its_address_may_be_anothers_afterwards(world, attacker, newcomer_of):
    """The network is taken from one pod, which lives on, and given to another, which gets the address."""
    other = newcomer_of(world)
    world.enroll(other)
    node = world.agents["node"]
    for pod in (attacker, other, attacker):
        with with_net1(world, pod):
            configure_net1(pod)
            tail = node.tail()
            wait_for(lambda pod=pod: status(world, pod, "--interface", NET1) == 200, 5, f"{pod.pod} is served")
            assert tail.wait(response_code=200)["source_pod"] == pod.pod
            assert not leaves(world, pod)
    assert [status(world, pod) for pod in (attacker, other)] == [200, 200]
    assert f"{attacker.ref}': its guard was not" not in node.errors(whole=True), "nobody had touched it"


def test_another_pods_address_on_it_is_no_use(world, attacker, newcomer_of, request):
    """Put there before anybody has looked. Whichever of the pods the agent takes up first."""
    others = [world.pods["pod-a"], world.pods["pod-b"], newcomer_of(world)]
    world.enroll(others[-1])
    world.agents["node"].kill()
    request.getfixturevalue("net1")
    attacker.ip(*(f"addr add {other.ip4}/32 dev net1" for other in others),
                *(f"addr add {other.ip6}/128 dev net1 nodad" for other in others), f"addr add {NODE_IP4}/32 dev net1")
    world.agents["node"].start()
    world.wait_gateway_healthy()
    assert not leaves(world, attacker)
    with Attack(world, attacker) as attack:
        def forged():
            return world.metrics("node").value("sluice_guard_dropped_total", namespace=attacker.namespace,
                                               why="spoofed")
        before, n = forged(), 0
        for stolen in (*(other.ip4 for other in others), NODE_IP4):
            attack.frame(frames.arp(1, attack.mac, stolen, stolen), dst=BROADCAST, ethertype=b"\x08\x06")
            attack.frame(frames.udp_packet(stolen, FAR_POD[4], 1, 2))
            n += 2
        for other in others:
            attack.frame(frames.udp_packet(other.ip6, FAR_POD[6], 1, 2))
            n += 1
        # What the pod's own stack says in the name of these counts, too.
        try:
            wait_for(lambda: forged() >= before + n, what="each of them is a forged one")
        except TimeoutError:
            raise AssertionError(f"{forged() - before:.0f} of {n} were forged ones") from None
        assert attack.arrived() == []
    assert status(world, attacker, "--interface", NET1) == 200
    for other in others:
        assert status(world, other) == 200


@pytest.mark.usefixtures("net1")
def test_moving_the_first_away_does_not_hide_it(world, attacker):
    """Into a namespace of the pod's own: the guard at its other end stays."""
    with Attack(world, attacker) as attack:
        nest = attack.nested("link set eth0 netns NEST")
        enrolled_again(world, attacker)
        the_agent_starts_again(world, attacker)
        nest.ip("link set eth0 up", f"addr add {attacker.ip4}/24 dev eth0")
        attack.moved_to(nest)
        for packet in (attack.udp_packet(), attack.tcp_packet(), attack.echo_packet()):
            attack.frame(packet)
        assert attack.made() > 0
        assert attack.arrived() == []


# ---- when its namespace goes ----

def unname(pod):
    """Nothing of the pod's own leads to its namespace any more, which lives on."""
    left = pod.name + "-left"
    old, pod.name, pod.path = pod.path, left, f"/run/netns/{left}"
    for cmd in (["touch", pod.path], ["mount", "--bind", old, pod.path], ["umount", old], ["rm", old]):
        subprocess.run(cmd, check=True)


def is_forgotten(world, pod):
    return f"pod '{pod.ref}', its former namespace, is forgotten" in world.agents["node"].errors(whole=True)


def test_an_interface_of_another_node_is_not_its_own(world, attacker):
    """In a container a node is started anew without the machine: numbers of interfaces are given away again."""
    node = world.agents["node"]
    node.kill()
    file = node.folder / "state/pods" / f"{attacker.namespace}_{attacker.pod}.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"node_cookie": state["node_cookie"] + 1}))
    unname(attacker)
    node.start()
    world.wait_gateway_healthy()
    assert f"pod '{attacker.ref}' is forgotten: its network namespace is gone" in node.errors(whole=True)
    assert not file.exists()


@pytest.mark.parametrize("restarts", [False, True])
def test_the_guard_stays_as_long_as_the_interface(world, attacker, restarts):
    """What is left in a namespace that nobody knows any more gets out no more than before."""
    if restarts:
        world.agents["node"].kill()
    unname(attacker)
    if restarts:
        world.agents["node"].start()
        world.wait_gateway_healthy()
    wait_for(lambda: f"pod '{attacker.ref}': its network namespace is gone, but its interface is not" in
             world.agents["node"].errors(whole=True), 10, "it is not served any more")
    assert attacker.ref not in world.agents["node"].ctl("pods").stdout
    with Attack(world, attacker) as attack, Trying(attack, undo_rules=True) as trying:
        trying.until(5)
        assert attack.made() > 0
        assert attack.arrived() == []
    assert not is_forgotten(world, attacker)
    world.node.ip(f"link del {attacker.pod}")
    wait_for(lambda: is_forgotten(world, attacker), 10, "it is forgotten with its interface")
