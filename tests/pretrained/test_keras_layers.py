import numpy as np

from fer_jax.pretrained import Preprocessing
from fer_jax.pretrained.name_tables import keras_layers
from fer_jax.pretrained.name_tables.matconvnet_names import vgg_layers


def test_layers_of_other_networks_have_no_path():
    for to_paths in (keras_layers.inception_resnet_v2, keras_layers.efficientnet, keras_layers.vggface):
        assert to_paths(['block9z_dwconv', 'block1a_expand_conv', 'block35_11_conv', 'conv6_1', 'fc6/relu']) == {}
    assert len(keras_layers.inception_resnet_v2(f'conv2d_{number}' for number in range(1, 205))) == 203


def test_automatic_names_count_from_the_first():
    """Keras 2 files begin at 1, a session's first network at no number."""
    of_file = keras_layers.inception_resnet_v2(['conv2d_1', 'conv2d_2', 'batch_normalization_1', 'block8_10_conv'])
    assert of_file == {
        'conv2d_1': 'conv2d_1a.conv',
        'conv2d_2': 'conv2d_2a.conv',
        'batch_normalization_1': 'conv2d_1a.bn',
        'block8_10_conv': 'block8.conv2d',
    }
    assert keras_layers.inception_resnet_v2(['conv2d', 'conv2d_1'])['conv2d_1'] == 'conv2d_2a.conv'


def test_preprocessing_inside_an_efficientnet_is_read():
    """x / 255 as it is, a normalisation fitted to data, Keras's ImageNet files, where the variance is a deviation."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for variance, expected_std in ((np.ones(3), np.ones(3)), (np.full(3, 0.04), np.full(3, 0.2)), (std, std)):
        preprocessing = keras_layers.efficientnet_preprocessing(mean, variance, 260)
        assert isinstance(preprocessing, Preprocessing) and preprocessing.size == 260
        np.testing.assert_allclose(preprocessing.mean, mean)
        np.testing.assert_allclose(preprocessing.std, expected_std)


def test_vggface_layers_are_those_of_matconvnet():
    """fc6/relu and its like are layers too, without weights."""
    assert keras_layers.vggface(['conv5_3', 'fc6', 'fc6/relu', 'fc8', 'flatten']) == {
        'conv5_3': 'features.28',
        'fc6': 'fc6',
        'fc8': 'head.primary',
    }
    assert len(vgg_layers('vgg16')) == 16
