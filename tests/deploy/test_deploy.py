# SPDX-License-Identifier: Apache-2.0
"""The manifests promise what deploy/README.md says: privileges, folders, ports, names that fit."""
import os
import re
import subprocess

import pytest
import yaml
from tree import (DEPLOY, FOLDERS, KUSTOMIZATION, OVERLAYS, REPO, config_maps, containers, documents, find,
                  kustomization, objects, of_kind, own_files, pod_of, readme_rows)

BUILD = REPO / os.environ.get("SLUICE_BUILD", "build")
NAMESPACE = "sluice-system"
MAIN = DEPLOY / "overlays" / "labelled-namespaces"
UNINSTALL = DEPLOY / "uninstall"
WORKLOADS = ("DaemonSet", "Deployment")
CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")


def ids(folders):
    return [str(folder.relative_to(DEPLOY)) for folder in folders]


each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=ids(FOLDERS))
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=ids(OVERLAYS))


def node():
    return find(MAIN, "DaemonSet", "sluice-node")


def gateway():
    return find(MAIN, "Deployment", "egressgateway")


def uninstall():
    return find(UNINSTALL, "DaemonSet", "sluice-uninstall")


# ---- the image ----

def test_the_containerfile_is_not_given_what_was_built_elsewhere():
    """make would take it for up to date, and other machines' programs would be in the image."""
    ignored = (REPO / ".dockerignore").read_text("ascii").splitlines()
    assert {"build", ".git"} <= set(ignored)


def test_the_containerfile_makes_the_image_of_make_image():
    text = (DEPLOY / "Containerfile").read_text("ascii")
    assert 'ENTRYPOINT ["/usr/bin/sluice-agent"]' in text
    made_by = (DEPLOY / "image.py").read_text("utf-8")
    path = re.search(r'^PATH = "(.*)"$', made_by, re.MULTILINE)[1]
    assert f"ENV PATH={path}\n" in text and 'Entrypoint=["/usr/bin/sluice-agent"]' in made_by


# ---- the tree ----

def test_there_is_an_overlay_for_each_promise():
    assert {o.name for o in OVERLAYS} == {"all-namespaces", "labelled-namespaces", "several-gateways",
                                          "kubernetes-1.20"}


@each_folder
def test_kubectl_1_20_understands_the_kustomization(folder):
    kust = kustomization(folder)
    assert kust["apiVersion"] == "kustomize.config.k8s.io/v1beta1" and kust["kind"] == "Kustomization"
    assert set(kust) <= {"apiVersion", "kind", "bases", "resources", "patchesStrategicMerge", "patchesJson6902",
                         "configMapGenerator", "images"}
    for name in kust.get("resources", []):
        assert (folder / name).is_file(), "its resources may be files only"
    for base in kust.get("bases", []):
        assert (folder / base / KUSTOMIZATION).is_file()
    for _, path in own_files(folder):
        assert path.is_file() and folder in path.parents, "nothing outside of its own folder is read"


def test_every_manifest_is_part_of_something():
    named = {path for folder in FOLDERS for _, path in own_files(folder)}
    named |= {folder / KUSTOMIZATION for folder in FOLDERS}
    assert set(DEPLOY.rglob("*.yaml")) == named


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda p: str(p.relative_to(DEPLOY)))
def test_it_parses_and_names_its_licence(path):
    assert documents(path)
    assert path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n")


@pytest.mark.parametrize("path", sorted(p for p in DEPLOY.rglob("*")
                                        if p.is_file() and "__pycache__" not in p.parts),
                         ids=lambda p: str(p.relative_to(DEPLOY)))
def test_no_registry_is_named(path):
    text = path.read_text()
    assert not re.findall(r"https?://(?!www\.example\.com)\S+", text)
    assert not re.findall(r"\b(?:docker|quay|ghcr|gcr|registry)\.(?:io|com|k8s)\b", text)


@each_folder
def test_every_object_is_in_our_namespace_and_labelled(folder):
    for (kind, namespace, name), obj in objects(folder).items():
        assert namespace == (None if kind in CLUSTER_WIDE else NAMESPACE), (kind, name)
        assert obj["metadata"]["labels"]["app.kubernetes.io/part-of"] == "sluice", (kind, name)


def test_config_maps_are_in_our_namespace_and_roll_out():
    for folder in FOLDERS:
        for generator in kustomization(folder).get("configMapGenerator", []):
            assert generator["namespace"] == NAMESPACE
        assert "generatorOptions" not in kustomization(folder), "the hash is what rolls a change out"


