"""What importing the operator and the sensor costs beside other providers' operators."""

from __future__ import annotations

from tests.bench import peers
from tests.bench.child import Child
from tests.bench.figures import Figure, Goal, Part, median

OURS = {
    "operator": "pacifica_provider.operators.withdraw",
    "sensor": "pacifica_provider.sensors.withdrawal",
}
PEERS = {
    "http": "airflow.providers.http.operators.http",
    "airbyte": "airflow.providers.airbyte.operators.airbyte",
    "dbt.cloud": "airflow.providers.dbt.cloud.operators.dbt",
    "databricks": "airflow.providers.databricks.operators.databricks",
}
ROUNDS = 5
MS_GOAL, SHARE_GOAL = 10.0, 0.1
CHILD = "tests.bench.import_child"


def run() -> Part:
    """Import each in fresh interpreters, in turn; the first round only compiles and fills the disk's cache."""
    modules = [*OURS.values(), *PEERS.values()]
    samples: dict[str, list[dict[str, float]]] = {module: [] for module in modules}
    for module in modules:
        _import(module)
    for _ in range(ROUNDS):
        for module in modules:
            samples[module].append(_import(module))
    ms = {module: median([each["ms"] for each in found]) for module, found in samples.items()}
    part = Part()
    for name, module in OURS.items():
        for peer, other in PEERS.items():
            part.figures.append(Figure(f"import the {name}", "ms", ms[module], f"{peer} operator", ms[other], ROUNDS))
        # Round by round: what else the machine does hits both.
        shares = [mine["ms"] / http["ms"] for mine, http in zip(samples[module], samples[PEERS["http"]], strict=True)]
        part.goals += [
            Goal(f"import the {name}, beyond airflow.sdk", "ms", MS_GOAL, ms[module]),
            Goal(f"import the {name}, by the http provider's operator", "times", SHARE_GOAL, median(shares)),
        ]
    counts = {module: found[0]["modules"] for module, found in samples.items()}
    part.notes.append(
        f"Import: medians of {ROUNDS} fresh interpreters each, compiled, in turn, beyond "
        "`from airflow.sdk import BaseOperator, BaseHook, BaseSensorOperator, BaseOperatorLink`. Modules loaded: "
        + ", ".join(f"{name} {counts[module]:.0f}" for name, module in {**OURS, **PEERS}.items())
        + ". Versions: "
        + peers.versions(*(f"apache-airflow-providers-{name}" for name in peers.PROVIDERS))
        + "."
    )
    return part


def _import(module: str) -> dict[str, float]:
    with Child(CHILD, {"module": module}, python=peers.python()) as child:
        found: dict[str, float] = child.read()
        return found
