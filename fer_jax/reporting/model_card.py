"""What stands beside an exported network: what it is, what it was made of, how good it is, what it is not for."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_jax import __version__
from fer_jax.data.tasks import PRIMARY
from fer_jax.evaluation import summary
from fer_jax.inference import face_pipeline
from fer_jax.models.network import ModelSpec
from fer_jax.reporting.caution import CAUTION
from fer_jax.runs import restore
from fer_jax.runs.model_file import read_spec
from fer_jax.runs.results import SCORES_ANEW
from fer_jax.utils import bounded_files, checked_files

UNKNOWN = 'not recorded'


def text(workdir: str | Path, file: str, form: str, *, use: str, note: str, data_licence: str) -> str:
    """Returns a model card in Markdown, made from the files in the folder of the run.

    Args:
      workdir: folder of the run, or 'release'.
      file: name of the exported file.
      form: its format, such as 'onnx'.
      use: description of the inputs and outputs.
      note: result of its verification.
      data_licence: licence of the images it was trained on.
    """
    folder = restore.resolve_workdir(workdir)
    spec = read_spec(folder)
    config, made, results = (_read(folder / f'{name}.json') for name in ('config', 'environment', 'results'))
    origin = 'None: it began from random parameters'
    if weights := made.get('weights'):
        chain = ', which began from '.join(str(weights[name]) for name in ('source', 'began_from') if name in weights)
        origin = f'{chain or UNKNOWN}; licence: {weights.get("licence", UNKNOWN)}'
    return f"""# {file}

{spec.name} at {spec.image_size} px. Classes: {', '.join(spec.classes[PRIMARY])}. Trained with fer_jax, written as \
{form} by fer_jax {__version__}.

## Use

{use}

{note}

{_preprocessing(spec, form)}{_cutting(folder, spec)}

## Data

{_data(config, made)}

Licence of the data: {data_licence}.

## Weights it began from

{origin}.

## Result

{_results(results)}

## Intended use, and what it cannot do

For research, and for tools whose users know of it and agree. {CAUTION}
"""


def data_licence(workdir: str | Path) -> str:
    """Returns the data licence from card.md in the folder of the run; '' where there is none.

    Args:
      workdir: folder of the run, or 'release'.
    """
    card = restore.resolve_workdir(workdir) / 'card.md'
    checked_files.check_file(card, 'take it from a copy of that folder')
    text = bounded_files.read_text(card) if card.is_file() else ''
    match = re.search(r'^Licence of the data: (.+)\.$', text, re.MULTILINE)
    return match[1] if match else ''


def _read(path: Path) -> dict[str, Any]:
    return checked_files.read_json(path, f'take it from a copy, or {SCORES_ANEW}') if path.is_file() else {}


def _preprocessing(spec: ModelSpec, form: str) -> str:
    if form in ('onnx', 'stablehlo'):
        return 'The preprocessing is inside: cut out a face, scale it, give its bytes.'
    mean, std = (', '.join(f'{value:.4g}' for value in values) for values in (spec.mean, spec.std))
    order = spec.order if spec.channels == 3 else 'grey'
    return f'Images: {order}, {spec.image_size} px, (x / 255 - mean) / std with mean {mean} and std {std}.'


def _cutting(folder: Path, spec: ModelSpec) -> str:
    cut, grey, _ = face_pipeline.trained_on(folder)
    lines = ' It was trained on grey faces: make yours grey.' if grey and spec.channels == 3 else ''
    if cut:
        how = "aligned to ArcFace's five points" if cut.aligned else "squares about a detector's box"
        lines += f' It was trained on {how} with a margin, on every side, of {cut.margin:g} of the longer side.'
    return lines


def _data(config: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    data, known = config.get('data', {}), made.get('data', {})
    name = known.get('name') or data.get('name') or data.get('dir') or data.get('manifest') or UNKNOWN
    lines = [f'- set: {name}']
    lines += [f'- {role}: {count:,} images' for role, count in known.get('examples', {}).items()]
    if 'fingerprint' in known:
        lines.append(f'- fingerprint: {known["fingerprint"]}')
    return '\n'.join(lines)


def _results(results: Mapping[str, Any]) -> str:
    if not results:
        return 'The run is not finished.'
    lines = [f'The checkpoint of step {results["step"]:,}, selected on {results["selected_on"]}.', '']
    head = [
        '| split | images | accuracy [95 % interval] | balanced | macro F1 | NLL |',
        '|---|---|---|---|---|---|',
    ]
    rows = [
        f'| {name} | {row["n"]:,} | {summary.share(row["accuracy"], row["accuracy_ci95"])} | '
        f'{row["balanced_accuracy"]:.2%} | {row["macro_f1"]:.3f} | {row["nll"]:.3f} |'
        for name, row in results['splits'].items()
        if 'accuracy' in row
    ]
    kinds = {summary.INTERVALS[row['interval']] for row in results['splits'].values() if 'interval' in row}
    method = [f'Intervals: {"; ".join(sorted(kinds))}.'] if kinds else []
    notes = [f'{name}: {note}' for name, scores in results['splits'].items() if (note := summary.note(scores))]
    return '\n'.join([*lines, *head, *rows, '', *method, *notes])
