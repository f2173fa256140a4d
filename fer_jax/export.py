"""A trained network as a file for other frameworks.

    python -m fer_jax.export --workdir runs/x --format torchvision --output resnet18.safetensors

`--format` is a framework that has this network (docs/weights.md), such as torchvision or keras, or safetensors for
fer_jax's own file, which `model.weights` reads. A torch state dict is written as safetensors, Keras's weights as .h5.
"""

import argparse
import sys
from pathlib import Path

from fer_jax import start
from fer_jax.checkpoints import read_spec
from fer_jax.errors import UserError
from fer_jax.network import PRIMARY
from fer_jax.pretrained import Weights, keras_names, save, to_source

OWN = 'safetensors'


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(
        prog='python -m fer_jax.export', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--workdir', required=True, type=Path, help='of a run with an evaluated checkpoint')
    parser.add_argument('--format', required=True, help=f'a framework that has the network, or {OWN}')
    parser.add_argument('--output', required=True, type=Path)
    arguments = parser.parse_args(argv)
    try:
        export(arguments.workdir, arguments.format, arguments.output)
    except UserError as error:
        print(f'fer_jax: {error}', file=sys.stderr)
        return 2
    return 0


def export(workdir: Path, form: str, output: Path) -> None:
    """Writes the selected checkpoint of a run.

    Raises:
      UserError: there is no run or no checkpoint, the network has no such form, or the file cannot be written.
    """
    spec = read_spec(workdir)
    choices = [*to_source.targets(spec.name), OWN]
    if form not in choices:
        raise UserError(f'--format={form} is not a form of {spec.name}; choose {", ".join(choices)}')
    weights = start.of_run(workdir)
    classes = spec.classes[PRIMARY]
    metadata = {key: str(value) for key, value in weights.metadata.items()} | {'classes': str(len(classes))}
    if form == OWN:
        save(output, Weights(weights.model, weights.params, weights.stats, weights.preprocessing, metadata))
    elif form in keras_names.TABLES.get(spec.name, {}):
        to_source.write_keras(output, to_source.keras_variables(weights, form))
    else:
        to_source.write_torch(output, to_source.torch_state(weights, form), metadata)
    look = weights.preprocessing
    mean, std = (', '.join(f'{value:.4g}' for value in values) for values in (look.mean, look.std))
    print(f'{workdir} -> {output}: {spec.name} of {form}')
    print(f'classes  {", ".join(classes)}')
    order = look.order if spec.channels == 3 else 'grey'
    print(f'images   {order}, {spec.image_size} px; (x / 255 - mean) / std, mean {mean}, std {std}')


if __name__ == '__main__':
    sys.exit(main())
