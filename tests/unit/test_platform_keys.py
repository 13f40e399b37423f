"""Platform keys: whose they are, how much they may, how they end and how they are replaced."""

import dataclasses

import pytest

from cluster import errors, granting, keys, platform_keys, records, rotation
from cluster.actor import Actor
from cluster.store import MemoryStore

NOW = 1000.0
LATER, MUCH_LATER = "1970-01-01T01:00:00Z", "1970-01-02T00:00:00Z"


class World:
    """The tenant `acme` with an admin, two members and a viewer; an operator and an admin elsewhere."""

    def __init__(self):
        self.now = NOW
        self.store = MemoryStore()
        self.hints = []
        for name in ("admin", "acme", "rival"):
            self.store.add_namespace(name)
        people = [("root", "admin", "operator"), ("ada", "acme", "admin"), ("ann", "acme", "member"), ("bob", "acme", "member")]
        for name, tenant, role in (*people, ("vic", "acme", "viewer"), ("eve", "rival", "admin")):
            self.store.add_user(records.User(name, tenant, tenant, role=role))
        self.keyring = platform_keys.PlatformKeys(store=self.store, hint=self.hints.append, clock=lambda: self.now)

    def actor(self, name, key=None, role=None):
        """Acts by `key`, or by a new one without limits."""
        user = self.store.user(name)
        if key is None:
            minted = keys.mint(keys.PLATFORM)
            key = records.Key(minted.id, minted.digest, keys.PLATFORM, user.namespace, owner=name, role=role or user.role)
            self.store.add_key(key)
        role = role or user.role
        return Actor(name, user.namespace, frozenset({user.namespace}), key.id, role == "operator", user.tenant, role)

    def add(self, who, **fields):
        actor = who if isinstance(who, Actor) else self.actor(who)
        return self.keyring.add(actor, platform_keys.NewPlatformKey.model_validate(fields))

    def edit(self, who, key, **fields):
        return self.keyring.edit(self.actor(who), key, platform_keys.EditedPlatformKey.model_validate(fields))

    def rotate(self, who, key, seconds=60, **fields):
        wanted = rotation.Rotation.model_validate({"overlapSeconds": seconds, **fields})
        return self.keyring.rotate(self.actor(who), key, wanted)


@pytest.fixture
def world():
    return World()


def test_a_key_is_its_makers_with_as_much_as_he_may_unless_it_is_told_otherwise(world):
    row, text = world.add("ann", description="laptop", tokensPerDay=5, budget=2.5, budgetPeriod="week")
    assert (row.owner, row.role, row.namespace, row.expires_at) == ("ann", "member", "acme", None)
    assert (row.description, row.tokens_per_day, row.budget, row.budget_period) == ("laptop", 5, 2.5, "week")
    assert keys.digest(text) == row.digest == world.store.key(row.id).digest
    assert world.hints == [granting.of_user("ann")]
    assert world.add("ada", role="viewer", expiresAt=LATER)[0].expires_at == 3600.0


@pytest.mark.parametrize(
    ("maker", "role", "user", "made"),
    [
        ("ann", "viewer", None, "viewer"),
        ("ann", "admin", None, None),
        ("ada", "admin", "ann", None),
        ("ada", None, "ann", "member"),
        ("root", "operator", "ada", None),
        ("root", "admin", "ada", "admin"),
        ("root", None, None, "operator"),
    ],
)
def test_a_key_may_no_more_than_its_user_and_its_maker(world, maker, role, user, made):
    if made is None:
        with pytest.raises(errors.Forbidden, match="more than"):
            world.add(maker, role=role, user=user)
    else:
        assert world.add(maker, role=role, user=user)[0].role == made


def test_a_key_of_a_lesser_role_makes_none_that_may_more(world):
    assert world.add(world.actor("ada", role="viewer"))[0].role == "viewer"
    with pytest.raises(errors.Forbidden):
        world.add(world.actor("ada", role="viewer"), role="member")
    with pytest.raises(errors.NotFound):
        world.add(world.actor("ada", role="member"), user="bob")


