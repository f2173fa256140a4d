"""Sentences of Markdown pages and their lengths: `python -m tests.documents.sentences [PAGE ...]` prints them."""

import re
import statistics
import sys
from pathlib import Path

from tests.documents.pages import PAGES, text_of, without_code

LONG_WORDS = 30
END = re.compile(r'(?<=[.!?])["\')\]*_]*\s+(?=["\'(\[*_`]*[A-Z0-9`])')


def sentences_of(text: str) -> list[str]:
    """Returns the sentences of the prose of a page: no code, no tables, no headings; `code` counts as one word."""
    text = re.sub(r'<!--.*?-->', '', without_code(text), flags=re.S)
    text = re.sub(r'^#.*$', '', text, flags=re.M)
    text = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', text)
    text = re.sub(r'`[^`]*`', 'CODE', text)
    text = re.sub(r'^\s*(?:[-*+]|\d+\.|:)\s+', '\n', text, flags=re.M)
    sentences = []
    for paragraph in re.split(r'\n\s*\n', text):
        sentences += [sentence for sentence in END.split(' '.join(paragraph.split())) if len(sentence.split()) > 1]
    return sentences


def lengths(text: str) -> list[int]:
    """Returns the number of words of every sentence of a page."""
    return [len(sentence.split()) for sentence in sentences_of(text)]


def main(names: list[str]) -> None:
    """Prints the number of sentences of each page, their median length, the share of long ones, and the long ones."""
    counts = []
    for page in [Path(name) for name in names] or PAGES:
        text = text_of(page)
        words = lengths(text) or [0]
        counts += words
        share = sum(count > LONG_WORDS for count in words) / len(words)
        print(f'{page}: {len(words)} sentences, median {statistics.median(words):g}, {share:.0%} long')
        if names:
            for sentence in sentences_of(text):
                if len(sentence.split()) > LONG_WORDS:
                    print('   ', len(sentence.split()), sentence)
    share = sum(count > LONG_WORDS for count in counts) / len(counts)
    print(f'all: {len(counts)} sentences, median {statistics.median(counts):g}, {share:.1%} long')


if __name__ == '__main__':
    main(sys.argv[1:])
