"""MatConvNet's names -> paths in fer_jax's networks, for the original VGG-Face (Parkhi et al. 2015)."""

from collections.abc import Mapping

import numpy as np

from fer_jax.errors import UserError
from fer_jax.models import vgg
from fer_jax.models.parameters import Flat
from fer_jax.models.preprocessing import Preprocessing

# Of its 2,622 identities' training faces, in RGB.
VGGFACE_MEAN = (129.1863, 104.7624, 93.5940)
MATCONVNET_VGGFACE = Preprocessing(tuple(value / 255 for value in VGGFACE_MEAN), (1 / 255,) * 3)


def vgg_layers(name: str) -> dict[str, str]:
    """Maps Caffe's layer names, 'conv1_1' to 'fc8', to paths; MatConvNet and keras-vggface use these names too."""
    paths: dict[str, str] = {}
    for number, block in enumerate(vgg.layout(name), 1):
        indices = [index for kind, index in block if kind == 'conv']
        paths |= {f'conv{number}_{place}': f'features.{index}' for place, index in enumerate(indices, 1)}
    return paths | {'fc6': 'fc6', 'fc7': 'fc7', 'fc8': 'head.primary'}


def matconvnet_vgg(entries: Mapping[str, np.ndarray], model: str = 'vgg16') -> Flat:
    """Converts the entries of a MatConvNet VGG to fer_jax's names and layout.

    Args:
      entries: `<layer>/filters` [h, w, in, out] and `<layer>/biases` (out numbers in any shape). The fully connected
        layers are convolutions: fc6 is 7x7x512x4096, fc7 and fc8 have one pixel.

    Returns:
      Path -> array: kernels [h, w, in, out], matrices [in, out] for a flattening with channels first, biases [out].

    Raises:
      UserError: an entry is not part of such a network.
    """
    layers = vgg_layers(model)
    named: Flat = {}
    for name, value in entries.items():
        layer, _, part = name.partition('/')
        if layer not in layers or part not in ('filters', 'biases') or (part == 'filters' and value.ndim != 4):
            raise UserError(
                f'{name!r} {list(value.shape)} is no entry of a MatConvNet {model}, which has <layer>/filters of four '
                f'dimensions and <layer>/biases for {", ".join(layers)}; is this the file of another network?'
            )
        if part == 'biases':
            named[f'{layers[layer]}.bias'] = value.reshape(-1)
        elif layer.startswith('fc'):
            named[f'{layers[layer]}.kernel'] = value.transpose(2, 0, 1, 3).reshape(-1, value.shape[3])
        else:
            named[f'{layers[layer]}.kernel'] = value
    return named
