import gc
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['FER_JAX_OFFLINE'] = '1'
# A program is compiled once for all tests, workers and processes that they start; `pytest --cache-clear` empties it.
PROGRAMS = Path(__file__).parents[1] / '.pytest_cache' / 'd' / 'xla'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(PROGRAMS))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
# Half of the time to compile, and programs that compute the same. FER_JAX_TEST_OPTIMIZED=1: as users compile them.
if os.environ.get('FER_JAX_TEST_OPTIMIZED', '0') != '1':
    os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if not (item.get_closest_marker('slow') or item.get_closest_marker('campaign')):
            item.add_marker('quick')


@pytest.fixture(scope='module', autouse=True)
def programs_are_let_go():
    """After each file: compiled programs of a hundred networks would fill the memory."""
    yield
    if jax := sys.modules.get('jax'):
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """The folder of real data sets (FER2013, CK+48, photographs, ImageNet samples)."""
    root = Path(os.environ.get('FER_JAX_TEST_DATA', Path(__file__).parents[2] / 'shared' / 'data'))
    if not root.is_dir():
        pytest.skip(f'no real data at {root}; set FER_JAX_TEST_DATA')
    return root


@pytest.fixture(scope='session')
def untrained(tmp_path_factory) -> Path:
    """A folder with a small network that has learnt nothing, in the form in which one is released."""
    import numpy as np

    from fer_jax import pretrained
    from fer_jax.models.network import ModelSpec, build
    from fer_jax.runs.restore import FILE

    classes = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
    spec = ModelSpec('resnet8_small', {'primary': classes}, 48, channels=1, mean=(0.5,), std=(0.25,))
    folder = tmp_path_factory.mktemp('untrained')
    (folder / 'checkpoints').mkdir()
    (folder / 'checkpoints' / 'model.json').write_text(spec.to_json())
    params, stats = ({path: np.asarray(leaf) for path, leaf in tree.items()} for tree in build(spec).init(0))
    preprocessing = pretrained.Preprocessing(spec.mean, spec.std)
    pretrained.save(
        folder / 'checkpoints' / FILE, pretrained.Weights(spec.name, params, stats, preprocessing, {'step': '7'})
    )
    return folder


@pytest.fixture(scope='session')
def faces(shared_data, tmp_path_factory) -> Path:
    """Three classes of CK+48, 90 images."""
    from tests.data.images import link_ck48

    return link_ck48(shared_data, tmp_path_factory.mktemp('faces'), ('happy', 'surprise', 'anger'), 30)


@pytest.fixture(scope='session')
def finished(faces, tmp_path_factory) -> tuple[Path, dict]:
    """The folder and the results of a run of two phases; not to be changed."""
    import fer_jax
    from tests.small_run import config_of

    workdir = tmp_path_factory.mktemp('runs') / 'whole'
    return workdir, fer_jax.train(config_of(faces), workdir)


@pytest.fixture(scope='session')
def of_resnet18(faces, tmp_path_factory) -> Path:
    """The folder of a run of a network that torchvision has; its head alone has learnt something."""
    import fer_jax
    from tests.small_run import config_of

    workdir = tmp_path_factory.mktemp('runs') / 'resnet18'
    config = config_of(faces)
    config.model.name = 'resnet18'
    config.phases = config.phases[:1]
    fer_jax.train(config, workdir)
    return workdir
