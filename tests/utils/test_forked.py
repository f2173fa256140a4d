"""Scripts that start worker processes."""

import sys
import types

import pytest

from fer_jax.errors import UserError
from fer_jax.utils.forked import check_main_guard


@pytest.mark.parametrize(
    ('source', 'fits'),
    [
        ('import fer_jax\nfer_jax.train(config, workdir)\n', False),
        ("if __name__ == '__main__':\n    fer_jax.train(config, workdir)\n", True),
        ('# \u4f60\u597d\nif multiprocessing.parent_process() is None:\n    fer_jax.train(config, workdir)\n', True),
    ],
)
def test_a_script_that_its_workers_would_run_again_is_refused(tmp_path, monkeypatch, source, fits):
    script = tmp_path / 'train.py'
    script.write_text(source, encoding='utf-8')
    monkeypatch.setitem(sys.modules, '__main__', types.SimpleNamespace(__file__=str(script)))
    if fits:
        check_main_guard()
    else:
        with pytest.raises(UserError, match="train.py, .* below `if __name__ == '__main__':`, or set data.workers=0"):
            check_main_guard()


def test_a_notebook_has_no_script(monkeypatch):
    monkeypatch.setitem(sys.modules, '__main__', types.SimpleNamespace())
    check_main_guard()
