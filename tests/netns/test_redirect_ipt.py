# SPDX-License-Identifier: Apache-2.0
"""The iptables back end on the real kernel with real packets: what test_redirect_nft.py asks of the
nftables back end, asked of this one, by either kind of iptables; and what is its own.

Which kind is taken is not an option but a matter of what there is. `nft`: a node with everything.
`legacy`: one whose image has legacy iptables only. `old`: a kernel without nf_tables.
"""
import ctypes
import errno
import fcntl
import glob
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import time

import pytest
import test_redirect_nft as nftables
from test_redirect_nft import (  # noqa: F401 -- tests that are collected here too, with this file's world
    BUILD, CIDRS, PORT, V4, V6, both, fails_at_once, ipv4, original_dst, run, sysctl, tcp_syn, udp, wait_for, wait_own,
    test_a_forged_question_gives_no_right_to_answer, test_a_forged_source_is_refused,
    test_a_published_port_of_a_nested_container_works, test_a_refusal_reaches_the_application_as_icmp,
    test_a_socket_bound_to_an_interface_is_no_way_out, test_an_old_connection_closed_by_the_pod_stays_quiet,
    test_an_old_connection_into_the_cluster_goes_on, test_an_old_connection_is_over,
    test_an_old_connection_of_a_vm_is_over, test_an_old_inbound_connection_goes_on_where_it_was_tracked,
    test_an_old_nested_connection_is_over, test_applying_again_does_not_disturb_what_flows,
    test_everything_and_nothing_can_be_cluster, test_icmp_errors_of_live_connections_leave,
    test_inbound_keeps_working, test_metadata_is_never_cluster, test_multicast_groups_are_announced_on_the_link,
    test_nested_is_refused, test_nested_reaches_the_cluster, test_old_udp_is_over_when_the_pod_goes_on,
    test_others_are_refused_at_once, test_tcp_to_the_outside_is_redirected,
    test_tcp_without_a_listener_is_refused, test_the_cluster_is_reached, test_the_pod_reaches_itself,
    test_twice_is_once_and_removal_leaves_nothing)

IPT_APPLY = os.path.join(BUILD, "tests/netns/ipt_apply")
FAMILIES = ["iptables", "ip6tables"]
TABLES = ["filter", "mangle", "nat"]
KINDS = ["nft", "legacy", "old"]
NO_NFT = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
          'mount --bind /dev/null "$(readlink -f /usr/sbin/iptables-nft-restore)" && exec "$@"', "sh"]
LIBC = ctypes.CDLL(None, use_errno=True)


def without_nf_tables():
    """For preexec_fn: this process and its children find no netfilter netlink in the kernel."""
    nr_socket = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
    program = [(0x20, 0, 0, 0), (0x15, 0, 5, nr_socket),  # the system call's number
               (0x20, 0, 0, 16), (0x15, 0, 3, socket.AF_NETLINK),
               (0x20, 0, 0, 32), (0x15, 0, 1, 12),  # NETLINK_NETFILTER
               (0x06, 0, 0, 0x00050000 | errno.EPROTONOSUPPORT), (0x06, 0, 0, 0x7fff0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in program))
    prog = struct.pack("@HP", len(program), ctypes.addressof(code))
    assert LIBC.prctl(38, 1, 0, 0, 0) == 0 and LIBC.prctl(22, 2, prog, 0, 0) == 0


