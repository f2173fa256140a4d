"""The names that a config may give where it has to choose: of networks, losses, optimizers and the like."""

# Lists: `register_network` and `register_loss` add to them.
NETWORKS = [
    'resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152', 'resnet50_v1', 'resnet101_v1', 'resnet152_v1',
    'resnet50_caffe', 'senet50_caffe', 'resnet8_small', 'resnet12_small', 'resnet16_small', 'resnet50_v2',
    'resnet101_v2', 'resnet152_v2', 'vgg11', 'vgg11_bn', 'vgg13', 'vgg13_bn', 'vgg16', 'vgg16_bn', 'vgg19', 'vgg19_bn',
    'efficientnet_lite0', 'efficientnet_lite1', 'efficientnet_lite2', 'efficientnet_b0', 'efficientnet_b2',
    'tf_efficientnet_b0', 'tf_efficientnet_b2', 'inception_resnet_v1', 'inception_resnet_v2',
    'mobilenet_v1', 'mobilenet_v1_075', 'mobilenet_v1_050', 'mobilenet_v1_025', 'mobilenet_v1_folded',
    'dlib_resnet', 'googlenet',
]  # fmt: skip
HEADS = ('linear', 'mlp')
DTYPES = ('float32', 'bfloat16')

LABELS = ('class', 'subject', 'none')
TARGETS = ('label', 'probability', 'cross_entropy', 'multi_target')
BALANCE = ('none', 'classes')
PLACEMENTS = ('auto', 'device', 'stream')

LOSSES = [
    'cross_entropy', 'focal', 'logit_adjusted', 'generalised_cross_entropy', 'multi_target', 'kl_divergence',
    'binary_cross_entropy', 'squared_error',
]  # fmt: skip
CLASS_WEIGHTS = ('none', 'inverse', 'effective')
POSITIVE_WEIGHTS = ('none', 'inverse')

OPTIMIZERS = ('sgd', 'adam', 'adamw', 'radam', 'lion', 'lamb', 'muon')
BATCH_NORM = ('by_rates', 'frozen', 'train')
SCHEDULES = ('constant', 'step', 'exponential', 'cosine', 'one_cycle', 'plateau')
OPTIMIZER_STATE = ('replicated', 'sharded')
SELECTABLE = ('accuracy', 'balanced_accuracy', 'macro_f1', 'nll')
ON_NONFINITE = ('stop', 'skip')
