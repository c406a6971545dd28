# SPDX-License-Identifier: Apache-2.0
"""A small world of network namespaces in which the agents meet real clients and servers.

        pod-a  pod-b            10.244.1.0/24         fd00:10:244:1::/64
           \\   /
            node -------------- 192.0.2.0/24 -------- gateway
              \\                 2001:db8:2::/64          |  203.0.113.0/24
               \\                                         |  2001:db8:113::/64
                +------ 100.64.0.0/24 --------------- internet: 198.51.100.0/24, 2001:db8:51::/64
                        2001:db8:100::/64                 nginx, dnsmasq, PostgreSQL, peer.py

The node routes and forwards to the internet, and the internet knows the way back to the pods: whatever
leaks, works, and is seen with the address it came from. The node also is the cluster's DNS.
"""
import atexit
import dataclasses
import ipaddress
import itertools
import json
import re
import shutil
import signal
import threading

import servers
from agents import CTL, Agent, merge
from capture import Capture
from netns import Netns
from procs import Procs, remove_leftovers, wait_for

__all__ = ["World", "wait_for", "entry"]

GATEWAY_IPS = ["203.0.113.10", "2001:db8:113::10"]
TUNNEL = "192.0.2.10:15443"
CLUSTER_CIDRS = ["10.244.0.0/16", "10.96.0.0/12", "fd00:10:244::/56"]
CLUSTER_DNS = "10.96.0.10"
NODE_WAN = ["100.64.0.2", "2001:db8:100::2"]
INTERNET_WAN = "100.64.0.1"
FIRST_POD = 11


def entry(name, hosts, ports=((443, "HTTPS"),), namespace="istio-system", **spec):
    """A ServiceEntry; each port is (number, protocol) or a mapping."""
    ports = [p if isinstance(p, dict) else
             {"number": p[0], "name": f"{p[1].lower()}-{p[0]}", "protocol": p[1]} for p in ports]
    spec.setdefault("resolution", "DNS")
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"hosts": list(hosts), "ports": ports} | spec}


@dataclasses.dataclass
class Curl:
    """What one curl did."""
    code: int               # its exit code
    error: str              # what it complained of
    status: int             # of the last response, 0 when there was none
    body: str
    headers: dict           # of the last response, names in lower case
    local: str              # address:port in the pod, as an access log writes it
    info: dict              # everything of --write-out %{json}

    def json(self):
        try:
            return json.loads(self.body)
        except json.JSONDecodeError:
            raise AssertionError(f"no JSON in the answer of {self}") from None

    @property
    def seen_from(self):
        """The address that the server saw; "" when no server of ours answered."""
        return self.headers.get("x-client", "")


class Pod(Netns):
    """A pod: a namespace behind the node's bridge."""

    def __init__(self, world, namespace, name, number):
        self.namespace, self.pod, self.service_account = namespace, name, name + "-sa"
        self.ip4, self.ip6 = f"10.244.1.{number}", f"fd00:10:244:1::{number:x}"
        self.enrolled = False
        super().__init__(world.procs.netns_prefix + name, world.procs, world.folder / "resolv.conf")
        world.node.ip(f"link add {name} type veth peer name eth0 netns {self.name}",
                      f"link set {name} master cni0 up")
        self.sysctl(ipv6__conf__eth0__accept_dad=0, ipv6__conf__eth0__accept_ra=0)
        self.ip("link set eth0 up", f"addr add {self.ip4}/24 dev eth0",
                f"addr add {self.ip6}/64 dev eth0 nodad", "route add default via 10.244.1.1",
                "route add default via fd00:10:244:1::1")
        self.world = world
        self.wait_forwarding()

    def wait_forwarding(self):
        """The bridge does some time after there is a carrier; the CNI's plugin waits for it, too."""
        wait_for(lambda: "state forwarding" in self.world.node.run(
            ["ip", "-d", "link", "show", self.pod]).stdout, what=f"{self.pod} is forwarded to")

    @property
    def ref(self):
        return f"{self.namespace}/{self.pod}"


