"""The HTML report of a run, in one file that opens offline."""

import json
from collections.abc import Mapping, Sequence
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
from fer_jax.runs.results import SCORES_ANEW, read_results
from fer_jax.utils import atomic_files, bounded_files, checked_files

TEMPLATES = Path(__file__).with_name('templates')
# What run.html shows of some runs only; None leaves the section out.
OPTIONAL = (
    'attributes', 'calibration', 'class_maps', 'classes', 'confusion', 'data', 'groups', 'misclassified', 'saliency',
    'selective', 'uncertain',
)  # fmt: skip


def write_report(workdir: Path, data: Dataset | None = None, explain: Explain | None = None) -> Path:
    """Writes report.html of a finished run from the files of its workdir, and returns its path.

    Args:
      workdir: folder of the run.
      data: the run's data set; without it the report shows no images and does not describe the data.
      explain: computes saliency maps, see `inference.saliency.explain`; None leaves them out.

    Raises:
      UserError: the run is not finished, or a file of it is damaged.
    """
    results, config = read_results(workdir), run_config.read_run_config(workdir)
    split = _scored_split(results)
    scores = results['splits'][split]
    values: dict[str, Any] = dict.fromkeys(OPTIONAL) | {
        'title': f'{config["model"]["name"]}, {report_sections.data_name(config)}',
        'split': split,
        'result': report_sections.summarize_result(results, config, split),
        'curves': report_images.embed_png(workdir / 'curves.png'),
        'grid': report_images.embed_png(workdir / 'grid.png'),
        'workdir': workdir,
        'records': _records(workdir, config),
        'minutes': sum(each.get('seconds', 0) for each in metrics_log.read_metrics(workdir / 'timing.jsonl')) / 60,
    }
    if 'confusion' in scores:
        values['confusion'] = report_sections.tabulate_confusion(scores)
        values['classes'] = report_sections.tabulate_classes(scores)
        if 'per_group' in scores:
            values['groups'] = report_sections.tabulate_groups(scores)
        if (workdir / 'predictions.npz').is_file():
            predictions = run_results.read_predictions(workdir / 'predictions.npz', split)
            values['calibration'] = report_sections.compute_calibration(predictions, results)
            values['selective'] = report_sections.compute_selective(predictions, scores)
            if data is not None:
                read, classes = data.splits[split].read, results['classes']
                values |= report_images.select_images(predictions, classes, read)
                if explain is not None:
                    values |= report_images.explain_images(predictions, classes, read, explain)
    elif 'per_attribute' in scores:
        values['attributes'] = report_images.embed_png(workdir / f'attributes_{split}.png')
    if data is not None:
        values['data'] = report_sections.summarize_data(data)
    return _write_page(workdir / 'report.html', 'run.html', values)


def compare(workdirs: Sequence[Path], output: Path) -> Path:
    """Writes a report that compares runs by scores, curves and config differences, and returns its path.

    The p-value is that of McNemar's test against the first run; it is given where both runs scored the same images.

    Args:
      workdirs: folders of finished runs, or of runs of several seeds as `--seeds` leaves them.
      output: file to write.
    """
    runs = [run for given in workdirs for run in (sorted(given.glob('seed-*')) or [given])]
    names = [f'{run.parent.name}/{run.name}' if run.name.startswith('seed-') else run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f'{number}: {run}' for number, run in enumerate(runs, 1)]
    curves: dict[str, list[tuple[float, float]]] = {}
    notes: dict[str, str] = {}
    rows, configs, first = [], {}, None
    for name, workdir in zip(names, runs, strict=True):
        results, configs[name] = read_results(workdir), run_config.read_run_config(workdir)
        split = _scored_split(results)
        scores, hits = results['splits'][split], hits_of(workdir, split)
        p = ''
        if first is None:
            first = hits
        elif hits is not None and sorted(hits) == sorted(first):
            pairs = np.array([(first[key], hits[key]) for key in first])
            p = f'{intervals.mcnemar(pairs[:, 0], pairs[:, 1]):.3g}'
        rows.append(
            [
                name,
                configs[name]['model']['name'],
                report_sections.data_name(configs[name]),
                f'{split}, n = {scores["n"]:,}',
                summary.share(scores['accuracy'], scores['accuracy_ci95']),
                *report_sections.score_cells(scores),
                p,
            ]
        )
        notes |= {name: note} if (note := summary.note(scores)) else {}
        curve = report_sections.read_curve(workdir, results['selected_on'].split('/')[0])
        curves |= {name: curve} if curve else {}
    values = {
        'title': 'Comparison of runs',
        'rows': rows,
        'notes': notes,
        'curves': report_images.draw_comparison(curves) if curves else '',
        'names': list(configs),
        'differences': report_sections.tabulate_differences(configs),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    return _write_page(output, 'comparison.html', values)


def pooled(workdir: Path, results: Mapping[str, Any], runs: Sequence[str]) -> Path:
    """Writes report.html of runs that differ by seed or fold, with links to their reports, and returns its path.

    Args:
      workdir: folder to write to.
      results: pooled scores, in the form of results.json.
      runs: names of the runs' folders in `workdir`.
    """
    rows = [
        [
            name,
            f'{scores["n"]:,}',
            summary.share(scores['accuracy'], scores['accuracy_ci95']),
            summary.INTERVALS[scores['interval']],
        ]
        for name, scores in results['splits'].items()
        if 'accuracy' in scores
    ]
    notes = {name: note for name, scores in results['splits'].items() if (note := summary.note(scores))}
    values = {'title': workdir.name, 'rows': rows, 'runs': runs, 'notes': notes}
    return _write_page(workdir / 'report.html', 'pooled.html', values)


def hits_of(workdir: Path, split: str) -> dict[str, bool] | None:
    """Returns whether each prediction of a split is correct, by the id of its image.

    Args:
      workdir: folder of the run.
      split: name of the split.

    Returns:
      {id: bool}; None where the labels are attributes or no predictions are stored.
    """
    if not (workdir / 'predictions.npz').is_file():
        return None
    part = run_results.read_predictions(workdir / 'predictions.npz', split)
    if part['labels'].ndim > 1:
        return None
    return dict(zip(map(str, part['ids']), part['logits'].argmax(1) == part['labels'], strict=True))


def _scored_split(results: Mapping[str, Any]) -> str:
    """'test', or the split that selected the checkpoint where there is no test split."""
    return 'test' if 'test' in results['splits'] else results['selected_on'].split('/')[0]


def _records(workdir: Path, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    files = (('Parameters', workdir / 'parameters.txt'), ('Environment', workdir / 'environment.json'))
    for _, path in files:
        checked_files.check_file(path, SCORES_ANEW)
    records = [(title, bounded_files.read_text(path)) for title, path in files if path.is_file()]
    return [*records, ('Config', json.dumps(config, indent=2))]


def _write_page(path: Path, template: str, values: Mapping[str, Any]) -> Path:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['number'] = format
    page = environment.get_template(template).render(values, caution=CAUTION)
    atomic_files.write_text(path, page + '\n')
    return path
