# SPDX-License-Identifier: Apache-2.0
"""The servers of the world: nginx, dnsmasq, PostgreSQL, the odd peer, and the CA that vouches for them."""
import glob
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from procs import wait_for

HERE = Path(__file__).resolve().parent

# Where each name leads. What nginx serves says which of its servers answered; addresses that
# nobody holds (…254, …dead) swallow packets.
WWW = ["198.51.100.10", "2001:db8:51::10"]
DEAD_V4, DEAD_V6 = "198.51.100.254", "2001:db8:51::dead"
RECORDS = {
    "www.example.com": WWW[:1],
    "api.example.com": ["198.51.100.11"],
    "v6only.example.com": ["2001:db8:51::13"],
    "dual.example.com": ["198.51.100.14", "2001:db8:51::14"],
    "deadv6.example.com": ["198.51.100.14", DEAD_V6],
    "deadv4.example.com": [DEAD_V4, "2001:db8:51::14"],
    "dead.example.com": [DEAD_V4],
    "shop-only.example.com": ["198.51.100.15"],
    "plain.example.com": ["198.51.100.16"],
    "moving.example.com": ["198.51.100.17"],
    "peer.example.com": ["198.51.100.20"],
    "mail.example.com": ["198.51.100.25"],
    "db.example.com": ["198.51.100.32"],
    "a.wild.example.org": ["198.51.100.12"],
    "a.b.wild.example.org": ["198.51.100.12"],
    "wild.example.org": ["198.51.100.12"],
    "unregistered.example.com": ["198.51.100.66", "2001:db8:51::66"],
    "evilexample.com": ["198.51.100.66"],
    "evilwild.example.org": ["198.51.100.66"],
    "private.example.com": ["10.0.0.5"],
    "ula.example.com": ["fd00:ffff::5"],
    "loopback.example.com": ["127.0.0.1", "::1"],
    "metadata.example.com": ["169.254.169.254"],
    "mapped.example.com": ["::ffff:10.0.0.5"],
    "cluster.example.com": ["10.244.1.1"],
    "nat64.example.com": ["64:ff9b::a00:5"],
}
# Addresses that nginx listens on, and the name of the server there.
SITES = {
    "www": WWW,
    "api": ["198.51.100.11"],
    "wild": ["198.51.100.12"],
    "v6only": ["2001:db8:51::13"],
    "dual": ["198.51.100.14", "2001:db8:51::14"],
    "shop-only": ["198.51.100.15"],
    "plain": ["198.51.100.16"],
    "moving": ["198.51.100.17"],
    "moved": ["198.51.100.18"],
    "foreign": ["198.51.100.66", "2001:db8:51::66"],
    "private": ["10.0.0.5", "fd00:ffff::5", "169.254.169.254", "64:ff9b::a00:5"],
}
PEER, MAIL, DB, DNS = "198.51.100.20", "198.51.100.25", "198.51.100.32", "198.51.100.53"
DNS_TTL = 2


def addresses():
    """All that the internet's namespace has to hold."""
    return [a for site in SITES.values() for a in site] + [PEER, MAIL, DB, DNS]


# ---- certificates ----

def _openssl(folder, *args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)


def make_ca(folder):
    """ca.crt, and server.crt/server.key for every name of RECORDS."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ",".join(f"DNS:{name}" for name in [*RECORDS, "*.wild.example.org"])
    _openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
             "-subj", "/CN=Sluice test CA", "-addext", "basicConstraints=critical,CA:TRUE")
    _openssl(folder, "req", *curve, "-keyout", "server.key", "-out", "server.csr",
             "-subj", "/CN=www.example.com", "-addext", f"subjectAltName={names}")
    _openssl(folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
             "-CAcreateserial", "-copy_extensions", "copy", "-days", "2", "-out", "server.crt")


# ---- nginx ----

_ANSWER = ('{"server":"%s","client":"$remote_addr","address":"$server_addr","host":"$host",'
           '"sni":"$ssl_server_name","uri":"$request_uri"}\\n')


def _nginx_site(name, addrs, docroot):
    listens = "".join(f"listen {a}:80; listen {a}:443 ssl; listen {a}:8080; listen {a}:8443 ssl;\n"
                      for a in ([f"[{x}]" if ":" in x else x for x in addrs]))
    return f"""
    server {{
        {listens}
        server_name _;
        add_header X-Server {name} always;
        add_header X-Client $remote_addr always;
        location / {{ return 200 '{_ANSWER % name}'; }}
        location /files/ {{ alias {docroot}/; }}
        location /pass/ {{ proxy_pass http://{PEER}/; proxy_request_buffering off;
                           proxy_http_version 1.1; }}
    }}"""


def nginx_conf(folder):
    sites = "".join(_nginx_site(name, addrs, folder / "files") for name, addrs in SITES.items())
    return f"""
