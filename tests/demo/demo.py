# SPDX-License-Identifier: Apache-2.0
"""`make demo`: what two pods try with real clients, and what the agents make of it.

Verdict and reason in the table are read from the agents' access logs, the source address from the answer
of the server; nothing is assumed. Exits non-zero when a row is not what it should be.
"""
import dataclasses
import json
import re
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

import frames  # noqa: E402
import servers  # noqa: E402
from agents import AGENT, CTL  # noqa: E402
from world import GATEWAY_IPS, World  # noqa: E402

FOREIGN = "198.51.100.66"
COLUMNS = ("pod", "tries", "verdict", "reason", "the client sees", "server saw")
COLOURS = {"ALLOW": "32", "DENY": "31"}


@dataclasses.dataclass
class Row:
    """One attempt and what has to come of it."""
    pod: str
    tries: str                # for the reader
    url: str = ""             # for curl, with these options
    options: tuple = ()
    verdict: str = "ALLOW"
    reason: str = ""
    sees: str = "200"         # begins with
    server: str = ""          # which server must have answered
    source: str = ""          # which address it must have seen
    other: str = ""           # instead of curl: the name of a function below


ROWS = [
    Row("pod-a", "https registered", "https://www.example.com/", ("-4",), server="www"),
    Row("pod-b", "http registered", "http://api.example.com/", server="api"),
    Row("pod-a", "https *.wild.example.org", "https://a.wild.example.org/", server="wild"),
    Row("pod-b", "https over IPv6", "https://v6only.example.com/", server="v6only",
        source=GATEWAY_IPS[1]),
    Row("pod-a", "https not registered", "https://unregistered.example.com/", ("-4",), "DENY",
        "host_not_registered", "TLS alert unrecognized_name"),
    Row("pod-b", "http not registered", "http://unregistered.example.com/", ("-4",), "DENY",
        "host_not_registered", "403"),
    Row("pod-a", "https not registered, IPv6", "https://unregistered.example.com/", ("-6",), "DENY",
        "host_not_registered", "TLS alert unrecognized_name"),
    Row("pod-b", "https registered, port 8443", "https://www.example.com:8443/", ("-4",), "DENY",
        "port_not_registered", "TLS alert unrecognized_name"),
    Row("pod-a", "https to a literal IP", f"https://{FOREIGN}/", ("-k",), "DENY", "no_server_name",
        "TLS alert unrecognized_name"),
    Row("pod-a", "exportTo: shop, from shop", "https://shop-only.example.com/", server="shop-only"),
    Row("pod-b", "exportTo: shop, from lab", "https://shop-only.example.com/", (), "DENY", "not_exported",
        "TLS alert unrecognized_name"),
    Row("pod-a", f"spoofed SNI to {FOREIGN}", "https://www.example.com/",
        ("--resolve", f"www.example.com:443:{FOREIGN}"), server="www"),
    Row("pod-b", f"spoofed Host to {FOREIGN}", f"http://{FOREIGN}/", ("-H", "Host: www.example.com"),
        server="www"),
    Row("pod-a", "UDP/443 (QUIC)", other="quic", verdict="DENY", reason="protocol_refused", sees="No route"),
    Row("pod-b", "ping", other="ping", verdict="DENY", reason="protocol_refused", sees="Packet filtered"),
    Row("pod-a", "root: a frame with another's IP", other="forged", verdict="DENY", reason="bypass_attempt"),
    Row("pod-b", "root: flush the rules, then ping", other="flushed", verdict="DENY",
        reason="protocol_refused", sees="Packet filtered"),
]


# ---- attempts without curl; what arrived is the verdict, whatever the log says ----

def quic(pod):
    with pod.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        try:
            sock.connect((servers.WWW[0], 443))
            sock.send(b"\xc0" + bytes(1199))
            sock.recv(1)
            return "an answer"
        except OSError as e:
            return "no answer" if isinstance(e, TimeoutError) else e.strerror


def ping(pod):
    done = pod.run(["ping", "-n", "-c1", "-W1", servers.WWW[0]])
    lines = (done.stdout + done.stderr).splitlines()
    told = [line for line in lines if "prohibited" in line or "permitted" in line or "filtered" in line]
    if done.returncode == 0:
        return "an answer"
    return re.search(r"(\w+ \w+)$", told[0])[1] if told else "no answer"


def forged(pod):
    """Past all that is in the pod: an Ethernet frame of its own making."""
    with pod.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        mac = sock.getsockname()[4]
        packet = frames.udp_packet("10.244.1.250", FOREIGN, 40000, 53, b"forged")
        sock.send(bytes.fromhex("020000000001") + mac + b"\x08\0" + packet)
    return "nothing"


