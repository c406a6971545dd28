# SPDX-License-Identifier: Apache-2.0
"""The images of the tests, made of this machine's programs: no registry exists."""
import glob
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy"))

from image import Tree, write_archive  # noqa: E402

PAUSE, CLIENT, DNS = "registry.local/pause:3.2", "registry.local/client:1", "registry.local/dns:1"


def make_pause(folder, programs):
    tree = Tree()
    tree.file("/pause", programs / "bin/pause")
    write_archive(folder / "pause.tar", [PAUSE], tree, Entrypoint=["/pause"])
    return folder / "pause.tar"


def _psql():
    return max(glob.glob("/usr/lib/postgresql/*/bin/psql"), key=lambda path: int(path.split("/")[4]))


def make_client(folder, programs, first, ca):
    """A shell, clients (curl, openssl, psql), and `first`. They trust the internet's CA."""
    tree = Tree()
    busybox = programs / "bin/busybox"
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout
    for applet in applets.split():
        tree.link(f"/usr/bin/{applet}", "busybox")
    tree.file("/usr/bin/busybox", busybox)  # one of its applets is called so, too
    for name in ("curl", "openssl"):
        tree.program(f"/usr/bin/{name}")
    tree.program("/usr/bin/psql", _psql())
    tree.file("/usr/bin/first", first)
    tree.file("/etc/ssl/certs/ca-certificates.crt", ca)
    tree.text("/etc/passwd", "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n")
    tree.text("/etc/group", "root:x:0:\nuser:x:1000:\n")
    tree.folder("/tmp", 0o1777)
    write_archive(folder / "client.tar", [CLIENT], tree, Cmd=["/bin/sh"])
    return folder / "client.tar"


def make_dns(folder):
    tree = Tree()
    tree.program("/usr/sbin/dnsmasq")
    tree.text("/etc/passwd", "root:x:0:0:root:/:/sbin/nologin\n")
    tree.text("/etc/group", "root:x:0:\n")
    for path in ("/var/run", "/run", "/tmp"):
        tree.folder(path)
    write_archive(folder / "dns.tar", [DNS], tree, Entrypoint=["/usr/sbin/dnsmasq"])
    return folder / "dns.tar"
