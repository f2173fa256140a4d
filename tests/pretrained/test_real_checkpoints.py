"""Files as training scripts, timm, Lightning and pickle write them: what is taken of them and what is left."""

import argparse
import collections
import datetime
import gzip
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from fer_jax import convert_weights, pretrained
from fer_jax.errors import UserError
from fer_jax.pretrained.locate import describe_conversion
from tests.lazy import lazy
from tests.torch_reference import timm_model, torchvision_model

torch = lazy('torch', optional=True)


@pytest.fixture(scope='module')
def module():
    return torchvision_model('resnet18', classes=7)


@pytest.fixture(scope='module')
def other():
    return torchvision_model('resnet18', classes=7, seed=1)


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def convert(path, model='resnet18', **options):
    return pretrained.convert_file(path, model, source='x', licence='none', **options)


def save(tmp_path, content, name='x.pth', **options):
    torch.save(content, tmp_path / name, **options)
    return tmp_path / name


def check(weights, state, head=True):
    """Compares two arrays of the body, of its statistics and of the head with the state dict."""
    np.testing.assert_array_equal(weights.params['conv1.kernel'], state['conv1.weight'].numpy().transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(weights.stats['layer4.1.bn2.var'], state['layer4.1.bn2.running_var'].numpy())
    assert len(weights.params) + len(weights.stats) == (102 if head else 100)
    if head:
        np.testing.assert_array_equal(weights.params['head.primary.kernel'], state['fc.weight'].numpy().T)
        assert weights.metadata['classes'] == '7'
    else:
        assert 'classes' not in weights.metadata


class Recorder:
    """A class of a training script, which the file names and nobody has."""

    def __init__(self):
        self.history, self.last = [1, 2], torch.ones(3)


class State(collections.OrderedDict):
    pass


WRAPPERS = {
    'tutorial': (lambda s: {'epoch': 3, 'model_state_dict': s, 'optimizer_state_dict': {'state': {0: {}}}, 'loss': 0.3},
                 'model_state_dict.'),
    'DataParallel': (lambda s: {'state_dict': prefixed('module.', s)}, 'state_dict.module.'),
    'compile': (lambda s: prefixed('_orig_mod.', s), '_orig_mod.'),
    'compile and DataParallel': (lambda s: prefixed('_orig_mod.module.', s), '_orig_mod.module.'),
    'averaged': (lambda s: prefixed('module.', s) | {'n_averaged': torch.tensor(3)}, 'module.'),
    'nested': (lambda s: {'net': {'weights': {'last': s}}}, 'net.weights.last.'),
    'a pair': (lambda s: (s, {'lr': 0.1}), '0.'),
    'beside numbers': (lambda s: {**s, 'epoch': 3}, None),
    'numpy arrays': (lambda s: {name: value.numpy() for name, value in s.items()}, None),
    'Parameters': (lambda s: {name: torch.nn.Parameter(value.float()) for name, value in s.items()}, None),
    'a subclass of OrderedDict': (State, None),
    'a defaultdict': (lambda s: collections.defaultdict(dict, {'model': s}), 'model.'),
    'a module registered twice': (lambda s: {'state_dict': prefixed('model.', s) | prefixed('backbone.', s)},
                                  'state_dict.model.'),
    'a compiled stage': (lambda s: {n.replace('layer1.', 'layer1._orig_mod.'): v for n, v in s.items()}, None),
    'of SparK': (lambda s: {'arch': 'resnet18', 'module': s, 'is_pretrain': True}, 'module.'),
    'Lightning around a wrapper': (lambda s: {'state_dict': prefixed('model.model.backbone.', s)},
                                   'state_dict.model.model.backbone.'),
    'FSDP': (lambda s: prefixed('_fsdp_wrapped_module.', s), '_fsdp_wrapped_module.'),
    'the same averages beside': (lambda s: {'model': s, 'ema': {n: v.clone() for n, v in s.items()}}, 'model.'),
    'class names of numpy': (lambda s: {'model': s, 'classes': np.array(['a', 'b'])}, 'model.'),
    'without counts of batches': (lambda s: {n: v for n, v in s.items() if 'num_batches' not in n}, None),
    'channels last': (lambda s: {n: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v
                                 for n, v in s.items()}, None),
    'metrics and a loss beside': (lambda s: {'state_dict': prefixed('model.', s) | {'criterion.weight': torch.ones(7)}},
                                  'state_dict.model.'),
}  # fmt: skip


# from public issues of timm, torchvision, Lightning, SparK, OpenTAD, EfficientFace and EmotiEffLib
@pytest.mark.parametrize('kind', WRAPPERS)
def test_the_state_dict_is_found_in_wrappers(kind, module, tmp_path):
    wrap, prefix = WRAPPERS[kind]
    weights = convert(save(tmp_path, wrap(module.state_dict())))
    check(weights, module.state_dict())
    assert weights.metadata.get('prefix') == prefix
    assert prefix is None or f"names without '{prefix}'" in describe_conversion(weights)


@pytest.mark.parametrize('zipped', [True, False])
def test_objects_beside_the_state_dict_stay_inert(module, tmp_path, zipped):
    optimizer = torch.optim.Adam(module.parameters())
    content = {
        'state_dict': module.state_dict(), 'best': np.float64(0.7), 'args': argparse.Namespace(lr=1, when=np.int64(3)),
        'recorder': Recorder(), 'date': datetime.datetime(2020, 1, 1), 'optimizer': optimizer,
        'rng': torch.get_rng_state(),
        'numpy_rng': np.random.get_state(), 'names': {'angry', 'happy'}, 'path': tmp_path,
    }  # fmt: skip
    weights = convert(save(tmp_path, content, _use_new_zipfile_serialization=zipped))
    check(weights, module.state_dict())
    words = describe_conversion(weights)
    assert 'best (numpy' in words and 'args (argparse.Namespace)' in words and 'optimizer (torch.optim' in words
    assert '3 other arrays (recorder.last, rng, numpy_rng.1)' in words


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('wrap', [lambda m: m, lambda m: {'model': m, 'epoch': 3}, lambda m: torch.nn.DataParallel(m)])
def test_a_whole_pickled_module_gives_its_state_dict(wrap, module, tmp_path, zipped):
    weights = convert(save(tmp_path, wrap(module), _use_new_zipfile_serialization=zipped))
    check(weights, module.state_dict())
    assert 'is a whole pickled torch' in describe_conversion(weights)


@pytest.mark.slow
def test_torchscript_gives_its_state_dict(module, tmp_path):
    for number, script in enumerate((torch.jit.script(module), torch.jit.trace(module, torch.ones(1, 3, 64, 64)))):
        script.save(tmp_path / f'{number}.pt')
        check(convert(tmp_path / f'{number}.pt'), module.state_dict())
    torch.jit.freeze(torch.jit.script(module)).save(tmp_path / 'frozen.pt')
    with pytest.raises(UserError, match=r'TorchScript archive .*torch.jit.freeze makes it; give the state_dict\(\)'):
        convert(tmp_path / 'frozen.pt')


@pytest.mark.slow
def test_of_several_networks_one_is_asked_for(module, other, tmp_path, capsys):
    """Of timm, of torchvision's references, and under prefixes of one dictionary."""
    state, ema = module.state_dict(), other.state_dict()
    for content, keys in (
        ({'state_dict': state, 'state_dict_ema': ema}, ('state_dict', 'state_dict_ema')),
        (
            {'model': state, 'model_ema': prefixed('module.', ema) | {'n_averaged': torch.tensor(1)}},
            ('model', 'model_ema'),
        ),
        ({'state_dict': prefixed('net.', state) | prefixed('ema.', ema)}, ('state_dict.net', 'state_dict.ema')),
        (state | prefixed('teacher.', ema), ('.', 'teacher')),
    ):
        path = save(tmp_path, content)
        with pytest.raises(
            UserError, match='holds 2 networks that fit resnet18: .*; choose one, such as --key'
        ) as refused:
            convert(path)
        assert all(key in str(refused.value) for key in keys)
        check(convert(path, key=keys[0]), state)
        check(convert(path, key=keys[1]), ema)
        with pytest.raises(UserError, match='--key best: the file has no network under that name'):
            convert(path, key='best')
    output = tmp_path / 'x.safetensors'
    arguments = ['--model=resnet18', f'--source={path}', f'--output={output}']
    assert convert_weights.main(arguments) == 2 and 'choose one, such as --key' in capsys.readouterr().err
    assert convert_weights.main([*arguments, '--key=teacher']) == 0
    check(pretrained.load(output, 'resnet18'), ema)
    assert 'prefix    teacher.' in capsys.readouterr().out


def test_read_torch_names_what_it_finds(module, other, tmp_path):
    state = module.state_dict()
    path = save(
        tmp_path,
        {'state_dict': prefixed('module.', state), 'ema': other.state_dict(), 'stats': {'mean': torch.ones(1)}},
    )
    with pytest.raises(UserError, match="holds state dicts under 'state_dict', 'ema'; choose one by its key"):
        pretrained.read_torch(path)
    assert list(pretrained.read_torch(path, 'state_dict')) == list(state)


HEADS = {
    'timm num_classes=0': (lambda: timm_model('resnet18', classes=0), None),
    'Identity': (lambda: with_head(torch.nn.Identity()), None),
    'children': (lambda: torch.nn.Sequential(*list(with_head(torch.nn.Identity()).children())[:-1]), None),
    'dropout and a layer': (lambda: with_head(torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(512, 7))), 7),
    'two layers': (lambda: with_head(torch.nn.Sequential(torch.nn.Linear(512, 9), torch.nn.Linear(9, 7))), None),
    'a layer and BatchNorm': (
        lambda: with_head(torch.nn.Sequential(torch.nn.Linear(512, 7), torch.nn.BatchNorm1d(7))), None
    ),
    'without a bias': (lambda: with_head(torch.nn.Linear(512, 7, bias=False)), None),
    'of other features': (lambda: with_head(torch.nn.Linear(99, 7)), None),
}  # fmt: skip


