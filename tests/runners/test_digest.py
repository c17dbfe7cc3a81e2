"""What `make demo` shows of Airflow's log."""

from components.runners.digest import LogDigest

LOG = """\
2026-01-01T00:00:00Z [info     ] Filling up the DagBag from dags [airflow.dag_processing] loc=x.py:1
2026-01-01T00:00:01Z [info     ] [DAG TEST] starting task_id=source map_index=-1 [airflow.sdk] loc=x
23:17:53.073 - INFO - Executing task 'sample-grit'
    [KFP Executor 2026-01-01 00:00:02,000 INFO]: Loading KFP component "sample_grit" from /tmp/x.py
    [KFP Executor 2026-01-01 00:00:02,000 INFO]: Got executor_input:
    {
        "inputs": {}
    }
    compose scenes: 100%|##########| 20/20 [00:01<00:00]
    [KFP Executor 2026-01-01 00:00:03,000 WARNING]: two records share a picture
    grit: Dataset( name='grit',
                   uri='/runs/grit',
                   metadata={} )
    [KFP Executor 2026-01-01 00:00:03,000 INFO]: Looking for component `x` in y
    [KFP Executor 2026-01-01 00:00:03,000 INFO]: Wrote executor output file to /tmp/x.json.
    \


2026-01-01T00:00:05Z [info     ] [DAG TEST] end task task_id=source map_index=-1 [airflow.sdk] loc=x
2026-01-01T00:00:05Z [info     ] [DAG TEST] starting task_id=ingest map_index=1 [airflow.sdk] loc=x
2026-01-01T00:00:05Z [info     ] ingest is up to date: /runs/images/00001 [components] loc=l.py:50
2026-01-01T00:00:05Z [error    ] Task failed
airflow.sdk.exceptions.AirflowFailException: GateError: too few images
2026-01-01T00:00:05Z [info     ] [DAG TEST] end task task_id=ingest map_index=1 [airflow.sdk] loc=x
"""


def test_tasks_their_time_and_the_words_of_the_steps_are_shown_and_nothing_else():
    said: list[str] = []
    clock = iter([0.0, 1.0, 5.5, 6.0, 6.25])
    digest = LogDigest(said.append, now=lambda: next(clock))
    for line in LOG.splitlines():
        digest.add(line)
    assert said == [
        "source",
        "    compose scenes: 100%|##########| 20/20 [00:01<00:00]",
        "    two records share a picture",
        "    4.5 s",
        "ingest[1]",
        "    ingest is up to date",
        "    GateError: too few images",
        "    0.2 s",
    ]


def test_a_progress_bar_is_shown_now_and_then_and_at_its_end():
    said: list[str] = []
    clock = iter([0.0, 20.0, 20.0, 24.0, 31.0, 31.0])
    digest = LogDigest(said.append, now=lambda: next(clock))
    for percent in (1, 2, 5, 100):
        digest.add(f"    train: {percent}%|###  | loss 2.1")
    assert said == [f"    train: {percent}%|###  | loss 2.1" for percent in (1, 5, 100)]


def test_warnings_of_libraries_stay_in_the_log():
    said: list[str] = []
    digest = LogDigest(said.append)
    digest.add("    /x/site-packages/torch/c10d.py:83: FutureWarning: `a` is deprecated")
    digest.add("      return func(*args, **kwargs)")
    digest.add("    the loss is not finite")
    assert said == ["    the loss is not finite"]
