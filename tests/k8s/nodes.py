# SPDX-License-Identifier: Apache-2.0
"""The nodes: namespaces in which node.sh boots containerd, kubelet and kube-proxy."""
import json
import os
import signal
import subprocess
from pathlib import Path

import pki
from netns import Netns
from procs import wait_for
from run import CGROUPS, make_cgroups, remove_cgroups

HERE = Path(__file__).resolve().parent
STATIC_PODS = "/etc/kubernetes/manifests"
INTERNET = ("203.0.113.1", "2001:db8:113::1")
# What a node itself sends from; none of its pods' packets has it.
PUBLIC_IPS = {1: "203.0.113.101", 2: "203.0.113.102", 3: "203.0.113.10"}


def _containerd(state):
    return f"""version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.local/pause:3.2"
  disable_apparmor = true
  # A machine without CAP_SYS_RESOURCE cannot lower the score of pods below its own.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""


def _kubelet(version, address, ca):
    since_1_31 = {"failCgroupV1": False} if version >= (1, 31) else {}
    return json.dumps({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": address, "cgroupDriver": "cgroupfs", "failSwapOn": False, "maxPods": 200,
        "clusterDomain": "cluster.local", "clusterDNS": ["10.96.0.10"],
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True},
                           "x509": {"clientCAFile": str(ca)}},
        "authorization": {"mode": "Webhook"},
        # A full machine is no reason to evict pods of tests.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "1s", "kubeAPIQPS": 100, "kubeAPIBurst": 200,
        "staticPodPath": STATIC_PODS, "fileCheckFrequency": "1s",
        "registryPullQPS": 0, "eventRecordQPS": 0, **since_1_31})


def _kubelet_flags(version):
    """Without it a kubelet before 1.24 asks for Docker; later ones do not know it."""
    return "--container-runtime=remote" if version < (1, 24) else ""


def cni_conflist(number):
    """The primary CNI's configuration: a bridge with addresses of both families."""
    subnets = [f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64"]
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": {
            "type": "host-local", "ranges": [[{"subnet": subnet}] for subnet in subnets],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": True}}]}, indent=2)


class Node(Netns):
    """Node n1, n2, n3. What leaks from its pods arrives in the internet as coming from `leak_address`;
    what the node itself sends, as coming from `public_ip`."""

    CONFLIST = "/etc/cni/net.d/10-pods.conflist"

    def __init__(self, cluster, number):
        self.cluster, self.number = cluster, number
        self.node = f"n{number}"
        self.address = f"172.30.0.1{number}"
        self.leak_address = f"203.0.113.1{number}"
        self.public_ip = PUBLIC_IPS[number]
        self.state = cluster.run.folder / self.node
        self.proc = None
        self.kubelet_flags = ""  # as words, from the next boot on
        self._install()
        super().__init__(cluster.run.netns_prefix + self.node, cluster.run)
        self._wire()

    # ---- once ----

    def _install(self):
        """What an administrator puts on the disk of a new node."""
        for folder in ("fs", "disk", "log"):
            (self.state / folder).mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.state / "fs"], check=True)
        upper = self.state / "fs/upper"
        for folder in ("etc/cni/net.d", "opt/cni/bin", STATIC_PODS.lstrip("/")):
            (upper / folder).mkdir(parents=True)
        for plugin in (self.cluster.programs / "cni").iterdir():
            # A link over file systems does not exist; these never change.
            subprocess.run(["cp", plugin, upper / "opt/cni/bin"], check=True)
        (upper / self.CONFLIST.lstrip("/")).write_text(cni_conflist(self.number), "ascii")
        (upper / "etc/resolv.conf").write_text(f"nameserver {pki.ADDRESS}\n", "ascii")
        (upper / "etc/hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.node}\n", "ascii")
        (self.state / "containerd.toml").write_text(_containerd(self.state), "ascii")
        ca = self.cluster.run.folder / "pki/ca.crt"
        (self.state / "kubelet.yaml").write_text(_kubelet(self.cluster.version, self.address, ca),
                                                 "ascii")

    def _wire(self):
        """eth0 leads to the other nodes and the API server, wan0 to the internet."""
        fabric, i = self.cluster.fabric, self.number
        self.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1, ipv6__conf__all__accept_dad=0,
                    ipv6__conf__default__accept_dad=0)
        # A node that comes back has the hardware that it had.
        for wire, end, which in (("lan", "eth0", 1), ("wan", "wan0", 2)):
            fabric.ip(f"link add {wire}{i} type veth peer name {end} netns {self.name}")
            self.ip(f"link set {end} address 02:00:00:00:0{which}:0{i} up")
        fabric.ip(f"link set lan{i} master lan up", f"link set wan{i} master wan up",
                  f"route replace 10.244.{i}.0/24 via {self.address}")
        self.ip(f"addr add {self.address}/24 dev eth0",
                f"addr add 2001:db8:113::1{i}/64 dev wan0 nodad",
                # The first address is what the node sends from.
                f"addr add {self.public_ip}/24 dev wan0", f"addr add {self.leak_address}/24 dev wan0",
                *(f"route add 10.244.{j}.0/24 via 172.30.0.1{j}" for j in self.cluster.numbers if j != i),
                f"route add default via {INTERNET[0]}", f"route add default via {INTERNET[1]}")
        rules = f"""table inet wan {{
            chain postrouting {{
                type nat hook postrouting priority srcnat
                oifname wan0 ip saddr 10.244.0.0/16 snat ip to {self.leak_address}
                oifname wan0 ip6 saddr fd00:10:244::/48 masquerade
            }}
            # The kubelet asks whether it is in a cloud; its pods' packets are forwarded, and seen.
            chain output {{
                type filter hook output priority filter
                ip daddr 169.254.169.254 reject
            }}
        }}"""
        done = self.run(["nft", "-f", "-"], input=rules)
        assert done.returncode == 0, done.stderr

    # ---- power ----

    def boot(self):
        """Starts PID 1; wait_ready() tells when the node is there."""
        cgroups = make_cgroups(self.name)
        enter = " ".join(f"echo $$ >{cgroup}/cgroup.procs;" for cgroup in cgroups)
        apart = ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child",
                 "--uts", "--ipc", "--cgroup", HERE / "node.sh"]
        cluster = self.cluster
        shared = [cluster.run.folder, cluster.programs, *cluster.shared]
        env = os.environ | {
            "NODE": self.node, "ADDRESS": self.address, "STATE": str(self.state),
            "PROGRAMS": str(cluster.programs), "PKI": str(cluster.run.folder / "pki"),
            "IMAGES": " ".join(str(image) for image in cluster.images),
            "SHARED": " ".join(str(folder) for folder in shared),
            "KUBELET_FLAGS": f"{_kubelet_flags(cluster.version)} {self.kubelet_flags}"}
        self.proc = self.popen(["sh", "-c", f'{enter} exec "$@"', "sh", *apart], name=self.node, env=env,
                               stop_signal=signal.SIGKILL)

    def power_off(self):
        """At once: all processes, namespaces and interfaces of the node and its pods are gone."""
        self.proc.kill()
        wait_for(lambda: not self.pids(), 60, f"all processes of {self.node} are gone")
        # The other ends of its interfaces; the kernel takes its time when the namespace ends. The way to the
        # internet first: what the kernel goes on saying for processes that are gone would take it.
        self.cluster.fabric.ip(f"link del wan{self.number}", f"link del lan{self.number}")
        self.remove()
        remove_cgroups(self.name)

    def power_on(self):
        """With the disk as it was, and nothing else."""
        super().__init__(self.name, self.procs)
        self._wire()
        self.boot()

    def reboot(self):
        self.power_off()
        self.power_on()
        self.wait_ready(fresh=True)

    def wait_ready(self, fresh=False, timeout=60):
        """Until the API server has it as Ready; fresh: said so since this call."""
        before = self._ready_since() if fresh else None

        def ready():
            said = self._ready_since()
            return said and said != before
        wait_for(ready, timeout, f"{self.node} is Ready: see {self.state}/log", interval=0.2)

    def _ready_since(self):
        """When the kubelet last said that the node is Ready; "" when it does not."""
        node = self.cluster.get("node", self.node, missing_ok=True) or {"status": {}}
        for condition in node["status"].get("conditions", []):
            if condition["type"] == "Ready" and condition["status"] == "True":
                return condition["lastHeartbeatTime"]
        return ""

    def put_static_pod(self, name, manifest):
        """For the kubelet to run by itself; None: no more."""
        path = f"{STATIC_PODS}/{name}.json"
        if manifest:  # it reads whatever does not begin with a dot
            self.sh('new="$(dirname "$1")/.new"; cat >"$new"; mv "$new" "$1"', path, input=json.dumps(manifest))
        else:
            self.sh('rm -f "$1"', path)

    # ---- inside ----

    @property
    def pid(self):
        """Of the node's PID 1, as the machine sees it."""
        return int(Path(f"/proc/{self.proc.pid}/task/{self.proc.pid}/children").read_text("ascii").split()[0])

    def sh(self, script, *args, check=True, **options):
        """Runs a shell script as root of the node, in all of its namespaces. Returns its output."""
        return self.exec(["sh", "-c", script, "sh", *args], check=check, **options).stdout

    def exec(self, cmd, timeout=60, check=True, **options):
        """One command there; a subprocess.CompletedProcess."""
        argv = enter_node(self.cluster.programs, self.name, self.pid, cmd)
        done = subprocess.run(argv, text=True, timeout=timeout, check=False, capture_output=True,
                              errors="replace", **options)
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.node}: {cmd}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    @property
    def root(self):
        """The node's file system, for reading and writing from outside."""
        return Path(f"/proc/{self.pid}/root")

    # ---- services ----

    def service_pid(self, name):
        """In the node's own numbers; "" while it does not run."""
        return self.sh('cat "/run/$1.pid" 2>/dev/null || true', name).strip()

    def restart(self, name, sig="TERM"):
        """containerd, kubelet or kube-proxy: ended by a signal, started again by PID 1. Returns when it
        is there again."""
        before = self.service_pid(name)
        self.sh('kill -"$1" "$2"', sig, before)
        wait_for(lambda: self.service_pid(name) not in ("", before), what=f"{name} starts again")
        if name == "containerd":
            wait_for(lambda: self.exec(["ctr", "version"], check=False).returncode == 0, 30,
                     "containerd answers")
        if name == "kubelet":
            healthz = ["curl", "-fsS", "http://127.0.0.1:10248/healthz"]
            wait_for(lambda: self.exec(healthz, check=False).returncode == 0, 60, "the kubelet is healthy")

    def import_image(self, archive):
        self.exec(["ctr", "-n", "k8s.io", "images", "import", str(archive)])


def enter_node(programs, name, pid, cmd):
    """What to execute to run cmd in the cgroups and the namespaces of this PID 1."""
    join = (f"for cgroup in {CGROUPS}/*/{name}; do echo $$ >$cgroup/cgroup.procs; done;"
            f'PATH={programs}/bin:/usr/sbin:/usr/bin:/sbin:/bin exec "$@"')
    inside = ["nsenter", "-t", str(pid), "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]
    return ["sh", "-c", join, "sh", *inside, *(str(arg) for arg in cmd)]
