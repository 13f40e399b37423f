"""Somebody of another tenant, with a platform key of its own."""

from support import people


def stranger(api, namespace="team"):
    """The text of a new key of the admin of a tenant that is called like its namespace."""
    return people.user(api.store, f"{namespace}-admin", tenant=namespace)
