import numpy as np
import pytest

from pixclip.evaluation import compare as bootstrap
from pixclip.evaluation.compare import interval, resampled_means, sums_by_cluster

NAN = float("nan")
RIGHT = np.array([[1.0, NAN], [0.0, 1.0], [1.0, 0.0], [NAN, 1.0], [1.0, NAN]])
CLUSTERS = np.array([0, 0, 2, 1, 2])


def plain_means(right, clusters, num_clusters, num_resamples, seed):
    """The definition, as loops: draw images, gather their answers, take the mean."""
    random = np.random.default_rng(seed)
    found = np.full((num_resamples, right.shape[1]), NAN)
    for resample in range(num_resamples):
        drawn = random.integers(num_clusters, size=num_clusters)
        for metric in range(right.shape[1]):
            values = [
                right[row, metric]
                for cluster in drawn
                for row in np.flatnonzero(clusters == cluster)
                if not np.isnan(right[row, metric])
            ]
            if values:
                found[resample, metric] = sum(values) / len(values)
    return found


def test_sums_skip_what_was_not_asked():
    sums, counts = sums_by_cluster(RIGHT, CLUSTERS, 3)
    assert sums.tolist() == [[1, 1], [0, 1], [2, 0]]
    assert counts.tolist() == [[2, 1], [0, 1], [2, 1]]


@pytest.mark.parametrize("max_weights", [1, 7, 2**20])
def test_resampled_means_are_those_of_plain_loops(monkeypatch, max_weights):
    monkeypatch.setattr(bootstrap, "MAX_WEIGHTS", max_weights)
    found = resampled_means(*sums_by_cluster(RIGHT, CLUSTERS, 3), 50, seed=3)
    np.testing.assert_allclose(found, plain_means(RIGHT, CLUSTERS, 3, 50, seed=3))


def test_the_interval_of_independent_samples_is_the_normal_one():
    right = (np.arange(4000) % 4 == 0).astype(float)[:, None]
    means = resampled_means(*sums_by_cluster(right, np.arange(4000), 4000), 2000, seed=0)
    low, high = interval(means)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 4000)
    assert low[0] == pytest.approx(0.25 - half, abs=0.002)
    assert high[0] == pytest.approx(0.25 + half, abs=0.002)


def test_regions_of_one_image_do_not_count_as_independent():
    right = np.repeat((np.arange(100) % 2).astype(float), 10)[:, None]
    alone = interval(resampled_means(*sums_by_cluster(right, np.arange(1000), 1000), 500, 0))
    scenes = np.repeat(np.arange(100), 10)
    together = interval(resampled_means(*sums_by_cluster(right, scenes, 100), 500, 0))
    assert (together[1] - together[0]) > 2.5 * (alone[1] - alone[0])


def test_a_metric_without_answers_has_no_interval():
    means = resampled_means(*sums_by_cluster(np.full((3, 1), NAN), np.arange(3), 3), 20, 0)
    assert np.isnan(interval(means)).all()
