# SPDX-License-Identifier: Apache-2.0
"""The container image: complete, minimal, the same each time."""
import json
import os
import subprocess
import sys
import tarfile

import pytest

from cluster import BUILD, REPO

ARCHIVE = BUILD / "sluice-image.tar"
IMAGE = REPO / "deploy/image.py"
SHELLS = {"sh", "bash", "dash", "busybox", "perl", "python3"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """What is in the image's layer, as files."""
    folder = tmp_path_factory.mktemp("image")
    with tarfile.open(ARCHIVE) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
        with tarfile.open(fileobj=archive.extractfile(manifest[0]["Layers"][0])) as layer:
            layer.extractall(folder)
    return folder


def in_image(root, *cmd, **options):
    """Runs it with the image as its root, in namespaces of its own."""
    return subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", f"--root={root}",
                           "--mount-proc", *cmd], check=False, text=True,
                          capture_output=True, timeout=30, **options)


@pytest.mark.parametrize("program", ("sluice-agent", "sluicectl", "sluice-init", "sluice-install"))
def test_programs_find_their_libraries(root, program):
    done = in_image(root, f"/usr/bin/{program}", "--help")
    assert done.returncode == 0, done.stderr
    assert program in done.stdout + done.stderr


def test_the_cni_plugin_needs_nothing(root):
    """It runs on the node's root, whatever distribution that is."""
    plugin = root / "usr/lib/sluice/sluice-cni"
    said = subprocess.run(["readelf", "-lW", plugin], check=True, capture_output=True, text=True).stdout
    assert "INTERP" not in said
    alone = subprocess.run([plugin], env={"CNI_COMMAND": "VERSION"}, input='{"cniVersion":"1.0.0"}',
                           check=False, capture_output=True, text=True)
    assert "1.0.0" in json.loads(alone.stdout)["supportedVersions"]


@pytest.mark.parametrize("kind", ("nft", "legacy"))
@pytest.mark.parametrize("family", ("iptables", "ip6tables"))
def test_iptables_finds_its_extensions(root, kind, family):
    """Rules with matches and targets that the iptables back end uses are parsed, and not committed."""
    icmp = "icmp-admin-prohibited" if family == "iptables" else "icmp6-adm-prohibited"
    rules = f"""*filter
:T - [0:0]
-A T -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j REJECT --reject-with tcp-reset
-A T -m addrtype ! --src-type LOCAL -m limit --limit 10/sec --limit-burst 20 -j NFLOG --nflog-group 1
-A T -p udp -m udp --dport 443 -j REJECT --reject-with {icmp}
{"-A T -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j RETURN" if family == "ip6tables" else ""}
COMMIT
*nat
:T - [0:0]
-A T -p tcp -j REDIRECT --to-ports 15001
COMMIT
"""
    done = in_image(root, f"/usr/sbin/{family}-{kind}-restore", "--test", "--noflush", input=rules,
                    env={"XTABLES_LOCKFILE": "/proc/self/fd/0", "PATH": "/usr/sbin:/usr/bin"})
    assert done.returncode == 0, done.stderr
    assert "No chain/target/match" not in done.stderr and "Couldn't load" not in done.stderr


def test_nothing_else_is_in_it(root):
    found = {path.name for path in root.rglob("*") if path.is_file() and os.access(path, os.X_OK)}
    assert not found & SHELLS
    programs = {name for name in found if ".so" not in name}
    assert programs == {"sluice-agent", "sluicectl", "sluice-init", "sluice-install", "sluice-cni"} | {
        f"{family}-{kind}-{verb}" for family in ("iptables", "ip6tables") for kind in ("nft", "legacy")
        for verb in ("restore", "save")} | {"xtables-nft-multi", "xtables-legacy-multi"}


def test_the_gateways_user_is_known(root):
    users = [line.split(":") for line in (root / "etc/passwd").read_text("ascii").splitlines()]
    assert ["sluice", "1337", "1337"] in [[user[0], user[2], user[3]] for user in users]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    again = tmp_path / "again.tar"
    names = ["--name", "sluice:latest", "--name", _version_tag()]
    subprocess.run([sys.executable, IMAGE, "--build", BUILD, "--out", again, *names], check=True,
                   timeout=60)
    assert again.read_bytes() == ARCHIVE.read_bytes()


def _version_tag():
    with tarfile.open(ARCHIVE) as archive:
        return json.load(archive.extractfile("manifest.json"))[0]["RepoTags"][1]


def test_the_folder_holds_the_same(tmp_path, root):
    """--root, which the Containerfile uses."""
    subprocess.run([sys.executable, IMAGE, "--build", BUILD, "--root", tmp_path / "root"], check=True,
                   timeout=60)
    done = subprocess.run(["diff", "-r", "--no-dereference", tmp_path / "root", root], check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_node_takes_it(cluster):
    """Under the name that the manifests use."""
    node = cluster.nodes["n1"]
    node.import_image(ARCHIVE)
    names = node.exec(["ctr", "-n", "k8s.io", "images", "ls", "-q"]).stdout.split()
    assert any(name.endswith("/sluice:latest") for name in names), names