@pytest.mark.parametrize(
    ("who", "seen"),
    [("ann", {"ann"}), ("vic", set()), ("ada", {"ann", "bob", "ada"}), ("eve", set()), ("root", {"ann", "bob", "ada", "root"})],
)
def test_members_see_their_own_admins_their_tenants_and_operators_all(world, who, seen):
    made = {name: world.add(name)[0] for name in ("ann", "bob", "ada", "root")}
    actor = world.actor(who)
    listed = {row.id for row in world.keyring.list(actor)} - {actor.key_id}
    assert {name for name, row in made.items() if row.id in listed} == seen
    for name, row in made.items():
        if name in seen:
            assert world.keyring.get(actor, row.id) == row
        else:
            with pytest.raises(errors.NotFound):
                world.keyring.get(actor, row.id)


def test_a_key_is_found_by_its_text_and_not_by_a_forged_one(world):
    row, text = world.add("ann")
    assert world.keyring.get(world.actor("ann"), text) == row
    body = f"moor_p_{row.id}_{'A' * 32}"
    for name in (body + keys._checksum(body), "../..", "a\0b", ""):
        with pytest.raises(errors.NotFound):
            world.keyring.get(world.actor("ann"), name)


def test_an_endpoints_key_is_not_found_among_platform_keys(world):
    world.store.add_key(records.Key("e1", "d", keys.ENDPOINT, "acme", owner="ann"))
    with pytest.raises(errors.NotFound):
        world.keyring.get(world.actor("ann"), "e1")
    assert "e1" not in {row.id for row in world.keyring.list(world.actor("root"))}


def test_a_change_changes_what_is_given_and_nothing_else(world):
    row, _ = world.add("ada", description="old", requestsPerMinute=5, expiresAt=LATER)
    changed = world.edit("ada", row, budget=1.5, description="new")
    assert changed == dataclasses.replace(row, budget=1.5, description="new")
    assert world.edit("ada", changed, expiresAt=None).expires_at is None
    assert world.hints[-1] == granting.of_user("ada")


@pytest.mark.parametrize(
    "fields",
    [
        {"requestsPerMinute": 0},
        {"requestsPerMinute": 6},
        {"budget": 0},
        {"budgetPeriod": "day"},
        {"expiresAt": None},
        {"expiresAt": MUCH_LATER},
    ],
)
def test_a_member_cannot_loosen_its_own_keys_limits_but_an_admin_can(world, fields):
    row, _ = world.add("ada", user="ann", requestsPerMinute=5, budget=3, expiresAt=LATER)
    with pytest.raises(errors.Forbidden, match="tighter"):
        world.edit("ann", row, **fields)
    assert world.edit("ada", row, **fields)


def test_a_member_may_tighten_and_describe_its_own_keys(world):
    row, _ = world.add("ada", user="ann", requestsPerMinute=5)
    changed = world.edit("ann", row, requestsPerMinute=4, concurrency=2, description="mine", expiresAt=LATER)
    assert (changed.requests_per_minute, changed.concurrency, changed.expires_at) == (4, 2, 3600.0)


def test_a_members_key_with_limits_or_an_end_makes_none_that_is_freer(world):
    limited, _ = world.add("ada", user="ann", tokensPerDay=5)
    with pytest.raises(errors.Forbidden, match="limits"):
        world.add(world.actor("ann", limited))
    ending, _ = world.add("ada", user="ann", expiresAt=LATER)
    assert world.add(world.actor("ann", ending))[0].expires_at == 3600.0
    assert world.add(world.actor("ann", ending), expiresAt="1970-01-01T00:30:00Z")[0].expires_at == 1800.0
    with pytest.raises(errors.Forbidden, match="expires before"):
        world.add(world.actor("ann", ending), expiresAt=MUCH_LATER)


