"""Labeled Faces in the Wild (Huang et al. 2007), and any set of identity folders like it."""

from pathlib import Path

from fer_jax.data.sets.builder import Reading
from fer_jax.data.sets.identities import read_folders

VERSION = '1.0.0'
PUBLISHED = {'all': 13_233}  # of 5,749 people


def read(source: Path) -> Reading:
    """Reads `Aaron_Eckhart/Aaron_Eckhart_0001.jpg`, all in one split.

    Raises:
      UserError: there are no such folders.
    """
    return read_folders(source, (), PUBLISHED)
