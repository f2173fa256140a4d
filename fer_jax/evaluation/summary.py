"""Scores as text for a terminal."""

from collections.abc import Mapping
from typing import Any

from fer_jax.data.imaging.image_files import printable
from fer_jax.utils.text_table import align

INTERVALS = {
    'wilson': 'Wilson',
    'examples': "Student's t over examples",
    'by_subject': 'by subject, beta-binomial',
    'one_subject': 'none, since all images are of one person',
    'subjects': 'resampled by subject',  # of fer_jax 0.1
    'seeds': "Student's t over seeds",
}


FEW_SUBJECTS = 10


def share(value: float, interval: list[float] | None) -> str:
    """Formats a share and its interval in percent: '71.23 % [69.7, 72.7]'.

    Args:
      value: share, 0 to 1.
      interval: lower and upper bound; None leaves it out.
    """
    bounds = '' if interval is None else f' [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]'
    return f'{value:.2%}'.replace('%', ' %') + bounds


def note(scores: Mapping[str, Any]) -> str:
    """Returns a warning about the intervals of a split with images of few people; '' where there are enough.

    Args:
      scores: scores of the split, see `score_logits.score_logits`.
    """
    if scores.get('interval') == 'one_subject':
        return 'all images are of one person. They do not show how people differ, so there is no interval.'
    if (count := scores.get('subjects') or FEW_SUBJECTS) < FEW_SUBJECTS:
        return (
            f'images of {count} people. With fewer than {FEW_SUBJECTS} people, the interval is wide and depends on '
            'assumptions about how people differ.'
        )
    return ''


def recall(scores: dict[str, Any]) -> str:
    """Returns the recall of a class with its interval as text, or that the split has no image of the class.

    Args:
      scores: scores of the class, see `per_class` of `score_logits.score_logits`.
    """
    return share(scores['recall'], scores['recall_ci95']) if scores['n'] else 'no image in this split'


def headline(scores: dict[str, Any]) -> str:
    """Returns the main score of a split as text: 'accuracy 71.23 %', or 'concordance 0.412' for levels."""
    if 'per_level' in scores:
        return f'concordance {scores["concordance"]:.3f}'
    return f'accuracy {scores["accuracy"]:.2%}'.replace('%', ' %')


def summary(results: dict[str, Any]) -> str:
    """Returns the table that is printed at the end of a run, as text.

    It lists the phases, the splits, and the classes, groups or attributes of the test split, or of the first split
    where there is no test split.

    Args:
      results: results in the form of results.json.
    """
    levels = {name: scores for name, scores in results['splits'].items() if 'concordance' in scores}
    classified = {name: scores for name, scores in results['splits'].items() if name not in levels}
    how = ' or '.join(dict.fromkeys(INTERVALS[scores['interval']] for scores in classified.values()))
    steps = ', '.join(map(str, results['steps'])) if 'steps' in results else results['step']
    lines = [f'selected on {results["selected_on"]}, step {steps}; 95 % intervals of the accuracy: {how}', '']
    role = results['selected_on'].split('/')[0]
    for entry in results.get('phases', []):
        lines.append(
            f'phase {entry["phase"]}, epoch {entry["epoch"]:g}: best {role} accuracy '
            f'{share(entry["accuracy"], entry["accuracy_ci95"])}'
        )
    rows: list[tuple[str, ...]] = [('split', 'n', 'accuracy', 'balanced', 'macro F1', 'NLL')]
    rows += [(*_scores_of(name, scores), f'{scores["nll"]:.3f}') for name, scores in classified.items()]
    head, *table = align(rows, left=(0, 2))
    lines += ['', head]
    for line, scores in zip(table, classified.values(), strict=True):
        lines.append(line)
        if warning := note(scores):
            lines.append(f'  {warning}')
        if 'each' in scores:
            lines.append('  each: ' + ', '.join(f'{100 * value:.1f}' for value in scores['each']['accuracy']))
    if calibrated := results.get('calibrated'):
        for name, scores in calibrated['splits'].items():
            before = results['splits'][name]
            lines.append(
                f'{name} at temperature {calibrated["temperature"]:.2f}, fitted on {calibrated["fitted_on"]}: NLL '
                f'{before["nll"]:.3f} -> {scores["nll"]:.3f}, ECE {before["ece"]:.1%} -> {scores["ece"]:.1%}'
            )
    for name, scores in levels.items():
        lines.append(f'{name:<24}concordance {scores["concordance"]:.3f}, RMSE {scores["rmse"]:.3f}')
    last = 'test' if 'test' in results['splits'] else next(iter(results['splits']))
    if abstention := results['splits'][last].get('abstention'):
        told_of = ', '.join(f'{scores["accuracy"]:.1%} of the {scores["coverage"]:.0%}' for scores in abstention[1:])
        lines.append(f'{last}, right among the most confident: {told_of}')
    if 'per_group' in results['splits'][last]:
        groups: list[tuple[str, ...]] = [(f'{last}, by group', 'n', 'accuracy', 'balanced', 'macro F1')]
        groups += [_scores_of(name, scores) for name, scores in results['splits'][last]['per_group'].items()]
        lines += ['', *align(groups, left=(0, 2))]
    if 'confusion' in results['splits'][last]:
        classes = [(f'{last}, by class', 'n', 'recall [95 %]', 'precision', 'F1')]
        classes += [
            (printable(name), f'{scores["n"]:,}', recall(scores), f'{scores["precision"]:.2%}', f'{scores["f1"]:.3f}')
            for name, scores in results['splits'][last]['per_class'].items()
        ]
        lines += ['', *align(classes, left=(0, 2))]
    if 'per_attribute' in results['splits'][last]:
        attributes = [(f'{last}, by attribute', 'present', 'accuracy [95 %]', 'AP', 'F1')]
        for name, scores in results['splits'][last]['per_attribute'].items():
            accuracy = share(scores['accuracy'], scores['accuracy_ci95'])
            means = f'{scores["average_precision"]:.3f}', f'{scores["f1"]:.3f}'
            attributes.append((printable(name), f'{scores["present"]:,}', accuracy, *means))
        lines += ['', *align(attributes, left=(0, 2))]
    return '\n'.join(lines)


def _scores_of(name: str, scores: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of a split or a group: name, n, accuracy, balanced accuracy, macro F1."""
    accuracy = share(scores['accuracy'], scores['accuracy_ci95'])
    means = f'{scores["balanced_accuracy"]:.2%}', f'{scores["macro_f1"]:.3f}'
    return printable(name), f'{scores["n"]:,}', accuracy, *means
