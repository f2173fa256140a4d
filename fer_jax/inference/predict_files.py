"""Photographs and videos in, JSON lines and annotated copies out."""

import argparse
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from fer_jax.data.imaging import faces
from fer_jax.errors import UserError
from fer_jax.inference import drawing, face_pipeline, media
from fer_jax.inference.face_pipeline import FacePrediction
from fer_jax.inference.media import Frame, Source
from fer_jax.inference.predictor import Predictor
from fer_jax.utils import progress

LONGEST_NAME_BYTES = 180  # of a copy; file systems take 255, of which suffixes and names of unfinished files need some


def predict_files(arguments: argparse.Namespace) -> int:
    """Looks at all that was given, and writes what it shows; returns the exit status."""
    for name, fits, expected in (
        ('margin', arguments.margin is None or 0 <= arguments.margin <= 10, '0 to 10'),
        ('abstain_below', 0 <= arguments.abstain_below <= 1, 'a probability'),
        ('every', arguments.every >= 1, '1 or more'),
    ):
        if not fits:
            raise UserError(f'--{name}={getattr(arguments, name)}; expected {expected}')
    given = media.sources(arguments.paths)
    if arguments.out:
        _make(arguments.out, arguments.paths, given)
    detect = faces.detector(arguments.yunet)
    predictor = Predictor(arguments.workdir, tta=arguments.tta)
    cutting = face_pipeline.cutting(predictor.folder, arguments.margin, aligns=arguments.yunet is not None)
    print(cutting.description, file=sys.stderr)
    pictures = itertools.chain.from_iterable(media.read_frames(source, every=arguments.every) for source in given)
    size = predictor.image_size
    seen = face_pipeline.look(pictures, detect, predictor.calibrated, size=size, cutting=cutting)
    missed = 0
    with contextlib.ExitStack() as stack:
        written: TextIO = sys.stdout
        if arguments.out:
            written = stack.enter_context((arguments.out / 'predictions.jsonl').open('w'))
        total = sum(-(-source.frames // arguments.every) for source in given)
        shown = stack.enter_context(progress.bar(None, 'looking', total if all(s.frames for s in given) else None))
        names = _names(given)
        for source, of_source in itertools.groupby(seen, lambda one: one[0].source):
            missed += _write(source, names[source], of_source, predictor.classes, arguments, written, shown)
    if arguments.out:
        print(f'predictions.jsonl and annotated copies are in {arguments.out}')
    if missed:
        print(f'fer_jax: {missed} of {len(given)} could not be read, or not whole; see above', file=sys.stderr)
    return 2 if missed else 0


def _write(
    source: Source,
    name: str,
    seen: Iterable[tuple[Frame, list[FacePrediction]]],
    classes: tuple[str, ...],
    arguments: argparse.Namespace,
    written: TextIO,
    shown: Any,
) -> bool:
    """Writes what was seen of one source, as lines and as its annotated copy; whether some of it could not be read."""
    missed = False
    out: Path | None = arguments.out
    say = shown.write if sys.stderr.isatty() else print  # past a bar that moves
    with contextlib.ExitStack() as stack:
        film = None
        if out and source.moves:
            film = stack.enter_context(drawing.Film(out, name, source.rate / arguments.every, classes))
        for frame, told in seen:
            if frame.image is None:
                missed = True
                say(f'fer_jax: {frame.error}', file=sys.stderr)
                print(json.dumps(face_pipeline.place(frame) | {'error': frame.error}), file=written, flush=True)
                continue
            options = {'abstain_below': arguments.abstain_below}
            lines = [face_pipeline.record(frame, one, classes, number=at, **options) for at, one in enumerate(told)]
            for line in lines or [face_pipeline.place(frame) | {'faces': 0}]:
                print(json.dumps(line), file=written, flush=True)
            if film:
                largest = max(told, key=lambda one: one.face.box[2] * one.face.box[3], default=None)
                picture = drawing.drawn(frame.image, lines)
                film.add(picture, frame.seconds, None if largest is None else largest.probabilities)
            elif out:
                drawing.save_jpeg(out / f'{name}.jpg', drawing.drawn(frame.image, lines))
            if not told and not source.moves:
                say(f'{source.label}: no face', file=sys.stderr)
            shown.update()
    return missed


def _make(out: Path, paths: Sequence[str], given: Sequence[Source]) -> None:
    """Makes the folder of the copies, which have the names of what they are copies of, and may not be where that is."""
    for path in paths:
        if Path(path).is_dir() and out.resolve().is_relative_to(Path(path).resolve()):
            raise UserError(f'--out={str(out)!r} lies inside {path!r}; the next call would take copies for photographs')
    for file in (Path(source.name) for source in given if not source.live):
        if out.resolve() in (file.parent.resolve(), file.resolve().parent):
            said = f'--out={str(out)!r} is the folder of {str(file)!r}, whose copy would replace it; give another'
            raise UserError(said)
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
