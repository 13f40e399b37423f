"""The real management API in this process, on the store's twin, as an httpx transport: no sockets."""

import dataclasses
import time

import httpx
from starlette.testclient import TestClient
from support import people

from cluster import (
    adapters,
    audit,
    control,
    credential_control,
    credential_lookup,
    errors,
    history,
    key_control,
    log_store,
    metrics_view,
    model_control,
    observation,
    platform_keys,
    replica_timeline,
    request_search,
    service_metrics,
    state,
    surveyor,
    tenancy,
    vault,
)
from cluster.api.app import create_app
from cluster.settings import Settings
from cluster.store import MemoryStore

NODE = observation.Node("n1", "127.0.0.1", cpus=8, cpus_free=6, gpus=2, gpus_free=2, accelerator="H200", memory_bytes=64 * 2**30)


class UnderManage:
    """`app` where it is in a platform. As Serve does it, every path passes: a route of Starlette's would stop one with a line break."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        await self._app(scope if scope["type"] == "lifespan" else {**scope, "root_path": "/manage"}, receive, send)


@dataclasses.dataclass
class Management(httpx.BaseTransport):
    """Answers below /manage. `states` scripts endpoints' states by name; others are running as soon as they are wanted."""

    home: object
    states: dict = dataclasses.field(default_factory=dict)
    ready: bool = True
    public_url: str | None = None
    grafana_url: str | None = None
    store: object = dataclasses.field(default_factory=MemoryStore)
    models: dict = dataclasses.field(default_factory=dict)
    """What a look at a repository finds; others cannot be reached."""
    clock: object = time.time
    """Unix seconds, as keys see them."""

    def __post_init__(self):
        self.token = people.operator(self.store)
        settings = Settings(home=self.home, public_url=self.public_url, grafana_url=self.grafana_url)
        self.logs = log_store.LogStore(settings.home / "logs" / "endpoints")
        self.history = history.History(settings, self.store, self.logs, time.time, request_search.NoTokens())
        look = surveyor.Surveyor(self.look)
        lookup = credential_lookup.CredentialLookup(self.store, vault.Vault(b"0" * 32))
        self.model_control = model_control.ModelControl(settings=settings, store=self.store, surveyor=look, credentials=lookup)
        self.control = control.Control(
            settings=settings,
            store=self.store,
            vault=vault.Vault(b"0" * 32),
            statuses=self.status,
            hint=lambda endpoint_id: None,
            cluster=lambda: observation.Cluster(nodes=(NODE,)),
            models=look,
        )
        keyring = key_control.KeyControl(store=self.store, hint=lambda endpoint_id: None, clock=lambda: self.clock())
        self.service = service_metrics.ServiceMetrics()
        self.timeline = replica_timeline.Timeline()
        self.timeline.listen(self.service.keep)
        self.audit = audit.AuditLog(self.store, b"0" * 32, settings.home)
        self.waits = 0
        self.app = create_app(
            settings,
            control=self.control,
            keyring=keyring,
            models=self.model_control,
            kept=credential_control.CredentialControl(store=self.store, vault=vault.Vault(b"0" * 32)),
            people=tenancy.Tenancy(store=self.store, hint=lambda what: None),
            platform_keyring=platform_keys.PlatformKeys(store=self.store, hint=lambda what: None),
            logs=self.logs,
            measured=metrics_view.MetricsView(self.control, self.service, self.timeline.replicas),
            history=self.history,
            audit_log=self.audit,
            ready=lambda: self.ready,
            in_force=self.wait_until_in_force,
        )
        self._http = TestClient(UnderManage(self.app), base_url="http://x", raise_server_exceptions=False)

    def handle_request(self, request):
        path = request.url.raw_path.decode()
        answer = self._http.request(request.method, path, headers=request.headers, content=request.read())
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def look(self, model, secrets, wait_s):
        """As a node would; `looks` counts."""
        self.looks = [*getattr(self, "looks", []), (model["repository"], model.get("revision"), dict(secrets))]
        if model["repository"] not in self.models:
            raise errors.Unavailable(f"{model['repository']} cannot be reached.")
        return self.models[model["repository"]]

    def wait_until_in_force(self):
        self.waits += 1

    def status(self, endpoint):
        """Where its script says it is; the script's last state stays. Its adapters are pending."""
        return dataclasses.replace(self._status(endpoint), adapters=adapters.statuses(endpoint, {}, ()))

    def _status(self, endpoint):
        if endpoint.desired == "paused":
            return state.Status(state.PAUSED)
        if not endpoint.awake:
            return state.Status(state.SCALED_TO_ZERO)
        script = self.states.get(endpoint.name, [state.Status(state.RUNNING, ready=1, target=1, revision=endpoint.target)])
        return script.pop(0) if len(script) > 1 else script[0]
