# SPDX-License-Identifier: Apache-2.0
"""Those who do the work: each reads the server name of a TLS ClientHello, admits only the
registered one, writes a log line per connection and passes the bytes on. With two hops a redirect
catches what the pod sends to the server's own address, the node tells the gateway by a PROXY header
who it is for, and both decide. The kernel alone forwards and masquerades.
"""
import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time

import world as w

NAME = "bench.example.com"
POD = "bench/pod"
GATEWAY_PORT = 15443
CAPTURE_PORT = 15001  # where the node's proxy of a competitor listens
SERVER = f"{w.SERVER}:{w.SERVER_PORT}"
CAPTURE = f"""
table ip bench {{
    chain capture {{
        type nat hook prerouting priority dstnat
        ip daddr {w.SERVER} tcp dport {w.SERVER_PORT} redirect to :{CAPTURE_PORT}
    }}
}}
"""
MASQUERADE = """
table ip bench {
    chain egress {
        type nat hook postrouting priority srcnat
        oifname to-srv masquerade
    }
}
"""


class Contender:
    """One program with one number of hops. running() yields its main processes by name."""

    ours = False
    works = ("bulk", "round_trips", "connections", "memory", "syscalls")

    def __init__(self, kind, label, version, hops):
        self.kind, self.label, self.version, self.hops = kind, label, version, hops
        self.key = f"{kind}-{hops}"
        self.client = "cli" if hops == 1 else "pod"
        self.target = f"{w.GATEWAY_FROM_CLIENT}:{GATEWAY_PORT}" if hops == 1 else SERVER
        self.head = b""  # what the client sends before its hello

    @contextlib.contextmanager
    def running(self, world):
        processes = {}
        self.capture(world)
        try:
            self.start(world, processes)
            yield processes
        finally:
            self.before_stop(world, processes)
            for process in reversed(list(processes.values())):
                world.stop(process)
            self.release(world)

    def start(self, world, processes):
        raise NotImplementedError

    def before_stop(self, world, processes):
        pass

    def capture(self, world):
        """A competitor's node agent gets what is meant for the server by a redirect."""
        if self.hops == 2:
            world.nft("node", CAPTURE)

    def release(self, world):
        if self.hops == 2:
            world.nft("node", "delete table ip bench")

    def log(self, world, name):
        return open(world.path(f"{self.key}-{name}.log"), "w")


class Kernel(Contender):
    works = ("bulk", "round_trips", "connections")

    def __init__(self, hops):
        super().__init__("kernel", "kernel NAT", os.uname().release, hops)
        self.target = SERVER

    def capture(self, world):
        for ns in ("gw", "node")[:self.hops]:
            world.sysctl(ns, "net.ipv4.ip_forward", "1")
        world.nft("gw", MASQUERADE)

    def release(self, world):
        world.nft("gw", "delete table ip bench")
        for ns in ("gw", "node")[:self.hops]:
            world.sysctl(ns, "net.ipv4.ip_forward", "0")

    def start(self, world, processes):
        pass


HAPROXY = """
global
    nbthread 2
    {tuning}
    maxconn 4096
    log stdout format raw local0
defaults
    mode tcp
    log global
    log-format "%ci:%cp [%t] %[var(sess.sni)] %b/%s %Tw/%Tc/%Tt %B %U %ts"
    {splice}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend in
    bind {listen}
    unique-id-format %{{+X}}o%ci%cp%Ts%rt
    tcp-request inspect-delay 5s
    tcp-request content set-var(sess.sni) req.ssl_sni
    tcp-request content accept if {{ req.ssl_sni -i {name} }}
    tcp-request content reject
    default_backend out
backend out
    server out {to}
"""


