"""Layers of Keras networks -> modules of fer_jax's, and how each source prepares images: one table."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from fer_jax.models import mobilenet, resnet_v2, vgg
from fer_jax.models.preprocessing import Preprocessing
from fer_jax.pretrained.name_tables import keras_layers, mobilenet_names
from fer_jax.pretrained.name_tables.matconvnet_names import vgg_layers
from fer_jax.pretrained.name_tables.torch_names import IMAGENET, Rule, first_match

Paths = Callable[[Iterable[str]], dict[str, str]]

# keras.applications.imagenet_utils.preprocess_input: mode 'caffe' and mode 'tf'
CAFFE = Preprocessing(tuple(value / 255 for value in (103.939, 116.779, 123.68)), (1 / 255,) * 3, order='BGR')
TF = Preprocessing((0.5,) * 3, (0.5,) * 3)


class KerasSource(NamedTuple):
    """The Keras form of a network.

    Attributes:
      paths: layer names -> {layer: path in fer_jax}, for those that are part of the network.
      layers: names of all layers that any network of this form has, for the conversion back.
      preprocessing: how this source prepares images, unless the network does it.
      scaled: whether BatchNorms have a gamma.
      normalising: matches the entries of a normalisation at the network's input.
      head_is_convolution: whether the last layer is a convolution of one pixel.
    """

    paths: Paths
    layers: tuple[str, ...]
    preprocessing: Preprocessing
    scaled: bool = True
    normalising: re.Pattern[str] = re.compile(r'(?!)')
    head_is_convolution: bool = False

    def look_of(self, entries: Mapping[str, np.ndarray]) -> Preprocessing:
        """Returns the preprocessing of a file: that of a normalisation among its entries, else `preprocessing`."""
        inside = {name.rpartition('/')[2]: leaf for name, leaf in entries.items() if self.normalising.fullmatch(name)}
        if not {'mean', 'variance'} <= inside.keys():
            return self.preprocessing
        mean, variance = (inside[leaf].reshape(-1) for leaf in ('mean', 'variance'))
        return keras_layers.efficientnet_preprocessing(mean, variance, self.preprocessing.size)


def by_rules(*rules: Rule) -> Paths:
    return lambda layers: {layer: path for layer in layers if (path := first_match(rules, layer))}


def _in_block(place: str) -> Callable[[re.Match[str]], str]:
    """'conv2_block1_...' -> 'layer1.0.' and the expanded `place`."""
    return lambda match: f'layer{int(match[1]) - 1}.{int(match[2]) - 1}.{match.expand(place)}'


_BLOCK = r'conv([2-5])_block(\d+)_'
_HEAD: Rule = (r'predictions', 'head.primary')
RESNET = by_rules(
    (r'conv1_(conv|bn)', r'\g<1>1'),
    (_BLOCK + r'0_conv', _in_block('downsample.0')),
    (_BLOCK + r'0_bn', _in_block('downsample.1')),
    (_BLOCK + r'([123])_(conv|bn)', _in_block(r'\4\3')),
    _HEAD,
)
RESNET_V2 = by_rules(
    (r'conv1_conv', 'conv1'),
    (_BLOCK + r'preact_bn', _in_block('preact_bn')),
    (_BLOCK + r'0_conv', _in_block('downsample')),
    (_BLOCK + r'([123])_(conv|bn)', _in_block(r'\4\3')),
    (r'post_bn', 'post_bn'),
    _HEAD,
)

RESNET_LAYERS = (
    *('conv1_conv', 'conv1_bn', 'post_bn', 'predictions'),
    *(
        f'conv{stage}_block{block}_{layer}'
        for stage in range(2, 6)
        for block in range(1, 37)
        for layer in ('preact_bn', *(f'{number}_{kind}' for number in range(4) for kind in ('conv', 'bn')))
    ),
)
VGG_LAYERS = (
    *(f'block{block}_conv{number}' for block in range(1, 6) for number in range(1, 5)),
    *('fc1', 'fc2', 'predictions'),
)


def vgg_paths(name: str) -> Paths:
    indices = [[index for kind, index in block if kind == 'conv'] for block in vgg.layout(name)]

    def conv(match: re.Match[str]) -> str:
        return f'features.{indices[int(match[1]) - 1][int(match[2]) - 1]}'

    return by_rules((r'block([1-5])_conv([1-4])', conv), (r'fc1', 'fc6'), (r'fc2', 'fc7'), _HEAD)


def efficientnet(size: int) -> KerasSource:
    preprocessing = dataclasses.replace(IMAGENET, size=size, interpolation='bicubic')
    normalising = re.compile(r'normalization(_\d+)?/(mean|variance|count)')
    return KerasSource(
        keras_layers.efficientnet, keras_layers.EFFICIENTNET_LAYERS, preprocessing, normalising=normalising
    )


# network -> source -> its names
TABLES: dict[str, Mapping[str, KerasSource]] = {
    'vgg16': {
        'keras': KerasSource(vgg_paths('vgg16'), VGG_LAYERS, CAFFE),
        'keras_vggface': KerasSource(
            keras_layers.vggface, tuple(vgg_layers('vgg16')), keras_layers.KERAS_VGGFACE_PREPROCESSING
        ),
    },
    'vgg19': {'keras': KerasSource(vgg_paths('vgg19'), VGG_LAYERS, CAFFE)},
    **{f'resnet{depth}_v1': {'keras': KerasSource(RESNET, RESNET_LAYERS, CAFFE)} for depth in (50, 101, 152)},
    **dict.fromkeys(resnet_v2.DEPTHS, {'keras': KerasSource(RESNET_V2, RESNET_LAYERS, TF)}),
    'inception_resnet_v2': {
        'keras': KerasSource(
            keras_layers.inception_resnet_v2,
            keras_layers.INCEPTION_LAYERS,
            keras_layers.KERAS_INCEPTION_PREPROCESSING,
            scaled=False,
        )
    },
    'tf_efficientnet_b0': {'keras': efficientnet(224)},
    'tf_efficientnet_b2': {'keras': efficientnet(260)},
    **dict.fromkeys(
        (name for name in mobilenet.WIDTHS if name != mobilenet.FOLDED),
        {
            'keras': KerasSource(
                by_rules(*mobilenet_names.KERAS_RULES), mobilenet_names.KERAS_LAYERS, TF, head_is_convolution=True
            )
        },
    ),
}
