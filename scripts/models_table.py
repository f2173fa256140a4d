"""Writes the table of docs/reference/networks.md: every network, its size, its source, and how far it is from it.

    FER_JAX_PARITY_TABLE=parity.jsonl scripts/test -m parity
    python scripts/models_table.py parity.jsonl

The parity tests append their deviations to the file that the variable names; the largest of each network are shown.
A network that its own test does not compare stage by stage has '-'.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from flax import nnx

from fer_jax import models
from fer_jax.models import mobilenet
from fer_jax.models.parameters import flatten
from fer_jax.pretrained.convert import DLIB_FACES
from fer_jax.pretrained.name_tables import keras_names, torch_names
from fer_jax.pretrained.published_weights import FACES_TERMS, PUBLISHED

START, END = '<!-- table -->\n', '<!-- end of table -->\n'
COLUMNS = ('`model.name`', 'parameters', 'smallest side', 'names of', 'weights and their licence', 'images')
COLUMNS += ('logits', 'stages', 'gradient')
OTHERS = {mobilenet.FOLDED: ('TensorFlow.js', keras_names.CAFFE), 'dlib_resnet': ('dlib', DLIB_FACES)}
PAGE = Path(__file__).parents[1] / 'docs' / 'reference' / 'networks.md'


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parity', type=Path, help='JSON lines that the parity tests wrote')
    arguments = parser.parse_args(argv)
    rows = [json.loads(line) for line in arguments.parity.read_text().splitlines()]
    text = PAGE.read_text()
    before, after = text.split(START)[0], text.split(END)[1]
    PAGE.write_text(before + START + table(rows) + END + after)
    return 0


def table(rows: list[dict]) -> str:
    """Markdown, a line a network."""
    lines = [
        f'| {" | ".join(COLUMNS)} |',
        '|---' * len(COLUMNS) + '|',
    ]
    for name in models.NAMES:
        made = nnx.eval_shape(lambda name=name: models.create(name, classes=1000, rngs=nnx.Rngs(0)))
        count = sum(math.prod(leaf.shape) for leaf in flatten(nnx.state(made, nnx.Param)).values())
        sources = [*torch_names.TABLES.get(name, {}).values(), *keras_names.TABLES.get(name, {}).values()]
        frameworks = [kind for kind, known in (('torch', torch_names), ('Keras', keras_names)) if name in known.TABLES]
        prepared = [source.preprocessing for source in sources if hasattr(source, 'preprocessing')]
        if name in OTHERS:
            framework, preprocessing = OTHERS[name]
            frameworks.append(framework)
            prepared.append(preprocessing)
        looks = dict.fromkeys(map(described, prepared))
        own = [row for row in rows if row['name'] == name]
        far = [f'{max(row[key] for row in own):.0e}' if own else '-' for key in ('logits', 'stages', 'gradient')]
        smallest = getattr(models.CONSTRUCTORS[name], 'min_size', 1)
        cells = [
            f'`{name}`',
            f'{count:,}',
            str(smallest),
            ', '.join(frameworks),
            licences(name),
            '; '.join(looks),
            *far,
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def licences(name: str) -> str:
    """'imagenet: BSD-3-Clause'"""
    known = [known for known in PUBLISHED if known.model == name]
    return '; '.join(
        f'{source.weights}: {source.licence}' + (', non-commercial' if source.terms == FACES_TERMS else '')
        for source in known
    )


def described(preprocessing: object) -> str:
    """'RGB, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, 224 px bilinear'"""
    mean, std = (
        ' '.join(f'{value:.3g}' for value in dict.fromkeys(values))
        for values in (preprocessing.mean, preprocessing.std)
    )
    return f'{preprocessing.order}, mean {mean}, std {std}, {preprocessing.size} px {preprocessing.interpolation}'


if __name__ == '__main__':
    sys.exit(main())
