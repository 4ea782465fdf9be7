"""What mkdocs.yml cannot say: pages from outside docs/, and the reference.

Links in docs/*.md are paths of the repository, so that they also work on GitHub. A linked file
that is no page of the site gets a page that shows it.
"""

import json
import posixpath
import re
from pathlib import Path

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[2]
# Pages by their path in the repository; docs/NAME.md and docs/NAME.ipynb are NAME.md.
_PAGES = {
    'README.md': 'index.md',
    'docs/README.md': 'contents.md',
    'configs/README.md': 'models.md',
    'CHANGELOG.md': 'changelog.md',
    'CONTRIBUTING.md': 'contributing.md',
    'SECURITY.md': 'security.md',
}
_LINK = re.compile(r'(?<=\]\()[^)\s#]+')


def on_config(config: MkDocsConfig) -> None:
    """The reference, before the last tab."""
    config.nav.insert(-1, {'Reference': reference.nav()})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Pages that are not Markdown in docs/."""
    texts = {name: (_ROOT / name).read_text() for name in _PAGES}
    for path in sorted((_ROOT / 'docs').glob('*.md')):
        texts[f'docs/{path.name}'] = path.read_text()
    for path in (_ROOT / 'docs').glob('*.ipynb'):
        texts[f'docs/{path.name}'] = notebook_page(json.loads(path.read_text()))
    pages = {_uri(name): text for name, text in texts.items()}
    for name, text in texts.items():
        for link in _LINK.findall(text):
            target = _target(name, link)
            if target and target not in texts and not target.startswith('docs/'):
                pages[_uri(target)] = file_page(target)
    pages.update(reference.pages())
    for uri, text in pages.items():
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links from page to page, instead of paths of the repository."""
    uri = page.file.src_uri
    name = next((name for name, place in _PAGES.items() if place == uri), f'docs/{uri}')

    def link(match: re.Match) -> str:
        target = _target(name, match[0])
        return (
            posixpath.relpath(_uri(target), posixpath.dirname(uri) or '.') if target else match[0]
        )

    return _LINK.sub(link, markdown)


def _target(name: str, link: str) -> str | None:
    """The file of the repository to which a link of another file leads."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
    return path if ':' not in link and (_ROOT / path).is_file() else None


def _uri(name: str) -> str:
    """The place of a file of the repository in the site."""
    if name in _PAGES:
        return _PAGES[name]
    if name.startswith('docs/'):
        return name.removeprefix('docs/').replace('.ipynb', '.md')
    return f'files/{name}.md'


def file_page(name: str) -> str:
    """A page that shows a file, without a place in search."""
    path = _ROOT / name
    head = f'---\nsearch: {{exclude: true}}\n---\n# {path.name}\n\n`{name}`\n\n'
    return f'{head}````{path.suffix.lstrip(".") or "text"}\n{path.read_text()}\n````\n'


def notebook_page(notebook: dict) -> str:
    """A page with the cells of a notebook, their printed output and their pictures."""
    parts = []
    for cell in notebook['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            parts.append(source)
            continue
        parts.append(f'```python\n{source}\n```')
        for output in cell['outputs']:
            data = output.get('data', {})
            if 'image/png' in data:
                picture = ''.join(data['image/png']).strip()
                parts.append(f'![](data:image/png;base64,{picture})')
            else:
                text = ''.join(output.get('text') or data['text/plain'])
                parts.append(f'```text\n{text.rstrip()}\n```')
    return '\n\n'.join(parts)
