"""Tenants, users and their keys in a store, for tests."""

from cluster import keys, records, roles


def operator(store):
    """The text of a new key of the operator `admin`, who is made where there is none."""
    store.add_namespace("admin")
    if store.user("admin") is None:
        store.add_user(records.User("admin", "admin", "admin", role=roles.OPERATOR))
    return key(store, "admin")


def user(store, name, role=roles.ADMIN, tenant="team", namespace=None, **fields):
    """The text of a key of a new user, whose tenant and home are made where there are none."""
    home = namespace or tenant
    if tenant not in {row.name for row in store.tenants()}:
        store.add_tenant(records.Tenant(tenant))
    if store.namespace(home) is None:
        store.create_namespace(records.Namespace(home, tenant))
    store.add_user(records.User(name, tenant, home, role=role, **fields))
    return key(store, name)


def key(store, owner, **fields):
    """The text of a new platform key of a user, with as much as the user may."""
    minted, row = keys.mint(keys.PLATFORM), store.user(owner)
    given = {"role": row.role, **fields}
    store.add_key(records.Key(minted.id, minted.digest, keys.PLATFORM, row.namespace, owner=owner, **given))
    return minted.key
