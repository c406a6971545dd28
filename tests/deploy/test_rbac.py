# SPDX-License-Identifier: Apache-2.0
"""What is granted of the API is what the code asks for, and nothing else."""
import re

import pytest
from tree import DEPLOY, FOLDERS, OVERLAYS, REPO, objects, of_kind, readme_rows

NAMESPACE = "sluice-system"
EVERYWHERE = None

# (who, group, resource, where): {verb: why}
USED = {
    ("sluice-node", "networking.istio.io", "serviceentries", EVERYWHERE): {
        "list": "the registry", "watch": "changes of it within a second"},
    ("sluice-node", "", "namespaces", EVERYWHERE): {
        "list": "which are enforced", "watch": "a label that comes or goes"},
    ("sluice-node", "", "pods", EVERYWHERE): {
        "list": "those of its node", "watch": "that they come, change their name space's mind, end"},
    ("sluice-node", "discovery.k8s.io", "endpointslices", NAMESPACE): {
        "list": "where the gateways are", "watch": "gateways that come and go"},
    ("sluice-node", "", "endpoints", NAMESPACE): {
        "list": "the same on servers without slices", "watch": "the same"},
    ("sluice-node", "", "events", EVERYWHERE): {
        "create": "EgressDenied and EgressNotConfined on pods, what is wrong with a ServiceEntry",
        "patch": "one more of the same"},
    ("sluice-gateway", "networking.istio.io", "serviceentries", EVERYWHERE): {
        "list": "the registry", "watch": "changes of it within a second"},
    ("sluice-gateway", "", "nodes", EVERYWHERE): {
        "list": "whose addresses may connect", "watch": "nodes that come and go"},
    ("sluice-gateway", "", "events", EVERYWHERE): {
        "create": "what is wrong with a ServiceEntry", "patch": "one more of the same"},
}
USED_WITH_STARTUP_TAINT = {
    ("sluice-node", "", "nodes", EVERYWHERE): {"get": "its taints", "patch": "without ours"},
}


def granted(folder):
    """{(who, group, resource, where): verbs} by the bindings of a folder."""
    roles = {(o["kind"], o["metadata"]["name"]): o for o in of_kind(folder, "Role", "ClusterRole")}
    have = {}
    for binding in of_kind(folder, "RoleBinding", "ClusterRoleBinding"):
        ref = binding["roleRef"]
        role = roles.pop((ref["kind"], ref["name"]))
        for subject in binding["subjects"]:
            assert subject["kind"] == "ServiceAccount" and subject["namespace"] == NAMESPACE
            for rule in role["rules"]:
                assert set(rule) == {"apiGroups", "resources", "verbs"}
                where = binding["metadata"].get("namespace", EVERYWHERE)
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        have.setdefault((subject["name"], group, resource, where), set()).update(rule["verbs"])
    assert not roles, "a role that nobody has"
    return have


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda p: p.name)
def test_what_is_granted_is_what_is_used(overlay):
    assert granted(overlay) == {key: set(verbs) for key, verbs in USED.items()}


def test_what_the_startup_taint_takes():
    have = granted(DEPLOY / "startup-taint")
    assert have == {key: set(verbs) for key, verbs in USED_WITH_STARTUP_TAINT.items()}


def test_uninstalling_takes_nothing():
    assert granted(DEPLOY / "uninstall") == {}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_nothing_is_granted_by_a_star_and_no_secret(folder):
    for _, _, resource, _ in granted(folder):
        assert resource != "secrets"
    for role in of_kind(folder, "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert not [word for words in rule.values() for word in words if "*" in word]


def watched_by_the_code():
    """(group, resource) of each reflector."""
    for path in (REPO / "agent" / "kube").glob("*.c"):
        text = path.read_text()
        yield from re.findall(r'\.group = "([^"]*)",\s*\.versions = [^;]*?\.resource = "([^"]*)"', text, re.DOTALL)


def test_the_code_watches_what_is_listed_here():
    assert set(watched_by_the_code()) == {key[1:3] for key, verbs in USED.items() if "watch" in verbs}


def test_the_code_writes_what_is_listed_here():
    sources = {path: path.read_text() for path in REPO.glob("agent/**/*.c")}
    writers = [text for text in sources.values() if re.search(r'"(POST|PATCH|PUT|DELETE)"', text) and "/api" in text]
    written = {resource for text in writers for resource in re.findall(r'/api/v1/(?:namespaces/%s/)?(\w+)', text)}
    may = {key[2] for key, verbs in {**USED, **USED_WITH_STARTUP_TAINT}.items() if {"create", "patch"} & set(verbs)}
    assert "events" in written and written <= may
    methods = {method for text in writers for method in re.findall(r'"(POST|PATCH|PUT|DELETE)"', text)}
    assert methods == {"POST", "PATCH"}


def test_the_readme_says_so():
    who, said = None, {}
    for row in readme_rows():
        if len(row) != 4 or not re.match(r"(get|list|watch|create|patch)\b", row[1]):
            continue
        who = re.search(r"`([a-z-]+)`", row[0]).group(1) if row[0] else who
        for resource in re.findall(r"`([a-z]+)`", row[2]):
            said.setdefault((who, resource), set()).update(row[1].split(", "))
    for key, verbs in {**USED, **USED_WITH_STARTUP_TAINT}.items():
        assert said.pop((key[0], key[2])) == set(verbs)
    assert not said, "the README grants more"


def test_accounts_are_bound_that_exist():
    for overlay in OVERLAYS:
        accounts = {name for kind, _, name in objects(overlay) if kind == "ServiceAccount"}
        assert {who for who, _, _, _ in granted(overlay)} == accounts
