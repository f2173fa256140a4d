"""Tables for a terminal."""

from fer_jax.evaluation import summary
from fer_jax.utils.text_table import align, display_width


def test_no_column_runs_into_the_next():
    rows = [
        ('class', 'n'),
        ('a class with a name longer than usual', f'{12_345_678_901:,}'),
        ('\u9ad8\u5174', '7'),
        ('x',),
    ]
    lines = align(rows, left=(0,))
    assert lines == [
        'class                                               n',
        'a class with a name longer than usual  12,345,678,901',
        '\u9ad8\u5174                                                7',
        'x',
    ]
    assert len({display_width(line) for line in lines[:3]}) == 1


def test_the_table_of_a_run_has_room_for_large_numbers():
    """As of MS-Celeb and of class names that are sentences."""
    one = {'n': 123_456_789_012, 'accuracy': 0.5, 'accuracy_ci95': [0.5, 0.5], 'recall': 0.5, 'recall_ci95': None}
    one |= {'balanced_accuracy': 0.5, 'macro_f1': 0.5, 'nll': 123_456_789.0, 'precision': 0.5, 'f1': 0.5}
    splits = {'validation of a long name': one | {'interval': 'wilson', 'confusion': [], 'per_class': {'x' * 30: one}}}
    splits['validation of a long name']['per_group'] = {'y' * 40: one}
    printed = summary.summary({'splits': splits, 'selected_on': 'validation/nll', 'step': 7})
    for name in ('validation of a long name', 'x' * 30, 'y' * 40):
        (line,) = (line for line in printed.splitlines() if line.startswith(f'{name}  '))
        assert '  123,456,789,012  50.00 %' in line
    assert '  123456789.000' in printed
