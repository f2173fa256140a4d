"""TensorBoard's files."""

import subprocess
import sys


def test_writing_does_not_import_pytorch_where_it_is_installed(tmp_path):
    code = (
        'import sys; from pathlib import Path; from fer_jax.reporting.tensorboard import TensorBoard\n'
        f'board = TensorBoard(Path({str(tmp_path)!r})); board.add_scalar("x", 1.0, 1); board.close()\n'
        'sys.exit("torch" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
    assert list(tmp_path.glob('events*'))
