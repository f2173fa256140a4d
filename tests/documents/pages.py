"""The documents of the repository, as the tests about them read them."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(REPOSITORY)
    for path in (*REPOSITORY.glob('*.md'), *REPOSITORY.glob('docs/**/*.md'), *REPOSITORY.glob('examples/*.md'))
)


def text_of(page: Path) -> str:
    """The text of a page."""
    return (REPOSITORY / page).read_text()


def without_code(text: str) -> str:
    """The text without its code blocks and its tables."""
    text = re.sub(r'^(```+|:::+)[^\n]*\n.*?^\1\s*$', '', text, flags=re.S | re.M)
    return '\n'.join(line for line in text.splitlines() if not line.lstrip().startswith('|'))
