"""The losses of PixCLIP as plain double loops over NumPy numbers: slow, and easy to believe."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def cosine(a: Floats, b: Floats) -> float:
    return float(sum(a * b) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b)))


def contrastive(visual, text, scale, ids=None, is_valid=None, smoothing=0.0) -> float:
    """Eq. 2 and 3, with the options of `contrastive_loss`."""
    count = len(visual)
    is_valid = [True] * count if is_valid is None else list(map(bool, is_valid))
    total = 0.0
    for i in range(count):
        if not is_valid[i]:
            continue
        for anchor, answers in ((visual[i], text), (text[i], visual)):
            logits, own = [], scale * cosine(anchor, answers[i])
            for j in range(count):
                is_same_text = ids is not None and bool(
                    np.any(np.asarray(ids[i]) == np.asarray(ids[j]))
                )
                if j == i or (is_valid[j] and not is_same_text):
                    logits.append(scale * cosine(anchor, answers[j]))
            log_sum = math.log(sum(math.exp(logit) for logit in logits))
            mean = sum(logits) / len(logits)
            total += log_sum - (1 - smoothing) * own - smoothing * mean
    return total / (2 * max(1, sum(is_valid)))


def positives(visual, target, is_valid) -> float:
    distances = [1 - cosine(visual[i], target[i]) for i in range(len(visual)) if is_valid[i]]
    return sum(distances) / max(1, len(distances))


def pool(patches, image_index, coverage, threshold) -> Floats:
    """The inside of proj() in eq. 5."""
    rows = []
    for i, shares in enumerate(coverage):
        inside = [p for p, share in enumerate(shares) if share > threshold]
        inside = inside or [int(np.argmax(shares))]
        rows.append(sum(patches[image_index[i]][p] for p in inside) / len(inside))
    return np.stack(rows)


def hard_negatives(crops, texts, negatives, of_part, scale) -> float:
    """Each part's own caption among its wrong ones; the mean over parts that have any."""
    losses = []
    for part, crop in enumerate(crops):
        wrong = [
            scale * cosine(crop, n) for n, of in zip(negatives, of_part, strict=True) if of == part
        ]
        if wrong:
            own = scale * cosine(crop, texts[part])
            losses.append(math.log(sum(math.exp(logit) for logit in [own, *wrong])) - own)
    return sum(losses) / max(1, len(losses))
