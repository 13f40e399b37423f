"""A real HAProxy under a real Edge, engines that record what reaches them, and a manager in memory."""

from support.edge_fixtures import endpoint, engines, home, world, worlds

__all__ = ["endpoint", "engines", "home", "world", "worlds"]
