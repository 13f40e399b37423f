"""Makers of rows and views, and the management API, shared by the control plane's unit tests."""

import dataclasses

import pytest
from support.api import Api

from cluster import messages, observation, records, state
from cluster import spec as specs


@dataclasses.dataclass
class Make:
    """Builds rows with sensible defaults; keyword arguments override columns."""

    def endpoint(self, *, scaling=None, strategy="surge", **columns):
        spec = {"name": "demo-chat", "strategy": strategy, "compute": {"scaling": scaling or {}}}
        return records.Endpoint(**{"id": "e1", "namespace": "admin", "name": "demo-chat", "spec": spec, "target": 1, **columns})

    def revision(self, number=1, **columns):
        return records.Revision("e1", number, {}, **columns)

    def application(self, *replicas, name="admin--demo-chat--r1", status="running", target=None, **columns):
        target = len(replicas) if target is None else target
        return observation.Application(name, status, replicas=tuple(replicas), target=target, **columns)

    def replica(self, identity="x", state="running", node="n1", waiting=False):
        return observation.Replica(identity, state, node, waiting)

    def view(self, application=None, ready=(), needs=None, **phases):
        told = {replica: phase if isinstance(phase, messages.Phase) else messages.Phase(phase, 1.0) for replica, phase in phases.items()}
        return state.RevisionView(application, frozenset(ready), told, needs)

    def deploy(self, endpoint, revision, **changes):
        spec = specs.ReplicaSpec(
            application=specs.application_name(endpoint.namespace, endpoint.name, revision.number),
            namespace=endpoint.namespace,
            endpoint=endpoint.name,
            revision=revision.number,
            engine="echo",
            model={},
        )
        scaling = endpoint.parsed.compute.scaling
        return observation.Deploy(spec, max(1, scaling.min_replica), scaling.max_replica, restarts=endpoint.restarts, **changes)


@pytest.fixture
def make():
    return Make()


@pytest.fixture
def api(tmp_path):
    """The management API, called with the platform key unless told otherwise."""
    return Api(tmp_path)
