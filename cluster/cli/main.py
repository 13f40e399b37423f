"""The `moorage` command: which commands there are and where they live. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from cluster.errors import MoorageError


class Entry(NamedTuple):
    """A top-level command or group: the module of `cluster.cli` that has it, and its line in the help."""

    module: str
    help: str
    group: bool = False
    hidden: bool = False
    app: str = "app"


COMMANDS = {
    "up": Entry("platform_commands", "Start the platform on this machine; says so when it runs already."),
    "down": Entry("platform_commands", "Stop the platform: drain the endpoints, then end every process."),
    "status": Entry("platform_commands", "Show what runs, the versions, and the endpoints by state."),
    "doctor": Entry("platform_commands", "Check this machine and say how to mend what is wrong."),
    "join": Entry("platform_commands", "Make this machine a worker of another machine's platform."),
    "config": Entry("platform_commands", "Show every setting and where it comes from."),
    "endpoints": Entry("endpoints", "Create, look at, change and delete endpoints.", group=True),
    "apply": Entry("apply", "Create and update the endpoints that a YAML file declares."),
    "plan": Entry("plan", "Show what a model needs, where it fits and what that costs."),
    "keys": Entry("keys", "The API keys of an endpoint.", group=True),
    "platform-keys": Entry("platform_keys", "The keys of people and service accounts.", group=True),
    "tenants": Entry("tenants", "The organisations that share the platform.", group=True),
    "namespaces": Entry("namespaces", "The projects in which endpoints lie.", group=True),
    "users": Entry("users", "The people and service accounts of a tenant.", group=True),
    "whoami": Entry("users", "Show who your key belongs to and what it may do.", app="me"),
    "adapters": Entry("adapters", "The LoRA adapters of an endpoint.", group=True),
    "models": Entry("models", "Register models with versions, push folders, update what runs them.", group=True),
    "integrations": Entry("integrations", "Named credentials for hubs, stores and registries.", group=True),
    "secrets": Entry("secrets", "Named secret values for endpoints.", group=True),
    "audit": Entry("audit", "Show who changed what and what was refused, and check that the log is whole.", group=True),
    "hardware": Entry("hardware", "Show the instance types of the cluster and what is free."),
    "usage": Entry("usage", "Show what was used, what it cost, and how much is left of limits."),
    "grafana": Entry("grafana", "The Grafana dashboard over all endpoints.", group=True),
    "requests": Entry("requests", "Show the requests of an endpoint, or of all, and how each ended."),
    "chat": Entry("chat", "Talk to an endpoint."),
    "hf": Entry("hf", "Run the stock `hf` command against this platform, e.g. `moorage hf endpoints ls`."),
    "demo": Entry("demo", "Start the platform, create an endpoint and ask it a question.", hidden=True),
}


class LazyCommands(TyperGroup):
    """Loads the module of a command when it is called, not for the help or for another command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command in place of the entry that the help shows."""
        name = args[0]
        if name not in COMMANDS:
            return super().resolve_command(ctx, args)
        return name, load(name), args[1:]


def load(name: str) -> Any:
    """The command or group of that name."""
    entry = COMMANDS[name]
    module = importlib.import_module(f"cluster.cli.{entry.module}")
    loaded = typer.main.get_command(getattr(module, entry.app))
    if entry.group or not isinstance(loaded, TyperGroup):
        return loaded
    return loaded.commands[name]


app = typer.Typer(
    cls=LazyCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Many models from one Ray cluster: named endpoints, autoscaled replicas, API keys, the OpenAI protocol.",
)


@app.callback()
def _root() -> None:
    """Without it, Typer would take a single command for the whole."""


def _listed() -> None:
    """Never runs: what the help lists is replaced by the command itself in LazyCommands."""


for _name, _entry in COMMANDS.items():
    app.command(_name, help=_entry.help, hidden=_entry.hidden)(_listed)


def main() -> None:
    """Entry point: errors that a user can do something about are one sentence on standard error."""
    try:
        app()
    except MoorageError as exc:
        print(f"moorage: {exc.message}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `moorage ... | head`
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
