# SPDX-License-Identifier: Apache-2.0
"""sluice-init, as the init container of a pod: a process that stays holds the pod's namespace, as a
container runtime's pause does, and sluice-init runs beside it and ends."""
import itertools
import json
import os
import re
import socket
import subprocess

import pytest

import servers
from agents import BUILD, CTL
from world import CLUSTER_CIDRS, wait_for

INIT = BUILD / "sluice-init"
FIND = BUILD / "tests/netns/netns_path"
# What Istio's injected init container is started with.
ISTIO = ["-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*",
         "-d", "15090,15021,15020", "--log_output_level=default:info"]
# What Kubernetes gives a container that may have what Istio's has.
CAPS = "-all,+net_admin,+net_raw"
GATEWAY = "203.0.113.10"
numbers = itertools.count()


@pytest.fixture(scope="module")
def net(own_world):
    assert INIT.exists() and FIND.exists(), "not built: run make first"
    own_world.start()
    yield own_world
    for agent in own_world.agents.values():
        agent.check_sanitizers()


@pytest.fixture
def pod(net):
    """A pod whose namespace nothing is bound to: only its pause leads there."""
    new = net.add_pod(f"shop/init-{next(numbers)}")
    new.pause = new.popen(["sleep", "infinity"], name="pause")
    wait_for(lambda: os.path.samefile(f"/proc/{new.pause.pid}/ns/net", new.path),
             what="pause is in the namespace")
    subprocess.run(["ip", "netns", "del", new.name], check=True)
    new.path = f"/proc/{new.pause.pid}/ns/net"
    yield new
    node(net, "unenroll", "--pod", new.ref)
    new.pause.kill()
    del net.pods[new.pod]


def socket_of(net):
    return net.agents["node"].config["enrol"]["socket"]


def node(net, *args):
    return subprocess.run([CTL, *args, "--socket", socket_of(net)], check=False, capture_output=True,
                          text=True)


def environment(pod, **more):
    return {"PATH": os.environ["PATH"], "POD_NAMESPACE": pod.namespace, "POD_NAME": pod.pod,
            "SERVICE_ACCOUNT": pod.service_account} | more


def init(net, pod, *args, agent=None, caps=CAPS, **env):
    """Runs it in the pod as an init container: with these capabilities and no others."""
    env = environment(pod, SLUICE_AGENT_SOCKET=str(agent or socket_of(net))) | env
    return pod.run(["setpriv", "--bounding-set", caps, "--inh-caps", caps, INIT, *args], env=env)


def no_agent(net):
    return net.folder / "nobody.sock"


def said(done, level):
    return [line.split(f" {level} ", 1)[1] for line in done.stderr.splitlines() if f" {level} " in line]


def enrolled(net):
    status, body = net.agents["node"].admin("/pods")
    assert status == 200, body
    return {f"{p['namespace']}/{p['pod']}": p for p in json.loads(body)}


def rules(pod):
    done = pod.run(["nft", "list", "ruleset"])
    assert done.returncode == 0, done.stderr
    return done.stdout


def try_everything(pod):
    """One packet of each kind to the outside. Returns what was not refused at once."""
    worked = []
    for address in servers.WWW:
        try:
            pod.connect(address, 443, timeout=2).close()
            worked.append(f"tcp {address}")
        except OSError:
            pass
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with pod.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.sendto(b"x", (address, 443))
                sock.sendto(b"x", (address, 53))
                worked.append(f"udp {address}")
            except OSError:
                pass
        if pod.run(["ping", "-c", "1", "-W", "1", address]).returncode == 0:
            worked.append(f"ping {address}")
    return worked


def assert_captured(net, pod):
    """Registered hosts are reached through the gateway, others are not, and nothing gets past it."""
    with net.capture() as capture:
        good = net.curl(pod, "https://www.example.com/")
        assert (good.code, good.status, good.seen_from) == (0, 200, GATEWAY), good
        bad = net.curl(pod, "https://unregistered.example.com/", "-4")
        assert bad.code != 0 and bad.seen_from == "", bad
        try_everything(pod)
        assert net.leaks(capture) == []


