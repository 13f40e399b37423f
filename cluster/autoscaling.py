"""The replica count of an application, from what its replicas say they run and hold waiting.

Runs in Ray Serve's controller, every control loop and for every application: pure, without I/O, and it must never raise,
since an exception here would stop Serve's reconciliation of everything. Bounds and delays are Serve's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

METRIC = "engine_ongoing"
"""Key of `record_autoscaling_stats()`: running plus waiting requests of one replica."""


def policy(context: Any) -> tuple[int, dict[str, Any]]:
    """Serve's custom policy: `ray.serve.config.AutoscalingContext` -> (wanted replicas, policy state)."""
    try:
        reports: Mapping[Any, float] = (context.aggregated_metrics or {}).get(METRIC, {})
        wanted = wanted_replicas(
            list(reports.values()), context.config.get_target_ongoing_requests(), context.current_num_replicas, context.target_num_replicas
        )
    except Exception:  # noqa: BLE001 - raising here would halt Serve for every application; keeping the count is safe
        return context.target_num_replicas, {}
    return wanted, {}


def wanted_replicas(loads: list[float], per_replica: float, running: int, target: int) -> int:
    """Enough replicas for `sum(loads)` at `per_replica` each. While some replica has not reported yet, never fewer than `target`."""
    wanted = max(1, math.ceil(sum(loads) / per_replica - 1e-9))
    return max(wanted, target) if len(loads) < running else wanted
