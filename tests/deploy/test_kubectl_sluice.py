# SPDX-License-Identifier: Apache-2.0
"""`kubectl sluice` with a kubectl that plays a cluster of a few nodes."""
import json
import os
import subprocess

import pytest
from tree import DEPLOY

# What it is asked it writes down; what sluicectl says on a node is the file NODE.out.
KUBECTL = r"""#!/bin/sh
echo "$*" >>"$CLUSTER/asked"
case " $* " in
*" get pods "*)
	sed -n "s/^\([^ ]*\) \([^ ]*\)$/\1 \2/p" "$CLUSTER/agents" | case "$*" in
	*spec.nodeName=*) node=${*#*spec.nodeName=}; grep "^${node%% *} " || : ;;
	*) cat ;;
	esac
	;;
*" get pod "*)
	[ -e "$CLUSTER/home" ] || { echo 'Error from server (NotFound): pods "x" not found' >&2; exit 1; }
	cat "$CLUSTER/home"
	;;
*" exec "*)
	for word; do
		case $word in agent-*) node=${word#agent-} ;; esac
	done
	cat "$CLUSTER/$node.out"
	status=$(cat "$CLUSTER/$node.status" 2>/dev/null || echo 0)
	[ "$status" -eq 0 ] && exit
	[ ! -e "$CLUSTER/$node.err" ] || cat "$CLUSTER/$node.err" >&2
	echo "command terminated with exit code $status" >&2
	exit "$status"
	;;
*) exit 99 ;;
esac
"""


class Cluster:
    """`nodes`: {node: what its sluicectl prints, or (status, output, errors)}."""

    def __init__(self, folder):
        self.folder = folder
        self.kubectl = folder / "kubectl"
        self.kubectl.write_text(KUBECTL)
        self.kubectl.chmod(0o755)
        (folder / "agents").write_text("")

    def nodes(self, answers):
        (self.folder / "agents").write_text("".join(f"{node} agent-{node}\n" for node in answers))
        for node, answer in answers.items():
            status, out, err = answer if isinstance(answer, tuple) else (0, answer, "")
            (self.folder / f"{node}.out").write_text(out)
            (self.folder / f"{node}.err").write_text(err)
            (self.folder / f"{node}.status").write_text(str(status))

    def run(self, *words):
        env = {"PATH": os.environ["PATH"], "KUBECTL": str(self.kubectl), "CLUSTER": str(self.folder),
               "TMPDIR": str(self.folder), "LC_ALL": "C.UTF-8"}
        before = set(self.folder.iterdir())
        done = subprocess.run(["sh", DEPLOY / "kubectl-sluice", *words], env=env, capture_output=True, text=True,
                              timeout=20, stdin=subprocess.DEVNULL, check=False)
        assert set(self.folder.iterdir()) <= before | {self.folder / "asked"}, "nothing is left behind"
        return done

    def asked(self):
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture(name="cluster")
def make_cluster(tmp_path):
    return Cluster(tmp_path)


def test_the_tables_of_all_nodes_become_one(cluster):
    cluster.nodes({
        "n2": "NAMESPACE       POD  STATE\na-long-name     x    not in order\n",
        "n10": "NAMESPACE  POD     STATE\nshop       web-1   open\nshop       web-22  -\n",
    })
    done = cluster.run("pods")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("NODE  NAMESPACE    POD     STATE\n"
                           "n10   shop         web-1   open\n"
                           "n10   shop         web-22  -\n"
                           "n2    a-long-name  x       not in order\n")
    asked = [line for line in cluster.asked() if line.startswith("exec")]
    assert sorted(asked) == [f"exec --namespace=sluice-system agent-{n} --container=agent -- /usr/bin/sluicectl pods"
                             for n in ("n10", "n2")]
    assert "--selector=app.kubernetes.io/name=sluice-node" in cluster.asked()[0]


def test_nodes_without_a_table_say_so(cluster):
    cluster.nodes({"n1": "no pod is enrolled\n", "n2": "NAMESPACE  POD\nshop       web\n"})
    done = cluster.run("pods")
    assert done.stdout == "NODE  NAMESPACE  POD\nn2    shop       web\nn1: no pod is enrolled\n"


