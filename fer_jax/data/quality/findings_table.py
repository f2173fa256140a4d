"""The findings as text for the terminal."""

from typing import Any

from fer_jax.data.imaging.image_files import printable

MOST_CLASSES = 12
IMBALANCED = 10.0  # the largest class over the smallest


def render(findings: dict[str, Any]) -> str:
    """Returns a line a finding: 'ok' or '!!', the count, and what to do. `findings` are those of `Report.to_json`."""
    lines = [_title(findings), '', *_counts(findings), '']
    rows = list(_findings(findings))
    width = max(7, *(len(str(number)) + 2 for _, _, number, _ in rows))
    for good, name, number, detail in rows:
        lines.append(f'{"ok" if good else "!!"}  {name:<24}{number:>{width}}  {detail}'.rstrip())
    return '\n'.join(lines)


def _title(findings: dict[str, Any]) -> str:
    colour = (
        'grey' if findings['grey'] == findings['images'] else 'colour' if not findings['grey'] else 'grey or colour'
    )
    sizes, side = findings['sizes'], findings['sizes']['shorter_side']
    size = f'shorter side {side["least"]} to {side["most"]} px, median {side["median"]}'
    if sizes['distinct'] == 1:
        size = next(iter(sizes['most_common']))
    statistics = findings['statistics']
    mean, std = ([f'{value:.4f}' for value in statistics[key]] for key in ('mean', 'std'))
    return (
        f'{findings["images"]:,} images of {len(findings["classes"]):,} classes, {size}, {colour}\n'
        f'mean {", ".join(mean)}, std {", ".join(std)} ({statistics["split"]})'
    )


