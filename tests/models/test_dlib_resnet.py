"""dlib's face ResNet against dlib with its real weights, and, by random ones, against its definition in torch."""

import itertools

import jax
import numpy as np
import pytest

from fer_jax import models
from fer_jax.models.dlib_resnet import LEVELS, SAME_PERSON
from fer_jax.pretrained.convert import expected
from tests.lazy import lazy
from tests.models.shapes import parameter_count
from tests.parity import Reference, compare, filled
from tests.real_weights import face_chips, weight_file
from tests.torch_reference import channels_last

torch = lazy('torch', optional=True)
PUBLISHED = 'dlib_face_recognition_resnet_model_v1.dat'


def by_definition(leaves, x):
    """(logits, stages) as dlib's example program defines the network: every layer by its name there."""
    functional = torch.nn.functional

    def con(path, x, stride, padding):
        kernel = leaves[f'{path}.kernel'].permute(3, 2, 0, 1)
        return functional.conv2d(x, kernel, leaves[f'{path}.bias'], stride, padding)

    def affine(path, x):
        return x * leaves[f'{path}.scale'][:, None, None] + leaves[f'{path}.bias'][:, None, None]

    def add_prev(x, y):
        total = x.new_zeros([max(sizes) for sizes in zip(x.shape, y.shape, strict=True)])
        for each in (x, y):
            total[tuple(map(slice, each.shape))] += each
        return total

    x = functional.max_pool2d(functional.relu(affine('affine1', con('conv1', x, 2, 0))), 3, 2)
    stages = {'stem': x}
    for level, (count, _) in LEVELS.items():
        for index in range(count):
            block, down = f'{level}.{index}', index == 0 and level != 'level4'
            y = con(f'{block}.conv1', x, *((2, 0) if down else (1, 1)))
            y = con(f'{block}.conv2', functional.relu(affine(f'{block}.affine1', y)), 1, 1)
            shortcut = functional.avg_pool2d(x, 2, 2) if down else x
            x = functional.relu(add_prev(affine(f'{block}.affine2', y), shortcut))
        stages[level] = x
    stages['pool'] = x.mean((2, 3))
    stages['embedding'] = stages['pool'] @ leaves['embedding.kernel']
    return stages['embedding'] @ leaves['head.primary.kernel'] + leaves['head.primary.bias'], stages


@pytest.mark.parity
@pytest.mark.slow
def test_equals_its_definition():
    """At a size at which the maps of a block and of its shortcut differ."""
    draw = np.random.default_rng(0)
    leaves = {}
    for path, leaf in expected('dlib_resnet', 7).params.items():
        if path.endswith('.kernel'):
            leaves[path] = draw.normal(size=leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5
        else:
            leaves[path] = (
                draw.uniform(0.5, 1.5, leaf.shape) if path.endswith('.scale') else draw.normal(size=leaf.shape)
            )
    leaves = {path: leaf.astype(np.float32) for path, leaf in leaves.items()}
    x = draw.normal(size=(2, 103, 109, 3)).astype(np.float32)
    wide = {path: torch.from_numpy(leaf).double() for path, leaf in leaves.items()}
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).double().requires_grad_()
    logits, stages = by_definition(wide, images)
    torch.nn.functional.cross_entropy(logits, torch.arange(2)).backward()
    outputs = {stage: channels_last(output.detach().numpy()) for stage, output in stages.items()}
    reference = Reference(logits.detach().numpy(), outputs, channels_last(images.grad.numpy()))
    compare(filled('dlib_resnet', leaves, classes=7), x, reference, name='dlib_resnet')


def test_parameter_count_is_that_of_the_published_file():
    """The file has 22,466,066 bytes, of which 7,698 are no parameters; the head is not in it."""
    assert 4 * (parameter_count('dlib_resnet', 1) - 129) == 22_466_066 - 7_698


@pytest.mark.slow
def test_embeddings_and_verdicts_are_dlibs(shared_data):
    dlib = pytest.importorskip('dlib')
    file = weight_file(shared_data, PUBLISHED)
    chips = face_chips(shared_data, 150)
    reference = dlib.face_recognition_model_v1(str(file))
    theirs = np.array([reference.compute_face_descriptor(np.ascontiguousarray(chip)) for chip in chips])
    network = models.create('dlib_resnet', classes=7, weights=str(file))
    embed = jax.jit(lambda x: models.run(network, x, stop='head'))
    ours = np.asarray(embed(network.preprocessing.normalise(chips)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)

    def same_person(embeddings):
        return [np.linalg.norm(a - b) < SAME_PERSON for a, b in itertools.combinations(embeddings, 2)]

    assert same_person(ours) == same_person(theirs) and 0 < sum(same_person(ours)) < len(chips) * (len(chips) - 1) / 2
