"""The fields of `data`: which images and labels, cut into which splits, and how they are varied in training."""

from fer_jax.config.choices import BALANCE, LABELS, PLACEMENTS, TARGETS
from fer_jax.config.field import Field

SOURCE = (
    Field(
        'data.name', 'str', 'synthetic_faces',
        "prepared data set, see docs/reference/datasets.md; '' with dir or manifest",
    ),
    Field('data.dir', 'str', '', 'folder of class folders of images'),
    Field('data.manifest', 'str', '', '.csv or .jsonl file that lists images'),
    Field(
        'data.subject', 'regex', '',
        'for data.dir: regular expression that finds the subject in the path of an image',
    ),
    Field(
        'data.label', 'str', 'class',
        "what is learnt: the class, the 'subject', or 'none' for joint tasks without labels",
        choices=LABELS,
    ),
    Field('data.target', 'str', 'label', 'training target from the votes of several annotators', choices=TARGETS),
    Field('data.annotation', 'str', '', "annotation to learn instead of classes, such as action_units; '' for none"),
    Field(
        'data.canonical_classes', 'bool', True,
        'for data.dir and data.manifest: expressions in any spelling, such as Happiness, get their canonical '
        'name',
    ),
    Field(
        'data.rename', 'list of (str, str)', (),
        "pairs (class, new name), such as ('contempt', 'neutral'); classes with the same new name are merged",
    ),
    Field('data.drop_classes', 'list of str', (), 'classes, by their new names, whose examples are left out'),
    Field(
        'data.train_examples', 'int', 0,
        'number of training images, chosen by a hash of their ids with equal class shares; 0 for all',
        low=0, high=1_000_000_000,
    ),
    Field('data.splits.train', 'str', 'train', "the data set's name of the training split", needed=True),
    Field(
        'data.splits.validation', 'str', 'validation',
        "the data set's name of the split that selects the checkpoint",
    ),
    Field('data.splits.test', 'str', 'test', "the data set's name of the split that is scored at the end; '' for none"),
    Field(
        'data.folds', 'int', 0,
        'number of cross-validation folds, by subject if subjects are known: test on data.fold, select on the'
        ' next; 0 for none',
        low=3, high=10_000, also=(0,),
    ),
    Field('data.fold', 'int', 0, 'the fold to test on, counted from 0', low=0, high=9_999),
    Field(
        'data.shares', 'list of float', (),
        '(validation, test): shares of the images, or of the people, if the data set has no splits; empty for'
        " (0.15, 0.15), and 0.1 of a data set's training split",
        above=0, below=1,
    ),
    Field('data.split_seed', 'int', 0, 'seed of splits and folds that fer_jax makes', low=0, high=(1 << 32) - 1),
    Field(
        'data.batch_size', 'int', 64,
        'global batch size: images of a training step, over all devices',
        low=1, high=1_000_000,
    ),
    Field('data.balance', 'str', 'none', "'classes' draws every class equally often", choices=BALANCE),
    Field(
        'data.placement', 'str', 'auto',
        "'device' keeps all images in device memory, 'stream' decodes them at each step",
        choices=PLACEMENTS,
    ),
    Field('data.workers', 'int', 0, 'number of processes that decode a stream; 0 for threads', low=0, high=1024),
)  # fmt: skip

AUGMENT = (
    Field('data.augment.flip', 'float', 0.5, 'probability of mirroring an image', low=0, high=1),
    Field(
        'data.augment.crop', 'float', 0.0, 'smallest share of the area that a random resized crop keeps; 0 for none',
        low=0, high=1,
    ),
    Field('data.augment.shift', 'float', 0.0, 'maximum shift, as a share of the side', low=0, high=1),
    Field('data.augment.scale', 'float', 0.0, 'maximum change of size, as a share', low=0, high=1),
    Field('data.augment.rotate', 'float', 0.0, 'maximum angle in degrees', low=0, high=180),
    Field('data.augment.shear', 'float', 0.0, 'maximum tangent of the shear angle', low=0, high=0.5),
    Field('data.augment.brightness', 'float', 0.0, 'maximum change of brightness, as a share of 255', low=0, high=1),
    Field('data.augment.contrast', 'float', 0.0, 'maximum change of the contrast factor 1', low=0, high=1),
    Field('data.augment.saturation', 'float', 0.0, 'maximum change of the saturation factor 1', low=0, high=1),
    Field('data.augment.hue', 'float', 0.0, 'maximum change of hue, as a share of the colour circle', low=0, high=0.5),
    Field('data.augment.grey', 'float', 0.0, 'probability of converting to grey', low=0, high=1),
    Field('data.augment.blur', 'float', 0.0, 'maximum standard deviation of a Gaussian blur, in pixels', low=0, high=8),
    Field(
        'data.augment.noise', 'float', 0.0,
        'maximum standard deviation of Gaussian noise, as a share of 255',
        low=0, high=1,
    ),
    Field(
        'data.augment.erase', 'float', 0.0,
        'probability of random erasing: a rectangle becomes the mean of the image',
        low=0, high=1,
    ),
    Field(
        'data.augment.erase_area', '(smallest, largest)', (0.02, 0.2),
        'range of the share of the image that the rectangle covers',
        above=0, high=1,
    ),
    Field(
        'data.augment.erase_aspect', '(smallest, largest)', (0.3, 3.3),
        'range of height / width of the rectangle',
        above=0, high=100,
    ),
    Field(
        'data.augment.trivial', 'float', 0.0,
        'probability of one more strong transformation, chosen at random (TrivialAugment)',
        low=0, high=1,
    ),
    Field('data.augment.mixup', 'float', 0.0, 'alpha of the Beta distribution of mixup; 0 for none', low=0, high=16),
    Field('data.augment.cutmix', 'float', 0.0, 'alpha of the Beta distribution of CutMix; 0 for none', low=0, high=16),
)  # fmt: skip

DATA = SOURCE + AUGMENT
