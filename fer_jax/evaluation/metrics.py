"""Numbers about predictions, on the host, in float64."""

import numpy as np


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Computes the confusion matrix.

    Args:
      labels, predictions: int [N].
      classes: number of classes.

    Returns:
      int64 [classes, classes], with labels in rows and predictions in columns.
    """
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def precision_recall_f1(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes the precision, recall and F1 of each class from a confusion matrix.

    Args:
      matrix: int [C, C], see `confusion`.

    Returns:
      Three float64 [C]; 0 where a class has no predictions (precision), no labels (recall) or neither (F1).
    """
    hits = np.diag(matrix).astype(float)
    predicted, present = matrix.sum(0), matrix.sum(1)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, present, out=np.zeros_like(hits), where=present > 0)
    f1 = np.divide(2 * hits, predicted + present, out=np.zeros_like(hits), where=predicted + present > 0)
    return precision, recall, f1


def balanced_accuracy(matrix: np.ndarray) -> float:
    """Computes the mean recall of the classes that are present, as scikit-learn does.

    Args:
      matrix: int [C, C], see `confusion`.
    """
    present = matrix.sum(1) > 0
    return float(precision_recall_f1(matrix)[1][present].mean())


def macro_f1(matrix: np.ndarray) -> float:
    """Computes the mean F1 of the classes that are present or predicted, as scikit-learn does.

    Args:
      matrix: int [C, C], see `confusion`.
    """
    seen = (matrix.sum(0) + matrix.sum(1)) > 0
    return float(precision_recall_f1(matrix)[2][seen].mean())


def average_precision(scores: np.ndarray, present: np.ndarray) -> float:
    """Computes the area under the steps of precision over recall, as scikit-learn does; 0 where nothing is present.

    Args:
      scores: float [N], larger where presence is likelier.
      present: bool [N].
    """
    order = np.argsort(-scores, kind='stable')
    hits, scores = np.cumsum(present[order]), scores[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of equal scores all count at once
    precision, recall = hits[last] / (last + 1), hits[last]
    return float(np.sum(np.diff(recall, prepend=0) * precision) / max(hits[-1], 1))


def concordance(predicted: np.ndarray, true: np.ndarray) -> float:
    """Computes the concordance correlation coefficient (Lin 1989); 0 where neither array varies.

    Args:
      predicted, true: float [N].
    """
    means, variances = (np.mean(predicted), np.mean(true)), np.var(predicted) + np.var(true)
    apart = variances + (means[0] - means[1]) ** 2
    return float(2 * np.mean((predicted - means[0]) * (true - means[1])) / apart) if apart else 0.0


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fits the temperature that minimises the NLL of the softmax of logits divided by it (Guo et al. 2017).

    Args:
      logits: float [N, C].
      labels: int [N].

    Returns:
      The temperature, from 0.05 to 20.
    """
    from scipy.optimize import minimize_scalar

    wide = logits.astype(np.float64)
    solution = minimize_scalar(
        lambda log: negative_log_likelihood(wide / np.exp(log), labels), bounds=np.log((0.05, 20)), method='bounded'
    )
    return float(np.exp(solution.x))


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Computes the share of examples whose label is among the `k` largest logits.

    Args:
      logits: float [N, C]; of equal logits, those of the first classes count as larger.
      labels: int [N].
      k: number of classes that count per example.
    """
    largest = np.argsort(-logits, axis=1, kind='stable')[:, :k]
    return float((largest == labels[:, None]).any(1).mean())


def confidence(logits: np.ndarray) -> np.ndarray:
    """Computes the largest softmax probability of each example.

    Args:
      logits: float [N, C].

    Returns:
      float64 [N].
    """
    wide = logits.astype(np.float64)
    return 1 / np.exp(wide - wide.max(1, keepdims=True)).sum(1)


def calibration(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, list[float] | float]:
    """Computes the calibration error and the reliability diagram of the predicted classes (Guo et al. 2017).

    Args:
      logits: float [N, C].
      labels: int [N].
      bins: number of bins of equal width, from 0 to 1; a probability at an edge belongs to the bin above.

    Returns:
      'ece', the mean distance between confidence and accuracy of the bins, weighted by examples; and for each bin that
      is not empty 'n', 'confidence' and 'accuracy'.
    """
    sure, right = confidence(logits), logits.argmax(1) == labels
    member = np.minimum((sure * bins).astype(int), bins - 1)
    n = np.bincount(member, minlength=bins)
    some = n > 0
    mean, share = (np.bincount(member, values, minlength=bins)[some] / n[some] for values in (sure, right))
    ece = float(np.abs(mean - share) @ n[some] / len(labels))
    return {'ece': ece, 'n': n[some].tolist(), 'confidence': mean.tolist(), 'accuracy': share.tolist()}


def coverage_curve(sure: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the accuracy of the most confident 1, 2, ..., N examples.

    Args:
      sure: float [N], confidence of each example.
      hits: bool [N], whether each prediction is correct.

    Returns:
      (coverage, accuracy), float [N] each; coverage is the share of examples.
    """
    order = np.argsort(-sure, kind='stable')
    count = np.arange(1, len(hits) + 1)
    return count / len(hits), np.cumsum(hits[order]) / count


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Computes the mean of -log softmax(logits)[label].

    Args:
      logits: float [N, C].
      labels: int [N].
    """
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    normaliser = top[:, 0] + np.log(np.exp(logits - top).sum(-1))
    return float((normaliser - logits[np.arange(len(labels)), labels]).mean())
