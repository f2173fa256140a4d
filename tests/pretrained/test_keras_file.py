"""Keras's HDF5 files: the layouts of its versions, and files made to harm."""

import random
import shutil

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained import convert_file, convert_keras, read_keras
from fer_jax.pretrained.convert import expected
from fer_jax.pretrained.locate import kind_of
from fer_jax.pretrained.readers import keras_file

h5py = pytest.importorskip('h5py')


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'x.h5'


def write_layers(group, layers):
    """Keras 1 and 2: {layer: {variable: array}}; a variable lies under its layer's group, by its whole name."""
    group.attrs['layer_names'] = [name.encode() for name in layers]
    for name, variables in layers.items():
        made = group.create_group(name)
        made.attrs['weight_names'] = [variable.encode() for variable in variables]
        for variable, value in variables.items():
            made[variable] = value


KERNEL, BIAS = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4), np.ones(4, np.float32)


@pytest.mark.parametrize('root', ['/', 'model_weights'])
def test_layer_groups_are_read(path, root):
    """The names of Keras 2 and 1, a layer without variables, and one whose name is a path, as in keras-vggface."""
    layers = {
        'conv': {'conv/kernel:0': KERNEL, 'conv/bias:0': BIAS},
        'relu': {},
        'block1_conv1': {'block1_conv1_W_1:0': KERNEL, 'block1_conv1_b_1:0': BIAS},
        'conv1/7x7_s2/bn': {'conv1/7x7_s2/bn/gamma:0': BIAS, 'conv1/7x7_s2/bn/moving_mean:0': BIAS},
        'dw': {'dw/depthwise_kernel:0': KERNEL},
    }
    with h5py.File(path, 'w') as file:
        write_layers(file.require_group(root), layers)
    found = read_keras(path)
    names = ['conv/kernel', 'conv/bias', 'block1_conv1/kernel', 'block1_conv1/bias']
    names += ['conv1/7x7_s2/bn/gamma', 'conv1/7x7_s2/bn/moving_mean', 'dw/depthwise_kernel']
    assert list(found) == names
    np.testing.assert_array_equal(found['block1_conv1/kernel'], KERNEL)


def test_a_long_list_of_layers_is_cut_into_several_attributes(path):
    with h5py.File(path, 'w') as file:
        write_layers(file, {'a': {'a/kernel:0': KERNEL}, 'b': {'b/kernel:0': KERNEL}})
        del file.attrs['layer_names']
        file.attrs['layer_names0'], file.attrs['layer_names1'] = [b'a'], [b'b']
    assert list(read_keras(path)) == ['a/kernel', 'b/kernel']


def write_numbered(path, layers):
    """Keras 3: {group: (layer, arrays)}."""
    with h5py.File(path, 'w') as file:
        for key, (name, arrays) in layers.items():
            group = file.create_group(f'layers/{key}/vars')
            if name:
                group.attrs['name'] = name
            for number, value in enumerate(arrays):
                group[str(number)] = value


def test_numbered_variables_are_named_by_their_layer(path):
    """A BatchNorm of three variables is one without gamma."""
    write_numbered(path, {
        'conv2d_1': ('conv', [KERNEL, BIAS]),
        'batch_normalization': ('bn', [BIAS, 2 * BIAS, 3 * BIAS]),
        'activation': ('relu', []),
    })  # fmt: skip
    found = read_keras(path)
    assert list(found) == ['bn/beta', 'bn/moving_mean', 'bn/moving_variance', 'conv/kernel', 'conv/bias']
    np.testing.assert_array_equal(found['bn/moving_variance'], 3 * BIAS)


@pytest.mark.parametrize(
    ('layers', 'message'),
    [
        ({'conv2d': ('', [KERNEL])}, 'no names'),
        ({'conv2d': ('c', [KERNEL]), 'conv2d_1': ('c', [KERNEL])}, 'there twice'),
        ({'activation': ('relu', [])}, 'no variables'),
    ],
)
def test_what_is_no_network_is_refused(path, layers, message):
    write_numbered(path, layers)
    with pytest.raises(UserError, match=message):
        read_keras(path)


def external_link(group, other):
    group['kernel:0'] = h5py.ExternalLink(str(other), 'x')


def soft_link(group, other):
    group['kernel:0'] = h5py.SoftLink('/layer/kernel:0')


