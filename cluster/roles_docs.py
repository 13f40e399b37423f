"""The table of `cluster.roles` as a page shows it. `python -m cluster.roles_docs` writes it into docs/tenancy.md."""

from __future__ import annotations

from cluster import roles
from cluster.page_tables import PageTable

BEGIN = "<!-- who may use which route: written by `python -m cluster.roles_docs` -->"
END = "<!-- end of the table -->"


def markdown() -> str:
    """One row for each route, by path, with a column for each role."""
    head = ["| Route under `/manage` | " + " | ".join(roles.ROLES) + " |", "|---" * (len(roles.ROLES) + 1) + "|"]
    named = sorted(roles.RULES.items(), key=lambda item: (item[0].partition(" ")[2], item[0]))
    return "\n".join([*head, *(f"| `{route}` | {' | '.join(_cells(rule))} |" for route, rule in named)])


def _cells(rule: roles.Rule) -> list[str]:
    return ["yes" if roles.rank(role) >= roles.rank(rule.role) else _of_owner(rule, role) for role in roles.ROLES]


def _of_owner(rule: roles.Rule, role: str) -> str:
    return "its owner" if rule.owner and role == roles.MEMBER else ""


TABLE = PageTable("tenancy.md", BEGIN, END, markdown)

if __name__ == "__main__":
    TABLE.write()
