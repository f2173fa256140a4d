"""What every data set's reader gives, and the one TFDS builder that writes it as array_record, without TensorFlow."""

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data.tables.table import UNSPLIT
from fer_jax.errors import UserError
from fer_jax.utils import progress


class Example(NamedTuple):
    """An example of a set: its image, label and annotations.

    Attributes:
      id: unique in the set and the same at every reading: a relative path, a row.
      split: the published split, 'train', 'validation' or 'test'; 'all' in a set that has none.
      image: encoded as the source has it, PNG, JPEG, ...
      label: position in the classes; -1 where there is none.
      subject: the person shown, '' where unknown.
      subsets: parts of the split that are scored apart, such as 'clean'.
      targets: name -> float32 [K], one for each name in `Reading.targets`.
    """

    id: str
    split: str
    image: bytes
    label: int = -1
    subject: str = ''
    subsets: tuple[str, ...] = ()
    targets: Mapping[str, np.ndarray] = {}


@dataclass(frozen=True)
class Reading:
    """An opened source: its classes, splits and examples.

    Attributes:
      classes: in the set's own order, by their canonical names (`data.names`).
      splits: split -> number of its images, in the order in which they are to be written.
      examples: split -> its examples, read while they are written.
      published: split -> the official count of each class, or of the whole split.
      subsets, targets: what examples carry; targets with the names of their columns.
      image_shape: of every image, None where it varies.
      notes: what a user should know of this copy, such as files that it lacks.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, int]
    examples: Callable[[str], Iterable[Example]]
    published: Mapping[str, tuple[int, ...] | int] = field(default_factory=dict)
    subsets: tuple[str, ...] = ()
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    image_shape: tuple[int | None, int | None, int] = (None, None, 3)
    notes: tuple[str, ...] = ()


class FaceSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builds any set with TFDS; its features follow from the reading."""

    def __init__(self, name: str, version: str, reading: Reading, root: Path):
        self.name, self.VERSION, self._reading = name, tfds.core.Version(version), reading
        super().__init__(data_dir=str(root), file_format='array_record')

    def _info(self) -> tfds.core.DatasetInfo:
        reading = self._reading
        features: dict[str, Any] = {
            'id': tfds.features.Text(),
            'image': tfds.features.Image(shape=reading.image_shape),
            'subject': tfds.features.Text(),
        }
        if reading.classes:
            features['label'] = tfds.features.ClassLabel(names=list(reading.classes))
        features |= {f'subset_{name}': np.bool_ for name in reading.subsets}
        for name, columns in reading.targets.items():
            features[f'target_{name}'] = tfds.features.Tensor(shape=(len(columns),), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                published={split: np.atleast_1d(count).tolist() for split, count in reading.published.items()},
                targets={name: list(columns) for name, columns in reading.targets.items()},
                notes=list(reading.notes),
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        splits = self._reading.splits.items()  # TFDS refuses an empty one
        return {UNSPLIT if split == 'all' else split: self._records(split, count) for split, count in splits if count}

    def _records(self, split: str, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        examples = progress.bar(self._reading.examples(split), f'{self.name}: {split}', count)
        for number, example in enumerate(examples):
            record: dict[str, Any] = {'id': example.id, 'image': example.image, 'subject': example.subject}
            if self._reading.classes:
                record['label'] = example.label
            record |= {f'subset_{name}': name in example.subsets for name in self._reading.subsets}
            record |= {f'target_{name}': np.asarray(value, np.float32) for name, value in example.targets.items()}
            yield number, record

    def _generate_examples(self, **options: Any) -> Any:
        raise NotImplementedError('each split has its own generator')


def write_prepared(name: str, version: str, reading: Reading, root: Path) -> Path:
    """Writes the set under `root`, whole or not at all, and returns its folder.

    Raises:
      UserError: the disk is full.
    """
    tfds.disable_progress_bar()  # `_records` draws its own
    builder = FaceSet(name, version, reading, root)
    folder = Path(builder.data_path)
    for remains in folder.parent.glob('incomplete.*'):  # of a preparation that was killed
        shutil.rmtree(remains, ignore_errors=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it speaks of downloads
            builder.download_and_prepare(file_format='array_record')
    except (OSError, RuntimeError) as error:  # array_record's writer raises the latter
        if not any(os.strerror(reason) in str(error) for reason in (errno.ENOSPC, errno.EDQUOT)):
            raise
        raise UserError(f'{root} is full: nothing of {name} is kept; make room or name another place') from None
    return folder
