# SPDX-License-Identifier: Apache-2.0
"""Fixtures: one cluster of three nodes for the whole session."""
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cluster import BUILD, Cluster  # noqa: E402
from sluice import Sluice  # noqa: E402

LOGS = BUILD / "k8s-logs"
live = []
skipped = []


def pytest_sessionstart(session):
    if os.geteuid() != 0:
        pytest.exit("tests/k8s needs root: sudo make test-k8s", returncode=2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """What the parts of the cluster and the pods had to say when a test failed, before it is cleared away."""
    report = (yield).get_result()
    if report.failed:
        for it in live:
            save_logs(it, LOGS / item.name)


def pytest_runtest_logreport(report):
    if report.skipped:
        skipped.append(report.nodeid)


def pytest_sessionfinish(session, exitstatus):
    """A test that was skipped proves nothing."""
    if skipped and exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    if skipped:
        terminalreporter.write_line(f"skipped tests count as failures: {', '.join(skipped)}", red=True)
    if LOGS.exists():
        terminalreporter.write_line(f"logs of the cluster: {LOGS}")


def save_logs(cluster, folder):
    for name, path in cluster.logs().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy(path, folder / name)
        except FileNotFoundError:
            continue  # the kubelet has just removed it
    for what in ("nodes", "pods", "events"):
        said = cluster.kubectl("get", what, "-A", "-o", "wide", check=False)
        (folder / f"{what}.txt").write_text(said.stdout + said.stderr, encoding="utf-8")


@pytest.fixture(scope="session")
def cluster():
    """Shared by all tests; each leaves it as it found it."""
    shutil.rmtree(LOGS, ignore_errors=True)
    with Cluster() as it:
        live.append(it)
        yield it
        live.remove(it)


@pytest.fixture(scope="session")
def shared_sluice(cluster):
    """One installation for all tests but those of test_walk, which come last and begin without any."""
    return Sluice(cluster).install()


@pytest.fixture
def namespace(cluster, request):
    """A Kubernetes namespace for one test, named after it."""
    name = request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")[:50].strip("-")
    cluster.make_namespace(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
