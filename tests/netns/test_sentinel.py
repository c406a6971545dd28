# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells the agent of a pod: refusals as reports, changes of rules and links.

The rules of a pod are applied by hand (nft_apply) and heard by sentinel_tool, in the same small world
as the tests of the rules themselves. Needs root.
"""
import collections
import contextlib
import errno
import json
import os
import queue
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from test_redirect_nft import (BUILD, CIDRS, V4, V6, WAIT, both, checksum, fails_at_once, run,
                               world)  # noqa: F401  world is a fixture

TOOL = os.path.join(BUILD, "tests/netns/sentinel_tool")
GROUP = 15001
NETLINK_NETFILTER = 12
IPV6_HDRINCL = 36
TRIES = 5  # to be quick once: this process and the tool may have to wait for their turn
SPOOFED = {V4: "203.0.113.9", V6: "2001:db8:9::9"}

Line = collections.namedtuple("Line", "at text")


# ---- the tool ----

class Tool:
    def __init__(self, netns, *what, verb="hear"):
        self.proc = subprocess.Popen([TOOL, verb, f"/run/netns/{netns}", *what], text=True, bufsize=1,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lines = queue.Queue()
        self.answers = queue.Queue()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        self.hears = self.next().text == "ready 1"

    def _read(self):
        for text in self.proc.stdout:
            line = Line(time.monotonic(), text.strip())
            (self.answers if line.text.startswith("stats") else self.lines).put(line)

    def next(self, timeout=WAIT):
        return self.lines.get(timeout=timeout)

    def wait(self, text, timeout=WAIT):
        """The next line that says this; those before it are skipped."""
        end = time.monotonic() + timeout
        while True:
            line = self.next(max(0.001, end - time.monotonic()))
            if line.text == text:
                return line

    def settle(self):
        """Returns when nothing was said for longer than anything is held back."""
        seen = []
        while True:
            try:
                seen.append(self.next(0.3))
            except queue.Empty:
                return seen

    def stats(self):
        self.proc.stdin.write("?\n")
        words = self.answers.get(timeout=WAIT).text.split()[1:]
        return dict(zip(("rules", "links", "refused", "cpu_us", "hears"), map(int, words)))

    def end(self):
        self.proc.stdin.close()
        code = self.proc.wait(timeout=WAIT)
        self.thread.join()
        self.proc.stdout.close()
        return code


@pytest.fixture
def hear(world):
    """hear("rules", "refused", ...): a Tool in the pod's namespace, ended with the test."""
    tools = []

    def start(*what, **options):
        tools.append(Tool(world.pod, *what, **options))
        return tools[-1]

    yield start
    for tool in tools:
        if tool.proc.poll() is None:
            tool.proc.send_signal(signal.SIGCONT)
            assert tool.end() == 0


@pytest.fixture
def reports(world, hear):
    """The pod with rules, and a Tool that hears its refusals."""
    world.apply()
    tool = hear("refused")
    assert tool.hears
    return tool


# ---- packets ----

def printed(addr, port):
    return f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}"


def refused(protocol, src, dst):
    return f"refused refused protocol_refused {protocol} {printed(*src)} {printed(*dst)}"


def bypass(protocol, src, dst):
    return f"refused bypass bypass_attempt {protocol} {printed(*src)} {printed(*dst)}"


def packet(ip, proto, payload, src, dst):
    """A whole IP packet; the kernel fills in what is zero in the header of IPv4."""
    if proto == socket.IPPROTO_TCP:
        pseudo = socket.inet_pton(ip.af, src) + socket.inet_pton(ip.af, dst)
        sum_ = checksum(pseudo + struct.pack("!HH", proto, len(payload)) + payload)
        payload = payload[:16] + struct.pack("!H", sum_) + payload[18:]
    if ip.v6:
        head = struct.pack("!IHBB", 6 << 28, len(payload), proto, 64)
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, proto, 0)
    return head + socket.inet_pton(ip.af, src) + socket.inet_pton(ip.af, dst) + payload


def tcp(flags, sport=40000, dport=443):
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 5 << 4, flags, 8192, 0, 0)


