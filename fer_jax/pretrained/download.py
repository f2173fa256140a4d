"""Fetching a file over HTTP: resumed where it broke off, checked by its digest, whole or not at all."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from fer_jax.errors import UserError
from fer_jax.utils import progress

OFFLINE = 'FER_JAX_OFFLINE'
CHUNK_BYTES = 1 << 20
MOST_TRIES = 4
TIMEOUT_SECONDS = 30.0  # seconds without a byte


def fetch(url: str, path: Path, *, digest: str, pause: float = 2.0) -> None:
    """Downloads `url` to `path`, unless the file exists already.

    The bytes received before a connection broke stay in `<path>.part`, and the next try, in this call or a later one,
    requests the rest.

    Args:
      digest: 'sha256:' or 'md5:' and the digits or the first of them, as torch writes them into file names; empty where
        none is known, so that any complete file is accepted.
      pause: seconds before the second of `MOST_TRIES`, doubled before each further one.

    Raises:
      UserError: downloads are switched off, the server cannot be reached or does not have the file, or the file has
        another digest.
    """
    if path.is_file():
        if other := other_digest(path, digest):
            raise UserError(f'{path} is {other}, not the file of {url} ({digest}); move it away, or put that one there')
        return
    if os.environ.get(OFFLINE, '') not in ('', '0'):
        raise UserError(f'{url} is not downloaded because {OFFLINE} is set; put the file at {path}, or unset it')
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    for number in range(MOST_TRIES):
        try:
            _go_on(url, part)
            break
        except urllib.error.HTTPError as error:
            raise UserError(f'{url} answers {error.code} {error.reason}; download it by hand to {path}') from None
        except (OSError, http.client.HTTPException) as error:
            if number == MOST_TRIES - 1:
                reason = getattr(error, 'reason', error)
                raise UserError(
                    f'{url} cannot be downloaded ({reason}); try again later, which goes on where this stopped, or put '
                    f'the file at {path}'
                ) from None
            time.sleep(pause * 2**number)
    if other := other_digest(part, digest):
        part.unlink()
        raise UserError(f'{url} gave a file of {other}, expected {digest}...; it was thrown away')
    part.replace(path)


def other_digest(path: Path, digest: str) -> str:
    """Returns the shortened digest of a file that does not match `digest`; '' where it does or `digest` is empty.

    Args:
      digest: 'sha256:' or 'md5:' and the digits or the first of them.
    """
    if not digest:
        return ''
    kind, _, digits = digest.partition(':')
    with path.open('rb') as file:
        actual = hashlib.file_digest(file, kind).hexdigest()
    return '' if actual.startswith(digits) else f'{kind}:{actual[:16]}...'


def _go_on(url: str, part: Path) -> None:
    """Adds to `part` what is missing of it."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={have}-'} if have else {})
    try:
        answer: Any = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if (
            error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE
        ):  # it is whole, or of another file: the digest says
            return
        raise
    with answer:
        if have and answer.status != http.client.PARTIAL_CONTENT:  # the server starts anew
            have = 0
        length = answer.headers.get('Content-Length')
        total = have + int(length) if length else None
        name = url.rsplit('/', 1)[-1]
        with (
            part.open('ab' if have else 'wb') as file,
            progress.bar(None, name, total, unit='B', unit_scale=True, initial=have) as shown,
        ):
            while data := answer.read(CHUNK_BYTES):
                file.write(data)
                shown.update(len(data))
            if total is not None and file.tell() < total:
                raise http.client.IncompleteRead(b'', total - file.tell())
