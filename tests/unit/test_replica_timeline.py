"""When replicas came and went, pass by pass."""

from cluster import observation, replica_timeline, state
from cluster.replica_timeline import Timeline

PATH = "admin/demo-chat"


def view(*replicas, ready=(), target=1):
    application = observation.Application("a", "running", replicas=replicas, target=target)
    return PATH, state.RevisionView(application, frozenset(ready))


def replica(identity="r1", state="starting", node="n1"):
    return observation.Replica(identity, state, node, waiting=node is None)


def test_a_replica_goes_from_pending_to_running_and_each_time_is_kept():
    timeline = Timeline()
    timeline.see({PATH}, [view(replica(node=None))], 10)
    timeline.see({PATH}, [view(replica(node=None))], 11)
    timeline.see({PATH}, [view(replica())], 12)
    timeline.see({PATH}, [view(replica(state="running"))], 13)  # Serve runs it, its server is not announced
    timeline.see({PATH}, [view(replica(state="running"), ready=["r1"])], 14)
    timeline.see({PATH}, [view(replica(state="running"), ready=["r1"])], 15)
    found = timeline.replicas(PATH)
    assert found.now[0].state == "running" and found.now[0].since == {"pending": 10, "starting": 12, "running": 14}
    assert [(point.at, {name: count for name, count in point.counts.items() if count}) for point in found.points] == [
        (10, {"pending": 1}),
        (12, {"starting": 1}),
        (14, {"running": 1}),
    ]


def test_replicas_of_both_revisions_count_and_a_scaled_to_zero_endpoint_has_none():
    timeline = Timeline()
    timeline.see({PATH}, [view(replica(state="running"), ready=["r1"]), view(replica("r2"), target=2)], 10)
    found = timeline.replicas(PATH)
    assert found.counts == {"pending": 0, "starting": 1, "running": 1, "stopping": 0} and found.target == 3
    timeline.see({PATH}, [view(replica(state="stopping"), ready=["r1"], target=0)], 11)
    timeline.see({PATH}, [], 12)
    found = timeline.replicas(PATH)
    assert found.now == () and [point.counts["stopping"] for point in found.points] == [0, 1, 0]


def test_a_deleted_endpoint_is_forgotten_and_the_points_are_bounded():
    timeline = Timeline()
    for at in range(2 * replica_timeline.POINTS_KEPT):
        timeline.see({PATH}, [view(target=at)], at)
    assert [point.at for point in timeline.replicas(PATH).points] == list(
        range(replica_timeline.POINTS_KEPT, 2 * replica_timeline.POINTS_KEPT)
    )
    timeline.see(set(), [], 1)
    assert timeline.replicas(PATH) == replica_timeline.Replicas()