class World:
    """Use as a context manager: everything is there inside the block and gone after it."""

    def __init__(self, pods=("shop/pod-a", "lab/pod-b")):
        self.wanted_pods = pods
        self.agents = {}
        self.pods = {}
        self.numbers = itertools.count()
        self.pod_numbers = itertools.count(FIRST_POD)
        self.closed = False

    def __enter__(self):
        remove_leftovers()
        self.procs = Procs()
        self.folder = self.procs.folder
        atexit.register(self.close)
        self._take_signals()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc):
        self.close()

    def _take_signals(self):
        """SIGTERM and SIGHUP become an exception, so that every `finally` has its turn."""
        if threading.current_thread() is threading.main_thread():
            for sig in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(sig) == signal.SIG_DFL:
                    signal.signal(sig, signal.default_int_handler)  # what ends a run, not a test

    def close(self):
        """Ends and removes everything; twice is once. Not to be interrupted half-way."""
        if self.closed:
            return
        self.closed = True
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        try:
            self.procs.stop_all()
            for ns in self.namespaces():
                ns.remove()
            self.procs.remove_folder()
        finally:
            if main:
                signal.signal(signal.SIGINT, before)
            atexit.unregister(self.close)

    def namespaces(self):
        """Those that exist so far."""
        fixed = [getattr(self, name, None) for name in ("node", "gateway", "internet")]
        return [ns for ns in [*self.pods.values(), *fixed] if ns]

    # ---- the net ----

    def _build(self):
        (self.folder / "resolv.conf").write_text(f"nameserver {CLUSTER_DNS}\n", encoding="ascii")
        self.registry_dir = self.folder / "registry.d"
        self.registry_dir.mkdir()
        shutil.copy(servers.HERE / "registry.yaml", self.registry_dir / "base.yaml")
        for name in ("node", "gateway", "internet"):
            setattr(self, name, Netns(self.procs.netns_prefix + name, self.procs))
        for ns in self.namespaces():
            ns.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0,
                      ipv6__conf__default__accept_dad=0, ipv6__conf__default__accept_ra=0,
                      ipv6__conf__default__router_solicitations=0)
        self._wire()
        for ref in self.wanted_pods:
            self.add_pod(ref)
        self._start_servers()

    def _wire(self):
        node, gateway, internet = self.node, self.gateway, self.internet
        node.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        node.ip(f"link add gw0 type veth peer name node0 netns {gateway.name}",
                f"link add wan0 type veth peer name node0 netns {internet.name}",
                # An address of its own: else it changes with the lowest of the pods', as pods come and
                # go, and pods that know the old one are cut off.
                "link add cni0 address 02:00:00:00:00:01 type bridge forward_delay 0",
                "link set cni0 up", "link set gw0 up",
                "link set wan0 up", "addr add 10.244.1.1/24 dev cni0",
                "addr add fd00:10:244:1::1/64 dev cni0 nodad", "addr add 192.0.2.1/24 dev gw0",
                "addr add 2001:db8:2::1/64 dev gw0 nodad", f"addr add {NODE_WAN[0]}/24 dev wan0",
                f"addr add {NODE_WAN[1]}/64 dev wan0 nodad", f"addr add {CLUSTER_DNS}/32 dev lo")
        gateway.ip(f"link add wan0 type veth peer name gw0 netns {internet.name}",
                   "link set node0 up", "link set wan0 up", "addr add 192.0.2.10/24 dev node0",
                   "addr add 192.0.2.11/24 dev node0", "addr add 2001:db8:2::10/64 dev node0 nodad",
                   "addr add 203.0.113.10/24 dev wan0", "addr add 203.0.113.11/24 dev wan0",
                   "addr add 2001:db8:113::10/64 dev wan0 nodad")
        internet.ip("link set node0 up", "link set gw0 up", f"addr add {INTERNET_WAN}/24 dev node0",
                    "addr add 2001:db8:100::1/64 dev node0 nodad", "addr add 203.0.113.1/24 dev gw0",
                    "addr add 2001:db8:113::1/64 dev gw0 nodad",
                    f"route add 10.244.0.0/16 via {NODE_WAN[0]}",
                    f"route add fd00:10:244::/56 via {NODE_WAN[1]}",
                    *(f"addr add {a} dev lo" for a in servers.addresses()))
        # Default routes come last: their next hops have to be there.
        node.ip(f"route add default via {INTERNET_WAN}", "route add default via 2001:db8:100::1")
        gateway.ip("route add default via 203.0.113.1", "route add default via 2001:db8:113::1")

    def add_pod(self, ref):
        """One more pod, "namespace/name", not enrolled."""
        namespace, name = ref.split("/")
        pod = self.pods[name] = Pod(self, namespace, name, next(self.pod_numbers))
        return pod

    # ---- servers ----

    def _start_servers(self):
        servers.make_ca(self.folder)
        self.ca = self.folder / "ca.crt"
        self.files = self.folder / "files"
        self.dns = servers.Dns(self.internet, self.folder)
        self.nginx = servers.start_nginx(self.internet, self.folder)
        self.peer = servers.start_peer(self.internet, self.folder)
        self.cluster_dns = servers.start_cluster_dns(self.node, self.folder, CLUSTER_DNS)
        self.postgres = None
        for ns, host, port in ((self.internet, servers.WWW[0], 443), (self.internet, servers.DNS, 53),
                               (self.internet, servers.MAIL, 25), (self.node, CLUSTER_DNS, 53)):
            self.wait_port(ns, host, port)

    def wait_port(self, ns, host, port, timeout=15):
        """Until somebody listens there, as seen from ns."""
        def listening():
            try:
                ns.connect(host, port, timeout=1).close()
                return True
            except OSError:
                return False
        wait_for(listening, timeout, f"{host}:{port} listens in {ns.name}")

    def start_postgres(self):
        """PostgreSQL on servers.DB:5432, started when somebody needs it."""
        self.postgres = self.postgres or servers.Postgres(self.internet, self.folder)
        return self.postgres

    def nginx_seen(self, **fields):
        """Requests that nginx has answered, as dicts of server, client, host, sni, uri, status. None is
        still on its way to the log: a marker goes behind them."""
        marker = f"/marker-{next(self.numbers)}"
        with self.internet.connect(servers.WWW[0], 80) as sock:
            sock.sendall(f"GET {marker} HTTP/1.0\r\n\r\n".encode())
            while sock.recv(4096):
                pass
        seen = []

        def complete():
            seen[:] = servers.nginx_seen(self.folder)
            return any(r["uri"] == marker for r in seen)
        wait_for(complete, what="nginx's log is written")
        return [r for r in seen if not r["uri"].startswith("/marker-") and
                all(r.get(k) == v for k, v in fields.items())]

    # ---- agents ----

    def _config(self, name, role, changes):
        folder = self.folder / name
        base = {
            "apiVersion": "sluice.io/v1alpha1", "kind": "AgentConfig", "role": role,
            "nodeName": name, "clusterCIDRs": CLUSTER_CIDRS,
            "registry": {"files": [str(self.registry_dir)]},
            "enrol": {"socket": f"{folder}/agent.sock", "stateDir": f"{folder}/state"},
            "limits": {"helloTimeout": "2s", "connectTimeout": "3s", "drainTimeout": "2s"},
            "admin": {"socket": f"{folder}/admin.sock"},
            "accessLog": {"file": f"{folder}/access.log", "encoding": "JSON"},
        }
        return merge(base, changes)

    def _start(self, name, ns, config, wait, **ports):
        agent = self.agents[name] = Agent(self, name, ns, config, **ports)
        return agent.start(wait)

    def start_gateway(self, changes=None, name="gateway", ip="192.0.2.10", source_ips=None,
                      port_offset=0, wait=True):
        """A gateway agent on ip:15443; `changes` are laid over its configuration."""
        base = {"tunnel": {"listen": [f"{ip}:15443"]},
                "egress": {"sourceIPs": source_ips or GATEWAY_IPS,
                           "resolvers": [f"{servers.DNS}:53"]},
                "admin": {"metrics": f":{15020 + port_offset}", "health": f":{15021 + port_offset}"}}
        config = self._config(name, "Gateway", merge(base, changes or {}))
        return self._start(name, self.gateway, config, wait, health_port=15021 + port_offset,
                           metrics_port=15020 + port_offset)

    def start_node(self, changes=None, endpoints=(TUNNEL,), wait=True):
        """The node agent; `changes` are laid over its configuration."""
        base = {"guard": {"pinDir": f"{self.procs.mount_bpf()}/node"},
                "gateways": [{"name": "egressgateway.istio-system.svc.cluster.local",
                              "endpoints": list(endpoints)}]}
        config = self._config("node", "Node", merge(base, changes or {}))
        return self._start("node", self.node, config, wait)

    def start(self, node=None, gateway=None):
        """Both agents, and both pods enrolled: the usual world."""
        self.start_gateway(gateway)
        self.start_node(node)
        for pod in self.pods.values():
            self.enroll(pod)
        self.wait_gateway_healthy()
        return self

    def wait_gateway_healthy(self, count=1, timeout=10):
        """Until the node agent has seen that many endpoints alive."""
        wait_for(lambda: self.agents["node"].metrics().value("sluice_gateway_healthy") >= count,
                 timeout, f"{count} healthy gateway endpoint(s)")

    def enroll(self, pod, check=True):
        done = self.node.run([CTL, "enroll", "--netns", pod.path, "--pod", pod.ref,
                              "--service-account", pod.service_account,
                              "--socket", self.agents["node"].config["enrol"]["socket"]])
        if check and done.returncode != 0:
            raise AssertionError(f"enroll {pod.ref}: {done.stderr}\n{self.agents['node'].errors()}")
        pod.enrolled = done.returncode == 0
        return done

    def stop_agents(self):
        """SIGTERM for all that run, nodes first; each has to end well."""
        for name in sorted(self.agents, key=lambda n: n != "node"):
            self.agents[name].stop()

    def register(self, name, hosts, where=None, loaded=True, **spec):
        """One more ServiceEntry, in a file of its own (JSON); by default until all agents know it."""
        where = where or self.registry_dir
        new = where / f".{name}.new"
        new.write_text(json.dumps(entry(name, hosts, **spec)), encoding="utf-8")
        new.rename(where / f"{name}.json")
        if loaded:
            wait_for(lambda: all(self.knows(a, hosts[0]) for a in self.agents.values() if a.running()),
                     what=f"all agents know {hosts[0]}")

    def deregister(self, name, where=None):
        ((where or self.registry_dir) / f"{name}.json").unlink()

    def knows(self, agent, host):
        """Is the host in the registry that this agent has in force?"""
        status, body = agent.admin("/registry")
        assert status == 200, (status, body)
        return f'"{host}"' in body

    # ---- seeing ----

    def logs(self, name):
        """All records of an agent's access log."""
        agent = self.agents[name]
        tail = agent.tail()
        tail.at = 0
        return tail.read()

    def metrics(self, name):
        return self.agents[name].metrics()

    def tails(self):
        """From now on: (node's log, gateway's log)."""
        return self.agents["node"].tail(), self.agents["gateway"].tail()

    def capture(self):
        """Packets arriving in the internet while in the block; see leaks()."""
        return Capture(self.internet, [(self.node, INTERNET_WAN), (self.gateway, "203.0.113.1")])

    def leaks(self, capture):
        """Packets that came from anybody but the gateway, the cluster's DNS look-ups apart."""
        capture.settle()
        assert capture.dropped() == 0, "the capture lost packets and proves nothing"
        return [p for p in capture.packets() if not self._may_arrive(p)]

    @staticmethod
    def _may_arrive(packet):
        if ipaddress.ip_address(packet.src) in ipaddress.ip_network("203.0.113.0/24") or \
           packet.src in GATEWAY_IPS:
            return True
        return packet.src in NODE_WAN and packet.dst == servers.DNS and packet.dport == 53

    # ---- clients ----

    def curl(self, pod, url, *args, timeout=10, ca=True):
        """Real curl in a pod. `args` are further options of curl."""
        n = next(self.numbers)
        body, head = self.folder / f"curl.{n}.body", self.folder / f"curl.{n}.head"
        trust = ["--cacert", self.ca] if ca else []
        done = pod.run(["curl", "-q", "-sS", "--max-time", timeout, *trust, "-o", body, "-D", head,
                        "-w", "%{json}\n", *args, url], timeout=timeout + 10)
        info = _last_json(done.stdout)
        text = body.read_text(errors="replace") if body.exists() else ""
        heads = head.read_text(errors="replace") if head.exists() else ""
        for file in (body, head):
            file.unlink(missing_ok=True)
        return Curl(code=done.returncode, error=done.stderr.strip(), status=info.get("http_code", 0),
                    body=text, headers=_last_headers(heads), info=info, local=_local(info))


def _last_json(text):
    """--write-out prints a line per transfer."""
    return json.loads(text.splitlines()[-1]) if text.startswith("{") else {}


def _last_headers(text):
    blocks = [b for b in re.split(r"\r?\n\r?\n", text) if b.strip()]
    lines = blocks[-1].splitlines()[1:] if blocks else []
    return {name.strip().lower(): value.strip() for name, _, value in
            (line.partition(":") for line in lines)}


def _local(info):
    ip, port = info.get("local_ip", ""), info.get("local_port", 0)
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