def flushed(pod):
    pod.run(["nft", "flush", "ruleset"])
    return ping(pod)


def try_other(world, row):
    pod, tail = world.pods[row.pod], world.agents["node"].tail()
    with world.capture() as capture:
        sees = {"quic": quic, "ping": ping, "forged": forged, "flushed": flushed}[row.other](pod)
        leaked = world.leaks(capture)
    verdict = "ALLOW" if leaked else "DENY"
    # Who did the same within the last minute was told of it then.
    lines = (tail if row.other != "flushed" else whole(tail)).wait(source_pod=row.pod, reason=row.reason)
    seen = (verdict, lines["reason"], sees, leaked[0].src if leaked else "-")
    good = verdict == row.verdict and sees.startswith(row.sees if row.sees != "200" else "nothing")
    return seen, "" if good else f"expected {row.verdict} {row.reason}"


def whole(tail):
    tail.at = 0
    return tail


# ---- attempts with curl ----

def client_view(got):
    if got.status:
        return str(got.status)
    if "unrecognized name" in got.error:
        return "TLS alert unrecognized_name"
    return got.error.removeprefix("curl: ")


def try_curl(world, row):
    tail = world.agents["node"].tail()
    got = world.curl(world.pods[row.pod], row.url, *row.options)
    record = tail.wait(source_pod=row.pod)
    seen = (record["decision"], record["reason"] or "", client_view(got), got.seen_from or "-")
    return seen, compare(row, seen, got)


def compare(row, seen, got):
    verdict, reason, sees, source = seen
    if verdict != row.verdict or reason != row.reason or not sees.startswith(row.sees):
        return f"expected {row.verdict} {row.reason} {row.sees}"
    want = (row.source or GATEWAY_IPS[0]) if row.verdict == "ALLOW" else "-"
    if source != want:
        return f"expected the server to see {want}"
    if row.server and got.json()["server"] != row.server:
        return f"expected the server {row.server}, got {got.body!r}"
    return ""


# ---- output ----

def paint(text, colour):
    return f"\033[{colour}m{text}\033[0m" if sys.stdout.isatty() and colour else text


def show(cells, widths, problem=""):
    padded = [str(cell).ljust(width) for cell, width in zip(cells, widths)]
    padded[2] = paint(padded[2], COLOURS.get(cells[2]))
    print("  ".join(padded).rstrip() + (paint(f"   <-- {problem}", "31;1") if problem else ""), flush=True)


def two_lines(world):
    """The two log lines of one connection; the problem with them, or ""."""
    node, gateway = world.tails()
    world.curl(world.pods["pod-a"], "https://www.example.com/", "-4")
    at_node = node.wait(source_pod="pod-a", decision="ALLOW")
    at_gateway = gateway.wait(request_id=at_node["request_id"])
    for title, record in (("node", at_node), ("gateway", at_gateway)):
        print(f"\nThe same connection in the log of the {title}:")
        print("  " + json.dumps({k: v for k, v in record.items() if v is not None}))
    return "" if at_gateway["reporter"] == "destination" else "the gateway's line is not the gateway's"


def demo(world):
    failures = 0
    widths = (5, 33, 7, 19, 33, 17)
    print("Two pods, a node, a gateway that owns 203.0.113.10 and 2001:db8:113::10, an internet.\n")
    show(COLUMNS, widths)
    show(["-" * w for w in widths], widths)
    with world.capture() as capture:
        for row in ROWS:
            try:
                seen, problem = (try_other if row.other else try_curl)(world, row)
            except AssertionError as e:
                seen, problem = ("?", "?", "?", "?"), str(e)
            failures += bool(problem)
            show((row.pod, row.tries, *seen), widths, problem)
        leaks = world.leaks(capture)
    problem = two_lines(world)
    if leaks:
        problem = f"packets reached the internet without the gateway: {leaks}"
    if problem:
        failures += 1
        print(paint(f"\n{problem}", "31;1"))
    return failures


def main():
    for program in (AGENT, CTL):
        if not program.exists():
            sys.exit(f"demo: {program} is not there: run make")
    begun = time.monotonic()
    with World() as world:
        try:
            failures = demo(world.start())
            world.stop_agents()
        except AssertionError as e:
            sys.exit(f"demo: {e}")
    took = time.monotonic() - begun
    print(f"\n{'All rows as they should be' if not failures else f'{failures} not as they should be'}"
          f" ({took:.1f} s).")
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