def with_head(head):
    module = torchvision_model('resnet18')
    module.fc = head
    return module


@pytest.mark.parametrize('kind', HEADS)
def test_the_head_is_taken_where_it_fits(kind, tmp_path):
    make, classes = HEADS[kind]
    weights = convert(save(tmp_path, make().state_dict()))
    assert weights.metadata.get('classes') == (str(classes) if classes else None)
    assert len(weights.params) + len(weights.stats) == (102 if classes else 100)
    assert f'head: taken, {classes} classes' in describe_conversion(weights) or not classes


def test_weights_without_a_head_start_a_network(tmp_path):
    path = save(tmp_path, timm_model('resnet18', classes=0).state_dict())
    output = tmp_path / 'converted.safetensors'
    pretrained.save(output, convert(path))
    from fer_jax import models

    network = models.create('resnet18', classes=3, weights=str(output))
    assert network.head.primary.kernel.shape == (512, 3)
    with pytest.raises(UserError, match='classes=None keeps the head of the weights, of which .* has none'):
        models.create('resnet18', weights=str(output))


@pytest.mark.slow
def test_a_vgg_without_a_head_starts_fresh_from_fc6_on(tmp_path):
    from fer_jax import models

    reference = torchvision_model('vgg11')
    reference.classifier = torch.nn.Identity()
    for name, state in (('identity', reference.state_dict()), ('features', reference.features.state_dict())):
        weights = convert(save(tmp_path, state), 'vgg11')
        assert weights.metadata['head'] == 'none in the file; fc6 and fc7 not taken', name
    pretrained.save(tmp_path / 'x.safetensors', weights)
    network = models.create('vgg11', classes=3, weights=str(tmp_path / 'x.safetensors'))
    assert network.head.primary.kernel.shape == (4096, 3) and network.fc6.kernel.get_value().std() > 0.005