def send_raw(world, netns, ip, proto, payload, src, dst):
    s = world.sock(netns, ip.af, socket.SOCK_RAW, socket.IPPROTO_RAW)
    if ip.v6:
        s.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
    try:
        s.sendto(packet(ip, proto, payload, src, dst), (dst, 0))
    except PermissionError:
        pass  # refused: that is what is reported


def send_udp(world, ip, dst, port, netns=None):
    """Returns the address that it was sent from."""
    s = world.sock(netns or world.pod, ip.af, socket.SOCK_DGRAM)
    s.connect((dst, port))
    try:
        s.send(b"x")
    except PermissionError:
        pass
    return s.getsockname()[:2]


def only(tool, world, text):
    """The one and only thing that is said before a marker sent after it."""
    line = tool.next()
    assert line.text == text
    nothing(tool, world)
    return line


def nothing(tool, world):
    src = send_udp(world, V4, V4.outside, 9)
    assert tool.next().text == refused("UDP", src, (V4.outside, 9))


def counter(world, chain, number):
    """Packets of the rule with this number among those of the chain that count."""
    text = run("ip", "netns", "exec", world.pod, "nft", "-j", "list", "chain", "inet", "sluice", chain)
    rules = [r["rule"]["expr"] for r in json.loads(text.stdout)["nftables"] if "rule" in r]
    counters = [e["counter"]["packets"] for r in rules for e in r if "counter" in e]
    return counters[number]


# ---- what is refused has its report ----

@both
def test_udp(world, reports, ip):
    src = send_udp(world, ip, ip.outside, 53)
    assert only(reports, world, refused("UDP", src, (ip.outside, 53)))
    assert src[0] == ip.pod


@both
def test_a_report_comes_at_once(world, reports, ip):
    def delay():
        start = time.monotonic()
        src = send_udp(world, ip, ip.outside, 53)
        return reports.wait(refused("UDP", src, (ip.outside, 53))).at - start
    assert min(delay() for _ in range(TRIES)) < 0.1


@both
def test_quic_fails_at_once_and_counts_for_itself(world, reports, ip):
    s = world.sock(world.pod, ip.af, socket.SOCK_DGRAM)
    s.connect((ip.outside, 443))
    fails_at_once(lambda: s.send(b"initial"), errno.EPERM)
    fails_at_once(lambda: s.recv(16), errno.EACCES if ip.v6 else errno.EHOSTUNREACH)
    only(reports, world, refused("QUIC", s.getsockname()[:2], (ip.outside, 443)))
    assert counter(world, "outgoing", -2) == 1  # QUIC; the last is the marker's
    assert counter(world, "outgoing", -1) == 1

    def delay():
        start = time.monotonic()
        fails_at_once(lambda: s.send(b"again"), errno.EPERM)
        fails_at_once(lambda: s.recv(16), errno.EACCES if ip.v6 else errno.EHOSTUNREACH)
        return time.monotonic() - start
    assert min(delay() for _ in range(TRIES)) < 0.05


@both
def test_ping(world, reports, ip):
    done = run("ip", "netns", "exec", world.pod, "ping", "-c", "1", "-W", "1", ip.outside, ok=False)
    assert done.returncode != 0
    word = "ICMPv6" if ip.v6 else "ICMP"
    only(reports, world, refused(word, (ip.pod, 0), (ip.outside, 0)))


@both
@pytest.mark.parametrize("proto, word, ports", [
    (132, "SCTP", (5000, 5001)), (47, "GRE", (0, 0)), (136, "UDPLite", (5000, 5001)),
    (4, "IPIP", (0, 0)), (99, "IP protocol 99", (0, 0))])
def test_other_protocols(world, reports, ip, proto, word, ports):
    s = world.sock(world.pod, ip.af, socket.SOCK_RAW, proto)
    with pytest.raises(PermissionError):
        s.sendto(struct.pack("!HH", 5000, 5001) + bytes(12), (ip.outside, 0))
    only(reports, world, refused(word, (ip.pod, ports[0]), (ip.outside, ports[1])))


@both
def test_a_large_datagram_has_its_ports(world, reports, ip):
    """Fragmented on its way out: refused before that."""
    s = world.sock(world.pod, ip.af, socket.SOCK_DGRAM)
    s.connect((ip.outside, 53))
    with pytest.raises(PermissionError):
        s.send(bytes(5000))
    only(reports, world, refused("UDP", s.getsockname()[:2], (ip.outside, 53)))


