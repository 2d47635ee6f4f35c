"""`make ui`: the local server and `dagster dev` side by side, until Ctrl-C.

What was materialized stays for the next time: documents in `.demo`, Dagster's own records in
`.dagster_home`, both in this checkout and both ignored by git.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

from demo.processes import (
    ROOT,
    START_SECONDS,
    CannotStart,
    local_server,
    process,
    require_free,
    stop_on_signals,
)


def main() -> int:
    stop_on_signals()
    try:
        serve(
            ui_port=port("UI_PORT", 3000),
            server_port=port("SERVER_PORT", 8787),
        )
    except KeyboardInterrupt:
        say("Stopped. What was materialized is kept; `make ui` goes on from there.")
    except CannotStart as error:
        sys.stderr.write(f"make ui: {error}\n")
        return 1
    return 0


def port(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise CannotStart(f"{variable}={text} is not a port: use 1 to 65535")
    return int(text)


def serve(*, ui_port: int, server_port: int) -> None:
    require_free(ui_port, "UI_PORT")
    require_free(server_port, "SERVER_PORT")
    os.environ["DAGSTER_HOME"] = str(dagster_home())
    settle_interrupted_runs()
    documents = ROOT / ".demo" / "documents"
    documents.mkdir(parents=True, exist_ok=True)
    with local_server(port=server_port, data=documents) as address:
        # Dagster's advice to whoever types the command; nobody does here.
        os.environ["PYTHONWARNINGS"] = "ignore:Function `dev_command` is superseded"
        command = [str(Path(sys.executable).with_name("dagster")), "dev"]
        command += ["--workspace", str(Path(__file__).with_name("workspace.yaml"))]
        command += ["--host", "127.0.0.1", "--port", str(ui_port), "--log-level", "warning"]
        with process(command) as dagster:
            page = f"http://127.0.0.1:{ui_port}"
            wait_until_it_answers(ui_port, dagster)
            say(f"Dagster is at {page}  (local server at {address}; Ctrl-C stops both)")
            dagster.wait()
            raise CannotStart("dagster dev ended by itself: see above")


def dagster_home() -> Path:
    home = ROOT / ".dagster_home"
    home.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("dagster.yaml"), home)
    return home


def settle_interrupted_runs() -> None:
    """Ends runs that the last Ctrl-C cut off: unended, they would keep others waiting for ever."""
    statuses = [
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=statuses)):
            instance.report_run_canceled(run, message="make ui was stopped during this run.")


def wait_until_it_answers(port: int, dagster: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers(port):
        if dagster.poll() is not None:
            raise CannotStart("dagster dev ended before it answered: see above")
        if time.monotonic() > deadline:
            raise CannotStart(f"dagster dev did not answer within {START_SECONDS:.0f} seconds")
        time.sleep(0.2)  # between two questions


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
