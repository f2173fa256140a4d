"""A web service of your own with Starlette: RUN=release uvicorn service:app

    pip install 'fer_jax[faces,serve]'
    curl -F picture=@party.jpg http://127.0.0.1:8000/expressions

In FastAPI, which stands on Starlette, `app` and the routes look the same. `fer-jax serve` is a complete server, with a
page, limits and batching; this program shows how to put a classifier into an application.
"""

import io
import os

import numpy as np
from PIL import Image, ImageOps
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import fer_jax

analyzer = fer_jax.Analyzer(os.environ.get('RUN', 'release'))  # loaded once, in the process that answers


async def expressions(request: Request) -> JSONResponse:
    """Finds and classifies the faces of a photograph."""
    async with request.form() as form:
        data = await form['picture'].read()
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB')
    except OSError:
        return JSONResponse({'error': 'this is not a picture that can be read'}, status_code=415)
    result = await run_in_threadpool(analyzer.photo, np.asarray(image), channels='RGB')
    return JSONResponse(result.to_dict())


app = Starlette(routes=[Route('/expressions', expressions, methods=['POST'])])
