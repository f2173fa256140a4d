"""Groups images without labels by what a trained network makes of them: proposals to look at, not labels.

    python -m fer_jax.group_faces --workdir runs/x --data faces --groups 7 --output groups

k-means on what enters the network's head, each image's features scaled to length 1 and kept in the feature cache. The
folder `--output` gets groups.csv, a manifest with the label group-00 (the largest), group-01, ..., and a sheet
group-00.png for each, the images nearest to its centre first. Rename the groups that show one expression, remove the
rest, and train on the manifest.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np

from fer_jax.cli import run_and_exit, run_command
from fer_jax.data import dataset
from fer_jax.data.imaging.image_files import printable
from fer_jax.data.loading.loader import SplitLoader
from fer_jax.data.quality.unreadable import split_unreadable
from fer_jax.data.sources import folder, manifest
from fer_jax.distributed import sharding
from fer_jax.errors import UserError
from fer_jax.feature_cache import loader as feature_loader
from fer_jax.feature_cache.recipe import boundary_spec
from fer_jax.models.network import build
from fer_jax.models.parameters import Variables
from fer_jax.runs import restore
from fer_jax.runs.model_file import read_spec
from fer_jax.utils import cache, image_grid
from fer_jax.utils.paths import path_argument

MOST_SHOWN = 48  # images of a sheet


def main(argv: list[str] | None = None) -> int:
    """Clusters unlabelled images as the arguments say, and prints the sizes of the groups.

    Args:
      argv: arguments; None takes those of the process.

    Returns:
      The exit status: 0, or 2 where the input is wrong or images cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog='fer-jax group', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--workdir', required=True, type=path_argument, help='of a finished run')
    parser.add_argument(
        '--data', required=True, type=path_argument, help='a folder with images of faces anywhere below it'
    )
    parser.add_argument('--groups', type=int, default=7)
    parser.add_argument('--output', required=True, type=path_argument, help='folder to write')
    parser.add_argument('--seed', type=int, default=0, help='of the first centres')
    arguments = parser.parse_args(argv)

    def command() -> int:
        options = {'groups': arguments.groups, 'seed': arguments.seed}
        sizes, unreadable = write_groups(arguments.workdir, arguments.data, output=arguments.output, **options)
        print(f'{arguments.output}/groups.csv and a sheet a group: ' + ', '.join(f'{size:,}' for size in sizes))
        for name, reason in unreadable.items():
            print(f'fer_jax: left out: {printable(name)} ({reason})', file=sys.stderr)
        return 2 if unreadable else 0

    return run_command(command)


def write_groups(
    workdir: Path, directory: Path, *, groups: int, output: Path, seed: int = 0
) -> tuple[list[int], dict[str, str]]:
    """Clusters the images below a folder, and writes a manifest and one contact sheet per group.

    Args:
      workdir: folder of a finished run.
      directory: folder with images.
      groups: number of groups.
      output: folder to write to.
      seed: seed of the first centres.

    Returns:
      The sizes of the groups, the largest first, and id -> reason for the images that cannot be read.

    Raises:
      UserError: `groups` is out of range, or a group stays empty.
    """
    whole, spec = folder.unlabelled(directory), read_spec(workdir)
    table, unreadable = split_unreadable(whole)
    if not 2 <= groups <= len(table):
        raise UserError(f'--groups={groups}; {directory} has {len(table)} images: give 2 up to that')
    data = dataset.load_dataset(
        label='none',
        dir=str(directory),
        splits={'train': 'all'},
        image_size=spec.image_size,
        channels=spec.channels,
        root=cache.root() / 'datasets',
        held_out=whole.digests[np.isin(whole.ids, list(unreadable))],
    )
    split = data.splits['train']
    rows = embeddings(workdir, data, SplitLoader(split, placement='auto', mesh=sharding.make_mesh(), role='train'))
    member, apart = grouped(rows, groups, seed)
    output.mkdir(parents=True, exist_ok=True)
    names = tuple(f'group-{number:02d}' for number in range(groups))
    for number, name in enumerate(names):
        here = np.flatnonzero(member == number)
        shown = here[np.argsort(apart[here], kind='stable')][:MOST_SHOWN]
        labels = [f'{apart[index]:.2f} away' for index in shown]
        image_grid.write_image_grid(
            output / f'{name}.png', [str(split.ids[index]) for index in shown], labels, split.read(shown)
        )
    proposed = dataclasses.replace(table, classes=names, labels=member.astype(np.int32))
    manifest.write_manifest(output / 'groups.csv', proposed, np.ones(len(table), bool), directory)
    return np.bincount(member, minlength=groups).tolist(), unreadable


def embeddings(workdir: Path, data: dataset.Dataset, images: SplitLoader) -> np.ndarray:
    """Computes the input of the network's head for every image, scaled to length 1.

    Args:
      workdir: folder of the run.
      data: the data set of the images.
      images: its images, placed on the devices.

    Returns:
      float32 [N, D].
    """
    spec, weights, mesh = read_spec(workdir), restore.weights_of_run(workdir), sharding.make_mesh()
    network = build(spec)
    own = Variables(dict(weights.params), dict(weights.stats))
    variables = jax.device_put(own, sharding.replicated(mesh))
    feature_spec = boundary_spec(network, 'head', spec.image_size)
    rows = feature_loader.make_feature_loader(
        network, feature_spec, variables, images, fingerprint=data.fingerprint, role='train', mesh=mesh
    ).features
    flat = np.asarray(rows, np.float32).reshape(len(rows), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def grouped(rows: np.ndarray, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters rows by k-means, with groups numbered by decreasing size.

    Args:
      rows: float32 [N, D].
      groups: number of groups.
      seed: seed of the first centres.

    Returns:
      (int [N], the group of each row; float [N], its distance from the centre of the group).

    Raises:
      UserError: a group has no rows.
    """
    from scipy.cluster.vq import ClusterError, kmeans2

    try:
        if len({hash(row.tobytes()) for row in rows}) < groups:
            raise ClusterError('fewer images differ')
        centres, member = kmeans2(rows.astype(np.float64), groups, iter=100, minit='++', seed=seed, missing='raise')
    except ClusterError as error:
        raise UserError(
            f'--groups={groups}: a group stays empty ({error}); give a smaller number, or another --seed'
        ) from None
    order = np.argsort(-np.bincount(member, minlength=groups), kind='stable')
    number = np.empty(groups, int)
    number[order] = np.arange(groups)
    return number[member], np.linalg.norm(rows - centres[member], axis=1)


if __name__ == '__main__':
    run_and_exit(main)