def test_a_rotated_key_lives_on_for_the_overlap_beside_one_that_may_the_same(world):
    row, _ = world.add("ann", description="build", requestsPerMinute=5)
    made, text = world.rotate("ann", row)
    old = world.store.key(row.id)
    assert (old.status, old.expires_at, old.replaced_by) == ("active", NOW + 60, made.id)
    same = ("owner", "role", "namespace", "description", "requests_per_minute", "expires_at")
    assert all(getattr(made, name) == getattr(row, name) for name in same)
    assert keys.digest(text) == made.digest
    with pytest.raises(errors.Conflict, match="replaced"):
        world.rotate("ann", old)
    with pytest.raises(errors.Conflict, match="still valid"):
        world.rotate("ann", made)
    with pytest.raises(errors.Conflict, match="replaced"):
        world.edit("ada", old, expiresAt=None)
    world.now += 61
    assert world.rotate("ann", made)[0].id != made.id


def test_a_rotation_keeps_an_end_that_comes_before_the_overlaps(world):
    row, _ = world.add("ada", expiresAt="1970-01-01T00:17:00Z")
    made, _ = world.rotate("ada", row, 3600)
    assert world.store.key(row.id).expires_at == made.expires_at == 1020.0


def test_what_is_no_longer_valid_is_not_rotated(world):
    row, _ = world.add("ada", expiresAt=LATER)
    world.now = 3600.0
    with pytest.raises(errors.Conflict, match="is expired"):
        world.rotate("ada", row)
    gone = world.keyring.revoke(world.actor("ada"), world.add("ada")[0])
    with pytest.raises(errors.Conflict, match="is revoked"):
        world.rotate("ada", gone)
    with pytest.raises(errors.Conflict, match="revoked"):
        world.edit("ada", gone, description="x")


def test_a_rotation_may_say_another_end_and_a_members_none_that_is_later(world):
    row, _ = world.add("ada", user="ann", expiresAt=LATER)
    for fields in ({"expiresAt": MUCH_LATER}, {"expiresAt": None}, {"expiresInSeconds": 10_000}):
        with pytest.raises(errors.Forbidden, match="expiresAt"):
            world.rotate("ann", row, **fields)
    assert world.store.key(row.id) == row
    made, _ = world.rotate("ann", row, expiresInSeconds=100)
    assert made.expires_at == NOW + 100
    assert world.rotate("ada", world.add("ann")[0], expiresAt=MUCH_LATER)[0].expires_at == 86_400.0


def test_without_an_overlap_the_old_key_has_ended_at_once(world):
    row, _ = world.add("ann")
    world.rotate("ann", row, 0)
    assert (world.store.key(row.id).status, world.store.key(row.id).expires_at) == ("expired", NOW)


def test_a_budget_is_not_begun_anew_by_a_member(world):
    row, _ = world.add("ada", user="ann", budget=1)
    with pytest.raises(errors.Forbidden, match="budget"):
        world.rotate("ann", row)
    assert world.rotate("ada", row)[0].budget == 1


def test_a_key_is_revoked_for_good_but_not_by_itself(world):
    row, _ = world.add("ann")
    with pytest.raises(errors.Conflict, match="use another one"):
        world.keyring.revoke(world.actor("ann", row), row)
    for _ in range(2):
        assert world.keyring.revoke(world.actor("ada"), world.store.key(row.id)).status == "revoked"


def test_a_lesser_key_of_the_same_user_does_not_touch_the_greater_one(world):
    row, _ = world.add("ada")
    with pytest.raises(errors.Forbidden, match="more than"):
        world.keyring.revoke(world.actor("ada", role="viewer"), row)
    with pytest.raises(errors.Forbidden, match="more than"):
        world.keyring.rotate(world.actor("ada", role="member"), row, rotation.Rotation())


def test_a_key_whose_user_is_gone_can_be_revoked_by_an_operator(world):
    row, _ = world.add("ann")
    world.store.delete_user("ann", NOW)
    with pytest.raises(errors.NotFound):
        world.keyring.get(world.actor("ada"), row.id)
    root = world.actor("root")
    assert world.keyring.revoke(root, world.keyring.get(root, row.id)).status == "revoked"
