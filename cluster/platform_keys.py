"""The commands on platform keys, by which people and service accounts act: made, shown once, tightened, rotated, revoked.

A member manages its own keys, an admin those of its tenant, an operator all. Nobody gets more by a key than its user may, nor
than the maker may: for members that holds of limits and expiry too, or a limit could be got rid of by making another key.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import Field

from cluster import errors, expiry, granting, keys, records, roles, rotation
from cluster.actor import Actor
from cluster.limits import Limits
from cluster.store.base import Store

LIMITS = tuple(Limits.model_fields)
FOREIGN = "There is no such key, or it is not yours to see."


class NewPlatformKey(Limits, expiry.Expiring):
    """What a user says of a new platform key. Limits of 0 are none; without an expiry it is good until it is revoked."""

    description: str = Field("", max_length=500)
    user: str | None = Field(None, max_length=100)
    """Whom it acts for; left out: who makes it."""
    role: str | None = None
    """The most that it may do: viewer, member, admin or operator; left out: as much as its user and its maker may."""


class EditedPlatformKey(Limits, expiry.Expiring):
    """What may be changed of a platform key; what is left out stays. `expiresAt` null = never."""

    description: str = Field("", max_length=500)


class PlatformKeys:
    """One per manager."""

    def __init__(self, *, store: Store, hint: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._hint = hint
        self._clock = clock

    # Reading

    def list(self, actor: Actor, user: str | None = None) -> list[records.Key]:
        """Those that the actor manages, revoked ones too, oldest first; of one user where that is given."""
        if not actor.may(roles.ADMIN):
            mine = user in (None, actor.name)
            return self._store.keys(owner=actor.name, kind=keys.PLATFORM) if mine else []
        found = self._store.keys(owner=user, kind=keys.PLATFORM)
        if actor.operator:
            return found
        people = {one.name for one in self._store.users(actor.tenant)}
        return [row for row in found if row.owner in people]

    def get(self, actor: Actor, name: str) -> records.Key:
        """By id or by the key's own text. Raises NotFound for a key that the actor does not manage."""
        row = self._find(keys.key_id(name) or name)
        if row is None or row.kind != keys.PLATFORM or (keys.key_id(name) and keys.digest(name) != row.digest):
            raise errors.NotFound(FOREIGN)
        if row.owner == actor.name or actor.operator:
            return row
        user = self._store.user(row.owner)
        if user is None or user.tenant != actor.tenant or not actor.may(roles.ADMIN):
            raise errors.NotFound(FOREIGN)
        return row

    # Changing

    def add(self, actor: Actor, new: NewPlatformKey) -> tuple[records.Key, str]:
        """A new key with the only copy of its text. Raises InvalidRequest, Forbidden, NotFound."""
        user = self._user(actor, new.user or actor.name)
        expires = new.end(self._clock())
        if not actor.may(roles.ADMIN):
            acting = self._store.key(actor.key_id)
            if _limits(acting) != Limits():
                raise errors.Forbidden("This key has limits, so it makes no other keys: ask an admin of your tenant.")
            expires = _no_later(expires, acting.expires_at, given=new.says_when)
        return self._mint(user, _role(actor, user, new.role), new.description, new, expires)

    def edit(self, actor: Actor, key: records.Key, edited: EditedPlatformKey) -> records.Key:
        """Change what is given. Raises Forbidden where a member would loosen a limit, Conflict for a key that is no more."""
        _refuse_greater(actor, key, self._user(actor, key.owner))
        if key.status == "revoked":
            raise errors.Conflict("This key is revoked: it cannot be changed any more.")
        given = edited.model_fields_set
        changes = {name: getattr(edited, name) for name in given & {"description", *LIMITS}}
        if edited.says_when:
            if key.replaced_by:
                raise errors.Conflict(f"This key was replaced by {key.replaced_by} and ends as it is: change that one.")
            changes |= {"expires_at": edited.end(self._clock()), "status": "active"}
        if not actor.may(roles.ADMIN):
            _refuse_looser(key, changes)
        return self._write(key, changes)

    def rotate(self, actor: Actor, key: records.Key, wanted: rotation.Rotation) -> tuple[records.Key, str]:
        """A key in place of `key`, for the same user with the same role and limits, and the same end unless another is said.

        Raises Conflict for a key that is revoked, expired or replaced already, Forbidden where a member would loosen something by it.
        """
        now = self._clock()
        _refuse_greater(actor, key, self._user(actor, key.owner))
        self._refuse_rotation(actor, key, wanted, now)
        row, text = rotation.replace(self._store, key, wanted, now, owner=key.owner, expires=key.expires_at)
        self._hint(granting.of_user(key.owner))
        return row, text

    def revoke(self, actor: Actor, key: records.Key) -> records.Key:
        """For good. The edge refuses it within a second and cuts its streams. Raises Conflict on the key one acts by."""
        if key.id == actor.key_id:
            raise errors.Conflict("This is the key that the request was made with: use another one to revoke it.")
        user = self._store.user(key.owner)
        if user is not None:
            _may_touch(actor, user)
            _refuse_greater(actor, key, user)
        return key if key.status == "revoked" else self._write(key, {"status": "revoked"})

    # Parts

    def _find(self, identity: str) -> records.Key | None:
        if not (identity.isascii() and identity.isalnum()):
            return None
        try:
            return self._store.key(identity)
        except errors.NotFound:
            return None

    def _user(self, actor: Actor, name: str) -> records.User:
        """Whom a key is for. Raises NotFound for one whose keys the actor does not manage, Forbidden for one who may more."""
        user = self._store.user(name)
        manages = name == actor.name or actor.operator or (actor.may(roles.ADMIN) and user is not None and user.tenant == actor.tenant)
        if user is None or not manages:
            raise errors.NotFound(f"There is no user {name[:60]!r} whose keys you manage.")
        _may_touch(actor, user)
        return user

    def _refuse_rotation(self, actor: Actor, key: records.Key, wanted: rotation.Rotation, now: float) -> None:
        for row in self._store.keys(owner=key.owner, kind=keys.PLATFORM):
            if row.replaced_by == key.id and row.status == "active" and (row.expires_at or 0.0) > now:
                raise errors.Conflict(f"{row.id}, which this key replaced, is still valid: revoke it first, or wait until it has expired.")
        if actor.may(roles.ADMIN):
            return
        if key.budget or key.tokens_per_day:
            raise errors.Forbidden("What its replacement uses is counted anew: ask an admin of your tenant to rotate a key with a budget.")
        if wanted.says_when:
            _refuse_looser(key, {"expires_at": wanted.end(now)})

    def _mint(self, user: records.User, role: str, description: str, limits: Limits, expires: float | None) -> tuple[records.Key, str]:
        minted, now = keys.mint(keys.PLATFORM), self._clock()
        row = records.Key(
            id=minted.id,
            digest=minted.digest,
            kind=keys.PLATFORM,
            namespace=user.namespace,
            description=description,
            owner=user.name,
            created_at=now,
            updated_at=now,
            role=role,
            expires_at=expires,
            **{name: getattr(limits, name) for name in LIMITS},
        )
        self._store.add_key(row)
        self._hint(granting.of_user(user.name))
        return row, minted.key

    def _write(self, key: records.Key, changes: dict[str, object]) -> records.Key:
        row = self._store.update_key(key.id, {**changes, "updated_at": self._clock()})
        self._hint(granting.of_user(key.owner))
        return row


