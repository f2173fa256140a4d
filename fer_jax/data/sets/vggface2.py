"""VGGFace2 (Cao et al. 2018): 3.31 million images of 9,131 people, 8,631 of them for training, 500 for testing."""

from pathlib import Path

from fer_jax.data.sets.builder import Reading
from fer_jax.data.sets.identities import read_folders

VERSION = '1.0.0'
PUBLISHED = {'train': 3_141_890, 'test': 169_396}


def read(source: Path) -> Reading:
    """Reads `train/n000002/0001_01.jpg` and `test/n000001/...`, or identities with train_list.txt and test_list.txt.

    Nobody stands in both.

    Raises:
      UserError: there are no such folders.
    """
    return read_folders(source, ('train', 'test'), PUBLISHED)
