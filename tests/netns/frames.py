# SPDX-License-Identifier: Apache-2.0
"""Packets put together byte by byte, and taken apart again."""
import collections
import ipaddress
import socket
import struct

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

Packet = collections.namedtuple(
    "Packet", "src dst proto sport dport flags seq ack type code ident good payload frame")


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def eui64(text):
    raw = bytearray(mac(text))
    raw[0] ^= 2
    raw[3:3] = b"\xff\xfe"
    return ":".join(f"{raw[i]:02x}{raw[i + 1]:02x}" for i in range(0, 8, 2))


def addr(text):
    return ipaddress.ip_address(text).packed


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(src, dst, proto, length):
    src, dst = addr(src), addr(dst)
    if len(src) == 4:
        return src + dst + struct.pack("!BBH", 0, proto, length)
    return src + dst + struct.pack("!II", length, proto)


# ---- layers, each around its payload ----

def ip4(src, dst, proto, payload=b"", ttl=64, ident=1, frag=0, options=b"", **fields):
    ihl = fields.get("ihl", 5 + len(options) // 4)
    length = fields.get("length", 20 + len(options) + len(payload))
    head = struct.pack("!BBHHHBBH4s4s", fields.get("version", 4) << 4 | ihl, 0, length, ident, frag,
                       ttl, proto, 0, addr(src), addr(dst)) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ip6(src, dst, proto, payload=b"", hops=64, **fields):
    return struct.pack("!IHBB16s16s", fields.get("version", 6) << 28,
                       fields.get("length", len(payload)), proto, hops, addr(src),
                       addr(dst)) + payload


def ip(src, dst, proto, payload=b"", ttl=64, **more):
    if ":" in src:
        return ip6(src, dst, proto, payload, ttl, **more)
    return ip4(src, dst, proto, payload, ttl, **more)


def ext(following, payload, length=8, body=None):
    """An IPv6 extension header of `length` bytes in front of payload."""
    body = b"\x01" + bytes([length - 4]) + bytes(length - 4) if body is None else body
    return struct.pack("!BB", following, length // 8 - 1) + body + payload


def fragment6(following, payload, offset=0, more=False, ident=1):
    return struct.pack("!BBHI", following, 0, offset | more, ident) + payload


def tcp(src, dst, sport, dport, flags=SYN, payload=b"", seq=1000, ack=0, options=b"", doff=None):
    doff = 5 + len(options) // 4 if doff is None else doff
    raw = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, doff << 4, flags, 65535, 0,
                      0) + options + payload
    check = checksum(pseudo(src, dst, TCP, len(raw)) + raw)
    return raw[:16] + struct.pack("!H", check) + raw[18:]


def udp(src, dst, sport, dport, payload=b"", length=None):
    raw = struct.pack("!HHHH", sport, dport, length or 8 + len(payload), 0) + payload
    check = checksum(pseudo(src, dst, UDP, len(raw)) + raw)
    return raw[:6] + struct.pack("!H", check) + raw[8:]


def icmp(src, dst, kind, code=0, rest=b"\0\0\0\0", payload=b""):
    raw = struct.pack("!BBH", kind, code, 0) + rest + payload
    head = pseudo(src, dst, ICMP6, len(raw)) if ":" in src else b""
    return raw[:2] + struct.pack("!H", checksum(head + raw)) + raw[4:]


def icmp_proto(address):
    return ICMP6 if ":" in address else ICMP


def tcp_packet(src, dst, sport, dport, flags=SYN, **more):
    return ip(src, dst, TCP, tcp(src, dst, sport, dport, flags, **more))


def udp_packet(src, dst, sport, dport, payload=b"x"):
    return ip(src, dst, UDP, udp(src, dst, sport, dport, payload))


def icmp_packet(src, dst, kind, code=0, rest=b"\0\0\0\0", payload=b"", ttl=64):
    return ip(src, dst, icmp_proto(src), icmp(src, dst, kind, code, rest, payload), ttl)


def echo_packet(src, dst, ident, reply=False, payload=b"ping"):
    kinds = (128, 129) if ":" in src else (8, 0)
    return icmp_packet(src, dst, kinds[reply], 0, struct.pack("!HH", ident, 1), payload)


def arp(operation, sender_mac, sender, target, target_mac="00:00:00:00:00:00"):
    return struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, mac(sender_mac), addr(sender),
                       mac(target_mac), addr(target))


# ---- the other way ----

def _l4(src, dst, proto, data, good, frame):
    fields = dict.fromkeys(("sport", "dport", "flags", "seq", "ack", "type", "code", "ident"), 0)
    payload = data
    if proto == TCP and len(data) >= 20:
        fields["sport"], fields["dport"], fields["seq"], fields["ack"], doff, fields["flags"] = \
            struct.unpack("!HHIIBB", data[:14])
        payload = data[(doff >> 4) * 4:]
    elif proto == UDP and len(data) >= 8:
        fields["sport"], fields["dport"] = struct.unpack("!HH", data[:4])
        payload = data[8:]
    elif proto in (ICMP, ICMP6) and len(data) >= 8:
        fields["type"], fields["code"], _, fields["ident"] = struct.unpack("!BBHH", data[:6])
        payload = data[8:]
    if proto in (TCP, UDP, ICMP6):
        good = good and checksum(pseudo(src, dst, proto, len(data)) + data) == 0
    elif proto == ICMP:
        good = good and checksum(data) == 0
    return Packet(src=src, dst=dst, proto=proto, good=good, payload=payload, frame=frame, **fields)


def parse(frame):
    """A Packet, `good` when its checksums are right; None for what is not IP."""
    kind = struct.unpack("!H", frame[12:14])[0] if len(frame) >= 14 else 0
    data = frame[14:]
    if kind == 0x0800 and len(data) >= 20:
        head, length = (data[0] & 15) * 4, struct.unpack("!H", data[2:4])[0]
        src, dst = (socket.inet_ntop(socket.AF_INET, data[i:i + 4]) for i in (12, 16))
        return _l4(src, dst, data[9], data[head:length], checksum(data[:head]) == 0, frame)
    if kind == 0x86DD and len(data) >= 40:
        length = struct.unpack("!H", data[4:6])[0]
        src, dst = (socket.inet_ntop(socket.AF_INET6, data[i:i + 16]) for i in (8, 24))
        return _l4(src, dst, data[6], data[40:40 + length], True, frame)
    return None
