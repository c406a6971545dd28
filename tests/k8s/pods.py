# SPDX-License-Identifier: Apache-2.0
"""Pods of the client image."""
import dataclasses
import itertools
import re

from images import CLIENT

_numbers = itertools.count()


@dataclasses.dataclass
class Curl:
    """What one curl did."""
    code: int       # its exit code
    status: int     # of the last response, 0 when there was none
    body: str
    error: str      # what it complained of
    seen_from: str  # the address that the server saw; "" when no server of ours answered


class Pod:
    """One pod, by name. Nothing is asked of the API before it is needed."""

    def __init__(self, cluster, name, namespace="default"):
        self.cluster, self.name, self.namespace = cluster, name, namespace

    def manifest(self, node=None, cmd=("sleep", "1000000"), labels=None, **spec):
        """`spec` is laid over the pod's; cmd is what its only container runs."""
        return {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": self.name, "namespace": self.namespace,
                             "labels": {"app": self.name, **(labels or {})}},
                "spec": {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never",
                         "automountServiceAccountToken": False,
                         **({"nodeName": node} if node else {}),
                         "containers": [{"name": "main", "image": CLIENT, "imagePullPolicy": "Never",
                                         "command": [str(word) for word in cmd]}], **spec}}

    def make(self, node=None, wait=True, **options):
        self.cluster.apply(self.manifest(node, **options))
        return self.wait_ready() if wait else self

    def wait_ready(self, timeout=60):
        self._kubectl("wait", "--for=condition=Ready", f"--timeout={timeout}s", f"pod/{self.name}",
                      timeout=timeout + 10)
        return self

    def _kubectl(self, *args, **options):
        return self.cluster.kubectl("-n", self.namespace, *args, **options)

    def get(self):
        return self.cluster.get("pod", self.name, self.namespace)

    @property
    def ip(self):
        return self.get()["status"]["podIP"]

    def last_words(self):
        """What its container left in /dev/termination-log; "" while it runs."""
        return last_words(self.get())

    def delete(self, wait=False):
        """To wait until the kubelet has told the API server that it is gone takes some ten seconds."""
        self._kubectl("delete", "pod", self.name, "--ignore-not-found", f"--wait={str(wait).lower()}")

    def exec(self, *cmd, check=True, **options):
        """Runs it in the pod, by the API server and the kubelet. Returns its output."""
        return self._kubectl("exec", self.name, "-i", "--", *cmd, check=check, **options)

    def ids_on(self, node, kind):
        """Of its containers that run ("container") or its sandbox, asked of the node itself: this also works
        while there is no API server."""
        wanted = ",".join([f'labels."io.kubernetes.pod.name"=={self.name}',
                           f'labels."io.kubernetes.pod.namespace"=={self.namespace}',
                           f'labels."io.cri-containerd.kind"=={kind}'])
        ids = node.exec(["ctr", "-n", "k8s.io", "containers", "ls", "-q", wanted]).stdout.split()
        tasks = node.exec(["ctr", "-n", "k8s.io", "tasks", "ls"]).stdout.splitlines()
        running = [line.split()[0] for line in tasks if line.endswith("RUNNING")]
        return [one for one in ids if one in running]

    def exec_on(self, node, *cmd, other_than=()):
        """exec() by the node itself, in the container that runs and is none of `other_than`. Returns its
        output, "" when there is no such container."""
        ids = [one for one in self.ids_on(node, "container") if one not in other_than]
        if not ids:
            return ""
        run = ["ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", f"test-{next(_numbers)}", ids[0]]
        return node.exec([*run, *cmd], check=False).stdout

    def curl(self, url, *args, timeout=10):
        """Real curl; trusts the internet's CA."""
        # The body ends with a line of ours: kubectl's streams have no length.
        done = self.exec("curl", "-q", "-sS", "-i", "--max-time", timeout,
                         "--cacert", "/etc/ssl/certs/ca-certificates.crt",
                         "-w", "\n%{http_code}", *args, url, check=False, timeout=timeout + 30)
        text, _, status = done.stdout.rpartition("\n")
        head, _, body = text.replace("\r\n", "\n").partition("\n\n")
        seen = re.search(r"^x-client: (\S+)$", head, re.MULTILINE | re.IGNORECASE)
        return Curl(code=_exit_code(done), status=int(status or 0), body=body, error=done.stderr.strip(),
                    seen_from=seen[1] if seen else "")


def last_words(pod):
    """Of a pod as the API has it."""
    for status in pod["status"].get("containerStatuses", []):
        return status["state"].get("terminated", {}).get("message", "")
    return ""


def _exit_code(done):
    """Of the command: kubectl says it in words and exits with 1 or the same."""
    found = re.search(r"command terminated with exit code (\d+)", done.stderr)
    return int(found[1]) if found else done.returncode
