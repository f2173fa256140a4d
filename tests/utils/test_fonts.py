"""Names in any script, in pictures."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib.tables._g_l_y_f import Glyph
from PIL import Image, ImageDraw

from fer_jax.data.quality import contact_sheet
from fer_jax.inference import drawing
from fer_jax.reporting import figures
from fer_jax.utils import fonts, image_grid

NAMES = (
    'a$b$ x^2',
    '\u9ad8\u5174',
    '\u0633\u0639\u064a\u062f',
    '\U0001f600',
    'f\u00e2ch\u00e9',
    '-x, "y"\nz',
    '\udcff',
)


@pytest.fixture
def cjk_font(tmp_path, monkeypatch):
    """A font with two Chinese characters, installed."""
    builder = FontBuilder(1000)
    characters = {ord(character): f'g{ord(character):x}' for character in '\u9ad8\u5174'}
    names = ['.notdef', *characters.values()]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(characters)
    builder.setupGlyf({name: Glyph() for name in names})
    builder.setupHorizontalMetrics({name: (1000, 0) for name in names})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({'familyName': 'Tiny CJK', 'styleName': 'Regular'})
    builder.setupOS2()
    builder.setupPost()
    path = str(tmp_path / 'cjk.ttf')
    builder.save(path)
    installed = (*fonts.installed_fonts(), ('Tiny CJK', path))
    monkeypatch.setattr(fonts, 'installed_fonts', lambda: installed)
    fonts.fit_font.cache_clear()
    yield path
    fonts.fit_font.cache_clear()


def test_a_font_is_chosen_that_has_the_characters(cjk_font):
    assert fonts.fit_font('\u9ad8\u5174') == ('\u9ad8\u5174', 'Tiny CJK', cjk_font)
    assert [fonts.fit_font(name).family for name in NAMES if name != '\u9ad8\u5174'] == [fonts.DEFAULT] * 6


def test_characters_without_a_font_are_escaped_and_reported_once(monkeypatch, capsys):
    alone = fonts.installed_fonts()[:1]
    monkeypatch.setattr(fonts, 'installed_fonts', lambda: alone)
    monkeypatch.setattr(fonts, '_reported', [])
    fonts.fit_font.cache_clear()
    shown = [fonts.showable(name) for name in NAMES]
    assert shown == ['a$b$ x^2', 'U+9AD8U+5174', *NAMES[2:6], '\\udcff']
    assert fonts.showable('\uff21\U0001f972\ufe0f\u9ad8\t') == 'AU+1F972\ufe0fU+9AD8\\t'
    assert capsys.readouterr().err.count('no installed font shows') == 1


@pytest.mark.filterwarnings('error')
def test_pictures_are_drawn_of_any_names(tmp_path):
    """`$` begins no formula, whose syntax would be wrong here, and no glyph is missing."""
    probabilities = dict.fromkeys(NAMES, 0.1)
    record = {'face': 0, 'box': [5, 40, 20, 20], 'label': '', 'confidence': 0.9, 'abstained': False}
    for name in NAMES:
        drawing.draw_faces(np.zeros((90, 300, 3), np.uint8), [record | {'label': name, 'probabilities': probabilities}])
    figures.confusion_png(tmp_path / 'a.png', np.eye(len(NAMES), dtype=int), NAMES, '$1 of $2 ^')
    persons = {0: np.full((3, len(NAMES)), 1 / len(NAMES))}
    drawing.timeline_png(tmp_path / 'b.png', np.arange(3.0), persons, NAMES, '$\u9ad8$_^')
    image_grid.write_image_grid(tmp_path / 'c.png', NAMES, NAMES, np.zeros((len(NAMES), 8, 8, 1), np.uint8))


def test_a_name_is_one_line_of_a_contact_sheet():
    """Pillow measures no text of several lines."""
    assert contact_sheet._line(NAMES[5]) == '-x, "y" z'
    for name in NAMES:
        fitted = contact_sheet._fitted(contact_sheet._line(name), 60, 12)
        contact_sheet._write(ImageDraw.Draw(Image.new('RGB', (99, 20))), (0, 0), fitted, 'black', 12)


def test_a_thousand_classes_are_one_picture_of_a_usual_size(tmp_path):
    figures.confusion_png(tmp_path / 'a.png', np.eye(1000, dtype=int), [f'class {index}' for index in range(1000)], '')
    with Image.open(tmp_path / 'a.png') as picture:
        assert max(picture.size) < 2000
