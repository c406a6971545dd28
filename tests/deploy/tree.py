# SPDX-License-Identifier: Apache-2.0
"""What deploy/ says: its kustomizations and the objects that each of them comes to."""
import copy
import functools
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
DEPLOY = REPO / "deploy"
KUSTOMIZATION = "kustomization.yaml"
OVERLAYS = sorted(path.parent for path in DEPLOY.glob(f"overlays/*/{KUSTOMIZATION}"))
FOLDERS = sorted(path.parent for path in DEPLOY.rglob(KUSTOMIZATION))


@functools.cache
def documents(path):
    return [doc for doc in yaml.safe_load_all(path.read_text()) if doc is not None]


def kustomization(folder):
    return documents(folder / KUSTOMIZATION)[0]


def own_files(folder):
    """Every file that a kustomization names, by the field that names it."""
    kust = kustomization(folder)
    for name in kust.get("resources", []):
        yield "resources", folder / name
    for name in kust.get("patchesStrategicMerge", []):
        yield "patchesStrategicMerge", folder / name
    for patch in kust.get("patchesJson6902", []):
        yield "patchesJson6902", folder / patch["path"]
    for generator in kust.get("configMapGenerator", []):
        for item in generator["files"]:
            yield "configMapGenerator", folder / item.split("=")[-1]


def bases(folder):
    """The kustomizations it stands on, directly or not, itself last."""
    found = []
    for base in kustomization(folder).get("bases", []):
        found += bases((folder / base).resolve())
    return found + [folder]


def config_maps(folder):
    """{ConfigMap: {key: file}} of all that a folder comes to."""
    maps = {}
    for part in bases(folder):
        for generator in kustomization(part).get("configMapGenerator", []):
            files = (item.partition("=") for item in generator["files"])
            maps[generator["name"]] = {key: part / (path or key) for key, _, path in files}
    return maps


def merge(into, patch):
    """A strategic merge as far as ours go: maps."""
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def identity(obj):
    return obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]


@functools.cache
def objects(folder):
    """What `kubectl apply -k` makes of it, but for ConfigMaps: {(kind, namespace, name): object}."""
    made = {}
    for part in bases(folder):
        for field, path in own_files(part):
            if field == "resources":
                for obj in documents(path):
                    assert identity(obj) not in made, f"{path}: {identity(obj)} is there already"
                    made[identity(obj)] = copy.deepcopy(obj)
            elif field == "patchesStrategicMerge":
                for patch in documents(path):
                    merge(made[identity(patch)], patch)
        for patch in kustomization(part).get("patchesJson6902", []):
            target = patch["target"]
            obj = made[(target["kind"], target["namespace"], target["name"])]
            assert obj["apiVersion"] == f"{target['group']}/{target['version']}"
            for change in documents(part / patch["path"])[0]:
                assert change["op"] == "replace"
                *way, last = change["path"].strip("/").split("/")
                place = obj
                for step in way:
                    place = place[step]
                place[last] = change["value"]
    return made


def of_kind(folder, *kinds):
    return [obj for (kind, _, _), obj in objects(folder).items() if kind in kinds]


def find(folder, kind, name):
    found = [obj for obj in of_kind(folder, kind) if obj["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def pod_of(workload):
    return workload["spec"]["template"]["spec"]


def containers(workload):
    """{name: container}, those that run first as well."""
    pod = pod_of(workload)
    return {c["name"]: c for c in pod.get("initContainers", []) + pod["containers"]}


def readme_rows():
    """The cells of all tables in deploy/README.md."""
    for line in (DEPLOY / "README.md").read_text().splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("|").split("|")]
