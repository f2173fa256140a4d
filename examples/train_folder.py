"""Train on a folder of class folders: python train_folder.py data runs/mine

data/happy/ben_07.jpg, data/sad/anna_01.jpg, ...: one folder per class. 15 % become the validation split and 15 % the
test split.
"""

import sys

import fer_jax
from fer_jax.config import defaults

data, workdir = sys.argv[1:]
config = fer_jax.get_config('quickstart')  # EfficientNet-Lite0 with ImageNet weights
config.data.dir = data
config.data.augment = defaults.augment('fer')
config.phases = (
    defaults.phase(epochs=3, rates=defaults.HEAD_ONLY, learning_rate=4e-3),
    defaults.phase(epochs=10, rates=defaults.backbone_rate(0.3), learning_rate=1e-3, weight_decay=1e-4),
)
results = fer_jax.train(config, workdir)

test = results['splits']['test']
low, high = test['accuracy_ci95']
print(f'accuracy {test["accuracy"]:.1%}, 95 % interval {low:.1%} to {high:.1%}, {test["n"]} images')
print(f'the report is in {workdir}/report.html')
