"""The wheel that users install: what is in it, what is not, and that it works away from the tree."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pacifica_provider

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "build", "dist", "htmlcov")
INFO = f"airflow_provider_pacifica-{pacifica_provider.__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel from a copy of the tree, with the installed build backend and no network."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(*LEFT_OUT))
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(folder / "tree"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Every module of the package, ``py.typed`` and the metadata; nothing of tests, dev, docs or examples."""
    files = {name for name in wheel.namelist() if not name.startswith(f"{INFO}/")}
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "pacifica_provider").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert package == files
    assert "pacifica_provider/py.typed" in files
    assert "pacifica_provider/sandbox/__main__.py" in files


def test_the_wheel_holds_the_licence(wheel: zipfile.ZipFile) -> None:
    """The whole text, as the licence asks for."""
    assert (ROOT / "LICENSE").read_bytes() == wheel.read(f"{INFO}/licenses/LICENSE")


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    """Name, version, Python, licence, and the classifiers by which Airflow's users find it."""
    metadata = email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))

    assert (metadata["Name"], metadata["Version"]) == ("airflow-provider-pacifica", pacifica_provider.__version__)
    assert (metadata["Requires-Python"], metadata["License-Expression"]) == (">=3.10", "Apache-2.0")
    assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier", [])
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert "apache-airflow<4,>=3.1.3" in metadata.get_all("Requires-Dist", [])


def test_the_wheel_declares_the_provider(wheel: zipfile.ZipFile) -> None:
    """Airflow finds it by this entry point, and by no other."""
    text = wheel.read(f"{INFO}/entry_points.txt").decode()

    assert text.split() == [
        "[apache_airflow_provider]",
        "provider_info",
        "=",
        "pacifica_provider.get_provider_info:get_provider_info",
    ]


def test_the_wheel_works_away_from_the_tree(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked anywhere, the sandbox starts and a client reads from it: no module is missing."""
    wheel.extractall(tmp_path / "site")
    program = (
        "from pacifica_provider.sandbox import Sandbox\n"
        "from pacifica_provider.api.client import Endpoints, PacificaClient\n"
        "from pacifica_provider.api.transports import RequestsTransport\n"
        "import pacifica_provider\n"
        "with Sandbox() as sandbox:\n"
        "    client = PacificaClient(Endpoints(sandbox.base_url, sandbox.account), RequestsTransport(timeout_s=5))\n"
        "    print(pacifica_provider.__file__, len(client.spot_balances()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.split() == [str(tmp_path / "site" / "pacifica_provider" / "__init__.py"), "3"]
