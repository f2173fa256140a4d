"""Names, times and copies: what `predict` writes for files as phones, cameras and file systems have them."""

import csv
import io
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.imaging.codec import decode
from fer_jax.inference import prediction_writers, predictor
from tests.inference.test_face_pipeline import RED, lines_of, run, write_video
from tests.inference.test_media import encode_video

av = pytest.importorskip('av')


def test_no_name_stops_the_others(untrained, yunet, tmp_path, capsys):
    """Names that are not UTF-8, names as long as the file system takes, and damaged files of such names."""
    folder = tmp_path / 'in'
    folder.mkdir()
    film = write_video(tmp_path / 'film.mp4', 5)
    odd = os.fsdecode(b'odd\xff')
    for name in (f'{odd}.mp4', f'{"f" * 251}.mp4', 'z.mp4'):
        (folder / name).write_bytes(film.read_bytes())
    for name in (f'{odd}.png', f'{"p" * 251}.png', 'z.png'):
        Image.fromarray(RED).save(folder / name)
    for name in (f'{odd}.mkv', f'{"d" * 251}.jpg'):
        (folder / name).write_text('hello')
    (folder / 'notes.txt').write_text('hello')
    out = tmp_path / 'out'
    assert run(folder, '--workdir', untrained, '--yunet', yunet, '--out', out) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f'left out: 1 (no photograph and no video by its suffix): {folder}/notes.txt'
    lines = lines_of(out)
    failed = [line['file'] for line in lines if 'error' in line]
    assert sorted(failed) == sorted([str(folder / f'{odd}.mkv'), str(folder / f'{"d" * 251}.jpg')])
    assert len({line['file'] for line in lines}) == 8 and sum('label' in line for line in lines) == 3 * 5 + 3
    assert len(list(out.glob('*_annotated.mp4'))) == 3 and len(list(out.glob('*.jpg'))) == 3


def test_the_annotated_copy_has_the_times_of_the_source(untrained, yunet, tmp_path):
    seconds = [0.0, 0.04, 0.08, 1.0, 1.04, 3.0, 3.04]
    film = encode_video(tmp_path / 'film.mkv', 'matroska', 'libx264', seconds)
    for every in (1, 3):
        out = tmp_path / f'out{every}'
        assert run(film, '--workdir', untrained, '--yunet', yunet, '--out', out, '--every', every) == 0
        with av.open(str(out / 'film_annotated.mp4')) as copy:
            assert copy.streams.video[0].codec_context.name == 'h264'
            np.testing.assert_allclose([frame.time for frame in copy.decode(video=0)], seconds[::every], atol=2e-3)
        np.testing.assert_allclose([line['seconds'] for line in lines_of(out)], seconds[::every], atol=2e-3)


def test_tables_hold_what_the_lines_hold(untrained, yunet, tmp_path, capsys):
    """Photographs, a video and an unreadable file; values of every cell against the JSON lines."""
    given = tmp_path / 'in'
    given.mkdir()
    write_video(given / 'film.mp4', 30)
    Image.fromarray(RED).save(given / 'red.png')
    Image.new('RGB', (50, 40)).save(given / os.fsdecode(b'black\xff.png'))
    (given / 'text.jpg').write_text('hello')
    for form in prediction_writers.FORMATS:
        options = ('--workdir', untrained, '--yunet', yunet, '--out', tmp_path / form, '--format', form)
        assert run(given, *options) == 2
    capsys.readouterr()
    assert run(given, '--workdir', untrained, '--yunet', yunet, '--format', 'csv') == 2
    assert capsys.readouterr().out == (tmp_path / 'csv' / 'predictions.csv').read_text()
    lines = lines_of(tmp_path / 'jsonl')
    with (tmp_path / 'csv' / 'predictions.csv').open(encoding='utf-8', newline='') as file:
        cells = list(csv.DictReader(file))
    parquet = pytest.importorskip('pyarrow.parquet')
    rows = parquet.read_table(tmp_path / 'parquet' / 'predictions.parquet').to_pylist()
    classes = predictor.load(untrained).classes
    assert len(lines) == len(cells) == len(rows) == 33
    assert list(cells[0]) == list(rows[0]) == list(prediction_writers.face_columns(classes))
    for line, cell, row in zip(lines, cells, rows, strict=True):
        expected = dict.fromkeys(row) | {key: line[key] for key in row if key in line} | line.get('probabilities', {})
        expected |= dict(zip(('x', 'y', 'width', 'height'), line.get('box', ()), strict=False))
        expected['face_id'] = line.get('face_id', line.get('face'))
        expected['file'] = line['file'].replace('\udcff', '\\udcff')
        assert row == expected
        assert cell == {key: '' if value is None else str(value) for key, value in expected.items()}
    for form in ('csv', 'parquet'):
        assert (tmp_path / form / f'persons.{form}').is_file()


