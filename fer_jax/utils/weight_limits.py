"""Limits of what the readers of weights take from a file. What is above one is refused before memory is spent on it."""

FILE_BYTES = 8 << 30  # the largest network here has 1.1 GB
OPCODES = 3_000_000  # of one pickle, and what copying inside it costs; a checkpoint with its optimizer has 200,000
INTEGER_BYTES = 64  # of one integer in a pickle
ARGUMENTS = 16  # of one call in a pickle
DIMENSIONS = 32  # of one array
NESTING = 64  # dictionaries in dictionaries, modules in modules, groups in groups
MEMBERS = 100_000  # of an archive, of a MATLAB file, arrays of a file
NAME_CHARACTERS = 1_000  # of one array's name
DIRECTORY_BYTES = 16 << 20  # of the list of members that a zip archive has
UNPACKED_BYTES = 128 << 20  # that any packed file may have; a larger one at most UNPACKED_RATIO times its packed size
UNPACKED_RATIO = 10  # weights are noise, which packing hardly makes smaller
UNPACKINGS = 3  # a zip in a gzip in a zip
HDF5_SECONDS = 5.0  # for the first reading of a Keras file, and as much again for each HDF5_BYTES of it
HDF5_BYTES = 256 << 20


class LimitError(ValueError):
    """Signals that a file is above a limit; the message names the limit."""


def check_limit(value: int, limit: int, unit: str) -> None:
    """Raises LimitError where `value` is above `limit`.

    Args:
      unit: what is counted, such as 'opcodes in its pickle'.
    """
    if value > limit:
        raise LimitError(f'it has {value:,} {unit}, at most {limit:,} are read')


def unpacked_limit(packed: int) -> int:
    """Returns the number of bytes that a file of `packed` bytes may unpack to."""
    return min(FILE_BYTES, max(UNPACKED_BYTES, UNPACKED_RATIO * packed))
