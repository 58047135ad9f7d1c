"""What is handed out: the wheel with all it needs, the container's recipe, the changelog."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from meshnode import __version__

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release is: the sdist from the tree, the wheel from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


def test_wheel_has_all_packages_their_types_and_their_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("meshnode", "planner", "proto"):
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert modules <= names
        assert f"{package}/py.typed" in names
    profiles = {f"meshnode/configs/models/{path.name}" for path in (ROOT / "configs" / "models").glob("*.toml")}
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "meshnode" / "page").rglob("*") if path.is_file()}
    assert len(profiles) > 5
    assert profiles | {name for name in page if "__pycache__" not in name} <= names
    assert {name.partition("/")[0] for name in names} == {
        "meshnode", "planner", "proto", f"meshnode-{__version__}.dist-info",
    }  # fmt: skip
    assert f"meshnode-{__version__}.dist-info/licenses/LICENSE" in names


@pytest.mark.long
def test_wheel_in_a_clean_environment_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    done = subprocess.run(
        [str(python.with_name("meshnode")), "demo"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "short by 147.5GB" in done.stdout


def test_containers_recipe_passes_its_linter() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None, "pip install -e '.[dev]' brings it"
    done = subprocess.run([hadolint, str(ROOT / "configs" / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_container_copies_what_the_wheel_is_built_from() -> None:
    recipe = (ROOT / "configs" / "Dockerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel_of = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for part in (*wheel_of["packages"], *wheel_of["force-include"]):
        assert f"COPY {part} {part}" in recipe


def test_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert next(line for line in text.splitlines() if line.startswith("## ")) == f"## {__version__}"
