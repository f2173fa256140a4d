"""ResNet-18 tells attributes, a sigmoid each: the action units of the synthetic faces, or CelebA's forty.

    fer-jax train --config resnet18_attributes
    fer-jax train --config resnet18_attributes --config.data.name=celeb_a \\
        --config.data.annotation=attributes --config.model.image_size=128

The second needs CelebA prepared, see docs/reference/datasets.md. Images are normalised by the mean and std of the
training split.
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model.name = 'resnet18'
    config.model.weights = 'scratch'
    config.model.image_size = 64
    config.data.name = 'synthetic_faces'
    config.data.annotation = 'action_units'
    config.data.batch_size = 32
    config.data.augment = defaults.augment(flip=0.5, crop=0.7, brightness=0.2, contrast=0.2, saturation=0.2, erase=0.5)
    config.loss.name = 'binary_cross_entropy'
    config.parallel.devices = 2  # on CPU: two devices of one core each
    config.phases = (
        defaults.phase(
            epochs=10, optimizer='adam', learning_rate=3e-4, schedule='step', step_epochs=5.0, step_factor=0.5
        ),
    )
    return config
