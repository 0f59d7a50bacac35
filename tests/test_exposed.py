"""Who can reach the Ray of a local search: nobody but its own user, wherever it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ENVIRONMENT

pytestmark = pytest.mark.slow

SESSION = """
import json, os, subprocess, sys, time
from pathlib import Path
import psutil, ray
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.session import ray_session
from dfsc_tune.spaces.space import load_space

request = SearchRequest(("tray",), Path("data"), None, load_space("smoke"), Path("results"), "x")
before = dict(os.environ)
with ray_session(request):
    @ray.remote
    class Trial:
        def work(self):
            return os.environ["RAY_AUTH_TOKEN"]
    token = ray.get(Trial.remote().work.remote())
    time.sleep(5)
    me = psutil.Process()
    sockets, servers = [], []
    for process in [me, *me.children(recursive=True)]:
        for kind, found in (("inet", servers), ("unix", sockets)):
            for each in process.net_connections(kind):
                if each.laddr and (kind == "unix" or not each.raddr):
                    found.append((process.name(), each.laddr))
    gcs = ray.get_runtime_context().gcs_address
    paths = [path for _, path in sockets if path.startswith("/")]
    pids = [x.pid for x in [me, *me.children(recursive=True)]]
    attack = subprocess.run(
        [sys.executable, "-c", sys.argv[1], json.dumps([gcs, paths, pids, token])],
        stdout=subprocess.PIPE, text=True, env=before,
    )
    found = {"servers": servers, "paths": paths}
print(json.dumps({**found, "attack": attack.stdout, "status": attack.returncode}))
for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
    assert os.environ.get(name) == before.get(name), name
"""

# What reads files and talks to Ray is imported before the user changes, for it may lie in a home.
ATTACK = """
import contextlib, json, os, socket, sys
from pathlib import Path
from ray._raylet import GcsClient

gcs, paths, pids, token = json.loads(sys.argv[1])
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64}
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for pid in pids:
    with contextlib.suppress(OSError):
        if token in Path(f"/proc/{pid}/environ").read_text():
            print("read the token of", pid)
    if token in Path(f"/proc/{pid}/cmdline").read_text():
        print("saw the token of", pid)
for path in paths:
    with contextlib.suppress(OSError):
        socket.socket(socket.AF_UNIX).connect(path)
        print("connected to", path)
try:
    GcsClient(address=gcs).internal_kv_put(b"key", b"value", True, b"fun", timeout=5)
    print("wrote into the control server")
except Exception as error:
    print("refused:", type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is seen of a local session where there is no home and temporary files lie deep."""
    work = tmp_path_factory.mktemp("work")
    deep = work / ("x" * 100)
    deep.mkdir()
    # In it, tokens are off: for the clusters that its user joins.
    environment = {
        **ENVIRONMENT,
        "HOME": "/dev/null",
        "TMPDIR": str(deep),
        "RAY_AUTH_MODE": "disabled",
    }
    for name in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "XDG_CACHE_HOME", "RAY_ADDRESS"):
        environment.pop(name, None)
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", SESSION, ATTACK],
        cwd=work, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_every_port_is_on_the_loopback(found: Any) -> None:
    assert {name for name, _ in found["servers"]} >= {"gcs_server", "raylet", "ray::DashboardAgent"}
    others = [
        x for x in found["servers"] if x[1][0] not in ("127.0.0.1", "::ffff:127.0.0.1", "::1")
    ]
    assert not others


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_comes_in_nowhere(found: Any) -> None:
    assert found["paths"], "Ray has sockets in files"
    assert found["status"] == 0
    lines = found["attack"].splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("refused:"), lines
    assert "token" in lines[0].lower() or "Unauthenticated" in lines[0], lines