class Haproxy(Contender):
    """Left to find out itself what to splice, which 2.6 hardly does. What ratios refer to."""

    tuning = ""
    splice = "option splice-auto"

    def __init__(self, hops, binary, kind="haproxy"):
        self.binary = binary
        text = w.run(binary, "-v")
        version = re.search(r"version (\d+\.\d+(?:[.-]\w+)*)", text).group(1)
        super().__init__(kind, f"HAProxy {version}", version, hops)

    def start(self, world, processes):
        header = "accept-proxy" if self.hops == 2 else ""
        self._start(world, processes, "gateway", "gw", f"0.0.0.0:{GATEWAY_PORT} {header}", SERVER)
        if self.hops == 2:
            self._start(world, processes, "node", "node", f"0.0.0.0:{CAPTURE_PORT}",
                        f"{w.GATEWAY_FROM_NODE}:{GATEWAY_PORT} send-proxy-v2"
                        " proxy-v2-options crc32c,unique-id")

    def _start(self, world, processes, role, ns, listen, to):
        text = HAPROXY.format(listen=listen, to=to, name=NAME, splice=self.splice,
                              tuning=self.tuning)
        config = world.write(f"{self.key}-{role}.cfg", text)
        with self.log(world, role) as log:
            processes[role] = world.spawn(ns, "proxy", [self.binary, "-db", "-f", config],
                                          stdout=log, stderr=log)


class HaproxyTuned(Haproxy):
    """Told to splice everything, by large pipes: its best at bulk, its worst at small messages."""

    works = ("bulk",)
    tuning = "tune.pipesize 1048576"
    splice = "option splice-request\n    option splice-response"

    def __init__(self, hops, binary):
        super().__init__(hops, binary, "haproxy_tuned")
        self.label += " splicing"


NGINX = """
load_module modules/ngx_stream_module.so;
user root;
worker_processes 2;
daemon off;
pid {dir}/{key}-{role}.pid;
error_log stderr;
events {{ worker_connections 8192; }}
stream {{
    log_format line '$remote_addr:$remote_port [$time_iso8601] $ssl_preread_server_name '
                    '$upstream_addr $status $bytes_sent $bytes_received $session_time';
    access_log {dir}/{key}-{role}-access.log line;
    map $ssl_preread_server_name $to {{ hostnames; {name} {to}; default ""; }}
    server {{
        listen {listen};
        ssl_preread on;
        proxy_pass $to;
        proxy_protocol {header};
        proxy_timeout 1h;
    }}
}}
"""


class Nginx(Contender):
    def __init__(self, hops, binary="nginx"):
        self.binary = shutil.which(binary)
        if not self.binary:
            raise FileNotFoundError("nginx is not installed (Debian: nginx, libnginx-mod-stream)")
        done = subprocess.run([self.binary, "-v"], capture_output=True, text=True)
        version = re.search(r"nginx/(\S+)", done.stderr).group(1)
        super().__init__("nginx", f"nginx {version}", version, hops)

    def start(self, world, processes):
        header = " proxy_protocol" if self.hops == 2 else ""
        self._start(world, processes, "gateway", "gw", f"{GATEWAY_PORT}{header}", SERVER, "off")
        if self.hops == 2:
            self._start(world, processes, "node", "node", str(CAPTURE_PORT),
                        f"{w.GATEWAY_FROM_NODE}:{GATEWAY_PORT}", "on")

    def _start(self, world, processes, role, ns, listen, to, header):
        text = NGINX.format(dir=world.dir, key=self.key, role=role, listen=listen, to=to,
                            name=NAME, header=header)
        config = world.write(f"{self.key}-{role}.conf", text)
        with self.log(world, role) as log:
            processes[role] = world.spawn(ns, "proxy", [self.binary, "-c", config],
                                          stdout=log, stderr=log)


def service_entry(name, hosts, address):
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": name, "namespace": "bench"},
            "spec": {"hosts": hosts, "location": "MESH_EXTERNAL", "resolution": "STATIC",
                     "ports": [{"number": w.SERVER_PORT, "name": "tls", "protocol": "TLS"}],
                     "endpoints": [{"address": address}]}}


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def proxy_v2(src, authority):
    """What a node agent sends a gateway first: authority, unique id, CRC32C, principal, pod."""
    def tlv(kind, value):
        return struct.pack("!BH", kind, len(value)) + value

    addresses = (socket.inet_aton(src) + socket.inet_aton(w.SERVER) +
                 struct.pack("!HH", 40000, w.SERVER_PORT))
    tlvs = (tlv(0x02, authority.encode()) + tlv(0x05, bytes(range(16))) +
            tlv(0xE0, b"spiffe://cluster.local/ns/bench/sa/default") + tlv(0xE1, POD.encode()))
    crc_tlv = tlv(0x03, bytes(4))
    body = addresses + tlvs + crc_tlv
    header = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(body)) + body
    return header[:-4] + struct.pack("!I", crc32c(header))


