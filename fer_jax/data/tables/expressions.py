"""The names of expressions: one spelling each, whatever a data set or a folder calls them."""

EXPRESSIONS = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral', 'contempt')

_SYNONYMS = {
    'angry': ('anger', 'an', 'ang'),
    'disgust': ('disgusted', 'di', 'dis'),
    'fear': ('fearful', 'afraid', 'scared', 'fe', 'fea'),
    'happy': ('happiness', 'joy', 'ha', 'hap'),
    'sad': ('sadness', 'sa'),
    'surprise': ('surprised', 'su', 'sur'),
    'neutral': ('neutrality', 'calm', 'ne', 'neu'),
    'contempt': ('contemptuous', 'co', 'con'),
}
_CANONICAL = {synonym: name for name, synonyms in _SYNONYMS.items() for synonym in (name, *synonyms)}


def canonical(name: str) -> str:
    """'Happiness', 'HA' and '4_happy' are 'happy'; a name that is no expression's comes back as it is."""
    plain = name.strip().lower().lstrip('0123456789').strip(' _-.')
    return _CANONICAL.get(plain, name)
