"""Chooses the fields that configs/own_faces.py leaves open, by the number of images, people and classes."""

import math
from typing import Any, NamedTuple

from fer_jax.config.defaults import FER

FEW_PEOPLE = 30  # people, of whom a test split of 15 % has so few that its score says little
FEWEST_FOLDS, MOST_FOLDS = 3, 5
HELD_OUT = 0.3  # share of the images that select and test, as `data.tables.splitting` deals them
FEW_IMAGES = 700  # training images, below which a frozen network with a new head is the better one
MIDDLE_STAGES = ['blocks3', 'blocks4', 'blocks5']  # whose averages say more of expressions than the last stage's
EPOCHS_OF_HEAD, CACHED_VIEWS = 40.0, 8
EPOCHS_OF_1000 = 14.0  # of all stages with 1,000 training images; with more images they fall with the square root
FEWEST_EPOCHS, MOST_EPOCHS = 4, 20
EVALUATIONS = 5  # of the last phase: more of them would choose a checkpoint by luck
FIELDS = (
    'model.name', 'model.weights', 'model.image_size', 'model.channels', 'model.dropout',
    'model.head_inputs', 'phases[0].cache_views',
    'data.folds', 'data.batch_size', 'phases[0].epochs', 'phases[0].learning_rate', 'phases[1].epochs',
    'phases[1].learning_rate', 'phases[1].weight_decay', 'checkpoint.every', *(f'data.augment.{name}' for name in FER),
)  # fmt: skip


class Facts(NamedTuple):
    """Holds the facts about a set of faces that are known before anything is trained.

    Attributes:
      images: images with a label.
      people: different people; None where they are unknown.
      classes: number of classes.
      own_train: images of the set's own training split; None where it comes without splits.
      lite0: whether ImageNet's weights of EfficientNet-Lite0 are installed.
      release: name, image size and channels of the network that comes with fer_jax.
      accelerator: whether there is a GPU or a TPU.
    """

    images: int
    people: int | None
    classes: int
    own_train: int | None
    lite0: bool
    release: tuple[str, int, int]
    accelerator: bool


class Choice(NamedTuple):
    """Fields that are chosen for one reason: {path: value}."""

    reason: str
    fields: dict[str, Any]


def choose(facts: Facts) -> list[Choice]:
    """Chooses the fields of a config that suit a set of faces.

    The numbers are those that did best on small parts of FER2013 and on CK+, see docs/how-to/freeze.md.

    Args:
      facts: what is known of the set.

    Returns:
      The choices in the order in which they are told.
    """
    return [_network(facts), _splits(facts), *_training(facts)]


def _network(facts: Facts) -> Choice:
    if facts.lite0:
        size = 128 if facts.accelerator else 96
        fields = {'model.name': 'efficientnet_lite0', 'model.weights': 'imagenet', 'model.image_size': size}
        return Choice("ImageNet's weights of EfficientNet-Lite0 are installed", fields | {'model.dropout': 0.2})
    name, size, channels = facts.release
    fields = {'model.name': name, 'model.weights': 'release', 'model.image_size': size, 'model.channels': channels}
    return Choice('no weights of ImageNet are installed, so it starts from the network that comes with fer_jax', fields)


def _splits(facts: Facts) -> Choice:
    if facts.own_train is not None:
        return Choice("the set's own splits", {})
    if facts.people is None:
        return Choice(
            '15 % of the images select and 15 % test. Who is shown is unknown: images of one person in two splits make '
            "the score too good; --config.data.subject='PATTERN' finds the person in the path of an image",
            {},
        )
    if not (folds := _folds(facts)):
        return Choice(f'15 % of the {facts.people:,} people select and 15 % test', {})
    return Choice(
        f'{facts.people} people are too few for one test split: each of {folds} runs tests others (--folds all)',
        {'data.folds': folds},
    )


def _folds(facts: Facts) -> int:
    """Returns the number of folds; 0 for one split into training, validation and test images."""
    few = facts.own_train is None and facts.people is not None and FEWEST_FOLDS <= facts.people < FEW_PEOPLE
    return min(MOST_FOLDS, facts.people or 0) if few else 0


def _training(facts: Facts) -> list[Choice]:
    folds = _folds(facts)
    trained = facts.own_train or facts.images * ((folds - 2) / folds if folds else 1 - HELD_OUT)
    augment = {f'data.augment.{name}': value for name, value in FER.items()}
    reason = 'mirror images, shifts, turns, light and erased patches, against learning the images by heart'
    return [_schedule(trained, facts.lite0), Choice(reason, augment)]


def _schedule(trained: float, lite0: bool) -> Choice:
    if trained < FEW_IMAGES:
        fields: dict[str, Any] = {
            'data.batch_size': 16 if trained < 200 else 32,
            'phases[0].epochs': EPOCHS_OF_HEAD,
            'phases[0].learning_rate': 4e-3,
            'phases[0].cache_views': CACHED_VIEWS,
            'phases[1].epochs': 0.0,
            'checkpoint.every': EPOCHS_OF_HEAD / EVALUATIONS,
        }
        if lite0:
            fields['model.head_inputs'] = MIDDLE_STAGES
        return Choice(
            f'about {trained:,.0f} training images are too few to change the network: all stages stay frozen, a head '
            'learns from the middle ones, and there is no second phase',
            fields,
        )
    epochs = float(round(min(max(EPOCHS_OF_1000 * math.sqrt(1000 / trained), FEWEST_EPOCHS), MOST_EPOCHS)))
    return Choice(
        f'about {trained:,.0f} training images: the head alone first, then all stages; more epochs for fewer images',
        {
            'data.batch_size': 32 if trained < 5000 else 64,
            'phases[0].epochs': 1.0,
            'phases[0].learning_rate': 4e-3,
            'phases[1].epochs': epochs,
            'phases[1].learning_rate': 2e-3,
            'phases[1].weight_decay': 0.02,
            'checkpoint.every': float(max(1, round(epochs / EVALUATIONS))),
        },
    )