class World(nftables.World):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.variant = "nft" if kind == "nft" else "legacy"

    def start(self, verbs, *cidrs, kind=None):
        """ipt_apply, a subprocess.Popen, on a node of this kind."""
        kind = kind or self.kind
        return subprocess.Popen([*(NO_NFT if kind == "legacy" else []), IPT_APPLY, verbs, f"/run/netns/{self.pod}",
                                 *cidrs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, preexec_fn=without_nf_tables if kind == "old" else None)

    def act(self, verbs, *cidrs, want="0", kind=None, meanwhile=None):
        """What it said on the way. `meanwhile` is done at the verb `wait`."""
        with self.start(verbs, *cidrs, kind=kind) as p:
            if meanwhile:
                assert p.stdout.readline() == "waiting\n"
                meanwhile()
            got, said = p.communicate("on\n" if meanwhile else None, timeout=120)
        assert got.strip() == want, said
        return said

    def inside(self, *command, ok=True):
        return run("ip", "netns", "exec", self.pod, *command, ok=ok).stdout

    def ipt(self, args, family="iptables", variant=None, ok=True):
        return self.inside(f"{family}-{variant or self.variant}", *args.split(), ok=ok)

    def saved(self, variant=None, counters=False):
        """What iptables-save has to say, both families, without tables that say nothing."""
        lines = []
        for family in FAMILIES:
            for line in self.inside(f"{family}-{variant or self.variant}-save", *(["-c"] if counters else [])
                                    ).splitlines():
                if line.startswith("*"):
                    table = f"{family} {line[1:]}"
                elif not re.match(r"#|COMMIT|:\S+ ACCEPT ", line):
                    lines.append(f"{table} " + re.sub(r"^(:.*) \[\d+:\d+\]", r"\1", line))
        return lines

    def ruleset(self):
        """Whoever it is of."""
        legacy = "\n".join(self.saved("legacy"))
        return super().ruleset() + legacy if self.variant == "legacy" else legacy + super().ruleset()

    def ours(self, variant=None):
        return [line for line in self.saved(variant) if "SLUICE-" in line]

    def counted(self, rule, family="iptables"):
        """Packets that a rule has seen."""
        for line in self.saved(counters=True):
            found = re.match(rf"{family} \w+ \[(\d+):\d+\] -A {rule}$", line)
            if found:
                return int(found[1])
        raise AssertionError(f"there is no rule {rule}")


@pytest.fixture(params=KINDS)
def world(request):
    nftables.remove_leftovers()
    w = World(request.param)
    try:
        w.make()
        yield w
    finally:
        w.done()


@pytest.fixture
def nft_world():
    nftables.remove_leftovers()
    w = World("nft")
    try:
        w.make()
        yield w
    finally:
        w.done()


# ---- packets: what is counted elsewhere than in nf_tables ----

def ping_from_the_gateway(world):
    for ns in (world.pod, world.out):
        run("ip", "-n", ns, "-6", "neigh", "flush", "dev", "eth0")
    run("ip", "netns", "exec", world.out, "ping", "-c", "1", "-W", "3", "-I", V6.gateway, V6.pod)


def test_neighbours_by_global_address_are_learnt(world):
    world.apply()
    ping_from_the_gateway(world)
    learnt = world.inside("cat", "/proc/net/xt_recent/SLUICE-NEIGHBOURS")
    assert "src=2001:0db8:0001:0000:0000:0000:0000:0001 " in learnt


def test_the_capture_port_is_closed_to_the_outside(world):
    world.apply()
    world.listen(world.pod, V4, "127.0.0.1", PORT)
    sysctl(world.pod, "net.ipv4.conf.eth0.route_localnet", 1)
    sysctl(world.out, "net.ipv4.conf.all.route_localnet", 1)
    for args in ("route add table 7 127.0.0.1 via 192.0.2.2 dev eth0", "rule add pref 0 fwmark 7 lookup 7",
                 "rule del lookup local", "rule add pref 1 lookup local"):
        run("ip", "-n", world.out, *args.split())
    s = world.sock(world.out, socket.AF_INET, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
    s.bind((V4.gateway, 0))
    s.setblocking(False)
    s.connect_ex(("127.0.0.1", PORT))
    wait_for(lambda: world.counted("SLUICE-INCOMING -d 127.0.0.0/8 ! -i lo -j DROP") > 0)
    assert select.select([], [s], [], 0) == ([], [], [])


@pytest.mark.parametrize("dst", [V4.outside, V4.cluster, V4.pod], ids=["outside", "cluster", "pod"])
def test_what_is_forged_behind_the_pod_is_dropped(world, dst):
    for dev in ("all", "nest0"):
        sysctl(world.pod, f"net.ipv4.conf.{dev}.rp_filter", 0)
    world.apply()
    capture = world.capture()
    raw = world.sock(world.nest, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw.sendto(ipv4("203.0.113.66", dst, 17, udp(53, 9, b"secret"), 1), (dst, 0))
    raw.sendto(ipv4("203.0.113.66", dst, 6, tcp_syn("203.0.113.66", dst, 1234, 9)), (dst, 0))
    wait_for(lambda: world.counted("SLUICE-ARRIVING -m rpfilter --invert -j DROP") == 2)
    assert capture.leaked() == []


@both
def test_ipv6_and_ipv4_are_both_refused_whatever_is_configured(world, ip):
    """A pod that has no address of a family yet: it may get one later."""
    bare = {V4: ("-4", "192.0.2.2/24"), V6: ("-6", "2001:db8:1::2/64")}[ip]
    run("ip", "-n", world.pod, bare[0], "addr", "flush", "dev", "eth0", "scope", "global")
    world.apply()
    run("ip", "-n", world.pod, "addr", "add", bare[1], "dev", "eth0", *(["nodad"] if ip.v6 else []))
    run("ip", "-n", world.pod, "route", "replace", "default", "via", ip.gateway)
    wait_own(world.pod, ip.pod)
    capture = world.capture()
    fails_at_once(lambda: world.connect(world.pod, ip, ip.outside, 443), errno.ECONNREFUSED)
    assert capture.leaked() == []


# ---- what is there: all of it, and nothing else ----

def test_it_is_the_kind_that_it_should_be(world):
    world.apply()
    other = "legacy" if world.variant == "nft" else "nft"
    assert len(world.ours()) > 100 and world.ours(other) == []


FOREIGN = ["-A OUTPUT -d 198.51.100.7 -j LOG", "-N MINE", "-A MINE -j RETURN", "-I INPUT -j MINE",
           "-t nat -A OUTPUT -p tcp --dport 1 -j REDIRECT --to-ports 2", "-t mangle -N SLUICED",
           "-t raw -A PREROUTING -i lo -j ACCEPT", "-P FORWARD DROP",
           "-t mangle -A POSTROUTING -m comment --comment jSLUICE-LEAVING -j RETURN"]


def test_rules_of_others_stay_as_they_are(world):
    for variant in ("nft", "legacy"):
        for family in FAMILIES:
            for args in FOREIGN:
                world.ipt(args.replace("-d 198.51.100.7 ", "") if family == "ip6tables" else args, family, variant)
    before = {v: world.saved(v) for v in ("nft", "legacy")}
    world.apply()
    world.act("verify", *CIDRS)
    during = {v: [line for line in world.saved(v) if "SLUICE-" not in line or "comment" in line]
              for v in before}
    assert during == before
    world.act("apply", "10.0.0.0/8")
    world.act("verify", "10.0.0.0/8")
    world.act("remove")
    assert {v: world.saved(v) for v in before} == before


def test_tables_that_were_not_there_are_gone_again(nft_world):
    nft_world.apply()
    nft_world.act("remove")
    assert nft_world.inside("nft", "list", "ruleset") == ""


def test_an_empty_table_with_a_policy_stays(nft_world):
    world = nft_world
    world.inside("nft", "add table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }")
    world.apply()
    world.act("remove")
    assert "policy drop" in world.inside("nft", "list", "chain", "ip", "filter", "FORWARD")
    assert world.inside("nft", "list", "tables") == "table ip filter\n"


def test_chains_from_before_a_change_go(world):
    world.apply()
    want = world.saved()
    world.act("apply", *(f"10.{i}.0.0/16" for i in range(0, 200, 2)))  # so many that they have chains of their own
    assert any("-NET-1" in line for line in world.saved())
    world.act("verify", *CIDRS, want="ESTALE")
    world.apply()
    assert sorted(world.saved()) == sorted(want)


@both
def test_many_networks_are_told_apart(world, ip):
    """In chains of chains: each is in, what lies between is not."""
    nets = [f"fd00:{i:x}::/48" if ip.v6 else f"10.{i}.0.0/16" for i in range(0, 256, 2)]
    world.act("apply", *nets)
    world.act("verify", *nets)
    for i in (0, 2, 64, 126, 128, 254):
        inside, outside = ((f"fd00:{i:x}::10", f"fd00:{i + 1:x}::10") if ip.v6 else
                           (f"10.{i}.0.10", f"10.{i + 1}.0.10"))
        for addr in (inside, outside):
            run("ip", "-n", world.out, "addr", "add", addr, "dev", "lo")
        server = world.listen(world.out, ip, inside, 53, socket.SOCK_DGRAM)
        s = world.sock(world.pod, ip.af, socket.SOCK_DGRAM)
        s.sendto(b"x", (inside, 53))
        assert server.recv(16) == b"x"
        fails_at_once(lambda: s.sendto(b"x", (outside, 53)), errno.EPERM)


def test_thousands_of_networks(world):
    many = [f"10.{i}.{j}.0/24" for i in range(128) for j in range(0, 32, 2)]
    many6 = [f"fd00:{i:x}:{j:x}::/64" for i in range(128) for j in range(0, 32, 2)]
    said = world.act("apply,verify,verify", *many, *many6)
    print(said)
    assert sum(" -d 10." in line and "CAPTURE" in line and "/24 -j RETURN" in line
               for line in world.saved()) == len(many)


# ---- drift ----

DRIFT = [
    "-D OUTPUT -j SLUICE-OUTGOING",
    "-t nat -D OUTPUT -j SLUICE-CAPTURE",
    "-t mangle -F PREROUTING",
    "-F",
    "-t nat -F",
    "-F SLUICE-FORWARDED",
    "-I OUTPUT -j ACCEPT",
    "-I FORWARD -p tcp -j ACCEPT",
    "-t nat -I OUTPUT -j RETURN",
    "-I SLUICE-OUTGOING -j ACCEPT",
    "-A SLUICE-INCOMING -j ACCEPT",
    "-R SLUICE-OUTGOING 1 -j RETURN",
    "-D SLUICE-INCOMING 1",
    "-R INPUT 1 -p tcp -j SLUICE-INCOMING",
    "-A INPUT -j SLUICE-OUTGOING",
    "-N SLUICE-MORE",
    "-t mangle -E SLUICE-LEAVING SLUICE-GONE",
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("args", DRIFT)
def test_drift_is_seen_and_repaired(world, args, family):
    world.apply()
    want = world.ours()
    world.act("verify", *CIDRS)
    world.ipt(args, family)
    world.act("verify", *CIDRS, want="ESTALE")
    world.apply()
    world.act("verify", *CIDRS)
    assert sorted(world.ours()) == sorted(want)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_it_gone(world, family):
    world.apply()
    for table in TABLES:
        world.ipt(f"-t {table} -F", family)
        world.ipt(f"-t {table} -X", family)
    world.act("verify", *CIDRS, want="ESTALE")
    world.apply()
    world.act("verify", *CIDRS)


NFT_DRIFT = [
    "flush ruleset",
    "delete table ip6 mangle",
    "add table ip filter { flags dormant; }",
    "insert rule ip filter OUTPUT accept",
    "insert rule ip6 nat OUTPUT meta l4proto tcp accept",
]


@pytest.mark.parametrize("command", NFT_DRIFT)
def test_drift_by_nft_is_seen_and_repaired(nft_world, command):
    world = nft_world
    world.apply()
    world.act("verify", *CIDRS)
    world.inside("nft", command)
    world.act("verify", *CIDRS, want="ESTALE")
    world.apply()
    world.act("verify", *CIDRS)


def test_a_rule_in_front_is_behind_afterwards(world):
    """It belongs to somebody, so it stays, where it can let nothing through that we refuse."""
    world.apply()
    world.ipt("-I OUTPUT -j ACCEPT")
    world.apply()
    rules = [line for line in world.saved() if line.startswith("iptables filter -A OUTPUT")]
    assert rules == ["iptables filter -A OUTPUT -j SLUICE-OUTGOING", "iptables filter -A OUTPUT -j ACCEPT"]
    s = world.sock(world.pod, socket.AF_INET, socket.SOCK_DGRAM)
    fails_at_once(lambda: s.sendto(b"x", (V4.outside, 1)), errno.EPERM)


def test_the_policy_is_of_others_and_opens_nothing(world):
    world.ipt("-P OUTPUT DROP")
    world.apply()
    world.ipt("-P OUTPUT ACCEPT")
    world.act("verify", *CIDRS)
    capture = world.capture()
    s = world.sock(world.pod, socket.AF_INET, socket.SOCK_DGRAM)
    fails_at_once(lambda: s.sendto(b"x", (V4.outside, 1)), errno.EPERM)
    world.act("remove")
    assert "iptables filter :OUTPUT" not in "\n".join(world.saved())
    capture.done()


def test_another_interface_is_called_lo(world):
    world.apply()
    for args in ("link set lo down", "link set lo name ol", "link set nest0 down", "link set nest0 name lo"):
        run("ip", "-n", world.pod, *args.split())
    world.act("verify", *CIDRS, want="ESTALE")
    world.act("apply", *CIDRS, want="ENODEV")


def test_a_line_that_looks_like_ours(world):
    """A name that iptables-save prints as it is takes the place of a rule that is gone."""
    world.act("apply", "10.0.0.0/8")
    gone = "SLUICE-CAPTURE -p tcp -m addrtype --src-type LOCAL -j REDIRECT --to-ports 15001"
    world.ipt(f"-t nat -D {gone}")
    world.ipt("-t nat -N ZZZ")
    end = "--mask 255.255.255.255 --rsource"
    world.inside(f"iptables-{world.variant}", "-t", "nat", "-A", "ZZZ", "-m", "recent", "--set", "--name",
                 f"X {end}\n-A {gone}\n-A ZZZ -m recent --set --name X")
    assert f"iptables nat -A {gone}" in world.saved()
    assert "planned" not in world.act("verify", "10.0.0.0/8", want="ESTALE")  # the text is as it should be
    world.act("apply", "10.0.0.0/8", want="EAGAIN")


def test_a_pod_cannot_make_us_read_without_end(world):
    world.apply()
    rules = "*filter\n:MINE - [0:0]\n" + "-A MINE -s 10.0.0.1 -j RETURN\n" * 80000 + "COMMIT\n"
    subprocess.run(["ip", "netns", "exec", world.pod, f"iptables-{world.variant}-restore", "--noflush"],
                   input=rules, text=True, check=True)
    said = world.act("alone,verify", *CIDRS, want="EFBIG")  # by no process
    print(said)
    world.act("apply", *CIDRS, want="EFBIG")
    world.ipt("-F MINE")
    world.apply()
    world.act("verify", *CIDRS)


def test_traffic_alone_is_no_change(world):
    def send():
        ping_from_the_gateway(world)
        s = world.sock(world.pod, socket.AF_INET, socket.SOCK_DGRAM)
        fails_at_once(lambda: s.sendto(b"x", (V4.outside, 1)), errno.EPERM)

    world.apply()
    world.act("verify,alone,wait,verify", *CIDRS, meanwhile=send)  # nor one that takes asking


# ---- from one kind to another ----

@pytest.mark.parametrize("before,after", [("nft", "legacy"), ("legacy", "nft"), ("old", "nft"), ("nft", "nft")])
def test_the_kind_changes_without_a_moment_without_rules(nft_world, before, after):
    world = nft_world
    world.act("apply", *CIDRS, kind=before)
    capture = world.capture()
    s = world.sock(world.pod, socket.AF_INET, socket.SOCK_DGRAM)
    tries = 0
    with world.start("apply", *CIDRS, "10.97.0.0/16", kind=after) as p:
        while p.poll() is None or tries == 0:
            with pytest.raises(PermissionError):
                s.sendto(b"now?", (V4.outside, 1))
            tries += 1
        got = p.stdout.read().strip()
    if after == "legacy":
        # It cannot take away what only the other program can: both refuse, and it says so.
        assert got == "EOPNOTSUPP"
        world.act("verify", *CIDRS, "10.97.0.0/16", want="ESTALE")
    else:
        assert got == "0"
        world.act("verify", *CIDRS, "10.97.0.0/16")
        assert world.ours("legacy") == []
    assert capture.leaked() == [] and tries > 10
    world.act("remove")
    assert world.ours("legacy") == world.ours("nft") == []


def test_rules_by_both_kinds_are_one_too_many(nft_world):
    world = nft_world
    world.apply()
    world.ipt("-N SLUICE-X", variant="legacy")
    world.act("verify", *CIDRS, want="ESTALE")
    world.apply()
    world.act("verify", *CIDRS)
    assert world.ours("legacy") == []


# ---- what it takes ----

def test_no_process_is_started_for_what_is_known(world):
    world.act("apply,alone,verify", *CIDRS, want="EACCES")  # it is not known yet
    said = world.act("verify,alone,verify,verify", *CIDRS)
    print(said)
    world.act("verify,alone,verify", want="ESTALE")  # of another plan
    world.ipt("-t raw -A OUTPUT -j ACCEPT")
    world.act("verify,alone,verify", *CIDRS)


@pytest.mark.parametrize("change", ["-A OUTPUT -j LOG", "-P FORWARD DROP", "-t nat -N MINE", "-F SLUICE-OUTGOING"])
def test_what_is_known_is_not_taken_for_what_has_changed(world, change):
    """By one process: it knows what it has seen, and it sees that this is something else."""
    world.apply()
    world.act("verify,alone,wait,verify", *CIDRS, want="EACCES", meanwhile=lambda: world.ipt(change))


@pytest.fixture
def no_ip6tables(tmp_path):
    """The beginning of a command for which there is no ip6tables-restore."""
    for path in glob.glob("/usr/sbin/ip*tables*") + glob.glob("/usr/sbin/xtables-*-multi"):
        if not re.search("ip6tables.*restore", path):
            shutil.copy(path, tmp_path, follow_symlinks=False)
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c",
            'mount --bind "$0" /usr/sbin && exec "$@"', str(tmp_path)]


def test_half_is_nothing(world, no_ip6tables):
    command = [*no_ip6tables, IPT_APPLY, "apply", f"/run/netns/{world.pod}"]
    done = run(*command, *CIDRS, ok=False)
    assert done.stdout.strip() == "EOPNOTSUPP", done.stderr
    assert world.ours("nft") == world.ours("legacy") == []
    world.apply()
    done = run(*command, "10.0.0.0/8", ok=False)
    assert done.stdout.strip() == "EOPNOTSUPP", done.stderr
    for ip in (V4, V6):  # what had rules keeps some
        fails_at_once(lambda: world.connect(world.pod, ip, ip.outside, 443), errno.ECONNREFUSED)
    world.apply()
    world.act("verify", *CIDRS)


def test_somebody_holds_the_lock_of_the_node(world):
    with open("/run/xtables.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = time.monotonic()
        world.apply()
        world.act("verify", *CIDRS)
        assert time.monotonic() - start < 5


def test_probe(world):
    world.act("probe")
    assert world.ruleset() == ""
