"""The networks that come with fer_jax."""

import json

import jax
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.runs import restore
from fer_jax.utils import cache, checked_files

LARGEST_TOGETHER = 16_000_000  # bytes


@pytest.mark.parametrize('labels', restore.RELEASES)
def test_each_is_whole_and_its_card_states_its_scores(labels):
    folder = restore.resolve_workdir(f'release:{labels}')
    names = checked_files.read_sums(folder)
    assert {'card.md', 'config.json', 'environment.json', 'results.json'} <= set(names)
    assert restore.FILE in checked_files.read_sums(folder / 'checkpoints')
    network, _, variables = restore.restore_selected(f'release:{labels}')
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    results = json.loads((folder / 'results.json').read_text(encoding='utf-8'))
    assert list(network.spec.classes['primary']) == results['classes']
    assert f'{100 * results["splits"]["test"]["accuracy"]:.2f} %' in (folder / 'card.md').read_text(encoding='utf-8')


def test_the_first_is_the_default_and_all_are_small(tmp_path, monkeypatch):
    assert restore.resolve_workdir('release') == restore.resolve_workdir(f'release:{restore.RELEASES[0]}')
    files = [path for path in (cache.PACKAGE / 'release').rglob('*') if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST_TOGETHER
    assert {path.relative_to(cache.PACKAGE / 'release').parts[0] for path in files} == set(restore.RELEASES)
    with pytest.raises(UserError, match='release:fer does not come with fer_jax; choose release:'):
        restore.resolve_workdir('release:fer')
    (tmp_path / 'release').mkdir()
    monkeypatch.chdir(tmp_path)
    assert not restore.resolve_workdir('release').is_absolute()  # a folder of that name is the user's
