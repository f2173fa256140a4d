"""A trained network as a file for other programs, and the card beside it."""

from pathlib import Path

import numpy as np

from fer_jax import pretrained
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.exporters import exported_function
from fer_jax.pretrained import Weights, convert_back
from fer_jax.pretrained.name_tables import keras_names
from fer_jax.pretrained.weights import whole_file
from fer_jax.reporting import model_card
from fer_jax.runs import restore
from fer_jax.runs.checkpoints import read_spec

GRAPHS = ('onnx', 'stablehlo')
OWN = 'safetensors'
UNSTATED = 'not stated by whoever exported it; docs/datasets.md of fer_jax says what is known of public sets'


def export(workdir: Path, form: str, output: Path, images: str = '', data_licence: str = '') -> None:
    """Writes the selected checkpoint of a run in another format, and a model card beside it.

    Args:
      workdir: folder of the run, or 'release'.
      form: format to write: one of `GRAPHS`, `OWN`, or a framework that has this network.
      output: file to write; the card is written to `output` with '.md' appended.
      images: images that a graph is verified on, see `exporters.exported_function.real_images`.
      data_licence: licence of the training images; '' takes that of the run's own card, where it has one.

    Raises:
      UserError: there is no run or no checkpoint, the network cannot be written in this format or gives other results
        in it, or a file cannot be written.
    """
    folder = restore.resolve_workdir(workdir)
    spec = read_spec(folder)
    choices = [*GRAPHS, *convert_back.targets(spec.name), OWN]
    if form not in choices:
        raise UserError(f'--format={form} is not a form of {spec.name}; choose {", ".join(choices)}')
    if not output.suffix:
        example = f'faces.{form if form in GRAPHS else OWN}'
        raise UserError(f'--output={output} has no ending; give a file such as {example}: the card is {example}.md')
    card = _card(output)
    write = _graph if form in GRAPHS else _weights
    use, found = write(folder, form, output, images)
    data_licence = data_licence or model_card.data_licence(folder) or UNSTATED
    told = model_card.text(folder, output.name, form, use=use, found=found, data_licence=data_licence)
    with whole_file(card) as scratch:
        scratch.write_text(told)
    print(f'{workdir} -> {output}: {spec.name} as {form}; its card is {card}')
    print(f'classes  {", ".join(spec.classes[PRIMARY])}')
    print(f'{use}\n{found}')


def _card(output: Path) -> Path:
    return output.with_name(f'{output.name}.md')


def _graph(folder: Path, form: str, output: Path, images: str) -> tuple[str, str]:
    network = exported_function.Exported(folder)
    seen = exported_function.real_images(folder, images)
    if form == 'onnx':
        made = network.onnx({'licence_and_limits': _card(output).name})
        run, runtime = exported_function.in_onnxruntime(made), 'onnxruntime'
    else:
        made = network.stablehlo()
        run, runtime = exported_function.in_jax(made), 'jax.export'
    verified = network.verified(run, seen)
    with whole_file(output) as scratch:
        scratch.write_bytes(made)
    side = network.shape[0]
    use = f'images   uint8 [B, {side}, {side}, 3], RGB -> probabilities float32 [B, classes], any B'
    if form == 'onnx':
        use += f'; opset {exported_function.onnx_graph.OPSET}'
    return use, exported_function.describe(verified, runtime)


def _weights(folder: Path, form: str, output: Path, images: str) -> tuple[str, str]:
    if images:
        raise UserError(f'--images={images} verifies a graph; {form} holds weights, which are compared themselves')
    spec, weights = read_spec(folder), restore.weights_of_run(folder)
    metadata = {key: str(value) for key, value in weights.metadata.items()}
    metadata['classes'] = str(len(spec.classes[PRIMARY]))
    if form == OWN:
        own = Weights(weights.model, weights.params, weights.stats, weights.preprocessing, metadata)
        pretrained.save(output, own)
    elif form in keras_names.TABLES.get(spec.name, {}):
        convert_back.write_keras(output, convert_back.keras_variables(weights, form))
    else:
        convert_back.write_torch(output, convert_back.torch_state(weights, form), metadata)
    again = pretrained.load(output, spec.name) if form == OWN else pretrained.convert_file(
        output, spec.name, source=output.name, licence='')  # fmt: skip
    ours, back = convert_back.leaves(weights), convert_back.leaves(again)
    if any(not np.array_equal(leaf, back[path]) for path, leaf in ours.items()):
        output.unlink()
        raise UserError(f'{output}: read back it is not the same; nothing is written')
    preprocessing = weights.preprocessing
    mean, std = (', '.join(f'{value:.4g}' for value in values) for values in (preprocessing.mean, preprocessing.std))
    order = preprocessing.order if spec.channels == 3 else 'grey'
    use = f'images   {order}, {spec.image_size} px; (x / 255 - mean) / std, mean {mean}, std {std}'
    return use, f'verified: read back, its {len(ours)} tensors are the same to the bit'