def wait_for_socket(process, path, timeout_s=15):
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            if s.connect_ex(path) == 0:
                return
        time.sleep(0.01)
    raise RuntimeError(f"nobody listens on {path}")


class Sluice(Contender):
    ours = True

    def __init__(self, hops, build, backend="ebpf"):
        self.agent, self.ctl, self.backend = f"{build}/sluice-agent", f"{build}/sluicectl", backend
        kind, label = ("sluice", "sluice") if backend == "ebpf" else ("sluice_" + backend, "sluice, " + backend)
        super().__init__(kind, label, self._version(), hops)
        if hops == 1:
            self.head = proxy_v2(w.LINKS[0][1], NAME)

    def _version(self):
        try:
            return w.run(self.agent, "--version").split()[-1]
        except (OSError, RuntimeError):
            return "not built"  # which start() will find out, and fail

    def capture(self, world):
        """Enrolling the pod does it."""

    def release(self, world):
        pass

    def config(self, world, name, **fields):
        """Writes an agent's configuration; JSON is YAML. Returns its path."""
        base = f"{self.key}-{name}"
        registry = world.write(f"{base}/registry.d/bench.json",
                               json.dumps(service_entry("bench", [NAME], w.SERVER)))
        config = {"apiVersion": "sluice.io/v1alpha1", "kind": "AgentConfig", "nodeName": base,
                  "registry": {"files": [os.path.dirname(registry)]},
                  "tunnel": {"mode": "PLAINTEXT"},
                  "enrol": {"socket": world.path(f"{base}/agent.sock"),
                            "stateDir": world.path(f"{base}/state")},
                  "admin": {"socket": world.path(f"{base}/admin.sock"), "metrics": "",
                            "health": ""},
                  "accessLog": {"file": world.path(f"{base}/access.log"), "encoding": "JSON"}}
        for key, value in fields.items():
            config[key] = {**config[key], **value} if isinstance(value, dict) and \
                key in config else value
        return world.write(f"{base}/agent.yaml", json.dumps(config, indent=2))

    def start(self, world, processes):
        config = self.config(world, "gateway", role="Gateway",
                             tunnel={"listen": [f"0.0.0.0:{GATEWAY_PORT}"]},
                             egress={"sourceIPs": [w.GATEWAY_EGRESS]})
        self.start_agent(world, processes, "gateway", "gw", config)
        if self.hops == 2:
            config = self.config(world, "node", role="Node", clusterCIDRs=[w.POD_NETWORK],
                                 redirect={"backend": self.backend},
                                 guard={"pinDir": world.mount_bpf() + f"/{self.key}"},
                                 gateways=[{"name": "gateway", "endpoints":
                                            [f"{w.GATEWAY_FROM_NODE}:{GATEWAY_PORT}"]}])
            self.start_agent(world, processes, "node", "node", config)
            wait_for_socket(processes["node"], self.enrol_socket(world))
            self.enroll(world, "pod")

    def start_agent(self, world, processes, role, ns, config):
        with self.log(world, role) as log:
            processes[role] = world.spawn(ns, "proxy", [self.agent, "--config", config],
                                          stdout=log, stderr=log)

    def enrol_socket(self, world):
        return world.path(f"{self.key}-node/agent.sock")

    def enroll(self, world, ns):
        w.run(self.ctl, "enroll", "--netns", world.netns_path(ns), "--pod", f"bench/{ns}",
              "--service-account", "default", "--socket", self.enrol_socket(world))

    def unenroll(self, world):
        w.run(self.ctl, "unenroll", "--pod", POD, "--socket", self.enrol_socket(world))

    def before_stop(self, world, processes):
        if "node" in processes:
            try:
                self.unenroll(world)
            except (OSError, RuntimeError) as e:
                print(f"bench: {e}", file=sys.stderr)
            world.stop(processes.pop("node"))
            # What stays when an agent ends would be in the next one's way.
            w.run("ip", "netns", "exec", world.netns("node"), self.agent, "--config",
                  world.path(f"{self.key}-node/agent.yaml"), "--uninstall")