def test_published_faces_come_as_whole_timm_models(tmp_path):
    """The form of EmotiEffLib's weights: a pickled EfficientNet with a Sequential for a classifier, and a state dict of
    one with Identity.
    """
    module = timm_model('tf_efficientnet_b0', classes=8)
    module.classifier = torch.nn.Sequential(torch.nn.Linear(1280, 8))
    weights = convert(save(tmp_path, module), 'tf_efficientnet_b0')
    assert weights.metadata['classes'] == '8'
    np.testing.assert_array_equal(weights.params['head.primary.bias'], module.classifier[0].bias.detach().numpy())
    module.classifier = torch.nn.Identity()
    assert 'classes' not in convert(save(tmp_path, module.state_dict()), 'tf_efficientnet_b0').metadata


@pytest.mark.slow
def test_modules_beside_are_left_and_modules_within_are_not(module, tmp_path):
    state = module.state_dict()
    weights = convert(save(tmp_path, state | {'alpha.0.weight': torch.ones(1, 512)}))
    check(weights, state)
    assert '1 other arrays (alpha.0.weight)' in describe_conversion(weights)
    with pytest.raises(UserError, match=r'1 not used \(layer1.0.gate.kernel\)'):
        convert(save(tmp_path, state | {'layer1.0.gate.weight': torch.ones(1, 512)}))