@both
def test_a_forged_source(world, reports, ip):
    send_raw(world, world.pod, ip, 17, struct.pack("!HHHH", 1, 53, 8, 0), SPOOFED[ip], ip.outside)
    only(reports, world, bypass("UDP", (SPOOFED[ip], 1), (ip.outside, 53)))


@both
def test_a_forged_source_into_the_cluster(world, reports, ip):
    send_raw(world, world.pod, ip, 6, tcp(0x02), SPOOFED[ip], ip.cluster)
    only(reports, world, bypass("TCP", (SPOOFED[ip], 40000), (ip.cluster, 443)))


@both
def test_tcp_that_no_redirection_takes(world, reports, ip):
    send_raw(world, world.pod, ip, 6, tcp(0x12), ip.pod, ip.outside)  # SYN-ACK of nothing
    only(reports, world, bypass("TCP", (ip.pod, 40000), (ip.outside, 443)))


@both
def test_a_connection_older_than_the_rules(world, hear, ip):
    # Somebody's rules have conntrack know it.
    run("ip", "netns", "exec", world.pod, "nft", "add table inet other; add chain inet other c "
        "{ type filter hook output priority 0; }; add rule inet other c ct state new counter")
    client, _ = world.pair(world.pod, world.out, ip, ip.outside, 443)
    world.apply()
    tool = hear("refused")
    client.send(b"still there?")
    line = tool.next()
    assert line.text == bypass("TCP", client.getsockname()[:2], (ip.outside, 443))