daemon off; master_process off; user root; pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log; worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
    log_format seen escape=json '{{"server":"$sent_http_x_server","client":"$remote_addr","address":"$server_addr",'
        '"host":"$host","sni":"$ssl_server_name","uri":"$request_uri","status":$status}}';
    access_log {folder}/nginx-access.log seen;
    default_type application/json; sendfile on; client_max_body_size 0;
    client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fcgi; uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    keepalive_requests 100000; keepalive_timeout 300s;
    ssl_certificate {folder}/server.crt; ssl_certificate_key {folder}/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    {sites}
}}"""


def start_nginx(ns, folder):
    (folder / "files").mkdir(exist_ok=True)
    conf = folder / "nginx.conf"
    conf.write_text(nginx_conf(folder), encoding="ascii")
    return ns.popen(["nginx", "-c", conf, "-p", folder, "-e", folder / "nginx-error.log"],
                    name="nginx", stop_signal=signal.SIGTERM)


def nginx_seen(folder):
    """What nginx served so far, one dict a request."""
    log = folder / "nginx-access.log"
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


# ---- DNS ----

class Dns:
    """dnsmasq as the authority for RECORDS; records can change while it runs."""

    def __init__(self, ns, folder):
        self.records = {name: list(addrs) for name, addrs in RECORDS.items()}
        self.hosts = folder / "dns.hosts"
        self.queries_log = folder / "dns-queries.log"
        conf = folder / "dns.conf"
        conf.write_text("\n".join([
            "keep-in-foreground", "user=root", "no-resolv", "no-hosts", "bind-interfaces", "port=53",
            f"listen-address={DNS}", f"addn-hosts={self.hosts}", f"local-ttl={DNS_TTL}",
            "local=/com/", "local=/org/", "local=/net/", "local=/test/", "neg-ttl=1", "pid-file=",
            "log-queries", f"log-facility={self.queries_log}", "dns-forward-max=1000"]) + "\n",
            encoding="ascii")
        self._write()
        self.proc = ns.popen(["dnsmasq", f"--conf-file={conf}"], name="dns")

    def _write(self):
        lines = [f"{addr} {name}\n" for name, addrs in self.records.items() for addr in addrs]
        new = self.hosts.with_suffix(".new")
        new.write_text("".join(lines), encoding="ascii")
        new.rename(self.hosts)

    def set(self, name, addrs):
        """From now on `name` leads to addrs (none: no such name)."""
        self.records[name] = list(addrs)
        self._write()
        mark = self.queries_log.read_text(encoding="ascii", errors="replace").count("read " + str(self.hosts))
        self.proc.signal(signal.SIGHUP)
        wait_for(lambda: self.queries_log.read_text(encoding="ascii", errors="replace")
                 .count("read " + str(self.hosts)) > mark, what="dnsmasq reads its records again")

    def queries(self, name):
        """How often anybody asked for the name so far."""
        log = self.queries_log.read_text(encoding="ascii", errors="replace")
        return sum(1 for line in log.splitlines() if f"] {name} from " in line)


def start_cluster_dns(ns, folder, address):
    """What a cluster gives its pods: forwards to the internet's DNS, remembers nothing."""
    return ns.popen(["dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground", "--user=root",
                     "--no-resolv", "--no-hosts", "--bind-interfaces", f"--listen-address={address}",
                     f"--server={DNS}", "--cache-size=0", "--pid-file="], name="cluster-dns")


# ---- PostgreSQL ----

class Postgres:
    """A real PostgreSQL on DB:5432, database and user `demo`, no password."""

    def __init__(self, ns, folder):
        bins = max(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))
        self.folder = folder / "postgres"
        self.folder.mkdir()
        shutil.chown(self.folder, "postgres", "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = self.folder / "data"
        done = ns.run([*as_user, f"{bins}/initdb", "-D", data, "-A", "trust", "-N", "-E", "UTF8",
                       "--locale=C", "-U", "demo"], timeout=60, cwd=self.folder)
        if done.returncode != 0:
            raise RuntimeError(f"initdb: {done.stdout}{done.stderr}")
        with open(data / "pg_hba.conf", "a", encoding="ascii") as f:
            f.write("host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")
        self.proc = ns.popen([*as_user, f"{bins}/postgres", "-D", data, "-h", DB, "-k", self.folder,
                              "-c", "fsync=off", "-c", "shared_buffers=16MB",
                              "-c", "max_connections=50"], name="postgres", cwd=self.folder,
                             stop_signal=signal.SIGINT)
        wait_for(lambda: ns.run(["pg_isready", "-q", "-h", DB, "-U", "demo", "-d", "postgres"])
                 .returncode == 0, timeout=30, what="PostgreSQL accepts connections")


def start_peer(ns, folder):
    """The odd peer (peer.py): what nginx cannot be talked into doing."""
    return ns.popen([sys.executable, HERE / "peer.py", folder, PEER, MAIL], name="peer")
