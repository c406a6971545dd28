# SPDX-License-Identifier: Apache-2.0
"""Fixtures: pods to attack from. Each has a name and a namespace of its own, so that whatever is logged
and counted for it was its doing.
"""
import itertools

import pytest

numbers = itertools.count()


def add_pod(world):
    """Not enrolled."""
    n = next(numbers)
    return world.add_pod(f"attackers-{n}/m{n}")


def remove_pod(world, pod):
    pod.remove()
    del world.pods[pod.pod]


@pytest.fixture
def newcomer(world):
    """A pod that has not been enrolled."""
    pod = add_pod(world)
    yield pod
    remove_pod(world, pod)


@pytest.fixture
def attacker(world, newcomer):
    """A pod that has."""
    world.enroll(newcomer)
    return newcomer
