"""Which Airflow is installed, found without importing it; for tests of what a line lacks."""

from __future__ import annotations

from importlib import metadata

from packaging.version import Version

AIRFLOW = Version(metadata.version("apache-airflow-core")).release
