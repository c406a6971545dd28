# SPDX-License-Identifier: Apache-2.0
"""Packets that only an attempt to get out has a use for."""
import struct

import frames

LSRR, SSRR, RECORD_ROUTE, NOP = 131, 137, 7, 1
ROUTING, FRAGMENT, HOP_BY_HOP, DESTINATION_OPTIONS = 43, 44, 0, 60
GRE, ESP = 47, 50


def route_option(kind, *addresses):
    """An IPv4 option that names routers."""
    body = b"".join(map(frames.addr, addresses))
    return bytes([kind, 3 + len(body), 4]) + body + bytes([NOP])


def routing_header(kind, following, payload, *segments, left=1):
    """Types 0 and 2 (RFC 2460, RFC 6275): reserved, then the addresses."""
    body = b"\0" * 4 + b"".join(map(frames.addr, segments))
    return struct.pack("!BBBB", following, len(segments) * 2, kind, left) + body + payload


def segment_routing(following, payload, *segments, left=1):
    """RFC 8754; segments in reverse order: the last one first."""
    body = struct.pack("!BBH", len(segments) - 1, 0, 0) + b"".join(map(frames.addr, segments))
    return struct.pack("!BBBB", following, len(segments) * 2, 4, left) + body + payload


def gre(inner):
    return struct.pack("!HH", 0, 0x86DD if inner[0] >> 4 == 6 else 0x0800) + inner


def vxlan(number, inner_frame):
    return struct.pack("!II", 8 << 24, number << 8) + inner_frame


def ethernet(dst, src, packet):
    kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
    return frames.mac(dst) + frames.mac(src) + kind + packet


def _crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def sctp_init(sport, dport, data):
    """An INIT chunk, and `data` as its state cookie."""
    parameter = struct.pack("!HH", 7, 4 + len(data)) + data
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20 + len(parameter), 0x1234, 65535, 1, 1, 1) + parameter
    head = struct.pack("!HHI", sport, dport, 0)
    return head + struct.pack("<I", _crc32c(head + b"\0" * 4 + chunk)) + chunk


def snap(packet):
    """Payload of an 802.3 frame: LLC and SNAP around IP."""
    return b"\xaa\xaa\x03\0\0\0\x08\x00" + packet


# ---- the tunnel's header ----

def _tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def proxy_header(name, pod, dst="198.51.100.10", port=443):
    """PROXY v2 as an agent sends it: this name was checked, on behalf of that pod."""
    tlvs = _tlv(0x02, name.encode()) + _tlv(0x05, bytes(range(16))) + _tlv(0xE1, pod.encode())
    addresses = frames.addr("10.244.1.99") + frames.addr(dst) + struct.pack("!HH", 40000, port)
    body = addresses + tlvs + _tlv(0x03, b"\0" * 4)
    whole = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(body)) + body
    return whole[:-4] + struct.pack("!I", _crc32c(whole))
