"""The fields of `data`: which images and labels, cut into which splits, and how they are varied in training."""

from fer_jax.config.choices import BALANCE, LABELS, PLACEMENTS, TARGETS
from fer_jax.config.field import Field

SOURCE = (
    Field('data.name', 'str', 'synthetic_faces', "prepared set, see docs/datasets.md; '' with dir or manifest"),
    Field('data.dir', 'str', '', 'folder of class folders of images'),
    Field('data.manifest', 'str', '', '.csv or .jsonl file that lists images'),
    Field('data.subject', 'regex', '', 'of data.dir: finds the person shown in the path of an image'),
    Field(
        'data.label', 'str', 'class', "'subject' tells who is shown; 'none' is for joint tasks without labels",
        choices=LABELS,
    ),
    Field('data.target', 'str', 'label', 'how the votes of several annotators become a target', choices=TARGETS),
    Field(
        'data.annotation', 'str', '', "further annotation to learn in place of classes, such as action_units; '' for "
        'none',
    ),
    Field(
        'data.canonical_classes', 'bool', True, 'of data.dir and data.manifest: Happiness, SAD and other spellings of '
        'an expression become its canonical name',
    ),
    Field(
        'data.rename', 'list of (str, str)', (), "(class, new name), such as ('contempt', 'neutral'); classes of one "
        'name become one',
    ),
    Field('data.drop_classes', 'list of str', (), 'classes, by their new names, whose examples are left out'),
    Field(
        'data.train_examples', 'int', 0, 'train on so many, chosen by a hash of their ids, classes keep their shares; '
        '0 for all', low=0, high=1_000_000_000,
    ),
    Field('data.splits.train', 'str', 'train', "the set's own name of the split that trains", needed=True),
    Field(
        'data.splits.validation', 'str', 'validation', "the set's own name of the split that selects the checkpoint"
    ),
    Field('data.splits.test', 'str', 'test', "the set's own name of the split that is scored at the end; '' for none"),
    Field(
        'data.folds', 'int', 0, 'cross-validation by subject where subjects are known: test on data.fold, select on '
        'the next; 0 for none', low=3, high=10_000, also=(0,),
    ),
    Field('data.fold', 'int', 0, 'fold that is tested on, counted from 0', low=0, high=9_999),
    Field(
        'data.split_seed', 'int', 0, 'of splits and folds that the set does not come with', low=0, high=(1 << 32) - 1
    ),
    Field('data.batch_size', 'int', 64, 'images of a training step, over all devices', low=1, high=1_000_000),
    Field('data.balance', 'str', 'none', "'classes' shows every class equally often", choices=BALANCE),
    Field(
        'data.placement', 'str', 'auto', "'device' keeps all images there, 'stream' decodes them batch by batch",
        choices=PLACEMENTS,
    ),
    Field('data.workers', 'int', 0, 'processes that decode a stream; 0 for threads', low=0, high=1024),
)  # fmt: skip

AUGMENT = (
    Field('data.augment.flip', 'float', 0.5, 'probability of a mirror image', low=0, high=1),
    Field(
        'data.augment.crop', 'float', 0.0, 'smallest share of the area that a random resized crop keeps; 0 for none',
        low=0, high=1,
    ),
    Field('data.augment.shift', 'float', 0.0, 'largest shift, as a share of the side', low=0, high=1),
    Field('data.augment.scale', 'float', 0.0, 'largest change of size, as a share', low=0, high=1),
    Field('data.augment.rotate', 'float', 0.0, 'largest angle, in degrees', low=0, high=180),
    Field('data.augment.shear', 'float', 0.0, 'largest tangent of the angle of lean', low=0, high=0.5),
    Field('data.augment.brightness', 'float', 0.0, 'largest change, as a share of the range 0..255', low=0, high=1),
    Field('data.augment.contrast', 'float', 0.0, 'largest change of the factor 1', low=0, high=1),
    Field('data.augment.saturation', 'float', 0.0, 'largest change of the factor 1', low=0, high=1),
    Field('data.augment.hue', 'float', 0.0, 'largest turn, as a share of the circle', low=0, high=0.5),
    Field('data.augment.grey', 'float', 0.0, 'probability that the colours are taken away', low=0, high=1),
    Field('data.augment.blur', 'float', 0.0, 'largest standard deviation of a Gaussian blur, in pixels', low=0, high=8),
    Field(
        'data.augment.noise', 'float', 0.0, 'largest standard deviation of Gaussian noise, as a share of 255',
        low=0, high=1,
    ),
    Field(
        'data.augment.erase', 'float', 0.0, "probability that a rectangle becomes the image's mean", low=0, high=1
    ),
    Field(
        'data.augment.erase_area', '(smallest, largest)', (0.02, 0.2), 'share of the image that the rectangle covers',
        above=0, high=1,
    ),
    Field(
        'data.augment.erase_aspect', '(smallest, largest)', (0.3, 3.3), 'height / width of the rectangle',
        above=0, high=100,
    ),
    Field(
        'data.augment.trivial', 'float', 0.0, 'probability that one more transformation, chosen at random, is strong',
        low=0, high=1,
    ),
    Field('data.augment.mixup', 'float', 0.0, 'alpha of the Beta distribution of mixup; 0 for none', low=0, high=16),
    Field('data.augment.cutmix', 'float', 0.0, 'alpha of the Beta distribution of CutMix; 0 for none', low=0, high=16),
)  # fmt: skip

DATA = SOURCE + AUGMENT
