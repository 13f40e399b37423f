"""The edge: HAProxy programmed from the snapshot, the slow path, access-log intake, console."""
