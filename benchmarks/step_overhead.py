"""What a step costs beside its own work: by command line, through kfp.local and in a DAG.

    python benchmarks/step_overhead.py [--num-records 300] [--repeats 3]

The step is `select` on a few records. Its own work is measured in a process that has imported
everything. The others are processor seconds of all processes; cold: each step imports for itself;
warm: it is forked from the process of its run. What a run pays once is left out: the cost of a step
is that of further ones in the same run.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from components.core.run import run_step
from components.core.step import load_step
from components.orchestration.local import StepRun, open_backend
from components.orchestration.warm import VARIABLE, warm_process

DAG = """
from airflow.sdk import chain, dag
from components.orchestration.airflow.params import run_params
from components.orchestration.airflow.operators import StepOperator

def select(number):
    return StepOperator(
        task_id=f"select_{{number}}",
        step="select",
        inputs={{"grit": "grit"}},
        outputs={{"records": f"records-{{number}}", "quarantine": f"{{number}}.parquet"}},
    )

@dag(schedule=None, params=run_params("run", "params.yaml", ["select"]))
def overhead_{num}():
    chain(*(select(number) for number in range({num})))

overhead_{num}()
"""
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-records", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3, help="further steps of a run")
    options = parser.parse_args()
    paths = [str(REPOSITORY), str(REPOSITORY / "model")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["PYTHONUTF8"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["PIXCLIP_HOME"] = folder
        make_grit(home / "run" / "grit", options.num_records)
        measured = Measured(home, options.repeats)
        rows = {
            "own work": measured.further(measured.own_work),
            "command line, cold": measured.further(measured.command_line),
            "kfp.local, cold": measured.further(measured.kfp_local),
            "kfp.local, warm": measured.further(measured.kfp_local_warm),
            "DAG, warm": measured.further(measured.dag),
        }
    for name, seconds in rows.items():
        beyond = seconds - rows["own work"]
        sys.stdout.write(f"{name:20} {seconds:6.2f} s   beyond its work {beyond:6.2f} s\n")


def make_grit(folder: Path, num_records: int) -> None:
    """A source of its own for the measured steps."""
    from select_memory import write_synthetic_grit

    write_synthetic_grit(folder / "coyo_0_snappy.parquet", num_records, group_records=num_records)


class Measured:
    """Ways to run `select` so many times in one run."""

    def __init__(self, home: Path, repeats: int) -> None:
        self._home, self._repeats, self._num_places = home, repeats, 0

    def further(self, run: Callable[[int], None]) -> float:
        """Processor seconds of a further step in a run, by the difference of a long and a short."""
        run(1)  # writes what is written once: byte code, databases
        before = used()
        run(1)
        between = used()
        run(1 + self._repeats)
        return (used() - between - (between - before)) / self._repeats

    def own_work(self, num: int) -> None:
        """The step in this very process."""
        for run in self._runs(num):
            run_step(load_step(run.step), run.inputs, run.outputs, run.settings)

    def command_line(self, num: int) -> None:
        """`pixclip select`."""
        for run in self._runs(num):
            paths = [f"--{name}={path}" for name, path in {**run.inputs, **run.outputs}.items()]
            command = [sys.executable, "-m", "components.cli", "select", *paths]
            subprocess.run(command, check=True, capture_output=True)

    def kfp_local(self, num: int) -> None:
        """The component in a process that imports for itself."""
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            for run in self._runs(num):
                open_backend("local").run(run)

    def kfp_local_warm(self, num: int) -> None:
        """The component in a process that is forked."""
        with warm_process(os.environ) as warm:
            os.environ[VARIABLE] = str(warm)
            self.kfp_local(num)
            del os.environ[VARIABLE]

    def dag(self, num: int) -> None:
        """Tasks of a DAG on this machine."""
        (self._home / "dags").mkdir(exist_ok=True)
        (self._home / "dags" / f"overhead_{num}.py").write_text(
            DAG.format(num=num), encoding="utf-8"
        )
        (self._home / "params.yaml").write_text("{}\n", encoding="utf-8")
        self._num_places += 1
        place = f"run-{self._num_places}"
        (self._home / place).mkdir()
        (self._home / place / "grit").symlink_to(self._home / "run" / "grit")
        conf = json.dumps({"run_folder": place})
        command = [sys.executable, "-m", "components.orchestration.laptop", "run"]
        subprocess.run(
            [*command, "--dag", f"overhead_{num}", "--conf", conf], check=True, capture_output=True
        )

    def _runs(self, num: int) -> list[StepRun]:
        runs = []
        for _ in range(num):
            self._num_places += 1
            place = self._home / f"run-{self._num_places}"
            outputs = {"records": place / "records", "quarantine": place / "quarantine.parquet"}
            runs.append(StepRun("select", {"grit": self._home / "run" / "grit"}, outputs))
        return runs


def used() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
