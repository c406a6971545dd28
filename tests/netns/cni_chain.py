# SPDX-License-Identifier: Apache-2.0
"""A container runtime's side of CNI: executes the plugins of a network configuration list as libcni does,
in a network namespace that stands for the node's."""
import dataclasses
import json
import os
import subprocess
import time

from agents import BUILD

PLUGIN = BUILD / "sluice-cni"
INSTALL = BUILD / "sluice-install"
DEBIAN = "/usr/lib/cni"
ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE={ns};K8S_POD_NAME={pod};K8S_POD_UID={uid}"


@dataclasses.dataclass
class Done:
    """What one plugin did."""
    status: int
    out: str
    err: str
    seconds: float

    def json(self):
        return json.loads(self.out)

    @property
    def code(self):
        """Of the error it printed; 0 when it did well."""
        if self.status == 0:
            return 0
        error = self.json()
        assert set(error) <= {"cniVersion", "code", "msg", "details"} and error["msg"], error
        return error["code"]


class CniError(Exception):
    def __init__(self, plugin, done):
        super().__init__(f"{plugin}: {done.out.strip()} {done.err.strip()}")
        self.done = done


def execute(ns, command, conf, container="", netns=None, ifname="eth0", args="", path=DEBIAN,
            plugin=PLUGIN, env=None, timeout=60):
    """One plugin, once. What is None is not in its environment. `conf`: an object, or text as it is."""
    variables = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": netns,
                 "CNI_IFNAME": ifname, "CNI_ARGS": args, "CNI_PATH": path} | (env or {})
    variables = {k: v for k, v in variables.items() if v is not None}
    text = conf if isinstance(conf, (str, bytes)) else json.dumps(conf)
    with ns.entered():  # what this thread starts, starts there
        start = time.monotonic()
        done = subprocess.run([str(plugin)], input=text.encode() if isinstance(text, str) else text,
                              env={"PATH": os.environ["PATH"]} | variables, check=False,
                              capture_output=True, timeout=timeout)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode(), time.monotonic() - start)


class Attachment:
    """One container on the network, from its ADD on."""

    def __init__(self, runtime, container, netns, args, ifname, caps):
        self.runtime, self.container, self.netns = runtime, container, netns
        self.args, self.ifname, self.caps = args, ifname, caps
        self.result = None

    def _run(self, command, plugin, netns, prev):
        conf = self.runtime.request(plugin, self.caps)
        if prev is not None:
            conf["prevResult"] = prev
        done = execute(self.runtime.ns, command, conf, self.container, netns, self.ifname, self.args,
                       path=":".join(self.runtime.paths), plugin=self.runtime.find(plugin["type"]))
        if done.status != 0:
            raise CniError(plugin["type"], done)
        return done

    def add(self):
        for plugin in self.runtime.conf["plugins"]:
            done = self._run("ADD", plugin, self.netns, self.result)
            self.result = done.json()
            assert self.result["cniVersion"] == self.runtime.conf["cniVersion"]
        return self.result

    def check(self):
        for plugin in self.runtime.conf["plugins"]:
            self._run("CHECK", plugin, self.netns, self.result)

    def delete(self, netns=None):
        """`netns` "": the runtime has removed it already."""
        for plugin in reversed(self.runtime.conf["plugins"]):
            self._run("DEL", plugin, self.netns if netns is None else netns, self.result)


class Runtime:
    """A node's runtime with one network. Binaries are looked for in `paths`, one after the other."""

    def __init__(self, ns, conf, paths):
        self.ns, self.conf, self.paths = ns, conf, [str(p) for p in paths]

    def find(self, name):
        for path in self.paths:
            if os.path.exists(f"{path}/{name}"):
                return f"{path}/{name}"
        raise FileNotFoundError(f"no plugin {name} in {self.paths}")

    def request(self, plugin, caps):
        conf = {k: v for k, v in plugin.items() if k != "capabilities"}
        conf |= {"cniVersion": self.conf["cniVersion"], "name": self.conf["name"]}
        wanted = {k: v for k, v in (caps or {}).items() if plugin.get("capabilities", {}).get(k)}
        return conf | ({"runtimeConfig": wanted} if wanted else {})

    def add(self, container, netns, args="", ifname="eth0", caps=None):
        attachment = Attachment(self, container, netns, args, ifname, caps)
        attachment.add()
        return attachment


def pod_args(ref, uid="u-1"):
    ns, _, pod = ref.partition("/")
    return ARGS.format(ns=ns, pod=pod, uid=uid)
