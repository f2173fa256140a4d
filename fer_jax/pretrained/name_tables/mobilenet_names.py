"""Names of MobileNet v1's parameters in Keras's files and in FaceRes's TensorFlow.js graph."""

import re
from collections.abc import Callable

from fer_jax.models import mobilenet

_PLACES = [f'blocks.{stage}.{index}' for stage, (count, _) in enumerate(mobilenet.BLOCKS) for index in range(count)]
PLACES = dict(enumerate(_PLACES, 1))  # number of a block in Keras's names -> path
CONVOLUTIONS = {'dw': 'conv_dw', 'pw': 'conv_pw'}
NORMS = {'dw': 'bn1', 'pw': 'bn2'}


def in_block(modules: dict[str, str], leaf: str = '') -> Callable[[re.Match[str]], str]:
    """Returns a replacement for a match of ('dw' | 'pw', number of the block)."""
    return lambda match: f'{PLACES[int(match[2])]}.{modules[match[1]]}{leaf}'


KERAS_RULES = (
    (r'conv1', 'conv_stem'),
    (r'conv1_bn', 'bn1'),
    (r'conv_(dw|pw)_(\d+)', in_block(CONVOLUTIONS)),
    (r'conv_(dw|pw)_(\d+)_bn', in_block(NORMS)),
    (r'conv_preds|predictions', 'head.primary'),
)
KERAS_LAYERS = (
    *('conv1', 'conv1_bn'),
    *(f'conv_{kind}_{number}{norm}' for number in PLACES for kind in CONVOLUTIONS for norm in ('', '_bn')),
    'conv_preds',
)
# TensorFlow's graph tools merged the scales of BatchNorms with the convolutions before, but for depthwise ones
FACERES_RULES = (
    (r'conv1/convolution/merged_input', 'conv_stem.kernel'),
    (r'conv1_bn/batchnorm_1/sub', 'bn1.bias'),
    (r'conv_(dw)_(\d+)/depthwise_kernel', in_block(CONVOLUTIONS, '.kernel')),
    (r'conv_(pw)_(\d+)/convolution/merged_input', in_block(CONVOLUTIONS, '.kernel')),
    (r'conv_(dw)_(\d+)_bn/batchnorm_1/mul', in_block(NORMS, '.scale')),
    (r'conv_(dw|pw)_(\d+)_bn/batchnorm_1/sub', in_block(NORMS, '.bias')),
)
FACERES_CONSTANTS = re.compile(r'conv.*_relu/(Cast|Const_1)|global_pooling/Mean/reduction_indices')
