"""Scores as text for a terminal."""

from collections.abc import Mapping
from typing import Any

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


def headline(one: dict[str, Any]) -> str:
    """Returns the main score of a split as text: 'accuracy 71.23 %', or 'concordance 0.412' for levels."""
    if 'per_level' in one:
        return f'concordance {one["concordance"]:.3f}'
    return f'accuracy {one["accuracy"]:.2%}'.replace('%', ' %')


def summary(results: dict[str, Any]) -> str:
    """Returns the table that is printed at the end of a run, as text.

    It lists the phases, the splits, and the classes, groups or attributes of the test split, or of the first split
    where there is no test split.

    Args:
      results: results in the form of results.json.
    """
    levels = {name: one for name, one in results['splits'].items() if 'concordance' in one}
    told = {name: one for name, one in results['splits'].items() if name not in levels}
    how = ' or '.join(dict.fromkeys(INTERVALS[one['interval']] for one in told.values()))
    steps = ', '.join(map(str, results['steps'])) if 'steps' in results else results['step']
    lines = [f'selected on {results["selected_on"]}, step {steps}; 95 % intervals of the accuracy: {how}', '']
    role = results['selected_on'].split('/')[0]
    for entry in results.get('phases', []):
        lines.append(
            f'phase {entry["phase"]}, epoch {entry["epoch"]:g}: best {role} accuracy '
            f'{share(entry["accuracy"], entry["accuracy_ci95"])}'
        )
    lines += ['', f'{"split":<16}{"n":>7}  {"accuracy":<24}{"balanced":>9}{"macro F1":>10}{"NLL":>8}']
    for name, one in told.items():
        lines.append(
            f'{name:<16}{one["n"]:>7,}  {share(one["accuracy"], one["accuracy_ci95"]):<24}'
            f'{one["balanced_accuracy"]:>9.2%}{one["macro_f1"]:>10.3f}{one["nll"]:>8.3f}'
        )
        if warning := note(one):
            lines.append(f'  {warning}')
        if 'each' in one:
            lines.append('  each: ' + ', '.join(f'{100 * value:.1f}' for value in one['each']['accuracy']))
    if calibrated := results.get('calibrated'):
        for name, one in calibrated['splits'].items():
            before = results['splits'][name]
            lines.append(
                f'{name} at temperature {calibrated["temperature"]:.2f}, fitted on {calibrated["fitted_on"]}: NLL '
                f'{before["nll"]:.3f} -> {one["nll"]:.3f}, ECE {before["ece"]:.1%} -> {one["ece"]:.1%}'
            )
    for name, one in levels.items():
        lines.append(f'{name:<24}concordance {one["concordance"]:.3f}, RMSE {one["rmse"]:.3f}')
    last = 'test' if 'test' in results['splits'] else next(iter(results['splits']))
    if abstention := results['splits'][last].get('abstention'):
        told_of = ', '.join(f'{one["accuracy"]:.1%} of the {one["coverage"]:.0%}' for one in abstention[1:])
        lines.append(f'{last}, right among the most confident: {told_of}')
    if 'per_group' in results['splits'][last]:
        lines += ['', f'{last + ", by group":<24}{"n":>7}  {"accuracy":<24}{"balanced":>9}{"macro F1":>10}']
        for name, one in results['splits'][last]['per_group'].items():
            lines.append(
                f'{name:<24}{one["n"]:>7,}  {share(one["accuracy"], one["accuracy_ci95"]):<24}'
                f'{one["balanced_accuracy"]:>9.2%}{one["macro_f1"]:>10.3f}'
            )
    if 'confusion' in results['splits'][last]:
        lines += ['', f'{last + ", by class":<24}{"n":>7}  {"recall [95 %]":<24}{"precision":>10}{"F1":>8}']
        for name, one in results['splits'][last]['per_class'].items():
            lines.append(f'{name:<24}{one["n"]:>7,}  {recall(one):<24}{one["precision"]:>10.2%}{one["f1"]:>8.3f}')
    if 'per_attribute' in results['splits'][last]:
        lines += ['', f'{last + ", by attribute":<24}{"present":>9}  {"accuracy [95 %]":<24}{"AP":>7}{"F1":>8}']
        for name, one in results['splits'][last]['per_attribute'].items():
            lines.append(
                f'{name:<24}{one["present"]:>9,}  {share(one["accuracy"], one["accuracy_ci95"]):<24}'
                f'{one["average_precision"]:>7.3f}{one["f1"]:>8.3f}'
            )
    return '\n'.join(lines)
