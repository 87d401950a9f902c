"""What is published: the source archive and the wheel are complete, valid, and the wheel works by itself."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest
import yaml

import anchorsfm

ROOT = Path(__file__).resolve().parents[1]
FILES = ("CHANGELOG.md", "DEVELOPMENT.md", "Dockerfile", "LICENSE", "MANIFEST.in", "README.md", "constraints.txt")
FILES += ("mkdocs.yml", "pyproject.toml", ".dockerignore")
FOLDERS = (".ci", ".github", "benchmarks", "docs", "src", "tests")
NOT_SOURCES = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*_cache")
EXTRAS = {"dev", "fast", "geo", "video", "heic", "learned", "mast3r", "ray", "remote", "viewer"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the checkout, so that building leaves nothing in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=NOT_SOURCES)
    return folder


@pytest.fixture(scope="module")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the source archive of the checkout and the wheel made from that archive."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=checkout)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own; what it depends on is that of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = next(built.glob("*.whl"))
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


def run(*command: object, cwd: Path | None = None, path: Path | None = None) -> str:
    """Standard output of a command that must succeed; `path` comes first on Python's path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    arguments = [str(part) for part in command]
    result = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_both_archives_are_valid(built: Path) -> None:
    version = anchorsfm.__version__
    names = sorted(path.name for path in built.iterdir())
    assert names == [f"anchorsfm-{version}-py3-none-any.whl", f"anchorsfm-{version}.tar.gz"]
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir())


def test_the_source_archive_has_all_of_the_checkout(checkout: Path, built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    files = (path.relative_to(checkout).as_posix() for path in checkout.rglob("*") if path.is_file())
    assert not {name for name in files if ".egg-info/" not in name} - packed


def test_the_wheel_has_the_package_and_nothing_else(checkout: Path, built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    package = checkout / "src"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert names == {name for name in files if ".egg-info/" not in name}
    assert len(licences) == 1


def test_the_metadata_is_complete(built: Path) -> None:
    about = metadata(next(built.glob("*.whl")))
    assert (about["Name"], about["License-Expression"]) == ("anchorsfm", "Apache-2.0")
    assert about["Summary"] and about["Keywords"] and about["Author"]
    assert about["Description-Content-Type"] == "text/markdown"
    assert set(about.get_all("Provides-Extra", [])) == EXTRAS
    assert "Typing :: Typed" in about.get_all("Classifier", [])


def test_the_installed_wheel_works(installed: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.resources import files; import anchorsfm; "
        "print(anchorsfm.__file__); "
        "print(sorted(entry.name for entry in (files('anchorsfm.report') / 'assets').iterdir()))"
    )
    place, assets = run(sys.executable, "-c", code, cwd=tmp_path, path=installed).splitlines()
    assert Path(place).is_relative_to(installed)
    assert assets == str(sorted(path.name for path in (ROOT / "src/anchorsfm/report/assets").iterdir()))
    program = next((installed / ("Scripts" if sys.platform == "win32" else "bin")).glob("anchorsfm*"))
    assert run(program, "--version", cwd=tmp_path, path=installed) == f"anchorsfm {anchorsfm.__version__}\n"
    assert "naver/" in run(program, "weights", cwd=tmp_path, path=installed)


def test_all_modules_load_without_what_windows_lacks(tmp_path: Path) -> None:
    code = (
        "import sys, pkgutil, importlib\n"
        "try: import ray  # which has other ways on Windows\n"
        "except ImportError: pass\n"
        "for name in ('fcntl', 'grp', 'pwd', 'resource', 'termios'): sys.modules[name] = None\n"
        "import anchorsfm\n"
        "for found in pkgutil.walk_packages(anchorsfm.__path__, 'anchorsfm.'): importlib.import_module(found.name)\n"
    )
    run(sys.executable, "-c", code, cwd=tmp_path, path=ROOT / "src")


def test_the_workflows_cover_what_the_metadata_promises(built: Path) -> None:
    workflows = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
    assert set(workflows) == {"release", "tests"}
    matrix = workflows["tests"]["jobs"]["tests"]["strategy"]["matrix"]
    classifiers = metadata(next(built.glob("*.whl"))).get_all("Classifier", [])
    versions = re.findall(r"Python :: (3\.\d+)$", "\n".join(classifiers), re.MULTILINE)
    assert matrix["python"] == versions
    assert {name.partition("-")[0] for name in matrix["os"]} == {"macos", "ubuntu", "windows"}
    assert workflows["release"]["jobs"]["publish"]["permissions"] == {"id-token": "write"}


def test_what_a_container_is_built_from_is_there() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert all((ROOT / line[1:]).exists() for line in lines if line.startswith("!"))
    assert set(re.findall(r"^COPY (?!--from)(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)) <= {
        ".",
        "constraints.txt",
    }
