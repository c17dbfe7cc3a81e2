"""What a run shows of what its steps print."""

from components.orchestration.telling import StepWords, tell_counts

OUTPUT = """\
compose scenes: 100%|##########| 20/20 [00:01<00:00]
WARNING components.data.sample_grit.step: two records share a picture
/x/site-packages/torch/c10d.py:83: FutureWarning: `a` is deprecated
  return func(*args, **kwargs)

pipeline SUCCEEDED
"""


def test_the_words_of_a_step_are_shown_and_no_warnings_of_libraries():
    said: list[str] = []
    words = StepWords(said.append)
    for line in OUTPUT.splitlines():
        words.add(line)
    assert said == [
        "    compose scenes: 100%|##########| 20/20 [00:01<00:00]",
        "    two records share a picture",
        "    pipeline SUCCEEDED",
    ]


def test_a_progress_bar_is_shown_now_and_then_and_at_its_end():
    said: list[str] = []
    clock = iter([20.0, 20.0, 24.0, 31.0, 31.0])
    words = StepWords(said.append, now=lambda: next(clock))
    for percent in (1, 2, 5, 100):
        words.add(f"train: {percent}%|###  | loss 2.1")
    assert said == [f"    train: {percent}%|###  | loss 2.1" for percent in (1, 5, 100)]


def test_the_first_counts_of_a_step_are_shown_without_single_reasons(tmp_path, monkeypatch):
    with (tmp_path / "pipe").open("w") as file:
        monkeypatch.setattr("components.orchestration.telling._pipes", [file.fileno()])
        tell_counts({"regions_in": 12345678, "quarantined.too_small": 3, "link_rot": 0.0123456})
    assert (tmp_path / "pipe").read_text() == "    regions_in 12345678, link_rot 0.01235\n"
