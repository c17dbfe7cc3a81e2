import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixclip.evaluation import retrieval as ranks
from pixclip.evaluation.protocol import EvaluationError
from pixclip.evaluation.retrieval import best_candidates, retrieval_ranks

# Multiples of 1/4 have exact products in float32, so ties are ties in any order of summing.
QUARTERS = st.integers(-4, 4).map(lambda value: value / 4)


def plain_ranks(questions, candidates, labels, candidate_labels):
    """The definition, as two loops."""
    found = []
    for question, label in zip(questions, labels, strict=True):
        scores = [float(question @ candidate) for candidate in candidates]
        right = [s for s, other in zip(scores, candidate_labels, strict=True) if other == label]
        wrong = [s for s, other in zip(scores, candidate_labels, strict=True) if other != label]
        found.append(1 + sum(score >= max(right) for score in wrong))
    return found


@st.composite
def problems(draw):
    width, num_labels = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    extra = draw(st.lists(st.integers(0, num_labels - 1), max_size=6))
    candidate_labels = draw(st.permutations([*range(num_labels), *extra]))
    labels = draw(st.lists(st.integers(0, num_labels - 1), max_size=8))
    questions, candidates = (
        draw(hnp.arrays(np.float32, (len(some), width), elements=QUARTERS))
        for some in (labels, candidate_labels)
    )
    return questions, candidates, np.array(labels, int), np.array(candidate_labels, int)


@given(problems(), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None)
def test_ranks_are_those_of_a_double_loop_with_ties_against_the_model(problem, rows, columns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "QUESTIONS_PER_BLOCK", rows)
        patch.setattr(ranks, "CANDIDATES_PER_BLOCK", columns)
        found = retrieval_ranks(*(torch.from_numpy(array) for array in problem))
    assert found.tolist() == plain_ranks(*problem)


def test_a_model_that_embeds_everything_alike_is_last():
    alike = torch.ones(7, 4) / 2
    labels = torch.arange(7)
    assert retrieval_ranks(alike, alike, labels, labels).tolist() == [7] * 7


def test_rounding_does_not_break_a_tie():
    question = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[0.5, 0.0], [0.5 - 1e-7, 0.0], [0.5 - 1e-5, 0.0]])
    assert retrieval_ranks(question, candidates, torch.tensor([0]), torch.arange(3)).item() == 2


def test_equal_texts_are_all_right():
    question = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.1, 0.0]])
    labels = torch.tensor([4, 9, 4])
    assert retrieval_ranks(question, candidates, torch.tensor([4]), labels).item() == 1
    assert retrieval_ranks(question, candidates, torch.tensor([9]), labels).item() == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_embeddings_that_are_no_numbers_are_refused(value, place):
    both = [torch.ones(2, 2), torch.ones(2, 2)]
    both[place][1, 1] = value
    with pytest.raises(EvaluationError, match="NaN or infinity"):
        retrieval_ranks(*both, torch.arange(2), torch.arange(2))


def test_a_question_without_a_right_candidate_is_refused():
    with pytest.raises(EvaluationError, match="no right candidate"):
        retrieval_ranks(torch.ones(1, 2), torch.ones(2, 2), torch.tensor([5]), torch.arange(2))


def test_the_best_candidates_come_best_first():
    candidates = torch.tensor([[0.1], [0.9], [0.5]])
    scores, places = best_candidates(torch.ones(1, 1), candidates, 5)
    assert places.tolist() == [[1, 2, 0]]
    assert scores[0, 0] == pytest.approx(0.9)