# ---- with an agent ----

def test_istios_arguments_work_unchanged(net, pod):
    done = init(net, pod, *ISTIO)
    assert done.returncode == 0, done.stderr
    assert_captured(net, pod)
    assert len(said(done, "warning")) == 1 and not said(done, "error"), done.stderr
    assert re.search(r"--proxy-uid '1337': no user is exempt", said(done, "warning")[0])
    assert any("nothing inbound is captured" in line for line in said(done, "info"))


def test_as_istio_calls_its_own_and_by_environment(net, pod):
    done = init(net, pod, "istio-iptables", "--log_output_level=default:warn", PROXY_UID="1337",
                ISTIO_SERVICE_EXCLUDE_CIDR="198.51.100.0/24")
    assert done.returncode == 0, done.stderr
    assert not said(done, "info")
    assert [line.split(" ")[0] for line in said(done, "warning")] == ["PROXY_UID",
                                                                      "ISTIO_SERVICE_EXCLUDE_CIDR"]
    assert_captured(net, pod)


@pytest.mark.parametrize("args", [["-x", "198.51.100.0/24"], ["-o", "443"], ["-i", "10.0.0.0/8"],
                                  ["-i", ""], ["-c", "eth0"], ["-q", "80", "-i", ""], ["-g", "0"],
                                  ["-u", "0"]], ids=" ".join)
def test_no_flag_makes_a_hole(net, pod, args):
    done = init(net, pod, *args)
    assert done.returncode == 0, done.stderr
    assert len(said(done, "warning")) == args.count("-q") + 1, done.stderr
    assert_captured(net, pod)


def test_the_agent_knows_the_pod_by_what_stays(net, pod):
    assert init(net, pod, *ISTIO).returncode == 0
    state = enrolled(net)[pod.ref]
    assert state["netns"] == pod.path and state["service_account"] == pod.service_account
    assert init(net, pod, *ISTIO).returncode == 0  # as after a restart of the kubelet
    assert enrolled(net)[pod.ref]["netns"] == pod.path
    assert_captured(net, pod)


def test_a_pod_without_processes_is_forgotten(net, pod):
    assert init(net, pod, *ISTIO).returncode == 0
    assert pod.ref in enrolled(net)
    pod.pause.kill()
    wait_for(lambda: pod.ref not in enrolled(net), what="the pod is forgotten")


def test_a_bound_namespace_is_known_by_its_path(net):
    pod = net.add_pod(f"shop/init-{next(numbers)}")
    done = init(net, pod, *ISTIO)
    assert done.returncode == 0, done.stderr
    assert enrolled(net)[pod.ref]["netns"] in (pod.path, "/var" + pod.path)
    assert_captured(net, pod)


