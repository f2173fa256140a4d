"""dlib's serialisation of its face ResNet: what it writes is read, and nothing else is."""

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained import convert_file
from fer_jax.pretrained.readers import dlib_file
from fer_jax.utils import limits
from tests.real_weights import weight_file


def integer(value):
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | 0x80 * (value < 0)]) + abs(value).to_bytes(size, 'little')


def integers(*values):
    return b''.join(map(integer, values))


def text(value):
    return integer(len(value)) + value.encode()


def tensor(array, *sizes):
    return integers(2, *sizes) + array.astype('<f4').tobytes()


def serialised(arrays):
    """The file that dlib would write of these arrays, under the names that the reader gives them."""
    layers = list(dlib_file.list_layers())
    head = [integer(1), text('loss_metric_2'), integers(10737418, -28, 10066330, -24)]
    head += [integer(2 if layer.kind else 1) for layer in layers[:0:-1]]
    head += [integer(3), text('input_rgb_image_sized'), integers(8046642, -16, 7667777, -16, 6835274, -16, 150, 150)]
    alias, empty, ones = integers(1, 1, 1, 1, 1), tensor(np.zeros(0), 0, 0, 0, 0), integers(1, 0) * 4
    body = []
    for index, layer in enumerate(layers):
        if not layer.kind:
            continue
        own = [arrays[name] for leaf in ('kernel', 'scale', 'bias') if (name := f'{layer.path}.{leaf}') in arrays]
        values = np.concatenate([array.reshape(-1) for array in own]) if own else None
        settings = integers(*layer.settings)
        body.append(text(layer.kind))
        if layer.kind == 'fc_2':
            body += [settings, tensor(values, *layer.shape, 1, 1), alias, alias, integer(1), ones]
        elif layer.kind == 'con_4':
            body += [tensor(values, values.size, 1, 1, 1), settings, alias, alias, ones]
        elif layer.kind == 'affine_':
            body += [tensor(values, values.size, 1, 1, 1), alias, alias, integer(0)]
        else:
            body.append(settings)
        body += [b'110', empty, empty, empty, integer(1) if index == 0 else b'']
    return b''.join([*head, *body])


@pytest.fixture(scope='module')
def arrays():
    draw = np.random.default_rng(0)
    found = {}
    for layer in dlib_file.list_layers():
        if layer.kind in ('con_4', 'fc_2'):
            found[f'{layer.path}.kernel'] = draw.standard_normal(layer.shape, np.float32)
        if layer.kind == 'affine_':
            found[f'{layer.path}.scale'] = draw.standard_normal(layer.shape, np.float32)
        if layer.kind in ('con_4', 'affine_'):
            found[f'{layer.path}.bias'] = draw.standard_normal(layer.shape[0], np.float32)
    return found


@pytest.fixture(scope='module')
def data(arrays):
    return serialised(arrays)


def test_what_was_written_is_read(arrays, data, tmp_path):
    file = tmp_path / 'x.dat'
    file.write_bytes(data)
    weights = convert_file(file, 'dlib_resnet', source='x', licence='y')
    assert weights.preprocessing.size == 150 and not weights.stats and weights.metadata['head'] == 'none in the file'
    assert weights.params.keys() == arrays.keys()
    for path, leaf in arrays.items():
        leaf = leaf.transpose(2, 3, 1, 0) if leaf.ndim == 4 else leaf
        np.testing.assert_array_equal(weights.params[path], leaf, err_msg=path)


HUGE = bytes([8]) + b'\xff' * 8  # an integer


def replaced(old, new, *, last=False):
    def change(data):
        assert old in data
        start = data.rindex(old) if last else data.index(old)
        return data[:start] + new + data[start + len(old) :]

    return change


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda data: data[:16], 'ends after 16 bytes, where 13 more'),
        (lambda data: data[:-3], 'bytes, where 1 more are announced'),
        (lambda data: data[: len(data) // 2], 'more are announced'),
        (lambda data: data + b'\0', '1 bytes follow its last layer'),
        (replaced(text('con_4'), text('con_5')), "b'con_5' before byte [0-9,]+, expected 'con_4'"),
        (replaced(text('relu_'), text('htan_')), "expected 'relu_'"),
        (replaced(text('relu_'), HUGE), 'length of .relu_.: 18446744073709551615'),
        (replaced(integers(2, 4736, 1, 1, 1), integers(2, 4736) + HUGE * 3), 'conv1 has the shape .*expected 4736'),
        (replaced(integers(2, 4736, 1, 1, 1), integers(2, -4736, -1, 1, 1)), 'conv1 has the shape'),
        (replaced(integers(2, 0, 0, 0, 0), integers(2) + HUGE * 4), 'more are announced'),
        (replaced(integers(2, 0, 0, 0, 0), integers(7, 0, 0, 0, 0), last=True), 'version of a tensor: 7'),
        (replaced(b'110', b'11\0'), 'are no flags'),
        (replaced(integers(150, 150), integers(150, 112)), 'the size of images: 112'),
        (replaced(integer(3) + text('input_rgb_image_sized'), b'\x7f'), 'begins no integer'),
        (replaced(integers(32, 7, 7, 2, 2, 0, 0), integers(32, 7, 7, 1, 1, 3, 3)), 'conv1: 1 before byte'),
    ],
)
def test_another_file_is_refused_at_its_first_difference(data, change, message, tmp_path):
    file = tmp_path / 'x.dat'
    file.write_bytes(change(data))
    with pytest.raises(UserError, match=f"cannot be read as dlib's face ResNet .*({message})"):
        dlib_file.read_dlib(file)


def test_a_file_of_another_size_is_not_read(data, tmp_path):
    file = tmp_path / 'x.dat'
    file.write_bytes(data[:100])
    with file.open('r+b') as opened:
        opened.truncate(limits.DLIB_BYTES + 1)
    with pytest.raises(UserError, match='bytes, at most'):
        dlib_file.read_dlib(file)


def test_the_published_file_is_the_only_one_of_its_header(shared_data, tmp_path):
    """Of the bytes before the first parameter some are read over (the loss's numbers); no other change passes."""
    data = weight_file(shared_data, 'dlib_face_recognition_resnet_model_v1.dat').read_bytes()
    stream = dlib_file.Stream(data)
    assert len(dict(stream.parameters())) == 117
    draw = np.random.default_rng(0)
    refused = 0
    for position in draw.choice(0x160, 60, replace=False):
        changed = bytearray(data[:0x5000])
        changed[position] ^= 1 << draw.integers(8)
        with pytest.raises(ValueError, match=r'.') as caught:
            dict(dlib_file.Stream(bytes(changed)).parameters())
        refused += 'ends after' not in str(caught.value)
    assert refused > 40
