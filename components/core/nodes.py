"""Run the ranks of a training on several nodes, as a TrainJob that this process only looks after.

The step's process is the driver: it creates the job, waits, shows its log, and publishes what the
ranks wrote, as it does for ranks of this machine. Whatever becomes of the driver, one job at most
trains a piece of work:

- The job's name is decided by the work. Who finds the name taken goes on with that job if it is the
  same to the last setting, and else replaces it.
- A driver that is killed leaves its job running; the next attempt finds it.
- A driver marks its job every minute. A job without a mark for `ORPHAN_AFTER_S` belongs to nobody,
  and the next driver in the namespace deletes it. Cancelling a run deletes its jobs at once.
- A job is deleted when it has ended. Ranks that are deleted save their state first.

Time in a queue is not counted: a job that Kueue suspends, at first or again, is waited for.
"""

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from components.core.errors import InputError, RanksFailed
from components.core.files import write_whole
from components.core.trainer_api import TrainJobs
from components.core.trainjob import (
    DIGEST,
    OURS,
    RUN_LABEL,
    SEEN,
    JobPlace,
    Ranks,
    make_trainjob,
)

log = logging.getLogger(__name__)

POLL_S = 5.0
SEEN_EVERY_S = 60.0
ORPHAN_AFTER_S = 1800.0
CREATED_NAME = "trainjob.json"  # beside the job: which TrainJob its state is of
COMPLETE, FAILED, SUSPENDED = "Complete", "Failed", "Suspended"


def run_on_nodes(ranks: Ranks, place: JobPlace) -> None:
    """Run ranks as a TrainJob until it has ended and is gone; one that runs already is joined.

    Raises:
        InputError: a rank refused its data, model or settings; or nodes do not see a file.
        RanksFailed: the job failed as often as the runtime allows, or somebody deleted it.
        ClusterRefused: the cluster does not take the job, or does not answer any more.
    """
    wanted = make_trainjob(ranks, place)
    jobs = TrainJobs(place.namespace)
    sweep(jobs, keep=wanted["metadata"]["name"])
    made = _create_or_join(jobs, wanted, ranks.job)
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    try:
        _follow(jobs, made, ranks.job)
    except (InputError, RanksFailed):
        _remove(jobs, name, uid)
        raise
    _remove(jobs, name, uid)


def sweep(jobs: TrainJobs, keep: str = "") -> list[str]:
    """Delete our jobs that no driver has looked after for half an hour; gives their names."""
    limit = datetime.now(UTC) - timedelta(seconds=ORPHAN_AFTER_S)
    swept = []
    for job in jobs.labelled(OURS):
        about = job["metadata"]
        if about["name"] != keep and _last_seen(about) < limit:
            log.warning("%s belongs to no run any more: it is deleted", about["name"])
            jobs.delete(about["name"], about["uid"])
            swept.append(about["name"])
    return swept


def cancel_run(run_id: str, namespace: str = "") -> list[str]:
    """Delete the TrainJobs of a pipeline's run, whose ranks save their state; gives their names.

    To be called after the run itself is cancelled, so that no driver creates another.

    Raises:
        ClusterRefused: the cluster does not answer, or does not allow it.
    """
    jobs = TrainJobs(namespace)
    cancelled = []
    for job in jobs.labelled({**OURS, RUN_LABEL: run_id}):
        jobs.delete(job["metadata"]["name"], job["metadata"]["uid"])
        cancelled.append(job["metadata"]["name"])
    return cancelled


def _create_or_join(jobs: TrainJobs, wanted: dict[str, Any], path: Path) -> dict[str, Any]:
    """The one job of this work: created, or found as it is wanted; another one is replaced."""
    from pixclip.training.job import forget_failure

    about = wanted["metadata"]
    while True:
        about["annotations"][SEEN] = _now()
        found = jobs.get(about["name"])
        if found is None:
            forget_failure(path)
            found = jobs.create(wanted)  # None: it has come in between, or the answer was lost
            if found is None:
                continue
            log.info("TrainJob %s/%s is created", jobs.namespace, about["name"])
        elif not _is_wanted(found, wanted, path):
            _remove(jobs, about["name"], found["metadata"]["uid"])
            continue
        else:
            log.info("TrainJob %s/%s is there already", jobs.namespace, about["name"])
            marks = {SEEN: about["annotations"][SEEN]}
            jobs.mark(about["name"], {"labels": about["labels"], "annotations": marks})
        created = {"name": about["name"], "uid": found["metadata"]["uid"]}
        write_whole(path.with_name(CREATED_NAME), json.dumps(created))
        return found


