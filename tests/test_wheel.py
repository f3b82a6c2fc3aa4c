import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from protembed import __version__
from protembed.config.common import DEFAULT_MODEL
from protembed.model.catalog import locate_model

TOP = Path(__file__).parent.parent
# Whatever asks for another machine fails, whether the test's own machine has a network or not.
NO_NETWORK = """
import socket

def refuse(*arguments, **options):
    raise OSError("this test has no network")

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from this tree without a network: what builds it is in the development environment."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, source)
    shutil.copytree(TOP / "protembed", source / "protembed", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder]
    subprocess.run([*command, source], check=True, capture_output=True)
    (path,) = folder.glob("protembed-*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_has_the_bundled_model_and_nothing_that_is_no_part_of_the_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()

    for file in locate_model().directory.iterdir():
        assert f"protembed/bundled/{DEFAULT_MODEL}/{file.name}" in names
    assert {"protembed/__init__.pyi", "protembed/py.typed"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"protembed"}


@pytest.mark.promise(19)
@pytest.mark.slow
def test_an_installed_wheel_embeds_without_a_network(wheel, tmp_path):
    site, guard = tmp_path / "site", tmp_path / "guard"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (guard, site)))}
    python = [sys.executable, "-c"]

    def run(command):
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    where = run([*python, "import protembed; print(protembed.__file__)"]).stdout.strip()
    assert Path(where).is_relative_to(site)
    assert (
        "this test has no network" in run([*python, "import urllib.request as u; u.urlopen('http://localhost')"]).stderr
    )

    result = run([sys.executable, "-m", "protembed", "embed", TOP / "examples" / "proteins.fasta"])

    assert result.returncode == 0, result.stderr
    assert np.load(tmp_path / "proteins.npy").shape[0] == 300


def test_the_citation_names_the_version():
    assert f"\nversion: {__version__}\n" in (TOP / "CITATION.cff").read_text()
