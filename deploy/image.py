#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the container image, without Docker and without a registry: our programs, the shared libraries
that they need, iptables, the CA certificates. No shell, no package manager. The libraries are those of
the machine that the programs were built on.

    deploy/image.py --build build --out build/sluice-image.tar       an archive as `docker save` writes it
    deploy/image.py --build build --root DIR                         the same files in an empty folder

The archive is what `ctr images import`, `docker load`, `podman load` and `kind load image-archive` read.
The same input gives the same bytes: entries are sorted, times are 0, everything belongs to root.
"""
import argparse
import glob
import hashlib
import io
import json
import os
import platform
import re
import stat
import subprocess
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = "1970-01-01T00:00:00Z"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


# ---- any image ----

class Tree:
    """The files of an image by their path: ("file", mode, bytes), ("link", target), ("folder", mode).
    /bin, /sbin and /lib* lead to /usr, as in Debian."""

    def __init__(self):
        self.entries = {}
        for name in ("bin", "sbin", "lib", "lib64"):
            self.entries[f"/{name}"] = ("link", f"usr/{name}")
            self.folder(f"/usr/{name}")

    def _put(self, path, entry):
        path = re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", str(path))
        parent = os.path.dirname(path)
        if parent not in ("/", "") and parent not in self.entries:
            self.folder(parent)
        self.entries[path] = entry

    def folder(self, path, mode=0o755):
        self._put(path, ("folder", mode))

    def link(self, path, target):
        self._put(path, ("link", target))

    def text(self, path, content, mode=0o644):
        self._put(path, ("file", mode, content.encode()))

    def file(self, path, source=None):
        """One file of this machine, at its own place unless told otherwise; links are followed."""
        source = Path(source or path)
        mode = 0o755 if os.stat(source).st_mode & stat.S_IXUSR else 0o644
        self._put(path, ("file", mode, source.read_bytes()))

    def program(self, path, source=None):
        """The same, with the shared libraries that it needs."""
        self.file(path, source)
        for library in shared_libraries(source or path):
            self.file(library)

    def layer(self):
        """All of it as the bytes of a tar archive."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, (kind, *rest) in sorted(self.entries.items()):
                info = tarfile.TarInfo(path.lstrip("/"))
                if kind == "file":
                    info.mode, content = rest
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                    continue
                if kind == "link":
                    info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, rest[0]
                else:
                    info.type, info.mode = tarfile.DIRTYPE, rest[0]
                tar.addfile(info)
        return out.getvalue()

    def write_to(self, folder):
        """All of it as files, in a folder that is empty or not there yet."""
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(self.layer())) as tar:
            tar.extractall(folder)


def shared_libraries(program):
    """Paths of what the loader would map, the loader itself included; none for a static program."""
    env = {"PATH": PATH, "LC_ALL": "C"}  # no LD_LIBRARY_PATH: the machine's own libraries
    done = subprocess.run(["ldd", str(program)], check=False, capture_output=True, text=True, env=env)
    if "not a dynamic executable" in done.stderr or "statically linked" in done.stdout:
        return []
    if done.returncode != 0 or "not found" in done.stdout:
        raise RuntimeError(f"ldd {program}: {done.stdout}{done.stderr}")
    return re.findall(r"(/\S+) \(0x", done.stdout)


def _add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write_archive(out, names, tree, **config):
    """An image of one layer under these name:tags; `config` is what the image specification calls so
    (Cmd, Entrypoint, …)."""
    layer = tree.layer()
    image = json.dumps({
        "architecture": ARCHITECTURES[platform.machine()], "os": "linux", "created": EPOCH,
        "config": {"Env": [f"PATH={PATH}"], **config},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created": EPOCH}]}).encode()
    name = hashlib.sha256(image).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": names, "Layers": ["layer.tar"]}])
    # Under another name first: nobody loads half an image.
    new = Path(f"{out}.new")
    with tarfile.open(new, "w") as tar:
        _add(tar, name, image)
        _add(tar, "layer.tar", layer)
        _add(tar, "manifest.json", manifest.encode())
    new.rename(out)


# ---- ours ----

PROGRAMS = {
    "/usr/bin/sluice-agent": "sluice-agent",
    "/usr/bin/sluicectl": "sluicectl",
    "/usr/bin/sluice-init": "sluice-init",
    "/usr/bin/sluice-install": "sluice-install",
    "/usr/lib/sluice/sluice-cni": "sluice-cni",  # static: the installer copies it to the node
}
USER = 1337


def add_iptables(tree):
    """For the iptables back end. All extensions, not only those that our rules need: a listing shows the
    rules of others, too, and fails at one whose extension is missing."""
    for kind in ("nft", "legacy"):
        tree.program(f"/usr/sbin/xtables-{kind}-multi")
        for name in ("iptables", "ip6tables"):
            for verb in ("restore", "save"):
                tree.link(f"/usr/sbin/{name}-{kind}-{verb}", f"xtables-{kind}-multi")
    for pattern in ("libxt_*.so", "libipt_*.so", "libip6t_*.so"):
        for path in glob.glob(f"/usr/lib/*-linux-gnu/xtables/{pattern}"):
            tree.program(path)


def add_system(tree):
    """What programs expect of a system around them."""
    tree.text("/etc/passwd", "root:x:0:0:root:/:/sbin/nologin\n"
                             f"sluice:x:{USER}:{USER}:sluice:/:/sbin/nologin\n")
    tree.text("/etc/group", f"root:x:0:\nsluice:x:{USER}:\n")
    tree.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    tree.file("/etc/ssl/certs/ca-certificates.crt")
    tree.file("/etc/ssl/openssl.cnf")
    tree.link("/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf")
    tree.link("/usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt")
    tree.link("/usr/lib/ssl/certs", "/etc/ssl/certs")
    # The C library loads it when a thread is cancelled; no program names it.
    for path in glob.glob("/usr/lib/*-linux-gnu/libgcc_s.so.1"):
        tree.file(path)
    # Container runtimes say /var/run/netns/… of what is mounted at /run/netns.
    tree.link("/var/run", "/run")
    tree.folder("/tmp", 0o1777)
    for path in ("/run/sluice", "/var/lib/sluice", "/etc/sluice", "/proc", "/sys", "/dev"):
        tree.folder(path)


def sluice_tree(build):
    tree = Tree()
    add_system(tree)
    add_iptables(tree)
    for path, name in PROGRAMS.items():
        tree.program(path, build / name)
    return tree


def main():
    parser = argparse.ArgumentParser(description="makes the container image")
    parser.add_argument("--build", type=Path, default=Path("build"), help="where the programs are")
    parser.add_argument("--name", action="append",
                        help="name:tag of the image (sluice:latest); may be repeated")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="archive to write")
    where.add_argument("--root", type=Path, help="folder to fill instead")
    args = parser.parse_args()
    tree = sluice_tree(args.build)
    if args.root:
        tree.write_to(args.root)
    else:
        write_archive(args.out, args.name or ["sluice:latest"], tree,
                      Entrypoint=["/usr/bin/sluice-agent"])


if __name__ == "__main__":
    main()
