"""Photographs and videos in, JSON lines or tables and annotated copies out."""

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.imaging import faces
from fer_jax.data.imaging.faces import Detector
from fer_jax.data.imaging.image_files import describe_left_out, escape_undecodable
from fer_jax.errors import UserError
from fer_jax.inference import drawing, face_pipeline, given_faces, media, prediction_writers, tracking
from fer_jax.inference.face_pipeline import FacePrediction
from fer_jax.inference.live_view import LiveView, open_live_view
from fer_jax.inference.media import Frame, Source
from fer_jax.inference.prediction_writers import Writer, open_writer
from fer_jax.inference.predictor import Predictor
from fer_jax.utils import progress
from fer_jax.utils.paths import user_path

LONGEST_NAME_BYTES = 180  # of a copy; file systems take 255, of which suffixes and names of unfinished files need some


def predict_files(arguments: argparse.Namespace) -> int:
    """Classifies the faces of photographs and videos, and writes the predictions and annotated copies.

    Args:
      arguments: parsed flags of `fer-jax predict`.

    Returns:
      The exit status: 0, or 2 where some input, or a picture of a folder, could not be read completely.

    Raises:
      UserError: a flag has a value that cannot be used, or an input, the run or the detector is missing.
    """
    for name, fits, expected in (
        ('margin', arguments.margin is None or 0 <= arguments.margin <= 10, '0 to 10'),
        ('abstain_below', 0 <= arguments.abstain_below <= 1, 'a probability'),
        ('every', arguments.every >= 1, '1 or more'),
        ('smooth', 0 <= arguments.smooth <= 3600, 'seconds, 0 to 3600'),
    ):
        if not fits:
            raise UserError(f'--{name}={getattr(arguments, name)}; expected {expected}')
    prediction_writers.check_format(arguments.format, to_file=arguments.out is not None)
    given, left_out = media.find_sources(arguments.paths)
    for line in describe_left_out(left_out):
        print(line, file=sys.stderr)
    if arguments.out:
        _make(arguments.out, arguments.paths, given)
    read = itertools.chain.from_iterable(media.read_frames(source, every=arguments.every) for source in given)
    frames, detect = _locate(read, given, arguments)
    predictor = Predictor(arguments.workdir, tta=arguments.tta)
    cutting = face_pipeline.cutting(predictor.folder, arguments.margin, aligns=arguments.yunet is not None)
    if arguments.faces == given_faces.GIVEN:
        cutting = cutting._replace(whole=True, description='pictures are faces, of which the middle square is taken')
    print(cutting.description, file=sys.stderr)
    size = predictor.image_size
    seen = face_pipeline.look(frames, detect, predictor.calibrated, size=size, cutting=cutting)
    tracked = tracking.track_faces(seen, smoothing_seconds=arguments.smooth)
    missed = 0
    with contextlib.ExitStack() as stack:
        out: Path | None = arguments.out
        columns = prediction_writers.face_columns(predictor.classes)
        target = out / 'predictions' if out else sys.stdout
        writer = stack.enter_context(contextlib.closing(open_writer(arguments.format, target, columns)))
        persons = None
        if out and any(source.moves for source in given):
            columns = prediction_writers.person_columns(predictor.classes)
            persons = stack.enter_context(contextlib.closing(open_writer(arguments.format, out / 'persons', columns)))
        view = stack.enter_context(open_live_view()) if arguments.show else None
        total = sum(-(-source.frames // arguments.every) for source in given)
        shown = stack.enter_context(progress.bar(None, 'looking', total if all(s.frames for s in given) else None))
        names = _names(given)
        for source, of_source in itertools.groupby(tracked, lambda pair: pair[0].source):
            options = (predictor.classes, arguments, writer, persons, shown, view)
            missed += _write(source, names[source], of_source, *options)
    if arguments.out:
        print(f'predictions.{arguments.format} and annotated copies are in {arguments.out}')
    if missed:
        print(f'fer_jax: {missed} of {len(given)} could not be read, or not whole; see above', file=sys.stderr)
    return 2 if missed or left_out.keys() - media.NO_PICTURES else 0


def _locate(
    frames: Iterable[Frame], given: Sequence[Source], arguments: argparse.Namespace
) -> tuple[Iterable[Frame], Detector]:
    """Returns the frames, with their faces where --faces tells them, and the detector for the others."""
    if arguments.faces == 'detect':
        return frames, faces.detector(arguments.yunet)
    if arguments.faces == given_faces.GIVEN:
        return given_faces.take_whole_pictures(frames), _no_faces
    boxes = given_faces.Boxes(Path(arguments.faces))
    boxes.check(source.name for source in given)
    return boxes.add_faces(frames), _no_faces


def _no_faces(image: np.ndarray) -> list[faces.Face]:
    return []


def _write(
    source: Source,
    name: str,
    seen: Iterable[tuple[Frame, list[FacePrediction]]],
    classes: tuple[str, ...],
    arguments: argparse.Namespace,
    writer: Writer,
    persons_writer: Writer | None,
    shown: Any,
    view: LiveView | None,
) -> bool:
    """Writes the records of one source and its annotated copy; returns whether some of it could not be read."""
    missed = False
    out: Path | None = arguments.out
    say = shown.write if sys.stderr.isatty() else print  # past a bar that moves
    persons = tracking.Persons()

    def write_persons(writer: Writer) -> None:
        for record in persons.records(source, classes):
            writer.write(record)

    with contextlib.ExitStack() as stack:
        film = None
        if persons_writer:
            stack.callback(write_persons, persons_writer)
        if out and source.moves:
            film = stack.enter_context(drawing.Film(out, name, source.rate / arguments.every, classes))
        for frame, predictions in seen:
            if frame.image is None:
                missed = True
                say(escape_undecodable(f'fer_jax: {frame.error}'), file=sys.stderr)
                writer.write(face_pipeline.place(frame) | {'error': frame.error})
                continue
            options = {'abstain_below': arguments.abstain_below}
            records = [
                face_pipeline.record(frame, prediction, classes, number=number, **options)
                for number, prediction in enumerate(predictions)
            ]
            for record in records or [face_pipeline.place(frame) | {'faces': 0}]:
                writer.write(record)
            persons.add(predictions, frame.seconds)
            if out or view:
                drawn = drawing.draw_faces(frame.image, records)
            if film:
                shares = {row.face_id: row.probabilities for row in predictions if row.face_id is not None}
                film.add(drawn, frame.seconds, shares)
            elif out:
                drawing.save_jpeg(out / f'{name}.jpg', drawn)
            if view:
                view.show(drawn)
            if not predictions and not source.moves:
                say(escape_undecodable(f'{source.label}: no face'), file=sys.stderr)
            shown.update()
    return missed


def _make(out: Path, paths: Sequence[str], given: Sequence[Source]) -> None:
    """Makes the folder of the copies, which have the names of what they are copies of, and may not be where that is."""
    for path in paths:
        if user_path(path).is_dir() and out.resolve().is_relative_to(user_path(path).resolve()):
            raise UserError(f'--out={str(out)!r} lies inside {path!r}; the next call would take copies for photographs')
    for file in (Path(source.name) for source in given if not source.live):
        if out.resolve() in (file.parent.resolve(), file.resolve().parent):
            message = f'--out={str(out)!r} is the folder of {str(file)!r}, whose copy would replace it; give another'
            raise UserError(message)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out={str(out)!r} cannot be made ({error.strerror}); give another folder') from None


def _names(given: Sequence[Source]) -> dict[Source, str]:
    """Names the annotated copies: each source's own, cut where it is long, with a number where two are the same."""
    names: dict[Source, str] = {}
    taken: set[str] = set()
    for source in given:
        stem = os.fsencode(Path(source.label.replace(':', '_')).stem)[:LONGEST_NAME_BYTES].decode('utf-8', 'replace')
        candidates = itertools.chain([stem], (f'{stem}~{count}' for count in itertools.count(2)))
        names[source] = next(name for name in candidates if name not in taken)
        taken.add(names[source])
    return names
