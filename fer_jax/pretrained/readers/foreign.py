"""Names the files that hold weights and are not read here, with what to do instead."""

from pathlib import Path

from fer_jax.pretrained.readers.tfjs_file import is_tfjs

SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors', '.h5', '.hdf5', '.keras', '.mat', '.pkl', '.dat')
ALL_SUFFIXES = (*SUFFIXES, '.json')  # one of TensorFlow.js is no use without the shards beside it
SAVE_STATE_DICT = 'in PyTorch run torch.save(model.state_dict(), "x.pth") and give that file'
SAVE_H5 = 'in Keras run model.save("x.h5") and give that file'
UNPACK = 'unpack it and give the file of weights in it'
NUMPY_ARCHIVE = (
    'a .npz of numpy; in Python run pickle.dump(dict(numpy.load("x.npz")), open("x.pkl", "wb")) and give that file'
)
SEVERAL_FILES = (
    'weights in several files; join them: in Python run from safetensors.numpy import load_file, save_file, then '
    'save_file({name: array for file in files for name, array in load_file(file).items()}, "x.safetensors"), and give '
    'that file'
)
# beginning -> what the file is
BEGINNINGS: dict[bytes, str] = {
    b'version https://git-lfs': 'a Git LFS pointer in place of the file; run git lfs pull',
    b'BZh': f'packed by bzip2; {UNPACK}',
    b'\xfd7zXZ': f'packed by xz; {UNPACK}',
    b'\x28\xb5\x2f\xfd': f'packed by zstd; {UNPACK}',
    b'7z\xbc\xaf\x27\x1c': f'a 7z archive; {UNPACK}',
    b'Rar!': f'a RAR archive; {UNPACK}',
    b'\x93NUMPY': f'one array of numpy without names; {SAVE_STATE_DICT}',
    b'<?xml': f'XML, such as an OpenVINO graph; {SAVE_STATE_DICT}',
}
SUFFIX_KINDS = {
    '.onnx': f'an ONNX graph, whose weights are merged with their layers; {SAVE_STATE_DICT}',
    '.tflite': f'a TFLite graph, whose weights are merged with their layers; {SAVE_H5}',
    '.pb': f'a TensorFlow graph; {SAVE_H5}',
    '.index': f'a part of a TensorFlow checkpoint; {SAVE_H5}',
    '.meta': f'a part of a TensorFlow checkpoint; {SAVE_H5}',
    '.data-00000-of-00001': f'a part of a TensorFlow checkpoint; {SAVE_H5}',
    '.caffemodel': 'a Caffe network; give the .pkl or .pth that it was converted to',
    '.msgpack': 'a Flax checkpoint, whose networks have other names; give the PyTorch file of the same network',
    '.pt2': f'a torch.export archive; {SAVE_STATE_DICT}',
}


def describe_foreign(path: Path) -> str:
    """Returns a text with the kind of a file or folder and the remedy; '' where it may be weights that can be read."""
    if path.is_dir():
        return _describe_folder(path)
    if kind := next((kind for suffix, kind in SUFFIX_KINDS.items() if path.name.endswith(suffix)), ''):
        return kind
    with path.open('rb') as file:
        head = file.read(4096)
    if not head:
        return 'an empty file; fetch it again'
    if head.lstrip().lower().startswith((b'<!doctype', b'<html')):
        return 'a web page in place of the file, such as a login; download the file itself'
    if head[257:262] == b'ustar':
        return f'a tar archive; {UNPACK}'
    if head[4:8] == b'TFL3':
        return SUFFIX_KINDS['.tflite']
    if head[:1] == b'\x08' and any(word in head[:64] for word in (b'pytorch', b'onnx', b'tf2onnx', b'keras2onnx')):
        return SUFFIX_KINDS['.onnx']
    if head.lstrip()[:1] == b'{' and head[8:9] != b'{' and not is_tfjs(head):
        if b'"weight_map"' in head:
            return f'the index of {SEVERAL_FILES}'
        return 'JSON, such as a config; give the file of weights'
    return next((kind for beginning, kind in BEGINNINGS.items() if head.startswith(beginning)), '')


def _describe_folder(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    if 'saved_model.pb' in names or 'keras_metadata.pb' in names:
        return f'a folder that TensorFlow saved (SavedModel); {SAVE_H5}'
    if 'checkpoint' in names and any(name.endswith('.index') for name in names):
        return f'a folder of TensorFlow checkpoints; {SAVE_H5}'
    if any(name.endswith('.index.json') for name in names):
        return f'a folder of {SEVERAL_FILES}'
    if weights := [name for name in names if name.endswith(SUFFIXES)]:
        return f'a folder; give one of its files: {", ".join(weights[:5])}{", ..." if len(weights) > 5 else ""}'
    return f'a folder without weights; give a file ({", ".join(SUFFIXES)})'