def _counts(findings: dict[str, Any]) -> list[str]:
    """A row a class, a column a split; where an official count differs it stands behind."""
    counts, published, classes = findings['counts'], findings['published'], findings['classes']
    columns = [*counts, *(split for split in published if split not in counts)]
    cells = {
        split: [
            _cell(counts.get(split, [0] * len(classes))[label], published.get(split, ()), label, len(classes))
            for label in range(len(classes))
        ]
        for split in columns
    }
    order: list[int | None] = list(range(len(classes)))
    if len(classes) > MOST_CLASSES:
        total = [sum(counts[split][label] for split in counts) for label in range(len(classes))]
        ranked = sorted(range(len(classes)), key=lambda label: (-total[label], label))
        order = [*ranked[: MOST_CLASSES // 2], None, *ranked[-MOST_CLASSES // 2 + 1 :]]
    name = max([5, *(len(printable(classes[label])) for label in order if label is not None)]) + 2
    width = max([12, *(len(cell) + 2 for split in columns for cell in [split, *cells[split]])])
    lines = [f'{"class":<{name}}' + ''.join(f'{split:>{width}}' for split in columns)]
    for label in order:
        if label is None:
            lines.append(f'... {len(classes) - MOST_CLASSES + 1:,} more, by size')
        else:
            lines.append(
                f'{printable(classes[label]):<{name}}' + ''.join(f'{cells[split][label]:>{width}}' for split in columns)
            )
    if findings['unlabelled']:
        lines.append(f'{findings["unlabelled"]:,} without a label')
    totals = [_cell(findings['splits'].get(split, 0), (sum(published.get(split, ())),), 0, 1) for split in columns]
    return [*lines, f'{"all":<{name}}' + ''.join(f'{total:>{width}}' for total in totals)]


def _cell(count: int, official: Any, label: int, classes: int) -> str:
    if len(official) != classes or not sum(official) or official[label] == count:
        return f'{count:,}'
    return f'{count:,} (not {official[label]:,})'


def _findings(findings: dict[str, Any]) -> list[tuple[bool, str, str, str]]:
    rows = [_official(findings), _imbalance(findings)]
    constant = sum(example['constant'] for example in findings['blank'])
    details = {
        'unreadable': '--drop unreadable',
        'blank': f'{constant:,} of them constant; --drop blank',
        'tiny': 'a side under 24 px; --drop tiny',
        'odd_shaped': 'aspect over 2, or not the shape of the others: look at them',
    }
    for kind, detail in details.items():
        finding = findings[kind]
        rows.append(
            (not finding, kind.replace('_', ' '), f'{len(finding):,}', f'{_some(finding)}; {detail}' if finding else '')
        )
    kinds: dict[str, int] = {}
    for example in findings['unusual']:
        for note in example['notes']:
            kinds[note] = kinds.get(note, 0) + 1
    listed = ', '.join(f'{number:,} {note}' for note, number in sorted(kinds.items()))
    rows.append((True, 'unusual files', f'{len(findings["unusual"]):,}', f'{listed}: decoded' if kinds else ''))
    rows += _copies(findings['duplicates'], findings['splits'], True)
    rows += _copies(findings['near_duplicates'], findings['splits'], False)
    subjects = findings['subjects']
    shared = subjects['in_two_splits']
    detail = f'{subjects["known"]:,} are known' if subjects['known'] else 'none is known'
    if shared:
        names = ', '.join(printable(subject['subject']) for subject in shared[:3])
        detail += f'; {names}{" ..." if len(shared) > 3 else ""}: split by subject'
    rows.append((not shared, 'subjects in 2 splits', f'{len(shared):,}', detail))
    return rows


def _official(findings: dict[str, Any]) -> tuple[bool, str, str, str]:
    differences, compared = 0, 0
    for split, official in findings['published'].items():
        counts = findings['counts'].get(split, [0] * len(findings['classes']))
        if len(official) == 1:
            counts = [findings['splits'].get(split, 0)]
        differences += sum(count != other for count, other in zip(counts, official, strict=True))
        compared += len(official)
    if not compared:
        return True, 'counts that differ', '-', 'no official counts are known'
    detail = f'all {compared} are the official ones'
    if differences:
        detail = f'of {compared} differ from the official ones: another release, or an incomplete copy'
    return not differences, 'counts that differ', f'{differences:,}', detail


def _imbalance(findings: dict[str, Any]) -> tuple[bool, str, str, str]:
    split = 'train' if 'train' in findings['counts'] else next(iter(findings['counts']), '')
    counts = findings['counts'].get(split, [])
    if not counts or not max(counts):
        return True, 'largest / smallest', '-', 'no labels'
    largest, smallest = counts.index(max(counts)), counts.index(min(counts))
    detail = ' / '.join(f'{printable(findings["classes"][label])} {counts[label]:,}' for label in (largest, smallest))
    if not counts[smallest]:
        empty = counts.count(0)
        return False, 'largest / smallest', '-', f'{detail} in {split}: {empty:,} classes are empty, remove them'
    ratio = counts[largest] / counts[smallest]
    advice = ': balance the classes' if ratio > IMBALANCED else ''
    return ratio <= IMBALANCED, 'largest / smallest', f'{ratio:.1f}', f'{detail} in {split}{advice}'


def _copies(finding: dict[str, Any], sizes: dict[str, int], exact: bool) -> list[tuple[bool, str, str, str]]:
    """Rows for the groups, those with conflicting labels, those across splits, and the leaks into each split."""
    name, number = 'exact duplicates' if exact else 'near duplicates', finding['groups']
    if not number:
        return [(True, name, '0', '')]
    unit = f'groups, {finding["images"]:,} images'
    rows = [(False, name, f'{number:,}', f'{unit}; --drop duplicates' if exact else f'{unit}: look at them')]
    for key, label, remedy in (
        ('conflicting', '  with two labels', '; --drop conflicts'),
        ('across_splits', '  in two splits', '; --drop leaks'),
    ):
        number = finding[key]
        rows.append((not number, label, f'{number:,}', f'groups{remedy if exact else ""}' if number else ''))
    for split, earlier in finding['leaks'].items():
        parts = [f'{number:,} in {other}' for other, number in earlier.items() if other != 'any']
        detail = (
            f'{"" if exact else "more "}of {sizes[split]:,} have a {"" if exact else "near "}copy: {", ".join(parts)}'
        )
        rows.append((False, f'  leaks into {split}', f'{earlier["any"]:,}', detail))
    return rows


def _some(examples: list[dict[str, Any]]) -> str:
    """The first three ids; of long ones the ends."""
    names = [printable(example['id']) for example in examples[:3]]
    listed = ', '.join(name if len(name) < 28 else f'...{name[-24:]}' for name in names)
    return f'{listed} ...' if len(examples) > 3 else listed
