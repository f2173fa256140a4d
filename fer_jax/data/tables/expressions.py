"""The names of expressions: one spelling each, whatever a data set or a folder calls them."""

EXPRESSIONS = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral', 'contempt')

_SYNONYMS = {
    'angry': ('anger',),
    'disgust': ('disgusted',),
    'fear': ('fearful', 'afraid', 'scared'),
    'happy': ('happiness', 'joy'),
    'sad': ('sadness',),
    'surprise': ('surprised',),
    'neutral': ('neutrality', 'calm'),
    'contempt': ('contemptuous',),
}
_CODES = {
    'angry': ('an', 'ang'),
    'disgust': ('di', 'dis'),
    'fear': ('fe', 'fea'),
    'happy': ('ha', 'hap'),
    'sad': ('sa',),
    'surprise': ('su', 'sur'),
    'neutral': ('ne', 'neu'),
    'contempt': ('co', 'con'),
}
_WORDS = {word: name for name, words in _SYNONYMS.items() for word in (name, *words)}
_CANONICAL = _WORDS | {code: name for name, codes in _CODES.items() for code in codes}


def canonical(name: str, *, codes: bool = True) -> str:
    """Returns the one spelling of an expression: 'happy' of 'Happiness', '4_happy' and the code 'HA'.

    A name that is no expression's comes back as it is.

    Args:
      codes: whether codes of two or three letters count.
    """
    plain = name.strip().lower().lstrip('0123456789').strip(' _-.')
    return (_CANONICAL if codes else _WORDS).get(plain, name)
