"""The description of the JSON API, and the examples of its documentation, against the service itself."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.inference.pictures import png, red_cells
from tests.inference.test_server import form_of
from tests.wait import LIMIT

SERVING = Path(__file__).parents[2] / 'docs' / 'how-to' / 'serve.md'
TYPES = {'string': str, 'integer': int, 'number': (int, float), 'boolean': bool, 'array': list, 'object': dict}


def check(value, schema, schemas):
    """Raises AssertionError where a value does not fit a schema."""
    if '$ref' in schema:
        return check(value, schemas[schema['$ref'].rpartition('/')[2]], schemas)
    if choices := schema.get('anyOf') or schema.get('oneOf'):
        fitting = [choice for choice in choices if fits(value, choice, schemas)]
        assert len(fitting) == 1, value
        return
    assert isinstance(value, TYPES[schema['type']]), (value, schema)
    assert value in schema.get('enum', [value])
    if isinstance(value, dict):
        assert set(schema['required']) <= value.keys() <= schema['properties'].keys(), value
        for name, member in value.items():
            check(member, schema['properties'][name], schemas)
    if isinstance(value, list):
        for member in value:
            check(member, schema['items'], schemas)


def fits(value, schema, schemas):
    try:
        check(value, schema, schemas)
    except AssertionError:
        return False
    return True


def test_answers_are_as_described(ask):
    document = ask(method='GET', path='/openapi.json')[1]
    schemas, described = document['components']['schemas'], document['paths']['/faces']['post']['responses']
    body, kind = form_of(('one.png', png(red_cells(3))), ('two.png', b'hello'))
    for (status, answer), expected in (
        (ask(png(red_cells(3, 8))), 200),
        (ask(body, Content_Type=kind), 200),
        (ask(*[b'hello']), 415),
        (ask(form_of(('two.png', b'hello'))[0], Content_Type=kind), 415),
        (ask(b'hello', Content_Type=kind), 400),
        (ask(b'hello', Origin='http://elsewhere.example'), 403),
        (ask(b'hello', Host='elsewhere.example'), 421),
        (ask(b''), 413),
    ):
        assert status == expected
        check(answer, described[str(status)]['content']['application/json']['schema'], schemas)
    assert not fits({'error': 7}, schemas['Error'], schemas) and not fits({}, schemas['Health'], schemas)
    check(ask(method='GET', path='/health')[1], schemas['Health'], schemas)


def test_the_page_of_the_api_names_everything(ask):
    document, (status, page) = ask(method='GET', path='/openapi.json')[1], ask(method='GET', path='/docs')
    assert status == 200 and '<script' not in page
    for name in (*document['paths'], *document['components']['schemas'], 'multipart/form-data', 'probabilities'):
        assert name in page


def test_the_examples_of_the_documentation_run(server, tmp_path):
    if not shutil.which('curl'):
        pytest.skip('there is no curl')
    for name, columns in (('one.jpg', [3]), ('two.jpg', [2, 6])):
        Image.fromarray(red_cells(*columns)).save(tmp_path / name, quality=95)
    blocks = re.findall(r'```(sh|python)\n(.*?)```', SERVING.read_text(), re.S)
    examples = [(kind, text) for kind, text in blocks if 'http://127.0.0.1:8000/faces' in text]
    outputs = []
    for kind, text in examples:
        text = text.replace('http://127.0.0.1:8000', f'http://127.0.0.1:{server.address[1]}')
        command = ['bash', '-ec', text] if kind == 'sh' else [sys.executable, '-c', text]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=LIMIT)
        outputs.append(run.stdout)
    assert [output.count('"label"') for output in outputs[:2]] == [1, 3]
    assert [line.split()[1] for line in outputs[2].splitlines()] == ['1', '2', '2']