def external_storage(group, other):
    group.create_dataset('kernel:0', (4,), 'f4', external=[(str(other), 0, 16)])


def virtual(group, other):
    layout = h5py.VirtualLayout((4,), 'f4')
    layout[:] = h5py.VirtualSource(str(other), 'x', (4,))
    group.create_virtual_dataset('kernel:0', layout)


def compressed(group, other):
    group.create_dataset('kernel:0', (10**9,), 'f4', chunks=(10**6,), compression='gzip')


def sparse(group, other):
    group.create_dataset('kernel:0', (10**12,), 'f4', chunks=(10**6,))


def words(group, other):
    group['kernel:0'] = 'words'


def subgroup(group, other):
    group.create_group('kernel:0')


@pytest.mark.parametrize(
    'make', [external_link, soft_link, external_storage, virtual, compressed, sparse, words, subgroup]
)
def test_only_arrays_in_the_file_are_read(path, tmp_path, make):
    other = tmp_path / 'other.h5'
    with h5py.File(other, 'w') as file:
        file['x'] = BIAS
    with h5py.File(path, 'w') as file:
        write_layers(file, {'layer': {}})
        file['layer'].attrs['weight_names'] = [b'kernel:0']
        make(file['layer'], other)
    with pytest.raises(UserError, match='cannot be read as weights'):
        read_keras(path)


def test_one_array_under_many_names_is_not_many_arrays(path):
    value = np.ones(100_000, np.float32)
    with h5py.File(path, 'w') as file:
        write_layers(file, {'a': {'a/kernel:0': value}})
        file.attrs['layer_names'] = [f'a{n}'.encode() for n in range(50)]
        for n in range(50):
            file[f'a{n}'] = file['a']
    with pytest.raises(UserError, match='more than the file holds'):
        read_keras(path)


def test_any_damage_is_refused_or_harmless(path):
    """With names of fixed length, as Keras 2 wrote them; in those of Keras 3 the HDF5 library can loop for ever."""
    with h5py.File(path, 'w') as file:
        write_layers(file, {'c': {'c/kernel:0': KERNEL, 'c/bias:0': BIAS}})
    whole, draw, read = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(whole))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            read += all(isinstance(array, np.ndarray) for array in keras_file._read(path).values())
        except UserError:
            continue
    assert 0 < read < 300
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError):
        keras_file._read(path)


def test_a_library_that_hangs_or_crashes_is_one_message(path, monkeypatch):
    with h5py.File(path, 'w') as file:
        write_layers(file, {'conv': {'conv/kernel:0': KERNEL, 'conv/bias:0': BIAS}})
    with monkeypatch.context() as patched, pytest.raises(UserError, match=r'is damaged: it is not read after 0\.001 s'):
        patched.setattr(keras_file, 'READ_SECONDS', 0.001)
        read_keras(path)
    with monkeypatch.context() as patched, pytest.raises(UserError, match='is damaged: the HDF5 library ends with 1'):
        patched.setattr(keras_file.sys, 'executable', shutil.which('false'))
        read_keras(path)
    assert list(read_keras(path)) == ['conv/kernel', 'conv/bias']


def test_the_kind_of_a_file_is_known_by_its_content(tmp_path):
    disguised = tmp_path / 'x.pth'
    write_numbered(disguised, {'conv2d': ('c', [KERNEL])})
    assert kind_of(disguised) == 'keras'
    with pytest.raises(UserError, match='not weights of resnet50_v1: .*missing'):
        convert_file(disguised, 'resnet50_v1', source='x', licence='none')
    (tmp_path / 'y.h5').write_bytes(b'PK')
    assert kind_of(tmp_path / 'y.h5') == 'torch'
    (tmp_path / 'z.h5').write_bytes(b'\x80\x02')
    assert kind_of(tmp_path / 'z.h5') == 'torch'


