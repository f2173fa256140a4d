"""The fields of a config that may be meant by a name that is none: `lr` is `phases[i].learning_rate`."""

import difflib
from collections.abc import Sequence

MOST_LIKELY = 3  # paths that a message names
# field -> what timm, Keras, fastai and others call it
OTHER_NAMES = {
    'learning_rate': ('lr', 'base_lr', 'max_lr', 'lr_max', 'eta'),
    'epochs': ('epoch', 'num_epochs', 'n_epochs', 'max_epochs', 'n_epoch', 'steps'),
    'weight_decay': ('wd', 'decay', 'l2'),
    'optimizer': ('opt', 'optim', 'optimiser'),
    'schedule': ('sched', 'scheduler', 'lr_scheduler', 'lr_schedule'),
    'warmup_epochs': ('warmup', 'warmup_steps'),
    'clip': ('clip_grad', 'grad_clip', 'clipnorm', 'gradient_clip_val'),
    'ema': ('model_ema', 'ema_decay', 'use_ema'),
    'rates': ('freeze', 'frozen', 'freeze_layers', 'trainable'),
    'stop_after': ('early_stopping', 'early_stop'),
    'data.batch_size': ('bs', 'batch', 'batchsize', 'b', 'train_batch_size'),
    'data.dir': ('data_dir', 'data_path', 'datadir', 'dataset', 'data', 'train_dir', 'root', 'path'),
    'data.workers': ('num_workers', 'n_workers'),
    'data.folds': ('cv', 'k_folds', 'n_folds', 'kfold'),
    'data.shares': ('val_split', 'valid_pct', 'validation_split', 'test_size', 'split'),
    'data.augment.flip': ('hflip', 'fliplr', 'horizontal_flip'),
    'data.augment.rotate': ('degrees', 'rotation', 'rotation_range'),
    'data.augment.erase': ('reprob', 'random_erasing'),
    'model.name': ('model', 'arch', 'network', 'backbone', 'architecture', 'model_name'),
    'model.weights': ('pretrained', 'ckpt', 'initial_checkpoint', 'checkpoint_path', 'finetune'),
    'model.image_size': ('img_size', 'imgsz', 'input_size', 'resolution', 'image_shape', 'size'),
    'model.dropout': ('drop', 'dropout_rate', 'drop_rate'),
    'model.stochastic_depth': ('drop_path', 'drop_path_rate', 'drop_connect'),
    'model.dtype': ('amp', 'fp16', 'bf16', 'half', 'precision', 'mixed_precision'),
    'loss.label_smoothing': ('smoothing',),
    'loss.name': ('criterion', 'loss_fn'),
    'parallel.devices': ('gpus', 'num_gpus', 'gpu', 'device', 'devices', 'n_gpu'),
    'checkpoint.keep': ('max_to_keep', 'checkpoint_hist', 'save_total_limit'),
    'seed': ('random_seed', 'manual_seed', 'random_state'),
    'wandb': ('project', 'wandb_project', 'log_wandb'),
    'workdir': ('output', 'out', 'outdir', 'output_dir', 'logdir', 'log_dir', 'save_dir', 'run_dir', 'resume'),
}
MEANT = {other: name for name, others in OTHER_NAMES.items() for other in others}


def likely_paths(given: str, paths: Sequence[str]) -> list[str]:
    """Returns the paths that may be meant by another one, the likeliest first.

    Args:
      given: a name or path that is none of `paths`, such as 'batch-size', 'lr' or 'data.lr'.
      paths: what there is, such as 'data.batch_size', 'phases[0].learning_rate', or flags such as 'workdir'.
    """
    given = given[:80].lower().replace('-', '_')
    name = given.rpartition('.')[2]
    meant = MEANT.get(given) or MEANT.get(name) or name
    same = [path for path in paths if path == meant or path.endswith(f'.{meant}')]
    ends = {path: path.rpartition('.')[2] for path in paths}
    alike = difflib.get_close_matches(meant, set(ends.values()), 1)
    near = [path for path in paths if ends[path] in alike]
    groups = (same,) if len(same) == 1 else (same, near) if same or near else (paths,)
    ordered = [path for group in groups for path in difflib.get_close_matches(given, group, MOST_LIKELY, 0.0)]
    return list(dict.fromkeys(ordered))[:MOST_LIKELY]
