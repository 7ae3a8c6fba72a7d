"""
The wheel's bill of materials (PEP 770): the package, and what it declares to need.

Hatchling calls this whenever it builds a wheel. The same project gives the same bytes: the document has no date and no
serial number. Nothing is bundled with the package, so each component is one that the installation has to provide.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.utils import canonicalize_name
from packaging.version import Version

if TYPE_CHECKING:
    from hatchling.metadata.core import CoreMetadata
    from packaging.requirements import Requirement


class BillOfMaterials(BuildHookInterface[Any]):
    """Lays the document into ``.dist-info/sboms``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the document where Hatchling is told to find it."""
        self._folder = tempfile.TemporaryDirectory()
        core = self.metadata.core
        path = Path(self._folder.name) / f"{core.name}.cdx.json"
        document = bill_of_materials(core, self.metadata.version)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        build_data["sbom_files"].append(str(path))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was written."""
        self._folder.cleanup()


def bill_of_materials(core: CoreMetadata, version: str) -> dict[str, Any]:
    """Return the CycloneDX 1.7 document: the first version that can say a range instead of a version."""
    optional = [each for group in core.optional_dependencies_complex.values() for each in group.values()]
    components = [_component(each, "required") for each in core.dependencies_complex.values()]
    components += [_component(each, "optional") for each in optional]
    components.sort(key=lambda each: each["name"])
    package = f"pkg:pypi/{core.name}@{version}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": package,
                "name": core.name,
                "version": version,
                "description": core.description,
                "licenses": [{"expression": core.license_expression}],
                "purl": package,
            }
        },
        "components": components,
        "dependencies": [{"ref": package, "dependsOn": [each["bom-ref"] for each in components]}],
    }


def _component(requirement: Requirement, scope: str) -> dict[str, Any]:
    name = canonicalize_name(requirement.name)
    clauses = sorted(requirement.specifier, key=lambda each: Version(each.version))
    if unsaid := {each.operator for each in clauses} - {"<", "<=", ">", ">=", "!="}:
        raise ValueError(f"{requirement}: a range of CycloneDX has no {unsaid}")
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}",
        "name": name,
        "versionRange": "vers:pypi/" + ("|".join(f"{each.operator}{each.version}" for each in clauses) or "*"),
        "scope": scope,
        "isExternal": True,
        "purl": f"pkg:pypi/{name}",
    }