@each_overlay
def test_what_pods_mount_is_there(overlay):
    maps = set(config_maps(overlay)) | {"kube-root-ca.crt"}
    for workload in of_kind(overlay, *WORKLOADS):
        pod = pod_of(workload)
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            parts = volume.get("projected", {}).get("sources", []) + [volume]
            assert {p["configMap"]["name"] for p in parts if "configMap" in p} <= maps
        mounted = {m["name"] for c in containers(workload).values() for m in c["volumeMounts"]}
        assert mounted == set(volumes), "each volume is mounted, and no other"
        accounts = {obj["metadata"]["name"] for obj in of_kind(overlay, "ServiceAccount")}
        assert pod["serviceAccountName"] in accounts


# ---- names that have to fit each other ----

def selects(selector, labels):
    return selector.items() <= labels.items()


@pytest.mark.parametrize("workload", [node, gateway, uninstall])
def test_workloads_select_their_own_pods_alone(workload):
    spec = workload()["spec"]
    others = [w()["spec"]["template"]["metadata"]["labels"] for w in (node, gateway, uninstall) if w is not workload]
    assert selects(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"])
    assert not any(selects(spec["selector"]["matchLabels"], labels) for labels in others)


@each_overlay
def test_the_gateways_are_selected(overlay):
    labels = find(overlay, "Deployment", "egressgateway")["spec"]["template"]["metadata"]["labels"]
    service = find(overlay, "Service", "egressgateway")["spec"]
    budget = find(overlay, "PodDisruptionBudget", "egressgateway")["spec"]
    policy = find(overlay, "NetworkPolicy", "egressgateway")["spec"]
    assert selects(service["selector"], labels)
    assert selects(budget["selector"]["matchLabels"], labels) and budget["maxUnavailable"] == 1
    assert selects(policy["podSelector"]["matchLabels"], labels)


def test_policies_are_of_a_version_that_the_server_has():
    for overlay in OVERLAYS:
        beta = overlay.name == "kubernetes-1.20"
        budget = find(overlay, "PodDisruptionBudget", "egressgateway")
        assert budget["apiVersion"] == ("policy/v1beta1" if beta else "policy/v1")


def test_several_gateways_are_several_and_never_two_on_a_node():
    several = find(DEPLOY / "overlays" / "several-gateways", "Deployment", "egressgateway")
    assert several["spec"]["replicas"] >= 2
    for workload in (several, gateway()):
        rule, = pod_of(workload)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert rule["topologyKey"] == "kubernetes.io/hostname"
        assert selects(rule["labelSelector"]["matchLabels"], workload["spec"]["template"]["metadata"]["labels"])
        assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        assert pod_of(workload)["nodeSelector"]["sluice.io/egress-gateway"] == "true"


def test_uninstalling_waits_for_the_agent_of_a_node():
    first, second = pod_of(uninstall())["initContainers"]
    assert first["command"][-2:] == ["--uninstall", "--wait"]
    assert second["name"] == "remove-cni", "its entry comes back as long as sluice-install runs beside the agent"
    assert pod_of(uninstall())["priorityClassName"] == pod_of(node())["priorityClassName"], "or one evicts the other"


def test_monitors_find_pods_and_port():
    monitors = of_kind(DEPLOY / "monitoring", "PodMonitor")
    for workload in (node(), gateway()):
        template = workload["spec"]["template"]
        port = {p["name"]: p["containerPort"] for p in containers(workload)["agent"]["ports"]}["metrics"]
        assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port)
        matching = [m for m in monitors
                    if selects(m["spec"]["selector"]["matchLabels"], template["metadata"]["labels"])]
        assert len(matching) == 1
        endpoint, = matching[0]["spec"]["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("metrics", "/stats/prometheus")


# ---- pods ----

def every_container():
    for workload in (node(), gateway(), uninstall()):
        for name, container in containers(workload).items():
            yield pytest.param(workload, container, id=f"{workload['metadata']['name']}-{name}")


@pytest.mark.parametrize("workload, container", every_container())
def test_the_image_is_ours_to_rename(workload, container):
    assert container["image"] == "sluice" and container["imagePullPolicy"] == "IfNotPresent"
    assert container["command"][0] in ("/usr/bin/sluice-agent", "/usr/bin/sluice-install")


PRIVILEGED = {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True}
CONFINED = {"privileged": False, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]}}
CONFINED_ROOT = {**CONFINED, "runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}}
PROMISED = {
    ("sluice-node", "install-cni-first"): CONFINED_ROOT,
    ("sluice-node", "agent"): PRIVILEGED,
    ("sluice-node", "install-cni"): CONFINED_ROOT,
    ("egressgateway", "agent"): CONFINED,
    ("sluice-uninstall", "remove-cni"): CONFINED_ROOT,
    ("sluice-uninstall", "remove-rules"): PRIVILEGED,
    ("sluice-uninstall", "done"): CONFINED_ROOT,
}


def test_privileges_are_those_promised():
    have = {(w["metadata"]["name"], name): c["securityContext"]
            for w in (node(), gateway(), uninstall()) for name, c in containers(w).items()}
    assert have == PROMISED


def test_the_gateway_is_nobody():
    pod = pod_of(gateway())
    assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1337, "runAsGroup": 1337, "fsGroup": 1337,
                                      "seccompProfile": {"type": "RuntimeDefault"}}
    assert not pod.get("hostPID") and not pod.get("hostIPC")
    assert not [v for v in pod["volumes"] if "hostPath" in v]


