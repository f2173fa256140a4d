"""The fields of `model`, `loss` and `distil`: the network, and what it is to minimise."""

from fer_jax.config.choices import CLASS_WEIGHTS, DTYPES, HEADS, LOSSES, NETWORKS, POSITIVE_WEIGHTS
from fer_jax.config.field import Field

MODEL = (
    Field('model.name', 'str', 'resnet50', 'network, see docs/reference/networks.md', choices=NETWORKS),
    Field(
        'model.weights', 'str', 'imagenet',
        "initial weights: 'scratch', published weights (docs/reference/weights.md), a file, or the folder of "
        'a run',
        needed=True,
    ),
    Field(
        'model.partial', 'bool', False,
        'use weights of another network where path and shape agree; the rest starts with random weights',
    ),
    Field('model.head', 'str', 'linear', "'linear', or 'mlp': two hidden layers of 4096 with dropout", choices=HEADS),
    Field(
        'model.head_inputs', 'list of str', (),
        'stages that a linear head reads, each averaged, such as layer3 and layer4; empty for the last stage',
    ),
    Field('model.dropout', 'float', 0.0, 'dropout rate before the linear head', low=0, below=1),
    Field(
        'model.stochastic_depth', 'float', 0.0,
        'drop rate of the last residual block; earlier blocks have lower rates, from 0',
        low=0, below=1,
    ),
    Field('model.image_size', 'int', 224, 'side in pixels of the square input images', low=8, high=4096),
    Field('model.channels', 'int', 3, 'channels of the input images: 1 is grey, 3 is colour', choices=(1, 3)),
    Field('model.dtype', 'str', 'float32', 'type of the computation; parameters stay float32', choices=DTYPES),
    Field(
        'model.frozen_dtype', 'str', 'float32', 'type of frozen kernels: bfloat16 takes half the memory, and rounds '
        'them', choices=DTYPES,
    ),
)  # fmt: skip

LOSS = (
    Field('loss.name', 'str', 'cross_entropy', 'loss, see docs/how-to/optimize.md', choices=LOSSES),
    Field(
        'loss.label_smoothing', 'float', 0.0, 'share of each target that is spread evenly over the classes',
        low=0, below=1,
    ),
    Field(
        'loss.class_weights', 'choice or list of float', 'none',
        'weight of each class in the loss: computed from the training counts, or one number per class',
        above=0, high=1_000_000, choices=CLASS_WEIGHTS,
    ),
    Field(
        'loss.positive_weights', 'choice or list of float', 'none',
        'for binary_cross_entropy: weight of present attributes, or one number per attribute',
        above=0, high=1_000_000, choices=POSITIVE_WEIGHTS,
    ),
    Field('loss.beta', 'float', 0.999, "beta of the class weights 'effective'", low=0, below=1),
    Field('loss.gamma', 'float', 2.0, 'for focal: exponent that reduces the loss of easy examples', low=0, high=100),
    Field('loss.alpha', 'float', 1.0, 'for focal: factor of all classes', above=0, high=1_000_000),
    Field(
        'loss.tau', 'float', 1.0,
        'for logit_adjusted: factor of the log class shares that are added to the logits',
        low=0, high=100,
    ),
    Field(
        'loss.q', 'float', 0.7,
        'for generalised_cross_entropy: near 0 it is cross-entropy, at 1 the absolute error',
        above=0, high=1,
    ),
    Field(
        'loss.consistency', 'float', 0.0,
        'strength, such as 5, of attention consistency with the mirror image, for noisy labels; 0 for none',
        low=0, high=1_000_000,
    ),
)  # fmt: skip

DISTIL = (
    Field(
        'distil.teachers', 'list of str', (),
        'folders of finished runs that know these classes: the teachers of distillation',
    ),
    Field(
        'distil.temperature', 'float', 4.0,
        'temperature that divides the logits of teacher and student',
        above=0, high=1000,
    ),
    Field('distil.weight', 'float', 0.5, 'weight of the distillation loss; the labels have the rest', low=0, high=1),
    Field('distil.stages', 'list of str', (), "stages whose features are matched to the teachers', such as layer4"),
    Field('distil.hints', 'float', 1.0, 'weight of the loss of these features', low=0, high=1_000_000),
)  # fmt: skip
