"""The package as it is installed: a wheel in an environment of its own, with app, pictures, texts and weights."""

from __future__ import annotations

import os
import signal
import site
import socket
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]


def test_the_packages_are_those_of_the_folders() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = [".".join(path.parent.relative_to(ROOT).parts) for top in ("bra", "dashboard")
             for path in (ROOT / top).rglob("__init__.py")]
    assert sorted(listed) == sorted(
        ["routescope", *(name if name.startswith("bra") else f"routescope.{name}" for name in found)])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what belongs to it: a build leaves folders behind."""
    import shutil
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("bra", "dashboard", "sample_images", ".streamlit"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(out),
                    str(source)], check=True, timeout=250)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_all_that_the_app_needs_and_nothing_named_dashboard_at_its_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"bra", "routescope"}
    for top, into in (("bra", ""), ("dashboard", "routescope/"), ("sample_images", "routescope/")):
        there = {f"{into}{path.relative_to(ROOT).as_posix()}" for path in (ROOT / top).rglob("*")
                 if path.is_file() and "__pycache__" not in path.parts}
        assert there <= {*names}, sorted(there - {*names})[:5]
    assert "routescope/.streamlit/config.toml" in names


def test_the_installed_commands_run(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "env"
    venv.create(home, system_site_packages=True, with_pip=False)
    bin, pages = home / "bin", next((home / "lib").glob("python3*")) / "site-packages"
    # What the package needs is taken from where these tests run, after the wheel's own; its editable install is not.
    (pages / "needs.pth").write_text("\n".join(site.getsitepackages()))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--prefix", str(home),
                    "--ignore-installed", str(wheel)], check=True, timeout=250)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(str(bin / "python"), "-c", "import bra, bra.cli.app; print(bra.__file__, bra.cli.app.home())").split()
    assert [Path(path).is_relative_to(pages) for path in where] == [True, True]
    picture = pages / "routescope" / "sample_images" / "animal.jpg"
    # By the interpreter of this environment: pip writes that which runs these tests into the first line of a command.
    run(str(bin / "python"), str(bin / "bra"), "inspect", str(picture), "--model", "flowers", "--side", "96")
    assert (tmp_path / "report.html").stat().st_size > 10_000
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([str(bin / "python"), str(bin / "routescope"), "--server.headless", "true",
                           "--server.port", str(port)], cwd=tmp_path, env=environment, start_new_session=True) as app:
        try:
            answered = b""
            for _ in range(200):
                time.sleep(0.5)
                try:
                    answered = urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=4).read()
                    break
                except OSError:
                    assert app.poll() is None
            assert answered == b"ok"
        finally:
            os.killpg(app.pid, signal.SIGTERM)
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from streamlit.testing.v1 import AppTest; "
            "page = AppTest.from_file(sys.argv[1] + '/dashboard/app.py', default_timeout=150).run(); "
            "assert not page.exception, page.exception; import dashboard; print(dashboard.__file__)")
    assert Path(run(str(bin / "python"), "-c", code, str(pages / "routescope")).split()[-1]).is_relative_to(pages)
