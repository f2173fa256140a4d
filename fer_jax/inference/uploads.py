"""Pictures of an HTTP request: as its body, as files of a form, or in JSON; read into memory, within limits."""

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import AsyncGenerator
from http import HTTPStatus

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from fer_jax.inference.face_service import Picture, Refused

logging.getLogger('python_multipart').setLevel(logging.ERROR)  # it warns of what clients send
LARGEST_UPLOAD_BYTES = 20 * 2**20  # bytes of a request
MOST_UPLOADS = 32  # pictures of a request
IDLE_SECONDS = 20.0  # seconds between what a client sends
REQUEST_SECONDS = 60.0  # seconds for all that a client sends
LENGTH_DIGITS = 20  # of Content-Length, of which more cannot be small
JSON_MARKS = (b'[', b'{', b':', b',')
MOST_JSON_MARKS = 1_000  # in a request, before it is parsed; a picture in a data URL has three
WITHOUT_SPACES = dict.fromkeys(map(ord, ' \t\r\n\f\v'))
JSON_FORM = '{"pictures": ["<base64>", ...]}'


async def read_pictures(request: Request) -> tuple[list[Picture], bool]:
    """Reads the pictures of a request.

    Returns:
      The pictures, and whether the request is a form or JSON, which can hold several.

    Raises:
      Refused: the request is too long or slow, or holds no pictures.
      ClientDisconnect: the client closed the connection.
    """
    body = await _read_body(request)
    kind = request.headers.get('Content-Type', '').partition(';')[0].strip().lower()
    if kind == 'multipart/form-data':
        pictures = await _read_form(request, body)
    elif kind == 'application/json':
        pictures = _read_json(body)
    else:
        return [Picture('picture', body)], False
    if not pictures:
        raise Refused(HTTPStatus.BAD_REQUEST, 'the request holds no picture')
    if len(pictures) > MOST_UPLOADS:
        reason = f'the request has {len(pictures)} pictures; send at most {MOST_UPLOADS} at once'
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
    return pictures, True


async def _read_body(request: Request) -> bytes:
    announced = request.headers.get('Content-Length')
    if announced is not None:
        _check_length(int(announced[:LENGTH_DIGITS]))  # h11 admits digits alone
    loop = asyncio.get_running_loop()
    end = loop.time() + REQUEST_SECONDS
    body = bytearray()
    more = True
    while more:
        try:
            async with asyncio.timeout_at(min(loop.time() + IDLE_SECONDS, end)):
                message = await request.receive()
        except TimeoutError:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, 'the picture did not arrive in time') from None
        if message['type'] == 'http.disconnect':
            raise ClientDisconnect
        body += message.get('body', b'')
        more = message.get('more_body', False)
        if len(body) > LARGEST_UPLOAD_BYTES:
            break
    _check_length(len(body))
    return bytes(body)


def _check_length(length: int) -> None:
    if not 0 < length <= LARGEST_UPLOAD_BYTES:
        most = f'{LARGEST_UPLOAD_BYTES / 2**20:.0f} MB'
        reason = f'the file has {length / 2**20:.1f} MB; give a picture of at most {most}'
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)


class _InMemory(MultiPartParser):
    spool_max_size = LARGEST_UPLOAD_BYTES + 1  # nothing is written to a disk


async def _read_form(request: Request, body: bytes) -> list[Picture]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await _InMemory(request.headers, stream(), max_files=MOST_UPLOADS, max_fields=MOST_UPLOADS).parse()
    except MultiPartException as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f'the form cannot be read: {error.message}') from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    return [Picture(file.filename or 'picture', await file.read()) for file in files if file.size]


def _read_json(body: bytes) -> list[Picture]:
    try:
        if sum(body.count(mark) for mark in JSON_MARKS) > MOST_JSON_MARKS:
            raise ValueError
        pictures = json.loads(body)['pictures']
        if not isinstance(pictures, list):
            raise TypeError
        texts = [text.rpartition(',')[2] if text.startswith('data:') else text for text in pictures]
        data = [base64.b64decode(text.translate(WITHOUT_SPACES), validate=True) for text in texts]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise Refused(HTTPStatus.BAD_REQUEST, f'the request is no JSON of the form {JSON_FORM}') from None
    return [Picture(f'picture {number}', each) for number, each in enumerate(data, 1)]