def test_json_is_a_line_a_node(cluster):
    cluster.nodes({"n1": '[{"pod": "a"},\n  {"pod": "b c"}]\n', "n2": "[]\n"})
    done = cluster.run("--json", "registry")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"node": "n1", "answer": [{"pod": "a"}, {"pod": "b c"}]}, {"node": "n2", "answer": []}]
    assert cluster.asked()[-1].endswith("/usr/bin/sluicectl registry --json")


def test_a_node_that_fails_hides_no_other(cluster):
    cluster.nodes({"n1": (1, "half a", "sluicectl: nobody listens\n"), "n2": "NAMESPACE  POD\nshop       web\n"})
    done = cluster.run("pods")
    assert done.returncode == 1
    assert done.stdout == "NODE  NAMESPACE  POD\nn2    shop       web\n"
    assert done.stderr == "kubectl-sluice: n1: sluicectl: nobody listens\n"


def test_many_nodes(cluster):
    cluster.nodes({f"n{i:02}": f"NAMESPACE  POD\nshop       web-{i}\n" for i in range(40)})
    lines = cluster.run("pods").stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [[f"n{i:02}", "shop", f"web-{i}"] for i in range(40)]


def test_one_node_and_the_gateways(cluster):
    cluster.nodes({"n1": "A  B\n1  2\n", "n2": "A  B\n3  4\n"})
    assert cluster.run("pods", "--node", "n2").stdout == "NODE  A  B\nn2    3  4\n"
    assert cluster.run("pods", "--node=n1", "--gateways", "-n", "other", "--context=c").returncode == 0
    last = cluster.asked()[-1]
    assert last.startswith("--context=c exec --namespace=other agent-n1 ")
    assert any("--selector=app.kubernetes.io/name=sluice-gateway" in line for line in cluster.asked())


def test_nobody_there(cluster):
    done = cluster.run("pods")
    assert done.returncode == 1 and done.stdout == ""
    assert "no pod of 'sluice-node' runs in namespace 'sluice-system'" in done.stderr


@pytest.mark.parametrize("status", [0, 3, 1])
def test_check_asks_the_node_of_the_pod(cluster, status):
    cluster.nodes({"n1": (9, "", ""), "n2": (status, "FIELD     VALUE\ndecision  DENY\n", "sluicectl: x\n")})
    (cluster.folder / "home").write_text("n2")
    done = cluster.run("check", "www.example.com:443", "--pod", "shop/web", "--protocol=tls")
    assert done.returncode == status and done.stdout == "FIELD     VALUE\ndecision  DENY\n"
    assert done.stderr == ("" if status == 0 else "kubectl-sluice: n2: sluicectl: x\n")
    assert "get pod --namespace=shop web --output=jsonpath={.spec.nodeName}" in cluster.asked()
    assert cluster.asked()[-1].endswith("agent-n2 --container=agent -- /usr/bin/sluicectl check www.example.com:443 "
                                        "--pod shop/web --protocol tls")
    assert not [line for line in cluster.asked() if "agent-n1" in line]


def test_check_in_json(cluster):
    cluster.nodes({"n1": (3, '{"decision":\n"DENY"}\n', "")})
    (cluster.folder / "home").write_text("n1")
    done = cluster.run("check", "a:1", "--pod=shop/web", "--json")
    assert done.returncode == 3 and json.loads(done.stdout) == {"node": "n1", "answer": {"decision": "DENY"}}


@pytest.mark.parametrize("home, words", [
    (None, "NotFound"), ("", "on no node yet"), ("n9", "no agent runs on node 'n9'"),
])
def test_check_of_a_pod_that_cannot_be_asked_about(cluster, home, words):
    cluster.nodes({"n1": ""})
    if home is not None:
        (cluster.folder / "home").write_text(home)
    done = cluster.run("check", "a:1", "--pod", "shop/web")
    assert done.returncode == 1 and done.stdout == "" and words in done.stderr


@pytest.mark.parametrize("words", [
    [], ["nonsense"], ["pods", "more"], ["check", "--pod", "a/b"], ["check", "a:1"], ["check", "a:1", "--pod", "a"],
    ["pods", "--node"], ["pods", "--nonsense"], ["enroll"], ["check", "a:1", "--pod", "/b"], ["check", "a:1", "b:2"],
])
def test_wrong_usage(cluster, words):
    done = cluster.run(*words)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("kubectl-sluice: ")
    assert not (cluster.folder / "asked").exists()


def test_help(cluster):
    done = cluster.run("--help")
    assert done.returncode == 0 and done.stdout.startswith("Usage: kubectl sluice")