@pytest.mark.slow
def test_archives_around_are_opened(module, tmp_path):
    inner = save(tmp_path, module.state_dict())
    with inner.open('rb') as source, gzip.open(tmp_path / 'x.pth.gz', 'wb', 1) as target:
        shutil.copyfileobj(source, target)
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
        archive.write(inner, 'folder/model.pth')
        archive.writestr('README.md', 'text')
    with zipfile.ZipFile(inner) as old, zipfile.ZipFile(tmp_path / 'again.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        for name in old.namelist():
            archive.writestr(name, old.read(name))
    shutil.copy(inner, tmp_path / 'pytorch_model.bin')
    with (tmp_path / 'plain.pkl').open('wb') as file:
        pickle.dump(module.state_dict(), file)
    for name in ('x.pth.gz', 'x.zip', 'again.pth', 'pytorch_model.bin', 'plain.pkl'):
        check(convert(tmp_path / name), module.state_dict())


FOREIGN = {
    'login.pth': (b'\n<!DOCTYPE html><html>', 'a web page in place of the file'),
    'pointer.safetensors': (b'version https://git-lfs.github.com/spec/v1\noid sha256:1\n', 'run git lfs pull'),
    'x.onnx': (b'\x08\x07\x12\x07pytorch', 'an ONNX graph'),
    'x.pth': (b'\x08\x07\x12\x07pytorch', 'an ONNX graph'),
    'x.pth.xz': (b'\xfd7zXZ\0', 'packed by xz; unpack it'),
    'model.safetensors.index.json': (b'{"weight_map": {}}', 'several files; join them: in Python'),
    'config.json': (b'{"metadata": {}}', 'JSON, such as a config'),
    'empty.pth': (b'', 'an empty file; fetch it again'),
    'cut.pth.gz': (gzip.compress(b'x' * 1000)[:-9], 'cannot be unpacked'),
}  # fmt: skip


@pytest.mark.parametrize('name', FOREIGN)
def test_other_files_are_named_with_the_remedy(name, tmp_path):
    content, words = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        convert(tmp_path / name)


def test_folders_are_named_with_the_remedy(tmp_path):
    for files, words in (
        (['saved_model.pb', 'variables'], r'SavedModel.*; in Keras run model.save\("x.h5"\)'),
        (
            ['config.json', 'model.safetensors', 'pytorch_model.bin'],
            'give one of its files: model.safetensors, pytorch_model.bin',
        ),
        (['1.safetensors', '2.safetensors', 'x.index.json'], 'a folder of weights in several files; join them'),
        (['notes.txt'], 'a folder without weights'),
    ):
        folder = tmp_path / files[0]
        folder.mkdir()
        for file in files:
            (folder / file).write_bytes(b'x')
        with pytest.raises(UserError, match=words):
            convert(folder)


def test_a_config_may_name_the_file_itself(module, tmp_path, capsys):
    path = save(tmp_path, {'state_dict': prefixed('module.', module.state_dict()), 'epoch': 1})
    weights = pretrained.resolve(str(path), 'resnet18', cache=tmp_path)
    check(weights, module.state_dict())
    assert len(weights.metadata['sha256']) == 64 and weights.metadata['source'] == 'x.pth'
    assert weights.metadata['sha256'][:16] in capsys.readouterr().out
    save(
        tmp_path,
        {'state_dict': module.state_dict(), 'ema': torchvision_model('resnet18', classes=7, seed=1).state_dict()},
    )
    with pytest.raises(
        UserError, match='--key ema; .*python -m fer_jax.convert_weights --model resnet18 --source .*x.pth'
    ):
        pretrained.resolve(str(path), 'resnet18', cache=tmp_path)


def test_a_quantised_layer_is_named(module, tmp_path):
    state = dict(module.state_dict())
    state['conv1.weight'] = torch.quantize_per_tensor(state['conv1.weight'], 0.1, 0, torch.qint8)
    with pytest.raises(
        UserError, match=r'1 missing \(conv1.kernel\).*also holds conv1.weight \(torch._utils._rebuild_qt'
    ):
        convert(save(tmp_path, state))


def test_numpy_archives_are_named_with_the_remedy(tmp_path):
    np.savez(tmp_path / 'x.npz', a=np.ones(2))
    with pytest.raises(UserError, match=r'is a .npz of numpy; in Python run pickle.dump'):
        convert(tmp_path / 'x.npz')
