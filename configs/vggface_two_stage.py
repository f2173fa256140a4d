"""Who first, then what they feel: pretraining on identities, then expressions from these weights, in two runs.

    fer-jax train --config vggface_two_stage:identities --workdir runs/identities
    fer-jax train --config vggface_two_stage:expression --workdir runs/expression \\
        --config.model.weights=runs/identities

The first learns to tell people apart, with dropout before its last layer, from images of each of them in every split:
the people who train the second alone, so that it is scored on people whom neither has seen.
The second learns expressions with focal loss: its head alone while the shared weights are fixed, then all of it, the
shared weights at a small rate. As they stand both use the synthetic faces. For a VGG16 that VGGFace2 has taught, add
the first line to the first and the second to both, and name the expressions' set with --config.data.name:

    --config.data.name=vggface2
    --config.model.name=vgg16_bn --config.model.image_size=224 --config.model.dropout=0.0

VGG16 has its dropout of 0.5 in fc6 and fc7.

Where a published network has learnt identities already, the second can begin from it without the first, or the first go
on from it (docs/reference/weights.md says where these files are):

    --config.model.name=mobilenet_v1_folded --config.model.weights=faceres-deep.json --config.model.image_size=96
    --config.model.name=dlib_resnet --config.model.weights=faces --config.model.image_size=96
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults


def get_config(stage: str = 'identities') -> ConfigDict:
    if stage not in ('identities', 'expression'):
        raise ValueError(f'{stage!r} is no stage; choose vggface_two_stage:identities or :expression')
    config = defaults.get_config()
    config.model.name = 'resnet18'
    config.model.weights = 'scratch'
    config.model.image_size = 64
    config.model.dropout = 0.5
    config.data.name = 'synthetic_faces'
    config.data.batch_size = 32
    config.data.augment = defaults.augment('light')
    config.parallel.devices = 2  # on CPU: two devices of one core each
    if stage == 'identities':
        config.data.label = 'subject'
        config.phases = (defaults.phase(epochs=10, learning_rate=2e-3, weight_decay=0.05, warmup_epochs=1.0),)
        return config
    config.model.weights = 'runs/identities'
    config.loss.name = 'focal'
    config.phases = (
        defaults.phase(epochs=3, rates=defaults.HEAD_ONLY, learning_rate=3e-3),
        defaults.phase(epochs=5, rates=defaults.backbone_rate(0.1), learning_rate=2e-3, weight_decay=0.05),
    )
    return config
