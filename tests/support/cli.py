"""The `moorage` command in this process, against the management API in this process."""

import json

from typer.testing import CliRunner

from cluster.cli import main


def runner(api, monkeypatch, home):
    """Runs a command; fails unless it ends with `code`. Returns standard output, parsed when --json is among the words."""
    monkeypatch.setenv("MOORAGE_HOME", str(home))
    monkeypatch.setenv("MOORAGE_URL", "http://x")
    monkeypatch.setenv("MOORAGE_TOKEN", api.token)

    def run(*words, code=0, **options):
        done = CliRunner().invoke(main.app, [str(word) for word in words], obj=api, **options)
        assert done.exit_code == code, (done.output, done.exception)
        if code and done.exception and not isinstance(done.exception, SystemExit):
            return str(done.exception)
        return json.loads(done.stdout) if "--json" in words else done.stdout if code == 0 else done.stderr

    run.all = lambda *words: CliRunner().invoke(main.app, [str(word) for word in words], obj=api)
    return run
