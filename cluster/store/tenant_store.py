"""The part of the Store port that is about tenants, their namespaces and users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from cluster import records


class TenantStore(Protocol):
    """As `cluster.store.base.Store`, of which it is a part."""

    def add_tenant(self, tenant: records.Tenant) -> None:
        """What the keys of an earlier tenant of that name used is kept under another from then on (`tenant_words.former`).

        Raises AlreadyExists.
        """

    def tenant(self, name: str) -> records.Tenant:
        """Raises NotFound."""

    def tenants(self) -> list[records.Tenant]:
        """All, by name."""

    def update_tenant(self, name: str, changes: Mapping[str, Any]) -> records.Tenant:
        """Change `description`. Raises NotFound."""

    def delete_tenant(self, name: str) -> None:
        """Raises NotFound, and Conflict (which says what is in it) while it has namespaces or users."""

    def add_namespace(self, name: str, at: float = 0.0) -> None:
        """One that nobody described, of the tenant of its own name, which is made where there is none; `at` is when.

        As `create_namespace`; a no-op when it exists.
        """

    def create_namespace(self, namespace: records.Namespace) -> None:
        """What was used in an earlier namespace of that name is kept under another from then on (`tenant_words.former`), what is told
        of it later too. Raises AlreadyExists, and NotFound without its tenant.
        """

    def namespace(self, name: str) -> records.Namespace | None:
        """Of whatever tenant, or None."""

    def namespaces(self, tenant: str | None = None) -> list[records.Namespace]:
        """All, or those of one tenant, by name."""

    def update_namespace(self, name: str, changes: Mapping[str, Any]) -> records.Namespace:
        """Change `description`. Raises NotFound."""

    def delete_namespace(self, name: str) -> None:
        """Raises NotFound, and Conflict (which says what is in it) while something lies in it or somebody is at home there."""

    def add_user(self, user: records.User) -> None:
        """Raises AlreadyExists, and NotFound without its tenant or home."""

    def user(self, name: str) -> records.User | None:
        """Active or not, or None."""

    def users(self, tenant: str | None = None) -> list[records.User]:
        """All, or those of one tenant, by name."""

    def update_user(self, name: str, changes: Mapping[str, Any]) -> records.User:
        """Change `role`, `namespaces`, `active`, `description`, `updated_at`.

        Raises NotFound, and Conflict where no active operator would be left.
        """

    def delete_user(self, name: str, at: float) -> list[records.Key]:
        """Forget it and revoke its platform keys, which stay listed; `at` is when. Returns those that were not revoked before.

        Its keys, endpoints, models and credentials become those of `tenant_words.deleted`: a new user of that name has none of them.

        Raises NotFound, and Conflict where no active operator would be left.
        """
