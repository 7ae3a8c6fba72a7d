"""The wheel that users install: what is in it, what is not, and that it works away from the tree."""

from __future__ import annotations

import ast
import email
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import pacifica_provider

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "build", "dist", "htmlcov")
NAME = f"airflow_provider_pacifica-{pacifica_provider.__version__}"
INFO = f"{NAME}.dist-info"
PAGES = f"{NAME}.data/data/share/doc/airflow-provider-pacifica"
SBOM = "airflow-provider-pacifica.cdx.json"
# A link or a picture in Markdown, by its target, and the target that a link is given by name.
LINK = re.compile(r"\]\(\s*<?([^)>\s]+)|^ {0,3}\[[^]]+\]:\s*<?([^>\s]+)|(?:href|src)=[\"']?([^\"'\s>]+)", re.MULTILINE)
PICTURE = re.compile(r"!\[[^]]*\]\(([^)\s]+)")
NAMED = re.compile(r"`((?:docs|dags_examples)/[^`]*|[A-Z]+\.md)`")
# Only Airflow 3.1 calls what imports it, and that Airflow has it.
BROUGHT_BY_AIRFLOW_3_1 = {"wtforms"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """
    Return the wheel that ``make dist`` has built and names, to be released.

    Without one, build it from a copy of the tree, with the installed build backend and no network.
    """
    if built := os.environ.get("PACIFICA_WHEEL"):
        return zipfile.ZipFile(built)
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
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Every module, ``py.typed``, the metadata, and the pages with their pictures; nothing of tests or dev."""
    folders = [ROOT / each for each in ("pacifica_provider", "docs", "dags_examples")]
    out = {"__pycache__", "site"}  # docs/site is what only `make docs` needs
    found = [path for each in folders for path in each.rglob("*") if path.is_file() and not out & {*path.parts}]
    tree = {str(path.relative_to(ROOT)) for path in found}
    package = {each for each in tree if each.startswith("pacifica_provider/")}
    pages = {*(tree - package), "README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md"}
    metadata = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", f"sboms/{SBOM}"}

    assert {*package, *(f"{PAGES}/{each}" for each in pages), *(f"{INFO}/{each}" for each in metadata)} == {
        *wheel.namelist()
    }
    assert {"pacifica_provider/py.typed", "pacifica_provider/sandbox/__main__.py"} < package


def test_the_wheel_holds_the_licence(wheel: zipfile.ZipFile) -> None:
    """The whole text, as the licence asks for."""
    assert (ROOT / "LICENSE").read_bytes() == wheel.read(f"{INFO}/licenses/LICENSE")


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    """Name, version, Python, licence, and the classifiers by which Airflow's users find it."""
    metadata = email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))

    assert (metadata["Name"], metadata["Version"]) == ("airflow-provider-pacifica", pacifica_provider.__version__)
    assert (metadata["Requires-Python"], metadata["License-Expression"]) == (">=3.11", "Apache-2.0")
    assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier", [])
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert "apache-airflow<4,>=3.1.3" in metadata.get_all("Requires-Dist", [])


def test_every_link_of_the_index_page_leads_somewhere(wheel: zipfile.ZipFile) -> None:
    """A page of an index is README.md alone: a link there is a whole address, or a place on the page."""
    text = str(email.message_from_bytes(wheel.read(f"{INFO}/METADATA")).get_payload())

    links = links_of(text)
    assert links
    assert [each for each in links if not each.startswith(("https://", "#"))] == []


@pytest.mark.parametrize(
    "text",
    [
        "[a](docs/a.md)",
        "[![a](https://x/y.svg)](a.md)",
        "[a][b]\n\n[b]: <docs/a.md>",
        '<img src="a.png">',
        "[a]( ../b.md 'c')",
    ],
)
def test_the_test_sees_a_relative_link(text: str) -> None:
    """In each way that Markdown writes one."""
    assert [each for each in links_of(text) if not each.startswith(("https://", "#"))] != []


def links_of(text: str) -> list[str]:
    """Return the targets of a page's links and pictures."""
    return ["".join(found) for found in LINK.findall(text)]


