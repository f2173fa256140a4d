"""Photographs, folders, videos and cameras as pictures one after the other."""

import contextlib
import functools
import http.server
import itertools
import os
import re
import struct
import threading
import types
from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.inference import media, video
from tests.wait import LIMIT

av = pytest.importorskip('av')


def write_video(path, count, *, rate=25.0, size=(64, 48), codec='mp4v'):
    """Frame k is grey of level k modulo 200."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
    for number in range(count):
        writer.write(np.full((size[1], size[0], 3), number % 200, np.uint8))
    writer.release()
    return path


def encode_video(path, form, codec, seconds, *, picture=None, aspect=None):
    """By PyAV, with the times given; frame k is grey of level 5 k, or the picture moved by 2 k px."""
    seconds = list(seconds)
    with av.open(str(path), 'w', format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, 'yuv420p'
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        base = Fraction(1, 25) if codec in ('mpeg2video', 'libvpx') else Fraction(1, 1000)
        stream.codec_context.time_base = base
        for number, second in enumerate(seconds):
            image = np.full((96, 128, 3), 5 * number, np.uint8) if picture is None else np.roll(picture, 2 * number, 1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
            frame.pts, frame.time_base = round(second / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_folders_are_searched_and_nothing_comes_twice(tmp_path):
    for name in ('b/x.png', 'a.JPG', 'b/.hidden.png', 'b/notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('')
    write_video(tmp_path / 'film.mp4', 3)
    found = media.find_sources([str(tmp_path), str(tmp_path / 'a.JPG')]).sources
    assert [source.name.removeprefix(f'{tmp_path}/') for source in found] == ['a.JPG', 'b/x.png', 'film.mp4']
    assert [source.moves for source in found] == [False, False, True]
    assert found[2].frames == 3 and found[2].rate == 25
    assert len(media.find_sources([str(tmp_path / 'b' / 'notes.txt')]).sources) == 1  # what is named is tried


def test_what_a_folder_holds_beside_pictures_is_named(tmp_path):
    """Links to folders are followed once; a run and its pictures are no photographs to look at."""
    inside, elsewhere = tmp_path / 'inside', tmp_path / 'elsewhere'
    for name in ('notes.txt', 'Thumbs.db', 'code.ts', 'run/config.json', 'run/checkpoints/x', 'run/curves.png'):
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        (inside / name).write_text('export const x = 1;')
    elsewhere.mkdir()
    Image.new('RGB', (8, 8)).save(elsewhere / 'x.png')
    (inside / 'linked').symlink_to(elsewhere)
    (inside / 'linked_again').symlink_to(elsewhere)
    (inside / 'gone.jpg').symlink_to('nowhere.jpg')
    sources, left_out = media.find_sources([str(inside)])
    assert [source.name for source in sources] == [str(inside / 'linked' / 'x.png')]
    assert {reason: [name.removeprefix(f'{inside}/') for name in names] for reason, names in left_out.items()} == {
        'hidden': ['Thumbs.db'],
        'written by fer_jax': ['run/'],
        'a link to a folder that is read already': ['linked_again/'],
        'a link to nothing': ['gone.jpg'],
        'no photograph and no video by its suffix': ['notes.txt'],
        'no video by its first byte': ['code.ts'],
    }


def test_what_is_not_there_is_named(tmp_path):
    for given, message in (
        (str(tmp_path / 'absent.jpg'), 'absent.jpg.* is no file and no folder; give photographs'),
        (str(tmp_path), r'holds no photographs and no videos \(.*.bmp, .gif, .*.webm'),
        ('x' * 300, 'xxx.* is no file and no folder'),
        ('a\0b', 'a.*b.* is no file and no folder'),
        ('camera:63', 'camera:63.* cannot be opened; is it there'),
        ('camera:front', 'camera:front.* is no camera; give camera:0'),
        ('camera:', 'is no camera'),
    ):
        with pytest.raises(UserError, match=message):
            media.find_sources([given])


def test_a_photograph_is_one_frame(tmp_path):
    Image.new('RGB', (8, 6), (1, 2, 3)).save(tmp_path / 'x.png')
    (source,) = media.find_sources([str(tmp_path / 'x.png')]).sources
    (frame,) = media.read_frames(source)
    assert frame.image.shape == (6, 8, 3) and frame.image[0, 0].tolist() == [1, 2, 3] and not source.moves


@pytest.mark.parametrize(('suffix', 'codec', 'rate'), [('mp4', 'mp4v', 25.0), ('avi', 'MJPG', 12.5)])
def test_a_videos_frames_have_their_numbers_and_times(tmp_path, suffix, codec, rate):
    path = write_video(tmp_path / f'film.{suffix}', 60, rate=rate, codec=codec)
    (source,) = media.find_sources([str(path)]).sources
    assert source.frames == 60
    for every in (1, 7):
        found = list(media.read_frames(source, every=every))
        assert [frame.number for frame in found] == list(range(0, 60, every))
        np.testing.assert_allclose([frame.seconds for frame in found], np.arange(0, 60, every) / rate, atol=1e-3)
        levels = [frame.image.mean() for frame in found]
        np.testing.assert_allclose(levels, np.arange(0, 60, every), atol=4)
        assert not any(frame.error for frame in found)


def test_a_video_that_is_cut_off_gives_what_is_there_and_says_so(tmp_path):
    path = write_video(tmp_path / 'film.avi', 150, codec='MJPG')
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    (source,) = media.find_sources([str(path)]).sources
    *found, last = media.read_frames(source)
    assert 20 < len(found) < 100 and all(frame.image is not None for frame in found)
    assert last.image is None and 'film.avi ends after' in last.error and 'of its 6.0 seconds' in last.error


def test_what_is_no_video_is_said(tmp_path):
    data = write_video(tmp_path / 'x_01.mp4', 30).read_bytes()
    for content in (data[: len(data) // 2], b'hello', b''):  # an mp4 has its table at its end
        (tmp_path / 'x_01.mp4').write_bytes(content)
        (source,) = media.find_sources([str(tmp_path / 'x_01.mp4')]).sources
        (frame,) = media.read_frames(source)
        assert frame.image is None and 'x_01.mp4 cannot be read as a video' in frame.error


@pytest.mark.parametrize(
    ('name', 'form', 'codec'),
    [
        ('x.MTS', 'mpegts', 'libx264'),
        ('x.ts', 'mpegts', 'mpeg2video'),
        ('x.m2ts', 'mpegts', 'libx264'),
        ('x.3gp', '3gp', 'libx264'),
        ('x.flv', 'flv', 'flv'),
        ('x.ogv', 'ogg', 'libvpx'),
        ('x.webm', 'webm', 'libvpx-vp9'),
        ('x.mkv', 'matroska', 'libx264'),
        ('x.mov', 'mov', 'mpeg4'),
        ('x.m4v', 'mp4', 'mpeg4'),
        ('x.wmv', 'asf', 'wmv2'),
        ('x.mp4', 'mp4', 'libsvtav1'),
        ('clip', 'mp4', 'libx264'),  # with no suffix, given by its name
    ],
)
def test_containers_of_phones_and_camcorders_are_read(tmp_path, name, form, codec):
    if codec not in av.codecs_available:
        pytest.skip(f'this build of PyAV has no encoder {codec}')
    path = encode_video(tmp_path / name, form, codec, np.arange(30) / 25)
    (source,) = media.find_sources([str(path) if name == 'clip' else str(tmp_path)]).sources
    frames = list(media.read_frames(source))
    assert [frame.error for frame in frames] == [''] * 30 and abs(source.rate - 25) < 0.1 and source.frames == 30
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(30) / 25, atol=2e-3)
    np.testing.assert_allclose([frame.image.mean() for frame in frames], 5 * np.arange(30), atol=8)


def test_source_code_in_a_folder_is_no_video(tmp_path):
    (tmp_path / 'code.ts').write_text('export const x = 1;')
    Image.new('RGB', (8, 8)).save(tmp_path / 'x.png')
    assert [source.name for source in media.find_sources([str(tmp_path)]).sources] == [str(tmp_path / 'x.png')]


def test_frames_of_a_variable_rate_keep_their_times(tmp_path):
    seconds = [0.0, 0.04, 0.08, 1.0, 1.04, 3.0, 3.04]
    for name, form in (('x.mkv', 'matroska'), ('x.mp4', 'mp4')):
        (source,) = media.find_sources([str(encode_video(tmp_path / name, form, 'libx264', seconds))]).sources
        np.testing.assert_allclose([frame.seconds for frame in media.read_frames(source)], seconds, atol=1e-3)


def test_a_written_video_keeps_the_times_of_its_frames(tmp_path):
    seconds = [0.0, 1 / 30, 2 / 30, 1.5, 1.5 + 1001 / 30000, 4.0]
    writer = video.Writer(tmp_path / 'x.mp4', (64, 48), 2.0)
    for number, second in enumerate(seconds):
        writer.add(np.full((48, 64, 3), 40 * number, np.uint8), second)
    writer.close()
    with av.open(str(tmp_path / 'x.mp4')) as container:
        frames = [(frame.time, frame.to_ndarray(format='gray').mean()) for frame in container.decode(video=0)]
    np.testing.assert_allclose([time for time, _ in frames], seconds, atol=1e-4)
    assert np.all(np.diff([level for _, level in frames]) > 20)


@pytest.mark.parametrize('quarter_turns', [0, 1, 2, 3])
def test_a_video_is_turned_upright(tmp_path, quarter_turns):
    """As by the matrix in the header of the track, which a phone writes; by its rows as ISO 14496-12 has them."""
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[:48, :64] = 255
    path = encode_video(tmp_path / 'x.mp4', 'mp4', 'libx264', [0.0], picture=picture)
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns]  # clockwise
    data = path.read_bytes()
    rows = (cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    start = data.index(b'tkhd') + 4 + 40
    path.write_bytes(data[:start] + struct.pack('>9i', *rows) + data[start + 36 :])
    (frame,) = media.read_frames(media.find_sources([str(path)]).sources[0])
    np.testing.assert_allclose(frame.image, np.rot90(picture, -quarter_turns), atol=80)
    assert np.abs(frame.image.astype(int) - np.rot90(picture, -quarter_turns)).mean() < 3


def test_pixels_become_square(tmp_path):
    path = encode_video(tmp_path / 'x.mts', 'mpegts', 'libx264', np.arange(5) / 25, aspect=Fraction(4, 3))
    (source,) = media.find_sources([str(path)]).sources
    assert {frame.image.shape for frame in media.read_frames(source)} == {(96, 171, 3)}


def test_a_name_that_is_not_utf8_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b'film\xff.mp4')
    os.replace(write_video(tmp_path / 'film.mp4', 5), path)
    (source,) = media.find_sources([str(tmp_path)]).sources
    assert len([frame.image for frame in media.read_frames(source)]) == source.frames == 5
    path.write_bytes(b'hello')
    (frame,) = media.read_frames(source)
    assert 'cannot be read as a video' in frame.error


def test_a_title_that_is_not_utf8_is_no_damage(tmp_path):
    path = tmp_path / 'film.avi'
    with av.open(str(path), 'w') as container:
        container.metadata['title'] = 'xyzzy'
        stream = container.add_stream('mpeg4', rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert b'xyzzy' in data
    path.write_bytes(data.replace(b'xyzzy', b'\xe9t\xe9\xff '))
    assert [frame.error for frame in media.read_frames(media.find_sources([str(path)]).sources[0])] == [''] * 5


def test_a_video_that_is_damaged_in_its_middle_gives_the_rest_and_says_so(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    path = encode_video(tmp_path / 'x.mkv', 'matroska', 'libx264', np.arange(50) / 25, picture=noise)
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : third + 3000] = np.random.default_rng(1).integers(0, 256, 3000, np.uint8).tobytes()
    path.write_bytes(data)
    *frames, last = media.read_frames(media.find_sources([str(path)]).sources[0])
    assert len(frames) > 30 and all(frame.image is not None for frame in frames) and frames[-1].seconds > 1.9
    assert last.image is None and re.search(r'x.mkv is damaged \(\d+ of its packets', last.error)


@pytest.mark.parametrize(('form', 'codec'), [('mpegts', 'libx264'), ('flv', 'flv'), ('avi', 'mpeg4'), ('mp4', 'mpeg4')])
def test_random_damage_is_no_traceback(tmp_path, capfd, form, codec):
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    whole = encode_video(tmp_path / 'x', form, codec, np.arange(5) / 25, picture=noise).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, len(data) if rng.random() < 0.5 else 1000, rng.choice([1, 8, 60])):
            data[place] = rng.integers(256)
        (tmp_path / 'x.mpg').write_bytes(data[: rng.integers(len(data))] if rng.random() < 0.3 else data)
        for frame in itertools.islice(media.read_frames(media.find_sources([str(tmp_path / 'x.mpg')]).sources[0]), 50):
            assert (frame.image is None) == bool(frame.error)
    assert capfd.readouterr() == ('', '')


def test_what_pyav_raises_of_damaged_files_is_damage(tmp_path, monkeypatch):
    """An IndexError was seen of a file whose streams change, and printed errors of places beyond a file."""

    def demux(stream):
        raise IndexError('list index out of range')

    stream = types.SimpleNamespace(sample_aspect_ratio=None, codec_context=None)
    container = types.SimpleNamespace(streams=types.SimpleNamespace(best=lambda _: stream), demux=demux)
    monkeypatch.setattr(video, '_open', lambda _: contextlib.nullcontext((container, None)))
    with pytest.raises(video.Damaged, match='list index out of range'):
        list(video.read_pictures('film.ts', 25.0))
    (tmp_path / 'x').write_bytes(b'1234')
    with video._File(tmp_path / 'x') as file:
        assert file.seek(-5) == file.seek(2**70) == -1 and file.seek(1) == 1 and file.read() == b'234'


def test_a_playlist_opens_nothing_else(tmp_path):
    write_video(tmp_path / 'film.mp4', 5)
    (tmp_path / 'list.mkv').write_text(f'#EXTM3U\n#EXTINF:1,\n{tmp_path}/film.mp4\n#EXT-X-ENDLIST\n')
    (tmp_path / 'list.mp4').write_text(f"ffconcat version 1.0\nfile '{tmp_path}/film.mp4'\n")
    for name in ('list.mkv', 'list.mp4'):
        (frame,) = media.read_frames(media.find_sources([str(tmp_path / name)]).sources[0])
        assert 'cannot be read as a video' in frame.error


def test_a_stream_is_read_and_its_password_kept_out_of_names(tmp_path):
    encode_video(tmp_path / 'x.mkv', 'matroska', 'libx264', np.arange(10) / 25)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://user:secret@127.0.0.1:{server.server_port}'
        here, absent = media.find_sources([f'{address}/x.mkv', f'{address}/absent.mkv']).sources
        assert [frame.error for frame in media.read_frames(here)] == [''] * 10 and not here.live
        (frame,) = media.read_frames(absent)
        server.shutdown()
    assert 'absent.mkv cannot be read as a video' in frame.error and 'secret' not in frame.error
    assert here.label == f'http://127.0.0.1:{server.server_port}/x.mkv'
    assert media.Source('rtsp://camera/1', 0, 25.0).live


def test_of_a_live_source_the_newest_frame_is_taken():
    """Frames that come while one is looked at are dropped, not queued; an error comes after the last frame."""
    taken, served = threading.Event(), threading.Event()

    def pictures():
        for number in range(10):
            if number == 1:
                taken.wait(LIMIT)  # until the first is looked at
            yield video.Picture(number / 25, lambda: np.zeros((2, 2, 3), np.uint8))
        served.set()
        raise video.Damaged('connection lost')

    newest = media.take_newest(pictures(), every=3)
    assert next(newest)[0] == 0
    taken.set()
    assert served.wait(LIMIT)
    assert next(newest)[0] == 9
    with pytest.raises(video.Damaged, match='connection lost'):
        next(newest)


def test_a_stream_that_stalls_ends_with_a_message(tmp_path, monkeypatch):
    """The server sends a part of a stream without a known length, and then nothing more."""
    monkeypatch.setattr(video, 'STREAM_TIMEOUT_SECONDS', 1.0)
    data = encode_video(tmp_path / 'x.ts', 'mpegts', 'mpeg2video', np.arange(50) / 25).read_bytes()
    over = threading.Event()

    class Stalling(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)
                over.wait(LIMIT)

        def log_message(self, *values):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Stalling) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = media.Source(f'http://127.0.0.1:{server.server_port}/live.ts', 0, 25.0)
        *frames, last = media.read_frames(source)
        over.set()
        server.shutdown()
    assert source.live and frames and last.image is None
    assert re.search(r'live.ts ended after \d\.\d seconds \(.+\)$', last.error)
