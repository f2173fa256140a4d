"""The classic transfer recipe: VGG16's ImageNet features frozen, a fresh 4096-4096 classifier with dropout 0.5.

    fer-jax train --config vgg16_transfer
    fer-jax train --config vgg16_transfer --config.data.dir=DIR
    fer-jax train --config vgg16_transfer --config.model.weights=vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5
    fer-jax train --config vgg16_transfer:joint

SGD, batch 128, cross-entropy, the best checkpoint by validation accuracy. FER2013 is to be prepared, see
docs/reference/datasets.md. The weights are torchvision's (docs/reference/weights.md); the third command takes a file,
here Keras's, for BGR images. Features of the frozen blocks are computed once.

The last is its joint form: source (who is shown, of VGGFace2) and target (expressions) share the last block and the
classifier but for its last layer, and every step takes a batch of each; alpha * target loss + beta * source loss is
minimised, beta / alpha being joint.source.weight, alpha the learning rate's share.
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults


def get_config(form: str = 'target') -> ConfigDict:
    if form not in ('target', 'joint'):
        raise ValueError(f'{form!r} is no form; choose vgg16_transfer or vgg16_transfer:joint')
    config = defaults.get_config()
    config.model.name = 'vgg16'
    config.model.head = 'mlp'
    config.data.name = 'fer2013'
    config.data.batch_size = 128
    config.checkpoint.select = 'validation/accuracy'
    joint = form == 'joint'
    if joint:
        config.joint.source = defaults.task(1.0, name='vggface2', label='subject', batch_size=128)
    config.phases = (
        defaults.phase(
            epochs=20,
            rates=defaults.train_from('block5', 'head') if joint else defaults.HEAD_ONLY,
            optimizer='sgd',
            learning_rate=1e-3,
            momentum=0.9,
            schedule='constant',
        ),
    )
    return config
