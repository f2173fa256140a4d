"""A trained network as a file for other programs, and the card beside it."""

from pathlib import Path

import numpy as np

from fer_jax import pretrained
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.exporters import exported_function
from fer_jax.exporters.precision import PRECISIONS, to_float16, to_int8
from fer_jax.pretrained import Weights, convert_back
from fer_jax.pretrained.name_tables import keras_names
from fer_jax.pretrained.weights import whole_file
from fer_jax.reporting import model_card
from fer_jax.runs import restore
from fer_jax.runs.model_file import read_spec
from fer_jax.utils import atomic_files, checked_files
from fer_jax.utils.choices import check_choice

GRAPHS = ('onnx', 'stablehlo')
OWN = 'safetensors'
CALIBRATION_IMAGES, LOSS_IMAGES = 512, 5000  # images, from which int8 takes ranges, and to measure a loss on
MOST_LOST = 1.0  # of a probability in lower precision: whatever is a number
UNSTATED = 'not stated by whoever exported it; docs/reference/datasets.md of fer_jax says what is known of public sets'


def export(
    workdir: Path,
    form: str,
    output: Path,
    images: str = '',
    data_licence: str = '',
    *,
    precision: str = 'float32',
    calibrate: str = '',
) -> None:
    """Writes the selected checkpoint of a run in another format, and a model card beside it.

    Args:
      workdir: folder of the run, or 'release'.
      form: format to write: one of `GRAPHS`, `OWN`, or a framework that has this network.
      output: file to write; the card is written to `output` with '.md' appended.
      images: images that a graph is verified on, see `exporters.exported_function.real_images`.
      precision: 'float32', or for ONNX 'float16' or 'int8'.
      calibrate: training images from which int8 takes the ranges of activations, named like `images`; '' takes those
        of the run.
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
    check_choice('--precision', precision, PRECISIONS)
    if precision != 'float32' and form != 'onnx':
        raise UserError(f'--precision={precision} is for --format onnx; {form} is float32')
    if calibrate and precision != 'int8':
        raise UserError(f'--calibrate={calibrate} is for --precision int8')
    card = _card(output)
    if taken := next((path for path in (output, card) if path.is_dir()), None):
        raise UserError(f'{taken} cannot be written (it is a folder); choose another --output')
    data_licence = data_licence or model_card.data_licence(folder) or UNSTATED
    try:
        with atomic_files.scratch_folder(output) as scratch:
            made = scratch / output.name
            if form in GRAPHS:
                use, note = _graph(folder, form, made, images, precision, calibrate)
            else:
                use, note = _weights(folder, form, made, images)
            note += f'\nsha256   {checked_files.file_sha256(made, flush=True)}'
            text = model_card.text(folder, output.name, form, use=use, note=note, data_licence=data_licence)
            atomic_files.write_text(scratch / card.name, text)
            card.unlink(missing_ok=True)  # a card never stands beside another file than its own
            made.replace(output)
            (scratch / card.name).replace(card)
    except OSError as error:
        raise UserError(f'{output} cannot be written ({error}); choose another --output') from error
    print(f'{workdir} -> {output}: {spec.name} as {form}; its card is {card}')
    print(f'classes  {", ".join(spec.classes[PRIMARY])}')
    print(f'{use}\n{note}')


def _card(output: Path) -> Path:
    return output.with_name(f'{output.name}.md')


def _graph(folder: Path, form: str, output: Path, images: str, precision: str, calibrate: str) -> tuple[str, str]:
    network = exported_function.Exported(folder)
    exact = precision == 'float32'
    most = exported_function.MOST_IMAGES if exact else LOSS_IMAGES
    seen = exported_function.real_images(folder, images, most=most)
    if form == 'onnx':
        made = network.onnx({'licence_and_limits': _card(output).name, 'precision': precision})
        if precision == 'float16':
            made = to_float16(made)
        elif precision == 'int8':
            sample = exported_function.real_images(folder, calibrate, 'train', CALIBRATION_IMAGES)
            made = to_int8(made, sample.images, name=exported_function.INPUT)
        run, runtime = exported_function.in_onnxruntime(made), 'onnxruntime'
    else:
        made = network.stablehlo()
        run, runtime = exported_function.in_jax(made), 'jax.export'
    verified = network.verified(run, seen, exported_function.TOLERANCE if exact else MOST_LOST)
    with whole_file(output) as scratch:
        scratch.write_bytes(made)
    side = network.shape[0]
    use = f'images   uint8 [B, {side}, {side}, 3], RGB -> probabilities float32 [B, classes], any B'
    if form == 'onnx':
        use += f'; opset {exported_function.onnx_graph.OPSET}'
    note = exported_function.describe(verified, runtime)
    return use, note if exact else f'{note}\n{exported_function.describe_accuracy(verified, precision)}'


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
        raise UserError(f'{output.name}: read back it is not the same; nothing is written')
    preprocessing = weights.preprocessing
    mean, std = (', '.join(f'{value:.4g}' for value in values) for values in (preprocessing.mean, preprocessing.std))
    order = preprocessing.order if spec.channels == 3 else 'grey'
    use = f'images   {order}, {spec.image_size} px; (x / 255 - mean) / std, mean {mean}, std {std}'
    return use, f'verified: read back, its {len(ours)} tensors are the same to the bit'
