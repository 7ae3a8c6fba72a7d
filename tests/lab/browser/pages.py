"""Airflow's pages, as a person uses them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from playwright.sync_api import expect

from tests.lab.local_sandbox import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Locator, Page

    from tests.lab.local_airflow import LocalAirflow

IMAGES = ROOT / "docs" / "images"
WAIT_S = 120


class Pages:
    """
    One tab.

    :param airflow: whose pages are opened; what a page shows late is asked of its API.
    """

    def __init__(self, page: Page, airflow: LocalAirflow) -> None:
        page.set_default_timeout(WAIT_S * 1000)
        expect.set_options(timeout=WAIT_S * 1000)
        self.page = page
        self.airflow = airflow

    def open(self, path: str) -> Page:
        """Open a page, and wait until it has all it asked for."""
        self.page.goto(self.airflow.base_url + path)
        self.page.wait_for_load_state("networkidle")
        return self.page

    def picture(self, name: str, *, above: Locator | None = None) -> None:
        """Keep what is on the screen for the docs, or only what is above something, such as this machine's paths."""
        self.page.wait_for_timeout(500)  # what slides in has come to rest
        screen = self.page.viewport_size or {"width": 0, "height": 0}
        box = None if above is None else above.bounding_box()
        height = screen["height"] if box is None else box["y"]
        Path(IMAGES).mkdir(exist_ok=True)
        clip: FloatRect = {"x": 0, "y": 0, "width": screen["width"], "height": height}
        self.page.screenshot(path=IMAGES / f"{name}.png", clip=clip)

    def connection_form(self) -> Locator:
        """Open the form for a new connection of our type."""
        self.open("/connections").get_by_role("button", name="Add Connection").click()
        form = self.page.get_by_role("dialog")
        form.get_by_label("Connection Type").fill("Pacifica")
        self.page.keyboard.press("Enter")
        expect(form.get_by_label("Private key")).to_be_visible()
        return form

    def trigger(self, dag_id: str) -> str:
        """Press Trigger twice, leaving everything as it is offered, and return the id of the run."""
        self.airflow.wait_dag(dag_id, WAIT_S)
        before = self._run_ids(dag_id)
        self.open(f"/dags/{dag_id}").get_by_role("button", name="Trigger").first.click()
        self.page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
        self.airflow.wait_until(lambda: self._run_ids(dag_id) - before, WAIT_S, f"a run of {dag_id}")
        (run_id,) = {each for each in self._run_ids(dag_id) - before if each.startswith("manual")}
        return run_id

    def run_ends(self, dag_id: str, run_id: str) -> str:
        """Wait for the end of a run, and return its state."""
        return self.airflow.wait_run(dag_id, run_id, WAIT_S)

    def task(self, dag_id: str, run_id: str, task_id: str = "withdraw") -> Page:
        """Open the page of a task of a run: its log."""
        return self.open(f"/dags/{dag_id}/runs/{quote(run_id)}/tasks/{task_id}")

    def _run_ids(self, dag_id: str) -> set[str]:
        runs = self.airflow.rest("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]
        return {str(each["dag_run_id"]) for each in runs}