@both
def test_a_socket_bound_to_an_interface(world, reports, ip):
    """Redirected, and yet bound to leave: the report has the addresses on the packet."""
    world.listen(world.pod, ip, ip.loopback, GROUP)
    s = world.sock(world.pod, ip.af, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    s.setblocking(False)
    s.connect_ex((ip.outside, 443))
    line = reports.next()
    assert line.text == bypass("TCP", s.getsockname()[:2], (ip.loopback, GROUP))


@both
def test_forged_by_a_packet_socket_on_lo(world, reports, ip):
    s = world.sock(world.pod, socket.AF_PACKET, socket.SOCK_DGRAM)
    data = packet(ip, 17, struct.pack("!HHHH", 1, 2, 8, 0), ip.outside, ip.pod)
    if not ip.v6:  # the kernel looks at it on the way in
        data = data[:10] + struct.pack("!H", checksum(data[:20])) + data[12:]
    s.sendto(data, ("lo", 0x86dd if ip.v6 else 0x0800, 0, 0, bytes(6)))
    only(reports, world, bypass("UDP", (ip.outside, 1), (ip.pod, 2)))


@both
def test_from_a_nested_container(world, reports, ip):
    src = send_udp(world, ip, ip.outside, 53, netns=world.nest)
    only(reports, world, bypass("UDP", src, (ip.outside, 53)))
    assert src[0] == ip.nested


@both
def test_forged_in_a_nested_container(world, reports, ip):
    send_raw(world, world.nest, ip, 17, struct.pack("!HHHH", 1, 53, 8, 0), SPOOFED[ip], ip.outside)
    only(reports, world, bypass("UDP", (SPOOFED[ip], 1), (ip.outside, 53)))


# ---- what is no doing of the pod's has none ----

@both
def test_strangers_cause_no_reports(world, reports, ip):
    arrived = counter(world, "arriving", -1)
    # An answer to nothing, which the pod's kernel answers with a reset.
    send_raw(world, world.out, ip, 6, tcp(0x12), ip.outside, ip.pod)
    # The middle of a connection, and a source that is behind another interface of the pod's.
    send_raw(world, world.out, ip, 6, tcp(0x10), ip.outside, ip.pod)
    send_raw(world, world.out, ip, 17, struct.pack("!HHHH", 1, 2, 8, 0), ip.nested, ip.pod)
    s = world.sock(world.out, ip.af, socket.SOCK_DGRAM)
    s.connect((ip.pod, 7777))
    s.send(b"to a closed port")
    with pytest.raises(ConnectionRefusedError):
        s.recv(16)  # behind the others on the same way
    nothing(reports, world)
    assert counter(world, "outgoing", 1) == 1  # the reset was there
    assert counter(world, "incoming", -1) == 1
    assert counter(world, "arriving", -1) == arrived + 1


@both
def test_what_may_leave_has_none(world, reports, ip):
    world.listen(world.out, ip, ip.any, 80)
    world.connect(world.pod, ip, ip.cluster, 80)
    world.pair(world.out, world.pod, ip, ip.pod, 8080)
    world.pair(world.pod, world.pod, ip, ip.loopback, 8081)
    world.listen(world.pod, ip, ip.loopback, GROUP)
    world.connect(world.pod, ip, ip.outside, 443)
    nothing(reports, world)


# ---- a report is no verdict, and there are not too many ----

def flood(world, n, port):
    """Datagrams that are all refused. Returns how long it took."""
    s = world.sock(world.pod, socket.AF_INET, socket.SOCK_DGRAM)
    start = time.monotonic()
    for _ in range(n):
        with pytest.raises(PermissionError):
            s.sendto(b"x", (V4.outside, port))
    return time.monotonic() - start


@pytest.mark.parametrize("listening", [True, False], ids=["heard", "unheard"])
def test_a_flood_is_refused_and_reported_in_bounds(world, hear, listening):
    n = 100000
    world.apply()
    tool = hear("refused") if listening else None
    before = tool.stats()["cpu_us"] if tool else 0
    took = flood(world, n, 53)
    assert counter(world, "outgoing", -1) == n
    if tool:
        count = len(tool.settle())
        cpu = tool.stats()["cpu_us"] - before
        print(f"{count} reports of {n} datagrams in {took:.2f} s, {cpu} us of CPU")
        assert 50 <= count <= 50 + 20 * (took + 1)
        assert cpu < 50000
    world.act("verify", *CIDRS)  # a limit that is used up is no change


def test_a_flood_does_not_hide_quic(world, reports):
    flood(world, 1000, 53)
    src = send_udp(world, V4, V4.outside, 443)
    assert reports.wait(refused("QUIC", src, (V4.outside, 443)))


def test_a_missing_report_rule_is_a_change(world):
    world.apply()
    text = run("ip", "netns", "exec", world.pod, "nft", "-a", "list", "chain", "inet", "sluice",
               "outgoing").stdout
    handles = [line.split()[-1] for line in text.splitlines() if "group 15001" in line]
    assert len(handles) == 4
    run("ip", "netns", "exec", world.pod, "nft", "delete", "rule", "inet", "sluice", "outgoing",
        "handle", handles[-1])
    world.act("verify", *CIDRS, want="ESTALE")
    world.apply()
    world.act("verify", *CIDRS)


def test_a_flood_of_reports_by_the_pod_itself(world, hear):
    """Rules of its own without a limit, each packet a message: the agent reads a bounded number."""
    run("ip", "netns", "exec", world.pod, "nft", "add table inet own; add chain inet own c "
        "{ type filter hook output priority -10; }; add rule inet own c udp dport 9 "
        'log group 15001 prefix "refused" queue-threshold 1')
    tool = hear("refused")
    s = world.sock(world.pod, socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(("127.0.0.1", 9))
    before, start, n = tool.stats()["cpu_us"], time.monotonic(), 0
    while time.monotonic() - start < 2.5:
        try:
            s.send(b"x")
        except ConnectionRefusedError:
            pass
        n += 1
    heard = len(tool.settle())
    cpu = tool.stats()["cpu_us"] - before
    print(f"{heard} reports heard of {n}, {cpu} us of CPU")
    assert n > 20000
    assert 128 <= heard <= 4 * (128 + 16)
    assert cpu < 100000


def test_what_the_pod_says_itself_is_not_believed(world, reports):
    """Root in the pod can send to the agent's socket, but only the kernel is heard."""
    udp = packet(V4, 17, struct.pack("!HHHH", 1, 2, 8, 0), V4.pod, V4.outside)
    attrs = struct.pack("=HH", 12, 10) + b"refused\0" + struct.pack("=HH", 4 + len(udp), 9) + udp
    body = struct.pack("!BBH", socket.AF_INET, 0, GROUP) + attrs
    message = struct.pack("=IHHII", 16 + len(body), 0x400, 0, 0, 0) + body
    table = run("ip", "netns", "exec", world.pod, "cat", "/proc/net/netlink").stdout
    ports = [int(row.split()[2]) for row in table.splitlines()[1:]
             if row.split()[1] == str(NETLINK_NETFILTER) and row.split()[2] != "0"]
    assert ports
    s = world.sock(world.pod, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    for port in ports:
        assert s.sendto(message, (port, 0)) == len(message)
    nothing(reports, world)


# ---- somebody else has the group ----

def bind_group(world):
    """As any process with NET_ADMIN in the pod can."""
    s = world.sock(world.pod, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    body = struct.pack("!BBH", 0, 0, GROUP) + struct.pack("=HHB3x", 5, 1, 1)
    s.send(struct.pack("=IHHII", 16 + len(body), 0x401, 5, 1, 0) + body)
    return s, -struct.unpack_from("=i", s.recv(4096), 16)[0]


def test_somebody_else_has_the_group(world, hear):
    other, error = bind_group(world)
    assert error == 0
    world.apply()
    tool = hear("rules", "refused")
    assert not tool.hears
    world.apply()
    tool.wait("rules")
    send_udp(world, V4, V4.outside, 53)
    tool.settle()
    assert tool.stats()["refused"] == 0
    other.close()  # heard from now on, without anybody's doing
    end = time.monotonic() + WAIT
    while not tool.stats()["hears"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    src = send_udp(world, V4, V4.outside, 53)
    assert tool.wait(refused("UDP", src, (V4.outside, 53)))


def test_nobody_takes_the_group_away(world, reports):
    assert bind_group(world)[1] == errno.EPERM
    nothing(reports, world)


# ---- rules that change ----

def nft(world, *args):
    run("ip", "netns", "exec", world.pod, "nft", *args)


@contextlib.contextmanager
def looking_away(tool):
    """The kernel tells of one transaction by several messages: all are there when the tool looks."""
    tool.proc.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        tool.proc.send_signal(signal.SIGCONT)


def delay(tool, act):
    """How long after it was done something is heard; it was quiet before."""
    tool.settle()
    act()
    done = time.monotonic()
    return tool.next().at - done


@pytest.mark.parametrize("command", ["flush table inet sluice", "delete table inet sluice",
                                     "flush ruleset", "add table ip other"])
def test_changed_rules_are_heard_of(world, hear, command):
    world.apply()
    tool = hear("rules")
    with looking_away(tool):
        nft(world, command)
    assert tool.next().text == "rules"
    assert tool.settle() == []
    assert tool.stats()["links"] == tool.stats()["refused"] == 0


def test_many_objects_are_one_change(world, hear):
    tool = hear("rules")
    with looking_away(tool):
        world.apply()
    assert tool.next().text == "rules"
    assert tool.settle() == []


def test_a_change_is_heard_at_once(world, hear):
    tool = hear("rules")
    assert min(delay(tool, lambda i=i: nft(world, f"add table ip t{i}")) for i in range(TRIES)) < 0.05


def batch(*messages):
    """Messages of nf_tables as one transaction: (type, flags, attributes)."""
    def build(kind, flags, body, res_id=0, family=1):
        body = struct.pack("!BBH", family, 0, res_id) + body
        return struct.pack("=IHHII", 16 + len(body), kind, 1 | flags, 1, 0) + body

    return (build(16, 0, b"", 10, 0) + b"".join(build(10 << 8 | t, f, a) for t, f, a in messages)
            + build(17, 0, b"", 10, 0))


def name(text):
    raw = text.encode() + b"\0"
    return struct.pack("=HH", 4 + len(raw), 1) + raw + bytes(-len(raw) % 4)


def test_a_flood_of_changes(world, hear):
    """As fast as a process in the pod can: a bounded number of calls, and the last is not lost."""
    tool = hear("rules")
    s = world.sock(world.pod, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    before, start, n = tool.stats()["cpu_us"], time.monotonic(), 0
    while time.monotonic() - start < 2:
        last = time.monotonic()
        s.send(batch((0, 0x400, name(f"t{n}"))))
        n += 1
    lines = tool.settle()
    cpu = tool.stats()["cpu_us"] - before
    print(f"{len(lines)} calls for {n} transactions, {cpu} us of CPU")
    assert n > 1000
    assert 10 <= len(lines) <= 20 * 2.5 + 2
    assert lines[-1].at > last
    assert cpu < 200000

    def late(n):
        for i in range(20):
            s.send(batch((0, 0x400, name(f"late{n}-{i}"))))
        end = time.monotonic()
        return tool.settle()[-1].at - end
    assert min(late(i) for i in range(TRIES)) < 0.15


def test_lost_notifications_are_a_change(world, hear):
    tool = hear("rules")
    tool.proc.send_signal(signal.SIGSTOP)
    s = world.sock(world.pod, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    for i in range(2000):
        s.send(batch((0, 0x400, name(f"t{i}"))))
    table = run("ip", "netns", "exec", world.pod, "cat", "/proc/net/netlink").stdout
    assert any(int(row.split()[8]) > 0 for row in table.splitlines()[1:]), table  # Drops
    tool.proc.send_signal(signal.SIGCONT)
    assert tool.wait("rules")
    assert min(delay(tool, lambda i=i: nft(world, f"add table ip other{i}"))  # and it goes on
               for i in range(TRIES)) < 0.05


# ---- links ----

@pytest.mark.parametrize("command", [
    "addr add 192.0.2.77/24 dev eth0", "addr add 2001:db8:1::77/64 dev eth0 nodad",
    "addr del 192.0.2.2/24 dev eth0", "link add br0 type bridge", "link set nest0 down",
    "link del nest0", "link set eth0 name eth9"])
def test_links_and_addresses(world, hear, command):
    tool = hear("links")
    tool.settle()
    run("ip", "-n", world.pod, *command.split())
    assert tool.next().text == "links"
    tool.settle()
    assert tool.stats()["rules"] == 0


def test_an_address_is_heard_of_at_once(world, hear):
    tool = hear("links")
    assert min(delay(tool, lambda i=i: run("ip", "-n", world.pod, "addr", "add", f"192.0.2.{70 + i}/32", "dev", "lo"))
               for i in range(TRIES)) < 0.05


def test_a_link_that_is_moved_in(world, hear):
    tool = hear("links")
    tool.settle()
    run("ip", "link", "add", "moved0", "netns", world.nest, "type", "veth", "peer", "name", "moved1",
        "netns", world.nest)
    assert tool.settle() == []  # somebody else's
    run("ip", "-n", world.nest, "link", "set", "moved0", "netns", world.pod)
    assert tool.next().text == "links"


def test_a_flood_of_links(world, hear):
    tool = hear("links")
    before, start = tool.stats()["cpu_us"], time.monotonic()
    lines = "".join(f"addr add 10.{i >> 8 & 255}.{i & 255}.1/32 dev lo\n" for i in range(5000))
    subprocess.run(["ip", "-n", world.pod, "-batch", "-"], input=lines, text=True, check=True)
    last = time.monotonic()
    heard = tool.settle()
    took = last - start
    cpu = tool.stats()["cpu_us"] - before
    print(f"{len(heard)} calls for 5000 addresses in {took:.2f} s, {cpu} us of CPU")
    assert 1 <= len(heard) <= 20 * (took + 0.5) + 2
    assert cpu < 100000


# ---- the end ----

@pytest.mark.parametrize("what", ["rules", "links", "refused"])
def test_freed_within_a_hook(world, hear, what):
    world.apply()
    hear("links").settle()  # what the kernel does late for the world that was just made
    tool = hear("rules", "links", "refused", verb="once")
    if what == "rules":
        nft(world, "flush ruleset")
    elif what == "links":
        run("ip", "-n", world.pod, "link", "set", "nest0", "down")
    else:
        flood(world, 200, 53)
    assert tool.next().text.split()[0] == what
    assert tool.proc.wait(timeout=WAIT) == 0
    tool.thread.join()
    assert tool.lines.empty()
    assert tool.end() == 0


def test_no_namespace():
    done = run(TOOL, "hear", "/dev/null", "rules", ok=False)
    assert (done.stdout, done.returncode) == ("error ENOTTY\n", 1)


def test_cost(world):
    done = run(TOOL, "cost", f"/run/netns/{world.pod}", "100")
    words = done.stdout.split()
    print(done.stdout)
    assert words[1:3] == ["300", "fds"]
    assert int(words[3]) < 100 * 1000  # a millisecond each would be too much