def test_a_namespace_that_only_the_asker_is_in_is_refused(net):
    """Nothing would tell the agent when that pod ends."""
    done = subprocess.run(["unshare", "--net", INIT, "--pod", "shop/alone", "--skip-rule-apply",
                           "--agent-socket", socket_of(net)], check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "hostPID" in done.stderr and "shop/alone" not in enrolled(net)


def test_requests_without_a_path(net, pod):
    def ask(fds, **more):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(5)
            sock.connect(socket_of(net))
            request = {"op": "enroll", "pod": pod.ref} | more
            socket.send_fds(sock, [json.dumps(request).encode()], fds)
            return json.loads(sock.recv(4096))

    with open(pod.path, encoding="ascii") as good, open("/dev/null", encoding="ascii") as bad:
        assert ask([], op="check") == {"ok": False, "enrolled": False, "error": "not enrolled: enroll it"}
        assert "hostPID" in ask([bad.fileno()])["error"]
        assert "SCM_RIGHTS" in ask([])["error"]
        assert "absolute" in ask([good.fileno()], netns="run/netns/x")["error"]
        assert pod.ref not in enrolled(net)
        assert ask([good.fileno()], netns="") == {"ok": True}
        assert enrolled(net)[pod.ref]["netns"] == pod.path
        assert ask([good.fileno()]) == {"ok": True}
        assert ask([], op="check") == {"ok": True}


def test_another_pods_name_is_refused(net, pod):
    other = net.pods["pod-a"]
    done = init(net, other, POD_NAMESPACE="lab", POD_NAME="thief",
                SLUICE_CLUSTER_CIDRS=",".join(CLUSTER_CIDRS))
    assert done.returncode == 1 and "unenroll that first" in done.stderr
    assert "the pod reaches nothing outside" in done.stderr
    net.enroll(other)  # under its own name: what was left in it is in nobody's way
    assert_captured(net, other)


def test_it_waits_for_the_agent(net, pod):
    later = net.folder / "later.sock"
    env = environment(pod, SLUICE_AGENT_SOCKET=str(later))
    proc = pod.popen([INIT, *ISTIO, "--agent-timeout=60s"], name="sluice-init", env=env)
    wait_for(lambda: "waiting 60s for it" in proc.output(), what="it waits")
    assert "table inet sluice" in rules(pod)  # closed before anybody answers
    later.symlink_to(socket_of(net))
    assert proc.wait(10) == 0, proc.output()
    later.unlink()
    assert_captured(net, pod)


def test_from_outside_of_the_namespace(net, pod):
    env = environment(pod)
    done = subprocess.run([INIT, "--network-namespace", pod.path, "--agent-socket", socket_of(net)],
                          env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_captured(net, pod)


# ---- without ----

def test_without_an_agent_nothing_gets_out(net, pod):
    with net.capture() as capture:
        assert len(try_everything(pod)) == 6  # the outside is there, and the capture sees it
        assert {p.proto for p in net.leaks(capture)} == {socket.IPPROTO_TCP, socket.IPPROTO_UDP,
                                                         socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6}
    done = init(net, pod, *ISTIO, "--agent-timeout", "300ms", agent=no_agent(net))
    assert done.returncode == 1
    errors = said(done, "error")
    assert re.search(r"pod 'shop/\S+' is not enrolled: cannot reach the agent at '\S+nobody.sock'", errors[0])
    assert "reaches nothing outside the cluster" in errors[1] and len(errors) == 2
    with net.capture() as capture:
        assert try_everything(pod) == []
        assert net.leaks(capture) == []
    with pytest.raises(OSError):
        pod.connect("10.96.0.10", 53, timeout=2)  # no network was said to be the cluster's
    assert pod.ref not in enrolled(net)


def test_cluster_networks_are_reached_before_the_agent_answers(net, pod):
    done = init(net, pod, "--cluster-cidrs", "10.96.0.0/12", "--agent-timeout=0s", agent=no_agent(net))
    assert done.returncode == 1
    pod.connect("10.96.0.10", 53, timeout=5).close()
    assert try_everything(pod) == []


# ---- flags that change what is done ----

def test_a_dry_run_changes_nothing(net, pod):
    done = init(net, pod, *ISTIO, "--dry-run")
    assert done.returncode == 0 and said(done, "warning"), done.stderr
    assert "port 15001" in done.stdout and "nf_tables:" in done.stdout
    assert rules(pod) == "" and pod.ref not in enrolled(net)


@pytest.mark.parametrize("args", [["-p", "none"], ["--no-such-flag"], ["-m", "NONE"], ["-x", "*"],
                                  ["*"], ["-b"]], ids=" ".join)
def test_what_is_wrong_changes_nothing(net, pod, args):
    done = init(net, pod, *args)
    assert done.returncode == 1 and len(said(done, "error")) == 1, done.stderr
    assert rules(pod) == "" and pod.ref not in enrolled(net)


def test_validation(net, pod):
    pure = ["--run-validation", "--skip-rule-apply", "--agent-timeout=0s"]
    assert init(net, pod, *pure, agent=no_agent(net)).returncode == 126
    assert rules(pod) == ""
    assert init(net, pod, "--run-validation").returncode == 0
    assert init(net, pod, *pure).returncode == 0
    assert_captured(net, pod)


def test_the_agent_can_do_it_all(net, pod):
    done = init(net, pod, "--skip-rule-apply")
    assert done.returncode == 0, done.stderr
    assert_captured(net, pod)


def test_cleaning_up_needs_an_agent_that_does_not_hold_the_pod(net, pod):
    assert init(net, pod).returncode == 0
    done = init(net, pod, "--cleanup-only")
    assert done.returncode == 1 and "sluicectl unenroll" in done.stderr
    other = init(net, pod, "--cleanup-only", POD_NAME="another")
    if enrolled(net)[pod.ref]["backend"] != "ebpf":  # then nothing is in the pod, nor can be removed
        assert other.returncode == 1 and "sluicectl unenroll" in other.stderr  # it sees the listener
    assert_captured(net, pod)

    assert node(net, "unenroll", "--pod", pod.ref).returncode == 0
    assert init(net, pod, "--agent-timeout=0s", agent=no_agent(net)).returncode == 1
    closed = rules(pod)
    assert init(net, pod, "--cleanup-only", agent=no_agent(net)).returncode == 1
    assert "table inet sluice" in closed and rules(pod) == closed
    done = init(net, pod, "--cleanup-only")
    assert done.returncode == 0 and "nothing is captured" in said(done, "warning")[0], done.stderr
    assert rules(pod) == ""


def test_the_nodes_own_namespace_is_left_alone(net):
    """Rules there would cut off the node. Nothing is asked to change any, should it not be seen."""
    initial = os.path.exists("/proc/sys/net/core/dev_weight")
    done = subprocess.run([INIT, "--pod", "a/b", "--skip-rule-apply", "--agent-timeout=0s",
                           "--agent-socket", no_agent(net)], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert ("the node's own network namespace" in done.stderr) == initial, done.stderr


def test_without_net_admin_it_says_what_to_give(net, pod):
    done = init(net, pod, caps="-all")
    assert done.returncode == 1 and "NET_ADMIN" in done.stderr
    assert pod.ref not in enrolled(net)


def test_it_is_quick(net, pod):
    init(net, pod)
    took = []
    for _ in range(10):
        assert node(net, "unenroll", "--pod", pod.ref).returncode == 0
        start = os.times().elapsed
        assert init(net, pod).returncode == 0
        took.append(os.times().elapsed - start)
    assert sorted(took)[5] < 0.5, took  # nsenter, sh and setpriv are in it


# ---- the path that stays ----

def find(path, not_pid=0):
    done = subprocess.run([FIND, path, str(not_pid)], check=True, capture_output=True, text=True)
    found, took = done.stdout.split()
    return found, int(took)


def test_the_oldest_process_is_found(net, pod):
    second = pod.popen(["sleep", "infinity"], name="second")
    wait_for(lambda: os.path.samefile(f"/proc/{second.pid}/ns/net", pod.path), what="it is there")
    assert find(pod.path)[0] == pod.path
    assert find(pod.path, second.pid)[0] == pod.path
    assert find(pod.path, pod.pause.pid)[0] == f"/proc/{second.pid}/ns/net"
    second.kill()
    assert find(pod.path, pod.pause.pid)[0] == "ENOENT"


def test_it_is_found_quickly_among_many(net, pod):
    crowd = [subprocess.Popen(["sleep", "infinity"]) for _ in range(300)]
    try:
        took = [find(pod.path)[1] for _ in range(5)]
        assert find(pod.path)[0] == pod.path
        assert min(took) < 100_000, took
    finally:
        for proc in crowd:
            proc.kill()
            proc.wait()
