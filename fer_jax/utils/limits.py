"""Limits of what every reader takes from a file. What is above one is refused before time or memory is spent on it.

docs/explanation/reliability.md shows them as a table. Limits of the web service are in `fer_jax.inference.uploads`.
"""

# Weights
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
DLIB_BYTES = 128 << 20  # of dlib's face ResNet, whose published file has 22 MB

# Images and videos
IMAGE_PIXELS = 100_000_000
IMAGE_BYTES = 256 << 20  # of an image file; 85 megapixels of RGB, not compressed
HEADER_SEGMENTS = 1_000  # markers of a JPEG and chunks of a PNG that are decoded in this process
SCAN_PIXELS = 1_000_000_000  # scans of a progressive JPEG times its pixels, where it is decoded in this process
MOST_SCAN_PIXELS = 5_000_000_000  # the same, where it is decoded at all
DECODING_SECONDS = 3.0  # of a processor, for one image that is decoded by a process of its own
DECODING_RATE = 20_000_000  # pixels for which a further second is given
DECODING_BYTES = 900 << 20  # of memory of that process, above what it has at its start
VIDEO_PIXELS = 36_000_000  # of one frame; 8K has 33 million
VIDEO_STREAMS = 64
VIDEO_GAP_BYTES = 256 << 20  # of a file between two packets, and before the first
VIDEO_READINGS = 4  # times the bytes of a file that its packets have

# Folders and archives of data
LINKED_ENTRIES = 100_000  # entries that are no images, below the links of a folder
ARCHIVE_MEMBERS = 500_000
ARCHIVE_DIRECTORY_BYTES = 32 << 20  # of the list of members of a zip
ARCHIVE_UNPACKED_BYTES = 512 << 20  # of a .tar.gz, which is held in memory
MEMBER_BYTES = 64 << 20  # of a file in an archive that is read whole
MEMBER_LINE_BYTES = 128 << 10

# Tables and texts
LINE_CHARACTERS = 1 << 20
TABLE_ROWS = 2_000_000
TABLE_COLUMNS = 1_000
TABLE_CHARACTERS = 128 << 20  # rows times the characters of the longest cell of a column
TABLE_CELLS = 20_000_000  # lines times columns, of a csv of boxes or predictions
TABLE_VOTES = 4_000_000  # rows times classes, where rows have votes for several
TABLE_BYTES = 512 << 20
PATH_CHARACTERS = 4_096
CELL_CHARACTERS = 1_000  # of a class, a subject, a group
WRONG_ROWS = 1_000  # after which a table is not read on
TEXT_BYTES = 64 << 20  # of a JSON file or a text that is read whole
ARRAY_BYTES = 1 << 30  # of all arrays of an npz file
CONFIG_BYTES = 1 << 20
CONFIG_VALUES = 10_000  # of a list
CONFIG_PHASES = 1_000
CONFIG_TASKS = 100
PATTERN_CHARACTERS = 1_000
PATTERN_BYTES = 1 << 20  # of memory of a compiled regular expression


class LimitError(ValueError):
    """Signals that a file is above a limit; the message names the limit."""


def check_limit(value: int, limit: int, unit: str) -> None:
    """Raises LimitError where `value` is above `limit`.

    Args:
      unit: what is counted, such as 'opcodes in its pickle'.
    """
    if value > limit:
        raise LimitError(f'it has {value:,} {unit}, at most {limit:,} are read')


def unpacked_limit(packed: int, most: int = FILE_BYTES) -> int:
    """Returns the number of bytes that a file of `packed` bytes may unpack to, at most `most`."""
    return min(most, max(UNPACKED_BYTES, UNPACKED_RATIO * packed))
