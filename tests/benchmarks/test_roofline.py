"""Bounds of a GPU's speed, computed from traced steps."""

import argparse

import pytest

from scripts.benchmarks import roofline, steps_jax

CASE = 'resnet8_small@32x64'


def test_operations_of_a_forward_pass_are_those_that_xla_counts():
    step = roofline.work_of_step('resnet8_small@128x2', 'infer', 'float32')  # large: XLA leaves zeros of padding out
    given = argparse.Namespace(network='resnet8_small', size=128, dtype='float32')
    assert sum(work.flops for work in step) / 2 == pytest.approx(steps_jax.forward_flops(given), rel=0.1)


def test_training_takes_three_passes_and_a_faster_gpu_or_half_the_bytes_raises_the_bound():
    steps = {part: roofline.work_of_step(CASE, part, 'float32') for part in roofline.PARTS}
    forward, training = (sum(work.flops for work in steps[part]) for part in ('infer', 'train'))
    assert 2.5 < training / forward < 3.1  # the images have no gradient
    rates = [
        roofline.bound(CASE, 'train', 'float32', gpu, steps['train'])['images_per_second'] for gpu in roofline.GPUS
    ]
    assert rates == sorted(rates)
    halved = [roofline.Work(work.flops, work.bytes / 2) for work in steps['train']]
    assert roofline.bound(CASE, 'train', 'float32', 'H100 SXM', halved)['images_per_second'] > rates[1]