def entries_of(name, classes=7):
    """What Keras's ResNet or VGG with zeros everywhere would be read as, by way of the published layer names."""
    from fer_jax.pretrained.name_tables.keras_names import TABLES

    layers = [f'conv{n}_block{i}_{k}_{kind}' for n in range(2, 6) for i in range(1, 37) for k in range(4)
              for kind in ('conv', 'bn')]  # fmt: skip
    layers += ['conv1_conv', 'conv1_bn', 'predictions']
    paths = TABLES[name]['keras'].paths(layers)
    leaves = {'scale': 'gamma', 'mean': 'moving_mean', 'var': 'moving_variance', 'kernel': 'kernel'}
    places = {path: layer for layer, path in paths.items()}
    entries = {}
    for path, leaf in {k: v for tree in expected(name, classes) for k, v in tree.items()}.items():
        module, _, kind = path.rpartition('.')
        layer = places[module]
        kind = leaves.get(kind) or ('beta' if layer.endswith('bn') else 'bias')
        entries[f'{layer}/{kind}'] = np.broadcast_to(np.float32(0), leaf.shape)
    return entries


@pytest.mark.slow
def test_conversion_is_strict():
    whole = entries_of('resnet50_v1')
    assert convert_keras(whole, 'resnet50_v1', metadata={}).metadata['classes'] == '7'
    with pytest.raises(UserError, match=r'1 missing \(layer1.0.bn2.mean\)'):
        convert_keras(
            {k: v for k, v in whole.items() if k != 'conv2_block1_2_bn/moving_mean'}, 'resnet50_v1', metadata={}
        )
    beside = convert_keras(whole | {'spurious/kernel': KERNEL}, 'resnet50_v1', metadata={})
    assert beside.metadata['left'] == '1 other arrays (spurious/kernel)'
    with pytest.raises(UserError, match='they fit resnet50_v1: use --model resnet50_v1'):
        convert_keras(whole, 'resnet101_v1', metadata={})
    with pytest.raises(UserError, match=r'conv1.kernel has the shape \[1, 1, 3, 4\], expected \[7, 7, 3, 64\]'):
        convert_keras(whole | {'conv1_conv/kernel': KERNEL}, 'resnet50_v1', metadata={})
    with pytest.raises(UserError, match='no Keras file of resnet18 is known; those of vgg16'):
        convert_keras(whole, 'resnet18', metadata={})


@pytest.fixture
def keras(monkeypatch):
    from tests.keras_parity import import_keras

    return import_keras(monkeypatch)


@pytest.mark.parametrize('suffix', ['h5', 'keras', 'weights.h5'])
@pytest.mark.parametrize(
    'kind', ['without a top', 'in a Sequential', 'in a Sequential in a Sequential', 'with an LSTM']
)
def test_keras_models_without_their_head_and_inside_others(keras, kind, suffix, tmp_path):
    layers = keras.layers
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    base.get_layer('block5_conv3').bias.assign(np.arange(512.0))
    inputs = keras.Input((32, 32, 3))
    tail = [layers.GlobalAveragePooling2D(), layers.Dense(7, name='emotion')]
    if kind == 'without a top':
        model = base
    elif kind == 'with an LSTM':
        recurrent = layers.LSTM(4)(layers.Reshape((1, 512))(base.output))
        model = keras.Model(base.input, layers.Dense(7)(recurrent))
    else:
        model = keras.Sequential([inputs, layers.RandomFlip(), base, *tail])
        if kind == 'in a Sequential in a Sequential':
            model = keras.Sequential([inputs, model])
    path = tmp_path / f'x.{suffix}'
    model.save_weights(path) if suffix == 'weights.h5' else model.save(path)
    weights = convert_file(path, 'vgg16', source='x', licence='none')
    np.testing.assert_array_equal(weights.params['features.28.bias'], np.arange(512.0))
    assert len(weights.params) == 26 and weights.metadata['head'] == 'none in the file; fc6 and fc7 not taken'
    assert (kind == 'without a top') == ('left' not in weights.metadata)
    assert kind.startswith('in') == ('prefix' in weights.metadata)


def test_a_larger_network_is_not_taken_for_a_smaller_one(keras, tmp_path):
    keras.applications.VGG19(weights=None, include_top=False, input_shape=(32, 32, 3)).save(tmp_path / 'x.h5')
    with pytest.raises(UserError, match=r'6 not used \(block3_conv4/kernel.*they fit vgg19: use --model vgg19'):
        convert_file(tmp_path / 'x.h5', 'vgg16', source='x', licence='none')


def test_groups_linked_to_themselves_end(path):
    with h5py.File(path, 'w') as file:
        group = file.create_group('layers')
        for name in 'ab':
            group[name] = group
    with pytest.raises(UserError, match='groups in groups, at most 64 are read'):
        read_keras(path)
