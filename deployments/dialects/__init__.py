"""Protocols other than the engine's own, translated in memory inside the engine's server."""