def test_persons_of_a_video_have_means_and_a_timeline(untrained, yunet, tmp_path):
    film = write_video(tmp_path / 'film.mp4', 15)
    assert run(film, '--workdir', untrained, '--yunet', yunet, '--out', tmp_path / 'out', '--smooth', 1) == 0
    lines = lines_of(tmp_path / 'out')
    assert {line['face_id'] for line in lines} == {0}
    (person,) = map(json.loads, (tmp_path / 'out' / 'persons.jsonl').read_text().splitlines())
    assert (person['face_id'], person['frames'], person['first_seconds'], person['last_seconds']) == (0, 15, 0, 0.56)
    for name, value in person['probabilities'].items():
        assert abs(value - np.mean([line['probabilities'][name] for line in lines])) < 2e-4


@pytest.mark.parametrize('size', [(48, 48), (100, 160), (20, 30)])
def test_given_faces_are_classified_as_in_evaluation(untrained, tmp_path, capsys, size):
    """No detector is loaded: the middle square, as the decoder of the data sets takes it."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'crop.png')
    assert run(tmp_path / 'crop.png', '--workdir', untrained, '--faces', 'given', '--yunet', 'absent.onnx') == 0
    line = json.loads(capsys.readouterr().out)
    classify = predictor.load(untrained)
    expected = classify(decode((tmp_path / 'crop.png').read_bytes(), classify.image_size, 3, 'crop'))[0]
    np.testing.assert_allclose(list(line['probabilities'].values()), expected, atol=2e-4)
    assert line['box'] == [0, 0, size[1], size[0]] and line['detector'] == 1


def test_boxes_from_elsewhere_are_classified(untrained, tmp_path, capsys):
    """Named as they are given, relative to the table, by name alone; frames of a video by number."""
    (tmp_path / 'a').mkdir()
    generator = np.random.default_rng(0)
    for name in ('a/x.png', 'y.png', 'z.png'):
        Image.fromarray(generator.integers(0, 256, (90, 120, 3), np.uint8)).save(tmp_path / name)
    film = write_video(tmp_path / 'film.mp4', 3)
    rows = ['file,x,y,width,height,frame,detector', 'a/x.png,10,20,30,40,,0.5', 'x.png,1,1,1,1,,', 'y.png,1,2,48,48,,']
    rows += ['y.png,60,2,48,48,,', f'{film},4,5,60,60,1,', 'z.png,,,,,,']
    (tmp_path / 'boxes.csv').write_text('\n'.join(rows), encoding='utf-8-sig')
    assert run(tmp_path, '--workdir', untrained, '--faces', tmp_path / 'boxes.csv') == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [(os.path.basename(line['file']), *map(line.get, ('frame', 'box', 'detector'))) for line in lines]
    assert found == [
        ('x.png', None, [10, 20, 30, 40], 0.5),
        ('film.mp4', 0, None, None),
        ('film.mp4', 1, [4, 5, 60, 60], 1),
        ('film.mp4', 2, None, None),
        ('y.png', None, [1, 2, 48, 48], 1),
        ('y.png', None, [60, 2, 48, 48], 1),
        ('z.png', None, None, None),
    ]


@pytest.mark.parametrize(
    ('table', 'options', 'message'),
    [
        ('file,x,y,width\n', [], "boxes.csv' has no column 'height'; give file,x,y,width,height"),
        ('file,x,y,width,height\nred.png,1,2,a,4\n', [], "boxes.csv', line 2: 1,2,a,4 is no box; give x,y,width"),
        ('file,x,y,width,height\nred.png,1,2,0,4\n', [], 'line 2: 1,2,0,4 is no box'),
        ('file,x,y,width,height\nred.png,1,2,nan,4\n', [], 'line 2: 1,2,nan,4 is no box'),
        ('file,x,y,width,height\nred.png,1,2\n', [], 'line 2: 1,2,None,None is no box'),
        ('file,x,y,width,height\nblue.png,1,2,3,4\n', [], "no boxes of the pictures given, but of 'blue.png'"),
        ('', [], 'has no column'),
        (None, [], 'cannot be read .No such file or directory.; give "given" or a CSV file'),
        (None, ['--faces=given', '--format=cvs'], "--format='cvs' is unknown; the nearest is csv, of jsonl"),
        (None, ['--faces=given', '--format=parquet'], '--format=parquet is no text; give --out'),
        (None, ['--faces=given', '--smooth=-1'], '--smooth=-1.0; expected seconds, 0 to 3600'),
    ],
)
def test_mistakes_in_tables_and_formats_are_one_message(untrained, tmp_path, capsys, table, options, message):
    Image.fromarray(RED).save(tmp_path / 'red.png')
    if table is not None:
        (tmp_path / 'boxes.csv').write_text(table)
    assert run(tmp_path / 'red.png', '--workdir', untrained, '--faces', tmp_path / 'boxes.csv', *options) == 2
    printed = capsys.readouterr()
    assert printed.out == '' and printed.err.count('\n') == 1
    assert re.search(f'^fer_jax: .*{message}', printed.err)


def test_a_table_is_written_line_by_line():
    class Text(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed += 1

    text = Text()
    writer = prediction_writers.open_writer('csv', text, {'file': str, 'happy': float})
    writer.write({'file': 'a,b', 'probabilities': {'happy': 0.25}, 'more': 1})
    assert text.getvalue() == 'file,happy\n"a,b",0.25\n' and text.flushed
