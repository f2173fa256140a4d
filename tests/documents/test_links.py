"""Every internal link of README, CONTRIBUTING, CHANGELOG and the pages of docs/ leads somewhere."""

import re

import pytest

from tests.documents.pages import PAGES, REPOSITORY, text_of

LINK = re.compile(r'\]\(([^)\s]+)\)')


def anchors(text: str) -> set[str]:
    """The anchors that GitHub and MyST give to the headings of a page."""
    headings = re.findall(r'^#+ +(.+?)\s*$', re.sub(r'^```.*?^```', '', text, flags=re.S | re.M), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_every_link_leads_somewhere(page):
    broken = []
    for link in LINK.findall(text_of(page)):
        if '://' in link or link.startswith('mailto:'):
            continue
        path, _, anchor = link.partition('#')
        target = (REPOSITORY / page.parent / path).resolve() if path else REPOSITORY / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert not broken


def test_every_page_that_code_names_exists():
    named = re.compile(r'\b(?:docs|examples)/[\w/-]+\.(?:md|ipynb|py|mjs)\b')
    sources = [path for folder in ('fer_jax', 'configs', 'scripts') for path in (REPOSITORY / folder).rglob('*.py')]
    missing = {
        (str(path.relative_to(REPOSITORY)), name)
        for path in sources
        for name in named.findall(path.read_text())
        if not (REPOSITORY / name).exists()
    }
    assert not missing
