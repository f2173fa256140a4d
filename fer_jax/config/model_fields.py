"""The fields of `model`, `loss` and `distil`: the network, and what it is to minimise."""

from fer_jax.config.choices import CLASS_WEIGHTS, DTYPES, HEADS, LOSSES, NETWORKS, POSITIVE_WEIGHTS
from fer_jax.config.field import Field

MODEL = (
    Field('model.name', 'str', 'resnet50', 'network, see docs/models.md', choices=NETWORKS),
    Field(
        'model.weights', 'str', 'imagenet', "'scratch', published weights (docs/weights.md), a file, or the folder of "
        'a run', needed=True,
    ),
    Field(
        'model.partial', 'bool', False, 'weights of a smaller or larger network: what agrees is taken, the rest starts '
        'fresh',
    ),
    Field('model.head', 'str', 'linear', "'mlp' is 4096, 4096, dropout", choices=HEADS),
    Field(
        'model.head_inputs', 'list of str', (), 'stages that a linear head reads, each averaged, such as layer3 and '
        'layer4; empty for the last',
    ),
    Field('model.dropout', 'float', 0.0, 'dropout rate before the linear head', low=0, below=1),
    Field(
        'model.stochastic_depth', 'float', 0.0, 'rate at which the last residual block is left out, from 0 for the '
        'first', low=0, below=1,
    ),
    Field(
        'model.image_size', 'int', 224, 'side in pixels of the square images that the network sees', low=8, high=4096
    ),
    Field('model.channels', 'int', 3, 'of the images: 1 is grey, 3 is colour', choices=(1, 3)),
    Field('model.dtype', 'str', 'float32', 'type of the computation; parameters stay float32', choices=DTYPES),
    Field(
        'model.frozen_dtype', 'str', 'float32', 'type of frozen kernels: bfloat16 takes half the memory, and rounds '
        'them', choices=DTYPES,
    ),
)  # fmt: skip

LOSS = (
    Field('loss.name', 'str', 'cross_entropy', 'loss, see docs/training.md', choices=LOSSES),
    Field(
        'loss.label_smoothing', 'float', 0.0, 'share of each target that is spread evenly over the classes',
        low=0, below=1,
    ),
    Field(
        'loss.class_weights', 'choice or list of float', 'none', 'factor of each class in the loss, from the training '
        'counts or one number a class', above=0, high=1_000_000, choices=CLASS_WEIGHTS,
    ),
    Field(
        'loss.positive_weights', 'choice or list of float', 'none', 'of binary_cross_entropy: factor of the terms of '
        'present attributes, or one number an attribute', above=0, high=1_000_000, choices=POSITIVE_WEIGHTS,
    ),
    Field('loss.beta', 'float', 0.999, 'of the class weights called effective', low=0, below=1),
    Field('loss.gamma', 'float', 2.0, 'of focal: exponent that plays down what is told well', low=0, high=100),
    Field('loss.alpha', 'float', 1.0, 'of focal: factor of all classes', above=0, high=1_000_000),
    Field('loss.tau', 'float', 1.0, 'of logit_adjusted: how far the class shares move the logits', low=0, high=100),
    Field(
        'loss.q', 'float', 0.7, 'of generalised_cross_entropy: towards cross-entropy near 0, the absolute error at 1',
        above=0, high=1,
    ),
    Field(
        'loss.consistency', 'float', 0.0, 'strength, such as 5, at which attention is to be that of the mirror image, '
        'for labels that are partly wrong; 0 for none', low=0, high=1_000_000,
    ),
)  # fmt: skip

DISTIL = (
    Field('distil.teachers', 'list of str', (), 'folders of finished runs that know these classes, to learn from'),
    Field('distil.temperature', 'float', 4.0, 'divides the logits of teacher and student', above=0, high=1000),
    Field(
        'distil.weight', 'float', 0.5, 'share of the teachers in the loss, the labels have the rest', low=0, high=1
    ),
    Field('distil.stages', 'list of str', (), "teachers' stages whose outputs a further head learns, such as layer4"),
    Field('distil.hints', 'float', 1.0, "factor of that head's squared error", low=0, high=1_000_000),
)  # fmt: skip
