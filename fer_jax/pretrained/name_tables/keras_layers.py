"""Layers of Keras networks -> modules of fer_jax's, for the families whose names no list of regexes can give."""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from fer_jax.models.preprocessing import Preprocessing
from fer_jax.pretrained.name_tables.matconvnet_names import VGGFACE_MEAN, vgg_layers

IMAGENET_STD = (0.229, 0.224, 0.225)
KERAS_INCEPTION_PREPROCESSING = Preprocessing((0.5,) * 3, (0.5,) * 3, size=299)  # its range is -1 to 1
KERAS_VGGFACE_PREPROCESSING = Preprocessing(
    tuple(value / 255 for value in VGGFACE_MEAN[::-1]), (1 / 255,) * 3, order='BGR'
)


def inception_resnet_v2(layers: Iterable[str]) -> dict[str, str]:
    """Maps the layer names of Keras Applications' InceptionResNetV2 to paths; other names of `layers` are left out.

    Most have automatic names, such as 'conv2d_17', with numbers that depend on what the session had built before; their
    order is that of the blocks in the paper. BatchNorms have no scale in Keras, which is 1 here.
    """
    layers = list(layers)
    places = list(_inception_places())
    paths = {'conv_7b': 'conv2d_7b.conv', 'conv_7b_bn': 'conv2d_7b.bn', 'predictions': 'head.primary'}
    paths['block8_10_conv'] = 'block8.conv2d'
    for kind, repeat, count in (('block35', 'repeat', 10), ('block17', 'repeat_1', 20), ('block8', 'repeat_2', 9)):
        paths |= {f'{kind}_{index + 1}_conv': f'{repeat}.{index}.conv2d' for index in range(count)}
    for kind, module in (('conv2d', 'conv'), ('batch_normalization', 'bn')):
        matches = [match for name in layers if (match := re.fullmatch(rf'{kind}(?:_(\d+))?', name))]
        numbers = {match[0]: int(match[1] or 0) for match in matches}
        first = min(numbers.values(), default=0)
        paths |= {
            name: f'{places[number - first]}.{module}'
            for name, number in numbers.items()
            if number - first < len(places)
        }
    return {name: paths[name] for name in layers if name in paths}


def _inception_places() -> Iterator[str]:
    """The automatically named pairs of convolution and BatchNorm, in Keras's order."""
    yield from ('conv2d_1a', 'conv2d_2a', 'conv2d_2b', 'conv2d_3b', 'conv2d_4a')
    yield from (*_branches('mixed_5b', 1, 2, 3), 'mixed_5b.branch3.1')
    for index in range(10):
        yield from _branches(f'repeat.{index}', 1, 2, 3)
    yield from _branches('mixed_6a', 1, 3)
    for index in range(20):
        yield from _branches(f'repeat_1.{index}', 1, 3)
    yield from _branches('mixed_7a', 2, 2, 3)
    for block in (*(f'repeat_2.{index}' for index in range(9)), 'block8'):
        yield from _branches(block, 1, 3)


def _branches(block: str, *lengths: int) -> Iterator[str]:
    for number, length in enumerate(lengths):
        branch = f'{block}.branch{number}'
        yield from [branch] if length == 1 else [f'{branch}.{index}' for index in range(length)]


# In the order in which Keras makes them; the automatic names are those of a session's first network.
INCEPTION_LAYERS = (
    *(f'{kind}{f"_{number}" if number else ""}' for number in range(203) for kind in ('conv2d', 'batch_normalization')),
    *(
        f'{kind}_{n}_conv'
        for kind, count in (('block35', 10), ('block17', 20), ('block8', 10))
        for n in range(1, count + 1)
    ),
    *('conv_7b', 'conv_7b_bn', 'predictions'),
)
EFFICIENTNET_LAYERS = (
    *('stem_conv', 'stem_bn', 'top_conv', 'top_bn', 'predictions'),
    *(
        f'block{stage}{block}_{layer}'
        for stage in range(1, 8)
        for block in 'abcdefgh'
        for layer in (
            'expand_conv',
            'expand_bn',
            'dwconv',
            'bn',
            'se_reduce',
            'se_expand',
            'project_conv',
            'project_bn',
        )
    ),
)


def efficientnet(layers: Iterable[str]) -> dict[str, str]:
    """Maps the layer names of Keras Applications' EfficientNetB* to paths; other names of `layers` are left out.

    The layer 'normalization' is left out too: see `efficientnet_preprocessing`.
    """
    paths = {'stem_conv': 'conv_stem', 'stem_bn': 'bn1', 'top_conv': 'conv_head', 'top_bn': 'bn2'}
    paths['predictions'] = 'head.primary'
    gate = {'se_reduce': 'se.conv_reduce', 'se_expand': 'se.conv_expand'}
    first = gate | {'dwconv': 'conv_dw', 'bn': 'bn1', 'project_conv': 'conv_pw', 'project_bn': 'bn2'}
    rest = gate | {'expand_conv': 'conv_pw', 'expand_bn': 'bn1', 'dwconv': 'conv_dw', 'bn': 'bn2'}
    rest |= {'project_conv': 'conv_pwl', 'project_bn': 'bn3'}
    names = {}
    for name in layers:
        match = re.fullmatch(r'block([1-7])([a-z])_(\w+)', name)
        if match and match[3] in (named := first if match[1] == '1' else rest):
            names[name] = f'blocks.{int(match[1]) - 1}.{ord(match[2]) - ord("a")}.{named[match[3]]}'
        elif name in paths:
            names[name] = paths[name]
    return names


def efficientnet_preprocessing(mean: np.ndarray, variance: np.ndarray, size: int) -> Preprocessing:
    """Returns the preprocessing inside a Keras EfficientNet: x / 255, then its 'normalization' layer.

    Args:
      mean, variance: [3], of that layer. In Keras's ImageNet files 'variance' is the standard deviation: another layer,
        which has no weights, divides by its root once more.
      size: side in pixels at which the weights were evaluated.
    """
    published = np.allclose(variance, IMAGENET_STD, atol=1e-3)
    std = variance if published else np.sqrt(variance)
    return Preprocessing(tuple(map(float, mean)), tuple(map(float, std)), size=size, interpolation='bicubic')


def vggface(layers: Iterable[str]) -> dict[str, str]:
    """Maps the layer names of keras-vggface's VGG16 to paths; its fc6 reads the map with the channels last."""
    paths = vgg_layers('vgg16')
    return {name: paths[name] for name in layers if name in paths}
