"""Kill every step of both DAGs, run it again, compare: `make test-kills`.

python -m tests.kills.campaign --kills 100 --seed 1 --only publish --only register
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.kills.chain import Task, needed_for
from tests.kills.moments import Kill, kinds_for, live_and_die
from tests.kills.outcome import asked_again, downloaded_again, problems_of
from tests.kills.processes import Command, Warm, marked
from tests.kills.world import TIMEOUT_S, World, make_world

MAX_RERUNS = 3
GONE_S = 30.0  # until all that a killed step started must have ended


@dataclass
class Trial:
    """A run that was killed, perhaps several times, and brought to its end."""

    task: str
    seed: str
    kills: list[Kill] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        """Those that met a running step."""
        return sum(kill.hit for kill in self.kills)


def try_once(world: World, task: Task, seed: str, kinds: Sequence[str] = ()) -> Trial:
    """Kill a task at moments that the seed decides, run it to its end, and compare."""
    draw, trial = random.Random(seed), Trial(task.name, seed)
    folder = world.folder / "trials" / f"{task.name}-{seed}"
    command = world.prepare(task, folder)
    world.llm.forget()
    world.web.asked.clear()
    for kind in kinds or draw.choices(kinds_for(task), k=draw.choice((1, 1, 2))):
        trial.kills.append(live_and_die(world, task, command, kind, draw))
        if trial.kills[-1].is_done:  # one more rollback would be another one
            break
    else:
        _run_to_its_end(world, command, trial)
    _wait_for_all(command, trial)
    if not trial.problems:
        trial.problems += problems_of(world, task, folder)
        trial.problems += [f"asked again: {one}" for one in asked_again(world.llm.asked)]
        downloads = downloaded_again(world.web.asked, len(trial.kills))
        trial.problems += [f"downloaded again: {one}" for one in downloads]
    if not trial.problems:
        shutil.rmtree(folder)
    return trial


def _run_to_its_end(world: World, command: Command, trial: Trial) -> None:
    """Run the same command until it succeeds; what it says if it does not is a problem."""
    for _ in range(MAX_RERUNS):
        at = command.log.stat().st_size if command.log.exists() else 0
        end = world.warm.start(command).wait(TIMEOUT_S)
        words = command.log.read_bytes()[at:].decode(errors="replace").strip()
        if end is not None and end.code == 0:
            break
        trial.notes.append(f"the rerun ended with {end}: {words[-300:]}")
        if end is None or "Traceback" in words:
            trial.problems.append(f"the rerun ended with {end}: {words[-2000:]}")
            return
        time.sleep(1)
    else:
        trial.problems.append(f"does not end: {trial.notes[-1]}")


def _wait_for_all(command: Command, trial: Trial) -> None:
    """All that a step has started must end with it."""
    deadline = time.monotonic() + GONE_S
    while (left := marked(str(command.folder))) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        trial.problems.append(f"{len(left)} process(es) outlive the step")


def run_campaign(world: World, names: Sequence[str], num_kills: int, seed: int) -> list[Trial]:
    """Kill the tasks in turn until there were so many kills."""
    trials: list[Trial] = []
    for number in range(10 * num_kills):
        if sum(trial.num_kills for trial in trials) >= num_kills:
            break
        task = world.tasks[names[number % len(names)]]
        trials.append(try_once(world, task, f"{seed}-{number}"))
        _say(trials[-1])
    return trials


def _say(trial: Trial) -> None:
    kills = ", ".join(f"{kill.kind} {kill.detail}" for kill in trial.kills)
    result = "; ".join(trial.problems) or "same"
    sys.stdout.write(f"{trial.task} [{trial.seed}] {kills}: {result}\n")
    for note in trial.notes:
        sys.stdout.write(f"    {note}\n")
    sys.stdout.flush()


def table(trials: Sequence[Trial]) -> str:
    """Step × kind of kill: how many, and how many of them left something else behind."""
    kinds = sorted({kill.kind for trial in trials for kill in trial.kills})
    kills: dict[str, Counter[str]] = defaultdict(Counter)
    bad: Counter[str] = Counter()
    for trial in trials:
        kills[trial.task].update(kill.kind for kill in trial.kills if kill.hit)
        bad[trial.task] += bool(trial.problems)
    rows = [["step", *kinds, "kills", "not the same"]]
    for name, counts in kills.items():
        numbers = [*(counts[kind] for kind in kinds), counts.total(), bad[name]]
        rows.append([name, *map(str, numbers)])
    total = sum(counts.total() for counts in kills.values())
    rows.append(["all", *(str(sum(c[k] for c in kills.values())) for k in kinds), str(total),
                 str(bad.total())])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main() -> int:
    """Run a campaign and print its table; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=110, help="how many kills in all")
    parser.add_argument("--seed", type=int, default=1, help="decides every moment")
    parser.add_argument("--only", action="append", default=[], help="task to kill; again for more")
    parser.add_argument("--keep", type=Path, help="folder for the runs that differ")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pixclip-kills-")) / "Ünïcode place"
    with Warm() as warm, make_world(folder, warm) as world:
        chosen = arguments.only or list(world.tasks)
        needed = needed_for(chosen, world.tasks)
        for task in (task for name, task in world.tasks.items() if name in needed):
            world.run_clean(task)
            sys.stdout.write(f"{task.name}: {world.clean[task.name]}\n")
            sys.stdout.flush()
        trials = run_campaign(world, chosen, arguments.kills, arguments.seed)
    sys.stdout.write(f"\n{table(trials)}\n")
    is_same = not any(trial.problems for trial in trials)
    if arguments.keep and not is_same:
        shutil.copytree(folder, arguments.keep, symlinks=True)
    shutil.rmtree(folder.parent)
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
