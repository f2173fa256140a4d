"""One page about a run, in one file that opens offline: `python -m fer_jax.report WORKDIR [WORKDIR ...]`.

Every run ends with it. The command writes it again, or with several workdirs a page that compares them.
"""

import argparse
import base64
import html
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax import drift, integrity, metrics, records, report_images, scoring
from fer_jax.errors import UserError
from fer_jax.predict import Predictor
from fer_jax.report_images import Explain, Read

STYLE = Path(__file__).with_name('report.css')
CAUTION = (
    'A face shows what a face does, not what a person feels. The labels are what annotators saw in a picture; they '
    'differ between annotators and cultures, and a classifier inherits that, with the bias of the images it was shown. '
    'Scores hold for images like those of the test split. Law in many places restricts inferring emotions from faces, '
    'at work and in schools above all. Do not use it to judge people.'
)


def write(workdir: Path, read: Read | None = None, explain: Explain | None = None) -> Path:
    """Writes report.html of a finished run from what stands in its workdir; returns its path.

    Args:
      read: the images of a split; without it the page has no images.
      explain: where in images the evidence for classes is, see `saliency.grad_cam`.

    Raises:
      UserError: the run is not finished, or a file of it is damaged.
    """
    results, config = finished(workdir), drift.read(workdir)
    shown = 'test' if 'test' in results['splits'] else results['selected_on'].split('/')[0]
    one = results['splits'][shown]
    sections = [_result(results, config, shown), _picture(workdir / 'curves.png', 'Training', 'Loss and accuracy.')]
    if 'confusion' in one:
        sections += [_confusion(one, shown), _classes(one, shown)]
    elif 'per_attribute' in one:
        sections.append(_picture(workdir / f'attributes_{shown}.png', f'Attributes, {shown}', ''))
    predictions = workdir / 'predictions.npz'
    if 'confusion' in one and predictions.is_file():
        part = scoring.read_predictions(predictions, shown)
        sections.append(_reliability(part, results))
        if read is not None:
            sections += report_images.uncertain(part, results['classes'], shown, read)
            if explain is not None:
                sections.append(report_images.evidence(part, results['classes'], shown, read, explain))
    sections.append(_facts(workdir, config))
    name = f'{config["model"]["name"]}, {data_of(config)}'
    path = workdir / 'report.html'
    integrity.write_whole(path, _page(name, [section for section in sections if section]))
    return path


def compare(workdirs: Sequence[Path], output: Path) -> Path:
    """Writes a page with a row a run; p is McNemar's, against the first, where both scored the same images."""
    rows, first = [], None
    for workdir in workdirs:
        results, config = finished(workdir), drift.read(workdir)
        shown = 'test' if 'test' in results['splits'] else results['selected_on'].split('/')[0]
        one, hits = results['splits'][shown], hits_of(workdir, shown)
        p = ''
        if first is None:
            first = hits
        elif hits is not None and first is not None and sorted(hits) == sorted(first):
            pairs = np.array([(first[name], hits[name]) for name in first])
            p = f'{metrics.mcnemar(pairs[:, 0], pairs[:, 1]):.3g}'
        cells = [
            workdir.name,
            config['model']['name'],
            data_of(config),
            f'{shown}, n = {one["n"]:,}',
            scoring.share(one['accuracy'], one['accuracy_ci95']),
            f'{one["balanced_accuracy"]:.2%}',
            f'{one["macro_f1"]:.3f}',
            f'{one["nll"]:.3f}',
            p,
        ]
        rows.append(cells)
    head = ('run', 'network', 'data', 'scored on', 'accuracy', 'balanced', 'macro F1', 'NLL', 'p against the first')
    body = f'<section><h2>Runs</h2>{_table(head, rows)}</section>'
    integrity.write_whole(output, _page('Comparison', [body]))
    return output