def _is_wanted(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> bool:
    """Whether a job of this name can be gone on with; says why not."""
    about, name = found["metadata"], found["metadata"]["name"]
    if "deletionTimestamp" in about:
        log.info("TrainJob %s is being deleted; another one is created after it", name)
        return False
    if about.get("annotations", {}).get(DIGEST) != wanted["metadata"]["annotations"][DIGEST]:
        log.warning("TrainJob %s has other settings and is replaced; nothing saved is lost", name)
        return False
    ended = _ended(found)
    if ended == FAILED:
        log.info("TrainJob %s failed in an earlier attempt; it is tried again", name)
        return False
    if ended == COMPLETE and _created_uid(path) != about["uid"]:
        log.info("TrainJob %s is complete, but its work is not here any more", name)
        return False
    return True


def _created_uid(path: Path) -> str:
    from pixclip.json_files import JsonError, read_json_object

    try:
        return str(read_json_object(path.with_name(CREATED_NAME)).get("uid", ""))
    except JsonError:
        return ""


def _remove(jobs: TrainJobs, name: str, uid: str) -> None:
    """Delete a job and wait until its pods are gone: they may be saving their state."""
    jobs.delete(name, uid)
    while True:
        found = jobs.get(name)
        if found is None or found["metadata"]["uid"] != uid:
            return
        time.sleep(POLL_S)


def _follow(jobs: TrainJobs, made: dict[str, Any], path: Path) -> None:
    """Wait for the end of a job, telling what becomes of it and what node 0 prints."""
    from pixclip.training.job import read_failure

    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    state, seen_at, lines = "", time.monotonic(), _Lines(jobs, name)
    while True:
        found = jobs.get(name)
        lines.show_new()
        if found is None or found["metadata"]["uid"] != uid or _is_going(found):
            raise RanksFailed(
                f"TrainJob {jobs.namespace}/{name} was deleted while it ran: its run was "
                "cancelled, or somebody else replaced it. What was saved is kept: the same step "
                "goes on from there"
            )
        ended, failure = _ended(found), read_failure(path)
        if ended == COMPLETE:
            return
        if failure and failure.is_refusal:  # the same again, however often Trainer tries
            raise InputError(failure.message)
        if ended == FAILED:
            why = failure.message if failure else _condition(found, FAILED).get("message", "")
            raise RanksFailed(
                f"TrainJob {jobs.namespace}/{name} failed: {why}. What was saved is kept: the same "
                "step goes on from there"
            )
        now = _told_state(found)
        if now != state:
            state = now
            log.info("TrainJob %s: %s", name, state)
        if time.monotonic() - seen_at >= SEEN_EVERY_S:
            jobs.mark(name, {"annotations": {SEEN: _now()}})
            seen_at = time.monotonic()
        time.sleep(POLL_S)


class _Lines:
    """What node 0 prints, each line once, over restarts of its pod."""

    def __init__(self, jobs: TrainJobs, name: str) -> None:
        self._jobs, self._name = jobs, name
        self._since = datetime.now(UTC)
        self._last = ""  # the time that stands before the last line that was shown

    def show_new(self) -> None:
        asked = datetime.now(UTC)
        for line in self._jobs.new_lines(self._name, self._since):
            moment, _, text = line.partition(" ")
            if moment > self._last:
                self._last = moment
                log.info("node 0: %s", text)
        self._since = asked


def _condition(job: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition that holds, empty if it does not."""
    conditions = job.get("status", {}).get("conditions", [])
    holding = (one for one in conditions if one["type"] == kind and one["status"] == "True")
    return next(holding, {})


def _ended(job: dict[str, Any]) -> str:
    return next((kind for kind in (COMPLETE, FAILED) if _condition(job, kind)), "")


def _is_going(job: dict[str, Any]) -> bool:
    return "deletionTimestamp" in job["metadata"]


def _told_state(job: dict[str, Any]) -> str:
    """What a person wants to know of a job that has not ended."""
    if job["spec"].get("suspend") or _condition(job, SUSPENDED):
        return "waits in the queue"
    parts = job.get("status", {}).get("jobsStatus", [])
    ready = sum(part.get("ready", 0) for part in parts)
    return f"runs on {ready} node(s)" if ready else "waits for its nodes"


def _last_seen(about: dict[str, Any]) -> datetime:
    """When a driver marked a job last, or when it was created."""
    text = about.get("annotations", {}).get(SEEN) or about["creationTimestamp"]
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromisoformat(about["creationTimestamp"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
