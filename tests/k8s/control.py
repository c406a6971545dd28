# SPDX-License-Identifier: Apache-2.0
"""The control plane, and the fabric: a namespace with two switches, `lan` (nodes and API server) and `wan`
(nodes and the internet). Who runs nodes also runs a resolver for them, beside the API server."""
import http.client
import json
import signal
import ssl

import pki
import servers
from netns import Netns
from procs import wait_for


# Who is written down in the audit log, with every request and its answer.
AUDIT = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
         "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:sluice-system"]},
                   {"level": "None"}]}
RESOLVER_IP = "203.0.113.2"  # what the resolver asks the internet's DNS from


class Fabric(Netns):
    """The switches, an address on each, and no forwarding between them."""

    def __init__(self, run):
        super().__init__(run.netns_prefix + "fabric", run)
        # Addresses of their own: else they change with those of the nodes, as these come and go, and
        # whoever knows the old one is cut off.
        self.ip("link add lan address 02:00:00:00:00:01 type bridge forward_delay 0", "link set lan up",
                "link add wan address 02:00:00:00:00:02 type bridge forward_delay 0", "link set wan up",
                f"addr add {pki.ADDRESS}/24 dev lan", f"addr add {RESOLVER_IP}/24 dev wan",
                "route add default via 203.0.113.1")

    def start_resolver(self):
        servers.start_cluster_dns(self, None, pki.ADDRESS)


class ControlPlane:
    """etcd, API server, controller manager and scheduler, in the fabric."""

    def __init__(self, fabric, run, programs):
        self.fabric, self.run, self.programs = fabric, run, programs
        self.pki = run.folder / "pki"
        self.api = None

    def _start(self, name, *args, stop_signal=signal.SIGTERM):
        return self.fabric.popen([self.programs / "bin" / name, *args], name=name, stop_signal=stop_signal)

    def start_etcd(self):
        # It is thrown away in the end: nothing has to be safe on the disk.
        self._start("etcd", "--data-dir", self.run.folder / "etcd", "--unsafe-no-fsync",
                    stop_signal=signal.SIGKILL)

    def start_api(self):
        """Returns at once; see wait_api()."""
        of = self.pki
        policy = self.run.folder / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT), "ascii")
        self.api = self._start(
            "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", f"--bind-address={pki.ADDRESS}",
            f"--advertise-address={pki.ADDRESS}", "--allow-privileged=true",
            f"--audit-policy-file={policy}", f"--audit-log-path={self.run.folder}/audit.log",
            f"--tls-cert-file={of}/apiserver.crt", f"--tls-private-key-file={of}/apiserver.key",
            f"--client-ca-file={of}/ca.crt", f"--token-auth-file={of}/tokens.csv",
            "--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.96.0.0/16",
            "--enable-aggregator-routing=true", "--shutdown-delay-duration=0",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={of}/sa.key", f"--service-account-key-file={of}/sa.key",
            f"--kubelet-client-certificate={of}/apiserver.crt",
            f"--kubelet-client-key={of}/apiserver.key",
            "--kubelet-preferred-address-types=InternalIP", stop_signal=signal.SIGKILL)

    def start_controllers(self):
        for name, user, *more in (
                ("kube-controller-manager", "controller-manager", "--node-monitor-period=1s",
                 "--node-monitor-grace-period=10m", f"--root-ca-file={self.pki}/ca.crt",
                 f"--service-account-private-key-file={self.pki}/sa.key"),
                ("kube-scheduler", "scheduler")):
            self._start(name, f"--kubeconfig={self.pki}/{user}.kubeconfig", "--leader-elect=false",
                        "--bind-address=127.0.0.1", *more, stop_signal=signal.SIGKILL)

    def is_ready(self):
        try:
            return self._get("/readyz") == 200
        except OSError:
            return False

    def _get(self, path):
        context = ssl.create_default_context(cafile=self.pki / "ca.crt")
        with self.fabric.connect(pki.ADDRESS, 6443, timeout=2) as sock:
            tls = context.wrap_socket(sock, server_hostname="kubernetes")
            connection = http.client.HTTPConnection("kubernetes")
            connection.sock = tls
            connection.request("GET", path, headers={"Authorization": "Bearer admin-token"})
            return connection.getresponse().status

    def wait_api(self):
        wait_for(self.is_ready, 60, f"the API server is ready: see {self.run.folder}")

    def stop_api(self):
        """Like a crash: connections are reset, everything is still in etcd."""
        self.api.kill()