def finished(workdir: Path) -> dict[str, Any]:
    """What results.json holds.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = workdir / 'results.json'
    if not path.is_file():
        raise UserError(f'{workdir} holds no finished run (no {path.name}); the command that began it goes on with it')
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f'{path} is damaged ({error}); run the same command again, which scores anew') from None


def hits_of(workdir: Path, split: str) -> dict[str, bool] | None:
    """{id: whether it was right}; None where attributes are told or nothing was kept."""
    if not (workdir / 'predictions.npz').is_file():
        return None
    part = scoring.read_predictions(workdir / 'predictions.npz', split)
    if part['labels'].ndim > 1:
        return None
    return dict(zip(map(str, part['ids']), part['logits'].argmax(1) == part['labels'], strict=True))


def data_of(config: Mapping[str, Any]) -> str:
    data = config['data']
    return data['name'] or Path(data['dir'] or data['manifest']).name


def _result(results: Mapping[str, Any], config: Mapping[str, Any], shown: str) -> str:
    one = results['splits'][shown]
    low, high = one['accuracy_ci95']
    how = scoring.INTERVALS[one['interval']]
    rows = [
        [
            name,
            f'{split["n"]:,}',
            scoring.share(split['accuracy'], split['accuracy_ci95']),
            f'{split["balanced_accuracy"]:.2%}',
            f'{split["macro_f1"]:.3f}',
            f'{split["nll"]:.3f}',
        ]
        for name, split in results['splits'].items()
        if 'accuracy' in split
    ]
    origin = config['model']['weights']
    return (
        f'<section class="lead"><p class="score">{100 * one["accuracy"]:.1f}<small> %</small></p>'
        f'<p>accuracy on the <b>{_text(shown)}</b> split, {one["n"]:,} images; 95 % interval {100 * low:.1f} to '
        f'{100 * high:.1f} % ({_text(how)}).</p>'
        f'<p>{_text(config["model"]["name"])} from {_text(str(origin))}, {config["model"]["image_size"]} pixels, on '
        f'{_text(data_of(config))}; the checkpoint of step {results["step"]:,} was selected on '
        f'{_text(results["selected_on"])}, and the test split scored once, by it.</p>'
        + _table(('split', 'n', 'accuracy [95 %]', 'balanced', 'macro F1', 'NLL'), rows)
        + '</section>'
    )


def _confusion(one: Mapping[str, Any], shown: str) -> str:
    names, matrix = list(one['per_class']), np.array(one['confusion'])
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    head = ''.join(f'<th scope="col">{_text(name)}</th>' for name in names)
    body = ''
    for row, name in enumerate(names):
        cells = ''.join(
            f'<td style="--share:{shares[row, column]:.3f}"{" class=right" if row == column else ""}>'
            f'{shares[row, column]:.0%}<small>{matrix[row, column]:,}</small></td>'
            for column in range(len(names))
        )
        body += f'<tr><th scope="row">{_text(name)}</th>{cells}</tr>'
    return (
        f'<section><h2>Confusion, {_text(shown)}</h2><p>Rows are labels, columns predictions; the share of the row, '
        f'and the number of images.</p><div class="wide"><table class="confusion"><tr><th></th>{head}</tr>{body}'
        '</table></div></section>'
    )


def _classes(one: Mapping[str, Any], shown: str) -> str:
    rows = ''
    for name, scores in one['per_class'].items():
        low, high = scores['recall_ci95']
        rows += (
            f'<tr><th scope="row">{_text(name)}</th><td class="bar"><i style="width:{scores["recall"]:.1%}"></i>'
            f'<b style="left:{low:.1%};width:{high - low:.1%}"></b></td>'
            f'<td>{scoring.share(scores["recall"], scores["recall_ci95"])}</td>'
            f'<td>{scores["precision"]:.1%}</td><td>{scores["f1"]:.3f}</td><td>{scores["n"]:,}</td></tr>'
        )
    head = ''.join(f'<th scope="col">{name}</th>' for name in ('', 'recall', '', 'precision', 'F1', 'n'))
    return (
        f'<section><h2>Classes, {_text(shown)}</h2><div class="wide"><table class="classes"><tr>{head}</tr>{rows}'
        '</table></div></section>'
    )


def _reliability(part: Mapping[str, np.ndarray], results: Mapping[str, Any]) -> str:
    """A diagram of confidence against accuracy, drawn as SVG."""
    found: dict[str, Any] = metrics.calibration(part['logits'], part['labels'])
    most = max(found['n'])
    marks = ''.join(
        f'<circle cx="{100 * confidence:.1f}" cy="{100 - 100 * accuracy:.1f}" r="{1 + 3 * (n / most) ** 0.5:.1f}"/>'
        for n, confidence, accuracy in zip(found['n'], found['confidence'], found['accuracy'], strict=True)
    )
    line = ' '.join(
        f'{100 * confidence:.1f},{100 - 100 * accuracy:.1f}'
        for confidence, accuracy in zip(found['confidence'], found['accuracy'], strict=True)
    )
    said = f'Expected calibration error {found["ece"]:.1%}'
    if calibrated := results.get('calibrated'):
        said += f', at the temperature {calibrated["temperature"]:.2f} fitted on {calibrated["fitted_on"]} '
        said += ', '.join(f'{one["ece"]:.1%} on {name}' for name, one in calibrated['splits'].items())
    return (
        '<section><h2>Can its confidence be believed?</h2>'
        f'<p>{_text(said)}. On the line, 70 % confident would be right 70 % of the time; a larger dot is more images.'
        '</p>'
        '<svg class="reliability" viewBox="-14 -4 122 120" role="img" aria-label="accuracy against confidence">'
        '<path class="grid" d="M0 0V100H100M0 50H100M50 0V100"/><path class="even" d="M0 100L100 0"/>'
        f'<polyline points="{line}"/>{marks}<text x="50" y="112">confidence</text>'
        '<text x="-7" y="50" transform="rotate(-90 -7 50)">accuracy</text><text x="0" y="106">0</text>'
        '<text x="100" y="106">1</text></svg></section>'
    )


def _facts(workdir: Path, config: Mapping[str, Any]) -> str:
    """Parameters, environment, and how to repeat it."""
    told = '<section><h2>To repeat it</h2><pre>python -m fer_jax.main --config configs/repeat.py:'
    told += f'{_text(str(workdir))} --workdir runs/again</pre>'
    for name, title in (('parameters.txt', 'Parameters'), ('environment.json', 'Environment')):
        if (workdir / name).is_file():
            told += f'<details><summary>{title}</summary><pre>{_text((workdir / name).read_text())}</pre></details>'
    written = json.dumps(config, indent=2)
    times = [record for record in records.read(workdir / 'timing.jsonl') if 'seconds' in record]
    minutes = sum(record['seconds'] for record in times) / 60
    told += f'<details><summary>Config</summary><pre>{_text(written)}</pre></details>'
    return f'{told}<p>It took {minutes:.1f} minutes of training and scoring.</p></section>'


def _picture(path: Path, title: str, note: str) -> str:
    if not path.is_file():
        return ''
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<section><h2>{_text(title)}</h2><p>{note}</p><img class="plot" alt="{_text(title)}" '
        f'src="data:image/png;base64,{data}"></section>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = ''.join(f'<th scope="col">{_text(cell)}</th>' for cell in head)
    body = ''.join(f'<tr>{"".join(f"<td>{_text(cell)}</td>" for cell in row)}</tr>' for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _page(title: str, sections: Sequence[str]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{_text(title)}</title><style>{STYLE.read_text()}</style>'
        f'</head><body><main><h1>{_text(title)}</h1>{"".join(sections)}<section><h2>What this can and cannot do</h2>'
        f'<p>{CAUTION}</p></section></main></body></html>\n'
    )


def _text(words: str) -> str:
    return html.escape(words, quote=True)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog='python -m fer_jax.report', description=__doc__)
    parser.add_argument('workdir', nargs='+', type=Path, help='of a finished run; several are compared')
    parser.add_argument('--output', type=Path, default=Path('comparison.html'), help='of a comparison')
    arguments = parser.parse_args(argv)
    try:
        if len(arguments.workdir) > 1:
            print(compare(arguments.workdir, arguments.output))
        else:
            (workdir,) = arguments.workdir
            finished(workdir)
            print(write(workdir, images_of(workdir), Predictor(workdir).evidence))
    except UserError as error:
        print(f'fer_jax: {error}', file=sys.stderr)
        return 2
    return 0


def images_of(workdir: Path) -> Read:
    """Reads images of a run's splits, as long as its data are where they were."""
    from fer_jax import tasks
    from fer_jax.checkpoints import read_spec
    from fer_jax.network import PRIMARY

    spec = read_spec(workdir)
    data = tasks.load(drift.read(workdir), image_size=spec.image_size, channels=spec.channels)[PRIMARY]
    return lambda split, index: data.splits[split].read(index)


if __name__ == '__main__':
    sys.exit(main())
