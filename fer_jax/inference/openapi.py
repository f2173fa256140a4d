"""The description of the web service's JSON API: an OpenAPI document, and a page of it that loads nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fer_jax
from fer_jax.inference import uploads
from fer_jax.inference.face_service import LARGEST_PIXELS

TEMPLATE = Path(__file__).with_name('api.html')
NUMBER, TEXT, INTEGER = {'type': 'number'}, {'type': 'string'}, {'type': 'integer'}
REASONS = {
    400: 'The form or the JSON cannot be read, or holds no picture.',
    403: 'Sent by a page of another server.',
    408: 'The request did not arrive in time.',
    413: 'The request or a picture is too large.',
    415: 'Not a picture that can be read.',
    421: 'The Host header has a name that is not one of this server.',
    503: 'Too many pictures at once; try again.',
}


def describe_api(classes: Sequence[str], root_path: str = '') -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document of the web service.

    Args:
      classes: class names.
      root_path: path prefix under which a proxy serves the service; '' for none.
    """
    fields = {
        'file': TEXT | {'description': 'Name of the picture.'},
        'face': INTEGER | {'description': 'Number in its picture, from 0; the most certain face is first.'},
        'box': _list(NUMBER, 'x, y, width and height in pixels of the upright picture.')
        | {'minItems': 4, 'maxItems': 4},
        'detector': NUMBER | {'description': 'Confidence of the face detector, 0 to 1.'},
        'label': TEXT | {'enum': list(classes), 'description': 'The most probable class.'},
        'confidence': NUMBER | {'description': 'Probability of the label.'},
        'abstained': {'type': 'boolean', 'description': 'Always false here.'},
        'probabilities': _object(dict.fromkeys(classes, NUMBER)) | {'description': 'Calibrated probabilities.'},
    }
    answer = {
        'file': TEXT | {'description': 'Name of the picture.'},
        'width': INTEGER,
        'height': INTEGER,
        'faces': _list(_reference('Face'), 'The faces that were found.'),
    }
    failure = {'file': TEXT, 'error': TEXT, 'status': INTEGER | {'description': 'HTTP status of this picture alone.'}}
    pictures = _list({'anyOf': [_reference('Picture'), _reference('UnreadPicture')]}, 'In the order of the request.')
    schemas = {
        'Face': _object(fields),
        'Picture': _object(answer),
        'UnreadPicture': _object(failure),
        'Pictures': _object({'pictures': pictures}),
        'Error': _object({'error': TEXT, 'pictures': pictures}, required=['error']),
        'Health': _object({'status': TEXT | {'enum': ['ok']}}),
    }
    return {
        'openapi': '3.1.0',
        'info': {
            'title': 'fer_jax',
            'version': fer_jax.__version__,
            'description': 'Facial expressions of the faces in pictures. A face shows what a face does, not what a '
            'person feels. Nothing that is sent is kept.',
        },
        'servers': [{'url': root_path or '/'}],
        'paths': {
            '/faces': {'post': _faces_operation()},
            '/health': {'get': _operation('Tells whether the service answers.', {200: ('It does.', 'Health')})},
        },
        'components': {'schemas': schemas},
    }


def _faces_operation() -> dict[str, Any]:
    binary = {'type': 'string', 'contentMediaType': 'application/octet-stream'}
    encoded = {'type': 'string', 'contentEncoding': 'base64'}
    limits = (
        f'A request has at most {uploads.LARGEST_UPLOAD_BYTES // 2**20} MB and {uploads.MOST_UPLOADS} pictures, a '
        f'picture at most {LARGEST_PIXELS // 10**6} megapixels.'
    )
    operation = _operation(
        'Finds the faces of pictures and classifies their expressions.',
        {200: ('The answer for one picture, or for several.', 'Picture', 'Pictures')}
        | {status: (reason, 'Error') for status, reason in REASONS.items()},
    )
    operation['description'] = (
        'The body is one picture, a form with one file or several, or JSON with pictures in base64. A body that is a '
        'picture is answered by Picture, a form and JSON by Pictures, where an unreadable picture has an error of its '
        f'own; if all are unreadable the status is that of the first. {limits}'
    )
    operation['requestBody'] = {
        'required': True,
        'content': {
            'image/*': {'schema': binary},
            'multipart/form-data': {'schema': _object({'pictures': _list(binary, 'Files, by any names of fields.')})},
            'application/json': {'schema': _object({'pictures': _list(encoded, 'Pictures, also as data URLs.')})},
        },
    }
    return operation


def _operation(summary: str, responses: dict[int, tuple[str, ...]]) -> dict[str, Any]:
    described = {}
    for status, (description, *names) in responses.items():
        schema = _reference(names[0]) if len(names) == 1 else {'oneOf': [_reference(name) for name in names]}
        described[str(status)] = {'description': description, 'content': {'application/json': {'schema': schema}}}
    return {'summary': summary, 'responses': described}


def _object(fields: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {'type': 'object', 'properties': fields, 'required': required or list(fields), 'additionalProperties': False}


def _list(items: dict[str, Any], description: str) -> dict[str, Any]:
    return {'type': 'array', 'items': items, 'description': description}


def _reference(name: str) -> dict[str, Any]:
    return {'$ref': f'#/components/schemas/{name}'}


def render_page(document: dict[str, Any]) -> str:
    """Returns the HTML page of an OpenAPI document made by `describe_api`."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters['type'] = _describe_type
    return environment.from_string(TEMPLATE.read_text(encoding='utf-8')).render(document)


def _describe_type(schema: dict[str, Any]) -> str:
    """Returns the type of a schema in words, such as 'array of Face'."""
    if '$ref' in schema:
        return schema['$ref'].rpartition('/')[2]
    for key in ('anyOf', 'oneOf'):
        if key in schema:
            return ' or '.join(map(_describe_type, schema[key]))
    if 'enum' in schema:
        return 'one of ' + ', '.join(schema['enum'])
    if schema['type'] == 'array':
        return f'array of {_describe_type(schema["items"])}'
    if schema['type'] == 'object':
        return 'object of ' + ', '.join(
            f'{name} ({_describe_type(each)})' for name, each in schema['properties'].items()
        )
    if 'contentMediaType' in schema:
        return 'file'
    return schema['type'] + (' in base64' if 'contentEncoding' in schema else '')
