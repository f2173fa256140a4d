"""Output that nobody reads any more."""

import os
import subprocess
import sys

import pytest

WRITER = """
import sys
from fer_jax.utils.output import lasting_output
with lasting_output():
    print('first', flush=True)
    sys.stdin.readline()
    for number in range(20_000):
        print(number)
    print('to the terminal', file=sys.stderr, flush=True)
    open(sys.argv[1], 'w').write('to the end')
"""


@pytest.mark.parametrize('kind', ['pipe', 'terminal'])
def test_what_writes_goes_on_to_its_end(tmp_path, kind):
    """After `| head -1`, and on a terminal that was closed."""
    reader, writer = os.pipe() if kind == 'pipe' else os.openpty()
    command = [sys.executable, '-c', WRITER, str(tmp_path / 'end')]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writer, stderr=writer) as process:
        os.close(writer)
        assert os.read(reader, 5) == b'first'
        os.close(reader)
        process.communicate(b'go on\n')
    assert process.returncode == 0 and (tmp_path / 'end').read_text() == 'to the end'


def test_another_error_is_raised():
    code = 'from fer_jax.utils.output import lasting_output\nwith lasting_output():\n    print("x", flush=True)'
    with open('/dev/full', 'w') as full:
        done = subprocess.run([sys.executable, '-c', code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0 and 'No space left' in done.stderr
