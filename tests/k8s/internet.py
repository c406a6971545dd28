# SPDX-License-Identifier: Apache-2.0
"""The internet: a namespace behind every node's wan0, with the servers of tests/netns."""
import itertools

import servers
from capture import Capture
from control import RESOLVER_IP
from netns import Netns
from nodes import INTERNET
from procs import wait_for

WWW = servers.WWW[0]
DNS = servers.DNS


class Internet(Netns):
    """nginx under many names with certificates of a test CA, DNS, a TCP echo, on demand PostgreSQL. It knows
    no way to pods: what arrives has a node's address."""

    def __init__(self, cluster):
        super().__init__(cluster.run.netns_prefix + "internet", cluster.run)
        self.cluster = cluster
        self.folder = cluster.run.folder / "internet"
        self.folder.mkdir()
        self.numbers = itertools.count()
        self.postgres = None
        self._wire()
        servers.make_ca(self.folder)
        self.ca = self.folder / "ca.crt"

    def _wire(self):
        self.sysctl(ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0)
        self.cluster.fabric.ip(f"link add internet type veth peer name eth0 netns {self.name}",
                               "link set internet master wan up")
        self.ip("link set eth0 up", f"addr add {INTERNET[0]}/24 dev eth0",
                f"addr add {INTERNET[1]}/64 dev eth0 nodad",
                *(f"addr add {address} dev lo" for address in servers.addresses()))

    def start(self):
        """The servers; returns when they listen."""
        self.dns = servers.Dns(self, self.folder)
        self.nginx = servers.start_nginx(self, self.folder)
        self.peer = servers.start_peer(self, self.folder)
        for host, port in ((WWW, 443), (DNS, 53), (servers.PEER, 7)):
            wait_for(lambda h=host, p=port: self._listens(h, p), 15, f"{host}:{port} listens")

    def _listens(self, host, port):
        try:
            self.connect(host, port, timeout=1).close()
            return True
        except OSError:
            return False

    def start_postgres(self):
        """On servers.DB:5432, database and user `demo`, no password; started when somebody needs it."""
        self.postgres = self.postgres or servers.Postgres(self, self.folder)
        return self.postgres

    # ---- seeing ----

    def requests(self, **fields):
        """What nginx has answered, as dicts of server, client, host, sni, uri, status. None is still on
        its way to the log: a marker goes behind them."""
        marker = f"/marker-{next(self.numbers)}"
        with self.connect(WWW, 80) as sock:
            sock.sendall(f"GET {marker} HTTP/1.0\r\n\r\n".encode())
            while sock.recv(4096):
                pass
        seen = []

        def complete():
            seen[:] = servers.nginx_seen(self.folder)
            return any(request["uri"] == marker for request in seen)
        wait_for(complete, what="nginx's log is written")
        return [request for request in seen if not request["uri"].startswith("/marker-") and
                all(request.get(key) == value for key, value in fields.items())]

    def capture(self):
        """Packets arriving while in the block, with their source; settle() before judging."""
        return Capture(self, [(node, INTERNET[0]) for node in self.cluster.nodes.values()])

    @staticmethod
    def leaks(capture, gateways):
        """Packets that arrived so far from anybody but these addresses and the nodes' resolver."""
        capture.settle()
        assert capture.dropped() == 0, "the capture lost packets and proves nothing"
        return [packet for packet in capture.packets() if packet.src not in (*gateways, RESOLVER_IP)]
