"""FER2013 on a clock: what is learnt in a quarter of an hour or an hour on two cores, or in minutes on a GPU.

    fer-jax train --config fer2013_speedrun:15 --workdir runs/speedrun
    fer-jax evaluate --workdir runs/speedrun --tta flip

The form is the minutes that it is meant for: `:15` and `:60` train an EfficientNet-Lite0 from ImageNet on a CPU,
`:gpu_1` does on one GPU, where `:gpu_5` trains a ResNet-34 from nothing; `:scratch` is a small ResNet from nothing.

Results, seed 0, one view and with flips, of the 3,589 of PrivateTest, from the command to the score, on 2 cores of an
AMD EPYC (Zen 4): `:15` 66.82 % [65.3, 68.3], 67.46 % [65.9, 69.0], 14.0 minutes; `:60` 69.24 % [67.7, 70.7], 69.71 %
[68.2, 71.2], 52.2 minutes; `:scratch` 64.56 % [63.0, 66.1], 65.62 % [64.0, 67.2], 21.3 minutes. Those of a GPU were not
run: none was at hand.

Networks that start from nothing see fewer pixels first: a step at 36 px costs half of one at 48, and the coarse half of
what there is to learn is there.
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults

LITE0 = 'efficientnet_lite0'
# form: (network, epochs and pixels of each phase, batch size)
FORMS = {
    '15': (LITE0, ((3.2, 96),), 64),
    '60': (LITE0, ((9.0, 112),), 64),
    'scratch': ('resnet8_small', ((8.0, 36), (6.0, 48)), 128),
    'gpu_1': (LITE0, ((8.0, 96),), 128),
    'gpu_5': ('resnet34', ((40.0, 48), (20.0, 64)), 256),
}


def get_config(form: str = '15') -> ConfigDict:
    if form not in FORMS:
        raise ValueError(f'{form!r} is no form; choose fer2013_speedrun:{" or :".join(FORMS)}')
    name, phases, batch_size = FORMS[form]
    config = defaults.get_config()
    config.model.name = name
    config.model.image_size = phases[-1][1]
    config.model.dtype = 'bfloat16' if form.startswith('gpu') else 'float32'
    config.data.name = 'fer2013'
    config.data.batch_size = batch_size
    config.data.augment = defaults.augment('fer' if form == '60' else 'light')
    config.checkpoint.every = 2.0
    config.parallel.devices = 2 if form == 'scratch' else 0
    if name == LITE0:
        config.model.dropout = 0.2
        config.loss.label_smoothing = 0.1
        shared = {'learning_rate': 4e-3, 'weight_decay': 0.02}
        rise = 0.3
    else:
        config.model.weights = 'scratch'
        config.model.channels = 1
        shared = {'learning_rate': 2.5e-3, 'weight_decay': 0.1, 'ema': 0.998}
        rise = 1.0
    *coarse, (last, _) = phases
    config.phases = (
        *(
            defaults.phase(epochs=epochs, image_size=size, schedule='constant', warmup_epochs=rise, **shared)
            for epochs, size in coarse
        ),
        defaults.phase(epochs=last, schedule='cosine', warmup_epochs=0.0 if coarse else rise, **shared),
    )
    return config
