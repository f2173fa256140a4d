"""One page about a run, in one file that opens offline."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.dataset import Dataset
from fer_jax.evaluation import intervals, summary
from fer_jax.reporting import images as report_images
from fer_jax.reporting import sections as report_sections
from fer_jax.reporting.caution import CAUTION
from fer_jax.reporting.images import Explain
from fer_jax.runs import config as run_config
from fer_jax.runs import metrics_log
from fer_jax.runs import results as run_results
from fer_jax.runs.results import read_results
from fer_jax.utils import atomic_files

STYLE = Path(__file__).with_name('report.css')


def write(workdir: Path, data: Dataset | None = None, explain: Explain | None = None) -> Path:
    """Writes report.html of a finished run from what stands in its workdir; returns its path.

    Args:
      data: of the run; without it the page has no images and no word on them.
      explain: where in images the evidence for classes is, see `inference.saliency.explain`.

    Raises:
      UserError: the run is not finished, or a file of it is damaged.
    """
    results, config = read_results(workdir), run_config.read(workdir)
    shown = 'test' if 'test' in results['splits'] else results['selected_on'].split('/')[0]
    one = results['splits'][shown]
    sections = [
        report_sections.result(results, config, shown),
        _picture(workdir / 'curves.png', 'Training', 'Loss and accuracy.'),
        _picture(workdir / 'grid.png', 'Heads', 'Every head of the grid on the selecting split; the pick is framed.'),
    ]
    if 'confusion' in one:
        sections += [report_sections.confusion(one, shown), report_sections.classes(one, shown)]
        sections += [report_sections.groups(one, shown)] if 'per_group' in one else []
    elif 'per_attribute' in one:
        sections.append(_picture(workdir / f'attributes_{shown}.png', f'Attributes, {shown}', ''))
    predictions = workdir / 'predictions.npz'
    if 'confusion' in one and predictions.is_file():
        part = run_results.read_predictions(predictions, shown)
        sections += [report_sections.reliability(part, results), report_sections.abstention(part, one)]
        if data is not None:
            classes = results['classes']

            def read(split: str, index: np.ndarray, data: Dataset = data) -> np.ndarray:
                return data.splits[split].read(index)

            sections += report_images.uncertain(part, classes, shown, read)
            if explain is not None:
                sections += report_images.evidence(part, classes, shown, read, explain)
    if data is not None:
        sections.append(report_sections.data_found(data))
    sections.append(_facts(workdir, config))
    name = f'{config["model"]["name"]}, {report_sections.data_of(config)}'
    path = workdir / 'report.html'
    atomic_files.write_text(path, _page(name, [section for section in sections if section]))
    return path


def compare(workdirs: Sequence[Path], output: Path) -> Path:
    """Writes a page with a row a run; p is McNemar's, against the first, where both scored the same images."""
    rows, first = [], None
    for workdir in (run for given in workdirs for run in (sorted(given.glob('seed-*')) or [given])):
        results, config = read_results(workdir), run_config.read(workdir)
        shown = 'test' if 'test' in results['splits'] else results['selected_on'].split('/')[0]
        one, hits = results['splits'][shown], hits_of(workdir, shown)
        p = ''
        if first is None:
            first = hits
        elif hits is not None and first is not None and sorted(hits) == sorted(first):
            pairs = np.array([(first[name], hits[name]) for name in first])
            p = f'{intervals.mcnemar(pairs[:, 0], pairs[:, 1]):.3g}'
        cells = [
            f'{workdir.parent.name}/{workdir.name}' if workdir.name.startswith('seed-') else workdir.name,
            config['model']['name'],
            report_sections.data_of(config),
            f'{shown}, n = {one["n"]:,}',
            summary.share(one['accuracy'], one['accuracy_ci95']),
            f'{one["balanced_accuracy"]:.2%}',
            f'{one["macro_f1"]:.3f}',
            f'{one["nll"]:.3f}',
            p,
        ]
        rows.append(cells)
    head = ('run', 'network', 'data', 'scored on', 'accuracy', 'balanced', 'macro F1', 'NLL', 'p against the first')
    body = f'<section><h2>Runs</h2>{report_sections.table(head, rows)}</section>'
    output.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_text(output, _page('Comparison', [body]))
    return output


def pooled(workdir: Path, results: Mapping[str, Any], runs: Sequence[str]) -> Path:
    """Writes report.html of several runs that are one, with a link to the page of each, see `training.repeats`."""
    rows = []
    for name, one in results['splits'].items():
        if 'accuracy' in one:
            accuracy = summary.share(one['accuracy'], one['accuracy_ci95'])
            rows.append([name, f'{one["n"]:,}', accuracy, summary.INTERVALS[one['interval']]])
    head = ('split', 'n', 'accuracy', 'interval')
    sections = [f'<section><h2>Together</h2>{report_sections.table(head, rows)}</section>']
    links = ''.join(f'<li><a href="{escape(run)}/report.html">{escape(run)}</a></li>' for run in runs)
    sections.append(f'<section><h2>Runs</h2><ul>{links}</ul></section>')
    path = workdir / 'report.html'
    atomic_files.write_text(path, _page(workdir.name, sections))
    return path


def hits_of(workdir: Path, split: str) -> dict[str, bool] | None:
    """{id: whether it was right}; None where attributes are told or nothing was kept."""
    if not (workdir / 'predictions.npz').is_file():
        return None
    part = run_results.read_predictions(workdir / 'predictions.npz', split)
    if part['labels'].ndim > 1:
        return None
    return dict(zip(map(str, part['ids']), part['logits'].argmax(1) == part['labels'], strict=True))


def _facts(workdir: Path, config: Mapping[str, Any]) -> str:
    """Parameters, environment, and how to repeat it."""
    told = '<section><h2>To repeat it</h2><pre>fer-jax train --config repeat:'
    told += f'{escape(str(workdir))} --workdir runs/again</pre>'
    for name, title in (('parameters.txt', 'Parameters'), ('environment.json', 'Environment')):
        if (workdir / name).is_file():
            told += f'<details><summary>{title}</summary><pre>{escape((workdir / name).read_text())}</pre></details>'
    written = json.dumps(config, indent=2)
    times = [record for record in metrics_log.read(workdir / 'timing.jsonl') if 'seconds' in record]
    minutes = sum(record['seconds'] for record in times) / 60
    told += f'<details><summary>Config</summary><pre>{escape(written)}</pre></details>'
    return f'{told}<p>It took {minutes:.1f} minutes of training and scoring.</p></section>'


def _picture(path: Path, title: str, note: str) -> str:
    if not path.is_file():
        return ''
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<section><h2>{escape(title)}</h2><p>{note}</p><div class="wide"><img class="plot" alt="{escape(title)}" '
        f'src="data:image/png;base64,{data}"></div></section>'
    )


def _page(title: str, sections: Sequence[str]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><title>{escape(title)}</title><style>{STYLE.read_text()}</style>'
        f'</head><body><main><h1>{escape(title)}</h1>{"".join(sections)}'
        f'<section><h2>What this can and cannot do</h2><p>{CAUTION}</p></section></main></body></html>\n'
    )
