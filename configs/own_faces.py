"""Faces of your own in class folders: what suits their number is chosen, and said in the first lines.

    fer-jax train --data DIR
    fer-jax train --data DIR --config.data.subject='^[^/]*/([a-z]+)_'  # the person, from the path: happy/anna_01.jpg

The first is `fer-jax train --config own_faces --config.data.dir=DIR`. `config.auto` lists the fields that
`fer_jax.config.own_faces.choose` sets by the number of images, people and classes. A field that a flag or this file
gives stays as it is. config.json of the run has what was chosen, and the same command goes on with that.
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults, own_faces


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.auto = own_faces.FIELDS
    config.loss.label_smoothing = 0.1
    config.log_every = 20
    config.phases = (defaults.phase(rates=defaults.HEAD_ONLY), defaults.phase())
    return config
