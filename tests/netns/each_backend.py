# SPDX-License-Identifier: Apache-2.0
"""Fixtures for what has to hold however pods are captured. A test module imports `backend` and `world`:
its tests then run once with each back end, in a world per back end that they share.
"""
import pytest
from conftest import make_world

BACKENDS = ["nftables", "ebpf", "iptables"]


def node_config(backend, **changes):
    """For World.start(node=...): this back end, and a guard around each pod or no enrolment."""
    return {"redirect": {"backend": backend}, "guard": {"mode": "required"}} | changes


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def world(built, backend):
    for world in make_world():
        yield world.start(node=node_config(backend))
