"""The tasks of a run on a server: which one failed, the end of its log, metrics and outputs.

The server tells a run's tasks as Argo's nodes: beside a task `train` there are its driver, groups
around it, and its pod, called `executor`. Version 2.17 leaves the field `pod_name` empty and names
pods as children of other nodes, so a log is looked for under every name that may be the pod's.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.orchestration.kubeflow.client import Ask, AwayError, Plan, RefusedError
from components.orchestration.kubeflow.runs import Run, state_of

LOG = "/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"  # the API has none for logs since v1
NUM_LINES, MAX_PODS = 30, 12
# Drivers, groups, pods, and the whole Workflow, whose name ends with five letters of Kubernetes'.
NO_TASK = re.compile(
    r"(root|executor|exit-handler-\d+|for-loop-\d+|condition-\d+)$|.*-driver$"
    r"|.*-[bcdfghjklmnpqrstvwxz2456789]{5}$"
)
# What `run_component` writes when a step is done.
METRICS = re.compile(r"pixclip-metrics (\S+) (\{.*\})\s*$", re.MULTILINE)
Task = Mapping[str, Any]


def failed_tasks(run: Run) -> list[str]:
    """The names of the tasks that failed, the first one first."""
    failed = sorted(
        (task for task in _details(run) if state_of(task) == "FAILED"),
        key=lambda task: str(task.get("end_time", "")),
    )
    names = dict.fromkeys(str(task.get("display_name", "")) for task in failed)
    own = [name for name in names if name and not NO_TASK.match(name)]
    return own or [name for name in names if name]


def failure(run: Run, num_lines: int = NUM_LINES) -> Plan[str]:
    """Why a run did not succeed: the task that failed, the server's word, the end of its log."""
    failed = [task for task in _details(run) if state_of(task) == "FAILED"]
    names = failed_tasks(run)
    told = f"run {run['run_id']} ended as {state_of(run)}"
    if names:
        told += f" at task {names[0]}"
    errors = [task["error"].get("message") for task in failed if task.get("error")]
    reasons = [str(reason) for reason in (*errors, (run.get("error") or {}).get("message"))]
    told += "".join(f"; {reason}" for reason in dict.fromkeys(reasons) if reason != "None")
    if not failed:
        return told
    log = yield from first_log(str(run["run_id"]), list(_pods(failed)), num_lines)
    return f"{told}\n{log}" if log else f"{told}; its log is no longer there"


def first_log(run_id: str, pods: list[str], num_lines: int) -> Plan[str]:
    """The end of the first log that there is, empty if there is none."""
    for pod in pods[:MAX_PODS]:
        ask = Ask("GET", LOG.format(run_id=run_id, pod=pod), num_lines=num_lines)
        try:
            text = str((yield ask))
        except (AwayError, RefusedError):
            continue
        # The server answers 200 before it looks for the pod.
        if text.strip() and '{"error_message"' not in text:
            return text
    return ""


def logs(run: Run, task_name: str, num_lines: int) -> Plan[dict[str, str]]:
    """The end of every task's log by the task's name, or of one task."""
    found = {}
    for task in _details(run):
        name = str(task.get("display_name", ""))
        if NO_TASK.match(name) or (task_name and name != task_name):
            continue
        text = yield from first_log(str(run["run_id"]), list(_pods([task])), num_lines)
        if text:
            found[name] = text
    return found


def results(run: Run) -> Plan[dict[str, Any]]:
    """What is kept of a run that succeeded: its tasks' outputs and metrics, by task."""
    outputs = {
        str(task["display_name"]): {
            name: content.get("artifact_ids", []) for name, content in task["outputs"].items()
        }
        for task in _details(run)
        if task.get("outputs")
    }
    texts = yield from logs(run, "", NUM_LINES)
    metrics = {
        name: json.loads(text) for log in texts.values() for name, text in METRICS.findall(log)
    }
    return {"outputs": outputs, "metrics": metrics}


def states(run: Run) -> dict[str, str]:
    """The state of every task by its name, in the order in which they began."""
    tasks = sorted(_details(run), key=lambda task: str(task.get("start_time", "")))
    named = {str(task.get("display_name", "")): state_of(task) for task in tasks}
    return {name: state for name, state in named.items() if name and not NO_TASK.match(name)}


def _details(run: Run) -> list[Task]:
    return list((run.get("run_details") or {}).get("task_details") or [])


def _pods(tasks: list[Task]) -> Iterator[str]:
    seen = set()
    for task in tasks:
        children = [child.get("pod_name") for child in task.get("child_tasks") or []]
        for pod in (task.get("pod_name"), *children):
            if pod and pod not in seen:
                seen.add(pod)
                yield str(pod)