def test_every_page_that_the_index_page_names_is_installed(wheel: zipfile.ZipFile) -> None:
    """Below ``share/doc``, under the path that README.md has for it, and every page word for word."""
    named = set(NAMED.findall((ROOT / "README.md").read_text(encoding="utf-8"))) - {"dags_examples/"}
    installed = {name for name in wheel.namelist() if name.startswith(f"{PAGES}/")}

    assert {f"{PAGES}/{each}" for each in named} <= installed
    assert [
        name for name in installed if wheel.read(name) != (ROOT / name.removeprefix(f"{PAGES}/")).read_bytes()
    ] == []


def test_every_picture_of_an_installed_page_is_installed(wheel: zipfile.ZipFile) -> None:
    """Where the page looks for it, and no picture that no page shows."""
    shown = {
        str(Path(name).parent / target)
        for name in wheel.namelist()
        if name.startswith(PAGES) and name.endswith(".md")
        for target in PICTURE.findall(wheel.read(name).decode())
    }

    assert {name for name in wheel.namelist() if name.endswith(".png")} == shown != set()


def test_the_bill_of_materials_says_what_the_metadata_says(wheel: zipfile.ZipFile) -> None:
    """PEP 770: the package and every declared dependency with its range; no date and no number that changes."""
    document = json.loads(wheel.read(f"{INFO}/sboms/{SBOM}"))
    metadata = email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))
    package, components = document["metadata"]["component"], document["components"]
    declared = [Requirement(each) for each in metadata.get_all("Requires-Dist", [])]

    assert (package["name"], package["version"]) == (metadata["Name"], metadata["Version"])
    assert package["licenses"] == [{"expression": metadata["License-Expression"]}]
    assert {
        (each["name"], SpecifierSet(each["versionRange"].removeprefix("vers:pypi/").replace("|", ",")))
        for each in components
    } == {(each.name, each.specifier) for each in declared}
    assert {each["name"] for each in components if each["scope"] == "optional"} == {"pytest", "time-machine"}
    assert not {"timestamp", "serialNumber"} & {*document, *document["metadata"]}


def test_the_wheel_declares_what_it_imports(wheel: zipfile.ZipFile) -> None:
    """Every library that a module imports, for its types alone too, is among the dependencies by its own name."""
    text = email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))
    declared = {canonicalize_name(Requirement(each).name) for each in text.get_all("Requires-Dist", [])}
    known = metadata.packages_distributions()
    imported = {
        name.partition(".")[0]: file.filename
        for file in wheel.infolist()
        if file.filename.endswith(".py") and file.filename.startswith("pacifica_provider/")
        for name in imported_by(wheel.read(file).decode())
    }
    ours = {"pacifica_provider", *sys.stdlib_module_names, *BROUGHT_BY_AIRFLOW_3_1}
    undeclared = {
        name: where
        for name, where in imported.items()
        if name not in ours and not declared & {canonicalize_name(each) for each in known.get(name, [])}
    }

    assert undeclared == {}


def test_the_oldest_airflow_is_tried_with_every_dependency_at_its_floor(wheel: zipfile.ZipFile) -> None:
    """``make matrix`` installs what constraints/airflow-3.1.3.txt pins: for each of ours the version declared."""
    text = email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))
    declared = [Requirement(each) for each in text.get_all("Requires-Dist", [])]
    lines = (ROOT / "constraints" / "airflow-3.1.3.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.partition(" ;")[0].split("==") for line in lines)
    floors = {
        canonicalize_name(each.name): spec.version
        for each in declared
        for spec in each.specifier
        if spec.operator == ">=" and each.marker is None
    }

    assert len(floors) > 10
    assert {name: pinned[name] for name, floor in floors.items() if Version(pinned[name]) != Version(floor)} == {}


def imported_by(text: str) -> set[str]:
    """Return the modules that a module imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(text)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_the_wheel_declares_the_provider(wheel: zipfile.ZipFile) -> None:
    """Airflow finds it by this entry point, and pytest the fixture for users by the other."""
    text = wheel.read(f"{INFO}/entry_points.txt").decode()

    assert text.split() == [
        "[airflow.plugins]",
        "pacifica",
        "=",
        "pacifica_provider.plugin:PacificaPages",
        "[apache_airflow_provider]",
        "provider_info",
        "=",
        "pacifica_provider.get_provider_info:get_provider_info",
        "[pytest11]",
        "pacifica",
        "=",
        "pacifica_provider.sandbox.pytest_plugin",
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