def test_the_node_agent_is_where_it_has_to_be():
    for workload in (node(), uninstall()):
        pod = pod_of(workload)
        assert pod["hostNetwork"] and pod["hostPID"] and not pod.get("hostIPC")
        assert pod["tolerations"] == [{"operator": "Exists"}]
        assert pod["priorityClassName"] == "system-node-critical"
    assert pod_of(node())["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert node()["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}
    env = {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in containers(node())["agent"]["env"]}
    assert env == {"NODE_NAME": "spec.nodeName", "POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}


def test_only_agents_have_a_token():
    for folder in FOLDERS:
        for account in of_kind(folder, "ServiceAccount"):
            assert account["automountServiceAccountToken"] is False
    for workload in (node(), gateway(), uninstall()):
        pod = pod_of(workload)
        assert pod["automountServiceAccountToken"] is False
        tokens = {v["name"] for v in pod["volumes"] if any("serviceAccountToken" in s for s in
                                                           v.get("projected", {}).get("sources", []))}
        holders = {name for name, c in containers(workload).items()
                   if tokens & {m["name"] for m in c["volumeMounts"]}}
        assert holders == (set() if workload["metadata"]["name"] == "sluice-uninstall" else {"agent"})


FOLDERS_OF_THE_NODE = {  # what of the host each container sees
    "agent": {"/run/sluice", "/var/lib/sluice", "/run/netns", "/sys/fs/bpf", "/sys/fs/cgroup"},
    "install-cni": {"/opt/cni/bin", "/etc/cni/net.d"},
    "install-cni-first": {"/opt/cni/bin", "/etc/cni/net.d"},
    "remove-rules": {"/run/sluice", "/var/lib/sluice", "/run/netns", "/sys/fs/bpf", "/sys/fs/cgroup"},
    "remove-cni": {"/opt/cni/bin", "/etc/cni/net.d"},
    "done": {"/opt/cni/bin", "/etc/cni/net.d"},
}


def host_mounts(workload):
    """(container, folder of the host, mount) of all."""
    paths = {v["name"]: v["hostPath"]["path"] for v in pod_of(workload)["volumes"] if "hostPath" in v}
    for name, container in containers(workload).items():
        for mount in container["volumeMounts"]:
            if mount["name"] in paths:
                yield name, paths[mount["name"]], mount


def test_folders_of_the_node_are_those_promised():
    have = {}
    for workload in (node(), uninstall()):
        for name, path, mount in host_mounts(workload):
            have.setdefault(name, set()).add(path)
            confined = not containers(workload)[name]["securityContext"]["privileged"]
            assert mount["mountPath"] == (f"/host{path}" if confined else path)
    assert have == FOLDERS_OF_THE_NODE


def test_mounts_of_the_node_are_seen_as_they_come():
    how = {path: mount for name, path, mount in host_mounts(node()) if name == "agent"}
    assert how["/run/netns"]["mountPropagation"] == "HostToContainer"
    assert how["/sys/fs/bpf"]["mountPropagation"] == "Bidirectional"
    assert how["/sys/fs/cgroup"]["readOnly"] is True


def test_installing_and_removing_speak_of_the_same_places():
    def options(container):
        words = container["command"][1:]
        return {w: words[i + 1] for i, w in enumerate(words[:-1]) if words[i + 1][0] == "/"}

    install = options(containers(node())["install-cni"])
    assert install == options(containers(node())["install-cni-first"])
    assert set(install) == {"--source", "--bin-dir", "--conf-dir", "--socket"}
    for name in ("remove-cni", "done"):
        remove = containers(uninstall())[name]
        assert "--remove" in remove["command"]
        assert options(remove) == {k: install[k] for k in ("--bin-dir", "--conf-dir")}


def test_the_readme_lists_every_folder_of_the_node():
    listed = {row[0].strip("`") for row in readme_rows() if re.fullmatch(r"`/(run|var|sys|opt|etc)/\S+`", row[0])}
    assert listed == {path for paths in FOLDERS_OF_THE_NODE.values() for path in paths}


def test_the_namespace_lets_them_in():
    labels = find(MAIN, "Namespace", NAMESPACE)["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "privileged"


def test_other_pods_in_the_namespace_are_cut_off():
    policy = find(MAIN, "NetworkPolicy", "default-deny")["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


# ---- configuration ----

def configs():
    found = {}
    for folder in FOLDERS:
        for name, files in config_maps(folder).items():
            assert list(files) == ["agent.yaml"], "the file that --config names"
            found[files["agent.yaml"]] = name
    return sorted(found.items())


def config(overlay, name):
    return yaml.safe_load(config_maps(overlay)[name]["agent.yaml"].read_text())


@pytest.mark.parametrize("path", [path for path, _ in configs()], ids=lambda p: str(p.relative_to(DEPLOY)))
def test_the_agent_takes_the_configuration(path):
    done = subprocess.run([BUILD / "sluice-agent", "--config", path, "--check"], capture_output=True, text=True,
                          timeout=20, env={"NODE_NAME": "node-1", "PATH": os.environ["PATH"]}, check=False)
    assert done.returncode == 0, done.stderr


@each_overlay
def test_nodes_ask_for_the_service_that_there_is(overlay):
    service = find(overlay, "Service", "egressgateway")
    name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    assert config(overlay, "sluice-node")["gateways"] == [{"name": name}]
    assert service["spec"]["clusterIP"] == "None", "an address in the cluster's networks is one that pods may reach"
    port, = service["spec"]["ports"]
    agent = containers(find(overlay, "Deployment", "egressgateway"))["agent"]
    tunnel = {p["name"]: p["containerPort"] for p in agent["ports"]}[port["targetPort"]]
    assert port["name"] == "tunnel" and port["port"] == tunnel == 15443


@each_overlay
def test_who_is_enforced(overlay):
    enrol = config(overlay, "sluice-node")["enrol"]
    assert enrol["mode"] == ("all" if overlay.name == "all-namespaces" else "labelled")
    assert {"kube-system", NAMESPACE} <= set(enrol["excludedNamespaces"])
    assert config(overlay, "sluice-node")["guard"] == "required"


@each_overlay
def test_only_nodes_reach_the_gateways(overlay):
    conf = config(overlay, "sluice-gateway")
    assert conf["tunnel"]["nodesOnly"] is True
    assert conf["clusterCIDRs"] == config(overlay, "sluice-node")["clusterCIDRs"]


def test_ports_are_those_that_the_agent_opens():
    defaults = (REPO / "agent" / "config.c").read_text()
    admin = config(MAIN, "sluice-gateway")["admin"]
    for workload, metrics, health, host in ((node(), 15020, 15021, None), (gateway(), 15120, 15121, "127.0.0.1")):
        agent = containers(workload)["agent"]
        ports = {p["name"]: p["containerPort"] for p in agent["ports"]}
        assert ports["metrics"] == metrics
        probe = agent["readinessProbe"]["httpGet"]
        assert (probe["path"], probe["port"], probe.get("host")) == ("/healthz/ready", health, host)
    assert ".metrics.port = 15020" in defaults and ".health.port = 15021" in defaults
    assert admin == {"metrics": ":15120", "health": "127.0.0.1:15121"}


def test_node_and_gateway_share_a_network_and_no_port():
    def ports(workload):
        agent = containers(workload)["agent"]
        return {p["containerPort"] for p in agent["ports"]} | {agent["readinessProbe"]["httpGet"]["port"]}

    assert not ports(node()) & ports(gateway())
