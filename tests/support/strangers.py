"""Somebody of another tenant, with a platform key of its own."""

from cluster import keys, records


def stranger(api, namespace="team"):
    """The text of a new key that acts in `namespace` alone."""
    made = keys.mint(keys.PLATFORM)
    api.store.add_namespace(namespace)
    api.store.add_key(records.Key(made.id, made.digest, keys.PLATFORM, namespace, owner=f"{namespace}-admin", role="admin"))
    return made.key