def _may_touch(actor: Actor, user: records.User) -> None:
    if user.name != actor.name and not actor.may(user.role):
        raise errors.Forbidden(f"{user.name} has the role {user.role}, which is more than yours: an operator can do this.")


def _refuse_greater(actor: Actor, key: records.Key, user: records.User) -> None:
    """One's own keys may do more than the one that is used: a key that leaked must not reach them."""
    if not actor.may(roles.lesser(key.role, user.role)):
        raise errors.Forbidden(f"That key has the role {key.role}, which is more than the one that you use: use that one.")


def _limits(key: records.Key) -> Limits:
    return Limits.model_validate({name: getattr(key, name) for name in LIMITS}, by_name=True)


def _role(actor: Actor, user: records.User, wanted: str | None) -> str:
    """What the new key may do at most. Raises InvalidRequest, and Forbidden where that is more than its user or its maker may."""
    most = roles.lesser(user.role, actor.role)
    if wanted is None:
        return most
    if wanted not in roles.ROLES:
        raise errors.InvalidRequest(f"role is one of {', '.join(roles.ROLES)}.", param="role")
    if roles.rank(wanted) > roles.rank(most):
        who = "its user" if most == user.role else "the key that you use"
        raise errors.Forbidden(f"The role {wanted} is more than {who} has: give {most} or less.", param="role")
    return wanted


def _no_later(expires: float | None, acting: float | None, *, given: bool) -> float | None:
    """A member's key makes none that outlives it."""
    if acting is None or (expires is not None and expires <= acting):
        return expires
    if given:
        raise errors.Forbidden("The key that you use expires before that: give an earlier expiresAt, or ask an admin of your tenant.")
    return acting


def _refuse_looser(key: records.Key, changes: dict[str, object]) -> None:
    """Raises Forbidden where a change takes a limit of the key back or makes it wider."""
    for name in changes.keys() & {*LIMITS, "expires_at"}:
        before, after = getattr(key, name), changes[name]
        if name == "budget_period":
            looser = bool(key.budget) and before != after
        else:
            looser = bool(before) and (not after or float(str(after)) > before)
        if looser:
            wire = EditedPlatformKey.model_fields[name].alias or name
            raise errors.Forbidden(f"{wire} can only be made tighter by you: ask an admin of your tenant.", param=wire)
