# SPDX-License-Identifier: Apache-2.0
"""Fixtures. `world` is the usual one: both agents run, both pods are enrolled, shared by all tests that
leave it as they found it. Tests that kill agents build their own in their module.
"""
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from agents import AGENT, CTL  # noqa: E402
from world import World  # noqa: E402

STRICT = os.environ.get("SLUICE_NO_SKIPS") == "1"
live_worlds = []
skipped = []


def pytest_sessionstart(session):
    if os.geteuid() != 0:
        pytest.exit("tests/netns needs root: sudo make check-root", returncode=2)


def pytest_runtest_logreport(report):
    if report.skipped:
        skipped.append(report.nodeid)


def pytest_sessionfinish(session, exitstatus):
    if STRICT and skipped and exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    if STRICT and skipped:
        terminalreporter.write_line(f"skipped tests count as failures: {', '.join(skipped)}", red=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the agents of every live world had to say."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for world in live_worlds:
            for agent in world.agents.values():
                report.sections.append((f"{agent.name}: stderr", agent.errors()))
                report.sections.append((f"{agent.name}: access log", agent.last_records()))


def make_world(**options):
    """A generator for fixtures: a world that failure reports know, whose agents have to end well."""
    with World(**options) as world:
        live_worlds.append(world)
        try:
            yield world
            world.stop_agents()
        finally:
            live_worlds.remove(world)


@pytest.fixture(scope="session")
def built():
    """The programs under test are there."""
    for program in (AGENT, CTL):
        assert program.exists(), f"{program} is not built: run make first"


@pytest.fixture(scope="session")
def world(built):
    for world in make_world():
        yield world.start()


@pytest.fixture(scope="module")
def own_world(built):
    """A world for this module alone, nothing started: agents may be killed, configured, restarted."""
    yield from make_world()


@pytest.fixture
def bare_world():
    """A world without agents, for this test alone."""
    yield from make_world()


@pytest.fixture
def pod_a(world):
    return world.pods["pod-a"]


@pytest.fixture
def pod_b(world):
    return world.pods["pod-b"]


@pytest.fixture
def no_leaks(world):
    """Nothing that happens during the test reaches the internet from anybody but the gateway."""
    with world.capture() as capture:
        yield capture
        assert world.leaks(capture) == []
