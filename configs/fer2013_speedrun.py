"""FER2013 on a clock: what a CPU of two cores learns from nothing in a quarter of an hour, or in an hour.

    python -m fer_jax.main --config configs/fer2013_speedrun.py:15 --workdir runs/speedrun
    python -m fer_jax.evaluate --workdir runs/speedrun --tta flip

The form is the minutes that it is meant for: `:15`, `:60`; `:gpu_1` and `:gpu_5` are for one GPU.

Result of `:15`, seed 0, on 2 cores of an AMD EPYC (Zen 4): test 64.56 % [63.0, 66.1], with flips 65.62 % [64.0, 67.2]
of 3,589, after 21.1 minutes, imports and compilation included. The others were not run: no GPU was at hand.

Fewer pixels first: a step at 36 px costs half of one at 48, and the coarse half of what there is to learn is there.
"""

from ml_collections import ConfigDict

from configs import default

# form: (network, image size, of it in the first phase, epochs of each phase, batch size, on a CPU)
FORMS = {
    '15': ('resnet8_small', 48, 36, 8, 6, 128, True),
    '60': ('resnet12_small', 48, 36, 20, 15, 128, True),
    'gpu_1': ('resnet18', 64, 48, 10, 8, 256, False),
    'gpu_5': ('resnet34', 64, 48, 40, 20, 256, False),
}


def get_config(form: str = '15') -> ConfigDict:
    if form not in FORMS:
        raise ValueError(f'{form!r} is no form; choose configs/fer2013_speedrun.py:{" or :".join(FORMS)}')
    name, size, smaller, first, second, batch_size, on_cpu = FORMS[form]
    config = default.get_config()
    config.model.name = name
    config.model.weights = 'scratch'
    config.model.image_size = size
    config.model.channels = 1
    config.model.dtype = 'float32' if on_cpu else 'bfloat16'
    config.data.name = 'fer2013'
    config.data.batch_size = batch_size
    config.data.augment = default.augment('light')
    config.parallel.devices = 2 if on_cpu else 0  # on CPU: two devices of one core each
    config.checkpoint.every = 2.0
    shared = {'learning_rate': 2.5e-3, 'weight_decay': 0.1, 'ema': 0.998}
    config.phases = (
        default.phase(epochs=first, image_size=smaller, schedule='constant', warmup_epochs=1.0, **shared),
        default.phase(epochs=second, schedule='cosine', **shared),
    )
    return config
