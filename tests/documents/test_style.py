"""Pages are written in short sentences, and their tables of results are those of the records."""

import statistics

import pytest

from scripts import results_tables
from tests.documents.pages import PAGES, REPOSITORY, text_of
from tests.documents.sentences import LONG_WORDS, lengths, sentences_of

MOST_WORDS = 16  # of the median sentence
MOST_LONG = 0.03  # share of sentences of more than LONG_WORDS
ENOUGH = 20  # sentences of a page, for its own share to say something


def test_sentences_are_found():
    text = '# A\n\nOne `a.b c` two. Three\nfour, [five](x.md)? Six 0.5 seven.\n\n- Item one\n- Item two\n\n| a b |\n'
    assert sentences_of(text) == ['One CODE two.', 'Three four, five?', 'Six 0.5 seven.', 'Item one', 'Item two']


def test_sentences_are_short():
    words = [count for page in PAGES for count in lengths(text_of(page))]
    assert statistics.median(words) <= MOST_WORDS
    assert sum(count > LONG_WORDS for count in words) < MOST_LONG * len(words)


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_no_page_is_full_of_long_sentences(page):
    words = lengths(text_of(page))
    if len(words) >= ENOUGH:
        assert statistics.median(words) <= MOST_WORDS
        assert sum(count > LONG_WORDS for count in words) < 2 * MOST_LONG * len(words)


def test_tables_of_results_are_those_of_the_records():
    assert results_tables.main(['--check']) == 0, 'run scripts/results_tables.py'
    used = {name for page in results_tables.PAGES for _, name, _ in results_tables.BLOCK.findall(page.read_text())}
    assert used == results_tables.TABLES.keys()


def test_the_scores_of_the_readme_are_those_of_the_results():
    text = (REPOSITORY / 'README.md').read_text()
    rows = [line for line in text[text.index('| FER2013') :].split('\n\n')[0].splitlines()[2:]]
    results = (REPOSITORY / 'docs' / 'results' / 'accuracy.md').read_text()
    for row in rows:
        for score in row.replace('*', '').split('|')[2:4]:
            assert score.strip() in results.replace('*', ''), score


def test_the_readme_and_the_changes_are_short():
    assert len((REPOSITORY / 'README.md').read_text().splitlines()) <= 120
    changes = (REPOSITORY / 'CHANGELOG.md').read_text().partition('## [Unreleased]')[2].partition('\n## ')[0]
    assert len(changes.splitlines()) <= 50
