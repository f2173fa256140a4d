"""What the web service answers of pictures, apart from HTTP: turns, limits, and batches across requests."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data.imaging.codec import ImageLimitError, decode
from fer_jax.data.imaging.faces import Detector, Face
from fer_jax.errors import UserError
from fer_jax.inference import face_pipeline
from fer_jax.inference.face_pipeline import FACE_BATCH_SIZE, Cutting, FacePrediction
from fer_jax.inference.host_batches import BATCH_SIZES
from fer_jax.inference.media import Frame, Source
from fer_jax.inference.predictor import Predictor

LARGEST_PIXELS = 40_000_000  # pixels of one picture
MOST_PICTURES = 2  # pictures that are decoded and searched at the same time; more wait
TURN_SECONDS = 20.0  # seconds that a picture waits for its turn
UNREADABLE = 'this is no picture that can be read; give a JPEG or PNG'


class Refused(Exception):
    """A request or picture that is refused, with the HTTP status and the reason of the answer."""

    def __init__(self, status: HTTPStatus, reason: str):
        super().__init__(reason)
        self.status = status


class Picture(NamedTuple):
    """An encoded picture with the name that identifies it in the answer."""

    name: str
    data: bytes


class Located(NamedTuple):
    """The detected and cropped faces of one picture, before classification; the picture itself is not kept.

    Attributes:
      size: width and height of the picture in pixels.
      faces: the detected faces.
      crops: one crop per face, uint8 [size, size, 3].
    """

    size: tuple[int, int]
    faces: list[Face]
    crops: list[np.ndarray]


class FaceService:
    """Finds and classifies the faces of pictures for many requests at the same time."""

    def __init__(self, predictor: Predictor, detect: Detector, cutting: Cutting):
        self.predictor, self.detect, self.cutting = predictor, detect, cutting
        self._turns = asyncio.BoundedSemaphore(MOST_PICTURES)
        self._threads = ThreadPoolExecutor(MOST_PICTURES, 'pictures')
        self._batches = RequestBatches(predictor.calibrated)

    def warm_up(self) -> None:
        """Compiles the network for every batch size that requests use."""
        side = self.predictor.image_size
        for size in BATCH_SIZES:
            if size <= FACE_BATCH_SIZE:
                self.predictor.calibrated(np.zeros((size, side, side, 3), np.uint8))

    async def analyze(self, pictures: Sequence[Picture]) -> list[dict[str, Any] | Refused]:
        """Finds and classifies the faces of pictures.

        The faces of all pictures, and those of other waiting requests, are classified together.

        Returns:
          For each picture {'file', 'width', 'height', 'faces'} with faces as in predictions, or the reason of its
          refusal.
        """
        located = [await self._locate(picture) for picture in pictures]
        crops = [crop for part in located if isinstance(part, Located) for crop in part.crops]
        rows = iter(await self._batches.classify(np.stack(crops)) if crops else ())
        answers: list[dict[str, Any] | Refused] = []
        for picture, part in zip(pictures, located, strict=True):
            if isinstance(part, Refused):
                answers.append(part)
                continue
            frame = Frame(Source(picture.name, 1, 0.0), 0, 0.0, None)
            records = [
                face_pipeline.record(
                    frame, FacePrediction(face, next(rows)), self.predictor.classes, number=number, abstain_below=0.0
                )
                for number, face in enumerate(part.faces)
            ]
            answers.append({'file': picture.name, 'width': part.size[0], 'height': part.size[1], 'faces': records})
        return answers

    async def _locate(self, picture: Picture) -> Located | Refused:
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            return Refused(HTTPStatus.SERVICE_UNAVAILABLE, 'too many pictures at once; try again')
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._locate_faces, picture.data)
        except ImageLimitError as error:
            reason = f'the picture is too large: {error.reason}'
            return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        except UserError:
            return Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, UNREADABLE)
        finally:
            self._turns.release()

    def _locate_faces(self, data: bytes) -> Located:
        image = decode(data, None, 3, 'the picture', most_pixels=LARGEST_PIXELS)
        faces = self.detect(image)
        side = self.predictor.image_size
        crops = [face_pipeline.cut_out(image, face, side, self.cutting) for face in faces]
        return Located((image.shape[1], image.shape[0]), faces, crops)


class RequestBatches:
    """Classifies the crops of several requests together: crops that arrive while a batch runs form the next batch."""

    def __init__(self, classify: Callable[[np.ndarray], np.ndarray]):
        self._classify = classify
        self._thread = ThreadPoolExecutor(1, 'classify')
        self._waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
        self._running: asyncio.Task[None] | None = None

    async def classify(self, crops: np.ndarray) -> np.ndarray:
        """Classifies crops together with those of other waiting requests.

        Args:
          crops: uint8 [B, size, size, 3].

        Returns:
          Probabilities float32 [B, classes].
        """
        result: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((crops, result))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken, self._waiting = self._waiting, []
            crops = np.concatenate([part for part, _ in taken])
            try:
                starts = range(0, len(crops), FACE_BATCH_SIZE)
                parts = [crops[start : start + FACE_BATCH_SIZE] for start in starts]
                rows = [await loop.run_in_executor(self._thread, self._classify, part) for part in parts]
                probabilities = np.concatenate(rows)
            except Exception as error:
                for _, result in taken:
                    if not result.done():
                        result.set_exception(error)
                continue
            for part, result in taken:
                if not result.done():
                    result.set_result(probabilities[: len(part)])
                probabilities = probabilities[len(part) :]
